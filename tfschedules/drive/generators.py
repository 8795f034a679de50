"""The random generators that a fit draws from."""

from __future__ import annotations

import random
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state
from keras.src.random.seed_generator import global_seed_generator

from tfschedules.drive.state import value_of
from tfschedules.drive.tidying import do_all

_KERAS_GENERATOR = "global_seed_generator"  # made when it is first drawn from


class Generators:
    """The states of the random generators that a fit draws from.

    Python's, NumPy's, Keras's own for layers without a seed, the one from which
    TensorFlow's eager context draws the seeds of seeded operations, and torch's, with
    which its loader shuffles.
    """

    def __init__(self) -> None:
        """Note the states as they are now."""
        self._note()

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs: the states, not the generators."""
        seed = None
        if self._tensorflow is not None:
            from tensorflow.python.eager import context

            seed = context.global_seed()
        gone = {"_keras": None, "_tensorflow": None}
        return self.__dict__ | gone | {"_tensorflow_seed": seed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Find this process's own generators, to be given the states."""
        self._note()
        seed = state.pop("_tensorflow_seed")
        if "_keras_state" in state:
            self._keras = global_seed_generator()
        if seed is not None:
            from tensorflow.python.eager import context

            context.set_global_seed(seed)
            self._tensorflow = _tensorflow_generator()
        kept = {"_keras": self._keras, "_tensorflow": self._tensorflow}
        self.__dict__.update(state | kept)

    def _note(self) -> None:
        self._python = random.getstate()
        self._numpy = np.random.get_state()  # Keras shuffles with it
        self._keras = global_state.get_global_attribute(_KERAS_GENERATOR)
        if self._keras is not None:
            self._keras_state = value_of(self._keras.state)
        self._tensorflow = _tensorflow_generator()
        if self._tensorflow is not None:
            self._tensorflow_state = self._tensorflow.getstate()
        self._torch = _torch_state()

    def restore(self) -> None:
        """Put the states back, all that can be; a generator made since is forgotten."""
        do_all(
            [
                self._restore_torch,
                self._restore_tensorflow,
                self._restore_keras,
                lambda: np.random.set_state(self._numpy),
                lambda: random.setstate(self._python),
            ]
        )

    def _restore_keras(self) -> None:
        global_state.set_global_attribute(_KERAS_GENERATOR, self._keras)
        if self._keras is not None:
            self._keras.state.assign(self._keras_state)

    def _restore_tensorflow(self) -> None:
        if self._tensorflow is not None:
            self._tensorflow.setstate(self._tensorflow_state)

    def _restore_torch(self) -> None:
        if self._torch is not None:
            import torch

            torch.set_rng_state(self._torch)


def _torch_state() -> Any:
    if keras.backend.backend() != "torch":
        return None
    import torch

    return torch.get_rng_state()


def _tensorflow_generator() -> random.Random | None:
    if keras.backend.backend() != "tensorflow":
        return None
    from tensorflow.python.eager import context

    return getattr(context.context(), "_rng", None)
