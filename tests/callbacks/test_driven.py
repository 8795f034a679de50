"""`tfs.driven`: schedules in loops of the user's own, of every kind."""

import contextlib
import threading

import keras
import numpy as np
import pytest
from event_files import scalars
from helpers import (
    BACKEND,
    arrays,
    digits,
    in_batches,
    line,
    one_cycle_values,
    relative_error,
    sgd_loop,
    softmax_regression,
)
from unit_steps import rates_written, unit_model, units

import tfschedules as tfs
from tfschedules.drive import innermost

tensorflow_only = pytest.mark.tensorflow
jax_only = pytest.mark.skipif(BACKEND != "jax", reason="it is JAX's")
KINDS = {
    "tensorflow": ["eager", "function"], "jax": ["eager", "stateless"],
    "torch": ["eager"],
}[BACKEND]  # fmt: skip
BATCHES = in_batches(*digits(256), 32)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Loop:
    """A loop of a user's own, around steps of one kind."""

    def __init__(self, model, kind="eager", loss=None, optimizer=None):
        self.model, self.loss = model, loss or LOSS
        self.optimizer = optimizer or model.optimizer
        self.kind = kind
        if kind == "function":
            import tensorflow as tf

            self.step = tf.function(self.tape_step)
        elif BACKEND == "tensorflow":
            self.step = self.tape_step
        elif BACKEND == "torch":
            self.step = self.torch_step
        else:
            import jax

            self.gradients = jax.jit(jax.grad(self.loss_of))
            self.step = self.jax_step
            if kind == "stateless":
                self.state = self.values_of(self.optimizer.variables)
                self.jitted = jax.jit(self.stateless_step)
                self.step = self.keep

    def tape_step(self, x, y):
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = self.loss(y, self.model(x, training=True))
        weights = self.model.trainable_variables
        self.optimizer.apply(tape.gradient(loss, weights), weights)

    def torch_step(self, x, y):
        import torch

        self.model.zero_grad()
        y = keras.ops.convert_to_tensor(y)
        self.loss(y, self.model(x, training=True)).backward()
        weights = self.model.trainable_variables
        with torch.no_grad():
            self.optimizer.apply([w.value.grad for w in weights], weights)

    @staticmethod
    def values_of(variables):
        return [variable.value for variable in variables]

    def loss_of(self, weights, x, y):
        return self.loss(y, self.model.stateless_call(weights, [], x)[0])

    def jax_step(self, x, y):
        weights = self.model.trainable_variables
        gradients = self.gradients(self.values_of(weights), x, y)
        self.optimizer.apply(gradients, weights)

    def stateless_step(self, state, weights, x, y):
        gradients = self.gradients(weights, x, y)
        return self.optimizer.stateless_apply(state, gradients, weights)

    def keep(self, x, y):
        weights = self.values_of(self.model.trainable_variables)
        weights, self.state = self.jitted(self.state, weights, x, y)
        variables = self.model.trainable_variables
        for variable, value in zip(variables, weights, strict=True):
            variable.assign(value)

    def __call__(self, first, last):
        for i in range(first, last):
            self.step(*BATCHES[i % len(BATCHES)])

    def units(self, *numbers):
        """Steps with unit vectors, in which a model of `unit_model` writes rates."""
        x, y = units()
        for i in numbers:
            self.step(x[i : i + 1], y[i : i + 1])


def unit_loop(kind="eager", optimizer=None):
    model = unit_model(optimizer or keras.optimizers.SGD(0.1))
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    return Loop(model, kind, lambda y, outputs: keras.ops.sum(outputs))


def is_free(optimizer):
    own = vars(innermost(optimizer)).keys()
    return not {"apply", "_tfschedules_hold"} & own


