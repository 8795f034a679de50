"""The Schedules tab's server side: damaged runs beside good ones, and long answers."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from tensorboard import errors
from tensorboard.backend import application
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.plugins import base_plugin
from tensorboard_server import Written, odd_tensors, one_cycle, sweep
from werkzeug import test as werkzeug_test

from tfschedules import tensorboard_plugin
from tfschedules.finding.result import RangeTestResult

pytestmark = pytest.mark.any_backend

ROUTE = "/data/plugin/schedules"
STEPS = np.arange(30)


class Tab:
    """The tab's server side in this process, over TensorBoard's Python loader."""

    def __init__(self, folder: Path) -> None:
        multiplexer = plugin_event_multiplexer.EventMultiplexer()
        multiplexer.AddRunsFromDirectory(str(folder)).Reload()
        self.data = data_provider.MultiplexerDataProvider(multiplexer, str(folder))
        context = base_plugin.TBContext(data_provider=self.data)
        plugin = tensorboard_plugin.SchedulesLoader().load(context)
        app = application.TensorBoardWSGI([plugin], "", self.data)
        self.client = werkzeug_test.Client(app)

    def ask(self, route: str, **query):
        answer = self.client.get(f"{ROUTE}/{route}", query_string=query)
        assert answer.status_code == 200
        self.size = len(answer.data)
        return answer.get_json()[route]


def decoded(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f8")


@pytest.fixture
def written(tmp_path) -> Written:
    return Written(tmp_path)


def test_a_damaged_scalar_is_one_message(written):
    written.training("good", STEPS, one_cycle(STEPS))
    tag = "schedule/loss"
    for name, tensor in odd_tensors().items():
        written.tensor(name, tensor, tag, plugin_name="scalars")
    runs = ["good", *odd_tensors()]
    found = Tab(written.folder).ask("scalars", tag=tag, run=runs)
    expected = written.scalars["good"][tag][2]
    np.testing.assert_array_equal(decoded(found.pop("good")["values"]), expected)
    assert found.keys() == odd_tensors().keys()
    for run, answer in found.items():
        assert answer.keys() == {"error"}, run
        why = f"The scalar {tag} cannot be read: "
        assert answer["error"].startswith(why)
        assert len(answer["error"]) > len(why) + 10


def test_whatever_fails_for_one_run_is_its_message(written, monkeypatch):
    """Also what nobody thought of, as an answer of the data server that is too long."""
    for run in ("a", "b", "c"):
        written.range_test(run, RangeTestResult.from_sweep(*sweep(20), steps=20))
    tab = Tab(written.folder)
    read = tab.data.read_tensors

    def fails(*, run_tag_filter, **others):
        if "b" in run_tag_filter.runs:
            raise RuntimeError("received\nmessage larger than max " + "x" * 10_000)
        return read(run_tag_filter=run_tag_filter, **others)

    monkeypatch.setattr(tab.data, "read_tensors", fails)
    found = tab.ask("range_tests", run=["a", "b", "c", "d"])
    assert found.keys() == {"a", "b", "c"}
    assert found["b"]["error"].startswith(
        "This range test cannot be read: RuntimeError: received message larger than max"
    )
    assert len(found["b"]["error"]) < 400
    assert found["a"] == found["c"]
    assert found["a"]["count"] == 20

    def refused(**others):
        raise errors.PermissionDeniedError("not yours")

    monkeypatch.setattr(tab.data, "read_tensors", refused)
    answer = tab.client.get(f"{ROUTE}/range_tests?run=a")
    assert (answer.status_code, answer.text) == (403, "Permission denied: not yours")


def test_a_long_range_test_is_thinned_and_says_so(written):
    count = 20_001
    rates, losses = sweep(count)
    # Validation data are looked at now and then: those points are the curve.
    looks = np.where(np.arange(count) % 40 == 39, losses, np.nan)
    result = RangeTestResult.from_sweep(
        rates, losses, steps=count, metric="val_loss", values=looks
    )
    written.range_test("long", result)
    tab = Tab(written.folder)
    test = tab.ask("range_tests", run="long")["long"]
    rows = decoded(test["rows"]).astype(int)
    assert test["count"] == count
    assert len(rows) == 5000
    assert tab.size < 400_000
    assert rows[0] == 0
    assert rows[-1] == count - 1
    assert (np.diff(rows) > 0).all()
    assert np.diff(rows).max() <= 10  # no part is left out
    curves = {name: decoded(text) for name, text in test["curves"].items()}
    for name in ("learning_rates", "losses", "values", "smoothed_values"):
        np.testing.assert_array_equal(curves[name], getattr(result, name)[rows])
    seen = np.isfinite(curves["values"])
    assert seen.sum() == np.isfinite(looks).sum()  # all 500 of them


@pytest.mark.parametrize(
    ("count", "repeats", "rows"), [(600, 500, 59), (2000, 1, 2000)]
)
def test_many_sweeps_have_fewer_rows_each(written, count, repeats, rows):
    rates, losses = sweep(count)
    sweeps = np.tile(losses, (repeats, 1))
    written.range_test("many", RangeTestResult.from_sweep(rates, sweeps, steps=count))
    test = Tab(written.folder).ask("range_tests", run="many")["many"]
    assert len(decoded(test["curves"]["losses"])) == rows
    assert test["count"] == count
    assert (test["rows"] is None) == (rows == count)


def test_only_the_last_of_several_range_tests_of_a_run_is_read(written, monkeypatch):
    for losses in (1.0, 2.0):
        values = sweep(20)[1] * losses
        result = RangeTestResult.from_sweep(sweep(20)[0], values, steps=20)
        written.range_test("twice", result)
    tab = Tab(written.folder)
    test = tab.ask("range_tests", run="twice")["twice"]
    np.testing.assert_array_equal(decoded(test["curves"]["losses"]), values)
