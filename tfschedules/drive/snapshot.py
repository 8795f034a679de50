"""A model's whole training state, to be put back to the bit."""

from __future__ import annotations

import random
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state
from keras.src.random.seed_generator import global_seed_generator

from tfschedules.drive.replicas import copies_of
from tfschedules.drive.split import Split
from tfschedules.drive.state import drop_state, innermost, value_of

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
        """Put the states back; a generator made since is forgotten."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        global_state.set_global_attribute(_KERAS_GENERATOR, self._keras)
        if self._keras is not None:
            self._keras.state.assign(self._keras_state)
        if self._tensorflow is not None:
            self._tensorflow.setstate(self._tensorflow_state)
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


class _OnDisk:
    """Arrays in files of a temporary folder, which goes when this does."""

    def __init__(self, folder: str) -> None:
        self._folder = tempfile.mkdtemp(prefix="tfschedules-", dir=folder)
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._count = 0

    def put(self, value: np.ndarray) -> Any:
        """Write an array; bytes, as `np.save` does not know 16-bit brain floats."""
        path = Path(self._folder, str(self._count))
        self._count += 1
        value.tofile(path)
        return path, value.dtype, value.shape

    @staticmethod
    def get(stored: Any) -> np.ndarray:
        """Read it back."""
        path, dtype, shape = stored
        return np.fromfile(path, dtype).reshape(shape)


class _InMemory:
    """Arrays as they are."""

    @staticmethod
    def put(value: np.ndarray) -> Any:
        """Keep an array."""
        return value

    get = put


class Snapshot:
    """Everything of a model that training changes, copied to memory or to disk.

    That is: all variables, with BatchNorm statistics and seed generators; those of the
    optimizer and of others that the model holds, also what they do not track themselves
    (Nadam's product); metrics; `stop_training`; and the random generators. Of several
    replicas it is what each one has. An optimizer that is not built yet is built first,
    so that there are slots to put back.
    """

    def __init__(self, model: keras.Model, folder: str | None = None) -> None:
        """Copy the state of a compiled and built model.

        Args:
            model: The model.
            folder: Where to write the copy, into a folder of its own that is removed
                when the snapshot is no longer needed; kept in memory if `None`.

        Raises:
            OSError: If it cannot be written.
        """
        self._store: Any = _InMemory() if folder is None else _OnDisk(folder)
        self._generators = Generators()
        self._model = model
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        optimizers = _optimizers(model)
        # On which weights another one is to be built, the train step knows.
        self._unbuilt = [each for each in optimizers if not each.built]
        self._values: dict[int, tuple[Any, Any]] = {}
        for variable in _variables(model, optimizers):
            for copy in copies_of(variable):
                if id(copy) not in self._values:
                    stored = self._store.put(_value_of_any(copy))
                    self._values[id(copy)] = copy, stored
        self._stop_training = model.stop_training
        self._missed = dict(split.missed) if (split := self._split()) else {}

    def restore(self) -> None:
        """Put everything back; metrics made since are reset."""
        drop_state(self._model)  # else Keras would put it over this, later
        for variable, stored in self._values.values():
            variable.assign(self._store.get(stored))
        for metric in self._model.metrics:
            if not all(self._has(variable) for variable in metric.variables):
                metric.reset_state()
        self._model.stop_training = self._stop_training
        if split := self._split():  # batches that frozen weights have missed
            split.set_missed(self._missed)
        self._generators.restore()
        for optimizer in self._unbuilt:
            if optimizer.built:
                self._begin_anew(optimizer)

    def _begin_anew(self, optimizer: Any) -> None:
        """Give an optimizer the state that it has when it is built."""
        fresh = type(optimizer).from_config(optimizer.get_config())
        fresh.build(innermost(optimizer)._trainable_variables)
        for variable, new in zip(optimizer.variables, fresh.variables, strict=True):
            if not self._has(variable):
                variable.assign(value_of(new))

    def _has(self, variable: Any) -> bool:
        return all(id(copy) in self._values for copy in copies_of(variable))

    def _split(self) -> Split | None:
        return Split.at(innermost(self._model.optimizer))


class Unbuilt:
    """What of a compiled model its first fit has yet to build.

    On JAX a fit that has metrics or losses to build looks at a batch for that, and so
    draws another order of the samples: it has to find them unbuilt again.
    """

    def __init__(self, model: keras.Model) -> None:
        """Note what is not built now."""
        compiled = (model._compile_metrics, model._compile_loss)
        self._model = model
        self._parts = [part for part in compiled if part is not None and not part.built]
        self._held = [list(getattr(part, "_metrics", [])) for part in self._parts]

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self._parts)

    def restore(self) -> None:
        """Let it be built anew, and what was traced with it."""
        for part, held in zip(self._parts, self._held, strict=True):
            part.built = False
            if hasattr(part, "_metrics"):
                part._metrics[:] = held
        if self._parts:
            self._model.train_function = self._model.test_function = None


def _optimizers(model: keras.Model) -> list[Any]:
    """The model's optimizer, and others that it holds, also in lists and dicts."""
    found = [model.optimizer]
    values = list(vars(model).values())
    while values:
        value = values.pop()
        if isinstance(value, keras.Optimizer) and value not in found:
            found.append(value)
        elif isinstance(value, dict):
            values += value.values()
        elif isinstance(value, (list, tuple)):
            values += value
    return found


def held_by(optimizer: Any) -> list[Any]:
    """An optimizer's variables, with those that are none of its `variables`."""
    return [
        value
        for attribute in vars(innermost(optimizer)).values()
        for value in (attribute if isinstance(attribute, list) else [attribute])
        if isinstance(value, keras.Variable)
    ]


def _variables(model: keras.Model, optimizers: list[Any]) -> list[Any]:
    return [
        *model.variables,
        *model.metrics_variables,
        *(variable for optimizer in optimizers for variable in optimizer.variables),
        *(variable for optimizer in optimizers for variable in held_by(optimizer)),
        *_known_to_tensorflow(model),
    ]


def _known_to_tensorflow(model: keras.Model) -> list[Any]:
    """Variables that Keras does not list: states of an RNN, counters of a user's."""
    if keras.backend.backend() != "tensorflow":
        return []  # JAX carries from step to step what Keras lists, and nothing else
    import tensorflow as tf

    parts = tf.train.TrackableView(model).descendants()
    return [part for part in parts if isinstance(part, (keras.Variable, tf.Variable))]


def _value_of_any(variable: Any) -> np.ndarray:
    """A copy of the value of Keras's or TensorFlow's variable."""
    if isinstance(variable, keras.Variable):
        return value_of(variable)
    return np.array(variable.numpy())
