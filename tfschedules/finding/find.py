"""`find_learning_rate` and `compare_range_tests`: range tests in one call."""

from __future__ import annotations

import os
import types
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from tfschedules._support import checks
from tfschedules._support.arguments import names_of
from tfschedules.drive import check_compiled
from tfschedules.finding.comparison import RangeTestComparison
from tfschedules.finding.result import RangeTestResult
from tfschedules.finding.sweeps import RESERVED, Sweeps, check_known, checked_executor

_NAMES = ("weight_decay", "momentum", "groups")


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
    optimizer: Any = None,
    executor: Any = None,
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
        log_dir: Where to write a TensorBoard run `range_test`. A folder that cannot be
            made is an error before the sweep; a log that cannot be written after it is
            a warning.
        snapshot_dir: Where to keep the model's state, on disk, if it does not fit into
            memory twice: see `RangeTest`.
        optimizer: Which of the model's optimizers is swept, by the name of its
            attribute, as "d_optimizer", or itself: see `RangeTest`. All of them, and
            the models in the model, are put back.
        executor: Where to make the sweeps, each on a copy of the model: any
            `concurrent.futures.Executor`, such as a pool of processes, or what has its
            `submit`, as Dask's client does. Its processes must be started anew, not
            forked (`multiprocessing.get_context("spawn")`); threads take turns. Model,
            data and callbacks must be such that `pickle` takes them, which a
            `tf.data.Dataset` is not; what callbacks note does not come back.
        verbose: 1 shows a progress bar, 0 nothing.
        **fit_arguments: More arguments of `fit`: `class_weight`, `shuffle`,
            `steps_per_epoch` … .

    Returns:
        A `RangeTestResult`: print it, or take `.suggestion`.

    Raises:
        TypeError: If an argument is not of its type.
        ValueError: If one is out of range, the model is not compiled, or the data are
            empty.
        OSError: If the copy cannot be written to `snapshot_dir`, and nothing has
            changed; or if it cannot be read at the end. Then all the rest is put back.
            The error says what is not, and has a method `restore()` to try again.

    Example:
        >>> import keras, numpy as np, tfschedules as tfs
        >>> x = np.random.default_rng(0).normal(size=(256, 8)).astype("float32")
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> result = tfs.find_learning_rate(model, x, x.sum(1), verbose=0)
        >>> 1e-3 < result.suggestion < 1
        True
    """
    check_compiled(model, optimizer)
    own = names_of(find_learning_rate)
    check_known("find_learning_rate", fit_arguments, model, own, RESERVED)
    executor = checked_executor(executor)
    sweeps = Sweeps(
        model,
        x,
        y,
        min_lr=min_lr,
        max_lr=max_lr,
        steps=steps,
        mode=mode,
        batch_size=batch_size,
        sample_weight=sample_weight,
        stop_factor=stop_factor,
        rule=rule,
        repeats=repeats,
        metric=metric,
        higher_is_better=higher_is_better,
        validation_data=validation_data,
        validation_size=validation_size,
        validation_every=validation_every,
        group=group,
        others=others,
        hyperparameters=hyperparameters,
        callbacks=callbacks,
        log_dir=log_dir,
        snapshot_dir=snapshot_dir,
        optimizer=optimizer,
        verbose=verbose,
        **fit_arguments,
    )
    if executor is None:
        sweeps.make()
    else:
        Sweeps.make_elsewhere([sweeps], executor)
    assert sweeps.result is not None
    return sweeps.result


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

    An exception in a sweep, and Ctrl-C, go on. The sweeps that were made before are not
    lost: the exception has the attribute `comparison`, a `RangeTestComparison` of them.

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
    check_compiled(model, arguments.get("optimizer"))
    own = [*_NAMES, *names_of(find_learning_rate)]
    check_known("compare_range_tests", arguments, model, own, RESERVED)
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
    name = "groups" if over == "group" else over
    keys = checks.listed(name, values)
    if over != "group":
        keys = [checks.real(over, key) for key in keys]
    else:
        keys = [checks.text("groups", key, "a list of names") for key in keys]
    if not keys or len(set(keys)) < len(keys):
        raise ValueError(
            f"Argument `{name}` must hold a value at least, and each once. "
            f"Received: {name}={checks.shown(keys)}"
        )
    if over == "group" and "group" in arguments:
        raise ValueError(
            "Give `groups` or `group`, not both. Received: "
            f"groups={checks.shown(keys)}, group={checks.shown(arguments['group'])}"
        )
    if isinstance(x, types.GeneratorType) and len(keys) > 1:
        raise ValueError(
            "A generator cannot be rewound, and every sweep has to see the same data. "
            "Give the function that makes it: compare_range_tests(model, batches, …), "
            "not batches()."
        )
    held = checks.held_values(arguments.pop("hyperparameters", None))
    executor = checked_executor(arguments.pop("executor", None))
    every: dict[Any, Sweeps] = {}

    def made() -> RangeTestComparison:
        results = {
            key: sweeps.result
            for key, sweeps in every.items()
            if sweeps.result is not None
        }
        return RangeTestComparison(over, results)

    try:
        for key in keys:
            this: dict[str, Any] = {"group": key, "hyperparameters": held}
            if over != "group":
                this = {"hyperparameters": {**held, over: key}}
            every[key] = Sweeps(model, x, y, **this, **arguments)
            if executor is None:
                every[key].make()
        if executor is not None:
            Sweeps.make_elsewhere([*every.values()], executor)
    except BaseException as error:  # Ctrl-C, too: what has been swept is not lost
        error.comparison = made()  # type: ignore[attr-defined]
        raise
    return made()
