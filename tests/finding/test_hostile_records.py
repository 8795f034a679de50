"""Files of others and names of every kind: refused, or shown, drawn and saved."""

from __future__ import annotations

import copy
import csv
import json
import os
import pickle
import random
import warnings

import numpy as np
import pytest

import tfschedules as tfs
from tfschedules.finding import pictures

pytestmark = pytest.mark.any_backend

RATES = np.geomspace(1e-5, 1, 24)
CURVE = 2 / (1 + RATES / 0.01) + 5 * RATES**2
ARRAYS = ("learning_rates", "losses", "smoothed_losses", "values", "smoothed_values")
ODD_NAMES = [
    "cost_$_per_$x",
    "$\\frac{$",
    "\\$x$",
    "_hidden",
    "_$a$",
    "100%d %s %(x)s {0} {x}",
    "<script>x</script> & \"'",
    "*a* `b` | # [c](d)",
    "two\nlines",
    "a" * 5000,
]


def result(**arguments):
    losses = arguments.pop("losses", CURVE)
    return tfs.RangeTestResult.from_sweep(RATES, losses, steps=50, **arguments)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Hundreds of files are written, and a disk with much to do takes its time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "test.json"


@pytest.fixture
def stored(path):
    """What a saved result holds."""
    result(losses=np.stack([CURVE, 1.1 * CURVE])).save(path)
    return json.loads(path.read_text())


def use(loaded, folder, *, draw):
    """All that one can do with a result."""
    repr(loaded)
    str(loaded).encode()
    loaded.save(folder / "again.json")
    again = tfs.RangeTestResult.load(folder / "again.json")
    np.testing.assert_array_equal(again.sweeps, loaded.sweeps)
    loaded.save_csv(folder / "again.csv")
    pickle.loads(pickle.dumps(loaded))
    copy.deepcopy(loaded)
    compared = tfs.RangeTestComparison("momentum", {0.5: loaded, 0.9: result()})
    str(compared)
    if draw:
        import matplotlib.pyplot as plt

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # that a font lacks
            pictures.range_test_png(loaded)
            compared.plot().figure.canvas.draw()
        plt.close("all")


# ------------------------------------------------------------------- what is refused


def nested(depth, inner="1"):
    return "[" * depth + inner + "]" * depth


def in_place_of(stored, name, raw):
    """A file in which JSON stands that Python's own writer does not write."""
    return json.dumps(stored | {name: "@@"}).replace('"@@"', raw)


BIG = "1" + "0" * 400
NOT_READ = [
    *(("suggestion", raw) for raw in (BIG, "-1", "0", "NaN", "1e400", "true", '"0.1"')),
    *(("steps", raw) for raw in (BIG, "-5", "1.5", "true", "null", "1" * 5000)),
    *(("bounds", raw) for raw in (f"[1, {BIG}]", "[1]", "[0.2, 0.1]", "[-1, 1]", "{}")),
    *(("suggestions", raw) for raw in (f'{{"a": {BIG}}}', '{"a": "x"}', nested(900))),
    *(("losses", raw) for raw in (f"[{BIG}]", "[true]", "[null]", '["1e5"]', "[[1]]")),
    *(("sweeps", raw) for raw in (f"[[{BIG}]]", "[]", "[1]", "[[1], [1, 2]]", "[{}]")),
    *((name, nested(depth)) for name in ("sweeps", "losses") for depth in (70, 100)),
    ("suggestions", '{"a": ' * 500 + "1" + "}" * 500),
    ("learning_rates", str([0] * 24)),
    ("learning_rates", str([-1.0] * 24)),
    ("learning_rates", str([*range(1, 24), 1])),
    ("learning_rates", json.dumps([*RATES[:-1], "nan"])),
    ("metric", '"\\ud800"'),
    ("reason", '"\\u001b[2J"'),
    ("group", '"a\\u0000b"'),
    ("higher_is_better", "1"),
    ("surplus", "1"),
]


@pytest.mark.parametrize(("name", "raw"), NOT_READ, ids=range(len(NOT_READ)))
def test_what_no_record_may_hold_is_refused_with_the_field(path, stored, name, raw):
    path.write_text(in_place_of(stored, name, raw))
    with pytest.raises(ValueError, match=r"test\.json' is not a range test") as refusal:
        tfs.RangeTestResult.load(path)
    assert len(str(refusal.value)) < 500
    if len(raw) < 4000:  # Python's own reader refuses longer numbers
        assert repr(name) in str(refusal.value)


def test_what_a_file_may_not_hold_is_not_written(path):
    odd = result(metric="half \ud800", values=CURVE)
    with pytest.raises(ValueError, match=r"cannot be saved.*field 'reason'.*\\ud800"):
        odd.save(path)
    assert not path.exists()