@pytest.mark.parametrize("kind", KINDS)
def test_rate_and_momentum_follow_and_are_given_back(kind):
    model = softmax_regression(keras.optimizers.SGD(0.05, momentum=0.9))
    loop = Loop(model, kind)
    cycle = tfs.one_cycle(0.4, total_steps=20)
    rates, momenta = one_cycle_values(0.4, 20)
    with tfs.driven(model.optimizer, **cycle):
        loop(0, 20)
    assert is_free(model.optimizer)
    assert model.optimizer.momentum == 0.9
    assert type(model.optimizer.momentum) is float
    assert float(model.optimizer.learning_rate) == np.float32(0.05)
    velocity = [np.zeros((64, 10)), np.zeros(10)]
    every = [BATCHES[i % 8] for i in range(28)]
    expected = sgd_loop(every[:20], rates, momenta, velocity=velocity)
    assert relative_error(arrays(model), expected) < 2e-6
    loop(20, 28)  # with its own again, by the same function
    expected = sgd_loop(
        every[20:], np.full(8, 0.05), np.full(8, 0.9), weights=expected,
        velocity=velocity,
    )  # fmt: skip
    assert relative_error(arrays(model), expected) < 2e-6


@pytest.mark.parametrize("kind", KINDS)
def test_the_position_is_that_of_the_with(kind):
    loop = unit_loop(kind)
    schedule = tfs.Linear(0.8, 0.0, 16)
    if kind != "function":  # it would be compiled too early
        loop.units(0, 1, 2)
        if kind == "stateless":
            for variable, value in zip(
                loop.optimizer.variables, loop.state, strict=True
            ):
                variable.assign(value)
    with tfs.driven(loop.optimizer, schedule, start_step=4):
        loop.units(*range(3, 9))
    loop.units(9)
    written = rates_written(loop.model)
    np.testing.assert_allclose(written[3:9], line(0.8, 0, 16, 10)[4:], rtol=1e-6)
    np.testing.assert_allclose(written[9], 0.1, rtol=1e-6)


def test_with_gradient_accumulation_a_step_is_an_update():
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    model = softmax_regression(optimizer)
    loop = Loop(model)
    with tfs.driven(optimizer, tfs.Linear(0.4, 0.0, 4)):
        loop(0, 8)
    expected = sgd_loop(BATCHES, line(0.4, 0.0, 4, 4), accumulate=2)
    assert relative_error(arrays(model), expected) < 2e-6


@pytest.mark.parametrize("kind", KINDS)
def test_weight_decay_alone(kind):
    """Without a gradient a weight is multiplied by 1 - rate * decay."""
    optimizer = keras.optimizers.SGD(0.5, weight_decay=0.3)
    model = softmax_regression(optimizer)
    loop = Loop(model, kind, lambda y, outputs: 0.0 * keras.ops.sum(outputs))
    before = arrays(model)
    with tfs.driven(optimizer, weight_decay=tfs.Linear(0.2, 0.0, 4)):
        loop(0, 4)
    assert optimizer.weight_decay == 0.3
    loop(4, 5)
    factor = np.prod(1 - 0.5 * np.array([0.2, 0.15, 0.1, 0.05, 0.3]))
    for one, other in zip(before, arrays(model), strict=True):
        np.testing.assert_allclose(one * factor, other, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_momentum_is_beta_1_where_there_is_none(kind):
    optimizer = keras.optimizers.Adam(0.01)
    model = softmax_regression(optimizer)
    loop = Loop(model, kind)
    # The first moment is the gradient where beta_1 is 0, and Adam's step its sign.
    before = arrays(model)
    with tfs.driven(optimizer, momentum=tfs.Constant(0.0)):
        loop(0, 1)
    assert optimizer.beta_1 == 0.9
    moved = arrays(model)[1] - before[1]
    np.testing.assert_allclose(np.abs(moved), 0.01, rtol=2e-3)
    first = optimizer._momentums[1]
    if kind == "stateless":
        at = [v is first for v in optimizer.variables].index(True)
        first = loop.state[at]
    gradient = sgd_loop(BATCHES[:1], [1.0])[1] - before[1]
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(first), -gradient, rtol=1e-3, atol=1e-6
    )


def test_all_is_given_back_on_exceptions():
    loop = unit_loop(optimizer=keras.optimizers.SGD(0.1, momentum=0.5))

    def go(error):
        with tfs.driven(loop.optimizer, **tfs.one_cycle(0.4, total_steps=8)):
            loop.units(0, 1)
            raise error

    for error in (ValueError("mine"), KeyboardInterrupt("mine")):
        with pytest.raises(type(error), match="mine"):
            go(error)
        assert is_free(loop.optimizer)
        assert loop.optimizer.momentum == 0.5
        assert float(loop.optimizer.learning_rate) == np.float32(0.1)


