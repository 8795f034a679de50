"""Rows of the HParams tab: what a fit was given, beside what became of it.

TensorBoard calls a row a session: a run whose first summary holds names and values. It
fills the row's metrics from the last scalars of that run. No experiment is declared:
a log directory has one at most, which may be the user's own, and without any the tab
finds out columns and metrics by itself.

Left out: `tensorboard.plugins.hparams.summary`, which imports TensorFlow.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping

from tensorboard.compat.proto import summary_pb2
from tensorboard.compat.tensorflow_stub.io import gfile
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

from tfschedules.tensorboard.runs import file_errors, folder_path
from tfschedules.tensorboard.wire import whole_events

Setting = bool | int | float | str
START, END = metadata.SESSION_START_INFO_TAG, metadata.SESSION_END_INFO_TAG
NOTHING = metadata.NULL_TENSOR
_HEAD = 1 << 16  # bytes of a file in which its row is looked for
_SETS = ("learning_rate",)  # what other callbacks change makes no other schedule


def start_metadata(settings: Mapping[str, Setting]) -> summary_pb2.SummaryMetadata:
    """What begins a session; numbers that are not finite are left out.

    Raises:
        TypeError: If a value is no number, text, True or False.
    """
    info = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
    for name, value in settings.items():
        if isinstance(value, bool):
            info.hparams[name].bool_value = value
        elif isinstance(value, str):
            info.hparams[name].string_value = value
        elif not isinstance(value, (int, float)):
            raise TypeError(
                "Argument `settings` must hold numbers, texts, True and False. "
                f"Received: {name}={value!r}"
            )
        elif math.isfinite(value):  # JSON, in which the tab is told, has no others
            info.hparams[name].number_value = value
    return _metadata(plugin_data_pb2.HParamsPluginData(session_start_info=info))


def end_metadata() -> summary_pb2.SummaryMetadata:
    """What ends a session well."""
    info = plugin_data_pb2.SessionEndInfo(
        status=api_pb2.STATUS_SUCCESS, end_time_secs=time.time()
    )
    return _metadata(plugin_data_pb2.HParamsPluginData(session_end_info=info))


def _metadata(data: plugin_data_pb2.HParamsPluginData) -> summary_pb2.SummaryMetadata:
    made = metadata.create_summary_metadata(data)
    made.data_class = summary_pb2.DATA_CLASS_TENSOR
    return made


def session_run(run_dir: str, settings: Mapping[str, Setting]) -> tuple[str, bool]:
    """The folder for a row of `settings`, and whether the row is there already.

    It is the run's own, or, where a fit with other settings has begun that run, the
    first of `<run_dir>/fit_2`, `fit_3`, … that has this row or none.

    Raises:
        OSError: If a file is there and cannot be read.

    Example:
        >>> import tempfile
        >>> from tfschedules.tensorboard import EventWriter
        >>> folder = tempfile.mkdtemp()
        >>> with EventWriter(folder) as writer:
        ...     writer.session_start({"max_lr": 0.1})
        >>> session_run(folder, {"max_lr": 0.1}) == (folder, True)
        True
        >>> session_run(folder, {"max_lr": 0.2}) == (f"{folder}/fit_2", False)
        True
    """
    run_dir = folder_path("run_dir", run_dir)
    wanted = start_metadata(settings)
    inside = (f"{run_dir}/fit_{n}" for n in itertools.count(2))
    for row_dir in itertools.chain([run_dir], inside):
        found = _session_of(row_dir)
        if found is None:
            return row_dir, False
        if _settings_in(found) == _settings_in(wanted):
            return row_dir, True
    raise AssertionError("unreachable: there is always another name")


def _session_of(run_dir: str) -> summary_pb2.SummaryMetadata | None:
    """What begins the session of a run, if it is one."""
    with file_errors("read event files in", run_dir):
        names = gfile.listdir(run_dir) if gfile.isdir(run_dir) else []
        for name in sorted(name for name in names if "tfevents" in name):
            with gfile.GFile(f"{run_dir}/{name}", "rb") as file:
                head = file.read(_HEAD)
            for event in whole_events(head):
                for value in event.summary.value:
                    if value.tag == START:
                        return value.metadata
    return None


def _settings_in(session: summary_pb2.SummaryMetadata) -> dict[str, Setting]:
    info = metadata.parse_session_start_info_plugin_data(session.plugin_data.content)
    return {
        name: getattr(value, value.WhichOneof("kind"))
        for name, value in info.hparams.items()
        if name not in _SETS
    }
