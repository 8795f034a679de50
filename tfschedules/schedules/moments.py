"""Steps as they are given: Python's, NumPy's or a tensor of the backend's.

Each becomes a `Time`, in which everything else is computed.
"""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np

from tfschedules.schedules.steps import INT64, Time


def in_numpy(steps: np.ndarray) -> Time:
    """Begin at integer `steps` of any shape, in NumPy."""
    if steps.dtype == np.uint64:  # would turn negative
        steps = np.minimum(steps, np.uint64(INT64))
    whole = np.maximum(steps.astype(np.int64), 0)
    return Time(whole, 0.0, np, INT64, "float64")


def in_graph(step: Any, floats: str = "float32") -> Time:
    """Begin at an integer tensor or variable `step`, in `keras.ops`.

    Args:
        step: The step, of any shape.
        floats: "float64" gives what NumPy gives, where the backend has such floats;
            on devices for networks that is slow, or missing.
    """
    import keras

    dtype = _counted_in()
    zero = keras.ops.convert_to_tensor(0, dtype=dtype)
    whole = keras.ops.maximum(keras.ops.cast(step, dtype), zero)
    return Time(whole, 0.0, keras.ops, int(np.iinfo(dtype).max), floats)


def beyond_backend(step: Any) -> np.ndarray | None:
    """Steps that Python or NumPy holds, if the backend's integers cannot; else None.

    Of an integer that is too great a cast would make another one, or an error.
    """
    if not isinstance(step, (int, np.generic, np.ndarray)):
        return None
    array, ends = as_integers(step), np.iinfo(_counted_in())
    if array is None or not array.size:
        return None
    fits = np.max(array) <= ends.max and np.min(array) >= ends.min
    if fits and np.asarray(step).dtype != object:
        return None
    return np.asarray(np.minimum(array, INT64), np.int64)


def as_integers(steps: Any) -> np.ndarray | None:
    """An array of integers of NumPy's; `None` if there is something else in it.

    Python's, which have no end, are moved to the last of 64 bits.
    """
    array = np.asarray(steps)
    if np.issubdtype(array.dtype, np.integer) or not array.size:
        return array
    if array.dtype != object and (array is steps or array.dtype != np.float64):
        return None
    given = np.asarray(steps, object)  # 2**63 and -1 are floats in NumPy
    for each in given.flat:
        if not isinstance(each, numbers.Integral) or isinstance(each, bool):
            return None
    return np.asarray(np.clip(given, -INT64, INT64), np.int64)


def _counted_in() -> str:
    """The integers of the backend: int64 on TensorFlow, int32 on JAX and torch."""
    import keras

    return str(keras.backend.standardize_dtype("int"))
