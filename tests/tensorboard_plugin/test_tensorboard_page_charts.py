"""The Schedules tab's charts in a browser: what is drawn, and where."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from tensorboard_server import Written

pytestmark = pytest.mark.any_backend

RATE, MOMENTUM, LOSS = (
    f"schedule/{name}" for name in ("learning_rate", "momentum", "loss")
)


@pytest.fixture(autouse=True)
def written(page, tensorboards) -> Written:
    """What the folder holds that the page shows, which is opened anew."""
    server, written = tensorboards.known("fast")
    page.open(server, alone=True)
    return written


def floats(values: list) -> np.ndarray:
    """Numbers from JSON, NaN and infinities from words."""
    return np.array([float(value) for value in values])


# ------------------------------------------------------------------------ range tests


def test_suggestions_bounds_and_bands_are_where_they_belong(page, written):
    colors = page.colors()
    for run in ("tests/four sweeps", "tests/accuracy"):
        result = written.tests[run]
        page.only(run)
        chart = page.chart(result.metric)
        color = colors[run]
        low, high, log = chart.axis("y")
        assert chart.axis("x")[2]
        assert not log
        # The dashed rule at the suggestion: more of its color there than beside it.
        heights = np.linspace(low, high, 60)[1:-1]
        rule = chart.ink(color, [(result.suggestion, y) for y in heights])
        assert rule > 25
        for factor in (0.95, 1.05):
            beside = [(result.suggestion * factor, y) for y in heights]
            assert chart.ink(color, beside) < 15
        # Its dot, on the curve.
        seen = np.isfinite(result.smoothed_values)
        height = np.interp(
            result.suggestion, result.learning_rates[seen], result.smoothed_values[seen]
        )
        assert chart.ink(color, [(result.suggestion, height)], reach=0) == 1
        # The cycle's bounds, shaded: another color than just outside of them.
        top = high - 0.07 * (high - low)  # below the suggestion's number
        first, last = result.bounds
        rates = [first * 0.97, first * 1.03, last * 0.97, last * 1.03]
        shades = chart.js(
            """
            const at = (v, axis) => Math.round(chart.chart.valToPos(v, axis, true));
            return rest.map(([x, y]) =>
              plain(pixels(chart, at(x, "x"), at(y, "y"), 1, 1)))""",
            *([rate, top] for rate in rates),
        )
        assert shades[1] == shades[2] != shades[0] == shades[3]
        # Its number is in ink, which has contrast enough; the dot has the color.
        place = chart.js(
            """
            const place = Math.round(chart.chart.valToPos(rest[0], "x", true));
            const {top} = chart.chart.bbox;
            return [like(pixels(chart, place + 19, top, 50, 16), "rgb(33, 33, 33)"),
              like(pixels(chart, place + 19, top, 50, 16), rest[1]),
              like(pixels(chart, place + 5, top, 10, 16), rest[1])]""",
            result.suggestion,
            color,
        )
        ink, colored, dot = place
        assert ink > 30
        assert colored == 0
        assert dot > 20
    # What they are without marks.
    page.control("suggestions")
    assert chart.ink(color, [(result.suggestion, y) for y in heights]) < 15


def test_the_band_is_between_the_lowest_and_the_highest_sweep(page, written):
    page.only("tests/four sweeps")
    chart = page.chart("loss")
    result = written.tests["tests/four sweeps"]
    (band,) = chart.js(
        "return chart.content.bands.map(({low, high}) => [low, high].map(({x, y}) =>"
        " [plain(x), plain(y)]))"
    )
    for edge, of in zip(band, (np.nanmin, np.nanmax), strict=True):
        np.testing.assert_array_equal(floats(edge[0]), result.learning_rates)
        np.testing.assert_array_equal(floats(edge[1]), of(result.sweeps, axis=0))
    page.control("band of repeats")
    assert chart.js("return chart.content.bands") == []
    page.control("raw")
    (smoothed,) = chart.lines()
    np.testing.assert_array_equal(floats(smoothed["y"]), result.smoothed_values)


def test_the_table_says_what_was_found(page, written):
    heads = page.js(
        "return [...document.querySelectorAll('th[scope=col]')].map((e) => e.innerText)"
    )
    rows = page.js(
        "return [...document.querySelectorAll('tbody tr')].map((row) =>"
        " [...row.children].map((cell) => cell.textContent))"
    )
    found = {row[0]: dict(zip(heads, row, strict=True)) for row in rows if len(row) > 2}
    assert found.keys() == written.tests.keys()
    for run, result in written.tests.items():
        row = found[run]
        assert float(row["suggestion"]) == pytest.approx(result.suggestion, rel=5e-3)
        bounds = [float(end) for end in row["cycle"].split(" … ")]
        assert bounds == pytest.approx([*result.bounds], rel=5e-3)
        assert row["ended"] == result.stop_reason
        assert row["steps"] == f"100 of {result.steps}"
        # The suggestion has a column, and is not said again with other digits.
        rule, rest = result.reason.split(f" suggests {result.suggestion:.2g}")
        assert row["why"] == rule + rest
        best = np.nanmax if result.higher_is_better else np.nanmin
        seen = result.smoothed_values[np.isfinite(result.smoothed_values)]
        value, rate = map(float, row["best value"].split(" at "))
        assert value == pytest.approx(best(seen), rel=5e-4)
        place = result.smoothed_values.tolist().index(best(seen))
        assert rate == pytest.approx(result.learning_rates[place], rel=5e-3)
    assert found["tests/accuracy"]["metric"] == "val_accuracy, group head"
    assert found["tests/one sweep"]["metric"] == "loss"
    # All of the table is seen in a window of 1280 pixels.
    page.driver.set_window_size(1280, 900)
    try:
        wide = page.js("""
            const table = document.querySelector("main table");
            return [table.getBoundingClientRect().right, innerWidth]""")
        assert wide[0] <= wide[1]
    finally:
        page.driver.set_window_size(1400, 1100)


# ------------------------------------------------------------------------------- axes


def test_axes_are_logarithmic_where_that_is_chosen(page, written):
    """A logarithmic axis has equal distances between decades."""
    page.only("tests/one sweep")
    chart = page.chart("loss")

    def places(name: str, values: tuple) -> list[float]:
        return chart.js(
            "return rest[1].map((v) => chart.chart.valToPos(v, rest[0]))", name, values
        )

    def is_log(name: str, values: tuple) -> bool:
        first, second, third = places(name, values)
        log = second - first == pytest.approx(third - second, abs=0.01)
        assert chart.axis(name)[2] is log
        return log

    result = written.tests["tests/one sweep"]
    color = page.colors()["tests/one sweep"]
    seen = np.isfinite(result.smoothed_values) & (result.learning_rates < 1)
    curve = np.stack([result.learning_rates, result.smoothed_values], axis=1)[seen]
    x, y = (1e-3, 1e-2, 1e-1), (0.5, 1.0, 2.0)
    states = []
    for label in (None, "log rate", "log loss", "log rate", "log loss"):
        if label:
            page.control(label)
        states.append((is_log("x", x), is_log("y", y)))
        assert chart.ink(color, curve) == len(curve), label
    assert states == [
        *((True, False), (False, False), (False, True), (True, True), (True, False)),
    ]
    # "show divergence": every point is inside the axis.
    page.control("show divergence")
    low, high, _ = chart.axis("y")
    finite = result.losses[np.isfinite(result.losses)]
    assert low < finite.min() < finite.max() < high


def test_a_logarithmic_axis_may_begin_anywhere(page):
    """uPlot's own lines of the grid never end where an axis begins at 0.000955, say."""
    page.view("versus")
    chart = page.chart("versus")
    page.only("one_cycle")
    color = page.colors()["one_cycle"]
    assert chart.count(color) > 500
    for low, high in itertools.pairwise(np.geomspace(1.07e-3, 0.099, 14)):
        chart.js(
            "chart.zoomTo({x: rest.map(Math.log10)}); "
            "return new Promise((done) => requestAnimationFrame(done))",
            low,
            high,
        )
        assert chart.axis("x") == [pytest.approx(low), pytest.approx(high), True]
        assert page.console() == []
        assert chart.count(color) > 50


