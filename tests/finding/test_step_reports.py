"""A range test reads any scalar that a train step of the user's own reports."""

import keras
import numpy as np
import pytest
from helpers import BACKEND
from linear_model import LOSS, X, Y, numpy_sweep

import tfschedules as tfs

RATES = np.geomspace(1e-3, 1.0, 30)
SWEPT = {"min_lr": 1e-3, "max_lr": 1.0, "steps": 30, "shuffle": False, "verbose": 0}


def model_of(change, **compile_arguments):
    """A model whose train step reports what `change` makes of the stock logs."""

    class Reporting(keras.Model):
        def train_step(self, *arguments):
            if BACKEND == "jax":
                logs, state = super().train_step(*arguments)
                return change(logs), state
            return change(super().train_step(*arguments))

    keras.utils.set_random_seed(3)
    inputs = keras.Input((64,))
    model = Reporting(inputs, keras.layers.Dense(10)(inputs))
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    model.compile(optimizer, LOSS, **compile_arguments)
    return model


def more(logs):
    loss = logs["loss"]
    return {
        **logs,
        "d_loss": 3 * loss,
        "norm": 2 * loss,
        "count": keras.ops.cast(loss * 0 + 7, "int32"),
        "number": 0.5,
        "each": keras.ops.ones((3,)) * loss,
        "flag": loss > 0,
    }


@pytest.mark.parametrize("block", [1, 4])
@pytest.mark.parametrize(
    ("metric", "times"), [("d_loss", 3), ("norm", 2), ("count", None), ("number", None)]
)
def test_any_scalar_is_read(metric, times, block):
    if BACKEND == "jax" and metric == "number":
        pytest.skip("JAX's step returns arrays")
    model = model_of(more, steps_per_execution=block)
    losses = numpy_sweep(model, RATES)
    constant = 7 if metric == "count" else 0.5
    wanted = np.full(30, constant) if times is None else times * losses
    known = {} if metric.endswith("loss") else {"higher_is_better": False}
    result = tfs.find_learning_rate(model, X, Y, metric=metric, **known, **SWEPT)
    assert result.metric == metric
    np.testing.assert_allclose(result.losses, losses, rtol=1e-4)
    np.testing.assert_allclose(result.values, wanted, rtol=1e-4)


@pytest.mark.parametrize("metric", ["each", "flag", "f1"])
def test_what_is_no_scalar_is_refused_with_those_that_are(metric):
    model = model_of(more)
    before = model.get_weights()
    words = (
        rf"must report '{metric}', a scalar.*logs with loss, d_loss, norm, count, "
        r"number, and what is no scalar: each, flag\. .*metric='loss'"
    )
    if BACKEND == "jax":  # which gives the logs in the order of their names
        words = rf"must report '{metric}', a scalar.*what is no scalar: each, flag"
    with pytest.raises(ValueError, match=words):
        tfs.find_learning_rate(
            model, X, Y, metric=metric, higher_is_better=False, **SWEPT
        )
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.tensorflow
@pytest.mark.parametrize("grows", [False, True])
def test_a_step_without_a_loss_is_stopped_by_what_is_read(grows):
    import tensorflow as tf

    class Agent(keras.Model):
        """Reports a reward alone, which grows, and falls apart at high rates."""

        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = LOSS(y, self(x, training=True))
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply(gradients, self.trainable_variables)
            return {"reward": 1 / loss**2 if grows else loss}

    keras.utils.set_random_seed(3)
    inputs = keras.Input((64,))
    model = Agent(inputs, keras.layers.Dense(10)(inputs))
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    rates = np.geomspace(1e-3, 1.0, 60)
    losses = numpy_sweep(model, rates)
    # It gets to more than four times what it is at first, and must not end there.
    assert losses[:3].max() ** 2 > 8 * np.median(losses[-10:]) ** 2
    result = tfs.find_learning_rate(
        model, X, Y, metric="reward", higher_is_better=grows, **SWEPT | {"steps": 60}
    )
    wanted = 1 / losses**2 if grows else losses
    assert result.stop_reason == "finished"
    np.testing.assert_allclose(result.values, wanted, rtol=1e-3)
