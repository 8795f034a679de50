"""What a range test reads: own train steps, metrics, validation data, one group."""

import functools

import keras
import numpy as np
import pytest
from helpers import BACKEND, digits, in_batches

import tfschedules as tfs

X, Y = digits(640)
X_VAL, Y_VAL = (part[640:1600] for part in digits())
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
RATES = np.geomspace(1e-3, 3.0, 30)
SWEEP = {
    "min_lr": 1e-3, "max_lr": 3.0, "steps": 30, "shuffle": False, "verbose": 0
}  # fmt: skip


def dense_model(model_class=keras.Model, metrics=(), **arguments):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((64,))
    model = model_class(inputs, keras.layers.Dense(10, name="head")(inputs))
    metrics = list(metrics) or None
    model.compile(keras.optimizers.SGD(0.1), LOSS, metrics=metrics, **arguments)
    return model


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def scores(weights, x, y):
    """Cross entropy and accuracy of a softmax regression, in float64."""
    p = softmax(x.astype("float64") @ weights[0] + weights[1])
    return -np.log(p[np.arange(len(y)), y]).mean(), (p.argmax(axis=1) == y).mean()


def oracle(model, rates=RATES, accumulate=1):
    """Of each update: loss and accuracy before it on its batches, weights after it."""
    weights = [value.astype("float64") for value in model.get_weights()]
    batches = in_batches(X, Y, 32)
    rows, after = [], []
    for i, rate in enumerate(rates):
        micro, gradient = [], [0.0, 0.0]
        for j in range(accumulate):
            x, y = batches[(i * accumulate + j) % len(batches)]
            micro.append(scores(weights, x, y))
            error = softmax(x.astype("float64") @ weights[0] + weights[1])
            error[np.arange(len(y)), y] -= 1
            gradient[0] = gradient[0] + x.T @ error / len(y) / accumulate
            gradient[1] = gradient[1] + error.mean(axis=0) / accumulate
        rows.append(np.mean(micro, axis=0))
        weights = [w - rate * g for w, g in zip(weights, gradient, strict=True)]
        after.append(weights)
    return np.array(rows), after


def state_of(model):
    variables = [*model.variables, *model.optimizer.variables]
    return [np.array(keras.ops.convert_to_numpy(v.value)) for v in variables]


def assert_untouched(model, before):
    for a, b in zip(before, state_of(model), strict=False):
        np.testing.assert_array_equal(a, b)


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


@pytest.mark.parametrize("block", [1, 4])
def test_validation_data_are_looked_at_after_every_kth_update(block):
    model = dense_model(metrics=["accuracy"], steps_per_execution=block)
    rows, after = oracle(model)
    before = state_of(model)
    for metric in ("loss", "accuracy"):
        result = tfs.find_learning_rate(
            model, X, Y, metric=metric, validation_data=(X_VAL, Y_VAL),
            validation_every=7, validation_size=1000, **SWEEP,
        )  # fmt: skip
        assert result.metric == f"val_{metric}"
        # The losses of the batches are what they are without validation.
        np.testing.assert_allclose(result.losses, rows[:, 0], rtol=1e-5)
        seen = np.flatnonzero(~np.isnan(result.values))
        np.testing.assert_array_equal(seen, [6, 13, 20, 27, 29])
        expected = [scores(after[i], X_VAL, Y_VAL)[metric == "accuracy"] for i in seen]
        np.testing.assert_allclose(result.values[seen], expected, rtol=1e-4)
    assert_untouched(model, before)


def test_validation_data_are_bounded_and_the_same_in_every_look():
    seen = []
    model = dense_model()
    evaluate = model.evaluate

    def spied(x, y, **arguments):
        seen.append((x, y))
        return evaluate(x, y, **arguments)

    object.__setattr__(model, "evaluate", spied)
    result = tfs.find_learning_rate(
        model, X, Y, validation_data=(X_VAL, Y_VAL), validation_size=50,
        **SWEEP | {"steps": 10},
    )  # fmt: skip
    assert len(seen) == 11  # one before the sweep, whose errors come early
    assert len(seen[0][0]) == 50
    assert all(x is seen[0][0] and y is seen[0][1] for x, y in seen)
    # They are samples, each with its own label.
    places = [np.flatnonzero((X_VAL == row).all(axis=1))[0] for row in seen[0][0]]
    np.testing.assert_array_equal(Y_VAL[places], seen[0][1])
    assert np.isfinite(result.values).all()


