"""`tfs.Sweep`: a range test of a loop whose steps change variables."""

import gc
import itertools
import random

import keras
import numpy as np
import pytest
from event_files import runs
from helpers import BACKEND, in_batches
from linear_model import LOSS, X, Y, linear_model, numpy_sweep

import tfschedules as tfs
from tfschedules.drive import innermost

RATES = np.geomspace(1e-4, 1.0, 24)
SWEPT = {"min_lr": 1e-4, "max_lr": 1.0, "steps": 24}
BATCHES = in_batches(X, Y, 32)
KINDS = {
    "tensorflow": ["eager", "function", "compiled", "train_on_batch"],
    "jax": ["eager", "train_on_batch"],
    "torch": ["eager", "train_on_batch"],
}[BACKEND]


def gradients_of(model, x, y, scaled):
    """The loss and its gradients, as each backend takes them."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = LOSS(y, model(x, training=True))
            whole = scaled(loss)
        return loss, tape.gradient(whole, model.trainable_variables)
    if BACKEND == "jax":
        import jax

        weights = [v.value for v in model.trainable_variables]
        others = [v.value for v in model.non_trainable_variables]

        def loss_of(weights, others, x, y):
            outputs, after = model.stateless_call(weights, others, x, training=True)
            loss = LOSS(y, outputs)
            return scaled(loss), (loss, after)

        if not hasattr(model, "jitted"):
            model.jitted = jax.jit(jax.grad(loss_of, has_aux=True))
        gradients, (loss, after) = model.jitted(weights, others, x, y)
        for variable, value in zip(model.non_trainable_variables, after, strict=True):
            variable.assign(value)
        return loss, gradients
    model.zero_grad()
    loss = LOSS(keras.ops.convert_to_tensor(y), model(x, training=True))
    scaled(loss).backward()
    return loss, [v.value.grad for v in model.trainable_variables]


def step_of(model, kind="eager", optimizer=None):
    """A train step of a loop of one's own."""
    optimizer = optimizer or model.optimizer
    if kind == "train_on_batch":

        def on_batch(x, y):
            model.reset_metrics()
            return model.train_on_batch(x, y)

        return on_batch

    def step(x, y):
        loss, gradients = gradients_of(model, x, y, optimizer.scale_loss)
        if BACKEND == "torch":
            import torch

            with torch.no_grad():
                optimizer.apply(gradients, model.trainable_variables)
        else:
            optimizer.apply(gradients, model.trainable_variables)
        return loss

    if kind == "eager":
        return step
    import tensorflow as tf

    return tf.function(step)


def state_of(model, optimizer=None):
    groups = [model.variables, (optimizer or model.optimizer).variables]
    return [np.array(keras.ops.convert_to_numpy(v.value)) for g in groups for v in g]


def assert_equal(before, after):
    assert len(before) == len(after)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def swept(model, step, **arguments):
    """Run the loop as the documentation has it."""
    sweep = tfs.Sweep(model.optimizer, model.variables, **SWEPT | arguments)
    batches = itertools.cycle(BATCHES)
    for _ in sweep:
        sweep.record(step(*next(batches)))
    return sweep


@pytest.mark.parametrize("kind", KINDS)
def test_each_loss_is_at_its_own_rate_and_all_is_put_back(kind):
    model = linear_model()
    model.optimizer.build(model.trainable_variables)
    step = step_of(model, kind)
    if kind == "compiled":  # before the sweep, with another rate
        state = state_of(model)
        step(*BATCHES[0])
        variables = [*model.variables, *model.optimizer.variables]
        for variable, value in zip(variables, state, strict=True):
            variable.assign(value)
    expected, before = numpy_sweep(model, RATES), state_of(model)
    test = swept(model, step)
    assert test.result.stop_reason == "finished"
    np.testing.assert_allclose(test.result.learning_rates, RATES, rtol=1e-12)
    np.testing.assert_allclose(test.result.losses, expected, rtol=1e-4)
    assert isinstance(test.result, tfs.RangeTestResult)
    assert_equal(before, state_of(model))
    again = swept(model, step)  # from the same state
    np.testing.assert_array_equal(again.result.losses, test.result.losses)


def full_model(optimizer=None):
    keras.utils.set_random_seed(3)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((64,)), layers.Dense(8, "relu"), layers.BatchNormalization(),
            layers.Dropout(0.3), layers.Dense(10),
        ]
    )  # fmt: skip
    model.compile(optimizer or keras.optimizers.Adam(0.01), LOSS)
    return model


