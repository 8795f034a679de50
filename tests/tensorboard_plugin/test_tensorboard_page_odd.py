"""The Schedules tab in a browser, where things are not as they mostly are."""

from __future__ import annotations

import pytest
from tensorboard_server import Written

pytestmark = pytest.mark.any_backend

RATE, LOSS = "schedule/learning_rate", "schedule/loss"


@pytest.fixture(autouse=True)
def written(page, tensorboards) -> Written:
    """What the folder holds that the page shows, which is opened anew."""
    server, written = tensorboards.known("fast")
    page.open(server, alone=True)
    return written


def reload(page) -> None:
    """What TensorBoard's reload button does in the frame."""
    page.after(lambda: page.js("schedules.reload()"))


# ------------------------------------------------------------------------ the keyboard


def test_the_focus_stays_where_it_is_when_the_view_is_drawn_anew(page):
    from selenium.webdriver import ActionChains, Keys

    def press(*keys: str) -> None:
        ActionChains(page.driver).send_keys(*keys).perform()

    def focused() -> str:
        return page.js("return document.activeElement.outerHTML.slice(0, 40)")

    page.view("training")
    page.only("one_cycle")
    slider = page.find("main input[type=range]")
    page.js("arguments[0].focus()", slider)
    for _ in range(3):
        page.after(lambda: press(Keys.ARROW_LEFT))
    assert slider.get_attribute("value") == "0.57"

    places = ("main input[type=checkbox]", ".run:nth-child(3) input", ".plot")
    for place in places:
        page.js("document.querySelector(arguments[0]).focus()", place)
        before = focused()
        if "input" in place:
            page.after(lambda: press(Keys.SPACE))
        assert focused() == before != "<body"
        reload(page)
        assert focused() == before
    chart = page.chart(RATE)
    press(Keys.ARROW_RIGHT)
    tip = chart.tip()
    assert tip
    reload(page)
    page.js("return new Promise((done) => requestAnimationFrame(() => done()))")
    assert chart.tip() == tip
    # Also where a run comes, and where one goes.
    page.js("document.querySelector('.run:nth-child(3) input').focus()")
    before = page.js("return document.activeElement.parentElement.textContent")
    page.js("""
        const all = await schedules.data.runs();
        schedules.data.runs = async () => all.slice(1)""")
    reload(page)
    assert page.js("return document.activeElement.parentElement.textContent") == before


# -------------------------------------------------------------- a server that is away


def test_what_is_known_stays_while_tensorboard_is_away(page):
    page.js("""
        window.kept = window.fetch;
        window.fetch = async () => { throw new TypeError("Failed to fetch"); }""")
    page.js("schedules.reload()")
    page.until("return document.querySelector('main .problem').textContent")
    said = "The runs could not be read: TensorBoard does not answer (Failed to fetch)."
    assert said in page.text("main .problem")
    # What was loaded can be looked at, and the message stays.
    page.only("tests/one sweep")
    assert [line["name"] for line in page.chart("loss").lines()][-1] == (
        "tests/one sweep"
    )
    assert said in page.text("main .problem")
    # What was not is missing, with the reason, and not loading.
    page.find("#tab-training").click()
    page.until("return document.querySelectorAll('main .problem')[1].textContent")
    assert page.text(".note") == ""
    assert page.js("return schedules.panel.ariaBusy") == "false"
    page.js("window.fetch = window.kept")
    reload(page)
    assert page.js(
        "return [...document.querySelectorAll('main .problem')].map((e) => e.innerText)"
    ) == ["", ""]
    assert len(page.chart(RATE).lines()) > 5
    (line,) = page.console()  # also for those who look there
    assert "TensorBoard does not answer" in line


def test_a_reload_that_was_overtaken_is_not_shown(page):
    page.js("""
        const runs = () => Object.getPrototypeOf(schedules.data).runs();
        schedules.data.runs = async () => {
          schedules.data.runs = runs;
          await new Promise((done) => setTimeout(done, 300));
          return [];
        }""")
    page.js("window.late = schedules.reload()")
    reload(page)
    page.js("await window.late")
    assert "tests/one sweep" in page.runs()


