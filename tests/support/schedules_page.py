"""The Schedules tab in a real browser: how tests open it, act on it and look at it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tensorboard_server import Server, wait_for

if TYPE_CHECKING:
    from selenium.webdriver.remote.webelement import WebElement

# What is said in the console, and not by the page.
HARMLESS = (
    "Multiple instances of Three.js",
    "software WebGL has been deprecated",
    "GL Driver Message",
    r"/favicon\.ico - Failed to load resource",
    "chart_worker.js.*Computed radius is NaN",  # its own chart of a NaN
    "willReadFrequently",  # we look at canvases below
)
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-dev-shm-usage", "--disable-background-networking", "--disable-sync"),
    *("--disable-component-update", "--window-size=1400,1100", "--no-proxy-server"),
    "--force-device-scale-factor=1",
)
REQUIRED = os.environ.get("TFSCHEDULES_BROWSER") == "required"

# What scripts find: a chart by its name, and what is on it.
HELPERS = r"""
const find = (name) => {
  const [tests, training, , versus] = schedules.views;
  if (name === "versus") return versus.chart;
  return tests.charts.get(name) ?? training.panels.get(name).chart;
};

// JSON has neither NaN nor infinities: they become words.
const plain = (value) => {
  if (ArrayBuffer.isView(value) || Array.isArray(value)) {
    return Array.from(value, plain);
  }
  return typeof value === "number" && !Number.isFinite(value) ? String(value) : value;
};

const pixels = (chart, ...box) =>
  chart.canvas.getContext("2d").getImageData(...box).data;

/** How many of these pixels have a color, however much the paper shines through. */
const like = (data, color) => {
  const parts = color.match(/\d+/g).map(Number);
  const least = 90; // of 255: bands, shades and the grid have less
  let count = 0;
  for (let i = 0; i < data.length; i += 4) {
    const near = parts.every((part, k) => Math.abs(data[i + k] - part) < 24);
    if (near && data[i + 3] > least) count++;
  }
  return count;
};
"""


def left_out(reason: str) -> None:
    """Skip, or fail where the browser must be there, as in `.ci/run`."""
    reason = f"{reason}; the Schedules tab is not tested in a browser"
    (pytest.fail if REQUIRED else pytest.skip)(reason)


class Page:
    """TensorBoard in chromium, with the Schedules tab open."""

    def __init__(self, downloads: Path) -> None:
        programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
        if None in programs:
            left_out(
                "chromium or chromedriver is not installed: "
                "`apt-get install chromium chromium-driver`"
            )
        try:
            from selenium import webdriver
        except ImportError:
            left_out('selenium is not installed: `pip install -e ".[test-tools]"`')
        options = webdriver.ChromeOptions()
        options.binary_location, driver = programs
        for flag in FLAGS:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        options.set_capability("unhandledPromptBehavior", "ignore")
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(driver))
        self.downloads = downloads
        self.driver.execute_cdp_cmd(
            "Browser.setDownloadBehavior",
            {"behavior": "allow", "downloadPath": str(downloads)},
        )

    def quit(self) -> None:
        self.driver.quit()

    # ---------------------------------------------------------------- TensorBoard

    def open(self, server: Server, *, drawn: bool = True, alone: bool = False) -> None:
        """Open TensorBoard at our tab, and go into the tab's frame.

        `alone` opens what is in the frame without TensorBoard around it, which is fast.
        """
        self.driver.get("about:blank")
        self.console()
        if alone:
            self.driver.get(f"{server.url}/data/plugin_entry.html?name=schedules")
            self.until("return !!window.schedules")
        else:
            self.driver.get(f"{server.url}/#schedules")
            self.inside()
        here = "[data-drawn]" if drawn else ".empty:not([hidden])"
        self.until(f"return !!document.querySelector('{here}')")

    def outside(self) -> None:
        """To TensorBoard's own page."""
        self.driver.switch_to.default_content()

    def inside(self) -> None:
        """Into the tab's frame."""
        self.outside()
        frame = "iframe[src*='name=schedules']"
        find = f'return document.querySelector("{frame}")'
        self.driver.switch_to.frame(self.until(find))
        self.until("return !!window.schedules")

    def console(self) -> list[str]:
        """What was said in the browser's console since the last time, but by others."""
        lines = [entry["message"] for entry in self.driver.get_log("browser")]
        return [line for line in lines if not any(re.search(h, line) for h in HARMLESS)]

    # ------------------------------------------------------------------- the page

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, script: str, *arguments: Any, seconds: float = 15) -> Any:
        """What a script returns, as soon as that is true."""
        return wait_for(lambda: self.js(script, *arguments), seconds, script)

    def find(self, css: str) -> WebElement:
        return self.driver.find_element("css selector", css)

    def text(self, css: str) -> str:
        return self.js("return document.querySelector(arguments[0]).textContent", css)

    def after(self, act: Callable[[], Any]) -> None:
        """Do something after which the view is drawn anew, and wait for that."""
        self.js("delete schedules.root.dataset.drawn")
        act()
        self.until("""
            const {root, panel} = schedules;
            return "drawn" in root.dataset && panel.ariaBusy === "false" """)

    def view(self, key: str) -> None:
        """Show one of the views."""
        self.after(lambda: self.find(f"#tab-{key}").click())
        assert self.js("return schedules.root.dataset.drawn") == key

    def control(self, label: str) -> None:
        """Click what a label of the view belongs to."""
        xpath = f"//main//label[normalize-space()='{label}']/input"
        self.after(self.driver.find_element("xpath", xpath).click)

    def choose(self, label: str, value: str) -> None:
        """Choose an option by its value, as a person does with the keyboard."""
        self.after(
            lambda: self.js(
                """
                const [label, value] = arguments;
                for (const one of document.querySelectorAll("main label")) {
                  const select = one.querySelector("select");
                  if (select && one.firstChild.textContent.trim() === label) {
                    select.value = value;
                    select.dispatchEvent(new Event("change"));
                  }
                }""",
                label,
                value,
            )
        )

    def filter(self, pattern: str) -> None:
        """Write into the filter of runs, in place of what is there."""
        from selenium.webdriver import Keys

        box = self.find("aside input[type=search]")
        box.send_keys(Keys.CONTROL, "a", Keys.BACKSPACE)
        box.send_keys(pattern)

    def only(self, *runs: str) -> None:
        """Check these runs and no others."""
        self.after(self.find("button[title^='Uncheck all']").click)
        for run in runs:
            index = self.runs().index(run)
            boxes = self.driver.find_elements("css selector", ".run input")
            self.after(boxes[index].click)

    def runs(self) -> list[str]:
        """The runs in the list."""
        script = "return [...document.querySelectorAll('.run bdi')].map((e) => e.title)"
        return self.js(script)

    def shown(self) -> list[str]:
        """The runs that are drawn."""
        return self.js("return schedules.runs.shown.map(({run}) => run)")

    def colors(self) -> dict[str, str]:
        """The color beside each run's name, as the browser has it."""
        pairs = self.js("""
            return [...document.querySelectorAll(".run")].map((run) => [
              run.querySelector("bdi").title,
              getComputedStyle(run.querySelector(".swatch")).backgroundColor,
            ])""")
        return dict(pairs)

    # ------------------------------------------------------------------- a chart

    def chart(self, name: str) -> Chart:
        """A chart: "versus", a metric of a range test, or a tag of a training."""
        return Chart(self, name)