@pytest.mark.parametrize(
    "leave", ["end", "break", "error", "interrupt", "restore", "with", "collected"]
)
def test_all_is_put_back_however_the_loop_is_left(leave):
    model = full_model()
    step = step_of(model)
    for batch in BATCHES[:3]:
        step(*batch)
    before, drawn = state_of(model), random.getstate()
    sweep = tfs.Sweep(model.optimizer, model.variables, **SWEPT)
    batches = itertools.cycle(BATCHES)
    done = 24

    def go(leave_after=None, error=None):
        for number, rate in enumerate(sweep):
            assert rate == pytest.approx(RATES[number])
            random.random()
            sweep.record(step(*next(batches)))
            if number == leave_after:
                if error is None:
                    return
                raise error

    if leave == "end":
        go()
    elif leave == "break":
        done = 8
        go(7)
    elif leave in ("error", "interrupt"):
        done = 8
        error = KeyboardInterrupt if leave == "interrupt" else ValueError
        with pytest.raises(error, match="mine"):
            go(7, error("mine"))
    else:
        done = 1
        iterator = iter(sweep)
        next(iterator)
        sweep.record(step(*next(batches)))
        if leave == "restore":
            sweep.restore()
            assert next(iterator, "over") == "over"
        elif leave == "with":
            with pytest.raises(ValueError, match="mine"), sweep:
                raise ValueError("mine")
        else:
            del iterator
            gc.collect()
    assert_equal(before, state_of(model))
    assert drawn == random.getstate() or BACKEND == "jax"
    assert len(sweep.result.losses) == done
    ended = "finished" if leave == "end" else "interrupted"
    assert sweep.result.stop_reason == ended
    assert not {"apply", "_tfschedules_hold"} & vars(model.optimizer).keys()
    with pytest.raises(RuntimeError, match=r"outside of the loop"):
        sweep.record(1.0)


def test_an_optimizer_that_is_not_built_is_built_and_begins_anew():
    model = full_model()
    optimizer = keras.optimizers.Adam(0.01)
    before = [np.array(value) for value in model.get_weights()]
    sweep = tfs.Sweep(optimizer, model.variables, **SWEPT)
    step = step_of(model, "function" if "function" in KINDS else "eager", optimizer)
    for _ in sweep:
        sweep.record(step(*BATCHES[0]))
    assert len(sweep.result.losses) == 24
    assert_equal(before, [np.array(value) for value in model.get_weights()])
    fresh = keras.optimizers.Adam(0.01)
    fresh.build(model.trainable_variables)
    for one, other in zip(fresh.variables, optimizer.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    step(*BATCHES[0])
    assert int(optimizer.iterations) == 1


@pytest.mark.parametrize("together", [False, True])
def test_with_gradient_accumulation_a_rate_is_an_update(together):
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=4)
    model = linear_model(optimizer)
    optimizer.build(model.trainable_variables)
    step = step_of(model)
    rates = np.geomspace(1e-3, 1.0, 10)
    expected = numpy_sweep(model, rates, accumulate=4)
    sweep = tfs.Sweep(optimizer, model.variables, 1e-3, 1.0, 10)
    assert len(sweep) == 40
    batches = itertools.cycle(BATCHES)
    rounds = 0
    for _ in sweep:
        rounds += 1
        if together:  # the micro-batches of an update in one round
            losses = [step(*next(batches)) for _ in range(4)]
            sweep.record(np.mean([keras.ops.convert_to_numpy(loss) for loss in losses]))
        else:
            sweep.record(step(*next(batches)))
    assert rounds == (10 if together else 40)
    np.testing.assert_allclose(sweep.result.losses, expected, rtol=1e-4)


@pytest.mark.skipif(BACKEND == "jax", reason="Keras's loss scale has no eager form")
def test_updates_that_a_loss_scale_skips_are_made_again():
    inner = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer = keras.optimizers.LossScaleOptimizer(inner)
    model = linear_model(optimizer)
    optimizer.build(model.trainable_variables)
    expected = numpy_sweep(model, RATES)
    step = step_of(model)
    infinite = [
        keras.ops.full(v.shape, np.inf, dtype="float32")
        for v in model.trainable_variables
    ]
    sweep = tfs.Sweep(optimizer, model.variables, **SWEPT)
    rounds = 0
    for _ in sweep:
        rounds += 1
        if rounds in (3, 4, 9):
            optimizer.apply(infinite, model.trainable_variables)
            sweep.record(1.0)
        else:
            made = int(inner.iterations)
            sweep.record(step(*BATCHES[made % len(BATCHES)]))
    assert rounds == 27
    np.testing.assert_allclose(sweep.result.losses, expected, rtol=1e-4)
    assert float(optimizer.dynamic_scale) == 2.0**15