def test_validation_data_of_other_kinds():
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 30

        def __getitem__(self, i):
            return X_VAL[32 * i : 32 * i + 32], Y_VAL[32 * i : 32 * i + 32]

    def generator():
        yield from in_batches(X_VAL, Y_VAL, 32)

    first = (X_VAL[:100], Y_VAL[:100])
    looks = {"validation_size": 100, "validation_every": 7, **SWEEP}
    expected = tfs.find_learning_rate(
        dense_model(), X, Y, validation_data=first, **looks
    )
    for data in (Batches(), generator(), generator):
        result = tfs.find_learning_rate(
            dense_model(), X, Y, validation_data=data, **looks
        )
        np.testing.assert_allclose(result.values, expected.values, rtol=1e-6)


def test_validation_data_without_targets():
    class Denoiser(keras.Model):
        def compute_loss(
            self, x=None, y=None, y_pred=None, sample_weight=None, training=True
        ):
            return keras.ops.mean(keras.ops.square(x - y_pred))

    inputs = keras.Input((64,))
    model = Denoiser(inputs, keras.layers.Dense(64)(inputs))
    model.compile("sgd")
    result = tfs.find_learning_rate(
        model, X, validation_data=(x for x, _ in in_batches(X_VAL, Y_VAL, 32)),
        validation_every=7, **SWEEP,
    )  # fmt: skip
    assert np.isfinite(result.values[[6, 13, 20, 27, 29]]).all()


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore:.*input ran out of data")  # as it does with Keras
@pytest.mark.parametrize("form", ["function", "callback"])
def test_data_of_unknown_length_shift_no_rate(form):
    # TensorFlow counts an update at the end of such data that it has not made.
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(32)
    data = data.filter(lambda x, y: True)
    model = dense_model()
    if form == "function":
        result = tfs.find_learning_rate(model, data, **SWEEP)
        np.testing.assert_allclose(result.learning_rates, RATES)
    else:
        test = tfs.RangeTest(1e-3, 3.0, steps=30)
        model.fit(data, epochs=2, shuffle=False, verbose=0, callbacks=[test])
        result = test.result
    # What is beside a rate is the loss that the updates before, at theirs, have led to.
    expected, _ = oracle(dense_model(), result.learning_rates)
    np.testing.assert_allclose(result.losses, expected[:, 0], rtol=1e-5)
    assert result.learning_rates[-1] == pytest.approx(3.0)
    assert result.stop_reason == "finished"


def batches():
    yield from in_batches(X, Y, 32)


class Called:
    def __call__(self):
        return batches()


def test_what_makes_batches_is_called_again():
    expected = tfs.find_learning_rate(dense_model(), X, Y, **SWEEP)
    result = tfs.find_learning_rate(dense_model(), Called(), **SWEEP)
    np.testing.assert_allclose(result.losses, expected.losses, rtol=1e-6)
    with pytest.raises(TypeError, match=r"gives NoneType\. .*lack a `yield`"):
        tfs.find_learning_rate(dense_model(), lambda: None, **SWEEP)
    with pytest.raises(ValueError, match=r"must hold data.*no batch in it"):
        tfs.find_learning_rate(dense_model(), lambda: iter(()), **SWEEP)


def two_layers(block=1):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((64,))
    hidden = keras.layers.Dense(16, "tanh", name="body")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(10, name="head")(hidden))
    groups = [
        tfs.LayerGroup("body", ["body"], multiplier=0.1),
        tfs.LayerGroup("head", ["head"]),
    ]
    sgd = keras.optimizers.SGD(0.05)
    model.compile(tfs.LayerwiseOptimizer(sgd, groups), LOSS, steps_per_execution=block)
    return model


def group_oracle(model, rates_of_body, rates_of_head):
    """Losses of two layers by SGD in float64, each layer with its rates."""
    w1, b1, w2, b2 = (value.astype("float64") for value in model.get_weights())
    batches, losses = in_batches(X, Y, 32), []
    for i, (body, head) in enumerate(zip(rates_of_body, rates_of_head, strict=True)):
        x, y = batches[i % len(batches)]
        h = np.tanh(x.astype("float64") @ w1 + b1)
        p = softmax(h @ w2 + b2)
        losses.append(-np.log(p[np.arange(len(y)), y]).mean())
        p[np.arange(len(y)), y] -= 1
        p /= len(y)
        back = (p @ w2.T) * (1 - h**2)
        w2, b2 = w2 - head * h.T @ p, b2 - head * p.sum(axis=0)
        w1, b1 = w1 - body * x.T @ back, b1 - body * back.sum(axis=0)
    return losses


