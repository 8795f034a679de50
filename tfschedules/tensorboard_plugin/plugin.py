"""What the Schedules tab's page asks for: files, the list of runs, and curves.

    GET static/<file>                             the page's own files, as listed
    GET runs                                      every run with its tags
    GET range_tests?run=…&run=…                   the range tests of these runs
    GET settings?run=…&run=…                      what these runs were given
    GET scalars?tag=…&points=…&run=…&run=…        a scalar's curve in each of these runs

A curve comes with its extremes, where they are written.

Arrays are base64 of little-endian float64: JSON has no NaN and no infinity, and is
ten times slower for a million numbers.

Event files may be damaged, or come from anybody. A run that cannot be read is
`{"error": why}`, and the others are answered; and every answer has an end: so many
runs, so many points of a curve, so many numbers of a range test.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard import errors, plugin_util
from tensorboard.backend import http_util
from tensorboard.data import provider
from tensorboard.plugins import base_plugin
from tensorboard.plugins.scalar import metadata as scalar_metadata
from werkzeug import wrappers

from tfschedules.finding import PLUGIN_NAME, TAG, from_tensor, thinned
from tfschedules.tensorboard import extremes_tag, joined_extremes
from tfschedules.tensorboard_plugin import settings

# The files that are served, with their types. Nothing else is.
_JAVASCRIPT, _CSS = "text/javascript", "text/css"
_FILES = {
    "index.js": _JAVASCRIPT,
    "axes.js": _JAVASCRIPT,
    "chart.js": _JAVASCRIPT,
    "comparison.js": _JAVASCRIPT,
    "data.js": _JAVASCRIPT,
    "divergence.js": _JAVASCRIPT,
    "extremes.js": _JAVASCRIPT,
    "download.js": _JAVASCRIPT,
    "host.js": _JAVASCRIPT,
    "lines.js": _JAVASCRIPT,
    "marks.js": _JAVASCRIPT,
    "names.js": _JAVASCRIPT,
    "page.js": _JAVASCRIPT,
    "range_tests.js": _JAVASCRIPT,
    "runs.js": _JAVASCRIPT,
    "smoothing.js": _JAVASCRIPT,
    "tip.js": _JAVASCRIPT,
    "training.js": _JAVASCRIPT,
    "training_data.js": _JAVASCRIPT,
    "versus.js": _JAVASCRIPT,
    "style.css": _CSS,
    "uplot/uPlot.iife.min.js": _JAVASCRIPT,
    "uplot/uPlot.min.css": _CSS,
}
_FOLDER = Path(__file__).with_name("static")

_MOST_RUNS = 100  # in one request
_MOST_POINTS = 10_000  # of a curve
_MOST_NUMBERS = 30_000  # of a range test: 5000 rows of a single sweep
_MOST_TENSORS = 100  # of a tag's extremes: TensorBoard keeps no more
_LONGEST = 300  # letters of an error

_Answer = Callable[..., Any]


class SchedulesPlugin(base_plugin.TBPlugin):
    """Serves the Schedules tab, from any of TensorBoard's data providers."""

    plugin_name = PLUGIN_NAME

    def __init__(self, context: base_plugin.TBContext) -> None:
        """Keep the data provider."""
        self._data = context.data_provider

    def get_plugin_apps(self) -> dict[str, _Answer]:
        """The routes, and no others: each file has one of its own."""
        files = {
            f"/static/{name}": _route(functools.partial(_file, name, kind), ())
            for name, kind in _FILES.items()
        }
        return {
            **files,
            "/runs": _route(self._runs, ()),
            "/range_tests": _route(self._range_tests, ("run",)),
            "/settings": _route(self._settings, ("run",)),
            "/scalars": _route(self._scalars, ("run", "tag", "points")),
        }

    def is_active(self) -> bool:
        """Left to TensorBoard, which looks for the data named below."""
        return False

    def data_plugin_names(self) -> tuple[str, ...]:
        """The tab is active where there is a range test or any scalar."""
        return (PLUGIN_NAME, scalar_metadata.PLUGIN_NAME)

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        """The page's module."""
        return base_plugin.FrontendMetadata(
            es_module_path="/static/index.js", tab_name="Schedules"
        )

    def _runs(self, request: wrappers.Request) -> Any:
        """Runs as TensorBoard's own tabs have them, so that colors agree."""
        where = _experiment(request)
        runs = self._data.list_runs(**where)
        scalars = self._data.list_scalars(
            **where, plugin_name=scalar_metadata.PLUGIN_NAME
        )
        tests = self._data.list_tensors(**where, plugin_name=PLUGIN_NAME)
        started = sorted(
            runs,
            key=lambda run: (
                float("inf") if run.start_time is None else run.start_time,
                run.run_name,
            ),
        )
        listed = [
            {
                "run": run.run_name,
                "scalars": {
                    tag: series.max_step
                    for tag, series in sorted(scalars.get(run.run_name, {}).items())
                },
                "range_test": TAG in tests.get(run.run_name, {}),
            }
            for run in started
        ]
        return _json(request, {"runs": listed})

    def _range_tests(self, request: wrappers.Request) -> Any:
        """`{run: {…words, "count": n, "rows": …, "curves": {column: array}}}`.

        Where `n` rows are too many, `rows` is an array of the numbers of those sent.
        """
        runs = _run_names(request)
        where = _experiment(request) | {"plugin_name": PLUGIN_NAME}
        words = self._data.list_tensors(**where, run_tag_filter=_filter(runs, TAG))
        # The last event, of which there should be one.
        read = functools.partial(self._data.read_tensors, **where, downsample=1)

        def answer(run: str, data: Sequence[Any]) -> dict[str, Any] | None:
            known = words.get(run, {}).get(TAG)
            if known is None:  # it came after the words
                return None
            return _range_test(known.plugin_content, data[-1].numpy)

        tests = _each(runs, TAG, read, answer, "This range test")
        return _json(request, {"range_tests": tests})

    def _settings(self, request: wrappers.Request) -> Any:
        """`{run: {name: value}}` of the runs that have a row of the HParams tab."""
        rows = functools.partial(
            self._data.list_tensors,
            **_experiment(request),
            plugin_name=settings.PLUGIN_NAME,
        )

        def read(run_tag_filter: provider.RunTagFilter) -> Any:
            found = rows(run_tag_filter=run_tag_filter)
            return {
                run: {tag: [s] for tag, s in own.items()} for run, own in found.items()
            }

        def answer(run: str, row: Sequence[Any]) -> dict[str, Any]:
            return dict(settings.settings_from(row[0].plugin_content))

        runs = _run_names(request)
        given = _each(runs, settings.TAG, read, answer, "What it was given")
        return _json(request, {"settings": given})

    def _scalars(self, request: wrappers.Request) -> Any:
        """`{run: {"steps": array, "wall_times": array, "values": array, …}}`.

        Where the run's extremes are written, there is `"extremes"` with arrays of
        `steps` and `values`, and `reach`: up to that step they are those of all steps.
        """
        tag = request.args.get("tag")
        if not tag:
            raise errors.InvalidArgumentError("give one `tag=`, a scalar's name")
        read = functools.partial(
            self._data.read_scalars,
            **_experiment(request),
            plugin_name=scalar_metadata.PLUGIN_NAME,
            downsample=_points(request),
        )
        runs, extremes = _run_names(request), self._extremes(request, tag)

        def answer(run: str, data: Sequence[Any]) -> dict[str, Any]:
            return _curve(data) | extremes(run)

        curves = _each(runs, tag, read, answer, f"The scalar {tag}")
        return _json(request, {"scalars": curves})

    def _extremes(
        self, request: wrappers.Request, tag: str
    ) -> Callable[[str], dict[str, Any]]:
        """What gives a run's extremes of a scalar; all are read at once if possible."""
        name = extremes_tag(tag)
        read = functools.partial(
            self._data.read_tensors,
            **_experiment(request),
            plugin_name=PLUGIN_NAME,
            downsample=_MOST_TENSORS,
        )

        def read_of(runs: Sequence[str]) -> Any:
            return read(run_tag_filter=_filter(runs, name))

        try:
            known = read_of(_run_names(request))
        except errors.PublicError:
            raise
        except Exception:  # one of them is damaged
            known = None

        def of(run: str) -> dict[str, Any]:
            found = read_of([run]) if known is None else known
            events = found.get(run, {}).get(name, ())
            joined = joined_extremes([event.numpy for event in events])
            if joined is None:
                return {}
            steps, values, reach = joined
            arrays = {"steps": _array(steps), "values": _array(values)}
            return {"extremes": arrays | {"reach": reach}}

        return of