@pytest.mark.skipif(BACKEND == "torch", reason="it is refused on torch")
def test_the_rates_of_groups_go_along():
    model = full_model()
    groups = [
        tfs.LayerGroup("body", [model.layers[0]], 0.0),
        tfs.LayerGroup("rest", [*model.layers[1:]]),
    ]
    optimizer = tfs.LayerwiseOptimizer(keras.optimizers.SGD(0.1), groups)
    step = step_of(model, optimizer=optimizer)
    sweep = tfs.Sweep(optimizer, model.variables, **SWEPT)
    body = model.layers[0].kernel.numpy().copy()
    head = model.layers[-1].kernel.numpy().copy()
    for _ in sweep:
        sweep.record(step(*BATCHES[0]))
        np.testing.assert_array_equal(model.layers[0].kernel.numpy(), body)
        now = float(optimizer.learning_rate)
    assert now == pytest.approx(1.0)
    np.testing.assert_array_equal(model.layers[-1].kernel.numpy(), head)


def test_it_stops_at_divergence_and_at_a_loss_that_is_none(tmp_path):
    model = linear_model(keras.optimizers.SGD(0.1))
    step = step_of(model)
    losses = iter([2.0, 1.9, 1.8, 1.7, 50.0, 60.0, 70.0])
    sweep = tfs.Sweep(model.optimizer, model.variables, log_dir=tmp_path)
    for _ in sweep:
        step(*BATCHES[0])
        sweep.record(next(losses))
    assert sweep.result.stop_reason == "diverged"
    assert len(sweep.result.losses) == 6
    assert runs(tmp_path) == ["range_test"]
    losses = iter([2.0, np.nan])
    for _ in sweep:
        sweep.record(np.float32(next(losses)))  # in another order
        step(*BATCHES[0])
    assert sweep.result.stop_reason == "non-finite loss"
    assert runs(tmp_path) == ["range_test", "range_test_1"]


def test_a_loop_that_does_something_else_is_refused():
    model = linear_model()
    step = step_of(model)
    step(*BATCHES[0])
    before = state_of(model)

    def go(body):
        sweep = tfs.Sweep(model.optimizer, model.variables, **SWEPT)
        for _ in sweep:
            body(sweep)
        return sweep

    def twice(sweep):
        sweep.record(step(*BATCHES[0]))
        sweep.record(1.0)

    def several(sweep):
        step(*BATCHES[0])
        sweep.record(step(*BATCHES[1]))

    def other_rate(sweep):
        sweep.record(step(*BATCHES[0]))
        model.optimizer.learning_rate = 0.3

    for body, words in [
        (lambda sweep: step(*BATCHES[0]), r"record\(loss\) was not called"),
        (lambda sweep: None, r"record\(loss\) was not called"),
        (twice, "called twice in one round"),
        (lambda sweep: sweep.record(1.0), r"made no update .*tfs\.sweep\(step, state"),
        (several, "went on by 2 in this round .* and 1 is the most"),
        (other_rate, "Somebody else has set the optimizer's rate"),
    ]:
        with pytest.raises(RuntimeError, match=words):
            go(body)
        assert_equal(before, state_of(model))
    for loss in (np.ones(3), None, {"loss": 1.0}, keras.KerasTensor(())):
        with pytest.raises(TypeError, match=r"`loss` of Sweep\.record must be its los"):
            go(lambda sweep, loss=loss: sweep.record(loss))
        assert_equal(before, state_of(model))


@pytest.mark.skipif(BACKEND != "jax", reason="stateless steps are JAX's")
@pytest.mark.parametrize("written", [False, True])
def test_a_stateless_step_is_refused_with_the_way_to_the_other_sweep(written):
    model = linear_model()
    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)
    state = [v.value for v in optimizer.variables]
    weights = [v.value for v in model.trainable_variables]
    sweep = tfs.Sweep(optimizer, model.variables, **SWEPT)
    before = state_of(model)

    def loop(state, weights):
        for _ in sweep:
            gradients = [np.ones(w.shape, "float32") for w in weights]
            weights, state = optimizer.stateless_apply(state, gradients, weights)
            if written:
                for variable, value in zip(optimizer.variables, state, strict=True):
                    variable.assign(value)
            sweep.record(1.0)

    words = "Somebody else has set" if written else "made no update"
    with pytest.raises(RuntimeError, match=rf"{words}.*tfs\.sweep\(step, state, batc"):
        loop(state, weights)
    assert_equal(before, state_of(model))


