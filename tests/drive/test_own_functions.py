"""Functions that users compile inside of a train step, or around it.

The networks write down the rates that they really had: see `unit_steps`.
"""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
import pytest
from helpers import BACKEND, line, patches
from unit_steps import output, rates_written, tape_step, unit_model, units

import tfschedules as tfs

SIX = line(0.12, 0.0, 6, 6)
jax_only = pytest.mark.skipif(BACKEND != "jax", reason="JAX keeps traces by functions")


def falling(start: float = 0.12, end: float = 0.0) -> tfs.HyperparameterScheduler:
    return tfs.HyperparameterScheduler(learning_rate=tfs.Linear(start, end, 6))


def unfreezing() -> tfs.GradualUnfreezing:
    return tfs.GradualUnfreezing([tfs.LayerGroup(n, [n]) for n in ("body", "head")])


def made_of(kind: type, **compile_arguments: Any) -> keras.Model:
    """The network of `unit_steps` as a model of another class."""
    plain = unit_model()
    model = kind(plain.input, plain.output)
    arguments = {"jit_compile": BACKEND == "jax", "loss": output, **compile_arguments}
    model.compile(keras.optimizers.SGD(0.3), **arguments)
    return model


def fit(model: keras.Model, begin: int, *callbacks: Any, **arguments: Any) -> None:
    """Six updates, from the unit vector `begin` on; plain ones have the rate 0.3."""
    x, y = units()
    if not callbacks:  # a fit that has died leaves the rate that it has shown
        model.optimizer.learning_rate = 0.3
    arguments = {"batch_size": 1, "shuffle": False, "verbose": 0, **arguments}
    model.fit(x[begin : begin + 6], y[:6], callbacks=[*callbacks], **arguments)