def _route(answer: _Answer, parameters: Sequence[str]) -> _Answer:
    """A WSGI application that takes GET with these parameters only."""

    @wrappers.Request.application
    def serve(request: wrappers.Request) -> Any:
        if request.method not in ("GET", "HEAD"):
            why = f"Use GET, not {request.method}.", [("Allow", "GET, HEAD")]
            return http_util.Respond(
                request, why[0], "text/plain", code=405, headers=why[1]
            )
        for name in request.args:
            if name not in parameters:
                known = ", ".join(parameters) or "none"
                raise errors.InvalidArgumentError(
                    f"unknown parameter {name!r}; there are: {known}"
                )
            if name != "run" and len(request.args.getlist(name)) > 1:
                raise errors.InvalidArgumentError(f"give one `{name}=`, not several")
        return answer(request)

    return serve


def _file(name: str, kind: str, request: wrappers.Request) -> Any:
    return http_util.Respond(request, (_FOLDER / name).read_bytes(), kind)


def _json(request: wrappers.Request, content: dict[str, Any]) -> Any:
    return http_util.Respond(request, content, "application/json")


def _experiment(request: wrappers.Request) -> dict[str, Any]:
    return {
        "ctx": plugin_util.context(request.environ),
        "experiment_id": plugin_util.experiment_id(request.environ),
    }


