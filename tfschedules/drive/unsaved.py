"""What of a model's state Keras's own files, and so `pickle`, leave out."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfschedules.drive.copies import held_by
from tfschedules.drive.state import innermost, value_of


class Unsaved:
    """What a copy of a model that `pickle` has made lacks, to be given to it.

    That is: the states of seed generators; what an optimizer does not track itself
    (Nadam's product); and which weights `exclude_from_weight_decay` has named.
    """

    def __init__(self, model: keras.Model) -> None:
        """Copy it from a model that is built, and its optimizer, too."""
        self._values: list[np.ndarray] = [value_of(v) for v in _of_no_file(model)]
        self._shapes = _shapes(model)
        self._decays = [decays for _, decays in _decays(model)]

    def give(self, copy: keras.Model) -> None:
        """Put it into a copy.

        Raises:
            ValueError: If the copy has other variables than the model.
        """
        variables = _of_no_file(copy)
        same = _shapes(copy) == self._shapes
        if not same or len(variables) != len(self._values):
            raise ValueError(
                "The copy that Keras has made of the model for another process does "
                "not have the model's variables, as where layers were frozen after "
                "the optimizer was built. Compile the model anew, or make the sweeps "
                "here, without `executor`."
            )
        for variable, value in zip(variables, self._values, strict=True):
            variable.assign(value)
        pairs = zip(_decays(copy), self._decays, strict=True)
        cache = {key: decays for (key, _), decays in pairs}
        innermost(copy.optimizer)._exclude_from_weight_decay_cache = cache


def _of_no_file(model: keras.Model) -> list[Any]:
    saved = {id(variable) for variable in (*model.weights, *model.optimizer.variables)}
    every = [*model.variables, *held_by(model.optimizer)]
    return [variable for variable in every if id(variable) not in saved]


def _shapes(model: keras.Model) -> list[tuple[int, ...]]:
    return [tuple(v.shape) for v in (*model.weights, *model.optimizer.variables)]


def _decays(model: keras.Model) -> list[tuple[Any, bool]]:
    """Keys of trained weights, and whether they decay."""
    optimizer = innermost(model.optimizer)
    weights = optimizer._trainable_variables
    return [(optimizer._var_key(w), optimizer._use_weight_decay(w)) for w in weights]
