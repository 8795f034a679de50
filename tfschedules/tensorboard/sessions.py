"""Rows of the HParams tab: what a fit was given, beside what became of it.

TensorBoard calls a row a session: a run whose first summary holds names and values. It
fills the row's metrics from the last scalars of that run. No experiment is declared:
a log directory has one at most, which may be the user's own, and without any the tab
finds out columns and metrics by itself.

Left out: `tensorboard.plugins.hparams.summary`, which imports TensorFlow.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from math import isfinite

from tensorboard.compat.proto import summary_pb2
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

Setting = bool | int | float | str
START, END = metadata.SESSION_START_INFO_TAG, metadata.SESSION_END_INFO_TAG
NOTHING = metadata.NULL_TENSOR
_SETS = ("learning_rate",)  # what other callbacks change makes no other schedule
_CONSTANTS = (
    *_SETS,
    "optimizer",
    "momentum",
    "weight_decay",
    "gradient_accumulation_steps",
    "steps_per_execution",
)


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
        elif isfinite(value):  # JSON, in which the tab is told, has no others
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


def row_key(settings: Mapping[str, Setting]) -> str:
    """What tells the row of these settings from others, in the journal of a run.

    Example:
        >>> row_key({"max_lr": 0.1}) == row_key({"learning_rate": 3.0, "max_lr": 0.1})
        True
        >>> row_key({"max_lr": 0.1}) == row_key({"max_lr": 0.2})
        False
    """
    return _key_of(
        {
            name: value
            for name, value in settings.items()
            if name not in _SETS
            and not (isinstance(value, float) and not isfinite(value))
        }
    )


def schedules_key(settings: Mapping[str, Setting]) -> str:
    """What tells the schedules among these settings from others.

    What a callback may set anew at each epoch is no schedule, nor is what decides only
    how fast steps are made: the same script that is started again may differ there.

    Example:
        >>> settings = {"schedule": "Cosine", "start": 0.1, "momentum": 0.9}
        >>> schedules_key(settings) == schedules_key({**settings, "momentum": 0.8})
        True
        >>> schedules_key(settings) == schedules_key({**settings, "start": 0.2})
        False
    """
    return _key_of({n: value for n, value in settings.items() if n not in _CONSTANTS})


def _key_of(settings: Mapping[str, Setting]) -> str:
    text = json.dumps(settings, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