def test_zoomed_logarithmic_axes_have_numbers(page):
    """Some at every zoom, and never over one another.

    uPlot's own filter leaves a horizontal axis between two decades without any.
    """
    page.only("tests/one sweep")
    page.control("log loss")
    chart = page.chart("loss")
    for low, high, some in (
        (1e-5, 10, {1e-4, 1e-3, 1e-2, 0.1, 1}),
        (0.0123, 0.31, {0.02, 0.05, 0.1, 0.2}),
        (0.0021, 0.0089, {0.003, 0.005, 0.006, 0.008}),
        (0.021, 0.039, {0.025, 0.03, 0.035}),
        (0.97, 1.03, {0.98, 1, 1.02}),
        (1e-150, 1e150, {1}),
    ):
        chart.js(
            """
            const [x, y] = [rest.map(Math.log10), rest.map(Math.log10)];
            chart.zoomTo({x, y});
            return new Promise((done) => requestAnimationFrame(done))""",
            low,
            high,
        )
        for axis, name in enumerate("xy"):
            assert chart.axis(name) == [pytest.approx(low), pytest.approx(high), True]
            lines, texts = chart.js(
                """
                const {_splits, _values} = chart.chart.axes[rest[0]];
                const places = _splits.map((v) => chart.chart.valToPos(v, rest[1]));
                return [places, _values]""",
                axis,
                name,
            )
            seen = [
                (p, text)
                for p, text in zip(lines, texts, strict=True)
                if text is not None
            ]
            assert len(seen) >= 3, (low, name)
            if axis == 0 or high < 1:
                assert some <= {float(text) for _, text in seen}, (low, name)
            for (one, left), (other, right) in itertools.pairwise(seen):
                least = 6 * (len(left) + len(right)) / 2 if axis == 0 else 13
                assert abs(one - other) > least, (low, name, left, right)
                assert float(left) < float(right)


