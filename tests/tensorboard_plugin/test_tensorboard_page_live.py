"""The Schedules tab in a browser while data come, and with very many of them."""

from __future__ import annotations

import shutil
import sys
import time

import numpy as np
import pytest
from tensorboard_server import NOW, Written, one_cycle, sweep, wait_for

from tfschedules.finding.result import RangeTestResult

pytestmark = pytest.mark.any_backend

BIG = 10_000


def live(tensorboards) -> tuple:
    """A server that looks for new data every second, and its folder."""
    folder = tensorboards.folder / "live"
    folder.mkdir(exist_ok=True)
    flags = ("--reload_interval=1", f"--samples_per_plugin=scalars={BIG}")
    return tensorboards.start("live", folder, "--load_fast=true", *flags), folder


def reload(page, server, there) -> None:
    """Press TensorBoard's button once the server has what is looked for."""
    wait_for(there, seconds=60, what="the server's own reload")
    page.outside()
    page.find("app-header-reload button").click()
    page.inside()


def test_an_empty_folder_says_what_to_write_and_live_runs_appear(page, tensorboards):
    server, folder = live(tensorboards)
    page.open(server, drawn=False)
    for key, written in {
        "range_tests": "tfs.find_learning_rate(model, x, y, log_dir=",
        "training": "tfs.TensorBoardLogger(",
        "comparison": "tfs.TensorBoardLogger(",
        "versus": "tfs.TensorBoardLogger(",
    }.items():
        page.find(f"#tab-{key}").click()
        page.until(
            "return document.querySelector('.empty pre').textContent"
            ".includes(arguments[0])",
            written,
        )
        assert page.js("return schedules.panel.hidden")

    written = Written(folder)
    steps = np.arange(50)
    written.training("first", steps, one_cycle(steps), began=NOW)
    reload(page, server, lambda: len(server.ours("/runs").json["runs"]) == 1)
    page.until("return schedules.runs.shown.length === 1")
    page.view("training")
    chart = page.chart("schedule/learning_rate")
    assert [len(line["x"]) for line in chart.lines()] == [50]

    later = np.arange(50, 80)
    written.training("first", later, one_cycle(later), began=NOW)
    written.training("second", steps, one_cycle(steps), began=NOW + 100)
    written.range_test("third", RangeTestResult.from_sweep(*sweep(), steps=100))
    page.after(
        lambda: reload(
            page,
            server,
            lambda: (
                [
                    run["scalars"].get("schedule/loss")
                    for run in server.ours("/runs").json["runs"]
                ]
                == [79, 49, None]
            ),
        )
    )
    page.until("return schedules.runs.shown.length === 2")
    lines = {line["name"]: line for line in chart.lines()}
    assert {name: len(line["x"]) for name, line in lines.items()} == {
        "first": 80,
        "second": 50,
    }
    assert lines["first"]["x"] == [*range(80)]
    color = page.colors()["second"]
    rates = one_cycle(steps)["schedule/learning_rate"]
    page.only("second")
    assert chart.ink(color, np.stack([steps, rates], axis=1)) == 50
    page.view("range_tests")
    assert page.runs() == ["third"]


@pytest.mark.slow
def test_a_hundred_runs_of_ten_thousand_points(page, tensorboards):
    server, folder = live(tensorboards)
    first = folder / "big" / "run 0"
    steps = np.arange(BIG)
    values = one_cycle(steps)
    del values["schedule/momentum"]
    Written(folder).training("big/run 0", steps, values, began=NOW + 1000)
    for i in range(1, 100):
        shutil.copytree(first, first.with_name(f"run {i}"))
    server.wait_for_runs({f"big/run {i}" for i in range(100)})
    wait_for(
        lambda: all(
            run["scalars"]["schedule/loss"] == BIG - 1
            for run in server.ours("/runs").json["runs"]
            if run["run"].startswith("big/")
        ),
        seconds=60,
        what="ten thousand steps",
    )
    page.open(server)
    page.after(lambda: page.filter("^big/"))
    # The longest that the page does not answer to anything.
    page.js("""
        window.longest = 0;
        let last = performance.now();
        setInterval(() => {
          longest = Math.max(longest, performance.now() - last);
          last = performance.now();
        }, 10)""")
    for key, name in {"training": "schedule/learning_rate", "versus": "versus"}.items():
        began = time.monotonic()
        page.view(key)
        seconds = time.monotonic() - began
        assert len(page.shown()) == 100
        longest = page.js("const found = longest; longest = 0; return found")
        said = f"{key}: drawn in {seconds:.2f} s, longest pause {longest / 1000:.2f} s"
        sys.stdout.write(f"{said}\n")
        ends = page.chart(name).js("""
            return chart.content.lines.map(({x, y}) =>
              [x.length, y.length, y[0], y[5000], y.at(-1)])""")
        column = "schedule/loss" if key == "versus" else name
        some = np.float32(values[column])[[0, 5000, -1]]
        assert ends == [[BIG, BIG, *some.tolist()]] * 100
    page.view("training")
    began = time.monotonic()
    page.chart("schedule/learning_rate").drag((2000, 4000))
    low, high, _ = page.chart("schedule/loss").axis("x")
    sys.stdout.write(f"zoomed in {time.monotonic() - began:.2f} s\n")
    assert [low, high] == pytest.approx([2000, 4000], abs=40)
