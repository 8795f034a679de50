"""The Schedules tab in a browser: what a practitioner wants to know at first sight."""

from __future__ import annotations

import numpy as np
import pytest
from tensorboard_server import NOW, Written, sweep

from tfschedules.finding.result import RangeTestResult
from tfschedules.tensorboard import EventWriter

pytestmark = pytest.mark.any_backend

RATE, LOSS = "schedule/learning_rate", "schedule/loss"
VALIDATION = "evaluation_loss_vs_iterations"
STEPS = np.arange(200)
PEAKS = dict(zip("abcdefghij", np.geomspace(0.01, 1, 10), strict=True))


def rates(peak: float) -> np.ndarray:
    """Up to the peak at step 60, then down to nearly nothing."""
    return np.interp(STEPS, [0, 60, 199], [peak / 25, peak, peak * 1e-4])


def losses(peak: float) -> np.ndarray:
    """What falls the faster, the higher the rate is."""
    noise = np.random.default_rng(0).normal(0, 0.02, len(STEPS))
    return 0.2 + 2 / (1 + np.cumsum(rates(peak))) + noise


def write(folder) -> Written:
    """Ten trainings, of which the last two go wrong, and range tests."""
    written = Written(folder)
    for i, (name, peak) in enumerate(PEAKS.items()):
        values = {RATE: rates(peak), LOSS: losses(peak)}
        if name == "i":
            values[LOSS][40:45] = np.geomspace(10, 7e10, 5)
            values[LOSS][45:] = np.nan
        if name == "j":
            values[LOSS][[50, 60]] = np.inf, np.nan
        written.training(run(name), STEPS, values, began=NOW + 1000 * i)
    for name in "ab":  # what the logger and Keras's own callback write besides
        with EventWriter(folder / run(name)) as writer:
            given = {"schedule": "OneCycle", "three_phase": False, "anneal": "cosine"}
            given |= {"max_lr": PEAKS[name], "optimizer": "SGD", "momentum": 0.9}
            writer.session_start(given | {"multiplier/head": 0.1})
        folder_of = run(name).rpartition("/")[0]
        values = {VALIDATION: [0.9, 0.5 + PEAKS[name], 0.8], "epoch_loss": [1, 1, 1]}
        written.training(f"{folder_of}/validation", [50, 100, 150], values, began=NOW)
    for i, (name, factor) in enumerate({"small": 1, "large": 400, "below": -1}.items()):
        curve, values = sweep(seed=i)
        result = RangeTestResult.from_sweep(curve, values * factor, steps=100)
        written.range_test(f"digits/{name}/range_test", result)
    return written


def run(name: str) -> str:
    """A training's folder."""
    return f"digits/one cycle {name}/schedules"


@pytest.fixture(autouse=True)
def written(page, tensorboards) -> Written:
    """What the folder holds that the page shows, which is opened anew."""
    folder = tensorboards.folder / "watch"
    made = folder.exists()
    written = None if made else write(folder)
    server = tensorboards.start("watch", folder, "--load_fast=true")
    if made:
        written = tensorboards.watched
    tensorboards.watched = written
    server.wait_for_runs({*written.scalars, *written.tests})
    page.open(server, alone=True)
    return written


# ------------------------------------------------------------------------------ names


