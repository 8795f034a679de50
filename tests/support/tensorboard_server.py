"""A real TensorBoard for tests, and a folder of runs whose content is known."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.summary.writer.record_writer import RecordWriter

import tfschedules
from tfschedules.finding import event_record
from tfschedules.finding.reports import write_range_test
from tfschedules.finding.result import RangeTestResult
from tfschedules.tensorboard import EventWriter

NOW = 1.7e9
LOADERS = {"fast": "--load_fast=true", "slow": "--load_fast=false"}
ROUTES = "/data/plugin/schedules"


# ------------------------------------------------------------------------ server


@dataclasses.dataclass
class Answer:
    """What a server said."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, which must be what every browser's JSON takes."""

        def refuse(name: str) -> None:
            raise ValueError(f"{name} is no JSON")

        return json.loads(self.body, parse_constant=refuse)


class Server:
    """`tensorboard` in a process of its own, on a free port of the loopback address."""

    def __init__(
        self, log_dir: Path, log: Path, *flags: str, code: str | None = None
    ) -> None:
        """Start it: `tensorboard` itself, or Python on `code` with its arguments."""
        points = importlib.metadata.entry_points(group="tensorboard_plugins")
        count = sum(point.name == "schedules" for point in points)
        if count != 1:
            pytest.fail(
                f"The entry point of the Schedules tab is installed {count} times, and "
                "must be once: run `pip install -e .` again, and look at PYTHONPATH."
            )
        where = ["--logdir", str(log_dir), "--host", "127.0.0.1", "--port", "0"]
        what = ["-c", code] if code else ["-m", "tensorboard.main"]
        command = [sys.executable, *what, *where, *flags]
        self.log = log
        # The same package as in this process, wherever that was found.
        paths = [str(Path(tfschedules.__file__).parents[1])]
        paths += filter(None, [os.environ.get("PYTHONPATH")])
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        options = {"env": env, "cwd": log.parent}
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                command, stdout=file, stderr=file, **options
            )

    @property
    def url(self) -> str:
        """Its address, without a slash at the end, once it can be opened."""
        found = wait_for(
            self._address, seconds=120, what=f"TensorBoard; see {self.log}"
        )
        return found[1]

    def _address(self) -> re.Match[str] | None:
        text = self.log.read_text(errors="replace")
        if self._process.poll() is not None:
            pytest.fail(f"TensorBoard has ended: {text}")
        return re.search(r"TensorBoard \S+ at (http://127\.0\.0\.1:\d+)/ ", text)

    def ask(self, path: str, method: str = "GET", **query: Any) -> Answer:
        """Ask for a path as it is written here; a list of values is many parameters."""
        if query:
            path += "?" + urllib.parse.urlencode(query, doseq=True)
        address = self.url.removeprefix("http://")
        connection = http.client.HTTPConnection(address, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())

    def ours(self, route: str, method: str = "GET", **query: Any) -> Answer:
        """Ask the plugin."""
        return self.ask(ROUTES + route, method, **query)

    def wait_for_runs(self, runs: set[str]) -> None:
        """Until the plugin lists these, at least."""

        def there() -> bool:
            answer = self.ours("/runs")
            return answer.status == 200 and runs <= {
                run["run"] for run in answer.json["runs"]
            }

        wait_for(there, seconds=60, what=f"the runs {runs}")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(30)


class Servers:
    """Those of one test session: each started when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: Written | None = None
        self._servers: dict[str, Server] = {}

    def start(self, name: str, log_dir: Path, *flags: str) -> Server:
        """The server of this name."""
        if name not in self._servers:
            log = self.folder / f"{name}.log"
            self._servers[name] = Server(log_dir, log, *flags)
        return self._servers[name]

    def known(self, loader: str) -> tuple[Server, Written]:
        """A server of the runs of `write_all`, by one of `LOADERS`."""
        if self.written is None:
            self.written = write_all(self.folder / "known")
        server = self.start(loader, self.written.folder, LOADERS[loader])
        server.wait_for_runs({*self.written.scalars, *self.written.tests})
        return server, self.written

    def stop(self) -> None:
        for server in self._servers.values():
            server.stop()


def wait_for(look: Callable[[], Any], seconds: float, what: str) -> Any:
    """What `look` returns as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come within {seconds} s")
        time.sleep(0.05)
    return found


# -------------------------------------------------------------------------- runs

Series = tuple[np.ndarray, np.ndarray, np.ndarray]  # steps, wall times, values

STRANGE = (
    "<img src=x onerror=alert(1)>",
    "<script>window.injected = 1<",
    "</script><b id=injected>\"a\" & 'b'",  # a slash: a folder in a folder
    "ünï ☃ 学习率",
    "two\nlines",
    "javascript:alert(1)",
    "__proto__",
    "a,b&run=c#d%41+e",
)