def test_wrapped_optimizers_are_driven_inside():
    inner = keras.optimizers.SGD(0.1)
    optimizer = inner
    if BACKEND != "torch":
        model = unit_model()
        groups = [
            tfs.LayerGroup("body", [model.get_layer("body")], 0.5),
            tfs.LayerGroup("head", [model.get_layer("head")]),
        ]
        optimizer = tfs.LayerwiseOptimizer(inner, groups)
    else:
        model = unit_model()
    if BACKEND != "jax":  # whose loss scale has no eager form
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer)
    optimizer.build(model.trainable_variables)

    def loss(y, outputs):
        return optimizer.scale_loss(keras.ops.sum(outputs))

    loop = Loop(model, "eager", loss)
    with tfs.driven(optimizer, tfs.Linear(0.8, 0.0, 4)):
        loop.units(0, 1, 2, 3)
    wanted = line(0.8, 0.0, 4, 4)
    np.testing.assert_allclose(rates_written(model)[:4], wanted, rtol=1e-6)
    half = wanted if BACKEND == "torch" else wanted / 2
    np.testing.assert_allclose(rates_written(model, "body")[:4], half, rtol=1e-6)


@pytest.mark.parametrize("before", [False, True], ids=["first", "compiled"])
def test_a_fit_in_it_is_driven_or_refused_and_plain_afterwards(before):
    model = unit_model(keras.optimizers.SGD(0.1))
    x, y = units()

    def fit(first, last):
        model.fit(x[first:last], y[first:last], batch_size=1, shuffle=False, verbose=0)

    if before:
        fit(0, 4)
    refused = before and BACKEND == "tensorflow"
    words = "does not drive the learning_rate of the updates that are made"
    said = pytest.raises(RuntimeError, match=words) if refused else None
    with (
        said or contextlib.nullcontext(),
        tfs.driven(model.optimizer, tfs.Linear(0.8, 0.0, 8)),
    ):
        fit(4, 12)
    if not refused:
        wanted = line(0.8, 0.0, 8, 8)
        np.testing.assert_allclose(rates_written(model)[4:12], wanted, rtol=1e-6)
    fit(12, 14)
    np.testing.assert_allclose(rates_written(model)[12:14], 0.1, rtol=1e-6)


def test_a_logger_of_a_fit_in_it_writes_what_was_driven(tmp_path):
    model = unit_model(keras.optimizers.SGD(0.1, momentum=0.5))
    x, y = units()
    model.fit(x[:2], y[:2], batch_size=1, verbose=0)
    model.train_function = None  # a new one, not compiled yet
    linear, momentum = tfs.Linear(0.8, 0.0, 8), tfs.Linear(0.9, 0.1, 8)
    with tfs.driven(model.optimizer, linear, momentum=momentum, start_step=1):
        model.fit(
            x[:4], y[:4], batch_size=1, verbose=0,
            callbacks=[tfs.TensorBoardLogger(tmp_path)],
        )  # fmt: skip
    run = tmp_path / "schedules"
    _, rates = scalars(run, "schedule/learning_rate")
    _, momenta = scalars(run, "schedule/momentum")
    np.testing.assert_allclose(rates, line(0.8, 0.0, 8, 5)[1:], rtol=1e-6)
    np.testing.assert_allclose(momenta, line(0.9, 0.1, 8, 5)[1:], rtol=1e-6)


# Functions of TensorFlow that were compiled before.


@tensorflow_only
def test_a_function_that_was_compiled_before_is_refused_at_its_first_update():
    loop = unit_loop("function")
    loop.units(0)
    kind = type(loop.step)
    call = kind.__call__
    with (
        pytest.raises(RuntimeError, match=r"compiled before the `with` began.*anew"),
        tfs.driven(loop.optimizer, tfs.Constant(0.7)),
    ):
        loop.units(1, 2, 3)
    assert int(loop.optimizer.iterations) == 2
    assert is_free(loop.optimizer)
    assert kind.__call__ is call
    loop.units(4)
    np.testing.assert_allclose(rates_written(loop.model)[[0, 1, 4]], 0.1, rtol=1e-6)


