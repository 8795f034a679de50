"""What a range test reads: own train steps, metrics, validation data, one group."""

import keras
import numpy as np
import pytest
from helpers import BACKEND, in_batches
from swept_softmax import (
    LOSS,
    RATES,
    SWEEP,
    X,
    Y,
    assert_untouched,
    dense_model,
    oracle,
    softmax,
    state_of,
)

import tfschedules as tfs

if BACKEND == "jax":
    import jax

    def one_update(model, state, data):
        trained, others, optimizer = state
        x, y = data

        def loss_of(trained):
            outputs, _ = model.stateless_call(trained, others, x, training=True)
            return LOSS(y, outputs)

        loss, gradients = jax.value_and_grad(loss_of)(trained)
        trained, optimizer = model.optimizer.stateless_apply(
            optimizer, gradients, trained
        )
        return loss, (trained, others, optimizer)

    class OwnStep(keras.Model):
        """A train step that keeps its loss in a mean of its own, as guides show."""

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.own = keras.metrics.Mean(name="loss")

        def train_step(self, state, data):
            *state, metrics = state
            loss, state = one_update(self, state, data)
            place = {id(v): i for i, v in enumerate(self.metrics_variables)}
            own = [place[id(v)] for v in self.own.variables]
            new = self.own.stateless_update_state([metrics[i] for i in own], loss)
            metrics = list(metrics)
            for i, value in zip(own, new, strict=True):
                metrics[i] = value
            logs = {"loss": self.own.stateless_result(new)}
            return logs, (*state, metrics)

    class GuideStep(keras.Model):
        """A train step that gives its loss to whichever metric is called so."""

        def train_step(self, state, data):
            *state, metrics = state
            loss, state = one_update(self, state, data)
            new, logs = [], {}
            for metric in self.metrics:
                mine = metrics[len(new) : len(new) + len(metric.variables)]
                if metric.name == "loss":
                    mine = metric.stateless_update_state(mine, loss)
                logs[metric.name] = metric.stateless_result(mine)
                new += mine
            return logs, (*state, new)

else:
    import tensorflow as tf

    class OwnStep(keras.Model):
        """A train step that keeps its loss in a mean of its own, as guides show."""

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.own = keras.metrics.Mean(name="loss")

        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = LOSS(y, self(x, training=True))
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply(gradients, self.trainable_variables)
            self.own.update_state(loss)
            return {"loss": self.own.result()}

    class GuideStep(keras.Model):
        """A train step that gives its loss to whichever metric is called so."""

        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = LOSS(y, self(x, training=True))
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply(gradients, self.trainable_variables)
            for metric in self.metrics:
                if metric.name == "loss":
                    metric.update_state(loss)
            return {metric.name: metric.result() for metric in self.metrics}


class OwnMetrics(OwnStep):
    """The same, whose metrics are only its own."""

    @property
    def metrics(self):
        return [self.own]


@pytest.mark.parametrize("block", [1, 4])
@pytest.mark.parametrize("kind", [OwnStep, GuideStep])
def test_a_train_step_that_reports_a_running_mean_gives_true_losses(kind, block):
    model = dense_model(kind, steps_per_execution=block)
    expected, _ = oracle(model)
    result = tfs.find_learning_rate(model, X, Y, **SWEEP)
    np.testing.assert_allclose(result.losses, expected[:, 0], rtol=1e-5)
    # Afterwards its logs are running means again.
    history = model.fit(X, Y, shuffle=False, verbose=0).history
    steps, _ = oracle(dense_model(), np.full(20, 0.1))
    assert history["loss"][0] == pytest.approx(steps[:, 0].mean(), rel=1e-5)


@pytest.mark.parametrize("block", [1, 4])
def test_metrics_that_leave_out_the_loss_tracker(block):
    model = dense_model(OwnMetrics, steps_per_execution=block)
    before = state_of(model)
    if BACKEND == "jax":
        with pytest.raises(
            ValueError, match=r"`metrics` of OwnMetrics leave out.*super"
        ):
            tfs.find_learning_rate(model, X, Y, **SWEEP)
        assert_untouched(model, before)
        return
    expected, _ = oracle(model)
    result = tfs.find_learning_rate(model, X, Y, **SWEEP)
    np.testing.assert_allclose(result.losses, expected[:, 0], rtol=1e-5)


@pytest.mark.tensorflow
def test_a_train_step_without_a_loss_says_what_there_is():
    class NoLoss(keras.Model):
        def train_step(self, data):
            return {"critic": super().train_step(data)["loss"]}

    # What the stock step keeps is seen, whatever a step calls it.
    model = dense_model(NoLoss)
    assert len(tfs.find_learning_rate(model, X, Y, **SWEEP).losses) == 30

    class Strange(OwnStep):
        def train_step(self, data):
            return {"critic": super().train_step(data)["loss"]}

    model = dense_model(Strange)
    before = state_of(model)
    with pytest.raises(ValueError, match=r"must report 'loss'.*logs with critic"):
        tfs.find_learning_rate(model, X, Y, **SWEEP)
    assert_untouched(model, before)
    expected, _ = oracle(model)
    result = tfs.find_learning_rate(
        model, X, Y, metric="critic", higher_is_better=False, **SWEEP
    )
    np.testing.assert_allclose(result.losses, expected[:, 0], rtol=1e-5)
    np.testing.assert_allclose(result.values, expected[:, 0], rtol=1e-5)


