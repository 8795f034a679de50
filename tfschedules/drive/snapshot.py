"""A model's whole training state, to be put back to the bit."""

from __future__ import annotations

import random
from typing import Any

import keras
import numpy as np

from tfschedules.drive.drive import innermost
from tfschedules.drive.state import value_of


class Snapshot:
    """Everything that training changes, copied to memory.

    That is: all model variables, with BatchNorm statistics and seed generators; the
    optimizer's variables, also those that it does not track itself (Nadam's product);
    metrics; `stop_training` and `history`; the state of the random generators of
    Python, NumPy, Keras and TensorFlow's eager context. An optimizer that is not built
    yet is built first, so that there are slots to put back.
    """

    def __init__(self, model: keras.Model) -> None:
        """Copy the state of a compiled and built model."""
        self._model = model
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        self._values = {
            id(variable): (variable, value_of(variable))
            for variable in _variables(model)
        }
        self._stop_training = model.stop_training
        self._python = random.getstate()
        self._numpy = np.random.get_state()
        self._tensorflow = _tensorflow_generator()
        if self._tensorflow:
            self._tensorflow_state = self._tensorflow.getstate()

    def restore(self) -> None:
        """Put everything back; metrics made since are reset."""
        known = self._values
        for variable, value in known.values():
            variable.assign(value)
        for metric in self._model.metrics:
            if any(id(variable) not in known for variable in metric.variables):
                metric.reset_state()
        self._model.stop_training = self._stop_training
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        if self._tensorflow:
            self._tensorflow.setstate(self._tensorflow_state)


def _variables(model: keras.Model) -> list[Any]:
    optimizer = innermost(model.optimizer)
    untracked = [
        value
        for attribute in vars(optimizer).values()
        for value in (attribute if isinstance(attribute, list) else [attribute])
        if isinstance(value, keras.Variable)
    ]
    return [
        *model.variables,
        *model.metrics_variables,
        *model.optimizer.variables,
        *untracked,
        keras.src.random.seed_generator.global_seed_generator().state,
    ]


def _tensorflow_generator() -> random.Random | None:
    """The generator from which TensorFlow draws the seeds of seeded operations."""
    if keras.backend.backend() != "tensorflow":
        return None
    from tensorflow.python.eager import context

    return getattr(context.context(), "_rng", None)