def _run_names(request: wrappers.Request) -> list[str]:
    runs: list[str] = request.args.getlist("run")
    if not 1 <= len(runs) <= _MOST_RUNS:
        raise errors.InvalidArgumentError(
            f"give `run=` once for each run, 1 to {_MOST_RUNS} times, not {len(runs)}"
        )
    return runs


def _filter(runs: Sequence[str], tag: str) -> provider.RunTagFilter:
    return provider.RunTagFilter(runs=runs, tags=[tag])


def _each(
    runs: Sequence[str],
    tag: str,
    read: Callable[..., Any],
    answer: Callable[[str, Sequence[Any]], dict[str, Any] | None],
    name: str,
) -> dict[str, Any]:
    """What `answer` makes of each run's data, or `{"error": why}`.

    A data provider fails for all the runs that it is asked for if one is damaged. Then
    each is asked for by itself.
    """

    def data_of(names: Sequence[str]) -> dict[str, Any]:
        found = read(run_tag_filter=_filter(names, tag))
        return {run: tags[tag] for run, tags in found.items() if tags.get(tag)}

    try:
        known = data_of(runs)
    except errors.PublicError:  # it is about the request
        raise
    except Exception:
        known = None
    answers: dict[str, Any] = {}
    for run in runs if known is None else known:
        try:
            data = data_of([run]).get(run) if known is None else known[run]
            found = answer(run, data) if data else None
        except errors.PublicError:
            raise
        except ValueError as error:
            found = {"error": f"{name} cannot be read: {_short(error)}."}
        except Exception as error:
            why = f"{type(error).__name__}: {_short(error)}"
            found = {"error": f"{name} cannot be read: {why}."}
        if found is not None:
            answers[run] = found
    return answers


def _short(error: Exception) -> str:
    """An error in one line of a table."""
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def _points(request: wrappers.Request) -> int:
    text = request.args.get("points", str(_MOST_POINTS))
    # `int` takes " 5 ", "1_000" and other digits than these, but not thousands of them.
    digits = text.isascii() and text.isdigit() and len(text) < 10
    if not (digits and 1 <= int(text) <= _MOST_POINTS):
        raise errors.InvalidArgumentError(
            f"`points` must be a whole number from 1 to {_MOST_POINTS}, not {text!r}"
        )
    return int(text)


def _range_test(content: bytes, tensor: np.ndarray) -> dict[str, Any]:
    words, columns = from_tensor(tensor, content)
    rows = thinned(columns, _MOST_NUMBERS // len(columns))
    curves = {name: _array(values[rows]) for name, values in columns.items()}
    count = len(tensor)
    shown = None if len(rows) == count else _array(rows)
    return words | {"count": count, "rows": shown, "curves": curves}


def _curve(data: Sequence[provider.ScalarDatum]) -> dict[str, Any]:
    return {
        "steps": _array([datum.step for datum in data]),
        "wall_times": _array([datum.wall_time for datum in data]),
        "values": _array([datum.value for datum in data]),
    }


def _array(values: Any) -> str:
    return base64.b64encode(np.asarray(values, "<f8").tobytes()).decode()
