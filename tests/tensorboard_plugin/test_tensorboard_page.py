"""The Schedules tab in a real browser, inside a real TensorBoard."""

from __future__ import annotations

import numpy as np
import pytest
from tensorboard_server import LOADERS, STRANGE

pytestmark = pytest.mark.any_backend


@pytest.fixture(params=LOADERS)
def both(request, page, tensorboards):
    """The page of each loader, opened, and what its folder holds."""
    server, written = tensorboards.known(request.param)
    page.open(server)
    return page, written


@pytest.fixture
def known(page, tensorboards):
    """The page of one loader, opened, and what its folder holds."""
    server, written = tensorboards.known("fast")
    page.open(server)
    return page, written


# ------------------------------------------------------------------ inside TensorBoard


def tensorboards_colors(page) -> dict[str, str]:
    """The color that the Time Series tab gives each run, in its table of runs."""
    page.outside()
    page.js("location.hash = '#timeseries'")
    pairs = page.until("""
        const table = "runs-data-table tb-data-table-content-row";
        const rows = [...document.querySelectorAll(table)];
        const ready = rows.length && rows.every((row) => row.dataset.id);
        return ready && rows.map((row) => [
          row.dataset.id.slice(row.dataset.id.indexOf("/") + 1),
          getComputedStyle(row.querySelector(".run-color-swatch")).backgroundColor,
        ])""")
    return dict(pairs)


def test_the_tab_opens_and_each_view_draws(both):
    page, written = both
    page.outside()
    tab = page.js(
        "return [...document.querySelectorAll('app-header [role=tab]')]"
        ".find((tab) => tab.ariaSelected === 'true').textContent.trim()"
    )
    assert tab.lower() == "schedules"
    page.inside()
    views = page.driver.find_elements("css selector", "[role=tab]")
    names = ["Range tests", "Training", "Comparison", "X–Y plot"]
    assert [view.text for view in views] == names
    # The first with something to see is open.
    assert page.find("#tab-range_tests").get_attribute("aria-selected") == "true"
    assert set(page.runs()) == {*written.tests, *written.damaged} - {
        "damaged/other plugin"
    }

    colors = page.colors()
    page.only("tests/one sweep")
    result = written.tests["tests/one sweep"]
    chart = page.chart("loss")
    seen = np.isfinite(result.smoothed_values)
    curve = np.stack([result.learning_rates, result.smoothed_values], axis=1)[seen]
    descent = curve[curve[:, 0] < 1]
    assert len(descent) > 50
    color = colors["tests/one sweep"]
    assert chart.ink(color, descent) == len(descent)
    assert chart.ink(color, [(rate, loss + 0.3) for rate, loss in descent]) < 20

    page.view("training")
    page.only("one_cycle")
    color = page.colors()["one_cycle"]
    for tag in ("schedule/learning_rate", "schedule/momentum"):
        steps, _, values = written.scalars["one_cycle"][tag]
        chart = page.chart(tag)
        (line,) = chart.lines()
        assert line["x"] == steps.tolist()
        assert line["y"] == values.tolist()
        points = np.stack([steps, values], axis=1)
        assert chart.ink(color, points) == len(points), tag

    page.view("versus")
    (line,) = page.chart("versus").lines()
    own = written.scalars["one_cycle"]
    assert line["x"] == own["schedule/learning_rate"][2].tolist()
    assert line["y"] == own["schedule/loss"][2].tolist()
    assert page.chart("versus").count(color) > 500


def test_runs_have_the_colors_of_tensorboards_own_tabs(both):
    page, written = both
    ours = page.colors()
    page.view("versus")
    ours |= page.colors()
    assert {*written.tests, *written.scalars} <= {*ours}
    order = page.js("return (await schedules.data.runs()).map(({run}) => run)")
    theirs = tensorboards_colors(page)
    palette = {*theirs.values()}
    assert len(palette) == 7  # given out again and again: ours go on with others
    first = [ours[run] for run in order[:21] if run in ours]
    assert len({*first}) == len(first) > 14
    own = [run for run in ours if ours[run] in palette]
    assert len(own) >= 7
    assert {run: ours[run] for run in own} == {run: theirs[run] for run in own}


def test_dark_mode_is_followed(known):
    page, _ = known
    page.only("tests/one sweep")

    def look():
        return page.js(
            "return ['.run bdi', 'body'].map((css) => {"
            "  const style = getComputedStyle(document.querySelector(css));"
            "  return css === 'body' ? style.backgroundColor : style.color;"
            "})"
        )

    def choose(mode: str) -> None:
        page.outside()
        page.find("app-header-dark-mode-toggle button").click()
        find = """
            const items = [...document.querySelectorAll("[role=menuitem]")];
            return items.find((item) => item.innerText.includes(arguments[0]))"""
        page.until(find, mode).click()
        page.inside()

    light = look()
    assert light == ["rgb(33, 33, 33)", "rgb(255, 255, 255)"]
    colors = page.colors()
    chart = page.chart("loss")
    assert chart.count(colors["tests/one sweep"]) > 300
    paper = chart.count("rgb(232, 232, 232)")
    page.after(lambda: choose("Dark"))
    try:
        assert look() == ["rgb(232, 232, 232)", "rgb(48, 48, 48)"]
        dark = page.colors()
        assert dark != colors
        # The line, and the words beside the axes.
        assert chart.count(dark["tests/one sweep"]) > 300
        assert chart.count("rgb(232, 232, 232)") > paper + 50
        theirs = tensorboards_colors(page)
        palette = {*theirs.values()}
        own = [run for run in dark if dark[run] in palette]
        assert own
        assert all(dark[run] == theirs[run] for run in own)
        page.js("location.hash = '#schedules'")
        page.inside()
    finally:
        choose("Light")
    page.until("return !document.body.classList.contains('dark')")
    assert look() == light
    page.until("return 'drawn' in schedules.root.dataset")
    assert page.colors() == colors