def test_names_are_without_what_all_have_in_common(page, written):
    def listed() -> dict[str, str]:
        return dict(
            page.js("""
                const names = [...document.querySelectorAll(".run bdi")];
                return names.map((name) => [name.title, name.textContent])""")
        )

    tests = {f"digits/{name}/range_test": name for name in ("small", "large", "below")}
    assert listed() == tests
    table = page.js("""
        const rows = [...document.querySelectorAll("tbody bdi")];
        return rows.map((name) => [name.title, name.textContent])""")
    assert dict(table) == tests
    page.view("training")
    assert listed() == {run(name): f"one cycle {name}" for name in PEAKS}
    chart = page.chart(RATE)
    assert {line["name"] for line in chart.lines()} == {*listed().values()}
    # A filter changes no name.
    page.after(lambda: page.filter("cycle a"))
    assert listed() == {run("a"): "one cycle a"}
    # Of all kinds, each differs in its folder and in its last part.
    page.filter("")
    page.view("versus")
    assert listed() == {
        run: run.removeprefix("digits/") for run in {**written.tests, **written.scalars}
    }
    short = """
        const {shortNames} = await import("./static/names.js");
        return [...shortNames(arguments[0]).values()]"""
    for runs, names in (
        (["a"], ["a"]),
        (["", "a/b"], ["", "a/b"]),
        (["a", "a/b"], ["a", "a/b"]),
        (["a/b", "a/b/c", "a/d"], ["b", "b/c", "d"]),
        (["x/lr=0.1", "x/lr=0.3"], ["lr=0.1", "lr=0.3"]),
        (
            ["a run that has many words, 1", "a run that has many words, 22"],
            ["…1", "…22"],
        ),
        (
            [f"resnet_with_a_long_name_{i}_seed_0/schedules" for i in "12"],
            ["…1", "…2"],
        ),
    ):
        assert page.js(short, runs) == names, runs


# ------------------------------------------------------------------------- divergence


def test_a_diverged_training_does_not_flatten_the_others(page, written):
    page.view("training")
    chart, rate = page.chart(LOSS), page.chart(RATE)
    low, high, _ = chart.axis("y")
    # The descents: from 0.2 to 2.2, and not the 7e10 of the one.
    assert low < 0.2
    assert 2.2 < high < 4
    note = page.text(".note")
    assert "One run goes on beyond it, as far as 7e10" in note
    assert f"cycle i: NaN from step 45, rate {rates(PEAKS['i'])[45]:.3g}" in note
    assert f"cycle j: infinite at step 50, rate {rates(PEAKS['j'])[50]:.3g}" in note
    assert "TensorBoard has kept every step." in note
    # A cross at the last finite loss, here above the picture, and on the rate.
    color = page.colors()
    crosses = """
        return chart.content.marks.map(({kind, x, y, color, text}) => (
          {kind, x, y, color, text}))"""
    diverged, spiky = chart.js(crosses)
    assert (diverged["kind"], diverged["x"]) == ("cross", 45)
    assert diverged["y"] == pytest.approx(7e10)
    assert diverged["text"].startswith("NaN from step 45, rate")
    assert spiky["x"] == 50
    assert spiky["y"] == pytest.approx(losses(PEAKS["j"])[49])
    page.only(run("i"))
    ends = chart.axis("y")
    top = ends[1] - 7 / chart.over().size["height"] * (ends[1] - ends[0])
    assert chart.ink(color[run("i")], [(45, top)]) == 1
    assert rate.ink(color[run("i")], [(45, rates(PEAKS["i"])[45])]) == 1
    cross = [(45 + dx / 10, rates(PEAKS["i"])[45]) for dx in (-4, 4)]
    assert rate.ink(color[run("i")], cross, reach=3) == 2
    # All of it where that is asked for.
    page.control("show divergence")
    assert chart.axis("y")[1] > 7e10
    assert "beyond" not in page.text(".note")
    # On a logarithmic axis too: eleven decades leave one for the descent.
    page.control("log loss")
    assert chart.axis("y")[1] > 7e10
    page.control("show divergence")
    low, high, log = chart.axis("y")
    assert log
    assert 0.05 < low < 2.2 < high < 100
    # Without one that goes wrong everything is there, and nothing is said.
    page.only(run("a"), run("h"))
    page.control("log loss")
    low, high, _ = chart.axis("y")
    both = np.concatenate([losses(PEAKS[name]) for name in "ah"])
    assert low < both.min() < both.max() < high
    assert page.text(".note") == "TensorBoard has kept every step."


