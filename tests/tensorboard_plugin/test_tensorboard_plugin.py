"""The Schedules tab's server side: asked over HTTP, from real TensorBoards."""

from __future__ import annotations

import base64
import struct
from pathlib import Path

import numpy as np
import pytest
from tensorboard.plugins import base_plugin
from tensorboard_server import LOADERS, STRANGE, WRONG_WORDS, Server, Written

from tfschedules import tensorboard_plugin

pytestmark = pytest.mark.any_backend

STATIC = Path(tensorboard_plugin.__file__).with_name("static")
FILES = sorted(
    path.relative_to(STATIC).as_posix()
    for path in STATIC.rglob("*")
    if path.is_file() and path.name != "LICENSE"
)
TYPES = {".js": "text/javascript", ".css": "text/css"}


@pytest.fixture(params=LOADERS)
def known(request, tensorboards) -> tuple[Server, Written]:
    """A TensorBoard of each loader, and what its folder holds."""
    return tensorboards.known(request.param)


@pytest.fixture
def fast(tensorboards) -> Server:
    """The TensorBoard of one loader, where that makes no difference."""
    return tensorboards.known("fast")[0]


def decoded(text: str) -> list[float]:
    """Little-endian float64, one by one."""
    data = base64.b64decode(text, validate=True)
    return [number for (number,) in struct.iter_unpack("<d", data)]


# ------------------------------------------------------------------------ the data


def test_runs_are_listed_with_their_tags_and_last_steps(known):
    server, written = known
    runs = {run["run"]: run for run in server.ours("/runs").json["runs"]}
    names = {*written.scalars, *written.tests, *written.damaged, "empty"}
    assert {*runs} == names
    assert {*STRANGE} <= names
    for name, run in runs.items():
        assert run.keys() == {"run", "scalars", "range_test"}
        scalars = {
            tag: int(steps[-1])
            for tag, (steps, _, _) in written.scalars.get(name, {}).items()
        }
        if name in written.tests:
            last = len(written.tests[name].losses) - 1
            tags = ("loss", "smoothed_loss", "learning_rate")
            scalars = {f"range_test/{tag}": last for tag in tags}
            if written.tests[name].metric != "loss":
                tags = ("val_accuracy", "smoothed_val_accuracy")
                scalars |= {f"range_test/{tag}": 99 for tag in tags}
        assert run["scalars"] == scalars, name
        ours = name in written.tests or name in written.damaged
        assert run["range_test"] is (ours and name != "damaged/other plugin"), name


def test_runs_come_in_the_order_in_which_they_began(known):
    server, written = known
    order = [run["run"] for run in server.ours("/runs").json["runs"]]
    with_scalars = [run for run in order if run in written.scalars]
    # By the first event; the Python loader counts the file's own first one, too, and
    # files were opened in the order of this dictionary.
    began = {run: series for run, series in written.scalars.items()}
    by_data = sorted(began, key=lambda run: min(t[1][0] for t in began[run].values()))
    by_files = list(began)
    assert with_scalars in (by_data, by_files)


def test_range_tests_come_back_as_they_were_written(known):
    server, written = known
    answer = server.ours("/range_tests", run=[*written.tests])
    assert answer.status == 200
    found = answer.json["range_tests"]
    assert found.keys() == written.tests.keys()
    for run, result in written.tests.items():
        test = found[run]
        curves = {name: decoded(text) for name, text in test["curves"].items()}
        columns = ("learning_rates", "losses", "smoothed_losses", "values")
        expected = {name: getattr(result, name) for name in columns}
        expected["smoothed_values"] = result.smoothed_values
        for i, row in enumerate(result.sweeps):
            expected[f"sweep {i + 1}"] = row
        assert (test["count"], test["rows"]) == (len(result.losses), None)
        assert curves.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_array_equal(curves[name], values, err_msg=name)
        words = ("suggestion", "stop_reason", "reason", "metric", "group", "steps")
        for name in (*words, "higher_is_better", "suggestions", "rule", "mode"):
            assert test[name] == getattr(result, name), (run, name)
        assert test["bounds"] == list(result.bounds)
        best = max if result.higher_is_better else min
        seen = result.smoothed_values[np.isfinite(result.smoothed_values)]
        rate, value = test["best"]
        assert value == best(seen)
        assert rate in result.learning_rates[result.smoothed_values == value]
    one, four = written.tests["tests/one sweep"], written.tests["tests/four sweeps"]
    assert np.isinf(one.losses[-2])
    assert np.isnan(one.losses[-1])
    assert four.sweeps.shape == (4, 100)
    assert written.tests["tests/accuracy"].group == "head"


