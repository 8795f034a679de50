"""A range test's result: what it prints, and its way to a file and back."""

import json

import numpy as np
import pytest

import tfschedules as tfs
from tfschedules.suggestions import Bounds

RATES = np.geomspace(1e-5, 10, 100)
CURVE = 2 / (1 + (RATES / 1e-2) ** 2) + RATES**2


def result(losses=CURVE, **arguments):
    return tfs.RangeTestResult.from_sweep(RATES, losses, steps=120, **arguments)


def assert_same(a, b):
    for name in ("learning_rates", "losses", "smoothed_losses", "sweeps"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    for name in ("stop_reason", "suggestion", "reason", "suggestions", "bounds"):
        assert getattr(a, name) == getattr(b, name)
    assert (a.mode, a.steps, a.rule) == (b.mode, b.steps, b.rule)


@pytest.mark.parametrize(
    "losses",
    [
        CURVE,
        np.ones(100),
        np.where(RATES > 1, np.nan, CURVE),
        np.where(RATES > 1, np.inf, CURVE),
        np.where(RATES > 1, -np.inf, CURVE),
        np.stack([CURVE, 1.1 * CURVE, CURVE + 0.1]),
    ],
)
def test_saved_and_loaded_it_is_the_same(losses, tmp_path):
    path = tmp_path / "test.json"
    before = result(losses, stop_reason="diverged", rule="steepest")
    before.save(path)
    after = tfs.RangeTestResult.load(path)
    assert_same(before, after)
    assert after.bounds is None or isinstance(after.bounds, Bounds)
    # Standard JSON: other programs read it, too.
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))


def test_saving_replaces_a_file_as_a_whole(tmp_path, monkeypatch):
    path = tmp_path / "test.json"
    result().save(path)
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("os.fdopen", full)
        with pytest.raises(OSError, match="disk full"):
            result(np.ones(100)).save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["test.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "3",
        '{"format": "other"}',
        '{"format": "tfschedules.range_test"}',
        '{"format": "tfschedules.range_test", "version": 99}',
        '{"format": "tfschedules.range_test", "version": "x"}',
    ],
)
def test_what_is_not_a_result_is_refused(text, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(
        ValueError, match=r"other\.json' is not a range test.*save\(path\)"
    ):
        tfs.RangeTestResult.load(path)


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "test.json"
    result().save(path)
    whole = path.read_text()
    stored = json.loads(whole)
    for damage in (
        whole[: len(whole) // 2],
        json.dumps(stored | {"losses": stored["losses"][:-1]}),
        json.dumps(stored | {"losses": ["x"] * 100}),
        json.dumps({k: v for k, v in stored.items() if k != "reason"}),
        json.dumps(stored | {"surplus": 1}),
        json.dumps(stored | {"bounds": [1.0]}),
    ):
        path.write_text(damage)
        with pytest.raises(ValueError, match="is not a range test"):
            tfs.RangeTestResult.load(path)
    with pytest.raises(FileNotFoundError, match="missing"):
        tfs.RangeTestResult.load(tmp_path / "missing.json")


def test_printed_it_is_three_lines_one_can_act_on():
    lines = str(result(stop_reason="diverged")).splitlines()
    assert len(lines) == 3
    assert lines[0] == "Range test: 100 of 120 steps, 1e-05 to 10; diverged."
    assert lines[1].startswith(f"Suggested learning rate: {result().suggestion:.3g}. ")
    bounds = result().bounds
    assert f"base_lr={bounds.base_lr:.3g}, max_lr={bounds.max_lr:.3g}" in lines[2]
    assert "steepest" in lines[2]
    refused = str(result(np.ones(100))).splitlines()
    assert refused[1].startswith("Suggested learning rate: none. ")
    assert "no bounds" in refused[2]


def test_nothing_swept():
    empty = tfs.RangeTestResult.from_sweep([], [], steps=100, stop_reason="interrupted")
    assert empty.suggestion is None
    assert str(empty).startswith("Range test: 0 of 100 steps; interrupted.")


def test_several_sweeps_are_read_by_their_mean():
    noise = np.random.default_rng(0).normal(scale=0.2, size=(4, 100))
    several = result(CURVE + noise)
    np.testing.assert_allclose(several.losses, (CURVE + noise).mean(axis=0))
    assert several.sweeps.shape == (4, 100)


def test_drawn_on_given_axes_and_on_its_own():
    import matplotlib.pyplot as plt

    _, given = plt.subplots()
    before = result()
    assert before.plot(given) is given
    raw, smoothed = given.lines[:2]
    np.testing.assert_array_equal(raw.get_xydata(), np.stack([RATES, CURVE], axis=1))
    np.testing.assert_array_equal(smoothed.get_ydata(), before.smoothed_losses)
    assert given.get_xscale() == "log"
    assert any(before.suggestion in line.get_xdata() for line in given.lines[2:])
    own = result(mode="linear").plot()
    assert own is not given
    assert own.get_xscale() == "linear"
    assert tuple(own.figure.get_size_inches()) == (5.0, 3.1)
    plt.close("all")


@pytest.mark.parametrize(
    "losses", [np.full(100, np.nan), np.ones(100), [np.inf] * 100], ids=str
)
def test_what_has_no_descent_is_drawn_all_the_same(losses):
    import matplotlib.pyplot as plt

    ax = result(np.array(losses)).plot()
    ax.figure.canvas.draw()
    plt.close("all")


def test_the_picture_leaves_pyplot_alone():
    import matplotlib.pyplot as plt

    from tfschedules import plots

    picture, width, height = plots.range_test_png(result())
    assert picture.startswith(b"\x89PNG")
    assert (width, height) == (800, 496)
    assert plt.get_fignums() == []


def test_a_schedule_is_drawn_over_its_steps():
    import matplotlib.pyplot as plt

    schedule = tfs.Linear(1.0, 0.0, 10)
    line = schedule.plot(12).lines[0]
    np.testing.assert_array_equal(line.get_xdata(), np.arange(12))
    np.testing.assert_array_equal(line.get_ydata(), schedule.values(12))
    line = schedule.plot(np.array([3, 5])).lines[0]
    np.testing.assert_array_equal(line.get_xdata(), [3, 5])
    plt.close("all")