def test_range_tests_of_other_scales_are_compared_by_their_start(page, written):
    chart = page.chart("loss")
    assert "begin at very different values" in page.text(".note")
    assert chart.axis("y")[1] > 400
    page.control("relative to the start")
    note = page.text(".note")
    assert "Not drawn, as they do not begin above 0: below." in note
    assert "very different" not in note
    lines = [line for line in chart.lines() if line["name"]]
    assert len(lines) == 2
    for line, name in zip(lines, ("small", "large"), strict=True):
        result = written.tests[f"digits/{name}/range_test"]
        curve = result.smoothed_losses[np.isfinite(result.smoothed_losses)]
        assert line["y"] == pytest.approx(curve / curve[0])
    low, high, _ = chart.axis("y")
    assert 0 < low < 0.2
    assert 1 < high < 2
    # The suggestion's dot lies on the curve, and the words have the loss as it was.
    result = written.tests["digits/large/range_test"]
    curve = result.smoothed_losses
    height = np.interp(result.suggestion, result.learning_rates, curve / curve[0])
    color = page.colors()["digits/large/range_test"]
    assert chart.ink(color, [(result.suggestion, height)], reach=0) == 1
    chart.hover(1e-4)
    words = chart.tip()[0]
    assert float(words.split("raw ")[1].split(",")[0]) > 2


def test_runs_that_go_wrong_are_marked_in_the_list(page):
    page.view("training")
    marks = """
        const marks = [...document.querySelectorAll(".run .wrong:not([hidden])")];
        const runOf = (mark) => mark.parentElement.querySelector("bdi").title;
        return marks.map((mark) => [runOf(mark), mark.textContent, mark.title])"""
    first, second = page.js(marks)
    assert first[:2] == [run("i"), "NaN"]
    assert first[2].startswith("NaN from step 45, rate ")
    assert second[:2] == [run("j"), "infinite"]
    page.view("range_tests")
    assert page.js(marks) == []


# ---------------------------------------------------------------------- who has won


def test_a_table_compares_all_trainings(page):
    def table() -> dict[str, dict[str, str]]:
        heads, rows = page.js("""
            const text = (row) => [...row.children].map((cell) => cell.textContent);
            return [text(document.querySelector(".comparison thead tr")),
              [...document.querySelectorAll(".comparison tbody tr")].map(text)]""")
        return {row[0]: dict(zip(heads, row, strict=True)) for row in rows}

    page.view("comparison")
    rows = table()
    assert [*rows] == [f"one cycle {name}" for name in PEAKS]
    for name, peak in PEAKS.items():
        row = rows[f"one cycle {name}"]
        assert float(row["highest rate"]) == pytest.approx(peak, rel=5e-3)
        assert row["steps"] == "200"
        assert row["time"] == "49.8 s"  # 199 quarters of a second
    for name in "abc":
        row, last = rows[f"one cycle {name}"], losses(PEAKS[name])[-10:].mean()
        assert float(row["last loss"]) == pytest.approx(last, rel=5e-4)
        assert row["not finite"] == "never"
        given = (row["schedule"], row["optimizer"], row["best validation loss"])
        if name == "c":
            assert given == ("not recorded", "not recorded", "none")
            continue
        rate = rates(PEAKS[name])[99]  # of the last update before it
        assert given == (
            f'OneCycle(max_lr={PEAKS[name]:.6g}, anneal="cosine", three_phase=False)',
            "SGD",
            f"{0.5 + PEAKS[name]:.4g} after 100 steps, rate {rate:.3g}",
        )
    assert rows["one cycle i"]["last loss"] == "NaN"
    assert rows["one cycle i"]["not finite"].startswith("NaN from step 45, rate ")
    # Sorted, and what has no number comes last both ways.
    sort = "document.querySelectorAll('.comparison thead button')[5].click()"
    orders = []
    for _ in range(2):
        page.js(sort)
        *finite, nan = [row["last loss"] for row in table().values()]
        assert nan == "NaN"
        orders.append([float(loss) for loss in finite])
    assert orders[0] == sorted(orders[0]) == orders[1][::-1]
    # A click shows one alone, in all views; the table keeps the others, faint.
    click = "document.querySelector('.comparison tbody button').click()"
    page.after(lambda: page.js(click))
    best = next(iter(table()))
    assert page.js("return schedules.runs.shown.map(({name}) => name)") == [best]
    assert len(table()) == 10
    assert page.js("return document.querySelectorAll('tr.absent').length") == 9
    page.view("training")
    assert {line["name"] for line in page.chart(RATE).lines()} == {best}
    page.view("comparison")
    page.after(lambda: page.js(click))
    assert len(page.shown()) == 10
    # The filter is about the table, too.
    page.after(lambda: page.filter("cycle [ab]"))
    assert {*table()} == {"one cycle a", "one cycle b"}


