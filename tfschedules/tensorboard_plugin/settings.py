"""What a training was given, from its row of the HParams tab."""

from __future__ import annotations

from typing import Any

from tensorboard.plugins.hparams import metadata

PLUGIN_NAME = metadata.PLUGIN_NAME
TAG = metadata.SESSION_START_INFO_TAG

_MOST = 100  # settings of a run
_LONGEST = 1000  # letters of one


def settings_from(content: bytes) -> dict[str, float | str | bool]:
    """The settings in the metadata of a row, which may come from anybody.

    Raises:
        ValueError: If they are damaged.
    """
    try:
        info = metadata.parse_session_start_info_plugin_data(content)
    except Exception as error:
        raise ValueError(f"its row is damaged ({type(error).__name__})") from None
    found: dict[str, Any] = {}
    for name in sorted(info.hparams)[:_MOST]:
        value = info.hparams[name]
        kind = value.WhichOneof("kind")
        if kind == "string_value":
            found[name] = value.string_value[:_LONGEST]
        elif kind == "bool_value":
            found[name] = value.bool_value
        elif kind == "number_value" and abs(value.number_value) < float("inf"):
            found[name] = value.number_value
    return found