def test_numpys_numbers_are_saved_as_pythons(path):
    odd = tfs.RangeTestResult.from_sweep(
        RATES, CURVE, steps=np.int64(50), higher_is_better=np.True_, metric="a",
        values=-CURVE,
    )  # fmt: skip
    odd.save(path)
    again = tfs.RangeTestResult.load(path)
    assert (again.steps, again.higher_is_better) == (50, True)
    with pytest.raises(TypeError, match="`steps` must be a number"):
        tfs.RangeTestResult.from_sweep(RATES, CURVE, steps="50")


def test_other_programs_nan_and_infinity_are_read(path, stored):
    text = json.dumps(stored | {"losses": [float("nan"), -np.inf, *CURVE[2:]]})
    assert "-Infinity" in text
    path.write_text(text)
    losses = tfs.RangeTestResult.load(path).losses
    assert np.isnan(losses[0])
    assert losses[1] == -np.inf
    np.testing.assert_array_equal(losses[2:], CURVE[2:])


# ------------------------------------------------------- what is read can be shown

SHOWN = {
    "beyond an axis": {"values": [1e308, -1e308] * 12},
    "infinite": {"values": ["inf"] * 24},
    "not there": {"values": ["nan"] * 24, "smoothed_values": ["nan"] * 24},
    "nearly nothing": {"values": [5e-324] * 24, "smoothed_values": [0.0, 5e-324] * 12},
    "nearly equal": {"smoothed_values": [1e300, 1.0000000000000002e300] * 12},
    "smoothed": {"smoothed_values": ["-inf", 1e308, "nan", 0] * 6},
    "sweeps": {"sweeps": [["-inf"] * 24, [1e308] * 24, ["nan"] * 24]},
    "smallest rates": {"learning_rates": [5e-324 * (i + 1) for i in range(24)]},
    "largest rates": {"learning_rates": [1.5e308 * (1 + i / 200) for i in range(24)]},
    "all rates": {"learning_rates": [5e-324, *RATES[1:-1], 1.7e308]},
    "far suggestion": {"suggestion": 1.7e308, "bounds": [5e-324, 1.7e308]},
    "near suggestion": {"suggestion": 5e-324, "bounds": [1e-299, 1e299]},
    "steps": {"steps": 2**63 - 1},
    "no point": {name: [] for name in ARRAYS} | {"sweeps": [[]]},
    "one point": {name: [0.1] for name in ARRAYS} | {"sweeps": [[0.1]]},
    "higher": {"higher_is_better": True, "values": ["nan"] * 24},
    "empty names": {"metric": "", "group": "", "mode": "", "suggestions": {"": 1.0}},
    **{f"name {i}": {"metric": n, "group": n} for i, n in enumerate(ODD_NAMES)},
}


@pytest.mark.parametrize("change", SHOWN.values(), ids=SHOWN)
def test_what_is_read_can_be_shown_drawn_and_saved(path, stored, change):
    for mode in ("exponential", "linear")[: 1 if "metric" in change else 2]:
        path.write_text(json.dumps(stored | {"mode": mode} | change))
        use(tfs.RangeTestResult.load(path), path.parent, draw=True)


# ------------------------------------------------------ what a sweep may have seen


def odd_losses(chance, n):
    """Losses of no training that one would like to have."""
    a = chance.normal(size=n)
    kind = chance.integers(8)
    huge = np.exp(np.linspace(0, 709, n))
    odd = chance.choice([np.nan, np.inf, -np.inf, 1e308, -1e308, 5e-324])
    return [
        np.clip(a, -1.7, 1.7) * 1e308,
        np.where(a > 1.0, 1.7e308, a),
        np.full(n, odd),
        np.where(a > 0.5, odd, a),
        huge,
        -huge,
        np.round(9 * a) * 5e-324,
        np.sort(a)[::-1] * chance.choice([1e-300, 1.0, 1e300]),
    ][kind]


def test_a_sweep_is_a_result_whatever_the_losses_were(path):
    chance = np.random.default_rng(0)
    for trial in range(240):
        n = int(chance.choice([0, 1, 2, 4, 5, 7, 10, 30]))
        rates = np.geomspace(1e-300, 1e300, n) if trial % 2 else RATES[: min(n, 24)]
        n = len(rates)
        sweeps = np.stack([odd_losses(chance, n) for _ in range(1 + trial % 3)])
        settings = {}
        if trial % 5 == 0:
            values = np.stack([odd_losses(chance, n) for _ in sweeps])
            settings = {"values": values, "metric": "a", "higher_is_better": trial % 2}
        made = tfs.RangeTestResult.from_sweep(rates, sweeps, steps=30, **settings)
        np.testing.assert_array_equal(made.sweeps.shape, sweeps.shape)
        if trial % 20 == 0:
            made.save(path)
            use(tfs.RangeTestResult.load(path), path.parent, draw=trial % 80 == 0)