# --------------------------------------------------------------------- what is kept

LONG = 60_000
SPIKES = (5_003, 15_012, 23_456, 33_333, 47_001, 59_998)


def test_a_long_training_has_all_its_spikes_and_restarts(page, tensorboards):
    folder = tensorboards.folder / "long"
    steps = np.arange(LONG)
    noise = np.random.default_rng(0).normal(0, 0.02, LONG)
    values = {RATE: 0.1 * (1 - steps % 10_000 / 10_000), LOSS: 0.5 + noise}
    values[LOSS][[*SPIKES]] = 3
    values[LOSS][31_234] = np.nan
    written = Written(folder)
    with EventWriter(folder / "long") as writer:
        for part in np.array_split(steps, 60):
            own = {tag: column[part] for tag, column in values.items()}
            writer.scalars(part, NOW + part * 0.01, own)
    written.training("old", steps[:900], {LOSS: values[LOSS][:900]})
    server = tensorboards.start("long", folder, "--load_fast=true")
    server.wait_for_runs({"long", "old"})
    page.open(server, alone=True)
    page.until(
        "const {runs} = schedules; schedules.reload(); return runs.shown.length > 1"
    )
    page.view("training")
    loss = page.chart(LOSS)
    raw, smooth = loss.lines()[:2]
    assert 1000 < len(raw["x"]) < 4000
    by_step = dict(zip(raw["x"], raw["y"], strict=True))
    column = values[LOSS].astype(np.float32)
    assert {step: by_step.get(step) for step in SPIKES} == dict.fromkeys(SPIKES, 3)
    assert all(
        float(value) == column[int(step)]
        for step, value in by_step.items()
        if step != 31_234
    )
    # The mean is that of the steps that TensorBoard has kept, without the spikes.
    assert np.nanmax([float(value) for value in smooth["y"]]) < 2
    page.only("long")
    assert "as far as 3: check" in page.text(".note")
    page.control("show divergence")
    heights = np.linspace(1, 2.9, 20)
    for step in SPIKES:
        assert loss.js(
            """
            const [step, heights] = rest;
            const left = Math.round(chart.chart.valToPos(step, "x", true)) - 2;
            return heights.filter((v) => {
              const top = Math.round(chart.chart.valToPos(v, "y", true));
              const data = pixels(chart, left, top, 5, 1);
              for (let i = 3; i < data.length; i += 4) if (data[i] > 28) return true;
            }).length""",
            step,
            heights.tolist(),
        ) == len(heights)
    # From the end of a cycle to the next in one step.
    (rate,) = page.chart(RATE).lines()
    for end in range(9_999, LONG - 1, 10_000):
        place = rate["x"].index(end)
        assert rate["x"][place + 1] == end + 1
        assert rate["y"][place : place + 2] == pytest.approx([1e-5, 0.1], rel=1e-3)
    note = page.text(".note")
    assert "NaN at step 31234, rate 0.0877" in note  # and not "or before"
    assert "TensorBoard has kept 1000 of" in note
    assert "a spike of one step is seen" in note
    assert "samples_per_plugin" not in note


# ------------------------------------------------------------------------- the window