def test_scalars_come_back_as_they_were_written(known):
    server, written = known
    tags = {tag for series in written.scalars.values() for tag in series}
    assert len(tags) == 7
    for tag in tags:
        runs = [run for run, own in written.scalars.items() if tag in own]
        answer = server.ours("/scalars", tag=tag, points=10000, run=runs)
        assert answer.status == 200
        found = answer.json["scalars"]
        assert sorted(found) == sorted(runs)
        for run, curve in found.items():
            steps, times, values = written.scalars[run][tag]
            assert curve.keys() == {"steps", "wall_times", "values"}
            assert decoded(curve["steps"]) == steps.tolist()
            assert decoded(curve["wall_times"]) == times.tolist()
            np.testing.assert_array_equal(decoded(curve["values"]), values)
    values = written.scalars["other"]["odd"][2]
    assert np.isnan(values[3])
    assert values[4:6].tolist() == [np.inf, -np.inf]


def test_fewer_points_where_fewer_are_asked_for(known):
    server, written = known
    ask = {"tag": "schedule/loss", "run": "one_cycle"}
    curve = server.ours("/scalars", **ask, points=20).json["scalars"]["one_cycle"]
    steps = decoded(curve["steps"])
    assert len(steps) == 20
    assert steps == sorted({*steps})
    _, _, values = written.scalars["one_cycle"]["schedule/loss"]
    assert decoded(curve["values"]) == values[np.array(steps, int)].tolist()
    curve = server.ours("/scalars", **ask, points=1).json["scalars"]["one_cycle"]
    assert len(decoded(curve["steps"])) == 1
    # All that there are, where nothing is said.
    curve = server.ours("/scalars", **ask).json["scalars"]["one_cycle"]
    assert len(decoded(curve["steps"])) == 300


def test_what_is_not_there_is_left_out(known):
    server, _ = known
    for runs in (["no such run"], ["empty"], ["one_cycle/"], [""]):
        answer = server.ours("/range_tests", run=runs)
        assert (answer.status, answer.json) == (200, {"range_tests": {}})
        answer = server.ours("/scalars", tag="schedule/loss", run=runs)
        assert (answer.status, answer.json) == (200, {"scalars": {}})
    answer = server.ours("/scalars", tag="no such tag", run="one_cycle")
    assert (answer.status, answer.json) == (200, {"scalars": {}})
    # Not a scalar, but a tensor of ours.
    answer = server.ours("/scalars", tag="range_test/result", run="tests/one sweep")
    assert (answer.status, answer.json) == (200, {"scalars": {}})
    answer = server.ours("/range_tests", run=["one_cycle", "tests/accuracy"])
    assert answer.json["range_tests"].keys() == {"tests/accuracy"}


def test_a_damaged_range_test_says_so_and_leaves_the_others_alone(known):
    server, written = known
    runs = [*written.damaged, "tests/one sweep"]
    found = server.ours("/range_tests", run=runs).json["range_tests"]
    rates = written.tests["tests/one sweep"].learning_rates
    good = found.pop("tests/one sweep")
    assert decoded(good["curves"]["learning_rates"]) == rates.tolist()
    wrong = {
        "no JSON": "its description is damaged",
        "a list": "its description is of another format",
        "version": "it is of version 2, and this tfschedules reads version 1: upgrade",
        "shape": "it has the shape (100, 5)",
        "flat": "it has the shape (6,)",
        "words": "it lacks suggestion.",
        "columns": "its columns are not named, or named alike.",
        "deep": "its description is damaged",
        "long": "its description is 100,",
        "falling": "its learning rates are not > 0, finite and increasing.",
        "not a number": "its learning rates are not > 0, finite and increasing.",
        "alike": "its columns are not named, or named alike.",
        "deep suggestions": "its suggestions cannot be a dict of 1.",
        "deep version": "it is of version a dict of 1, and",
        "too short": "reshape",
        "half a number": "buffer size must be a multiple",
        "negative size": "",
        "no type": "DType",
        "resource": "",
        "bfloat16": "",
        "complex": "it holds complex64, and no numbers.",
        "strings": "it has the shape (6,).",
        **{name: f"its {name} cannot be " for name in WRONG_WORDS},
    }
    assert found.keys() == {f"damaged/{name}" for name in wrong}
    for name, why in wrong.items():
        test = found[f"damaged/{name}"]
        assert test.keys() == {"error"}, name
        assert test["error"].startswith("This range test cannot be read: ")
        assert why in test["error"]
        assert len(test["error"]) < 400


# --------------------------------------------------------------- methods, parameters


@pytest.mark.parametrize(
    "route", ["/runs", "/range_tests", "/scalars", "/static/index.js"]
)
def test_only_get_and_head_are_answered(fast, route):
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        answer = fast.ours(route + "?run=one_cycle&tag=x", method)
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET, HEAD"
        assert answer.body.decode() == f"Use GET, not {method}."
    answer = fast.ours("/runs", "HEAD")
    assert (answer.status, answer.body) == (200, b"")