@tensorflow_only
def test_so_it_is_beside_one_that_is_driven_and_in_a_second_with():
    import tensorflow as tf

    loop = unit_loop("function")
    old, new = loop.step, tf.function(loop.tape_step)
    evaluate = tf.function(lambda x: loop.model(x))
    loop.units(0)
    words = "does not drive the learning_rate"

    def go():
        with tfs.driven(loop.optimizer, tfs.Constant(0.7)):
            loop.step = new
            loop.units(1)
            evaluate(units()[0])
            loop.units(2)
            loop.step = old
            loop.units(3, 4)

    with pytest.raises(RuntimeError, match=words):
        go()
    wanted = [0.1, 0.7, 0.7, 0.7, 0.0]  # the fourth by the rate that was left
    np.testing.assert_allclose(rates_written(loop.model)[:5], wanted, rtol=1e-6)
    loop.step = new  # compiled in a `with` that is over
    with (
        pytest.raises(RuntimeError, match=words),
        tfs.driven(loop.optimizer, tfs.Constant(0.7)),
    ):
        loop.units(5, 6)
    assert rates_written(loop.model)[6] == 0


@tensorflow_only
def test_a_concrete_function_is_refused_at_the_end():
    loop = unit_loop("function")
    x, y = units()
    concrete = loop.step.get_concrete_function(x[:1], y[:1])
    with (
        pytest.raises(RuntimeError, match="does not drive the learning_rate"),
        tfs.driven(loop.optimizer, tfs.Constant(0.7)),
    ):
        concrete(x[:1], y[:1])
    assert is_free(loop.optimizer)


@tensorflow_only
def test_a_variable_keeps_its_place_in_graphs_with_branches():
    import tensorflow as tf

    loop = unit_loop()
    x, y = (tf.constant(each) for each in units())

    @tf.function
    def several(first):
        for i in tf.range(first, first + 4):
            if i % 2 == 0:
                loop.tape_step(x[i : i + 1], y[i : i + 1])

    with tfs.driven(loop.optimizer, tfs.Linear(0.8, 0.0, 8)):
        several(tf.constant(0))
        several(tf.constant(4))
    several(tf.constant(8))
    written = rates_written(loop.model)[:12:2]
    np.testing.assert_allclose(written, [0.8, 0.7, 0.6, 0.5, 0.1, 0.1], rtol=1e-6)


# Functions that JAX compiles.


@jax_only
def test_each_with_is_compiled_for_itself_whenever_the_function_was_made():
    loop = unit_loop("stateless")

    def synced():
        for variable, value in zip(loop.optimizer.variables, loop.state, strict=True):
            variable.assign(value)

    loop.units(0)  # compiled before
    for first, rate in ((1, 0.7), (3, 0.4)):
        synced()
        with tfs.driven(loop.optimizer, tfs.Linear(rate, 0.0, 7)):
            loop.units(first, first + 1)
    loop.units(5)
    wanted = [0.1, 0.7, 0.6, 0.4, 0.4 * 6 / 7, 0.1]
    np.testing.assert_allclose(rates_written(loop.model)[:6], wanted, rtol=1e-6)
    state = dict(
        zip([v.path for v in loop.optimizer.variables], loop.state, strict=True)
    )
    (rate,) = [value for path, value in state.items() if "learning_rate" in path]
    assert float(rate) == np.float32(0.1)


@jax_only
def test_a_function_that_is_compiled_to_the_end_is_told():
    loop = unit_loop("stateless")
    x, y = units()
    weights = loop.values_of(loop.model.trainable_variables)
    compiled = loop.jitted.lower(loop.state, weights, x[:1], y[:1]).compile()
    with (
        pytest.warns(UserWarning, match=r"no update in its .*lower\(\)\.compile"),
        tfs.driven(loop.optimizer, tfs.Constant(0.7)),
    ):
        compiled(loop.state, weights, x[:1], y[:1])