def test_the_list_says_how_many_runs_are_drawn(page, written):
    page.view("versus")
    assert page.text(".count") == "10 of 15 shown"
    faint = page.js("""
        return [...document.querySelectorAll(".run.absent bdi")].map((e) => e.title)""")
    validations = {f"digits/one cycle {name}/validation" for name in "ab"}
    assert {*faint} == {*written.tests} | validations
    page.choose("y", "range_test/loss")
    assert page.text(".count") == "0 of 15 shown"
    page.choose("x", "step")
    assert page.text(".count") == "3 of 15 shown"
    page.view("training")
    assert page.text(".count") == "10 of 10 shown"


def test_the_plot_of_x_and_y_shows_where_points_are(page):
    page.view("versus")
    chart = page.chart("versus")
    # The last steps go down to 1e-6; the others begin at 4e-4.
    low, high, log = chart.axis("x")
    assert log
    assert 3e-5 < low < 4e-4
    assert high > 0.9
    assert chart.axis("y")[1] < 4
    assert "points lie outside of the axes: check “show all”" in page.text(".note")
    page.control("show all")
    assert chart.axis("x")[0] < 1e-6
    assert chart.axis("y")[1] > 7e10
    assert "outside" not in page.text(".note")


def test_pictures_fill_the_window(page):
    def ends() -> list:
        """Where the last chart and the note end, the window, and what is scrolled."""
        return page.js("""
            const bottom = (one) => one.getBoundingClientRect().bottom;
            const charts = [...document.querySelectorAll(".chart")];
            const main = document.querySelector("main");
            return [bottom(charts.at(-1)), bottom(document.querySelector(".note")),
              innerHeight, main.scrollHeight - main.clientHeight]""")

    try:
        for width, height in ((1280, 900), (1920, 1200)):
            page.driver.set_window_size(width, height)
            for key in ("training", "versus"):
                page.view(key)
                page.js("return new Promise((done) => setTimeout(done, 100))")
                chart, note, window, scrolled = ends()
                assert scrolled == 0, (key, width)
                assert note <= window
                assert chart > 0.8 * window
        page.driver.set_window_size(1280, 400)
        page.view("training")
        page.js("return new Promise((done) => setTimeout(done, 100))")
        assert (
            page.chart(LOSS).js("return chart.options.height") >= 220
        )  # and is scrolled
    finally:
        page.driver.set_window_size(1400, 1100)


def test_on_a_phone_all_is_in_one_column_and_legible(page, tensorboards):
    """Also inside of TensorBoard, whose page takes 980 pixels there."""
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    server = tensorboards.start("watch", tensorboards.folder / "watch")
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        page.open(server)
        page.view("training")
        page.only(run("a"))
        assert page.js("return innerWidth") == 980
        side, main, tip, font = page.chart(RATE).js("""
            const over = chart.chart.over;
            const {left, top, width, height} = over.getBoundingClientRect();
            const place = {clientX: left + width / 2, clientY: top + height / 2};
            over.dispatchEvent(new MouseEvent("mouseenter", place));
            over.dispatchEvent(new MouseEvent("mousemove", {...place, movementX: 1}));
            const frame = () => new Promise(requestAnimationFrame);
            await frame();
            await frame();
            const box = (one) => {
              const {left, right, top, bottom} = one.getBoundingClientRect();
              return {left, right, top, bottom};
            };
            const text = document.querySelector(".run bdi");
            const {height: tall} = text.getBoundingClientRect();
            return [box(document.querySelector("aside")),
              box(document.querySelector("main")), box(chart.tip), tall]""")
        assert side["bottom"] <= main["top"] + 1  # below one another
        assert main["right"] - main["left"] == pytest.approx(980, abs=1)
        assert main["bottom"] == pytest.approx(page.js("return innerHeight"), abs=2)
        assert font * 390 / 980 > 12  # pixels of the phone
        # The middle of the plot is the middle of the steps.
        words = page.chart(RATE).tip()[0]
        assert int(words.split(",")[0].removeprefix("step ")) in (99, 100)
        assert tip["left"] >= 0
        assert tip["right"] <= 980
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