WRONG = [
    ("/runs", {"run": "one_cycle"}, "unknown parameter 'run'; there are: none"),
    (
        "/range_tests",
        {"run": "a", "tag": "b"},
        "parameter 'tag'; there are: run",
    ),
    ("/range_tests", {}, "give `run=` once for each run, 1 to 100 times, not 0"),
    ("/range_tests", {"run": ["a"] * 101}, "1 to 100 times, not 101"),
    ("/scalars", {"tag": "x"}, "give `run=` once for each run, 1 to 100 times, not 0"),
    ("/scalars", {"tag": "x", "run": ["a"] * 101}, "1 to 100 times, not 101"),
    ("/scalars", {"run": "a"}, "give one `tag=`, a scalar's name"),
    ("/scalars", {"run": "a", "tag": ""}, "give one `tag=`, a scalar's name"),
    ("/scalars", {"run": "a", "tag": "x", "Points": 5}, "unknown parameter 'Points'"),
    ("/static/index.js", {"v": 1}, "unknown parameter 'v'; there are: none"),
    *(
        (
            "/scalars",
            {"run": "a", "tag": "x", "points": points},
            "`points` must be a whole number from 1 to 10000, not " + repr(points),
        )
        for points in (
            *("0", "-1", "abc", "", " 5", "1_000", "+5", "1e3", "1.0", "٣", "²"),
            *("10001", "9" * 30),
        )
    ),
]


@pytest.mark.parametrize(("route", "query", "why"), WRONG)
def test_wrong_parameters_are_refused_with_the_reason(fast, route, query, why):
    answer = fast.ours(route, **query)
    assert answer.status == 400
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert why in answer.body.decode()


def test_a_number_of_thousands_of_digits_is_refused(fast):
    """`int` raises of its own above 4300 digits, which must not be a 500."""
    answer = fast.ours("/scalars", run="a", tag="x", points="1" * 5000)
    assert answer.status == 400
    assert b"`points` must be a whole number from 1 to 10000" in answer.body


@pytest.mark.parametrize("name", ["tag", "points"])
def test_only_runs_may_be_several(fast, name):
    query = {"run": ["one_cycle", "groups"], "tag": ["schedule/loss"], "points": [5]}
    assert len(fast.ours("/scalars", **query).json["scalars"]) == 2
    answer = fast.ours("/scalars", **query | {name: [*query[name], 5]})
    assert answer.status == 400
    assert answer.body.decode().endswith(f"give one `{name}=`, not several")


# ---------------------------------------------------------------------- static files


def test_every_file_of_the_page_is_served_as_it_is(known):
    server, _ = known
    assert {"index.js", "style.css", "uplot/uPlot.iife.min.js"} <= {*FILES}
    for name in FILES:
        answer = server.ours(f"/static/{name}")
        assert answer.status == 200, name
        kind = answer.headers["Content-Type"]
        assert kind.split(";")[0] == TYPES[Path(name).suffix], name
        assert answer.body == (STATIC / name).read_bytes(), name


def test_nothing_else_is_served(fast):
    for path in (
        *("/static", "/static/", "/static/uplot", "/static/uplot/", "/", ""),
        *("/static/uplot/LICENSE", "/static/index.css", "/static/INDEX.JS"),
        *("/static/../plugin.py", "/static/%2e%2e/plugin.py", "/static/..%2fplugin.py"),
        *("/static//index.js", "/static/./../plugin.py", "/static/uplot/../index.js"),
        *("/plugin.py", "/static/%2fetc/passwd", "/../../../../../../etc/passwd"),
        *("/static/index.js%00.css", "/static/..\\plugin.py", "/tags"),
    ):
        assert fast.ours(path).status == 404, path


def test_the_wheel_has_every_file_of_the_page():
    """Those that `setup.cfg` names, in the folder or in what was installed."""
    folder = Path(tensorboard_plugin.__file__).parents[1]
    config = folder.parent / "setup.cfg"
    if not config.is_file():
        pytest.skip("this is an installed wheel: the tests above ask for its files")
    import configparser

    parser = configparser.ConfigParser()
    parser.read(config, encoding="utf-8")
    named = parser["options.package_data"]["tfschedules"].split()
    packed = {path for pattern in named for path in folder.glob(pattern)}
    expected = {path for path in STATIC.rglob("*") if path.is_file()}
    assert expected <= packed
    assert STATIC / "uplot" / "LICENSE" in expected


def test_tensorboard_lists_the_tab_and_its_module(known):
    server, _ = known
    plugin = server.ask("/data/plugins_listing").json["schedules"]
    assert plugin["enabled"] is True
    assert plugin["tab_name"] == "Schedules"
    assert plugin["loading_mechanism"] == {
        "type": "IFRAME",
        "module_path": "/data/plugin/schedules/static/index.js",
    }
    entry = server.ask("/data/plugin_entry.html", name="schedules")
    assert entry.status == 200
    assert b'<base href="plugin/schedules/" />' in entry.body
    assert b'import("./static/index.js")' in entry.body


def test_the_pages_module_is_one_of_the_files():
    plugin = tensorboard_plugin.SchedulesLoader().load(base_plugin.TBContext())
    assert plugin.plugin_name == "schedules"
    apps = plugin.get_plugin_apps()
    assert plugin.frontend_metadata().es_module_path in apps
    served = {f"/static/{name}" for name in FILES}
    assert apps.keys() == served | {"/runs", "/range_tests", "/scalars", "/settings"}