def test_the_highest_numbers_are_compared_without_a_warning():
    from tfschedules.finding.divergence import diverged

    assert not diverged([1e308] * 5 + [1.5e308] * 3, 4.0)  # four times it is infinite
    assert diverged([0.1] * 5 + [1.5e308] * 3, 4.0)
    assert diverged([-1e308] * 5 + [1.5e308] * 3, 1.5)  # so is what lies between


# ---------------------------------------------------------------------------- fuzz

ODD = [
    *(None, True, -1, 1.5, 10**400, 1e308, float("nan"), "NaN", "inf", "abc", "", {}),
    *([], [1], [[1]], [[], []], [[10**400]], {"descent": "x"}, "\ud800", "\x1b[2J"),
    *("=cmd|'/c calc'!A1", "$\\frac{$", [0.1] * 24, [1e999] * 24, [[0.1] * 24] * 3),
]


def mutations(stored, count):
    """Damaged files: fields and items changed, and bytes."""
    chance, letters = random.Random(0), b'"[]{},:9e-\x00\xff'
    raw = json.dumps(stored).encode()
    for i in range(count):
        if i % 2:
            damaged = bytearray(raw)
            for _ in range(chance.randint(1, 6)):
                damaged[chance.randrange(len(raw))] = chance.choice(letters)
            end = chance.choice([len(raw), chance.randrange(len(raw))])
            yield bytes(damaged[:end])
            continue
        fields = copy.deepcopy(stored)
        for name in chance.sample([*stored, "surplus"], chance.randint(1, 2)):
            value = fields.get(name)
            if isinstance(value, list) and value and chance.random() < 0.5:
                value[chance.randrange(len(value))] = chance.choice(ODD)
            elif chance.random() < 0.1:
                fields.pop(name, None)
            else:
                fields[name] = chance.choice(ODD)
        yield json.dumps(fields).encode()


def test_damaged_files_are_refused_or_can_be_used(path, stored):
    accepted = refused = 0
    for damaged in mutations(stored, 1000):
        path.write_bytes(damaged)
        try:
            loaded = tfs.RangeTestResult.load(path)
        except ValueError:
            refused += 1
            continue
        accepted += 1
        use(loaded, path.parent, draw=accepted % 16 == 0)
    assert accepted > 30
    assert refused > 700


# ------------------------------------------------------------------ names in pictures


def drawn_texts(figure):
    """The texts of a figure as they are drawn: mathematics would fail, or be set."""
    import matplotlib.text

    figure.canvas.draw()
    texts = [text for text in figure.findobj(matplotlib.text.Text) if text.get_text()]
    return {text._preprocess_math(text.get_text()) for text in texts}


@pytest.mark.parametrize("name", ODD_NAMES[:6])
def test_names_are_drawn_as_they_are_written(name):
    import matplotlib.pyplot as plt

    test = result(metric=name, values=CURVE, group=name)
    ax = test.plot()
    ax.legend()  # as a user does who has drawn something else, too
    texts = drawn_texts(ax.figure)
    assert (name, False) in texts  # the axis
    assert (f"learning rate of {name}", False) in texts
    entries = {text.strip() for text, is_math in texts if is_math is False}
    legend = {text.get_text().strip() for text in ax.get_legend().get_texts()}
    assert len(legend) == 4  # the raw curve is named there, too, "_" or not
    assert name in {text.replace("\\$", "$") for text in legend}
    assert name in entries
    ax = tfs.RangeTestComparison("group", {name: test, "b": test}).plot()
    assert (f"group {name}", False) in drawn_texts(ax.figure)
    plt.close("all")


def test_names_are_no_tex_where_the_user_has_tex_for_the_rest(monkeypatch):
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    with mpl.rc_context({"text.usetex": True}):
        ax = result(metric="val_acc", values=CURVE, group="a_b").plot()
    assert not ax.xaxis.label.get_usetex()
    assert not ax.yaxis.label.get_usetex()
    named = {text.get_text(): text for text in ax.get_legend().get_texts()}
    assert not named["val_acc"].get_usetex()
    with mpl.rc_context({"text.parse_math": False}):
        ax = result(metric="$a$", values=CURVE).plot()
    assert "$a$" in {text.get_text() for text in ax.get_legend().get_texts()}
    plt.close("all")


