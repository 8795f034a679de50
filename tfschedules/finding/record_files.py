"""A range test's result as JSON: what each field may be, for writing and for reading.

One table, `_FIELDS`, says it. What is written has passed it, so that it can be read
again; what is read has passed it, so that it can be shown, drawn and saved. A file may
come from anybody: everything that is wrong with it is a `ValueError`.

    {"format": "tfschedules.range_test", "version": 1, "learning_rates": [1e-05, …], …}

JSON has no NaN and no infinities: in arrays they are "nan", "inf" and "-inf".
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfschedules._support import checks
from tfschedules.finding.suggestions import Bounds
from tfschedules.finding.suggestions.curves import checked

_FORMAT = "tfschedules.range_test"
_VERSION = 1
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_MOST_STEPS = 2**63 - 1  # what a count of updates can be


def to_json(record: Mapping[str, Any]) -> str:
    """A record as text that `from_json` reads.

    Args:
        record: The fields by name.

    Raises:
        ValueError: If a field is what no record may hold.
    """
    plain = {name: _plain(value) for name, value in record.items()}
    _read(plain)
    return json.dumps({"format": _FORMAT, "version": _VERSION, **plain}, indent=1)


def from_json(text: str) -> dict[str, Any]:
    """The fields of a record, with arrays as NumPy's.

    Args:
        text: What `to_json` returned, or anything else.

    Raises:
        ValueError: If it is something else.
    """
    try:
        stored = json.loads(text)
    except RecursionError:
        raise ValueError("it is JSON nested too deeply") from None
    if not isinstance(stored, dict) or stored.pop("format", None) != _FORMAT:
        raise ValueError(f'it does not say that its format is "{_FORMAT}"')
    version = stored.pop("version", None)
    if isinstance(version, int) and version > _VERSION:
        raise ValueError("it is of a later version: upgrade tfschedules")
    if isinstance(version, bool) or version != _VERSION:
        raise ValueError(f"its version is {checks.seen(version)}")
    return _read(stored)


def _read(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The fields as they are used, of those as they are stored."""
    for name in _FIELDS.keys() - stored.keys():
        raise ValueError(f"it lacks the field {name!r}")
    for name in stored.keys() - _FIELDS.keys():
        raise ValueError(f"it has a field {checks.shown(name)}, which is unknown")
    record = {}
    for name, read in _FIELDS.items():
        try:
            record[name] = read(stored[name])
        except ValueError as error:
            raise ValueError(f"its field {name!r} {error}") from error
    lengths = {name: record[name].shape[-1] for name in _ARRAYS}
    if len({*lengths.values()}) != 1:
        raise ValueError(f"its arrays differ in length: {lengths}")
    return record


def _plain(value: Any) -> Any:
    """A field as JSON has it; what it has no name for is left to the check."""
    if isinstance(value, np.ndarray) and value.ndim > 1:
        return [_plain(row) for row in value]
    if isinstance(value, np.ndarray):
        return [x if math.isfinite(x) else str(x) for x in value.tolist()]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, Bounds) else value


# ------------------------------------------------------- what a field may be


def _number(value: Any) -> float:
    """A finite number."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise ValueError(f"has {checks.seen(value)} where a finite number is due")


def _rate(value: Any) -> float:
    if (rate := _number(value)) > 0:
        return rate
    raise ValueError(f"has {checks.seen(value)} where a learning rate > 0 is due")


def _row(values: Any) -> np.ndarray:
    """Numbers, finite or not, `(n,)`."""
    if not isinstance(values, list):
        raise ValueError(f"is {checks.seen(values)} and no list of numbers")
    if {*map(type, values)} <= {float}:  # as in most files, and the fastest
        return np.array(values, np.float64)
    row = np.empty(len(values))
    for place, value in enumerate(values):
        if isinstance(value, str) and value in _NOT_FINITE:
            value = _NOT_FINITE[value]
        # NaN and Infinity are no JSON, but Python's writes and reads them.
        is_odd = isinstance(value, float) and not math.isfinite(value)
        row[place] = value if is_odd else _number(value)
    return row


def _rates(values: Any) -> np.ndarray:
    rates = _row(values)
    try:
        checked(rates, rates)
    except ValueError:
        raise ValueError("has rates that are not > 0, finite and increasing") from None
    return rates


def _rows(values: Any) -> np.ndarray:
    """Several rows of one length, `(k, n)`."""
    if not isinstance(values, list) or not values:
        raise ValueError(f"is {checks.seen(values)} and no list of sweeps")
    rows = [_row(row) for row in values]
    if len({len(row) for row in rows}) != 1:
        raise ValueError("has sweeps that differ in length")
    return np.stack(rows)


def _text(value: Any) -> str:
    """A text that every terminal, file and picture takes."""
    if not isinstance(value, str):
        raise ValueError(f"is {checks.seen(value)} and no text")
    for letter in value:
        # Controls (Cc) move a terminal's cursor; half a letter (Cs) is no Unicode.
        if unicodedata.category(letter) in ("Cc", "Cs") and letter not in "\t\n\r":
            raise ValueError(f"has the letter {letter!r}, which cannot be shown")
    return value


def _count(value: Any) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if whole and 0 <= value <= _MOST_STEPS:
        return int(value)
    raise ValueError(f"is {checks.seen(value)} and no count of steps")


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError(f"is {checks.seen(value)}, and neither true nor false")


def _suggestions(value: Any) -> dict[str, float | None]:
    if not isinstance(value, dict):
        raise ValueError(f"is {checks.seen(value)}, and no rates by rule")
    return {_text(rule): _or_none(_rate)(rate) for rule, rate in value.items()}


def _bounds(value: Any) -> Bounds:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"is {checks.seen(value)}, and no pair of rates")
    bounds = Bounds(*map(_rate, value))
    if bounds.base_lr > bounds.max_lr:
        raise ValueError("has the lower rate after the higher one")
    return bounds


def _or_none(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else read(value)


_FIELDS: dict[str, Callable[[Any], Any]] = {
    "learning_rates": _rates,
    "losses": _row,
    "smoothed_losses": _row,
    "stop_reason": _text,
    "suggestion": _or_none(_rate),
    "reason": _text,
    "suggestions": _suggestions,
    "bounds": _or_none(_bounds),
    "mode": _text,
    "steps": _count,
    "rule": _text,
    "metric": _text,
    "values": _row,
    "smoothed_values": _row,
    "higher_is_better": _truth,
    "sweeps": _rows,
    "group": _or_none(_text),
}
_ARRAYS = [name for name, read in _FIELDS.items() if read in (_rates, _row, _rows)]
