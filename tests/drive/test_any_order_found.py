"""What `any_order` has found, each as small as it can be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import pytest
from any_order_base import At
from any_order_model import LAYERS, Config, batches, kernels, left_over, rate_of
from helpers import BACKEND

import tfschedules as tfs

pytestmark = pytest.mark.skipif(BACKEND == "torch", reason="there are no groups")

FALLING = [0.4, 0.3, 0.2, 0.1]


def falling() -> tfs.HyperparameterScheduler:
    """Drives the rate along `FALLING` in a fit of 4 updates."""
    return tfs.HyperparameterScheduler(tfs.Linear(0.4, 0.0, 4))


def fit(
    model: keras.Model, numbers: Sequence[int], *callbacks: Any, epochs: int = 1
) -> None:
    """Train on these batches."""
    x, y = batches(numbers)
    model.fit(
        x,
        y,
        batch_size=1,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[*callbacks],
    )


def check(model: keras.Model, *rates: float) -> None:
    """Compare the rates that the weights have written down, batch by batch."""
    np.testing.assert_allclose(-kernels(model)[1, : len(rates)], rates, rtol=1e-5)


def of_sweep(low: float, high: float, steps: int) -> dict[str, Any]:
    return {"min_lr": low, "max_lr": high, "steps": steps, "stop_factor": None}


def swept(
    model: keras.Model, use: Callable[..., Any], low: float, high: float
) -> np.ndarray:
    """The rates that the three updates of a sweep had, by the weights."""
    seen: list[np.ndarray] = []
    before = kernels(model)
    reader = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: seen.append(kernels(model))
    )
    use(model, reader, **of_sweep(low, high, 3))
    np.testing.assert_array_equal(kernels(model), before)
    return (before - seen[-1])[1, 10:13]


def find(model: keras.Model, reader: Any, **sweep: Any) -> None:
    x, y = batches(range(10, 13))
    tfs.find_learning_rate(
        model,
        x,
        y,
        batch_size=1,
        shuffle=False,
        verbose=0,
        callbacks=[reader],
        **sweep,
    )


def range_test(model: keras.Model, reader: Any, **sweep: Any) -> None:
    fit(model, range(10, 13), reader, tfs.RangeTest(**sweep))


@pytest.mark.parametrize("use", [find, range_test])
def test_a_second_range_test_has_its_own_rates(use: Callable[..., Any]) -> None:
    model = Config().model(0.1)
    fit(model, [0])
    np.testing.assert_allclose(swept(model, use, 0.01, 1.0), [0.01, 0.1, 1], rtol=1e-5)
    np.testing.assert_allclose(swept(model, use, 0.1, 0.4), [0.1, 0.2, 0.4], rtol=1e-5)
    fit(model, [1])
    check(model, 0.1, 0.1)


def test_after_a_fit_curves_of_several_decays_differ() -> None:
    """w ← w·(1 − rate·decay) − rate, three times; a loss is the sum of two such w."""
    model = Config(decay=0.1).model(0.1)
    fit(model, [0])
    compared = tfs.compare_range_tests(
        model,
        *batches([1]),
        weight_decay=[0.0, 0.5],
        batch_size=1,
        verbose=0,
        **of_sweep(0.01, 1.0, 3),
    )
    for decay, result in compared.results.items():
        first = -0.01
        second = first * (1 - 0.1 * decay) - 0.1
        np.testing.assert_allclose(result.losses, [0, 2 * first, 2 * second], rtol=1e-5)


def test_after_a_fit_curves_of_several_groups_differ() -> None:
    """The one that is swept has rates of its own, the other one stands still."""
    config = Config(layerwise=True)
    model = config.model(0.1)
    fit(model, [0])
    for low in (0.01, 0.1):
        compared = tfs.compare_range_tests(
            model,
            *batches([1]),
            groups=list(LAYERS),
            batch_size=1,
            verbose=0,
            **of_sweep(low, 1.0, 3),
        )
        second = np.sqrt(low)
        for result in compared.results.values():
            losses = [0, -low, -low - second]
            np.testing.assert_allclose(result.losses, losses, rtol=1e-5)


def test_a_schedule_is_followed_while_somebody_keeps_the_train_function() -> None:
    model = Config().model(0.1)
    fit(model, [0])
    kept = model.train_function
    fit(model, [1, 2, 3, 4], falling())
    check(model, 0.1, *FALLING)
    fit(model, [5, 6])
    check(model, 0.1, *FALLING, 0.1, 0.1)
    del kept


def bad_after(numbers: Sequence[int]) -> Iterator[Any]:
    """These batches, and then one at which the step fails."""
    for number in numbers:
        yield batches([number])
    x, y = batches([0])
    yield x[:, :7], y


def failed(model: keras.Model, numbers: Sequence[int], *callbacks: Any) -> Exception:
    """A fit whose step fails; what keeps the error has the traceback, as IPython."""
    with pytest.raises(Exception, match=r"7|Graph execution") as caught:
        model.fit(bad_after(numbers), shuffle=False, verbose=0, callbacks=[*callbacks])
    return caught.value


def test_a_schedule_is_followed_after_a_step_that_failed() -> None:
    model = Config().model(0.1)
    kept = failed(model, [0, 1])
    fit(model, [2, 3, 4, 5], falling())
    check(model, 0.1, 0.1, *FALLING)
    del kept


@pytest.mark.filterwarnings("ignore:The schedule of .* reaches its end at step")
def test_after_a_scheduled_step_that_failed_all_is_as_asked_for() -> None:
    model = Config().model(0.1)
    kept = [failed(model, [0, 1], falling())]
    model.optimizer.learning_rate = 0.05
    fit(model, [2, 3])
    check(model, 0.4, 0.3, 0.05, 0.05)
    kept.append(failed(model, [4, 5], falling()))
    fit(model, [6, 7, 8, 9], falling())
    check(model, 0.4, 0.3, 0.05, 0.05, 0.4, 0.3, *FALLING)
    assert left_over(model, Config(), unfrozen=False) == []


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_epoch_end"])
@pytest.mark.parametrize("by", ["train_on_batch", "fit"])
@pytest.mark.parametrize("first", [True, False])
def test_what_is_trained_inside_a_scheduled_fit_is_no_part_of_it(
    hook: str, by: str, first: bool
) -> None:
    """It has the rate as it is, and the fit goes on at its own place."""
    model = Config().model(0.1)

    def train() -> None:
        if by == "fit":
            fit(model, [2, 3])
        else:
            for number in (2, 3):
                model.train_on_batch(*batches([number]))

    callbacks = [falling(), At(hook, train)]
    fit(model, [0, 1], *(callbacks[::-1] if first else callbacks), epochs=2)
    now = 0.4 if hook == "on_train_batch_end" else 0.3
    check(model, 0.4 + 0.2, 0.3 + 0.1, now, now)
    assert int(model.optimizer.iterations) == 6
    assert left_over(model, Config(), unfrozen=False) == []


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_epoch_begin"])
@pytest.mark.parametrize("kind", ["schedule", "unfreezing", "range test", "find"])
def test_a_second_one_inside_a_scheduled_fit_is_refused(hook: str, kind: str) -> None:
    model = Config().model(0.1)
    refused = []

    def use() -> None:
        if kind == "find":
            find(model, keras.callbacks.Callback(), **of_sweep(0.01, 1.0, 3))
        constant = tfs.HyperparameterScheduler(tfs.Constant(0.7))
        callback = {
            "unfreezing": tfs.GradualUnfreezing(Config().groups()),
            "range test": tfs.RangeTest(**of_sweep(0.01, 1.0, 2)),
        }.get(kind, constant)
        fit(model, [8, 9], callback)

    def drive() -> None:
        with pytest.raises((ValueError, RuntimeError), match=r"."):
            use()
        refused.append(kind)

    fit(model, [0, 1, 2, 3], falling(), At(hook, drive))
    assert refused == [kind]
    check(model, *FALLING, 0, 0, 0, 0, 0, 0)
    assert left_over(model, Config(), unfrozen=False) == []


def loop(model: keras.Model, callbacks: keras.callbacks.CallbackList) -> None:
    """A loop as Keras's guide has it, without its end."""
    callbacks.on_train_begin()
    for epoch in range(2):
        callbacks.on_epoch_begin(epoch)
        for batch in range(2):
            callbacks.on_train_batch_begin(batch)
            model.train_on_batch(*batches([2 * epoch + batch]))
            callbacks.on_train_batch_end(batch, {})
        callbacks.on_epoch_end(epoch, {})