@pytest.mark.parametrize("kind", ["losses", "gradients"])
def test_a_loss_scale_that_skips_for_ever_ends_the_sweep(kind):
    # With lost weights no update comes any more, and the rate would stand still.
    def loss(y, outputs):
        if kind == "gradients":
            return keras.ops.sqrt(keras.ops.abs(outputs - outputs)) + 1
        other = keras.ops.any(keras.ops.not_equal(y, 3))
        return LOSS(y, outputs) / keras.ops.cast(other, "float32")

    model = dense_model()
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))
    model.compile(optimizer, loss)
    batches = []
    counted = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: batches.append(batch)
    )
    y = np.where(np.arange(640) < 320, Y, 3) if kind == "losses" else Y
    result = tfs.find_learning_rate(model, X, y, callbacks=[counted], **SWEEP)
    assert result.stop_reason == "non-finite loss"
    assert not np.isfinite(result.losses[-1])
    assert len(result.losses) == (11 if kind == "losses" else 1)
    assert len(batches) < 50


@pytest.mark.tensorflow
def test_an_unbuilt_model_whose_train_step_has_the_loss():
    # Not of OwnStep: Keras makes a class functional for good where it once was.
    class Subclassed(keras.Model):
        train_step = OwnStep.train_step

        def __init__(self):
            super().__init__()
            self.own = keras.metrics.Mean(name="loss")
            self.head = keras.layers.Dense(10)

        def call(self, x):
            return self.head(x)

    model = Subclassed()
    model.compile("sgd")  # no loss: nothing to evaluate
    result = tfs.find_learning_rate(model, X, Y, **SWEEP)
    assert len(result.losses) == 30


def still_losses(model, x, y, **arguments):
    """A sweep of rates too low to change a weight."""
    return tfs.find_learning_rate(
        model, x, y, min_lr=1e-12, max_lr=1e-11, steps=20, shuffle=False, verbose=0,
        **arguments,
    ).losses  # fmt: skip


@pytest.mark.parametrize("block", [1, 4])
def test_class_weights_count(block):
    model = dense_model(steps_per_execution=block)
    kernel, bias = model.get_weights()
    weights = {digit: 0.5 + digit for digit in range(10)}
    expected = [
        np.mean(
            -np.log(softmax(x.astype("float64") @ kernel + bias)[np.arange(len(y)), y])
            * (0.5 + y)
        )
        for x, y in in_batches(X, Y, 32)
    ]
    losses = still_losses(model, X, Y, class_weight=weights)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


@pytest.mark.parametrize("block", [1, 4])
def test_the_losses_of_several_outputs_are_added(block):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((64,))
    digit = keras.layers.Dense(10, name="digit")(inputs)
    ink = keras.layers.Dense(1, name="ink")(inputs)
    model = keras.Model(inputs, {"digit": digit, "ink": ink})
    model.compile(
        keras.optimizers.SGD(0.1), {"digit": LOSS, "ink": "mse"},
        loss_weights={"digit": 1.0, "ink": 3.0}, steps_per_execution=block,
    )  # fmt: skip
    targets = {"digit": Y, "ink": X.sum(axis=1)}
    weights = {
        v.path: keras.ops.convert_to_numpy(v.value) for v in model.trainable_variables
    }
    expected = []
    for x, y in in_batches(X, Y, 32):
        x = x.astype("float64")
        p = softmax(x @ weights["digit/kernel"] + weights["digit/bias"])
        cross = -np.log(p[np.arange(len(y)), y]).mean()
        far = (x @ weights["ink/kernel"] + weights["ink/bias"])[:, 0] - x.sum(axis=1)
        expected.append(cross + 3 * np.mean(far**2))
    losses = still_losses(model, X, targets)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


@pytest.mark.parametrize("block", [1, 7])
def test_accuracy_is_each_batchs_own(block):
    model = dense_model(metrics=["accuracy"], steps_per_execution=block)
    expected, _ = oracle(model)
    before = state_of(model)
    result = tfs.find_learning_rate(model, X, Y, metric="accuracy", **SWEEP)
    assert (result.metric, result.higher_is_better) == ("accuracy", True)
    np.testing.assert_allclose(result.values, expected[:, 1], rtol=1e-6)
    np.testing.assert_allclose(result.losses, expected[:, 0], rtol=1e-5)
    assert RATES[0] < result.suggestion < RATES[-1]
    assert "accuracy" in result.reason
    assert_untouched(model, before)


@pytest.mark.parametrize("eagerly", [False, True])
def test_a_metric_where_a_step_is_traced_again(eagerly):
    # The last batch of an epoch is smaller, and run eagerly each step is a new one.
    model = dense_model(metrics=["accuracy"], run_eagerly=eagerly)
    sweep = SWEEP | {"metric": "accuracy"}
    result = tfs.find_learning_rate(model, X[:630], Y[:630], **sweep)
    expected, _ = oracle(dense_model(), RATES[:19])
    np.testing.assert_allclose(result.losses[:19], expected[:, 0], rtol=1e-5)
    np.testing.assert_allclose(result.values[:19], expected[:, 1], rtol=1e-5)
    assert len(result.losses) == 30


def test_with_accumulation_a_metric_is_the_mean_of_its_micro_batches():
    model = dense_model()
    model.compile(
        keras.optimizers.SGD(0.1, gradient_accumulation_steps=4),
        LOSS,
        metrics=["accuracy"],
    )
    expected, _ = oracle(model, accumulate=4)
    result = tfs.find_learning_rate(model, X, Y, metric="accuracy", **SWEEP)
    np.testing.assert_allclose(result.values, expected[:, 1], rtol=1e-5)


def test_smiths_own_reading():
    model = dense_model(metrics=["accuracy"])
    result = tfs.find_learning_rate(
        model, X, Y, min_lr=1e-3, max_lr=1.0, steps=60, mode="linear",
        metric="accuracy", verbose=0,
    )  # fmt: skip
    base_lr, max_lr = result.bounds
    assert 1e-3 <= base_lr < max_lr <= 1.0
    assert result.plot().get_ylabel() == "accuracy"
