"""Rates for layers under the callbacks of Keras and of this package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers import (
    Interrupt,
    Rates,
    arrays,
    digits,
    in_batches,
    one_cycle_values,
    relative_error,
)
from layerwise import (
    adam_by_layer,
    by_layer,
    compiled,
    goes_on_alike,
    layerwise,
    momentum_update,
    network,
    number,
    optimizers,
    regression,
    same,
    softmax_loop,
    state,
    train,
)

import tfschedules as tfs

# 4. Callbacks of Keras.


def test_learning_rate_scheduler_and_plateau_set_the_base_rate() -> None:
    x, y = digits(60)
    model = regression(optimizers.SGD(0.4, momentum=0.9), [0.25, 2.0])
    rates = Rates()
    history = model.fit(
        x,
        y,
        batch_size=20,
        epochs=5,
        shuffle=False,
        verbose=0,
        callbacks=[
            keras.callbacks.LearningRateScheduler(
                lambda epoch, rate: rate / 2 if epoch == 2 else rate
            ),
            # Never good enough: a tenth after epochs 1, 2, 3 …
            keras.callbacks.ReduceLROnPlateau(
                monitor="loss", patience=1, min_delta=1e9, factor=0.1
            ),
            rates,
        ],
    ).history
    by_epoch = [0.4, 0.4, 0.02, 0.002, 0.0002]
    assert np.allclose(rates.rates, np.repeat(by_epoch, 3), rtol=1e-5)
    assert np.allclose(history["learning_rate"], by_epoch, rtol=1e-5)
    update = momentum_update([0.25, 2.0], np.repeat(by_epoch, 3))
    expected = softmax_loop(in_batches(x, y, 20) * 5, update)
    assert relative_error(arrays(model), expected) < 2e-6


@pytest.mark.usefixtures("mixed")
def test_learning_rate_scheduler_under_mixed_precision() -> None:
    model = layerwise(optimizers.SGD(0.4), [0.0, 0.5, 1.0])
    callback = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    train(model, 2, callbacks=[callback])
    assert float(model.optimizer.learning_rate) == pytest.approx(0.1)


@pytest.mark.tensorflow
def test_tensorboard_of_keras_writes_the_base_rate(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    model = layerwise(optimizers.SGD(0.25), [0.0, 0.5, 1.0])
    train(model, 2, callbacks=[keras.callbacks.TensorBoard(tmp_path)])
    events = EventAccumulator(str(tmp_path / "train")).Reload()
    written = [
        float(tensor_util.make_ndarray(event.tensor_proto))
        for event in events.Tensors("epoch_learning_rate")
    ]
    assert written == [0.25, 0.25]


@pytest.mark.parametrize("around", [False, True], ids=["bare", "loss scale"])
def test_swap_ema_weights(around: bool) -> None:
    def optimizer() -> Any:
        return optimizers.AdamW(0.02, use_ema=True, ema_momentum=0.8)

    histories = []
    for wrap in (False, True):
        model = network()
        made = optimizer()
        if wrap:
            made = tfs.LayerwiseOptimizer(made, by_layer(model))
        if around:
            made = optimizers.LossScaleOptimizer(made)
        compiled(model, made)
        x, y = digits(48)
        swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
        train(model, 2, callbacks=[swap], validation_data=(x, y))
        histories.append((model.history.history, arrays(model)))
    assert histories[0][0] == histories[1][0]
    same(histories[0][1], histories[1][1])


@pytest.mark.parametrize("whole", [True, False])
def test_model_checkpoint(whole: bool, tmp_path: Path) -> None:
    model = adam_by_layer()
    path = tmp_path / ("{epoch}.keras" if whole else "{epoch}.weights.h5")
    callback = keras.callbacks.ModelCheckpoint(path, save_weights_only=not whole)
    train(model, 2, callbacks=[callback])
    if whole:
        other = keras.models.load_model(tmp_path / "1.keras")
    else:
        other = adam_by_layer()
        other.optimizer.build(other.trainable_variables)
        other.load_weights(tmp_path / "1.weights.h5")
    train(other)
    same(arrays(other), arrays(model))
    same(state(other.optimizer), state(model.optimizer))


def test_backup_and_restore(tmp_path: Path) -> None:
    straight = adam_by_layer()
    train(straight, 3)
    broken = adam_by_layer()
    backup = [keras.callbacks.BackupAndRestore(tmp_path / "backup")]
    with pytest.raises(KeyboardInterrupt, match="by the test"):
        train(broken, 3, callbacks=[*backup, Interrupt(8)])
    again = adam_by_layer()
    backup = [keras.callbacks.BackupAndRestore(tmp_path / "backup")]
    history = train(again, 3, callbacks=backup)
    assert history.epoch == [1, 2]
    same(arrays(again), arrays(straight))
    same(state(again.optimizer), state(straight.optimizer))


# 5. Callbacks of this package.


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_rate_momentum_and_decay_follow_schedules(steps_per_execution: int) -> None:
    x, y = digits(200)
    steps = np.arange(20)
    model = regression(
        optimizers.SGD(0.1, momentum=0.5, weight_decay=0.3),
        [0.25, tfs.Linear(0.0, 2.0, 10)],
        steps_per_execution=steps_per_execution,
    )
    driven = tfs.HyperparameterScheduler(
        learning_rate=tfs.Linear(0.2, 0.01, 19),
        momentum=tfs.Linear(0.95, 0.7, 19),
        weight_decay=tfs.Linear(0.01, 0.2, 19),
    )
    model.fit(
        x, y, batch_size=20, epochs=2, shuffle=False, verbose=0, callbacks=[driven]
    )
    update = momentum_update(
        [0.25, np.interp(steps, [0, 10], [0, 2])],
        np.interp(steps, [0, 19], [0.2, 0.01]),
        np.interp(steps, [0, 19], [0.95, 0.7]),
        np.interp(steps, [0, 19], [0.01, 0.2]),
    )
    expected = softmax_loop(in_batches(x, y, 20) * 2, update)
    for got, each in zip(arrays(model), expected, strict=True):
        assert relative_error([got], [each]) < 2e-6
    inner = model.optimizer.inner_optimizer
    assert (inner.momentum, inner.weight_decay) == (0.5, 0.3)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01)


def test_one_cycle_over_groups() -> None:
    x, y = digits(200)
    model = regression(optimizers.SGD(0.1, momentum=0.9), [0.1, 3.0])
    model.fit(
        x,
        y,
        batch_size=10,
        shuffle=False,
        verbose=0,
        callbacks=[tfs.OneCycle(0.5)],
    )
    rates, momenta = one_cycle_values(0.5, 20)
    update = momentum_update([0.1, 3.0], rates, momenta)
    expected = softmax_loop(in_batches(x, y, 10), update)
    for got, each in zip(arrays(model), expected, strict=True):
        assert relative_error([got], [each]) < 2e-6


# Other pairs of the two: test_range_test_restoring.py.
@pytest.mark.parametrize(("how", "trained"), [("callback", True), ("function", False)])
def test_a_range_test_gives_everything_back(how: str, trained: bool) -> None:
    model, twin = adam_by_layer(), adam_by_layer()
    for each in (model, twin):
        each.optimizer.build(each.trainable_variables)
        if trained:
            train(each)
    before = [number(v) for v in model.variables], state(model.optimizer)
    config = json.dumps(model.optimizer.get_config())
    if how == "callback":
        test = tfs.RangeTest(steps=12)
        train(model, 2, callbacks=[test])
        result = test.result
    else:
        x, y = digits(96)
        result = tfs.find_learning_rate(model, x, y, batch_size=16, steps=12, verbose=0)
    assert 2 < len(result.losses) <= 12
    assert np.ptp(result.losses) > 0
    same([number(v) for v in model.variables], before[0])
    same(state(model.optimizer), before[1])
    assert json.dumps(model.optimizer.get_config()) == config
    goes_on_alike(model, twin)


def test_a_range_test_sweeps_the_base_rate() -> None:
    """Losses of a group at 0.1 are those of a rate ten times higher, alone."""
    results = []
    x, y = digits(160)
    for factor, scale in ((0.1, 10.0), (1.0, 1.0)):
        keras.utils.set_random_seed(0)  # the data is shuffled
        model = layerwise(optimizers.SGD(0.1), [factor] * 3)
        result = tfs.find_learning_rate(
            model,
            x,
            y,
            batch_size=16,
            steps=10,
            verbose=0,
            min_lr=1e-3 * scale,
            max_lr=0.1 * scale,
        )
        np.testing.assert_allclose(
            result.learning_rates, scale * np.geomspace(1e-3, 0.1, 10), rtol=1e-6
        )
        results.append(result.losses)
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5)


def test_snapshots_keep_groups_and_state(tmp_path: Path) -> None:
    model = adam_by_layer()
    ensemble = tfs.SnapshotEnsemble(tmp_path)
    callbacks = [tfs.WarmRestarts(0.05, tfs.epochs(1)), ensemble]
    train(model, 2, callbacks=callbacks)
    files = sorted(tmp_path.glob("*.keras"))
    assert len(files) == 2
    last = keras.models.load_model(files[-1])
    assert [row.group for row in last.optimizer.table().rows] == ["a", "b", "c"]
    assert int(number(last.optimizer.iterations)) == 12
    same(arrays(last), arrays(model))