@pytest.mark.parametrize("traced", [False, True])
def test_a_loop_of_the_users_own_is_driven_as_a_fit(traced: bool) -> None:
    model = Config().model(0.1)
    if traced:
        model.train_on_batch(*batches([7]))
    callbacks = keras.callbacks.CallbackList(
        [falling()], model=model, epochs=2, steps=2
    )
    loop(model, callbacks)
    callbacks.on_train_end({})
    check(model, *FALLING)
    assert left_over(model, Config(), unfrozen=False) == []
    model.train_on_batch(*batches([5]))
    check(model, *FALLING, 0, rate_of(model))


@pytest.mark.parametrize("keep", [False, True])
def test_a_fit_after_a_loop_that_did_not_end_is_plain(keep: bool) -> None:
    model = Config().model(0.1)
    callbacks = keras.callbacks.CallbackList(
        [falling()], model=model, epochs=2, steps=2
    )
    loop(model, callbacks)
    if not keep:
        del callbacks
    fit(model, [4, 5])
    check(model, *FALLING, 0.1, 0.1)
    assert left_over(model, Config(), unfrozen=False) == []


@pytest.mark.parametrize("kind", ["schedule", "unfreezing", "range test"])
def test_a_plain_fit_goes_on_after_one_of_ours_inside_it(kind: str) -> None:
    """Whether that one is refused or made, the fit around it must not die of it."""
    model = Config().model(0.1)
    refused = []

    def drive() -> None:
        callback = {
            "schedule": tfs.HyperparameterScheduler(tfs.Constant(0.1)),
            "unfreezing": tfs.GradualUnfreezing(Config().groups()),
            "range test": tfs.RangeTest(**of_sweep(0.01, 1.0, 2)),
        }[kind]
        try:
            fit(model, [2, 3], callback)
        except (ValueError, RuntimeError) as error:
            refused.append(error)

    fit(model, [0, 1], At("on_train_batch_end", drive), epochs=2)
    inside = 0.0 if refused or kind == "range test" else 0.1
    check(model, 0.2, 0.2, inside, inside)
    assert left_over(model, Config(), unfrozen=kind == "unfreezing") == []