def test_names_that_are_code_stay_text(both):
    page, _ = both
    page.view("training")
    runs = page.runs()
    assert {*STRANGE} <= {*runs}
    page.view("versus")
    page.only(*STRANGE)
    page.chart("versus").hover(0.05, 0.5)
    named = "\n".join(page.chart("versus").tip())
    assert "<img src=x onerror=alert(1)>" in named
    page.view("training")
    assert [line["name"] for line in page.chart("schedule/momentum").lines()] == [
        run for run in runs if run in STRANGE
    ]
    assert page.js("return [typeof window.injected, document.images.length]") == [
        *("undefined", 0)
    ]
    assert page.js("return document.querySelector('#injected, main a, .run a')") is None
    assert page.js("return document.querySelectorAll('script').length") == 2
    # An image of a name, say, would have been asked for.
    asked = page.js(
        "return performance.getEntriesByType('resource').map((e) => e.name)"
    )
    assert all("/data/plugin/schedules/" in address for address in asked)
    page.outside()  # an open alert would be an error here
    assert page.js("return [typeof window.injected, document.title]") == [
        *("undefined", "TensorBoard")
    ]


def test_damaged_range_tests_are_rows_of_the_table(both):
    page, written = both
    rows = page.js(
        "return [...document.querySelectorAll('tbody tr')].map((row) =>"
        " [...row.children].map((cell) => cell.textContent))"
    )
    table = {row[0]: row[1:] for row in rows}
    damaged = {*written.damaged} - {"damaged/other plugin"}
    assert {*table} == {*written.tests, *damaged}
    for run in damaged:
        (text,) = table[run]
        assert text.startswith("This range test cannot be read: ")
    assert [len(line["x"]) for line in page.chart("loss").lines()] == [
        100,
        98,
        100,
        100,
    ]


# ------------------------------------------------------------------ the list of runs


def test_check_boxes_all_and_none(known):
    page, _ = known
    page.view("training")
    runs = page.runs()
    count = len(runs)
    assert page.shown() == runs
    assert page.text(".count") == f"{count} of {count} shown"
    first = page.driver.find_elements("css selector", ".run input")[0]
    page.after(first.click)
    assert page.shown() == runs[1:]
    assert page.text(".count") == f"{count - 1} of {count} shown"
    names = {line["name"] for line in page.chart("schedule/learning_rate").lines()}
    assert runs[0] not in names
    assert runs[1] in names
    page.after(page.find("button[title^='Uncheck all']").click)
    assert page.shown() == []
    assert page.text(".count") == f"0 of {count} shown"
    assert "No run is shown" in page.text(".note")
    page.after(page.find("button[title^='Check all']").click)
    assert page.shown() == runs
    # A run that was unchecked stays so in the other views.
    page.after(page.driver.find_elements("css selector", ".run input")[1].click)
    page.view("versus")
    assert runs[1] in page.runs()
    assert runs[1] not in page.shown()


def test_the_filter_is_a_regular_expression(known):
    page, _ = known
    page.view("training")
    every = page.runs()
    page.after(lambda: page.filter("^(ONE|gro)"))
    assert page.runs() == page.shown() == ["one_cycle", "groups"]
    lines = page.chart("schedule/momentum").lines()
    assert [line["name"] for line in lines] == ["one_cycle", "groups"]
    # "None" is about those that the filter lets through.
    page.after(page.find("button[title^='Uncheck all']").click)
    assert page.shown() == []
    assert page.text(".count") == f"0 of {len(every)} shown"
    page.after(lambda: page.filter(r"\W"))
    assert page.runs() == [run for run in every if set(run) & set(" <>(),:&\n")]
    assert len(page.shown()) == len(page.runs()) > 3

    before = page.shown()
    box = page.find("aside input[type=search]")
    box.send_keys("(")
    assert "Invalid regular expression" in page.text("aside .problem")
    assert "The previous filter stays." in page.text("aside .problem")
    assert box.get_attribute("aria-invalid") == "true"
    assert page.shown() == before
    page.after(lambda: page.filter("no such run"))
    assert page.runs() == []
    assert page.text("aside .problem") == ""
    assert box.get_attribute("aria-invalid") == "false"
