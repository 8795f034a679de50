"""The Schedules tab's loader: when there is a tab, and that it harms nobody."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
from tensorboard.backend import application
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.plugins import base_plugin
from tensorboard_server import Server, Written, one_cycle, sweep
from werkzeug import test as werkzeug_test

from tfschedules import tensorboard_plugin
from tfschedules.finding import event_record
from tfschedules.finding.result import RangeTestResult

SWEEP = RangeTestResult.from_sweep(*sweep(20), steps=20)


def listing(folder: Path) -> dict:
    """What TensorBoard says of the plugin for a folder."""
    multiplexer = plugin_event_multiplexer.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(folder)).Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(folder))
    context = base_plugin.TBContext(data_provider=provider)
    plugin = tensorboard_plugin.SchedulesLoader().load(context)
    app = application.TensorBoardWSGI([plugin], "", provider)
    client = werkzeug_test.Client(app)
    answer = client.get("/data/plugins_listing")
    return answer.get_json()["schedules"]


def test_the_tab_is_active_where_there_is_something_to_see(tmp_path):
    for name in ("nothing", "test", "training", "text"):
        (tmp_path / name).mkdir()
    Written(tmp_path / "training").training("a", [0], {"any": [1]})
    Written(tmp_path / "test").table("a", "schedules", np.ones((1, 1)), b"")
    Written(tmp_path / "text").table("a", "others", np.ones((1, 1)), b"")
    found = {folder.name: listing(folder) for folder in tmp_path.iterdir()}
    active = {name: plugin["enabled"] for name, plugin in found.items()}
    assert active == {"nothing": False, "test": True, "training": True, "text": False}
    for plugin in found.values():
        assert plugin["tab_name"] == "Schedules"


# ---------------------------------------------------------- never in the way of others

BLOCKED = """
import importlib.metadata
import sys

blocked = {"keras", "tensorflow", "jax", "torch", "matplotlib", "rich", "sklearn"}


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ImportError(f"{name} is not installed here")


sys.meta_path.insert(0, Blocker())
points = importlib.metadata.entry_points(group="tensorboard_plugins")
loader = points["schedules"].load()()


def ours():
    return sorted(name for name in sys.modules if name.startswith("tfschedules"))


print(ours())
from tensorboard.plugins import base_plugin

print(type(loader.load(base_plugin.TBContext())).__name__)
print(ours())
print(sorted(blocked & {*sys.modules}))
"""


def run_python(code: str, folder: Path) -> subprocess.CompletedProcess:
    """Run Python on `code` in a folder, with the package that is tested here."""
    paths = [str(Path(tensorboard_plugin.__file__).parents[2])]
    paths += filter(None, [os.environ.get("PYTHONPATH")])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    options = {"env": env, "cwd": folder, "capture_output": True, "text": True}
    return subprocess.run([sys.executable, "-c", code], timeout=60, **options)


def test_tensorboard_imports_no_more_than_it_must(tmp_path):
    done = run_python(BLOCKED, tmp_path)
    assert done.returncode == 0, done.stderr
    package = "tfschedules.tensorboard_plugin"
    support = ["tfschedules._support", "tfschedules._support.lazy"]
    before = ["tfschedules", *support, "tfschedules.registration", package]
    reading = "tfschedules.finding.suggestions"  # of a curve, in NumPy
    parts = ["curves", "descents", "refusals", "rules", "suggesting", "words"]
    after = [
        *before,
        "tfschedules._support.arguments",
        "tfschedules._support.checks",
        "tfschedules.finding",
        "tfschedules.finding.event_record",
        reading,
        *(f"{reading}.{part}" for part in parts),
        f"{package}.plugin",
        f"{package}.settings",
        "tfschedules.tensorboard",
        "tfschedules.tensorboard.extremes",
    ]
    lines = [str(sorted(before)), "SchedulesPlugin", str(sorted(after)), "[]"]
    assert done.stdout.splitlines() == lines


class Broken:
    """A context from which nothing can be had."""

    @property
    def data_provider(self):
        raise RuntimeError("no data here")


def test_a_loader_that_fails_says_so_and_is_left_out(caplog, monkeypatch):
    loader = tensorboard_plugin.SchedulesLoader()
    with caplog.at_level(logging.WARNING):
        assert loader.load(Broken()) is None
    assert caplog.messages == [
        "The Schedules tab of tfschedules is left out: no data here"
    ]
    caplog.clear()
    monkeypatch.setitem(sys.modules, "tfschedules.tensorboard_plugin.plugin", None)
    with caplog.at_level(logging.WARNING):
        assert loader.load(base_plugin.TBContext()) is None
    assert "The Schedules tab of tfschedules is left out: import of" in caplog.text


# TensorBoard as its command starts it, with our plugin's module damaged.
DAMAGED = """
import sys

sys.modules["tfschedules.tensorboard_plugin.plugin"] = None
from tensorboard import main

main.run_main()
"""


def test_tensorboard_starts_without_us(tmp_path):
    (tmp_path / "logs").mkdir()
    Written(tmp_path / "logs").training("a", np.arange(5), one_cycle(np.arange(5)))
    server = Server(
        tmp_path / "logs", tmp_path / "log", "--load_fast=false", code=DAMAGED
    )
    try:
        plugins = server.ask("/data/plugins_listing").json
        assert "schedules" not in plugins
        assert "scalars" in plugins
        assert server.ours("/runs").status == 404
        said = "The Schedules tab of tfschedules is left out: import of"
        assert said in server.log.read_text()
    finally:
        server.stop()


class WhileLoading:
    """A data provider that finds more when it is asked again, one of it no numbers."""

    def list_tensors(self, ctx, **where):
        _, content = event_record.to_tensor(SWEEP)
        ours = {"run": "another", "color": "red", "error": "none"}  # the page's own
        content = json.dumps(json.loads(content) | ours).encode()
        word = types.SimpleNamespace(plugin_content=content)
        return {"old": {event_record.TAG: word}, "texts": {event_record.TAG: word}}

    def read_tensors(self, ctx, **where):
        table, _ = event_record.to_tensor(SWEEP)
        data = {"old": table, "new": table, "texts": table.astype(object)}
        return {
            run: {event_record.TAG: [types.SimpleNamespace(numpy=tensor)]}
            for run, tensor in data.items()
        }


def test_what_is_being_loaded_and_texts_leave_the_others_alone():
    context = base_plugin.TBContext(data_provider=WhileLoading())
    plugin = tensorboard_plugin.SchedulesLoader().load(context)
    client = werkzeug_test.Client(plugin.get_plugin_apps()["/range_tests"])
    answer = client.get("/range_tests?run=old&run=new&run=texts")
    assert answer.status_code == 200
    found = answer.get_json()["range_tests"]
    assert {run: "curves" in test for run, test in found.items()} == {
        **{"old": True, "texts": False}
    }
    assert not {"run", "color", "error"} & found["old"].keys()
    assert "it holds object, and no numbers" in found["texts"]["error"]