@pytest.mark.parametrize("block", [1, 4])
def test_one_groups_rate_is_swept_and_the_others_are_still(block):
    model = two_layers(block)
    model.optimizer.build(model.trainable_variables)
    before = state_of(model)
    parts = model.optimizer.table()
    zero = np.zeros(30)
    result = tfs.find_learning_rate(model, X, Y, group="head", **SWEEP)
    assert result.group == "head"
    np.testing.assert_allclose(result.learning_rates, RATES)
    np.testing.assert_allclose(
        result.losses, group_oracle(two_layers(), zero, RATES), rtol=1e-5
    )
    result = tfs.find_learning_rate(model, X, Y, group="body", **SWEEP)
    np.testing.assert_allclose(
        result.losses, group_oracle(two_layers(), RATES, zero), rtol=1e-5
    )
    result = tfs.find_learning_rate(
        model, X, Y, group="head", others="training", **SWEEP
    )
    np.testing.assert_allclose(
        result.losses,
        group_oracle(two_layers(), np.full(30, 0.005), RATES),
        rtol=1e-5,
    )
    assert "for the group 'head'" in str(result)
    assert_untouched(model, before)
    assert str(model.optimizer.table()) == str(parts)


def test_a_groups_sweep_begins_at_any_count():
    model = two_layers()
    model.fit(X, Y, verbose=0, shuffle=False)
    again = two_layers()
    again.set_weights(model.get_weights())
    expected = group_oracle(again, np.zeros(30), RATES)
    result = tfs.find_learning_rate(model, X, Y, group="head", **SWEEP)
    np.testing.assert_allclose(result.losses, expected, rtol=1e-5)


def test_values_are_held_for_the_sweep():
    def model():
        keras.utils.set_random_seed(3)
        model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
        model.compile(keras.optimizers.SGD(0.1, momentum=0.5), LOSS)
        return model

    other = model()
    before = state_of(other)
    held = tfs.find_learning_rate(
        other, X, Y, hyperparameters={"momentum": 0.9}, **SWEEP
    )
    assert other.optimizer.momentum == 0.5
    assert_untouched(other, before)
    compiled = model()
    compiled.optimizer.momentum = 0.9
    expected = tfs.find_learning_rate(compiled, X, Y, **SWEEP)
    np.testing.assert_allclose(held.losses, expected.losses, rtol=1e-5)


def test_sweeps_are_compared_over_weight_decay():
    model = dense_model()
    model.compile(keras.optimizers.AdamW(weight_decay=0.01), LOSS)
    before = state_of(model)
    values = [0.0, 0.01, 30.0]
    compared = tfs.compare_range_tests(model, X, Y, weight_decay=values, **SWEEP)
    assert list(compared.results) == values
    assert compared.over == "weight_decay"
    curves = [result.losses for result in compared.results.values()]
    # The same batches from the same weights: only the decay differs.
    assert curves[0][0] == curves[1][0] == curves[2][0]
    assert not np.allclose(curves[0][:20], curves[2][:20])
    expected = tfs.find_learning_rate(model, X, Y, **SWEEP)
    np.testing.assert_allclose(curves[1], expected.losses, rtol=1e-5)
    assert model.optimizer.weight_decay == 0.01
    assert_untouched(model, before)
    lines = str(compared).splitlines()
    assert len(lines) == 5
    assert lines[0].split()[:2] == ["weight_decay", "suggestion"]
    lowest = min(values, key=lambda v: compared.results[v].smoothed_losses.min())
    assert compared.best == lowest
    ax = compared.plot()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "weight_decay 0", "weight_decay 0.01", "weight_decay 30"
    ]  # fmt: skip
    assert "data:image/png" in compared._repr_html_()


def test_sweeps_are_compared_over_groups():
    model = two_layers()
    compared = tfs.compare_range_tests(model, X, Y, groups=["body", "head"], **SWEEP)
    assert compared.best is None
    for name in ("body", "head"):
        alone = tfs.find_learning_rate(model, X, Y, group=name, **SWEEP)
        np.testing.assert_array_equal(compared.results[name].losses, alone.losses)


def test_after_a_test_that_failed_in_its_first_step_others_succeed():
    model = dense_model(metrics=["accuracy"])
    with pytest.raises(ValueError, match="must report 'f1'"):
        tfs.find_learning_rate(model, X, Y, metric="f1", **SWEEP)
    for arguments in ({}, {"metric": "accuracy"}, {"validation_data": VAL}):
        result = tfs.find_learning_rate(model, X, Y, **arguments, **SWEEP)
        assert len(result.losses) == len(result.learning_rates) > 0


VAL = (X_VAL, Y_VAL)