# What a word of a range test may not be.
WRONG_WORDS = {
    "suggestion": "0.1",
    "bounds": [0.1, None],
    "best": 5,
    "metric": None,
    "group": {"a": 1},
    "higher_is_better": 1,
    "steps": True,
    "reason": float("nan"),
    "suggestions": {"valley": [[0.1]]},
}


def odd_tensors() -> dict[str, tensor_pb2.TensorProto]:
    """Tensors whose type, shape and content do not go together."""

    def tensor(kind: int, shape: tuple[int, ...], content: bytes) -> Any:
        dims = [TensorShapeProto.Dim(size=size) for size in shape]
        return tensor_pb2.TensorProto(
            dtype=kind, tensor_shape=TensorShapeProto(dim=dims), tensor_content=content
        )

    return {
        "too short": tensor(types_pb2.DT_DOUBLE, (40, 6), bytes(8)),
        "half a number": tensor(types_pb2.DT_DOUBLE, (1, 6), bytes(47)),
        "negative size": tensor(types_pb2.DT_DOUBLE, (-1, -6), bytes(48)),
        "no type": tensor(types_pb2.DT_INVALID, (1, 6), b""),
        "resource": tensor(types_pb2.DT_RESOURCE, (1, 6), bytes(48)),
        "bfloat16": tensor(types_pb2.DT_BFLOAT16, (1, 6), bytes(12)),
        "complex": tensor(types_pb2.DT_COMPLEX64, (1, 6), bytes(48)),
        "strings": tensor_pb2.TensorProto(
            dtype=types_pb2.DT_STRING,
            tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=6)]),
            string_val=[b"<img>"] * 6,
        ),
    }


@dataclasses.dataclass
class Written:
    """What a folder holds, by run."""

    folder: Path
    scalars: dict[str, dict[str, Series]] = dataclasses.field(default_factory=dict)
    tests: dict[str, RangeTestResult] = dataclasses.field(default_factory=dict)
    damaged: list[str] = dataclasses.field(default_factory=list)

    def training(
        self, run: str, steps: Any, values: Mapping[str, Any], **options: float
    ) -> None:
        """Write scalars into a run, which began when `began` says."""
        steps = np.asarray(steps)
        times = options.get("began", NOW) + steps * 0.25
        with EventWriter(self.folder / run) as writer:
            writer.scalars(steps, times, values)
        own = self.scalars.setdefault(run, {})
        for tag, column in values.items():
            own[tag] = steps, times, np.asarray(column, np.float32)

    def range_test(self, run: str, result: RangeTestResult) -> None:
        """Write a range test into a run."""
        write_range_test(result, str(self.folder / run))
        self.tests[run] = result

    def table(self, run: str, plugin: str, values: Any, content: bytes) -> None:
        """Write what says that it is a range test."""
        with EventWriter(self.folder / run) as writer:
            writer.table("range_test/result", values, plugin, content, step=0)
        self.damaged.append(run)

    def tensor(
        self, run: str, tensor: tensor_pb2.TensorProto, tag: str, **metadata: Any
    ) -> None:
        """Write a tensor as it is, with TensorBoard's own writer."""
        (self.folder / run).mkdir(parents=True, exist_ok=True)
        plugin = summary_pb2.SummaryMetadata.PluginData(**metadata)
        kind = summary_pb2.DATA_CLASS_TENSOR
        if plugin.plugin_name == "scalars":
            kind = summary_pb2.DATA_CLASS_SCALAR
        words = summary_pb2.SummaryMetadata(plugin_data=plugin, data_class=kind)
        value = summary_pb2.Summary.Value(tag=tag, metadata=words, tensor=tensor)
        events = [
            event_pb2.Event(wall_time=NOW, file_version="brain.Event:2"),
            event_pb2.Event(
                wall_time=NOW, step=0, summary=summary_pb2.Summary(value=[value])
            ),
        ]
        path = self.folder / run / "events.out.tfevents.0000000001.others"
        with path.open("ab") as file:
            for event in events:
                RecordWriter(file).write(event.SerializeToString())


def one_cycle(steps: np.ndarray) -> dict[str, np.ndarray]:
    """What a training records: a rate that rises and falls, and a loss that falls."""
    share = steps / max(1, steps[-1])
    rate = 0.1 * (1 - np.abs(2 * share - 1)) + 1e-3
    return {
        "schedule/learning_rate": rate,
        "schedule/momentum": 0.95 - rate,
        "schedule/loss": 2.3 / (1 + 4 * share) + 0.1 * np.sin(steps),
    }


