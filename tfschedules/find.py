"""`find_learning_rate`: a range test in one call, restored whatever happens."""

from __future__ import annotations

import contextlib
import os
import types
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfschedules import checks
from tfschedules.drive import Generators, check_compiled, innermost
from tfschedules.range_test import RangeTest
from tfschedules.records import RangeTestResult
from tfschedules.reports import new_range_test_run, write_range_test


def find_learning_rate(
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    steps: int = 100,
    mode: str = "exponential",
    batch_size: int | None = None,
    sample_weight: Any = None,
    stop_factor: float | None = 4.0,
    rule: str = "descent",
    repeats: int = 1,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    log_dir: str | os.PathLike[str] | None = None,
    verbose: int = 1,
    **fit_arguments: Any,
) -> RangeTestResult:
    """Run a range test and put the model back, whatever happens.

    Data shorter than the sweep are gone through again. On Ctrl-C, and on any exception,
    the model is restored and the exception goes on. What the data do themselves cannot
    be put back: a generator is used up, and a `tf.data` shuffle goes on.

    Args:
        model: A compiled model; it need not be built.
        x: What `model.fit` takes: arrays, a `tf.data.Dataset`, a `PyDataset` …
        y: Targets, where `x` does not bring them.
        min_lr: The first rate, > 0.
        max_lr: The last rate, > `min_lr`.
        steps: The length of the sweep in optimizer updates, >= 2.
        mode: "exponential" or "linear".
        batch_size: As in `fit`. Use the one you will train with.
        sample_weight: As in `fit`.
        stop_factor: See `RangeTest`.
        rule: See `RangeTest`.
        repeats: How many sweeps to make from the same weights, the data in another
            order each time (a `tf.data.Dataset` or a `PyDataset` shuffles itself). The
            result is about their mean, as far as all of them got.
        callbacks: More callbacks for the fit.
        log_dir: Where to write a TensorBoard run `range_test`.
        verbose: 1 shows a progress bar, 0 nothing.
        **fit_arguments: More arguments of `fit`: `class_weight`, `shuffle`,
            `steps_per_epoch` … .

    Returns:
        A `RangeTestResult`: print it, or take `.suggestion`.

    Raises:
        TypeError: If an argument is not of its type.
        ValueError: If one is out of range, the model is not compiled, or the data are
            empty.

    Example:
        >>> import keras, numpy as np, tfschedules as tfs
        >>> x = np.random.default_rng(0).normal(size=(256, 8)).astype("float32")
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> result = tfs.find_learning_rate(model, x, x.sum(1), verbose=0)
        >>> 1e-3 < result.suggestion < 1
        True
    """
    check_compiled(model)
    for reserved in ("epochs", "initial_epoch", "validation_data", "validation_split"):
        if reserved in fit_arguments:
            raise ValueError(
                f"Argument `{reserved}` has no place in a range test, whose length is "
                f"`steps`. Received: {reserved}={fit_arguments[reserved]!r}"
            )
    leaves = [a for a in keras.tree.flatten(x) if a is not None]
    if not leaves or any(getattr(a, "shape", (None,))[:1] == (0,) for a in leaves):
        shapes = [getattr(leaf, "shape", leaf) for leaf in leaves]
        raise ValueError(f"Argument `x` must hold data. Received: shapes {shapes}")
    if not isinstance(callbacks, Sequence):
        raise TypeError(
            "Argument `callbacks` must be a list of callbacks. "
            f"Received: callbacks={callbacks!r}"
        )
    repeats = checks.whole("repeats", repeats)
    is_generator = isinstance(x, types.GeneratorType)
    if repeats > 1 and is_generator:
        raise ValueError(
            "Argument `repeats` must be 1 with a generator, which cannot be rewound. "
            f"Received: repeats={repeats}. Give arrays, a Dataset or a PyDataset."
        )
    tests = [
        RangeTest(min_lr, max_lr, steps, mode, stop_factor, rule=rule)
        for _ in range(repeats)
    ]
    generators = Generators()
    run_dir = None if log_dir is None else new_range_test_run(log_dir)
    history = getattr(model, "history", None)
    accumulation = innermost(model.optimizer).gradient_accumulation_steps or 1
    # An epoch has a batch at least, and the test ends them. A generator has one epoch:
    # it cannot be rewound, and Keras on JAX would repeat the batch it peeked at.
    once = is_generator and "steps_per_epoch" not in fit_arguments
    epochs = 1 if once else steps * accumulation
    data = {"x": x, "y": y, "sample_weight": sample_weight}
    try:
        with warnings.catch_warnings():
            # Data that end before the sweep does are gone through again, on purpose;
            # and `shuffle` is Keras's default, not a wish.
            warnings.filterwarnings("ignore", ".*input ran out of data.*")
            if "shuffle" not in fit_arguments:
                warnings.filterwarnings("ignore", "`shuffle=True` was passed, but")
            if not model.built:
                model.evaluate(**data, batch_size=batch_size, steps=1, verbose=0)
            for i, test in enumerate(tests):
                test.keep_snapshot = True
                model.fit(
                    **(_reordered(data, seed=i) if i else data),
                    batch_size=batch_size,
                    epochs=epochs,
                    verbose=0,
                    callbacks=[
                        test,
                        *([_Progress(test)] if verbose else []),
                        *callbacks,
                    ],
                    **fit_arguments,
                )
                test.restore()  # over what other callbacks have done at the end
    finally:
        for test in tests:
            test.restore()
        model.history = history
        generators.restore()
        if run_dir is not None:
            _remove_empty(run_dir)
    results = [test.result for test in tests if test.result is not None]
    if not results or not min(len(result.losses) for result in results):
        raise ValueError(
            "Argument `x` must hold data. Received: a data set without a batch in it"
        )
    shortest = min(results, key=lambda result: len(result.losses))
    count = len(shortest.losses)
    result = RangeTestResult.from_sweep(
        shortest.learning_rates,
        [result.losses[:count] for result in results],
        steps=steps,
        stop_reason=shortest.stop_reason,
        mode=mode,
        rule=rule,
    )
    if run_dir is not None:
        write_range_test(result, run_dir)
    return result


def _remove_empty(run_dir: str) -> None:
    """Take back the folder of a run that has not come to be."""
    with contextlib.suppress(OSError):
        Path(run_dir).rmdir()


def _reordered(data: dict[str, Any], seed: int) -> dict[str, Any]:
    """The samples of arrays in another order; other sources shuffle themselves."""
    arrays = [leaf for leaf in keras.tree.flatten(data) if leaf is not None]
    if not all(hasattr(array, "shape") and len(array.shape) for array in arrays):
        return data
    order = np.random.default_rng(seed).permutation(arrays[0].shape[0])
    return keras.tree.map_structure(
        lambda leaf: None if leaf is None else np.asarray(leaf)[order], data
    )


class _Progress(keras.callbacks.Callback):
    """Keras's own progress bar, over the steps of the sweep."""

    def __init__(self, test: RangeTest) -> None:
        super().__init__()
        self._test = test

    def on_train_begin(self, logs: Any = None) -> None:
        self._bar = keras.utils.Progbar(
            self._test.steps, stateful_metrics=["loss", "learning_rate"]
        )

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        losses = self._test._losses
        if losses:
            now = [("learning_rate", self._test.schedule.values([len(losses) - 1])[0])]
            ended = bool(self.model.stop_training)
            self._bar.update(len(losses), [("loss", losses[-1]), *now], finalize=ended)
