"""What TensorBoard's own server shows of the event files of fits."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from event_files import run_python
from written_events import NOW, found, outcome, png

from tfschedules.tensorboard import EventWriter

# -------------------------------------------------------------------- the package

ALONE = """
import sys
from tfschedules.tensorboard import EventWriter, find_run, last_step, new_run

run_dir = find_run(sys.argv[1], "schedules", 0).journal.run_dir
with EventWriter(run_dir) as writer:
    writer.scalars([0], [1.7e9], {"a": [1.0]})
    writer.text("report", "text", 0)
    writer.image("curve", bytes.fromhex(sys.argv[2]), 3, 2, 0)
assert last_step(new_run(sys.argv[1], "schedules")) is None
print(sorted({"tensorflow", "keras", "jax", "torch"} & {*sys.modules}))
"""


def test_neither_keras_nor_tensorflow_is_imported(tmp_path):
    assert outcome(run_python(ALONE, tmp_path, png().hex())) == (0, "[]\n")


# --------------------------------------------------------------------- the server


def fetch(port: int, route: str, **query: str) -> bytes:
    """Get a route of the server on the loopback address, without any proxy."""
    url = f"http://127.0.0.1:{port}/{route}?{urllib.parse.urlencode(query)}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as answer:
        return answer.read()


def wait_for_tags(port: int, expected: dict[str, set], server, seconds: float) -> None:
    """Poll until every plugin lists the runs expected of it."""
    deadline, found = time.monotonic() + seconds, {}
    while time.monotonic() < deadline and server.poll() is None:
        try:
            for plugin in expected:
                found[plugin] = set(
                    json.loads(fetch(port, f"data/plugin/{plugin}/tags"))
                )
        except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
            found["error"] = error
        if all(found.get(plugin) == runs for plugin, runs in expected.items()):
            return
        time.sleep(0.3)
    pytest.fail(f"TensorBoard shows {found}, not {expected}, within {seconds} s")


def post(port: int, route: str, **body) -> dict:
    """Ask a route of the server that wants a body."""
    url, data = f"http://127.0.0.1:{port}/{route}", json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        return json.loads(answer.read())


def rows_of(port: int) -> dict[str, dict]:
    """The rows of the HParams tab, as it asks for them."""
    everything = ["UNKNOWN", "SUCCESS", "FAILURE", "RUNNING"]
    answer = post(
        port,
        "data/plugin/hparams/session_groups",
        experimentName="",
        allowedStatuses=[f"STATUS_{status}" for status in everything],
        colParams=[
            {"hparam": "max_lr", "filterInterval": {"minValue": 0.2, "maxValue": 9}}
        ],
        startIndex=0,
        sliceSize=100,
        aggregationType="AGGREGATION_AVG",
    )
    return {group["name"]: group for group in answer["sessionGroups"]}


@pytest.fixture(scope="module")
def logs_of_fits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of real fits: beside Keras's own logger, and one that diverges."""
    import keras
    from helpers import BACKEND, digits, softmax_regression

    import tfschedules as tfs

    folder = tmp_path_factory.mktemp("logs")
    x, y = digits(640)
    model = softmax_regression(keras.optimizers.SGD(0.1, momentum=0.9))
    # Keras's own fails on JAX, without TensorFlow.
    board = keras.callbacks.TensorBoard(folder, update_freq="batch", write_graph=False)
    boards = [board] if BACKEND == "tensorflow" else []
    for rate, data in ((0.5, x), (0.1, x), (0.3, np.full_like(x, np.nan))):
        if rate == 0.3:
            model = softmax_regression(keras.optimizers.SGD(0.1, momentum=0.9))
            boards = []
        callbacks = [tfs.OneCycle(rate), *boards, tfs.TensorBoardLogger(folder)]
        model.fit(data, y, batch_size=64, epochs=2, verbose=0, callbacks=callbacks)
    return folder