def test_training_has_its_own_log_axes_and_hours(page, written):
    page.view("training")
    page.only("one_cycle")
    tags = (RATE, MOMENTUM, LOSS)
    assert [page.chart(tag).axis("y")[2] for tag in tags] == [False, False, False]
    page.control("log rate")
    assert [page.chart(tag).axis("y")[2] for tag in tags] == [True, False, False]
    page.control("log rate")
    page.control("log loss")
    assert [page.chart(tag).axis("y")[2] for tag in tags] == [False, False, True]
    page.choose("over", "hours")
    (line,) = page.chart(RATE).lines()
    _, times, values = written.scalars["one_cycle"][RATE]
    assert floats(line["x"]) == pytest.approx((times - times[0]) / 3600)
    assert line["y"] == values.tolist()


def test_groups_are_lines_of_their_own_in_one_panel(page, written):
    page.view("training")
    page.only("groups")
    own = written.scalars["groups"]
    lines = {line["name"]: line for line in page.chart(RATE).lines()}
    tags = {
        "groups": RATE,
        "groups, body": f"{RATE}/body",
        'groups, the "head"': f'{RATE}/the "head"',
    }
    assert lines.keys() == tags.keys()
    assert len({tuple(line["dash"]) for line in lines.values()}) == 3
    color = page.colors()["groups"]
    for name, tag in tags.items():
        steps, _, values = own[tag]
        assert lines[name]["y"] == values.tolist()
        points = np.stack([steps, values], axis=1)
        if tag == RATE:
            assert page.chart(RATE).ink(color, points) == 300
        else:  # dashes
            assert 80 < page.chart(RATE).ink(color, points, reach=0) < 250
    panels = page.js("return [...schedules.views[1].panels.keys()]")
    assert panels == [RATE, MOMENTUM, LOSS]


def test_another_optimizer_has_panels_of_its_own(page):
    own = "schedule/d_optimizer/learning_rate"
    tags = [RATE, f"{RATE}/body", f"{RATE}/learning_rate", own, f"{own}/body"]
    tags += ["schedule/d_optimizer/momentum", "schedule/heads.0/learning_rate/a/b"]
    panels = page.js(
        "const tags = arguments[0];"
        'return import("./static/training.js").then((js) => tags.map(js.panelOf))',
        tags,
    )
    last = "schedule/heads.0/learning_rate"
    assert panels == [RATE, RATE, RATE, own, own, tags[5], last]


