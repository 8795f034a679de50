"""Data of every kind that `fit` takes, gone through as long as a sweep needs."""

from __future__ import annotations

import dataclasses
import itertools
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np

_Loss = keras.losses.Loss
# Methods of a model with which it may do without targets.
_OWN = ("train_step", "compute_loss", "compute_loss_and_updates", "fit")


@dataclasses.dataclass
class Source:
    """What `fit` is given for each sweep.

    Attributes:
        data: `x`, `y` and `sample_weight`.
        batches: How many batches a sweep takes.
    """

    data: dict[str, Any]
    batches: int

    def first(self) -> dict[str, Any]:
        """Data to build a model with, of which a batch is taken."""
        return self.data

    def sweep(
        self, number: int, batch_size: int | None, fit_arguments: dict[str, Any]
    ) -> dict[str, Any]:
        """The arguments of `fit` for one of several sweeps.

        An epoch has a batch at least, and the test ends them.
        """
        return {
            **(_reordered(self.data, seed=number) if number else self.data),
            "batch_size": batch_size,
            "epochs": self.batches,
            **fit_arguments,
        }


class _Generator(Source):
    """A generator: Keras looks at its first batch and goes through it once.

    It has one epoch, unless `steps_per_epoch` cuts it: it cannot be rewound, and Keras
    on JAX would repeat the batch it looked at.
    """

    def first(self) -> dict[str, Any]:
        batch = next(self.data["x"])
        self.data["x"] = _chained([batch], self.data["x"])
        return self.data | {"x": _chained([batch])}

    def sweep(
        self, number: int, batch_size: int | None, fit_arguments: dict[str, Any]
    ) -> dict[str, Any]:
        arguments = super().sweep(0, batch_size, fit_arguments)
        if "steps_per_epoch" not in fit_arguments:
            arguments["epochs"] = 1
        return arguments


class _Factory(Source):
    """A function that makes generators, or other iterables of batches."""

    def first(self) -> dict[str, Any]:
        batches = _again_and_again(self.data["x"])
        try:  # Keras says that it was given a generator
            batch = next(batches)
        except StopIteration:
            raise ValueError(
                "Argument `x` must hold data. Received: a function whose generator "
                "has no batch in it"
            ) from None
        return self.data | {"x": _chained([batch], batches)}

    def sweep(
        self, number: int, batch_size: int | None, fit_arguments: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            **self.first(),
            "batch_size": batch_size,
            "epochs": 1,
            **fit_arguments,
            "steps_per_epoch": self.batches,
        }


class _Endless(Source):
    """A `tf.data.Dataset` whose length is not known, repeated: an epoch has no end.

    At such an end TensorFlow has counted an update that was not made: Keras's compiled
    step counts beside taking a batch, and finds too late that there is none.
    """

    def sweep(
        self, number: int, batch_size: int | None, fit_arguments: dict[str, Any]
    ) -> dict[str, Any]:
        arguments = super().sweep(number, batch_size, fit_arguments)
        if "steps_per_epoch" in fit_arguments:
            return arguments
        return arguments | {
            "x": self.data["x"].repeat(),
            "epochs": 1,
            "steps_per_epoch": self.batches,
        }


def source_of(
    x: Any, y: Any, sample_weight: Any, *, batches: int, repeats: int
) -> Source:
    """See what the data are, and refuse what cannot be swept over.

    Raises:
        ValueError: If there are no data, or a generator is to be gone through twice.
    """
    data = {"x": x, "y": y, "sample_weight": sample_weight}
    if isinstance(x, types.GeneratorType):
        if repeats > 1:
            raise ValueError(
                "Argument `repeats` must be 1 with a generator, which cannot be "
                f"rewound. Received: repeats={repeats}. Give a function that makes "
                "one, arrays, a Dataset or a PyDataset."
            )
        warnings.warn(
            "`x` is a generator, which cannot be rewound: the training after the range "
            "test will not see the batches that the sweep takes. Give the function "
            "that makes it: find_learning_rate(model, batches), not batches().",
            stacklevel=3,
        )
        return _Generator(data, batches)
    if _makes_batches(x):
        return _Factory(data, batches)
    if _is_of_unknown_length(x):
        return _Endless(data, batches)
    leaves = [a for a in keras.tree.flatten(x) if a is not None]
    if not leaves or any(getattr(a, "shape", (None,))[:1] == (0,) for a in leaves):
        shapes = [getattr(leaf, "shape", leaf) for leaf in leaves]
        raise ValueError(f"Argument `x` must hold data. Received: shapes {shapes}")
    return Source(data, batches)


def check_targets(model: keras.Model, x: Any, y: Any, *, way_out: str) -> None:
    """Refuse arrays without targets, where the loss compares with targets.

    A model with a step, a loss or a `fit` of its own may need none.

    Raises:
        ValueError: If there are none.
    """
    arrays = [leaf for leaf in keras.tree.flatten(x) if leaf is not None]
    if y is not None or not all(hasattr(array, "shape") for array in arrays):
        return  # given, or among the batches
    if not arrays or getattr(model, "loss", None) is None:
        return
    given = [loss for loss in keras.tree.flatten(model.loss) if isinstance(loss, _Loss)]
    if any(type(loss).__call__ is not _Loss.__call__ for loss in given):
        return  # Keras's own makes tensors of targets, and fails at None
    if any(getattr(type(model), m, 0) is not getattr(keras.Model, m, 0) for m in _OWN):
        return
    kind = type(x).__name__
    if isinstance(x, (tuple, list)):  # (x, y), most often
        kind += f" of {len(x)} (to `fit`, as many inputs)"
    raise ValueError(
        "The model is compiled with a loss, which needs targets `y` beside arrays `x`. "
        f"Received: y=None, x is of type {kind}. {way_out}"
    )


def _makes_batches(x: Any) -> bool:
    """Whether it is a function, or an object that is called like one, and no data."""
    kinds = (keras.utils.PyDataset, Iterable)
    return callable(x) and not isinstance(x, kinds) and not hasattr(x, "shape")


def _is_of_unknown_length(x: Any) -> bool:
    """Whether it is a `tf.data.Dataset` that cannot tell how many batches it has."""
    if not (hasattr(x, "cardinality") and hasattr(x, "repeat")):
        return False
    return int(x.cardinality()) == -2  # tf.data.UNKNOWN_CARDINALITY


def _chained(*iterables: Iterable[Any]) -> Iterator[Any]:
    """A generator, as Keras wants one, over several in a row."""
    yield from itertools.chain(*iterables)


def _again_and_again(make: Callable[[], Iterable[Any]]) -> Iterator[Any]:
    """Batches of one generator after another, until one is empty."""
    found = True
    while found:
        found = False
        made = make()
        if not isinstance(made, Iterable):
            raise TypeError(
                "Argument `x` must be a function that gives batches, one after the "
                f"other. Received: a function that gives {type(made).__name__}. Does "
                "it lack a `yield` or a `return`?"
            )
        for batch in made:
            found = True
            yield batch


def _reordered(data: dict[str, Any], seed: int) -> dict[str, Any]:
    """The samples of arrays in another order; other sources shuffle themselves."""
    arrays = [leaf for leaf in keras.tree.flatten(data) if leaf is not None]
    if not all(hasattr(array, "shape") and len(array.shape) for array in arrays):
        return data
    order = np.random.default_rng(seed).permutation(arrays[0].shape[0])
    return keras.tree.map_structure(
        lambda leaf: None if leaf is None else np.asarray(leaf)[order], data
    )