def sweep(steps: int = 100, *, seed: int = 0, end: float = 10.0) -> tuple:
    """Rates, and losses that fall and then grow beyond all bounds."""
    rates = np.geomspace(1e-5, end, steps)
    noise = np.random.default_rng(seed).normal(0, 0.01, steps)
    return rates, 0.3 + 2 / (1 + rates / 0.01) + rates**2 / 4 + noise


def write_all(folder: Path) -> Written:
    """Runs of every kind."""
    written = Written(folder)
    rates, losses = sweep()
    losses[-2:] = np.inf, np.nan
    result = RangeTestResult.from_sweep(
        rates, losses, steps=120, stop_reason="non-finite loss"
    )
    written.range_test("tests/one sweep", result)
    many = np.stack([sweep(seed=seed)[1] for seed in range(4)])
    many[3, 90:] = np.nan
    result = RangeTestResult.from_sweep(rates, many, steps=100)
    written.range_test("tests/four sweeps", result)
    seen = np.where(np.arange(100) % 5 == 4, 3 - many[0], np.nan)
    result = RangeTestResult.from_sweep(
        *(rates, many[0]),
        steps=100,
        metric="val_accuracy",
        values=seen,
        higher_is_better=True,
        group="head",
    )
    written.range_test("tests/accuracy", result)

    steps = np.arange(300)
    written.training("one_cycle", steps, one_cycle(steps), began=NOW + 10)
    values = one_cycle(steps)
    for i, group in enumerate(("body", 'the "head"')):
        rate = values["schedule/learning_rate"] * (i + 1) / 4
        values[f"schedule/learning_rate/{group}"] = rate
    written.training("groups", steps, values, began=NOW + 20)
    for i, run in enumerate(STRANGE):
        short = np.arange(40 + i)
        written.training(run, short, one_cycle(short), began=NOW + 100 + i)

    # Other tags, at other steps, and values that no axis has.
    odd = np.array([1, 2, 3, np.nan, np.inf, -np.inf, 0, -1, 4, 5])
    written.training("other", np.arange(0, 100, 10), {"odd": odd}, began=NOW + 30)
    steps = np.arange(5, 95, 3)
    written.training("other", steps, {"even": steps**2}, began=NOW + 30)
    nothing = np.full(20, np.nan)
    written.training("nan", np.arange(20), {"schedule/loss": nothing}, began=NOW + 40)
    one = {"schedule/loss": [0.5]}
    written.training("a point", [7], one, began=NOW + 50)

    cut = np.arange(50)
    written.training("cut", cut, one_cycle(cut), began=NOW + 60)
    (file,) = (folder / "cut").iterdir()
    record = file.stat().st_size // 50
    with file.open("r+b") as half:
        half.truncate(file.stat().st_size - record // 2)
    written.scalars["cut"] = {
        tag: (series[0][:-1], series[1][:-1], series[2][:-1])
        for tag, series in written.scalars["cut"].items()
    }
    EventWriter(folder / "empty").close()

    values, content = event_record.to_tensor(result)
    words, deep = json.loads(content), b'{"a": ' * 900 + b"1" + b"}" * 900
    alike = [*words["columns"][:-1], "losses"]
    damaged = {
        "no JSON": (values, b"\xff{"),
        "a list": (values, b"[1]"),
        "version": (values, json.dumps(words | {"version": 2}).encode()),
        "shape": (values[:, 1:], content),
        "flat": (values[0], content),
        "deep": (values, b"[" * 90_000),
        "long": (values, json.dumps(words | {"reason": "x" * 100_000}).encode()),
        "falling": (values[::-1], content),
        "not a number": (np.full_like(values, np.nan), content),
        "alike": (values, json.dumps(words | {"columns": alike}).encode()),
        "deep suggestions": (values, content[:-1] + b', "suggestions": ' + deep + b"}"),
        "deep version": (values, content[:-1] + b', "version": ' + deep + b"}"),
    }
    for name, word in WRONG_WORDS.items():
        damaged[name] = values, json.dumps(words | {name: word}).encode()
    del words["suggestion"]
    damaged["words"] = values, json.dumps(words).encode()
    words["columns"] = ["learning_rates", None, *words["columns"][2:]]
    damaged["columns"] = values, json.dumps({"suggestion": None} | words).encode()
    for name, table in damaged.items():
        written.table(f"damaged/{name}", "schedules", *table)
    for name, tensor in odd_tensors().items():
        run = f"damaged/{name}"
        named = {"plugin_name": "schedules", "content": content}
        written.tensor(run, tensor, "range_test/result", **named)
        written.damaged.append(run)
    written.table("damaged/other plugin", "others", values, content)
    return written
