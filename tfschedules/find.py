"""`find_learning_rate`: a range test in one call, restored whatever happens."""

from __future__ import annotations

import contextlib
import os
import sys
import types
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from tfschedules import checks
from tfschedules.comparison import RangeTestComparison
from tfschedules.drive import (
    Generators,
    Unbuilt,
    check_compiled,
    has_weights,
    innermost,
    is_first_process,
)
from tfschedules.held_out import bounded
from tfschedules.range_test import RangeTest, held_values
from tfschedules.records import RangeTestResult
from tfschedules.reports import new_range_test_run, write_range_test
from tfschedules.sources import source_of


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
    metric: str = "loss",
    higher_is_better: bool | None = None,
    validation_data: Any = None,
    validation_size: int = 512,
    validation_every: int | None = None,
    group: str | None = None,
    others: str = "still",
    hyperparameters: Mapping[str, float] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    log_dir: str | os.PathLike[str] | None = None,
    snapshot_dir: str | os.PathLike[str] | None = None,
    verbose: int = 1,
    **fit_arguments: Any,
) -> RangeTestResult:
    """Run a range test and put the model back, whatever happens.

    Data shorter than the sweep are gone through again. On Ctrl-C, and on any exception,
    the model is restored and the exception goes on. What the data do themselves cannot
    be put back: a generator is used up, and a `tf.data` shuffle goes on.

    Args:
        model: A compiled model; it need not be built.
        x: What `model.fit` takes: arrays, a `tf.data.Dataset`, a `PyDataset` … A
            generator cannot be rewound, and loses what the sweep takes; give a function
            without arguments that makes one.
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
            result is about all of them, as far as more than half of them got.
        metric: What the suggestion is read off: "loss", or a metric of the model.
        higher_is_better: See `RangeTest`.
        validation_data: Read it off these data instead: see `RangeTest`.
        validation_size: See `RangeTest`.
        validation_every: See `RangeTest`.
        group: Sweep the rate of this group of a `LayerwiseOptimizer` only.
        others: What other groups do meanwhile: see `RangeTest`.
        hyperparameters: Values of others for the sweep: see `RangeTest`.
        callbacks: More callbacks for the fit.
        log_dir: Where to write a TensorBoard run `range_test`.
        snapshot_dir: Where to keep the model's state, on disk, if it does not fit into
            memory twice.
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
    if _is_in_fit(model):
        raise ValueError(
            "A range test makes a fit of its own, and cannot run inside another one of "
            f"the same model. Received: {model.name!r} in `fit`. Call "
            "find_learning_rate before it, or between two."
        )
    for reserved in ("epochs", "initial_epoch", "validation_split", "validation_freq"):
        if reserved in fit_arguments:
            raise ValueError(
                f"Argument `{reserved}` has no place in a range test, whose length is "
                f"`steps`. Received: {reserved}={fit_arguments[reserved]!r}"
            )
    if not isinstance(callbacks, Sequence):
        raise TypeError(
            "Argument `callbacks` must be a list of callbacks. "
            f"Received: callbacks={callbacks!r}"
        )
    repeats = checks.whole("repeats", repeats)
    if validation_data is not None:
        validation_data = bounded(validation_data, validation_size)
    tests = [
        RangeTest(
            min_lr,
            max_lr,
            steps,
            mode,
            stop_factor,
            rule=rule,
            metric=metric,
            higher_is_better=higher_is_better,
            validation_data=validation_data,
            validation_size=validation_size,
            validation_every=validation_every,
            group=group,
            others=others,
            hyperparameters=hyperparameters,
            snapshot_dir=snapshot_dir,
        )
        for _ in range(repeats)
    ]
    needed = tests[0].steps * (
        innermost(model.optimizer).gradient_accumulation_steps or 1
    )
    source = source_of(x, y, sample_weight, batches=needed, repeats=repeats)
    run_dir = None
    if log_dir is not None and is_first_process():
        run_dir = new_range_test_run(log_dir)
    history, unbuilt = getattr(model, "history", None), Unbuilt(model)
    generators = Generators()
    try:
        with warnings.catch_warnings():
            # Data that end before the sweep does are gone through again, on purpose;
            # and `shuffle` is Keras's default, not a wish.
            warnings.filterwarnings("ignore", ".*input ran out of data.*")
            if "shuffle" not in fit_arguments:
                warnings.filterwarnings("ignore", "`shuffle=True` was passed, but")
            if not has_weights(model):
                _build(model, source.first(), batch_size)
                generators = Generators()  # as they are when a fit has built it
            for i, test in enumerate(tests):
                test.keep_snapshot = True
                model.fit(
                    **source.sweep(i, batch_size, fit_arguments),
                    verbose=0,
                    callbacks=[
                        test,
                        *([_Progress(test, i, repeats)] if verbose else []),
                        *callbacks,
                    ],
                )
                test.restore()  # over what other callbacks have done at the end
    finally:
        for test in tests:
            test.restore()
        unbuilt.restore()
        model.history = history
        generators.restore()
        if run_dir is not None:
            _remove_empty(run_dir)
    results = [test.result for test in tests if test.result is not None]
    if not results or not min(len(result.losses) for result in results):
        raise ValueError(
            "Argument `x` must hold data. Received: a data set without a batch in it"
        )
    result = RangeTestResult.of_several(results)
    if run_dir is not None:
        write_range_test(result, run_dir)
    return result


def compare_range_tests(
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    weight_decay: Sequence[float] | None = None,
    momentum: Sequence[float] | None = None,
    groups: Sequence[str] | None = None,
    **arguments: Any,
) -> RangeTestComparison:
    """Run a range test for each of several values, from the same weights.

    Smith 2018, "A disciplined approach to neural network hyper-parameters"
    (arXiv:1803.09820), section 4, finds weight decay and momentum so: sweep the rate
    with each value, and take the one whose loss gets lowest and stays there longest.
    With `groups` the rate of one layer group after the other is swept.

    Args:
        model: A compiled model; with a `LayerwiseOptimizer` for `groups`.
        x: See `find_learning_rate`.
        y: See `find_learning_rate`.
        weight_decay: Values to compare; the optimizer must have been compiled with one.
        momentum: Values to compare, of `beta_1` where the optimizer has no momentum.
        groups: Names of layer groups.
        **arguments: Others of `find_learning_rate`.

    Returns:
        A `RangeTestComparison`: print it, or `.plot()` it.

    Raises:
        TypeError: If an argument is of another kind.
        ValueError: If not exactly one of `weight_decay`, `momentum` and `groups` is
            given, one is empty or has a value twice, or `find_learning_rate` refuses.

    Example:
        >>> import keras, numpy as np, tfschedules as tfs
        >>> x = np.random.default_rng(0).normal(size=(256, 8)).astype("float32")
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.AdamW(weight_decay=1e-3), "mse")
        >>> compared = tfs.compare_range_tests(
        ...     model, x, x.sum(1), weight_decay=[0.0, 1e-2, 1.0], verbose=0
        ... )
        >>> list(compared.results)
        [0.0, 0.01, 1.0]
    """
    given = {
        name: values
        for name, values in (
            ("weight_decay", weight_decay),
            ("momentum", momentum),
            ("group", groups),
        )
        if values is not None
    }
    if len(given) != 1:
        raise ValueError(
            "Give exactly one of the arguments `weight_decay`, `momentum` and `groups`."
            f" Received: {', '.join(given) or 'none of them'}"
        )
    ((over, values),) = given.items()
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(
            f"Argument `{'groups' if over == 'group' else over}` must be a list. "
            f"Received: {values!r}"
        )
    keys = list(values)
    if over != "group":
        keys = [checks.real(over, key) for key in keys]
    elif not all(isinstance(key, str) for key in keys):
        raise TypeError(
            f"Argument `groups` must be a list of names. Received: {keys!r}"
        )
    if not keys or len(set(keys)) < len(keys):
        raise ValueError(
            f"The list to compare must hold each value once. Received: {keys!r}"
        )
    if over == "group" and "group" in arguments:
        raise ValueError(
            "Give `groups` or `group`, not both. Received: "
            f"groups={keys!r}, group={arguments['group']!r}"
        )
    if isinstance(x, types.GeneratorType) and len(keys) > 1:
        raise ValueError(
            "A generator cannot be rewound, and every sweep has to see the same data. "
            "Give the function that makes it: compare_range_tests(model, batches, …), "
            "not batches()."
        )
    held = held_values(arguments.pop("hyperparameters", None))
    results = {}
    for key in keys:
        this: dict[str, Any] = {"group": key, "hyperparameters": held}
        if over != "group":
            this = {"hyperparameters": {**held, over: key}}
        results[key] = find_learning_rate(model, x, y, **this, **arguments)
    return RangeTestComparison(over, results)


def _build(model: keras.Model, data: dict[str, Any], batch_size: int | None) -> None:
    """Let a model see a batch, which makes its weights."""
    try:
        model.evaluate(**data, batch_size=batch_size, steps=1, verbose=0)
    except Exception:
        # One with a train step of its own may have no loss to evaluate, and was built.
        if not has_weights(model):
            raise


def _is_in_fit(model: keras.Model) -> bool:
    """Whether a callback of a fit of the model's has called: Keras keeps no note."""
    frame = sys._getframe()
    while (frame := frame.f_back) is not None:  # type: ignore[assignment]
        if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model:
            return True
    return False


def _remove_empty(run_dir: str) -> None:
    """Take back the folder of a run that has not come to be."""
    with contextlib.suppress(OSError):
        Path(run_dir).rmdir()


class _Progress(keras.callbacks.Callback):
    """Keras's own progress bar, over the steps of the sweep, within 80 columns."""

    def __init__(self, test: RangeTest, number: int, count: int) -> None:
        super().__init__()
        self._test = test
        self._loss = f"loss {number + 1}/{count}" if count > 1 else "loss"

    def on_train_begin(self, logs: Any = None) -> None:
        self._ended = False
        self._bar = keras.utils.Progbar(
            self._test.steps, width=15, stateful_metrics=[self._loss, "lr"]
        )

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._show(ended=bool(self.model.stop_training))

    def on_train_end(self, logs: Any = None) -> None:
        self._show(ended=True)  # where data have ended, and nothing before has told

    def _show(self, ended: bool) -> None:
        losses = self._test._losses
        if not losses or self._ended:
            return
        rate = self._test.schedule.values(self._test._steps[-1:])[0]
        self._ended = ended or len(losses) >= self._test.steps
        shown = [(self._loss, losses[-1]), ("lr", rate)]
        self._bar.update(len(losses), shown, finalize=ended)
