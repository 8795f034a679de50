"""A model's whole training state, to be put back to the bit."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras

from tfschedules.drive.chosen import Chosen, optimizers_of
from tfschedules.drive.copies import Copies, held_by, put_back
from tfschedules.drive.generators import Generators
from tfschedules.drive.split import Split
from tfschedules.drive.state import drop_state, innermost, value_of
from tfschedules.drive.store import InMemory, OnDisk
from tfschedules.drive.tidying import do_all


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

    def __init__(
        self,
        model: keras.Model,
        folder: str | None = None,
        *,
        chosen: Chosen | None = None,
    ) -> None:
        """Copy the state of a compiled and built model.

        Args:
            model: The model.
            folder: Where to write the copy, into a folder of its own that is removed by
                `remove`, or when the snapshot goes; kept in memory if `None`.
            chosen: The optimizer that is going to make updates, wherever the model has
                it; by default the compiled one, which is built.

        Raises:
            OSError: If it cannot be written.
        """
        self.restored = False
        self._store: InMemory | OnDisk | None = (
            InMemory() if folder is None else OnDisk(folder)
        )
        self._copies = Copies(self._store)
        try:
            self._copy(model, chosen)
        except BaseException:
            self.remove()
            raise

    def _copy(self, model: keras.Model, chosen: Chosen | None) -> None:
        self._generators = Generators()
        self._model = model
        compiled = chosen is None or chosen.is_compiled
        if compiled and not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        optimizers = [each.optimizer for each in optimizers_of(model)]
        if chosen is not None:  # also where something holds it that is no layer
            optimizers.append(chosen.optimizer)
        # On which weights another one is to be built, the train step knows.
        self._unbuilt = [each for each in optimizers if not each.built]
        self._copies.take(_variables(model, optimizers))
        self._stop_training = model.stop_training
        self._missed = [
            (inner, dict(split.missed) if (split := Split.at(inner)) else {})
            for inner in map(innermost, optimizers)
        ]

    def restore(self) -> None:
        """Put everything back that can be; metrics made since are reset.

        After `remove` this does nothing.

        Raises:
            NotRestoredError: If something could not be put back; all the rest is.
        """
        if self._store is None:
            return
        self.restored = False
        put_back(
            f"The model {self._model.name!r}",
            self._actions(),
            "When the cause is gone, call `restore()` of this error or of the "
            "RangeTest; or load weights and optimizer from a file. Until then do not "
            "train or save the model.",
            self.restore_and_remove,
        )
        self.restored = True

    def restore_and_remove(self) -> None:
        """Put everything back, and forget it unless something could not be."""
        self.restore()
        self.remove()

    def remove(self) -> None:
        """Forget everything, on disk, too; a second time does nothing."""
        store, self._store = self._store, None
        self._copies = Copies(InMemory())
        if store is not None:
            store.remove()

    def _actions(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """What is to be done, and what of the model is not restored where it fails."""
        model = self._model
        # Else Keras would put it over this, later.
        yield "the state outside of the variables", lambda: drop_state(model)
        yield from self._copies.putting_back()
        yield "metrics that were made since", self._reset_new_metrics
        yield "stop_training", self._put_back_stop
        yield "the batches that frozen weights have missed", self._put_back_missed
        yield "the random generators", self._generators.restore
        for optimizer in self._unbuilt:
            if optimizer.built:
                anew = functools.partial(self._begin_anew, optimizer)
                yield f"the optimizer {optimizer.name!r}", anew

    def _reset_new_metrics(self) -> None:
        do_all(
            [
                metric.reset_state
                for metric in self._model.metrics
                if not all(self._copies.has(variable) for variable in metric.variables)
            ]
        )

    def _put_back_stop(self) -> None:
        self._model.stop_training = self._stop_training

    def _put_back_missed(self) -> None:
        for inner, missed in self._missed:
            if split := Split.at(inner):  # of a callback in between, perhaps
                split.set_missed(missed)

    def _begin_anew(self, optimizer: Any) -> None:
        """Give an optimizer the state that it has when it is built."""
        fresh = type(optimizer).from_config(optimizer.get_config())
        fresh.build(innermost(optimizer)._trainable_variables)
        for variable, new in zip(optimizer.variables, fresh.variables, strict=True):
            if not self._copies.has(variable):
                variable.assign(value_of(new))


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


def _variables(model: keras.Model, optimizers: list[Any]) -> list[Any]:
    return [
        *model.variables,
        *model.metrics_variables,
        *_metrics_inside(model),
        *(variable for optimizer in optimizers for variable in optimizer.variables),
        *(variable for optimizer in optimizers for variable in held_by(optimizer)),
        *_known_to_tensorflow(model),
    ]


def _metrics_inside(model: keras.Model) -> list[Any]:
    """Those of models in it that are compiled by themselves, which Keras leaves out."""
    models = [
        each
        for each in model._flatten_layers(include_self=False)
        if isinstance(each, keras.Model) and each.compiled
    ]
    return [variable for each in models for variable in each.metrics_variables]


def _known_to_tensorflow(model: keras.Model) -> list[Any]:
    """Variables that Keras does not list: states of an RNN, counters of a user's."""
    if keras.backend.backend() != "tensorflow":
        return []  # JAX carries from step to step what Keras lists, and nothing else
    import tensorflow as tf

    parts = tf.train.TrackableView(model).descendants()
    return [part for part in parts if isinstance(part, (keras.Variable, tf.Variable))]