# -------------------------------------------------------------------- odd axes, nothing


def test_zooming_ends_before_numbers_do(page):
    from selenium.webdriver import ActionChains

    page.view("versus")
    page.only("one_cycle")
    chart = page.chart("versus")
    for x in ("step", RATE):
        page.choose("x", x)
        page.js("arguments[0].focus()", chart.plot())
        for key in "+-":
            ActionChains(page.driver, duration=0).send_keys(key * 1200).perform()
            low, high, _ = chart.axis("x")
            assert -1.1e308 < low < high < 1.1e308, (x, key)
            ticks = chart.js("return chart.chart.axes[0]._values")
            assert len(ticks) > 1, (x, key)
        page.js("schedules.views[3].chart.zoomTo({x: null})")


def test_every_axis_has_numbers_that_differ(page):
    page.view("versus")
    chart = page.chart("versus")
    for low, high in ((0, 1e30), (1e9, 1e9 + 40), (-3e38, 3e38), (1.2e6, 1.2e6 + 9)):
        chart.js(
            """
            const line = {color: "red", x: rest, y: rest};
            chart.show({lines: [line], xLog: false, yLog: false, xLabel: "x"})""",
            low,
            high,
        )
        ticks = chart.js("return [0, 1].map((i) => chart.chart.axes[i]._values)")
        for axis in ticks:
            assert len({*axis}) == len(axis) > 3, axis
            assert all(low <= float(text) <= high for text in axis[1:-1])


def test_a_logarithmic_loss_near_zero_still_shows_the_descent(page):
    page.js("""
        const read = schedules.data.rangeTests.bind(schedules.data);
        schedules.data.rangeTests = async (runs) => {
          const found = await read(runs);
          for (const {curves} of found.values()) {
            for (const name of curves ? ["values", "smoothed_values"] : []) {
              curves[name] = curves[name].map((v) => v - 0.38);
            }
          }
          return found;
        }""")
    page.only("tests/one sweep")
    page.control("log loss")
    chart = page.chart("loss")
    descent = chart.axis("y")
    page.control("show divergence")
    everything = chart.axis("y")
    assert descent[2]
    assert 2 < descent[1] < 0.8 * everything[1]


def test_marks_beyond_the_ends_of_a_zoom_are_not_written(page):
    page.view("versus")
    chart = page.chart("versus")
    chart.js("""
        const mark = {kind: "point", x: 5, y: 5, color: "rgb(255, 0, 0)", text: "five"};
        const line = {color: "blue", x: [0, 10], y: [0, 10]};
        chart.show({lines: [line], marks: [mark], xLog: false, yLog: false})""")
    assert chart.count("rgb(255, 0, 0)") > 30
    for part in ([0, 4], [6, 9]):
        chart.js("chart.zoomTo({x: rest[0]})", part)
        page.until("return new Promise((done) => requestAnimationFrame(() => done(1)))")
        assert chart.count("rgb(255, 0, 0)") == 0


def test_charts_drawn_anew_are_as_wide_as_their_place(page):
    page.view("training")
    page.js("schedules.root.style.height = '460px'")  # less than three panels
    reload(page)
    widths = """
        return [...schedules.views[1].panels.values()].map(({chart}) => (
          [chart.chart.width, chart.root.clientWidth]))"""
    for chart, place in page.js(widths):
        assert chart == place


def test_nothing_checked_is_nothing_to_download(page):
    page.only()
    for button in page.driver.find_elements("css selector", ".downloads button"):
        button.click()  # an error would be in the console
    page.filter("no such run")
    page.view("versus")
    page.after(lambda: page.filter(""))
    page.after(page.find("button[title^='Check all']").click)
    # Seen without a run at first, the view still begins with loss against rate.
    selects = "return [...document.querySelectorAll('main select')].map((e) => e.value)"
    assert page.js(selects) == [LOSS, RATE]