class Seen(keras.callbacks.Callback):
    """Reads what the model has written down."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.rates = rates_written(self.model)


def find(model: keras.Model, high: float = 0.1) -> np.ndarray:
    """The rates of a sweep with the unit vectors from 40 on."""
    x, y = units()
    seen = Seen()
    tfs.find_learning_rate(
        model, x[40:], y[40:], batch_size=1, min_lr=0.01, max_lr=high, steps=8,
        stop_factor=None, verbose=0, shuffle=False, callbacks=[seen],
    )  # fmt: skip
    return seen.rates[40:]


def written(model: keras.Model, begin: int, layer: str = "head") -> np.ndarray:
    return rates_written(model, layer)[begin : begin + 6]


# TensorFlow: it would stay in the function, and is refused.


def decorated_step() -> type:
    import tensorflow as tf

    class Decorated(keras.Model):
        @tf.function
        def train_step(self, data: Any) -> Any:
            return super().train_step(data)

    return Decorated


def decorated_around(function: Any) -> type:
    """A model whose train step calls `function(update)` for its update."""
    import tensorflow as tf

    class Around(keras.Model):
        def train_step(self, data: Any) -> Any:
            x, _ = data
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(self(x, training=True))
            self.update(tape.gradient(loss, self.trainable_variables))
            return {"loss": loss}

        @function
        def update(self, gradients: Any) -> None:
            self.optimizer.apply(gradients, self.trainable_variables)

    return Around


def decorated_helper() -> type:
    import tensorflow as tf

    return decorated_around(tf.function)


def decorated_half() -> type:
    import tensorflow as tf

    class Half(keras.Model):
        def train_step(self, data: Any) -> Any:
            return self.half(data)

        @tf.function
        def half(self, data: Any) -> Any:
            return super().train_step(data)

    return Half


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (decorated_step, "schedule"),
        (decorated_step, "find"),
        (decorated_step, "unfreezing"),
        (decorated_step, "logger"),
        (decorated_helper, "schedule"),
        (decorated_helper, "find"),
        (decorated_helper, "unfreezing"),
        (decorated_half, "logger"),
    ],
)
def test_a_function_inside_of_a_step_is_refused_and_a_plain_fit_is_plain(
    kind: Any, what: str, tmp_path
) -> None:
    model = made_of(kind())
    first = {
        "schedule": lambda: fit(model, 30, falling()),
        "find": lambda: find(model),
        "unfreezing": lambda: fit(model, 30, unfreezing()),
        "logger": lambda: fit(model, 30, tfs.TensorBoardLogger(tmp_path)),
    }
    with pytest.raises(RuntimeError, match="take the decorator"):
        first[what]()
    assert not rates_written(model).any()
    fit(model, 0)
    for layer in ("body", "head"):
        np.testing.assert_allclose(written(model, 0, layer), 0.3, rtol=1e-6)
    assert patches(model) == []


@pytest.mark.tensorflow
@pytest.mark.parametrize("kind", [decorated_step, decorated_helper])
def test_so_it_is_in_a_step_that_runs_eagerly(kind: Any) -> None:
    model = made_of(kind(), run_eagerly=True)
    with pytest.raises(RuntimeError, match="take the decorator"):
        fit(model, 30, falling())
    fit(model, 0)
    np.testing.assert_allclose(written(model, 0), 0.3, rtol=1e-6)


@pytest.mark.tensorflow
def test_one_that_was_compiled_before_is_refused_too() -> None:
    model = made_of(decorated_helper())
    fit(model, 0)
    before = rates_written(model)
    with pytest.raises(RuntimeError, match="RangeTest does not see the updates"):
        find(model)
    np.testing.assert_array_equal(rates_written(model), before)
    with pytest.raises(RuntimeError, match="does not drive the updates"):
        fit(model, 30, falling())
    assert np.flatnonzero(written(model, 30)).tolist() == [0]
    fit(model, 12)
    np.testing.assert_allclose(written(model, 12), 0.3, rtol=1e-6)


@pytest.mark.tensorflow
@pytest.mark.parametrize("how", ["branch", "loop", "eager", "own train function"])
def test_what_ends_with_the_step_is_driven(how: str) -> None:
    import tensorflow as tf

    def in_a_branch(update: Any) -> Any:
        def update_in_a_branch(model: Any, gradients: Any) -> None:
            def then() -> int:
                update(model, gradients)
                return 0

            tf.cond(model.optimizer.iterations >= 0, then, lambda: 1)

        return update_in_a_branch

    def in_a_loop(update: Any) -> Any:
        def update_in_a_loop(model: Any, gradients: Any) -> None:
            def body(i: Any) -> Any:
                update(model, gradients)
                return [i + 1]

            tf.while_loop(lambda i: i < 1, body, [tf.constant(0)])

        return update_in_a_loop

    ways = {"branch": in_a_branch, "loop": in_a_loop}
    kind = decorated_around(ways.get(how, lambda update: update))
    if how == "own train function":

        class Own(kind):
            def make_train_function(self, force: bool = False) -> Any:
                step = tf.function(lambda data: self.train_step(data))
                self.train_function = lambda iterator: step(next(iterator))
                return self.train_function

        kind = Own
    model = made_of(kind, run_eagerly=how == "eager")
    model.optimizer.build(model.trainable_variables)
    for begin, callbacks in ((0, []), (6, [falling()]), (12, [])):
        fit(model, begin, *callbacks)
        expected = SIX if callbacks else [0.3] * 6
        np.testing.assert_allclose(written(model, begin), expected, rtol=1e-5)


@pytest.mark.tensorflow
@pytest.mark.parametrize("how", ["in a function", "under a tape"])
def test_a_tape_function_is_right_after_its_loop_also_when_others_call_it(
    how: str,
) -> None:
    import tensorflow as tf

    model = unit_model()
    x, _ = units()
    step = tf.function(tape_step(model))
    known = keras.callbacks.CallbackList([falling()], model=model)
    known.on_train_begin()
    known.on_epoch_begin(0)
    for at in range(6):
        known.on_train_batch_begin(at)
        step(x[at : at + 1])
    known.on_epoch_end(0)
    known.on_train_end()
    del known
    model.optimizer.learning_rate = 0.3
    if how == "in a function":
        tf.function(lambda batch: step(batch))(x[11:12])
    else:
        with tf.GradientTape():
            step(x[11:12])
    np.testing.assert_allclose(written(model, 0), SIX, rtol=1e-5)
    assert rates_written(model)[11] == pytest.approx(0.3)


# JAX: each trace of a step has traces of its own inside.


def jit_step() -> type:
    import jax

    class Jitted(keras.Model):
        @functools.partial(jax.jit, static_argnums=0)
        def train_step(self, state: Any, data: Any) -> Any:
            return super().train_step(state, data)

    return Jitted


def around_update(function: Any) -> type:
    """A model whose train step calls `function(model, …)` for its update."""
    import jax

    class Around(keras.Model):
        def train_step(self, state: Any, data: Any) -> Any:
            trained, others, optimizer, metrics = state

            def loss(trained: Any) -> Any:
                outputs, _ = self.stateless_call(
                    trained, others, data[0], training=True
                )
                return outputs.mean()

            value, gradients = jax.value_and_grad(loss)(trained)
            trained, optimizer = function(self, optimizer, gradients, trained)
            return {"loss": value}, (trained, others, optimizer, metrics)

    return Around


def jit_helper() -> type:
    import jax

    @functools.partial(jax.jit, static_argnums=0)
    def update(model: Any, state: Any, gradients: Any, weights: Any) -> Any:
        return model.optimizer.stateless_apply(state, gradients, weights)

    return around_update(update)


def scan_helper() -> type:
    import jax

    bodies: dict[int, Any] = {}  # JAX finds a loop's trace by its body, too

    def update(model: Any, state: Any, gradients: Any, weights: Any) -> Any:
        def body(carry: Any, gradients: Any) -> Any:
            weights, state = carry
            return model.optimizer.stateless_apply(state, gradients, weights), None

        body = bodies.setdefault(id(model), body)
        once = [gradient[None] for gradient in gradients]
        return jax.lax.scan(body, (weights, state), once)[0]

    return around_update(update)


INSIDE = [jit_step, jit_helper, scan_helper]


@jax_only
@pytest.mark.parametrize("eagerly", [False, True])
@pytest.mark.parametrize("kind", INSIDE)
def test_functions_inside_of_a_step_are_traced_for_each_fit(
    kind: Any, eagerly: bool
) -> None:
    model = made_of(kind(), run_eagerly=eagerly, jit_compile=not eagerly)
    begin = 0
    for start, end in ((0.12, 0.0), (None, None), (0.9, 0.3), (None, None)):
        fit(model, begin, *([falling(start, end)] if start else []))
        expected = line(start, end, 6, 6) if start else [0.3] * 6
        np.testing.assert_allclose(written(model, begin), expected, rtol=1e-5)
        begin += 6
    assert patches(model) == []


@jax_only
@pytest.mark.parametrize("kind", [jit_step, scan_helper])
def test_a_plain_fit_before_and_a_range_test_between_change_nothing(kind: Any) -> None:
    model = made_of(kind())
    fit(model, 0)
    before = rates_written(model)
    for high in (0.1, 10.0):
        expected = np.geomspace(0.01, high, 8)
        np.testing.assert_allclose(find(model, high), expected, rtol=1e-4)
        np.testing.assert_array_equal(rates_written(model), before)
    fit(model, 6, falling())
    fit(model, 12)
    np.testing.assert_allclose(written(model, 6), SIX, rtol=1e-5)
    np.testing.assert_allclose(written(model, 12), 0.3, rtol=1e-6)


@jax_only
@pytest.mark.parametrize("kind", [jit_step, jit_helper])
def test_a_step_that_is_traced_twice_in_a_fit_has_two(kind: Any) -> None:
    x, y = units()
    model = made_of(kind())
    for begin, schedule in ((0, tfs.Linear(0.3, 0.0, 3)), (6, tfs.Linear(0.6, 0, 3))):
        model.fit(
            x[begin : begin + 5],
            y[:5],
            batch_size=2,  # the last batch is smaller
            shuffle=False,
            verbose=0,
            callbacks=[tfs.HyperparameterScheduler(learning_rate=schedule)],
        )
        top = schedule.values(1)[0]
        # The mean over two samples halves the gradient; the last batch has one.
        rates = top * np.array([1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3])
        np.testing.assert_allclose(
            rates_written(model)[begin : begin + 5], rates, rtol=1e-5
        )


@jax_only
@pytest.mark.parametrize("eagerly", [False, True])
@pytest.mark.parametrize("kind", [jit_step, jit_helper])
def test_steps_of_a_callback_are_none_of_theirs(kind: Any, eagerly: bool) -> None:
    x, y = units()

    class Replay(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch % 2:
                at = 24 + batch
                self.model.train_on_batch(x[at : at + 1], y[:1])

    model = made_of(kind(), run_eagerly=eagerly, jit_compile=not eagerly)

    def batches() -> Any:
        yield from ((x[i : i + 1], y[:1]) for i in range(6))

    model.fit(
        batches(),
        steps_per_epoch=6,
        shuffle=False,
        verbose=0,
        callbacks=[falling(), Replay()],
    )
    np.testing.assert_allclose(written(model, 0), SIX, rtol=1e-5)
    assert np.count_nonzero(rates_written(model)[24:]) == 3


@jax_only
def test_updates_that_frozen_weights_have_missed_are_known_in_a_compiled_step() -> None:
    def trained(kind: type) -> list[np.ndarray]:
        model = made_of(kind)
        model.compile(keras.optimizers.Adam(0.1), loss=output, jit_compile=True)
        for begin, callbacks in ((0, []), (12, [unfreezing()]), (24, [])):
            fit(model, begin, *callbacks)
        return [rates_written(model, layer) for layer in ("body", "head")]

    decorated, plain = trained(jit_step()), trained(keras.Model)
    np.testing.assert_allclose(decorated, plain, rtol=1e-5, atol=1e-7)
    assert not np.allclose(decorated[0][24:30], decorated[1][24:30], rtol=1e-2)


@jax_only
def test_a_jax_without_contexts_is_refused_where_it_takes_them(monkeypatch) -> None:
    import jax

    from tfschedules.drive import own_steps

    own_steps._context.cache_clear()
    monkeypatch.delattr(jax, "make_user_context")
    model = made_of(jit_helper())
    with pytest.raises(RuntimeError, match="Use a newer JAX"):
        fit(model, 0, falling())
    monkeypatch.undo()
    fit(model, 0)
    np.testing.assert_allclose(written(model, 0), 0.3, rtol=1e-6)
