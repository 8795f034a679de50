"""A model's whole training state, to be put back to the bit."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from tfschedules.drive.generators import Generators
from tfschedules.drive.replicas import copies_of
from tfschedules.drive.split import Split
from tfschedules.drive.state import drop_state, innermost, value_of
from tfschedules.drive.store import InMemory, OnDisk
from tfschedules.drive.tidying import do_all


class NotRestoredError(OSError, RuntimeError):
    """A model is not in all as it was.

    Attributes:
        restore: Puts it back once more, to be called when the cause is gone.
    """

    def __init__(self, message: str, restore: Callable[[], None] | None = None) -> None:
        super().__init__(message)
        self.restore = restore


class Snapshot:
    """Everything of a model that training changes, copied to memory or to disk.

    That is: all variables, with BatchNorm statistics and seed generators; those of the
    optimizer and of others that the model holds, also what they do not track themselves
    (Nadam's product); metrics; `stop_training`; and the random generators. Of several
    replicas it is what each one has. An optimizer that is not built yet is built first,
    so that there are slots to put back.

    Attributes:
        restored: Whether everything has been put back, the last time.
    """

    def __init__(self, model: keras.Model, folder: str | None = None) -> None:
        """Copy the state of a compiled and built model.

        Args:
            model: The model.
            folder: Where to write the copy, into a folder of its own that is removed by
                `remove`, or when the snapshot goes; kept in memory if `None`.

        Raises:
            OSError: If it cannot be written.
        """
        self.restored = False
        self._values: dict[int, _Kept] = {}
        self._store: InMemory | OnDisk | None = (
            InMemory() if folder is None else OnDisk(folder)
        )
        try:
            self._copy(model)
        except BaseException:
            self.remove()
            raise

    def _copy(self, model: keras.Model) -> None:
        assert self._store is not None
        self._generators = Generators()
        self._model = model
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        optimizers = _optimizers(model)
        # On which weights another one is to be built, the train step knows.
        self._unbuilt = [each for each in optimizers if not each.built]
        for variable in _variables(model, optimizers):
            name = getattr(variable, "path", variable.name)
            for copy in copies_of(variable):
                if id(copy) not in self._values:
                    stored = self._store.put(_value_of_any(copy))
                    self._values[id(copy)] = _Kept(copy, name, stored)
        self._stop_training = model.stop_training
        self._missed = dict(split.missed) if (split := self._split()) else {}

    def restore(self) -> None:
        """Put everything back that can be; metrics made since are reset.

        After `remove` this does nothing.

        Raises:
            NotRestoredError: If something could not be put back; all the rest is.
        """
        if self._store is None:
            return
        self.restored = False
        failed: dict[str, list[str]] = {}
        first: Exception | None = None
        for name, action in self._actions():
            try:
                action()
            except Exception as error:  # not kept: its frames hold arrays
                failed.setdefault(_reason(error), []).append(name)
                first = first or error
        if first is not None:
            raise self._error(failed) from first
        self.restored = True

    def restore_and_remove(self) -> None:
        """Put everything back, and forget it unless something could not be."""
        self.restore()
        self.remove()

    def remove(self) -> None:
        """Forget everything, on disk, too; a second time does nothing."""
        store, self._store = self._store, None
        self._values.clear()
        if store is not None:
            store.remove()

    def _actions(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """What is to be done, and what of the model is not restored where it fails."""
        model = self._model
        # Else Keras would put it over this, later.
        yield "the state outside of the variables", lambda: drop_state(model)
        for kept in self._values.values():
            yield kept.name, functools.partial(self._put_back, kept)
        yield "metrics that were made since", self._reset_new_metrics
        yield "stop_training", self._put_back_stop
        yield "the batches that frozen weights have missed", self._put_back_missed
        yield "the random generators", self._generators.restore
        for optimizer in self._unbuilt:
            if optimizer.built:
                anew = functools.partial(self._begin_anew, optimizer)
                yield f"the optimizer {optimizer.name!r}", anew

    def _put_back(self, kept: _Kept) -> None:
        assert self._store is not None
        kept.variable.assign(self._store.get(kept.stored))

    def _reset_new_metrics(self) -> None:
        do_all(
            [
                metric.reset_state
                for metric in self._model.metrics
                if not all(self._has(variable) for variable in metric.variables)
            ]
        )

    def _put_back_stop(self) -> None:
        self._model.stop_training = self._stop_training

    def _put_back_missed(self) -> None:
        if split := self._split():
            split.set_missed(self._missed)

    def _error(self, failed: dict[str, list[str]]) -> NotRestoredError:
        parts = [
            f"{', '.join(dict.fromkeys(names))} ({reason})"
            for reason, names in failed.items()
        ]
        return NotRestoredError(
            f"The model {self._model.name!r} is not as it was before its range test. "
            f"Not put back: {'; '.join(parts)}. All the rest is. When the cause is "
            "gone, call `restore()` of this error or of the RangeTest; or load weights "
            "and optimizer from a file. Until then do not train or save the model.",
            self.restore_and_remove,
        )

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


class _Kept(NamedTuple):
    variable: Any
    name: str
    stored: Any


def _reason(error: Exception) -> str:
    """Why something could not be put back, the same for all files of a folder."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.strerror}, in {str(Path(error.filename).parent)!r}"
    return f"{type(error).__name__}: {error}"


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
