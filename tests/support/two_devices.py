"""A process with two devices: what they do, beside what one of them does, as JSON.

`python two_devices.py PART`, by `test_devices.py`: the number of devices is settled
when a backend starts, so it takes a process of its own. On TensorFlow the two are
replicas of `tf.distribute.MirroredStrategy`, on JAX `keras.distribution` has them.
"""

import contextlib
import json
import os
import random
import sys
import tempfile
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"

import keras
import numpy as np
from helpers import (
    BACKEND,
    JIT,
    arrays,
    digits,
    in_batches,
    initial_weights,
    one_cycle_values,
    relative_error,
    sgd_loop,
    softmax_regression,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tfschedules as tfs

if BACKEND == "tensorflow":
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    half = tf.config.LogicalDeviceConfiguration()
    tf.config.set_logical_device_configuration(cpu, [half, half])

X, Y = digits(330)  # ten batches of 32, and one of ten
STEPS = 22
BATCHES = in_batches(X, Y, 32) * 2
FIT = {"batch_size": 32, "epochs": 2, "shuffle": False, "verbose": 0}
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def on_two():
    """Where a model is made and trained on two devices."""
    if BACKEND == "jax":
        devices = keras.distribution.list_devices()
        assert len(devices) == 2
        return keras.distribution.DataParallel(devices=devices).scope()
    # In execution blocks plain Keras fails with the reduction that is the default on
    # CPUs: "You must feed a value for placeholder tensor".
    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    assert strategy.num_replicas_in_sync == 2
    return strategy.scope()


def copies(variable):
    """The value on each device."""
    if BACKEND == "jax":
        return [np.array(shard.data) for shard in variable.value.addressable_shards]
    held = getattr(variable.value, "values", None) or [variable.value]
    return [np.array(copy.numpy()) for copy in held]


class RatesOnDevices(keras.callbacks.Callback):
    """Reads the rate and the count on every device after every execution."""

    def __init__(self):
        super().__init__()
        self.rates, self.counts = [], []

    def on_train_batch_end(self, batch, logs=None):
        optimizer = self.model.optimizer
        self.rates.append([float(v) for v in copies(optimizer._learning_rate)])
        self.counts.append([int(v) for v in copies(optimizer._iterations)])


def recorded(log_dir):
    """Steps and values of every tag of the one run."""
    (run,) = Path(log_dir).iterdir()
    accumulator = EventAccumulator(str(run), size_guidance={"scalars": 0})
    accumulator.Reload()
    events = {tag: accumulator.Scalars(tag) for tag in accumulator.Tags()["scalars"]}
    return {
        tag: ([event.step for event in those], [event.value for event in those])
        for tag, those in events.items()
    }


def distance(actual, expected):
    """The largest difference; infinite if there are not as many."""
    if np.shape(actual) != np.shape(expected):
        return float("inf")
    return float(np.abs(np.subtract(actual, expected, dtype=np.float64)).max())


class OwnStep(keras.Model):
    """A train step of the user's own, which keeps its loss elsewhere."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = keras.ops.mean(LOSS.call(y, self(x, training=True)))
            part = loss / tf.distribute.get_strategy().num_replicas_in_sync
        gradients = tape.gradient(part, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"loss": loss, "twice": 2 * loss}


def by_hand(rates, momenta):
    """Losses and accuracies before each update and weights at the end, in float64."""
    weights, velocity = initial_weights(), [np.zeros((64, 10)), np.zeros(10)]
    losses, accuracies = [], []
    for step, (x, y) in enumerate(BATCHES):
        kernel, bias = (np.asarray(value, np.float64) for value in weights)
        logits = x @ kernel + bias
        own = logits[np.arange(len(y)), y]
        losses.append(np.mean(np.log(np.exp(logits).sum(axis=1)) - own))
        accuracies.append(np.mean(logits.argmax(axis=1) == y))
        weights = sgd_loop(
            [(x, y)], rates[step : step + 1], momenta[step : step + 1],
            nesterov=True, weights=weights, velocity=velocity,
        )  # fmt: skip
    return losses, accuracies, weights


def one_cycle(block):
    """A fit with one cycle of rate and momentum, recorded."""
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True)
    model = softmax_regression(optimizer, steps_per_execution=block)
    log_dir, read = tempfile.mkdtemp(), RatesOnDevices()
    model.fit(X, Y, callbacks=[tfs.OneCycle(0.5), tfs.TensorBoardLogger(log_dir), read],
              **FIT)  # fmt: skip
    return arrays(model), recorded(log_dir), read


def cycle():
    rates, momenta = one_cycle_values(0.5, STEPS)
    losses, _, weights = by_hand(rates, momenta)
    alone, _, _ = one_cycle(1)
    results = []
    for block in (1, 4):
        with on_two():
            mine, events, read = one_cycle(block)
        made = np.array(read.counts)
        results.append(
            {
                "steps": [steps for steps, _ in events.values()],
                "losses": distance(events["schedule/loss"][1], losses),
                "rates recorded": distance(events["schedule/learning_rate"][1], rates),
                "momenta recorded": distance(events["schedule/momentum"][1], momenta),
                "counts": read.counts,
                "rates on devices": distance(read.rates, rates[made - 1]),
                "weights by hand": relative_error(mine, weights),
                "weights on one device": relative_error(mine, alone),
            }
        )
    return results


def sweep():
    """Range tests: what they read is the whole batch's, in every kind of step."""
    cases = [(1, "accuracy", keras.Model), (4, "loss", keras.Model)]
    if BACKEND == "tensorflow":
        cases.append((1, "twice", OwnStep))
    results = []
    for block, metric, model_class in cases:
        with on_two():
            model = softmax_regression(
                keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True), model_class,
                steps_per_execution=block, metrics=["accuracy"],
            )  # fmt: skip
            result = tfs.find_learning_rate(
                model, X, Y, min_lr=1e-3, max_lr=1.0, steps=STEPS, metric=metric,
                higher_is_better=metric == "accuracy", stop_factor=None,
                batch_size=32, shuffle=False, verbose=0,
            )  # fmt: skip
        losses, accuracies, _ = by_hand(result.learning_rates, np.full(STEPS, 0.9))
        expected = {"accuracy": accuracies, "twice": np.multiply(2, losses)}
        results.append(
            {
                "losses": distance(result.losses, losses),
                "values": distance(result.values, expected.get(metric, losses)),
                "weights": distance(
                    np.vstack(arrays(model)), np.vstack(initial_weights())
                ),
            }
        )
    return results