@jax_only
def test_a_thread_without_the_with_is_refused():
    loop = unit_loop("stateless")
    errors = []

    def step():
        try:
            loop.units(0)
        except RuntimeError as error:
            errors.append(str(error))

    with tfs.driven(loop.optimizer, tfs.Constant(0.7)):
        thread = threading.Thread(target=step)
        thread.start()
        thread.join()
        loop.units(1)
    assert "compiled in a thread without the `with tfs.driven" in errors[0]
    np.testing.assert_allclose(rates_written(loop.model)[:2], [0, 0.7], rtol=1e-6)


# What is refused.


def test_two_optimizers_are_driven_side_by_side():
    first, second = (unit_loop(kind) for kind in (KINDS[-1], KINDS[-1]))
    with (
        tfs.driven(first.optimizer, tfs.Constant(0.7)),
        tfs.driven(second.optimizer, tfs.Constant(0.4)),
    ):
        first.units(0)
        second.units(0)
        first.units(1)
    first.units(2)
    second.units(1)
    wanted = [0.7, 0.7, 0.1]
    np.testing.assert_allclose(rates_written(first.model)[:3], wanted, rtol=1e-6)
    np.testing.assert_allclose(rates_written(second.model)[:2], [0.4, 0.1], rtol=1e-6)


def test_one_at_a_time():
    loop = unit_loop(optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
    optimizer, model = loop.optimizer, loop.model
    x, y = units()
    with tfs.driven(optimizer, tfs.Constant(0.7)):
        loop.units(0)
        other = tfs.driven(optimizer, momentum=tfs.Constant(0.5))
        with pytest.raises(RuntimeError, match=r"tfs\.driven has it.*leave its loop"):
            other.__enter__()
        sweep = tfs.Sweep(optimizer, model.variables)
        with pytest.raises(RuntimeError, match=r"tfs\.driven has it"):
            next(iter(sweep))
        with pytest.raises(RuntimeError, match="Callbacks cannot drive SGD now"):
            model.fit(x, y, verbose=0, callbacks=[tfs.OneCycle(0.1)])

    class InFit(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            with tfs.driven(optimizer, tfs.Constant(0.7)):
                raise AssertionError("it must not begin")

    with pytest.raises(RuntimeError, match=r"in a fit, or in train_on_batch"):
        model.fit(x, y, verbose=0, callbacks=[InFit()])
    used = tfs.driven(optimizer, tfs.Constant(0.7))
    with used:
        loop.units(1)
    with pytest.raises(RuntimeError, match="has been used"), used:
        pass
    assert is_free(optimizer)


def test_a_with_without_an_update_is_told():
    loop, other = unit_loop(), unit_loop()
    with (
        pytest.warns(UserWarning, match="has made no update in its"),
        tfs.driven(loop.optimizer, tfs.Constant(0.7)),
    ):
        other.units(0)
    assert rates_written(other.model)[0] == np.float32(0.1)


def test_what_cannot_be_driven_is_refused_before_anything_changes():
    sgd = keras.optimizers.SGD(0.1)
    good = tfs.Constant(0.1)
    for given, error, words in [
        ({}, ValueError, "needs a schedule to follow"),
        ({"learning_rate": 0.1}, TypeError, r"`learning_rate`.*tfs\.Constant\(value"),
        ({"learning_rate": tfs.Linear(1.0, 0.0, tfs.epochs(2))}, ValueError,
         r"`learning_rate` must have its lengths in steps.*resolve"),
        ({"momentum": good}, ValueError, r"compiled with momentum=0.* none to drive"),
        ({"beta_7": good}, ValueError, "SGD has no hyperparameter 'beta_7'"),
        ({"learning_rate": good, "start_step": -1}, ValueError, "`start_step`"),
        ({"learning_rate": good, "start_step": "1"}, TypeError, "`start_step`"),
    ]:  # fmt: skip
        with pytest.raises(error, match=words):
            tfs.driven(sgd, **given)
    adam = keras.optimizers.Adam(0.1)
    with pytest.raises(ValueError, match="'momentum' and 'beta_1' are the same one of"):
        tfs.driven(adam, momentum=good, beta_1=good)
    scheduled = keras.optimizers.SGD(good)
    with pytest.raises(ValueError, match=r"must be a number .*Constant"):
        tfs.driven(scheduled, good)
    with pytest.raises(TypeError, match=r"`optimizer` must be an optimizer of Keras"):
        tfs.driven("sgd", good)
    assert is_free(sgd)
