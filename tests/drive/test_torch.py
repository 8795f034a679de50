"""The torch backend in small: what works there, and what says that it does not.

Runs in an environment with torch, with KERAS_BACKEND=torch.
"""

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    Rates,
    arrays,
    digits,
    in_batches,
    line,
    one_cycle_values,
    patches,
    relative_error,
    sgd_loop,
    softmax_regression,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tfschedules as tfs

pytestmark = pytest.mark.skipif(BACKEND != "torch", reason=f"KERAS_BACKEND={BACKEND}")

X, Y = digits(320)
BATCHES = in_batches(X, Y, 32) * 2
STEPS = len(BATCHES)
FIT = {"batch_size": 32, "epochs": 2, "shuffle": False, "verbose": 0}
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def plain_network(optimizer):
    generator = np.random.default_rng(0)
    model = keras.Sequential(
        [keras.Input((64,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(10)]
    )
    model.set_weights([generator.normal(0, 0.2, w.shape) for w in model.get_weights()])
    model.compile(optimizer, LOSS)
    return model


def network(optimizer, **arguments):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(16, "relu", name="below"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(10, name="above"),
        ]
    )
    model.compile(optimizer, LOSS, metrics=["accuracy"], **arguments)
    return model


@pytest.mark.parametrize(
    "schedule",
    [
        tfs.Linear(0.1, 0.0, 7),
        tfs.one_cycle(0.1, 20)["momentum"],
        tfs.warm_restarts(0.1, 3, cycle_mult=2),
        tfs.warmup(tfs.cyclical(0.01, 0.1, 4), 5) * tfs.Exponential(1.0, 0.1, 30),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
def test_schedules_on_torch(schedule):
    found = [float(schedule(step)) for step in range(40)]
    np.testing.assert_allclose(found, schedule.values(40), rtol=1e-5, atol=1e-8)


def test_one_cycle_on_torch(tmp_path):
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True)
    model, read = softmax_regression(optimizer), Rates()
    callbacks = [tfs.OneCycle(0.5), tfs.TensorBoardLogger(tmp_path), read]
    model.fit(X, Y, callbacks=callbacks, **FIT)
    rates, momenta = one_cycle_values(0.5, STEPS)
    np.testing.assert_allclose(read.rates, rates, rtol=1e-5, atol=1e-9)
    by_hand = sgd_loop(BATCHES, rates, momenta, nesterov=True)
    assert relative_error(arrays(model), by_hand) < 1e-6
    assert optimizer.momentum == 0.9
    assert patches(model) == []
    events = EventAccumulator(str(tmp_path / "schedules"))
    events.Reload()
    losses = events.Scalars("schedule/loss")
    assert [event.step for event in losses] == list(range(STEPS))
    before = sgd_loop(BATCHES[:-1], rates, momenta, nesterov=True)
    x, y = BATCHES[-1]
    logits = x @ before[0] + before[1]
    own = logits[np.arange(len(y)), y]
    expected = np.mean(np.log(np.exp(logits).sum(axis=1)) - own)
    assert losses[-1].value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "Nadam", "Lion", "Adafactor"])
def test_every_update_has_its_values_on_torch(kind):
    """As a loop in Python that sets them before each step."""
    decays = kind in ("AdamW", "Lion")
    arguments = {"weight_decay": 0.1} if decays else {}
    rates = line(0.02, 0.0, STEPS, STEPS)
    decay, beta = line(0.5, 0.1, STEPS, STEPS), line(0.8, 0.95, STEPS, STEPS)

    looped = plain_network(getattr(keras.optimizers, kind)(0.1, **arguments))
    for step, (x, y) in enumerate(BATCHES):
        looped.optimizer.learning_rate = rates[step]
        if decays:
            looped.optimizer.weight_decay = decay[step]
        if kind != "Adafactor":
            looped.optimizer.beta_1 = beta[step]
        looped.train_on_batch(x, y)

    driven = plain_network(getattr(keras.optimizers, kind)(0.1, **arguments))
    schedules = {"learning_rate": tfs.Linear(0.02, 0.0, STEPS)}
    if decays:
        schedules["weight_decay"] = tfs.Linear(0.5, 0.1, STEPS)
    if kind != "Adafactor":
        schedules["momentum"] = tfs.Linear(0.8, 0.95, STEPS)
    driven.fit(X, Y, callbacks=[tfs.HyperparameterScheduler(**schedules)], **FIT)
    assert relative_error(arrays(driven), arrays(looped)) < 1e-5


@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_range_test_on_torch(metric):
    def run(sweeps):
        model = network("adam")
        model.fit(X, Y, batch_size=32, verbose=0)
        before = arrays(model)
        if sweeps:
            result = tfs.find_learning_rate(model, X, Y, metric=metric, verbose=0)
            assert 1e-4 < result.suggestion < 10
            for one, other in zip(before, arrays(model), strict=True):
                np.testing.assert_array_equal(one, other)
        # In the order in which it would have seen the samples, too.
        history = model.fit(X, Y, batch_size=32, epochs=2, verbose=0).history
        return history, [w.tolist() for w in arrays(model)]

    assert run(False) == run(True)


def test_unfreezing_on_torch():
    model = network(keras.optimizers.SGD(0.1, momentum=0.9))
    groups = tfs.discriminative_groups(model, low=0.1, n_groups=2)
    first, after_epochs = arrays(model), []

    class Weights(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            after_epochs.append(arrays(model))

    model.fit(X, Y, callbacks=[tfs.GradualUnfreezing(groups), Weights()], **FIT)
    np.testing.assert_array_equal(after_epochs[0][0], first[0])
    assert (after_epochs[0][-1] != first[-1]).any()
    assert (after_epochs[1][0] != first[0]).any()


def test_what_torch_does_not_have_is_refused():
    model = network("adam")
    groups = tfs.discriminative_groups(model, low=0.1, n_groups=2)
    with pytest.raises(NotImplementedError, match="needs the TensorFlow or the JAX"):
        tfs.LayerwiseOptimizer(keras.optimizers.Adam(), groups)
    before = arrays(model)
    with pytest.raises(NotImplementedError, match="reads the training batches there"):
        tfs.find_learning_rate(model, X, Y, validation_data=(X, Y), verbose=0)
    for one, other in zip(before, arrays(model), strict=True):
        np.testing.assert_array_equal(one, other)
    assert patches(model) == []


def test_snapshots_are_refused_on_torch(tmp_path):
    with pytest.raises(NotImplementedError, match="takes the TensorFlow or the JAX"):
        network("sgd").fit(
            X, Y, verbose=0,
            callbacks=[tfs.WarmRestarts(0.1, 5), tfs.SnapshotEnsemble(tmp_path)],
        )  # fmt: skip
