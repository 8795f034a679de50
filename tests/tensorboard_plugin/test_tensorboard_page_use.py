"""The Schedules tab in a browser: mouse, keyboard, downloads."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from matplotlib.image import imread
from schedules_page import downloaded
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


def test_the_mouse_zooms_all_panels_and_names_what_is_under_it(page, written):
    page.view("training")
    page.only("one_cycle")
    charts = {tag: page.chart(tag) for tag in (RATE, MOMENTUM, LOSS)}
    whole = {tag: chart.axis("x")[:2] for tag, chart in charts.items()}
    charts[RATE].drag((100, 130))
    for tag, chart in charts.items():
        assert chart.axis("x")[:2] == pytest.approx([100, 130], abs=1)
        # y is that of what is seen.
        seen = written.scalars["one_cycle"][tag][2][100:131].astype(float)
        low, high, _ = chart.axis("y")
        size = seen.max() - seen.min()
        assert low == pytest.approx(seen.min(), abs=0.15 * size)
        assert high == pytest.approx(seen.max(), abs=0.15 * size)
    charts[RATE].drag((110, 120))
    charts[MOMENTUM].double_click()
    charts[RATE].drag((100, 200))
    charts[RATE].hover(150)
    assert charts[RATE].tip()[0].startswith("step 150, ")
    value = written.scalars["one_cycle"][RATE][2][150]
    words = charts[RATE].tip()[1].split()
    assert float(words[0]) == pytest.approx(value, rel=1e-3)
    assert words[1:] == ["one_cycle"]
    # The rule goes through the other panels at the same place.
    left = charts[RATE].js("return chart.chart.valToPos(150, 'x')")
    for tag in (MOMENTUM, LOSS):
        rule = charts[tag].js(
            "return [chart.rule.hidden, parseFloat(chart.rule.style.left)]"
        )
        assert rule == [False, pytest.approx(left, abs=1.5)]
    charts[MOMENTUM].double_click()
    assert {tag: chart.axis("x")[:2] for tag, chart in charts.items()} == whole
    # A zoom is kept while other things change.
    charts[LOSS].drag((20, 80))
    page.control("log rate")
    page.view("versus")
    page.view("training")
    assert charts[RATE].axis("x")[:2] == pytest.approx([20, 80], abs=1)


def test_the_keyboard_reaches_views_and_charts(page):
    from selenium.webdriver import ActionChains, Keys

    def press(*keys: str) -> None:
        ActionChains(page.driver).send_keys(*keys).perform()

    def focused(script: str) -> object:
        return page.js(f"return document.activeElement{script}")

    page.view("training")
    page.only("one_cycle")
    page.find("aside input[type=search]").click()
    for _ in range(40):
        press(Keys.TAB)
        if focused(".role") == "tab":
            break
    assert focused(".id") == "tab-training"
    for key, view in (
        (Keys.ARROW_RIGHT, "comparison"),
        (Keys.ARROW_RIGHT, "versus"),
        (Keys.ARROW_RIGHT, "range_tests"),
        (Keys.ARROW_LEFT, "versus"),
        (Keys.ARROW_LEFT, "comparison"),
        (Keys.ARROW_LEFT, "training"),
    ):
        page.after(lambda key=key: press(key))
        assert focused(".id") == f"tab-{view}"
        assert focused(".getAttribute('aria-selected')") == "true"
        assert page.js("return schedules.root.dataset.drawn") == view
    for _ in range(20):
        press(Keys.TAB)
        if focused(".className") == "plot":
            break
    chart = page.chart(RATE)
    assert focused(".ariaLabel").startswith("learning_rate over step. Arrow keys move")
    assert chart.tip() == []
    press(Keys.ARROW_RIGHT)
    first = int(chart.tip()[0].split(",")[0].removeprefix("step "))
    assert 145 < first < 160
    for _ in range(10):
        press(Keys.ARROW_RIGHT)
    second = int(chart.tip()[0].split(",")[0].removeprefix("step "))
    assert second - first == pytest.approx(30, abs=4)
    low, high, _ = chart.axis("x")
    press("+")
    for tag in (RATE, LOSS):
        zoomed = page.chart(tag).axis("x")
        assert zoomed[1] - zoomed[0] == pytest.approx((high - low) / 2)
        assert zoomed[0] < second < zoomed[1]
    press("-")
    assert chart.axis("x")[:2] == pytest.approx([low, high])
    press("+", "+", Keys.ESCAPE)
    assert chart.axis("x")[:2] == [low, high]
    press(Keys.TAB)
    assert chart.tip() == []


def test_the_cursor_stays_where_it_belongs(page):
    """After zooms, redrawing and reloads, by mouse and by keyboard."""
    from selenium.webdriver import ActionChains, Keys

    def press(*keys: str) -> None:
        ActionChains(page.driver).send_keys(*keys).perform()

    def state(chart) -> tuple:
        """What the box says and where the rule is, of x; and the dot, of both."""
        page.js("return new Promise((done) => requestAnimationFrame(() => done()))")
        rule, x, y = chart.js("""
            const place = (one, side) => one.hidden ? NaN : parseFloat(one.style[side]);
            const {rule, dot, chart: plot} = chart;
            return [plot.posToVal(place(rule, "left"), "x"),
              plot.posToVal(place(dot, "left"), "x"),
              plot.posToVal(place(dot, "top"), "y")]""")
        step = int(chart.tip()[0].split(",")[0].removeprefix("step "))
        return step, rule, x, y

    page.view("training")
    page.only("one_cycle")
    chart = page.chart(RATE)
    page.js("arguments[0].focus()", chart.plot())
    press(*[Keys.ARROW_RIGHT] * 6)
    step, *_ = before = state(chart)
    assert before[1] == pytest.approx(step, abs=1)
    for act in (
        lambda: press("+", "+"),
        lambda: page.after(lambda: page.js("schedules.reload()")),
        lambda: page.chart(LOSS).js("chart.zoomTo({x: [100, 250]})"),
        lambda: page.driver.set_window_size(1200, 1000),
        lambda: press("-"),
    ):
        act()
        now = state(chart)
        assert now[0] == step
        assert now[1] == pytest.approx(before[1], abs=0.5)
        assert now[2] == pytest.approx(step, abs=0.5)
        assert now[3] == pytest.approx(before[3], rel=0.02)
    other = page.chart(MOMENTUM).js(
        "return chart.chart.posToVal(parseFloat(chart.rule.style.left), 'x')"
    )
    assert other == pytest.approx(before[1], abs=0.5)
    page.driver.set_window_size(1400, 1100)
    press(Keys.ESCAPE)
    # The mouse stays at its pixel, and what is said is what is there.
    chart.hover(200)
    chart.js("chart.zoomTo({x: [0, 300]})")
    page.after(lambda: page.js("schedules.reload()"))
    step, rule, x, _ = state(chart)
    assert rule == pytest.approx(step, abs=1)
    assert x == pytest.approx(step, abs=0.5)


def test_the_box_at_the_cursor_is_whole_and_in_the_order_of_the_lines(page):
    page.view("training")
    page.driver.set_window_size(900, 600)
    try:
        for tag, share in ((RATE, 0.05), (LOSS, 0.95), (LOSS, 0.02)):
            for step in (2, 20, 38):
                chart = page.chart(tag)
                page.js("arguments[0].scrollIntoView({block: 'end'})", chart.plot())
                chart.js("chart.zoomTo({x: [0, 40]})")
                chart.hover(step, share)
                box, width, height = chart.js("""
                    const box = chart.tip.getBoundingClientRect();
                    const sides = [box.left, box.right, box.top, box.bottom];
                    return [sides, innerWidth, innerHeight]""")
                left, right, top, bottom = box
                assert 0 <= left < right <= width
                assert 0 <= top < bottom <= height
                words, *rows = chart.tip()
                rows = [row for row in rows if not row.startswith("and ")]
                assert words.startswith("step ")
                # From top to bottom as the lines are; the nearest is set off.
                values = [float(line.split()[0]) for line in rows]
                assert len(values) > 8
                assert values == sorted(values, reverse=True)
                heights, near = chart.js(
                    """
                    const rows = [...chart.tip.children].slice(1, 1 + rest[0]);
                    const near = rows.findIndex((row) => row.className === "near");
                    return [[...new Set(rows.map((row) => row.clientHeight))], near]""",
                    len(rows),
                )
                assert len(heights) == 1  # a line each
                assert heights[0] < 20
                low, high, _ = chart.axis("y")
                mouse = high - share * (high - low)
                nearest = min(values, key=lambda value: abs(value - mouse))
                assert values[near] == nearest
    finally:
        page.driver.set_window_size(1400, 1100)


# ---------------------------------------------------------------------------- downloads


def test_downloads_are_what_is_shown(page, written):
    def table() -> list[list[str]]:
        text = downloaded(page, "CSV").decode()
        assert text.endswith("\r\n")
        return [*csv.reader(io.StringIO(text, newline=""), strict=True)]

    page.only("tests/one sweep", "tests/accuracy")
    head, *rows = table()
    assert head[:4] == ["run", "step", "metric", "learning_rates"]
    for run in ("tests/one sweep", "tests/accuracy"):
        result = written.tests[run]
        own = [row for row in rows if row[0] == run]
        assert [row[1:3] for row in own] == [
            [str(i), result.metric] for i in range(100)
        ]
        for name in ("learning_rates", "losses", "smoothed_losses", "values"):
            column = [float(row[head.index(name)]) for row in own]
            np.testing.assert_array_equal(column, getattr(result, name))
    assert len(rows) == 200
    # No column is another one once more, such as the only sweep of one.
    columns = [*zip(*rows, strict=True)]
    assert len({*columns}) == len(columns) == len(head)
    page.only("tests/four sweeps")
    head, *rows = table()
    assert [name for name in head if name.startswith("sweep")] == [
        f"sweep {i}" for i in (1, 2, 3, 4)
    ]
    assert "values" not in head  # these are the losses
    for i, sweep in enumerate(written.tests["tests/four sweeps"].sweeps):
        column = [float(row[head.index(f"sweep {i + 1}")]) for row in rows]
        np.testing.assert_array_equal(column, sweep)

    page.view("training")
    odd = "</script><b id=injected>\"a\" & 'b'"
    page.only("two\nlines", odd)
    head, *rows = table()
    assert head == ["run", "tag", "step", "value"]
    expected = {
        (run, tag, str(step), float(value))
        for run in ("two\nlines", odd)
        for tag, (steps, _, values) in written.scalars[run].items()
        for step, value in zip(steps, values, strict=True)
    }
    assert {(*row[:3], float(row[3])) for row in rows} == expected
    assert len(rows) == len(expected)

    page.view("versus")
    page.only("a,b&run=c#d%41+e")
    head, *rows = table()
    assert head == ["run", "step", RATE, LOSS]
    own = written.scalars["a,b&run=c#d%41+e"]
    expected = [*zip(own[LOSS][0], own[RATE][2], own[LOSS][2], strict=True)]
    assert [tuple(map(float, row[1:])) for row in rows] == expected
    assert {row[0] for row in rows} == {"a,b&run=c#d%41+e"}

    png = downloaded(page, "PNG")
    assert png.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    assert png.endswith(b"IEND\xaeB`\x82")
    width, height = (int.from_bytes(png[i : i + 4], "big") for i in (16, 20))
    # Twice the pixels, with a title above and the run below.
    chart = page.chart("versus")
    canvas = chart.js("return [chart.canvas.width, chart.canvas.height]")
    assert width == 2 * canvas[0]
    assert height > 2 * canvas[1] + 2 * 50
    picture = np.round(255 * imread(io.BytesIO(png))[..., :3])
    dark = np.abs(picture - 33).max(axis=-1) < 24
    assert dark[:72, :700].sum() > 500
    name = page.colors()["a,b&run=c#d%41+e"]
    color = np.array(name.removeprefix("rgb(").rstrip(")").split(","), float)
    own = np.abs(picture - color).max(axis=-1) < 24
    assert own[72 + 2 * canvas[1] :, :60].sum() > 400
    line = np.abs(picture - (0.85 * color + 0.15 * 255)).max(axis=-1) < 24
    assert line[72 : 72 + 2 * canvas[1]].sum() > 2 * chart.count(name)
    # The chart on the page is as it was.
    assert chart.js("return [chart.canvas.width, chart.canvas.height]") == canvas