def test_a_notebook_sets_no_mathematics_and_shows_a_result_without_its_picture(
    monkeypatch,
):
    name = "<b>$x$</b>"
    test = result(metric=name, values=CURVE, group=name)
    compared = tfs.RangeTestComparison("group", {name: test})
    for shown in (test._repr_html_(), compared._repr_html_()):
        assert shown.startswith('<div class="tex2jax_ignore mathjax_ignore">')
        assert "<b>" not in shown
        assert "&lt;b&gt;$x$&lt;/b&gt;" in shown

    def fails(*arguments):
        raise ImportError("numpy.core.multiarray <failed>")

    monkeypatch.setattr(pictures, "_png", fails)
    for shown in (test._repr_html_(), compared._repr_html_()):
        assert "cannot be drawn: ImportError: numpy.core.multiarray &lt;failed" in shown
        assert "&lt;b&gt;$x$&lt;/b&gt;" in shown


def test_a_name_of_two_lines_is_one_row_of_a_table():
    compared = tfs.RangeTestComparison("group", {"two\nlines": result(), "b": result()})
    lines = str(compared).splitlines()
    assert len(lines) == 4
    assert [line[:11].strip() for line in lines[2:]] == ["two lines", "b"]
    assert len({line.index("finished") for line in lines[2:]}) == 1


def test_a_report_shows_names_as_they_are_written():
    import html
    import re

    from tensorboard.plugin_util import markdown_to_safe_html

    from tfschedules.finding.reports import report

    for name in ("*a* __b__", "<img src=x> & &amp;", "[c](d)", "a|b", "# \\*"):
        test = result(metric=name, values=CURVE, group=f"{name} `")
        shown = markdown_to_safe_html(report(test))
        assert "<em>" not in shown
        text = html.unescape(re.sub(r"<[^>]*>", "", shown))
        assert f"Range test of {name} for the group '" in text
        assert f"rate of the group {name} `: its multiplier" in text
    flat = report(result(losses=0 * RATES))
    assert "<code>max_lr</code>" in markdown_to_safe_html(flat)


# ---------------------------------------------------------------------- spreadsheets


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＠"])
def test_no_cell_of_a_table_is_a_formula(path, begin):
    metric = f'{begin}cmd|"/c calc",A1'
    losses = np.where(RATES > 0.5, np.nan, -CURVE)
    test = result(losses=losses, metric=metric, values=-CURVE)
    test.save_csv(path)
    with path.open(newline="", encoding="utf-8") as file:
        heads, *rows = csv.reader(file, strict=True)
    assert heads[4:] == [f"'{metric}", f"smoothed_{metric}"]
    # A negative number is a number.
    count = int((RATES <= 0.5).sum())
    for column in (2, 4):
        numbers = [float(row[column]) for row in rows[:count]]
        np.testing.assert_array_equal(numbers, -CURVE[:count])
        assert {row[column] for row in rows[count:]} == {""}


def test_a_metric_with_the_name_of_a_column_has_a_column_of_its_own(path):
    result(metric="learning_rate", values=CURVE).save_csv(path)
    heads, *rows = csv.reader(path.read_text().splitlines())
    assert heads[1] == heads[4] == "learning_rate"
    np.testing.assert_array_equal([float(row[1]) for row in rows], RATES)
    np.testing.assert_array_equal([float(row[4]) for row in rows], CURVE)


# -------------------------------------------------------------------------- full disks


@pytest.mark.parametrize("where", ["write", "flush", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(path, monkeypatch, where):
    result().save(path)
    before = path.read_bytes()

    def full(*arguments, **named):
        raise OSError(28, "No space left on device")

    if where == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    elif where == "replace":
        monkeypatch.setattr("pathlib.Path.replace", full)
    else:
        real = type(path).open

        def opened(self, *arguments, **named):
            file = real(self, *arguments, **named)

            class Full:
                def __enter__(self):
                    return self

                def __exit__(self, *error):
                    file.close()

                def __getattr__(self, name):
                    return full if name == where else getattr(file, name)

            return Full()

        monkeypatch.setattr(type(path), "open", opened)
    for save in (result(losses=-CURVE).save, result(losses=-CURVE).save_csv):
        with pytest.raises(OSError, match="No space left"):
            save(path)
        monkeypatch.undo() if save.__name__ == "save_csv" else None
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["test.json"]


def test_a_link_goes_on_to_lead_to_the_file(tmp_path):
    (tmp_path / "disk").mkdir()
    link = tmp_path / "test.json"
    link.symlink_to(tmp_path / "disk" / "test.json")
    for losses in (CURVE, 2 * CURVE):
        result(losses=losses).save(link)
        assert link.is_symlink()
        assert tfs.RangeTestResult.load(link).losses[0] == losses[0]


def test_the_longest_name_that_a_file_can_have(tmp_path):
    path = tmp_path / ("n" * 250 + ".json")
    result().save(path)
    assert len(tfs.RangeTestResult.load(path).losses) == 24
