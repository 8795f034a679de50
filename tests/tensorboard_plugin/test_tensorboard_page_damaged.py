"""The Schedules tab in a browser: damaged runs among good ones, too much to show."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from schedules_page import downloaded
from tensorboard_server import LOADERS, Written, odd_tensors, one_cycle, sweep, wait_for

from tfschedules.finding.result import RangeTestResult

pytestmark = pytest.mark.any_backend

FORMULAS = ("=cmd|' C calc'!A0", "+1", "-1", "@SUM(A1)")
RATE, LOSS = "schedule/learning_rate", "schedule/loss"
COUNT = 12_000


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Written:
    written = Written(tmp_path_factory.mktemp("damaged"))
    for run, count in {
        "good": 100,
        "long": COUNT,
        **dict.fromkeys(FORMULAS, 20),
    }.items():
        result = RangeTestResult.from_sweep(*sweep(count), steps=count)
        written.range_test(run, result)
    steps = np.arange(40)
    for run in ("trained", *FORMULAS):
        written.training(run, steps, one_cycle(steps))
    tensor = odd_tensors()["too short"]
    content = b"{}"
    named = {"plugin_name": "schedules", "content": content}
    written.tensor("cut <b>", tensor, "range_test/result", **named)
    written.tensor("cut scalar", tensor, LOSS, plugin_name="scalars")
    return written


@pytest.fixture
def open_page(page, tensorboards, written):
    server = tensorboards.start("damaged", written.folder, LOADERS["slow"])
    tests = {*written.tests, "cut <b>"}
    scalars = {*written.scalars, "cut scalar"}

    def loaded() -> bool:  # names come before what is in the files
        runs = server.ours("/runs").json["runs"]
        with_tests = {run["run"] for run in runs if run["range_test"]}
        with_loss = {run["run"] for run in runs if LOSS in run["scalars"]}
        return tests <= with_tests and scalars <= with_loss

    wait_for(loaded, seconds=60, what="the runs")
    page.open(server, alone=True)
    return page


def table(page) -> dict[str, list[str]]:
    """The cells of the table of range tests, by run."""
    rows = page.js("""
        return [...document.querySelectorAll("tbody tr")].map((row) => (
          [...row.children].map((cell) => cell.textContent)))""")
    return {name: cells for name, *cells in rows}


def test_a_damaged_range_test_is_one_row_and_the_others_are_drawn(open_page, written):
    page = open_page
    page.only("good", "cut <b>", "long")
    cells = table(page)
    (why,) = cells["cut <b>"]
    assert why.startswith("This range test cannot be read: ")
    assert "reshape" in why
    names = {line["name"] for line in page.chart("loss").lines()} - {None, ""}
    assert names == {"good", "long"}
    note = page.text(".note")
    assert "2 of 3 range tests are shown: the table says why." in note
    assert page.text("main .problem") == ""
    # A long one is thinned, and the page says so; its numbers are those of its steps.
    assert f"Of long, 5000 of {COUNT} points are shown." in note
    assert "Of the others every point is shown." in note
    assert f"{COUNT} of {COUNT}" in cells["long"]
    assert "100 of 100" in cells["good"]
    page.only("long")
    head, *rows = csv.reader(io.StringIO(downloaded(page, "CSV").decode(), newline=""))
    steps = [int(row[1]) for row in rows]
    assert (len(steps), steps[0], steps[-1]) == (5000, 0, COUNT - 1)
    losses = [float(row[head.index("losses")]) for row in rows]
    np.testing.assert_array_equal(losses, written.tests["long"].losses[steps])
    chart = page.chart("loss")
    chart.hover(written.tests["long"].learning_rates[-1])
    assert COUNT - 10 < int(chart.tip()[0].split()[-1]) < COUNT  # a pixel has some
    page.only("good")
    assert page.text(".note") == "Every point of a range test is kept and shown."


def test_a_damaged_scalar_is_one_message_and_the_others_are_drawn(open_page):
    page = open_page
    for view in ("training", "versus"):
        page.view(view)
        page.only("trained", "cut scalar")
        problem = page.js("return schedules.problem.textContent")
        assert problem.startswith(f"cut scalar: The scalar {LOSS} cannot be read: ")
        name = LOSS if view == "training" else "versus"
        lines = page.chart(name).lines()
        assert {line["name"] for line in lines} - {""} == {"trained"}
    page.only("trained")
    assert page.js("return schedules.problem.textContent") == ""


def test_no_cell_of_a_download_is_a_formula(open_page, written):
    page = open_page
    for view in ("range_tests", "training", "versus"):
        page.view(view)
        page.only(*FORMULAS)
        text = downloaded(page, "CSV").decode()
        _, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        assert {row[0] for row in rows} == {f"'{run}" for run in FORMULAS}
    page.js("""
        const {csv} = await import("./static/download.js");
        const words = ["\\t=1", "\\r=1", "\\n=1", "＝1", "a=1"];
        window.table = csv([[...words, -1.5, -Infinity, null]])""")
    text = page.js("return window.table")
    assert text == "'\t=1,\"'\r=1\",\"'\n=1\",'＝1,a=1,-1.5,-Infinity,\r\n"


def test_more_runs_than_a_browser_can_hold_are_not_drawn(open_page):
    page = open_page
    page.js("""
        const all = await schedules.data.runs();
        const good = all.find(({run}) => run === "good");
        schedules.data.runs = async () => Array.from({length: 501}, (_, i) => (
          {...good, run: `good ${i}`}));
        const read = schedules.data.rangeTests.bind(schedules.data);
        const [test] = (await read(["good"])).values();
        schedules.data.rangeTests = async (runs) => (
          new Map(runs.map((run) => [run, test])))""")
    page.after(lambda: page.js("schedules.reload()"))
    assert page.text(".note") == (
        "The first 500 of 501 runs are shown: filter the list to see others. "
        "Every point of a range test is kept and shown."
    )
    assert len(table(page)) == 500
    page.after(lambda: page.filter("good 49[0-9]"))
    assert page.text(".note") == "Every point of a range test is kept and shown."
    assert len(table(page)) == 10
