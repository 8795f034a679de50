"""A range test's result: what it prints, and its way to a file and back."""

import base64
import csv
import itertools
import json
import re

import numpy as np
import pytest

import tfschedules as tfs
from tfschedules.finding.suggestions import Bounds

RATES = np.geomspace(1e-5, 10, 100)
CURVE = 2 / (1 + (RATES / 1e-2) ** 2) + RATES**2


def result(losses=CURVE, **arguments):
    return tfs.RangeTestResult.from_sweep(RATES, losses, steps=120, **arguments)


def assert_same(a, b):
    arrays = ("learning_rates", "losses", "smoothed_losses", "sweeps")
    for name in (*arrays, "values", "smoothed_values"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    for name in ("stop_reason", "suggestion", "reason", "suggestions", "bounds"):
        assert getattr(a, name) == getattr(b, name)
    for name in ("mode", "steps", "rule", "metric", "higher_is_better", "group"):
        assert getattr(a, name) == getattr(b, name)


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


LOOKS = np.where(np.arange(100) % 4 == 3, 1 - CURVE / 200, np.nan)


def accuracies(values=LOOKS, **arguments):
    return result(
        values=values, metric="val_accuracy", higher_is_better=True, **arguments
    )


def test_a_metric_is_saved_and_loaded(tmp_path):
    before = accuracies(group="head", stop_reason="diverged")
    before.save(tmp_path / "test.json")
    assert_same(before, tfs.RangeTestResult.load(tmp_path / "test.json"))


def test_a_metric_is_read_where_it_was_measured():
    read = accuracies()
    # Higher is better: the same as the loss 1 - accuracy at those steps.
    same = tfs.RangeTestResult.from_sweep(RATES[3::4], CURVE[3::4] / 200, steps=25)
    assert read.suggestion == pytest.approx(same.suggestion)
    assert read.bounds == pytest.approx(same.bounds)
    np.testing.assert_array_equal(np.isnan(read.smoothed_values), np.isnan(LOOKS))
    np.testing.assert_allclose(
        read.smoothed_values[3::4], 1 - same.smoothed_losses, rtol=1e-9
    )
    assert str(read).startswith("Range test of val_accuracy: 100 of 120 steps")
    assert "for the group 'head'" in str(accuracies(group="head"))


def test_more_is_not_advised_where_training_has_diverged():
    rising = np.linspace(0, 1, 100) ** 2
    for stop_reason, advised in (("finished", True), ("diverged", False)):
        read = accuracies(values=rising, stop_reason=stop_reason)
        assert ("raise `max_lr`" in read.reason) == advised


def test_a_metric_after_a_lost_loss_is_not_read():
    losses = np.where(RATES > 1, np.nan, CURVE)
    everywhere = 1 - np.minimum(CURVE, 3) / 200
    everywhere[RATES > 1] = 1.0  # as if NaN were the best of models
    read = result(losses, values=everywhere, metric="accuracy", higher_is_better=True)
    assert read.suggestion < 1
    assert np.isnan(read.smoothed_values[RATES > 1]).all()


def test_several_results_are_read_together():
    noise = np.random.default_rng(0).normal(scale=0.2, size=(3, 100))
    parts = [result(CURVE + row) for row in noise]
    short = tfs.RangeTestResult.from_sweep(
        RATES[:80], (CURVE + noise[0])[:80], steps=120, stop_reason="diverged"
    )
    together = tfs.RangeTestResult.of_several([short, *parts[1:]])
    # As far as two of the three got; the short one is missed from its end on.
    assert together.sweeps.shape == (3, 100)
    assert together.stop_reason == "finished"
    assert np.isnan(together.sweeps[0, 80:]).all()
    curves = CURVE + noise
    np.testing.assert_allclose(together.losses[:80], curves[:, :80].mean(axis=0))
    np.testing.assert_allclose(together.losses[80:], curves[1:, 80:].mean(axis=0))
    together = tfs.RangeTestResult.of_several([short, short, parts[0]])
    assert together.sweeps.shape == (3, 80)
    assert together.stop_reason == "diverged"
    assert "in 3 sweeps" in str(together)
    assert tfs.RangeTestResult.of_several(parts[:1]) is parts[0]
    with pytest.raises(ValueError, match="must hold a result"):
        tfs.RangeTestResult.of_several([])


def test_as_a_table_for_spreadsheets(tmp_path):
    path = tmp_path / "test.csv"
    result(np.where(RATES > 1, np.nan, CURVE)).save_csv(path)
    rows = list(csv.reader(path.read_text().splitlines()))
    assert rows[0] == ["step", "learning_rate", "loss", "smoothed_loss"]
    assert len(rows) == 101
    assert [float(row[1]) for row in rows[1:]] == RATES.tolist()
    assert float(rows[1][2]) == CURVE[0]
    assert rows[-1][2:] == ["", ""]
    accuracies(
        losses=np.stack([CURVE, CURVE]), values=np.stack([LOOKS, LOOKS])
    ).save_csv(path)
    rows = list(csv.reader(path.read_text().splitlines()))
    assert rows[0][4:] == [
        "val_accuracy", "smoothed_val_accuracy", "sweep_1", "sweep_2"
    ]  # fmt: skip
    assert rows[1][4] == ""
    assert float(rows[4][6]) == LOOKS[3]


def test_a_notebook_shows_the_picture_by_itself(monkeypatch):
    shown = result()._repr_html_()
    data = re.search(r'src="data:image/png;base64,([^"]+)"', shown)[1]
    assert base64.b64decode(data).startswith(b"\x89PNG")
    assert "Suggested learning rate" in shown
    # Names are text, and open nothing.
    shown = accuracies(group="<script>x</script>")._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    shown = result()._repr_html_()
    assert "<img" not in shown
    assert "Suggested learning rate" in shown


def test_a_console_shows_no_arrays():
    shown = repr(result())
    assert len(shown) < 100
    assert f"suggestion={result().suggestion!r}" in shown
    assert "array" not in shown


def test_several_sweeps_are_drawn_as_a_band():
    import matplotlib.pyplot as plt

    noise = np.random.default_rng(0).normal(scale=0.2, size=(4, 100))
    ax = result(CURVE + noise).plot()
    (band,) = [c for c in ax.collections if hasattr(c, "get_paths")]
    points = band.get_paths()[0].vertices
    for at in (0, 50):
        inside = points[np.isclose(points[:, 0], RATES[at]), 1]
        assert inside.min() == pytest.approx((CURVE + noise)[:, at].min())
        assert inside.max() == pytest.approx((CURVE + noise)[:, at].max())
    plt.close("all")


def test_a_metric_is_drawn_where_it_was_measured():
    import matplotlib.pyplot as plt

    ax = accuracies(group="head").plot()
    raw = ax.lines[0]
    np.testing.assert_array_equal(raw.get_xdata(), RATES[3::4])
    np.testing.assert_array_equal(raw.get_ydata(), LOOKS[3::4])
    assert ax.get_ylabel() == "val_accuracy"
    assert ax.get_xlabel() == "learning rate of head"
    low, high = ax.get_ylim()
    assert low < LOOKS[3] < high  # from where it rises
    assert low < np.nanmax(LOOKS) < high  # to where it is best
    assert high - low < 0.2  # and not down to where it breaks
    plt.close("all")


@pytest.mark.parametrize("compared", [False, True])
@pytest.mark.parametrize("most", [1.0, 1.5])
def test_the_axis_of_an_accuracy_shows_nothing_that_none_can_be(most, compared):
    import matplotlib.pyplot as plt

    values = most / (1 + 1e-2 / RATES)  # from nearly 0 to nearly `most`
    values[-1] = most
    rising = tfs.RangeTestResult.from_sweep(
        RATES,
        CURVE,
        steps=100,
        metric="accuracy",
        values=values,
        higher_is_better=True,
    )
    if compared:
        ax = tfs.RangeTestComparison("momentum", {0.5: rising, 0.9: rising}).plot()
    else:
        ax = rising.plot()
    low, high = ax.get_ylim()
    smoothed = rising.smoothed_values
    assert low < smoothed.min() < smoothed.max() < high  # all is seen
    if most == 1.0:
        assert low >= -0.05
        assert high <= 1.05
    else:  # no accuracy: there is the usual room for a legend
        assert low < -0.1
    plt.close("all")


def comparison():
    better = {0.0: CURVE, 1e-3: 0.5 * CURVE, 0.1: np.ones(100)}
    return tfs.RangeTestComparison(
        "weight_decay", {key: result(curve) for key, curve in better.items()}
    )


def test_a_comparison_is_a_table_and_a_picture():
    import matplotlib.pyplot as plt

    compared = comparison()
    assert compared.best == 1e-3
    lines = str(compared).splitlines()
    assert lines[0].split("  ")[0] == "weight_decay"
    assert [line.split()[0] for line in lines[2:]] == ["0", "0.001", "0.1"]
    assert lines[4].split()[1] == "none"
    ax = compared.plot()
    assert (
        sum(line.get_marker() == "o" for line in ax.lines) == 2
    )  # no suggestion: no dot
    _, given = plt.subplots()
    assert compared.plot(given) is given
    shown = compared._repr_html_()
    assert "<table " in shown
    assert "data:image/png" in shown
    assert "flat" in shown  # each reason
    none = tfs.RangeTestComparison("momentum", {0.9: result(np.ones(100))})
    assert none.best is None
    groups = tfs.RangeTestComparison("group", {"head": result()})
    assert groups.best is None
    plt.close("all")


def test_saving_replaces_a_file_as_a_whole(tmp_path, monkeypatch):
    path = tmp_path / "test.json"
    result().save(path)
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", full)
        with pytest.raises(OSError, match="disk full"):
            result(np.ones(100)).save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["test.json"]
    # Others may read it as they may any other file, or as they might before.
    (tmp_path / "other").write_text("")
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode
    path.chmod(0o640)
    result().save(path)
    assert path.stat().st_mode & 0o777 == 0o640


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
        json.dumps(stored | {"bounds": ["low", "high"]}),
        json.dumps(stored | {"suggestion": "0.1"}),
        json.dumps(stored | {"suggestions": [1.0]}),
        json.dumps(stored | {"suggestions": {"valley": "0.1"}}),
        json.dumps(stored | {"group": 3}),
        json.dumps(stored | {"metric": None}),
        json.dumps(stored | {"steps": "many"}),
        json.dumps(stored | {"higher_is_better": "no"}),
        json.dumps(stored | {"values": [stored["values"]]}),
        json.dumps(stored | {"sweeps": stored["sweeps"][0]}),
        whole.replace('"bounds": [', '"bounds": [' + "[" * 100_000),
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
    short = tfs.RangeTestResult.from_sweep(RATES[:2], CURVE[:2], steps=100).plot()
    short.figure.canvas.draw()
    boxes = [label.get_window_extent() for label in short.get_xticklabels()]
    assert all(a.x1 <= b.x0 for a, b in itertools.pairwise(boxes))
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

    from tfschedules.finding import pictures

    picture, width, height = pictures.range_test_png(result())
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
    ax = tfs.Constant(5.0).plot(12, schedule.plot(12))
    assert ax.get_ylim()[0] <= 0 < 5 < ax.get_ylim()[1]  # both are seen whole
    plt.close("all")


def test_a_run_has_the_metric_that_was_read_under_its_name(tmp_path):
    from event_files import read

    from tfschedules.finding.reports import new_range_test_run, report, write_range_test

    accuracy = np.full(100, np.nan)
    accuracy[9::10] = np.linspace(0.1, 0.9, 10)
    test = result(metric="val_accuracy", values=accuracy, higher_is_better=True)
    run = new_range_test_run(tmp_path)
    write_range_test(test, run)
    tags = read(run)
    np.testing.assert_allclose(tags["range_test/loss"][1], CURVE, rtol=1e-6)
    np.testing.assert_allclose(
        tags["range_test/smoothed_loss"][1], test.smoothed_losses, rtol=1e-6
    )
    steps, values, _ = tags["range_test/val_accuracy"]
    np.testing.assert_array_equal(steps, np.arange(9, 100, 10))
    np.testing.assert_allclose(values, accuracy[9::10], rtol=1e-6)
    steps, values, _ = tags["range_test/smoothed_val_accuracy"]
    np.testing.assert_allclose(values, test.smoothed_values[steps], rtol=1e-6)
    # The rate of one group is not a peak for all of them.
    assert "tfs.OneCycle" in report(result())
    assert "tfs.OneCycle" not in report(result(group="head"))
    assert "rate of the group head" in report(result(group="head"))