def layers():
    """A rate for each layer, driven decay, and layers that thaw, in blocks."""

    def trained():
        keras.utils.set_random_seed(1)
        model = keras.Sequential(
            [
                keras.Input((64,)),
                keras.layers.Dense(16, "relu", name="below"),
                keras.layers.Dense(10, name="above"),
            ]
        )
        groups = [
            tfs.LayerGroup("below", ["below"], 0.3, weight_decay_multiplier=2.0),
            tfs.LayerGroup("above", ["above"]),
        ]
        optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.01)
        model.compile(
            tfs.LayerwiseOptimizer(optimizer, groups), LOSS,
            steps_per_execution=4, jit_compile=JIT,
        )  # fmt: skip
        log_dir = tempfile.mkdtemp()
        callbacks = [
            tfs.HyperparameterScheduler(
                tfs.Linear(0.02, 0.0, STEPS), weight_decay=tfs.Linear(0.3, 0.0, STEPS)
            ),
            tfs.GradualUnfreezing(groups),
            tfs.TensorBoardLogger(log_dir),
        ]
        first = arrays(model)
        model.fit(X, Y, callbacks=callbacks, **FIT)
        return first, arrays(model), recorded(log_dir)

    first, alone, events_alone = trained()
    with on_two():
        first_of_two, mine, events = trained()
    return {
        "same beginning": distance(first[0], first_of_two[0]),
        "weights on one device": relative_error(mine, alone),
        "same tags": sorted(events) == sorted(events_alone),
        "steps": [steps for steps, _ in events.values()],
        "records": max(
            distance(events[tag][1], events_alone[tag][1]) for tag in events
        ),
        "rate of below": distance(
            events["schedule/learning_rate/below"][1],
            0.3 * np.linspace(0.02, 0, STEPS + 1)[:-1],
        ),
    }


def restore():
    """A range test between two epochs, and what a fit after it makes of it."""

    def everything(model):
        variables = [*model.variables, *model.optimizer.variables]
        variables += [v for metric in model.metrics for v in metric.variables]
        return {v.path: copies(v) for v in variables}

    def run(tested):
        keras.utils.set_random_seed(3)
        random.seed(0)
        model = keras.Sequential(
            [
                keras.Input((64,)),
                keras.layers.Dense(16, "relu"),
                keras.layers.BatchNormalization(),
                keras.layers.Dropout(0.3),
                keras.layers.Dense(10),
            ]
        )
        model.compile("adam", LOSS, metrics=["accuracy"], jit_compile=JIT,
                      steps_per_execution=4)  # fmt: skip
        model.fit(X, Y, batch_size=32, verbose=0)
        before = everything(model)
        if tested:
            test = tfs.find_learning_rate(
                model, X, Y, max_lr=1.0, steps=15, batch_size=32, verbose=0
            )
            assert len(test.losses) > 10
        after = everything(model)
        model.fit(X, Y, batch_size=32, verbose=0)
        return before, after, everything(model)

    def differences(first, second):
        assert first.keys() == second.keys()
        return [
            path
            for path in first
            if not all(map(np.array_equal, first[path], second[path]))
        ]

    with on_two():
        before, after, end = run(True)
    with on_two():
        _, _, untested = run(False)
    return {
        "copies": sorted({len(values) for values in before.values()}),
        "drift": [p for p, values in before.items() if (values[0] != values[1]).any()],
        "not put back": differences(before, after),
        "changed by a fit": differences(after, end),
        "other than without": differences(
            dict(enumerate(end.values())), dict(enumerate(untested.values()))
        ),
    }


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        results = {name: globals()[name]() for name in sys.argv[1:]}
    sys.stdout.write(json.dumps(results))
