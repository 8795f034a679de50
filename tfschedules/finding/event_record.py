"""How a range test is kept in an event file: one tensor, and words beside it.

The tensor, float64 `[n, k]`, has a row for each rate and a column for each name in
`columns`. It is one event, because TensorBoard keeps 100 events of a plugin's tag and
drops the others. What is said about it is JSON in the summary metadata:

    {"version": 1, "columns": ["learning_rates", "losses", …], "suggestion": 0.08, …}
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tfschedules._support import checks
from tfschedules.finding.suggestions.curves import checked
from tfschedules.tensorboard import PLUGIN_NAME as PLUGIN_NAME

if TYPE_CHECKING:
    from tfschedules.finding.result import RangeTestResult

TAG = "range_test/result"

_VERSION = 1
_LONGEST = 100_000  # bytes of JSON: some thousand sweeps, and long names
_ARRAYS = ("learning_rates", "losses", "smoothed_losses", "values", "smoothed_values")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    whole_or_not = isinstance(value, (int, float)) and not isinstance(value, bool)
    return whole_or_not and abs(value) <= sys.float_info.max  # NaN is not, either


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))


def _are_numbers(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    return all(number is None or _is_number(number) for number in value.values())


def _or_none(known: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or known(value)


# What is said, and what it must be: a page of all runs must not break at one of them.
_WORDS: dict[str, Callable[[Any], bool]] = {
    "stop_reason": _is_text,
    "suggestion": _or_none(_is_number),
    "reason": _is_text,
    "suggestions": _are_numbers,
    "mode": _is_text,
    "steps": _is_number,
    "rule": _is_text,
    "metric": _is_text,
    "higher_is_better": lambda value: isinstance(value, bool),
    "group": _or_none(_is_text),
}
_PAIRS = {"bounds": _or_none(_is_pair), "best": _or_none(_is_pair)}


def to_tensor(result: RangeTestResult) -> tuple[np.ndarray, bytes]:
    """The tensor `[n, k]` of a result, and the JSON beside it."""
    columns = {name: getattr(result, name) for name in _ARRAYS}
    columns |= {f"sweep {i}": row for i, row in enumerate(result.sweeps, 1)}
    words = {name: getattr(result, name) for name in _WORDS}
    bounds = None if result.bounds is None else [*result.bounds]
    content = words | {
        "version": _VERSION,
        "columns": [*columns],
        "bounds": bounds,
        "best": best(result),
    }
    return np.stack([*columns.values()], axis=1), json.dumps(content).encode()


def best(result: RangeTestResult) -> list[float] | None:
    """The rate at which the smoothed curve is best, and its value there."""
    values = np.where(
        np.isfinite(result.smoothed_values), result.smoothed_values, math.nan
    )
    if np.isnan(values).all():
        return None
    place = (np.nanargmax if result.higher_is_better else np.nanargmin)(values)
    return [float(result.learning_rates[place]), float(values[place])]


def from_tensor(
    tensor: np.ndarray, content: bytes
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The known words, and the columns by name, of what may come from anybody.

    Raises:
        ValueError: If something is damaged, or of a later version.
    """
    words = _from_content(content)
    names = words.pop("columns")
    if tensor.ndim != 2 or tensor.shape[1] != len(names):
        raise ValueError(f"it has the shape {tensor.shape}")
    if tensor.dtype.kind not in "fiu":
        raise ValueError(f"it holds {tensor.dtype}, and no numbers")
    columns = dict(zip(names, tensor.astype(np.float64).T, strict=True))
    rates = columns["learning_rates"]
    try:
        checked(rates, rates)
    except ValueError:
        why = "its learning rates are not > 0, finite and increasing"
        raise ValueError(why) from None
    return words, columns


def thinned(columns: dict[str, np.ndarray], most: int) -> np.ndarray:
    """The numbers of the rows to show: all, or `most` of them, evenly.

    Up to half of them are rows that the smoothed curve has: it has few where validation
    data were looked at now and then.

    Example:
        >>> curve = np.where(np.arange(9) % 4 == 3, 1.0, np.nan)
        >>> thinned({"smoothed_values": curve}, 4)
        array([0, 3, 7, 8])
    """
    curve = columns["smoothed_values"]
    rows = np.arange(len(curve))
    if len(rows) <= most:
        return rows

    def even(rows: np.ndarray, count: int) -> np.ndarray:
        places = np.linspace(0, len(rows) - 1, min(count, len(rows)))
        return rows[places.round().astype(int)]

    seen = even(rows[np.isfinite(curve)], most // 2)
    others = np.setdiff1d(rows, seen)
    return np.sort(np.concatenate([seen, even(others, most - len(seen))]))


def _from_content(content: bytes) -> dict[str, Any]:
    if len(content) > _LONGEST:
        raise ValueError(f"its description is {len(content):,} bytes long")
    try:
        words = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its description is damaged: {error}") from error
    if not isinstance(words, dict) or not isinstance(words.get("columns"), list):
        raise ValueError("its description is of another format")
    version, columns = words.get("version"), words["columns"]
    if version != _VERSION or isinstance(version, bool):
        raise ValueError(
            f"it is of version {checks.seen(version)}, and this tfschedules reads "
            f"version {_VERSION}: upgrade it where `tensorboard` runs"
        )
    if not all(map(_is_text, columns)) or len({*columns}) < len(columns):
        raise ValueError("its columns are not named, or named alike")
    known = _WORDS | _PAIRS
    missing = (known.keys() - words.keys()) | ({*_ARRAYS} - {*columns})
    if missing:
        raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    for name, fits in known.items():
        if not fits(words[name]):
            raise ValueError(f"its {name} cannot be {checks.seen(words[name])}")
    return {name: words[name] for name in ("columns", *known)}
