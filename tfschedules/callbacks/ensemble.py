"""Models that predict together: what `SnapshotEnsemble.load` makes of snapshots."""

from __future__ import annotations

import collections.abc
import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """Models that predict together, in order; made by `SnapshotEnsemble.load`."""

    models: list[keras.Model]

    def __len__(self) -> int:
        return len(self.models)

    def __iter__(self) -> Iterator[keras.Model]:
        return iter(self.models)

    def predict(self, x: Any, **arguments: Any) -> Any:
        """The mean of what the members predict: (p₁ + … + p_M)/M.

        What the models return is averaged: probabilities if they end in a softmax,
        else raw outputs. (The paper averages probabilities.)

        Args:
            x: Data as for `model.predict`, in the same order each time it is read.
            **arguments: For `model.predict`.

        Returns:
            Arrays of the structure, shapes and float types that a member returns.

        Raises:
            TypeError: If `x` can be read once only.
        """
        check_read_again(x, len(self))
        return mean_of([model.predict(x, **arguments) for model in self.models])


def check_read_again(x: Any, members: int) -> None:
    """Refuse data that can be read once only."""
    if isinstance(x, collections.abc.Iterator):
        raise TypeError(
            "Argument `x` must be data that can be read once for each of the "
            f"{members} members, as an array or a tf.data.Dataset can. "
            f"Received: x={x!r}"
        )


def mean_of(predictions: list[Any]) -> Any:
    """The mean of what members predict, in the structure that each has."""
    return keras.tree.map_structure(_mean, *predictions)


def _mean(*arrays: np.ndarray) -> np.ndarray:
    mean = np.mean([np.asarray(a, np.float64) for a in arrays], axis=0)
    dtype = arrays[0].dtype
    return mean.astype(dtype) if keras.backend.is_float_dtype(str(dtype)) else mean