@pytest.mark.parametrize("load_fast", ["auto", "false"])
def test_tensorboard_shows_scalars_image_text_and_rows(
    tmp_path, load_fast, logs_of_fits
):
    shutil.copytree(logs_of_fits, tmp_path / "fits")
    run_dir = found(tmp_path, 0)
    with EventWriter(run_dir) as writer:
        steps = np.arange(100)
        writer.scalars(steps, NOW + steps, {"rate": steps / 8, "loss": np.sqrt(steps)})
        writer.image("curve", png(), 3, 2, step=0)  # behind the scalars
        writer.text("report", "a **bold** word", step=0)
    path = Path(writer.path)
    path.write_bytes(path.read_bytes() + path.read_bytes()[-100:-30])  # killed here
    with EventWriter(run_dir) as writer:
        steps = np.arange(100, 200)
        writer.scalars(steps, NOW + steps, {"rate": steps / 8, "loss": np.sqrt(steps)})

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (tmp_path / "server.log").open("w")
    arguments = ["--logdir", str(tmp_path), "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tensorboard.main",
            *arguments,
            f"--load_fast={load_fast}",
        ],
        stdout=log,
        stderr=log,
    )
    try:
        runs = {"schedules"}
        of_fits = {f"fits/schedules{end}" for end in ("", "/fit_2", "_1")}
        if (tmp_path / "fits" / "train").exists():
            of_fits |= {"fits/train"}
        told = runs | {"fits/schedules_1"}  # where its loss is not finite
        expected = {"scalars": runs | of_fits, "images": runs, "text": told}
        wait_for_tags(port, expected, server, seconds=60)
        deadline = time.monotonic() + 20
        while True:
            route = {"run": "schedules", "tag": "loss"}
            points = json.loads(fetch(port, "data/plugin/scalars/scalars", **route))
            if len(points) == 200 or time.monotonic() > deadline:
                break
            time.sleep(0.3)
        assert [point[1] for point in points] == [*range(200)]
        assert [point[0] for point in points] == [NOW + step for step in range(200)]
        np.testing.assert_allclose(
            [point[2] for point in points], np.sqrt(np.arange(200)), rtol=1e-6
        )
        route = {"run": "schedules", "tag": "curve", "sample": "0"}
        (image,) = json.loads(fetch(port, "data/plugin/images/images", **route))
        assert image["step"] == 0
        query = dict(urllib.parse.parse_qsl(image["query"]))
        assert fetch(port, "data/plugin/images/individualImage", **query) == png()
        route = {"run": "schedules", "tag": "report"}
        (text,) = json.loads(fetch(port, "data/plugin/text/text", **route))
        assert "<strong>bold</strong>" in text["text"]

        def points_of(run, tag):
            route = {"run": f"fits/{run}", "tag": tag}
            return json.loads(fetch(port, "data/plugin/scalars/scalars", **route))

        losses = points_of("schedules", "schedule/loss")
        assert [point[1] for point in losses] == [*range(40)]
        if "fits/train" in of_fits:  # Keras counts a second fit from 0 again
            assert len(points_of("train", "batch_loss")) >= 20
        rows = rows_of(port)
        assert {name: row["hparams"]["max_lr"] for name, row in rows.items()} == {
            "fits/schedules": 0.5,
            "fits/schedules_1": 0.3,  # not 0.1: the tab has filtered the rows
        }
        for name, row in rows.items():
            assert row["hparams"]["schedule"] == "OneCycle"
            assert row["sessions"][0]["status"] == "STATUS_SUCCESS"
            shown = {v["name"]["tag"]: v["value"] for v in row["metricValues"]}
            last = losses[-1][2] if name == "fits/schedules" else "NaN"
            assert shown["schedule/loss"] == last
    except BaseException:
        sys.stderr.write((tmp_path / "server.log").read_text())
        raise
    finally:
        server.kill()
        server.wait(30)
        log.close()
