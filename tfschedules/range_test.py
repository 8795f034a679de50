"""The learning-rate range test: sweep the rate, stop at divergence, put all back.

Smith, Cyclical Learning Rates for Training Neural Networks, 2015 (arXiv:1506.01186),
section 3.3. The sweep is a schedule that drives the optimizer, so each loss belongs to
its rate exactly; losses are the batches' own and not Keras's running mean.
"""

from __future__ import annotations

import os
import time
import types
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfschedules import checks
from tfschedules.callbacks import updates_in
from tfschedules.drive import (
    Drive,
    Generators,
    Loan,
    Snapshot,
    StepReader,
    innermost,
    updates,
)
from tfschedules.records import RangeTestResult
from tfschedules.reports import new_range_test_run, write_range_test
from tfschedules.schedules import Exponential, Linear, Schedule
from tfschedules.suggestions import RULES

_SWEEPS = {"exponential": Exponential, "linear": Linear}


class RangeTest(keras.callbacks.Callback):
    """Sweeps the learning rate over one fit, and puts the model back afterwards.

    The rate goes from `min_lr` at step 0 to `max_lr` at step `steps` - 1. The fit ends
    when the sweep does, or when the loss diverges or is not finite; then weights,
    optimizer, metrics and random generators are what they were, and `.result` holds the
    curve. If `fit` raises, call `restore()`; or use `find_learning_rate`, which does.

    Args:
        min_lr: The first rate, > 0.
        max_lr: The last rate, > `min_lr`.
        steps: The length of the sweep in optimizer updates, >= 2.
        mode: "exponential", or "linear" as in Smith's paper.
        stop_factor: The sweep stops where the loss (the median of three) is greater
            than this times the least so far; for losses that may be negative, that many
            falls above it. > 1, or `None` to sweep to the end.
        rule: The rule of `.result.suggestion`: "descent", "steepest", "valley" or
            "minimum".
        log_dir: Where to write a TensorBoard run `range_test`; not written if `None`.

    Attributes:
        result: A `RangeTestResult` after the fit, or `None`.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If one is out of range; when `fit` begins, if the data are empty or
            the optimizer's rate is a schedule already.

    Example:
        >>> import tfschedules as tfs
        >>> test = tfs.RangeTest(min_lr=1e-6, max_lr=1.0, steps=200)
        >>> # model.fit(x, y, epochs=5, callbacks=[test]); print(test.result)
    """

    def __init__(
        self,
        min_lr: float = 1e-7,
        max_lr: float = 10.0,
        steps: int = 100,
        mode: str = "exponential",
        stop_factor: float | None = 4.0,
        *,
        rule: str = "descent",
        log_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        """Check the arguments and make the sweep."""
        super().__init__()
        low = checks.real("min_lr", min_lr, above=0)
        high = checks.real("max_lr", max_lr, above=0)
        if low >= high:
            raise ValueError(
                "Argument `min_lr` must be < `max_lr`. Received: "
                f"min_lr={min_lr!r}, max_lr={max_lr!r}. Swap them?"
            )
        self.steps = checks.whole("steps", steps, at_least=2)
        self.mode = checks.choice("mode", mode, list(_SWEEPS))
        self.rule = checks.choice("rule", rule, list(RULES))
        if stop_factor is not None:
            stop_factor = checks.real(
                "stop_factor", stop_factor, above=1, hint="None sweeps to the end."
            )
        self.stop_factor = stop_factor
        self.schedule: Schedule = _SWEEPS[mode](low, high, self.steps - 1)
        self.result: RangeTestResult | None = None
        self._log_dir = None if log_dir is None else os.fspath(log_dir)
        self._run_dirs: dict[str, str] = {}
        self._snapshot: Snapshot | None = None
        self._loan: Loan | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Copy the state and take the rate over."""
        self.restore()
        length = updates_in(self, self.params["epochs"])
        if length == 0:
            raise ValueError(
                "A range test needs data to sweep over. Received: an empty data set "
                f"(epochs={self.params['epochs']}, steps={self.params['steps']})."
            )
        if not self.model.built:
            raise ValueError(
                "A range test puts weights back, and this model has none before its "
                "first step. Give it an Input layer or call model.build(shape); "
                "find_learning_rate does it for you."
            )
        self.result, self._stop_reason = None, "out of data"
        self._losses: list[float] = []
        self._times: list[float] = []
        self._run_dirs = {}
        if self._log_dir is not None:
            self.also_log_to(self._log_dir)
        self._loan = Loan(self.model, borrower=self)
        with self._loan.closed_on_error():
            sweep = {"learning_rate": self.schedule}
            (self._drive,) = Drive.attach(self.model, self._loan, sweep)
            snapshot = Snapshot(self.model)
            self._reader = StepReader(self.model, self._loan)
        self._snapshot = snapshot
        if length is not None and length < self.steps:
            per_epoch = max(1, updates_in(self, 1) or 1)
            warnings.warn(
                f"The range test is {self.steps} steps long and this fit only {length}:"
                f" it needs epochs={-(-self.steps // per_epoch)} of this data (now "
                f"{self.params['epochs']}), or steps={length}. The sweep will end at a "
                f"rate of {self.schedule.values([length - 1])[0]:.2g}.",
                stacklevel=2,
            )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Begin the sweep at the optimizer's count, and look for the end of data."""
        self._reader.skip()
        if not self._losses:
            self._drive.start = updates(self.model, innermost(self.model.optimizer))
            self._drive.show(self._drive.start)
        self._at_epoch_begin = len(self._losses)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Note the losses of the updates since, and stop where there is reason to."""
        done = self._reader.read()
        if np.isnan(done.losses).all() and logs:  # reported by a train step of its own
            done.losses[:] = logs.get("loss", np.nan)
        for loss in done.losses:
            if self._stop_reason != "out of data":
                break
            self._losses.append(float(loss))
            self._times.append(time.time())
            self._stop_reason = self._reason_to_stop()
        if self._stop_reason != "out of data":
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """End the fit if an epoch brought no step: a generator cannot be rewound."""
        if len(self._losses) == self._at_epoch_begin:
            self.model.stop_training = True

    def on_train_end(self, logs: Any = None) -> None:
        """Put the model back and read the curve."""
        self._finish()

    def also_log_to(self, log_dir: str) -> None:
        """Write the result to another folder, too: a logger stands beside the test."""
        if log_dir not in self._run_dirs:  # made now: an error must come before a sweep
            self._run_dirs[log_dir] = new_range_test_run(log_dir)

    def restore(self) -> None:
        """Put the model back after a fit that raised; at other times, do nothing.

        What was swept until then is in `.result`.
        """
        if self._snapshot is not None:
            self._stop_reason = "interrupted"
            self._finish()

    def _finish(self) -> None:
        if self._loan is not None:
            self._loan.close()
        if self._snapshot is not None:
            self._snapshot.restore()
        self._loan = self._snapshot = None
        self.result = RangeTestResult.from_sweep(
            self.schedule.values(len(self._losses)),
            self._losses,
            steps=self.steps,
            stop_reason=self._stop_reason,
            mode=self.mode,
            rule=self.rule,
        )
        for run_dir in self._run_dirs.values():
            write_range_test(self.result, run_dir, self._times)

    def _reason_to_stop(self) -> str:
        if not np.isfinite(self._losses[-1]):
            return "non-finite loss"
        if self.stop_factor is not None and _diverged(self._losses, self.stop_factor):
            return "diverged"
        if len(self._losses) == self.steps:
            return "finished"
        return "out of data"


def _diverged(losses: list[float], stop_factor: float) -> bool:
    """Whether the loss has left its least value behind for good.

    Medians of three, so that one odd batch does not stop a sweep. A multiple of the
    least loss means nothing where losses can be negative; there the fall from the first
    loss to the least is the measure.
    """
    if len(losses) < 4:
        return False
    recent = np.lib.stride_tricks.sliding_window_view(np.array(losses), 3)
    medians = np.median(recent, axis=1)
    least, first, now = medians.min(), medians[0], medians[-1]
    if min(losses) > 0:
        return bool(now > stop_factor * least)
    return bool(now - least > stop_factor * max(first - least, abs(least)))


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
    the model is restored and the exception goes on.

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
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"Argument `model` must be a keras.Model. Received: {type(model).__name__}"
        )
    if not model.compiled or model.optimizer is None:
        raise ValueError(
            "Argument `model` must be compiled with an optimizer and a loss. Received: "
            f"{model.name!r}, which is not. Call model.compile(...) first."
        )
    for reserved in ("epochs", "initial_epoch", "validation_data", "validation_split"):
        if reserved in fit_arguments:
            raise ValueError(
                f"Argument `{reserved}` has no place in a range test, whose length is "
                f"`steps`. Received: {reserved}={fit_arguments[reserved]!r}"
            )
    if hasattr(x, "shape") and len(x.shape) and x.shape[0] == 0:
        raise ValueError(
            f"Argument `x` must hold data. Received: an array of shape {x.shape}"
        )
    repeats = checks.whole("repeats", repeats)
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
    rewinds = not isinstance(x, types.GeneratorType)
    epochs = steps * accumulation if rewinds else 1
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
    finally:
        for test in tests:
            test.restore()
        model.history = history
        generators.restore()
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
