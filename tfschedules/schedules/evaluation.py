"""An equation evaluated: in the backend's float32, and in NumPy's float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tfschedules._support import checks
from tfschedules.schedules import moments
from tfschedules.schedules.steps import Time

_BLOCK = 2**14  # steps that are evaluated at a time
_Equation = Callable[[Time], Any]


def in_backend(equation: _Equation, step: Any) -> Any:
    """The value at an integer tensor `step`, of its shape, in float32."""
    known = moments.beyond_backend(step)
    if known is not None:  # the backend has no integers for it, and NumPy has
        greatest = float(np.finfo(np.float32).max)
        values = in_blocks(equation, np.atleast_1d(known)).reshape(known.shape)
        values = np.clip(values, -greatest, greatest).astype(np.float32)
        return keras.ops.convert_to_tensor(values, dtype="float32")
    time = moments.in_graph(step)
    value = time.as_float(equation(time))
    return keras.ops.broadcast_to(value, keras.ops.shape(time.whole))


def in_blocks(equation: _Equation, steps: Any) -> np.ndarray:
    """The values at `steps`, a count or an array, in float64.

    Raises:
        TypeError: If `steps` holds anything but integers.
        ValueError: If it is a negative count.
    """
    array = moments.as_integers(steps)
    if array is None:
        raise TypeError(
            "Argument `steps` must be a count or an array of integers. "
            f"Received: steps={checks.shown(steps)}. Round it first?"
        )
    is_count = array.ndim == 0
    shape: Any = checks.whole("steps", steps, at_least=0) if is_count else array.shape
    result = np.empty(shape, np.float64)
    flat, given = result.reshape(-1), array.reshape(-1)
    for begin in range(0, flat.size, _BLOCK):
        end = min(begin + _BLOCK, flat.size)
        some = np.arange(begin, end) if is_count else given[begin:end]
        flat[begin:end] = equation(moments.in_numpy(some))
    return result