class Chart:
    """One chart of the page: what is behind it, and what is on it."""

    def __init__(self, page: Page, name: str) -> None:
        self.page, self.name = page, name

    def js(self, script: str, *arguments: Any) -> Any:
        """Run a script, for which this is `chart`, and `rest` are the arguments."""
        names = "const [name, ...rest] = arguments; const chart = find(name);"
        return self.page.js(HELPERS + names + script, self.name, *arguments)

    def lines(self) -> list[dict[str, Any]]:
        """The lines on it; numbers that JSON has not are words."""
        return self.js("""
            return chart.content.lines.map(({x, y, name, color, alpha, dash}) => (
              {x: plain(x), y: plain(y), name, color, alpha, dash}))""")

    def axis(self, name: str) -> tuple[float, float, bool]:
        """What uPlot shows of x or y, and whether on a logarithmic axis."""
        return self.js(
            """
            const {min, max, distr} = chart.chart.scales[rest[0]];
            return [min, max, distr === 3]""",
            name,
        )

    def over(self) -> WebElement:
        """What the mouse moves over."""
        return self.js("return chart.chart.over")

    def plot(self) -> WebElement:
        """What the keyboard's focus goes to."""
        return self.js("return chart.plot")

    def ink(self, color: str, places: Any, reach: int = 1) -> int:
        """At how many of these points (x, y) a color is on the canvas.

        uPlot's own axes say where they are; what is within `reach` pixels counts.
        """
        return self.js(
            """
            const [color, places, reach] = rest;
            const to = (value, axis) =>
              Math.round(chart.chart.valToPos(value, axis, true)) - reach;
            return places.filter(([x, y]) => {
              const size = 2 * reach + 1;
              return like(pixels(chart, to(x, "x"), to(y, "y"), size, size), color) > 0;
            }).length""",
            color,
            [[float(value) for value in place] for place in places],
            reach,
        )

    def count(self, color: str) -> int:
        """How many pixels of the canvas have a color."""
        return self.js(
            """
            const {width, height} = chart.canvas;
            return like(pixels(chart, 0, 0, width, height), rest[0])""",
            color,
        )

    def tip(self) -> list[str]:
        """The lines of the cursor's box; none where it is hidden."""
        return self.js("""
            const lines = [...chart.tip.children].map((line) => line.textContent);
            return chart.tip.hidden ? [] : lines""")

    def hover(self, x: float, share: float = 0.5) -> None:
        """Move the mouse to a value of x, at a share of the height."""
        left = self.js("return chart.chart.valToPos(rest[0], 'x')", x)
        self._at(left, share).perform()

    def drag(self, x: tuple[float, float]) -> None:
        """Drag the mouse over a part of x."""
        ends = [self.js("return chart.chart.valToPos(rest[0], 'x')", end) for end in x]
        actions = self._at(ends[0], 0.5).click_and_hold()
        actions.move_by_offset(round(ends[1]) - round(ends[0]), 2).release().perform()

    def double_click(self) -> None:
        self._at(200, 0.5).double_click().perform()

    def _at(self, left: float, share: float) -> Any:
        from selenium.webdriver import ActionChains

        over = self.over()
        self.page.js("arguments[0].scrollIntoView({block: 'center'})", over)
        width, height = over.size["width"], over.size["height"]
        place = round(left - width / 2), round(height * (share - 0.5))
        actions = ActionChains(self.page.driver, duration=50)
        return actions.move_to_element_with_offset(over, *place)


def downloaded(page, kind: str) -> bytes:
    """Press a button, and take the file that comes."""
    for old in page.downloads.iterdir():
        old.unlink()
    buttons = page.driver.find_elements("css selector", ".downloads button")
    (button,) = [button for button in buttons if button.text == kind]
    button.click()

    def there() -> list:
        files = [*page.downloads.iterdir()]
        suffix = f".{kind.lower()}"  # the name is there before the content
        return [p for p in files if p.suffix == suffix and p.stat().st_size]

    (path,) = wait_for(there, seconds=20, what=f"the {kind}")
    return path.read_bytes()