def test_losses_are_smoothed_without_a_pull_to_zero(page, written):
    page.view("training")
    page.only("one_cycle")
    raw, curve = page.chart(LOSS).lines()
    values = written.scalars["one_cycle"][LOSS][2].astype(float)
    assert raw["y"] == values.tolist()
    assert raw["alpha"] < (curve["alpha"] or 1)
    weights = 0.6 ** np.arange(300)
    for step in (0, 1, 5, 299):
        part = weights[: step + 1][::-1]
        expected = (part * values[: step + 1]).sum() / part.sum()
        assert curve["y"][step] == pytest.approx(expected, rel=1e-6)


# ---------------------------------------------------------------- not a number, a point


def test_what_no_axis_has_is_left_out(page, written):
    page.view("versus")
    page.only("other")
    page.choose("y", "odd")
    page.choose("x", "step")
    chart = page.chart("versus")
    (line,) = chart.lines()
    _, _, values = written.scalars["other"]["odd"]
    np.testing.assert_array_equal(floats(line["y"]), values)
    low, high, _ = chart.axis("y")
    assert -1.5 < low < -1
    assert 5 < high < 5.5
    color = page.colors()["other"]
    assert chart.ink(color, [(10, 2), (60, 0), (70, -1), (90, 5), (65, -0.5)]) == 5
    # Between 20 (where y is 3) and 60 there is nothing.
    assert chart.ink(color, [(x, 3 - 3 * (x - 20) / 40) for x in range(24, 58)]) == 0
    assert "3 points are left out" in page.text(".note")
    page.control("log y")
    assert chart.axis("y")[2]
    assert "5 points are left out" in page.text(".note")
    assert chart.ink(color, [(10, 2), (20, 3), (80, 4), (90, 5)]) == 4

    page.view("training")
    page.only("nan")
    assert page.find(".chart").is_displayed()
    assert all(np.isnan(floats(line["y"])).all() for line in page.chart(LOSS).lines())


def test_a_point_alone_is_seen(page):
    page.view("training")
    page.only("a point")
    color = page.colors()["a point"]
    assert page.chart(LOSS).ink(color, [(7, 0.5)]) == 1
    assert page.chart(LOSS).count(color) > 15  # a dot, and no dash
    page.view("versus")
    page.choose("x", "step")
    assert page.chart("versus").ink(color, [(7, 0.5)]) == 1


# -------------------------------------------------------------------------- X–Y plot


def test_x_is_read_off_between_its_own_steps(page, written):
    page.view("versus")
    page.only("other")
    own = written.scalars["other"]
    page.choose("y", "odd")  # at 0, 10, … 90
    page.choose("x", "even")  # at 5, 8, … 92, its step squared
    (line,) = page.chart("versus").lines()
    steps, _, values = own["even"]
    inside = [step for step in own["odd"][0] if 5 <= step <= 92]
    expected = np.interp(inside, steps, values.astype(float))
    assert floats(line["x"]) == pytest.approx(expected)
    by_step = dict(zip(*own["odd"][::2], strict=True))
    np.testing.assert_array_equal(floats(line["y"]), [by_step[step] for step in inside])
    off = sum(step not in steps for step in inside)
    assert f"At {off} points x was not kept" in page.text(".note")
    page.choose("x", "seconds since the run began")
    (line,) = page.chart("versus").lines()
    assert floats(line["x"]) == pytest.approx(own["odd"][0] * 0.25)


def test_runs_without_the_scalar_are_left_out_and_the_choice_stays(page, written):
    page.view("versus")
    page.choose("y", "schedule/momentum")
    names = [line["name"] for line in page.chart("versus").lines()]
    assert "one_cycle" in names
    assert not {"other", "nan", "a point"} & {*names}
    page.after(lambda: page.filter("^other$"))
    assert page.chart("versus").lines() == []
    chosen = page.js(
        "return [...document.querySelectorAll('main select')].map((e) => e.value)"
    )
    assert chosen == [MOMENTUM, RATE]
    page.after(lambda: page.filter(""))
    page.only("groups")
    page.choose("x", "step")
    color = page.colors()["groups"]
    chart = page.chart("versus")
    steps, _, values = written.scalars["groups"][MOMENTUM]
    between = [(step + 0.5, value) for step, value in zip(steps, values, strict=True)]
    page.control("points")
    assert chart.ink(color, zip(steps, values, strict=True), reach=0) == 300
    assert chart.ink(color, between[::10], reach=0) < 30