def test_what_cannot_be_swept_is_refused_before_anything_changes():
    model = linear_model()
    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)
    before = state_of(model)

    def begin(*arguments, **more):
        for _ in tfs.Sweep(*arguments, **more):
            raise AssertionError("it must not begin")

    with pytest.raises(ValueError, match=r"`variables` .*without .*kernel, .*bias, wh"):
        begin(optimizer, [keras.Variable(1.0)])
    with pytest.raises(ValueError, match="all of them not trainable"):
        begin(keras.optimizers.SGD(), [keras.Variable(1.0, trainable=False)])
    scheduled = keras.optimizers.SGD(tfs.Cosine(0.1, 0.0, 10))
    with pytest.raises(ValueError, match=r"must be a number .*Cosine"):
        begin(scheduled, model.variables)
    with pytest.raises(TypeError, match=r"Sequential 'seq.*Give its `.variables`"):
        begin(optimizer, model)
    with pytest.raises(TypeError, match=r"Give model\.optimizer"):
        begin(model, model.variables)
    with pytest.raises(ValueError, match=r"Received: none\. Give model\.variables"):
        begin(optimizer, [])
    with pytest.raises(TypeError, match=r"in it\. Give model\.variables"):
        begin(optimizer, [np.ones(3)])
    with pytest.raises(ValueError, match="`max_lr`"):
        begin(optimizer, model.variables, 1.0, 0.1)
    assert_equal(before, state_of(model))
    assert not {"apply", "_tfschedules_hold"} & vars(optimizer).keys()


def test_one_at_a_time():
    model = linear_model()
    optimizer = model.optimizer
    sweep = tfs.Sweep(optimizer, model.variables, **SWEPT)
    other = tfs.Sweep(optimizer, model.variables, **SWEPT)
    step = step_of(model)
    callback = tfs.HyperparameterScheduler(learning_rate=tfs.Constant(0.1))

    def fit():
        model.fit(X[:64], Y[:64], verbose=0, callbacks=[callback])

    for number, _ in enumerate(sweep):
        if number < 1:
            with pytest.raises(RuntimeError, match=r"tfs\.Sweep has it, which is not"):
                next(iter(other))
            with pytest.raises(RuntimeError, match="This Sweep is in a loop"):
                next(iter(sweep))
            with pytest.raises(RuntimeError, match=r"Callbacks cannot drive SGD now"):
                fit()
        sweep.record(step(*BATCHES[0]))
    assert len(sweep.result.losses) == 24

    class InFit(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            next(iter(sweep))

    with pytest.raises(RuntimeError, match=r"in a fit, or in train_on_batch"):
        model.fit(X[:64], Y[:64], verbose=0, callbacks=[InFit()])
    callbacks = keras.callbacks.CallbackList([callback], model=model)
    callbacks.on_train_begin()
    with pytest.raises(
        RuntimeError, match="that has not ended, drive its learning_rat"
    ):
        next(iter(sweep))
    callbacks.on_train_end()
    fit()


def test_a_loop_that_is_compiled_is_refused():
    model = linear_model()
    sweep = tfs.Sweep(model.optimizer, model.variables, **SWEPT)

    def loop():
        next(iter(sweep))

    if BACKEND == "tensorflow":
        import tensorflow as tf

        loop = tf.function(loop, autograph=False)
    elif BACKEND == "jax":
        import jax

        loop = jax.jit(loop)
    else:
        pytest.skip("nothing is compiled")
    with pytest.raises(RuntimeError, match="this loop is being compiled"):
        loop()


def test_what_cannot_be_put_back_is_told_and_tried_again(monkeypatch):
    model = linear_model()
    step = step_of(model)
    step(*BATCHES[0])
    before = state_of(model)
    sweep = tfs.Sweep(model.optimizer, model.variables, **SWEPT)
    kind, whole = type(model.layers[0].kernel), type(model.layers[0].kernel).assign
    broken = []

    def assign(self, value):
        if broken and self is model.layers[0].kernel:
            raise OSError("broken")
        return whole(self, value)

    def go():
        for _ in sweep:
            sweep.record(step(*BATCHES[0]))
            if int(innermost(model.optimizer).iterations) == 25:
                monkeypatch.setattr(kind, "assign", assign)
                broken.append(True)

    with pytest.raises(OSError, match=r"Not put back: .*kernel \(OSError: broken\)"):
        go()
    broken.clear()
    sweep.restore()
    assert_equal(before, state_of(model))