@functools.cache
def trained_model():
    """One for all that is refused: each test sees that it leaves it as it was."""
    model = dense_model(metrics=["accuracy"])
    model.fit(X, Y, verbose=0)
    return model


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"metric": "f1"}, ValueError, "must report 'f1'.*logs with .*accuracy"),
        ({"metric": 3}, TypeError, "`metric` must be a name.*metric=3"),
        ({"metric": ""}, ValueError, "`metric` must be a name"),
        ({"group": "head"}, ValueError, r"SGD without groups.*Layerwise"),
        ({"group": 1}, TypeError, "`group` must be a name"),
        ({"others": "frozen"}, ValueError, "`others` must be one of 'still'"),
        ({"hyperparameters": 3}, TypeError, "`hyperparameters` must be a dict"),
        (
            {"hyperparameters": {"learning_rate": 1}},
            ValueError,
            "must not hold the learning rate",
        ),
        ({"hyperparameters": {"momentum": "a"}}, TypeError, "momentum.*must be a num"),
        ({"hyperparameters": {"rho": 0.9}}, ValueError, "no hyperparameter 'rho'"),
        ({"validation_data": 3}, TypeError, "`validation_data` must be .*int"),
        ({"validation_data": (X,)}, TypeError, "must be .*tuple of 1"),
        ({"validation_data": (X, Y[:3])}, ValueError, r"lengths \[3, 640\]"),
        ({"validation_data": zip(X, Y, strict=True)}, ValueError, "must be batched"),
        ({"higher_is_better": "no"}, TypeError, "must be True or False.*'no'"),
        ({"validation_data": (X[:0], Y[:0])}, ValueError, "must hold samples"),
        ({"validation_data": []}, TypeError, "list of 0"),
        ({"validation_data": iter(())}, ValueError, "must hold data"),
        ({"validation_data": VAL, "validation_size": 0}, ValueError, "validation_size"),
        ({"validation_data": VAL, "validation_every": 0}, ValueError, "validation_ev"),
        ({"validation_data": VAL, "metric": "f1"}, ValueError, "model evaluates"),
        ({"snapshot_dir": "/nowhere/at/all"}, OSError, "nowhere"),
    ],
)  # fmt: skip
def test_bad_input_leaves_nothing_behind(arguments, error, match):
    model = trained_model()
    before = state_of(model)
    with pytest.raises(error, match=match):
        tfs.find_learning_rate(model, X, Y, **arguments, **SWEEP)
    assert_untouched(model, before)
    assert "train_step" not in vars(model)
    assert "make_train_function" not in vars(model)


def test_an_unknown_group_lists_those_there_are():
    with pytest.raises(ValueError, match=r"group='tail'.*There are: 'body', 'head'"):
        tfs.find_learning_rate(two_layers(), X, Y, group="tail", **SWEEP)
    frozen = two_layers()
    frozen.optimizer.learning_rate = 0.0
    with pytest.raises(ValueError, match="optimizer's own must be > 0"):
        tfs.find_learning_rate(frozen, X, Y, group="head", **SWEEP)


def test_a_metric_of_unknown_direction_has_to_be_told():
    def spread(y_true, y_pred):
        return keras.ops.std(y_pred, axis=-1)

    with pytest.raises(ValueError, match=r"does not say whether.*higher_is_better"):
        tfs.find_learning_rate(
            dense_model(metrics=[spread]), X, Y, metric="spread", **SWEEP
        )
    result = tfs.find_learning_rate(
        dense_model(metrics=[spread]), X, Y, metric="spread", higher_is_better=True,
        **SWEEP,
    )  # fmt: skip
    assert result.higher_is_better


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({}, ValueError, "exactly one of.*none of them"),
        ({"momentum": [0.9], "weight_decay": [0.1]}, ValueError, "exactly one"),
        ({"weight_decay": []}, ValueError, r"each once.*\[\]"),
        ({"weight_decay": [1, 1]}, ValueError, "each once"),
        ({"weight_decay": [[1]]}, TypeError, "`weight_decay` must be a number"),
        ({"groups": [["head"]]}, TypeError, "`groups` must be a list of names"),
        ({"groups": ["a"], "group": "a"}, ValueError, "`groups` or `group`, not both"),
        ({"weight_decay": [1], "hyperparameters": 3}, TypeError, "must be a dict"),
        ({"weight_decay": 0.1}, TypeError, "`weight_decay` must be a list.*0.1"),
        ({"groups": "head"}, TypeError, "`groups` must be a list.*'head'"),
        ({"momentum": ["x"]}, TypeError, "`momentum` must be a number"),
        ({"momentum": [0.9]}, ValueError, "SGD was compiled with momentum=0"),
    ],
)
def test_bad_comparisons(arguments, error, match):
    with pytest.raises(error, match=match):
        tfs.compare_range_tests(dense_model(), X, Y, **arguments, **SWEEP)


def test_a_generator_is_not_compared_with_what_is_left_of_it():
    with pytest.raises(ValueError, match=r"cannot be rewound.*not batches\(\)"):
        tfs.compare_range_tests(
            dense_model(), batches(), weight_decay=[0.1, 0.2], **SWEEP
        )
