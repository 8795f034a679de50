"""What a training's state is known by, wherever it is met again.

Weights and slots change with every update, so two trainings, or two moments of one,
have different bytes. Files and copies keep the bytes. A part of them is enough, but of
every variable: trainings of one frozen backbone differ in their heads only. Which are
frozen makes no difference: it is no part of what is saved.

Left out are scalars of the optimizer, which others set, as the rate; and what Keras
does not save.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tfschedules.drive.chosen import Chosen
from tfschedules.drive.state import batches_in, outside_state, variables_of

_MOST_NUMBERS = 1 << 18  # of all variables together


def fingerprint(model: keras.Model, chosen: Chosen | None = None) -> str:
    """The fingerprint of the state of a model that is being trained, 32 hex digits.

    To be called between two steps, in the main thread.

    Args:
        model: The model.
        chosen: The optimizer whose weights, slots and count it is of; by default the
            compiled one.

    Raises:
        RuntimeError: If JAX has lost the state with a step that was interrupted.
    """
    optimizer = (chosen or Chosen.compiled(model)).inner
    state = outside_state(model)
    held: dict[int, Any] = {}
    if state is not None:  # JAX has it outside of the variables
        for kind, arrays in enumerate(state[:3]):
            held.update(zip(map(id, variables_of(model, kind)), arrays, strict=True))
    weights = getattr(optimizer, "_trainable_variables", [])
    slots = [slot for slot in optimizer.variables if len(slot.shape) > 0]
    values = []
    for variable, head in heads([*weights, *slots]):
        value = _local(held.get(id(variable), variable.value))
        part = value if head is None else value[head]  # on the device
        # Keras's way to NumPy takes longer on TensorFlow: it looks for sparse ones.
        fast = keras.backend.backend() == "tensorflow"
        values.append(part.numpy() if fast else keras.ops.convert_to_numpy(part))
    return digest(batches_in(model, optimizer, state), values)


def known_state(chosen: Chosen) -> str | None:
    """The fingerprint of the training's state; `None` where it has none."""
    try:
        return fingerprint(chosen.model, chosen)
    except Exception:  # the state is lost, or of a kind that this does not know
        return None


def digest(count: int, values: Iterable[np.ndarray]) -> str:
    """The fingerprint of a count of steps and some arrays."""
    hashed = hashlib.blake2b(b"%d" % count, digest_size=16)
    for value in values:
        array = np.ascontiguousarray(value)
        hashed.update(f"{array.dtype} {array.shape} ".encode())
        hashed.update(array.tobytes())
    return hashed.hexdigest()


def heads(variables: Sequence[Any]) -> Iterator[tuple[Any, tuple[slice, ...] | None]]:
    """What a fingerprint is made of: each variable, the smallest first, and which part.

    Of each at least one number is taken. What small ones leave of their equal share is
    divided among the larger ones. The part is `None` where it is all of a variable.
    """
    left, count = _MOST_NUMBERS, len(variables)
    for i, variable in enumerate(sorted(variables, key=_size)):
        share, size = max(left // (count - i), 1), _size(variable)
        yield variable, None if size <= share else _head(variable.shape, share)
        left -= min(size, share)


def _size(variable: Any) -> int:
    return math.prod(map(int, variable.shape))


def _head(shape: Sequence[int], most: int) -> tuple[slice, ...]:
    """What to take of each axis for some of the first numbers, `most` or fewer.

    Example:
        >>> _head((1000, 10), 95), _head((3, 50, 2), 7)
        ((slice(None, 9, None), slice(None, 10, None)),
         (slice(None, 1, None), slice(None, 3, None), slice(None, 2, None)))
    """
    axes = []
    for axis, size in enumerate(shape):
        kept = min(size, max(most // math.prod(shape[axis + 1 :]), 1))
        axes.append(slice(kept))
        most //= kept
    return tuple(axes)


def _local(value: Any) -> Any:
    """What this process has of an array: others do not take part in the reading."""
    if keras.backend.backend() == "jax" and hasattr(value, "addressable_data"):
        value = value.addressable_data(0)
        if value.device.platform == "cpu":  # no copy, and no slice to compile
            return keras.ops.convert_to_numpy(value)
    return value
