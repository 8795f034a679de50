"""A fixed, bounded part of validation data, small enough to look at again and again."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from tfschedules._support import checks


def bounded(data: Any, size: int) -> tuple[Any, Any, Any]:
    """At most `size` samples of `data`, the same ones each time.

    Arrays are drawn from at random, by a seed of its own; of a dataset the first
    batches are taken.

    Args:
        data: What `fit` takes as `validation_data`: `(x, y)` or `(x, y, sample_weight)`
            in arrays, a `tf.data.Dataset`, a `PyDataset`, or another iterable of
            batches, or a function that makes one.
        size: How many samples at most.

    Returns:
        `x`, `y` and `sample_weight` in arrays; the last is `None` if there is none.

    Raises:
        TypeError: If `data` is of another kind.
        ValueError: If `size` is less than 1, there is no sample, or arrays differ in
            length.

    Example:
        >>> x, y, _ = bounded((np.arange(10.0), np.arange(10)), 4)
        >>> len(x), bool((x == y).all())
        (4, True)
    """
    size = checks.whole("validation_size", size)
    if callable(data) and not isinstance(data, (Iterable, keras.utils.PyDataset)):
        try:
            inspect.signature(data).bind()
        except TypeError:
            what = f"{checks.shown(data)}, which has to be given something"
            raise _no_data(what) from None
        except ValueError:  # of a class in C: what it takes is not known
            pass
        data = data()  # the function that makes a generator
    if isinstance(data, (tuple, list)):
        if not 2 <= len(data) <= 3:
            raise _no_data(f"a {type(data).__name__} of {len(data)}")
        count = _count(data)
        chosen = np.sort(np.random.default_rng(0).permutation(count)[:size])
        return _unpacked(_each(lambda array: np.asarray(array)[chosen], data))
    readable = isinstance(data, (Iterable, keras.utils.PyDataset))
    readable = readable and not isinstance(data, (str, bytes, Mapping))
    if not readable or hasattr(data, "shape"):  # an array iterates, over samples
        raise _no_data(f"{checks.shown(data)} (of type {type(data).__name__})")
    source: Iterable[Any] = data
    if isinstance(data, keras.utils.PyDataset):
        source = (data[index] for index in range(len(data)))
    batches: list[Any] = []
    count = 0
    for batch in source:
        parts = batch if isinstance(batch, (tuple, list)) else (batch,)  # `x` alone
        batches.append(_each(keras.ops.convert_to_numpy, parts))
        count += _count(batches[-1])
        if count >= size:
            break
    if not batches:
        raise ValueError(
            "Argument `validation_data` must hold data. Received: no batch"
        )
    whole = keras.tree.map_structure(
        lambda *arrays: None if arrays[0] is None else np.concatenate(arrays)[:size],
        *batches,
    )
    return _unpacked(whole)


def _no_data(received: str) -> TypeError:
    return TypeError(
        "Argument `validation_data` must be (x, y) or (x, y, sample_weight), a dataset "
        "of batches, or a function without arguments that makes one. "
        f"Received: {received}"
    )


def _each(change: Any, data: Any) -> Any:
    return keras.tree.map_structure(
        lambda leaf: None if leaf is None else change(leaf), tuple(data)
    )


def _count(data: Any) -> int:
    """The number of samples, the same in all arrays."""
    leaves = [leaf for leaf in keras.tree.flatten(tuple(data)) if leaf is not None]
    counts = {np.shape(leaf)[0] if np.ndim(leaf) else 0 for leaf in leaves}
    if len(counts) != 1 or counts == {0}:
        raise ValueError(
            "Argument `validation_data` must hold samples, as many in each array; a "
            "dataset must be batched, and lists are to be arrays. "
            f"Received: lengths {sorted(counts)}"
        )
    return counts.pop()


def _unpacked(data: Any) -> tuple[Any, Any, Any]:
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(tuple(data))
    return x, y, sample_weight


def evaluated(model: keras.Model, data: tuple[Any, Any, Any], metric: str) -> float:
    """A metric of held-out data.

    Args:
        model: A compiled model.
        data: What `bounded` returns.
        metric: The metric's name in the results of `evaluate`.

    Raises:
        ValueError: If the model does not evaluate it.
    """
    x, y, sample_weight = data
    found = model.evaluate(
        x, y, sample_weight=sample_weight, verbose=0, return_dict=True
    )
    if metric not in found:
        raise ValueError(
            f"Argument `metric` must be one that the model evaluates: "
            f"{', '.join(found)}. Received: metric={metric!r}. Compile the model with "
            "it in `metrics`."
        )
    return float(found[metric])
