"""`tfs.sweep`: a range test of a step from state to state, in any framework."""

import collections
import itertools
import random
import re

import keras
import numpy as np
import pytest
from event_files import runs
from helpers import BACKEND, in_batches
from linear_model import LOSS, X, Y, linear_model, numpy_sweep

import tfschedules as tfs

RATES = np.geomspace(1e-4, 1.0, 40)
SWEPT = {"min_lr": 1e-4, "max_lr": 1.0, "steps": 40}
BATCHES = in_batches(X, Y, 32)
State = collections.namedtuple("State", "weights speeds")


def batches():
    return itertools.cycle(BATCHES)


def numpy_step(state, batch, learning_rate):
    """The step of `numpy_sweep`, which changes its arrays in place."""
    (weights, bias), (speed_w, speed_b) = state
    x, y = batch
    z = x @ weights + bias
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    loss = -np.log(p[np.arange(len(y)), y]).mean()
    p[np.arange(len(y)), y] -= 1
    speed_w *= 0.9
    speed_w -= learning_rate * x.T @ p / len(y)
    speed_b *= 0.9
    speed_b -= learning_rate * p.mean(axis=0)
    weights += speed_w
    bias += speed_b
    return state, loss


def numpy_state(model):
    weights = [value.astype("float64") for value in model.get_weights()]
    return State(weights, [np.zeros_like(value) for value in weights])


def assert_is_the_oracles(result, model, momentum=0.9):
    assert result.stop_reason == "finished"
    np.testing.assert_allclose(result.learning_rates, RATES, rtol=1e-12)
    wanted = numpy_sweep(model, RATES, momentum=momentum)
    np.testing.assert_allclose(result.losses, wanted, rtol=1e-4)


def test_a_numpy_step_in_place():
    model = linear_model()
    state = numpy_state(model)
    before = [value.copy() for part in state for value in part]
    result = tfs.sweep(numpy_step, state, batches(), **SWEPT)
    assert_is_the_oracles(result, model)
    assert isinstance(result, tfs.RangeTestResult)
    after = [value for part in state for value in part]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
    same = tfs.suggest(RATES, numpy_sweep(model, RATES)).learning_rate
    assert result.suggestion == pytest.approx(same, rel=1e-3)


@pytest.mark.skipif(BACKEND != "jax", reason="the step is JAX's")
def test_stateless_apply_is_traced_once_and_may_be_given_its_buffers():
    import jax

    model = linear_model()
    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)
    rate_at = [v is optimizer._learning_rate for v in optimizer.variables].index(True)
    traces = []

    def loss_of(weights, x, y):
        return LOSS(y, model.stateless_call(weights, [], x, training=True)[0])

    def step(state, batch, learning_rate):
        traces.append(learning_rate)
        weights, slots = state
        loss, gradients = jax.value_and_grad(loss_of)(weights, *batch)
        slots = [*slots[:rate_at], learning_rate, *slots[rate_at + 1 :]]
        return optimizer.stateless_apply(slots, gradients, weights), loss

    weights = [v.value for v in model.trainable_variables]
    state = weights, [v.value for v in optimizer.variables]
    donating = jax.jit(step, donate_argnums=0)
    assert_is_the_oracles(tfs.sweep(donating, state, batches(), **SWEPT), model)
    assert len(traces) == 1
    assert traces[0].dtype == "float32"
    assert traces[0].shape == ()
    for kind in state:
        assert not any(array.is_deleted() for array in kind)
    np.testing.assert_array_equal(state[0][0], model.get_weights()[0])


@pytest.mark.tensorflow
def test_a_tf_function_is_traced_once():
    import tensorflow as tf

    model = linear_model()
    traces = []

    @tf.function
    def step(state, batch, learning_rate):
        traces.append(learning_rate)
        weights, speeds = state
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss = LOSS(batch[1], batch[0] @ weights[0] + weights[1])
        gradients = tape.gradient(loss, weights)
        speeds = [
            0.9 * speed - learning_rate * gradient
            for speed, gradient in zip(speeds, gradients, strict=True)
        ]
        weights = [w + speed for w, speed in zip(weights, speeds, strict=True)]
        return (weights, speeds), loss

    weights = [tf.constant(value) for value in model.get_weights()]
    state = weights, [tf.zeros_like(value) for value in weights]
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(32).repeat()
    assert_is_the_oracles(tfs.sweep(step, state, data, **SWEPT), model)
    assert len(traces) == 1


@pytest.mark.skipif(BACKEND != "torch", reason="the step is PyTorch's")
def test_a_torch_module_with_its_own_optimizer():
    import torch

    model = linear_model()
    module = torch.nn.Linear(64, 10)
    with torch.no_grad():
        kernel, bias = map(torch.tensor, model.get_weights())
        module.weight.copy_(kernel.T)
        module.bias.copy_(bias)
    optimizer = torch.optim.SGD(module.parameters(), lr=7.0)

    def step(state, batch, learning_rate):
        module, optimizer = state
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.zero_grad()
        x, y = map(torch.tensor, batch)
        loss = torch.nn.functional.cross_entropy(module(x), y)
        loss.backward()
        optimizer.step()
        return state, loss  # with its history

    # The rate is a factor of PyTorch's momentum, and not in it: the oracle has none.
    result = tfs.sweep(step, (module, optimizer), batches(), **SWEPT)
    assert_is_the_oracles(result, model, momentum=0.0)
    assert optimizer.param_groups[0]["lr"] == 7.0
    np.testing.assert_array_equal(module.bias.detach(), model.get_weights()[1])


def falling(rate):
    """A loss that falls, and explodes above 0.1."""
    return 1.0 / (1.0 + rate / 1e-3) + (rate / 0.1) ** 4


def count_up(losses, returned=None):
    """A step with these losses, whose state counts the updates."""
    given = iter(losses)

    def step(state, batch, learning_rate):
        loss = next(given)
        return state + 1, loss if returned is None else returned(loss)

    return step


RATES_100 = np.geomspace(1e-7, 10.0, 100)
LOSSES = falling(RATES_100)


def test_it_stops_at_divergence_and_takes_no_batch_too_many():
    data = iter(range(1000))
    result = tfs.sweep(count_up(LOSSES), 0, data)
    assert result.stop_reason == "diverged"
    # The median of three is first above four times its least.
    medians = np.median(np.lib.stride_tricks.sliding_window_view(LOSSES, 3), axis=1)
    first = np.flatnonzero(medians > 4 * np.minimum.accumulate(medians))[0] + 3
    assert len(result.losses) == first == next(data)
    data = iter(range(1000))
    result = tfs.sweep(count_up(LOSSES), 0, data, stop_factor=None)
    assert result.stop_reason == "finished"
    assert next(data) == 100


def test_a_loss_that_is_no_number_ends_it():
    losses = [*LOSSES[:30], np.float32(np.nan), 0.0]
    result = tfs.sweep(count_up(losses), 0, range(100))
    assert result.stop_reason == "non-finite loss"
    assert len(result.losses) == 31
    assert np.isnan(result.losses[-1])


def test_data_that_end_early_are_told():
    with pytest.warns(UserWarning, match=r"100 steps .* ended after 20, .*steps=20"):
        result = tfs.sweep(count_up(LOSSES), 0, [None] * 20)
    assert result.stop_reason == "out of data"
    np.testing.assert_array_equal(result.losses, LOSSES[:20])
    np.testing.assert_allclose(result.learning_rates, RATES_100[:20], rtol=1e-12)
    with pytest.raises(ValueError, match="`batches` must bring at least one batch"):
        tfs.sweep(count_up(LOSSES), 0, iter(()))


@pytest.mark.parametrize("error", [KeyboardInterrupt("by hand"), ValueError("mine")])
def test_what_was_swept_is_not_lost_with_an_exception(error, tmp_path):
    def step(state, batch, learning_rate):
        if state == 30:
            raise error
        return state + 1, LOSSES[state]

    with pytest.raises(type(error), match=str(error)) as caught:
        tfs.sweep(step, 0, range(100), log_dir=tmp_path)
    result = caught.value.result
    assert result.stop_reason == "interrupted"
    np.testing.assert_array_equal(result.losses, LOSSES[:30])
    assert runs(tmp_path) == ["range_test"]


def test_the_log_has_the_run_and_nothing_of_a_sweep_without_a_step(tmp_path):
    tfs.sweep(count_up(LOSSES), 0, range(100), log_dir=tmp_path / "logs")
    assert runs(tmp_path / "logs") == ["range_test"]
    with pytest.raises(ValueError, match="at least one batch"):
        tfs.sweep(count_up(LOSSES), 0, [], log_dir=tmp_path / "logs")
    with pytest.raises(TypeError, match="two things"):
        tfs.sweep(lambda *_: None, 0, [1], log_dir=tmp_path / "logs")
    assert runs(tmp_path / "logs") == ["range_test"]


def test_random_generators_are_put_back():
    def step(state, batch, learning_rate):
        drawn = random.random() + np.random.rand()
        drawn += float(keras.ops.mean(keras.random.normal((2,))))
        return state + drawn, 1.0

    keras.utils.set_random_seed(7)
    wanted = random.random(), np.random.rand(), keras.random.normal((2,))
    keras.utils.set_random_seed(7)
    tfs.sweep(step, 0.0, range(100))
    found = random.random(), np.random.rand(), keras.random.normal((2,))
    for one, other in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other)
        )


@pytest.mark.parametrize(
    "loss",
    [
        np.array(0.5), np.float16(0.5), 0.5, keras.ops.convert_to_tensor(0.5),
        keras.ops.cast(0.5, "bfloat16"), keras.Variable(0.5),
    ],
    ids=lambda loss: type(loss).__name__,
)  # fmt: skip
def test_scalars_of_every_kind_are_losses(loss):
    result = tfs.sweep(lambda state, *_: (state + 1, loss), 0, range(100))
    np.testing.assert_array_equal(result.losses, np.full(100, 0.5))


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (None, r"returns None\. .*tfs\.Sweep\(optimizer, variables\)"),
        (0.5, r"two things, the new state and the loss.* returns 0\.5"),
        ((1, 0.5, {}), "a tuple of 3"),
        ((1, (0.5, {})), "a tuple of 2.* loss alone"),
        ((1, {"loss": 0.5}), "a dict of 1"),
        ((1, np.ones(3)), r"an array of shape \(3,\)\. Take its mean"),
        ((1, np.ones(1)), r"an array of shape \(1,\)\. Take its mean"),
        ((1, keras.Input((2,))), "an array of shape"),
        ((1, keras.KerasTensor(())), "no real value now"),
        ((1, 1j), r"1j \(of type complex\)"),
        ((1, "0.5"), r"'0\.5' \(of type str\)"),
        ((1, None), r"None \(of type NoneType\)"),
        ((None, 0.5), r"new state\. Received: one that returns None for it"),
    ],
)
def test_what_a_step_returns_is_refused_in_words(returned, words):
    with pytest.raises(TypeError, match=words) as caught:
        tfs.sweep(lambda *_: returned, 0, range(100))
    assert str(caught.value).startswith("Argument `step` must be a function")


@pytest.mark.parametrize("state", [np.ones(3), [], None, {"a": (1.0, None)}])
def test_a_step_that_trains_nothing_is_refused(state):
    with pytest.raises(ValueError, match=re.escape("`step`")) as caught:
        tfs.sweep(lambda state, *_: (state, 1.0), state, range(100))
    assert "100 updates with rates of up to 10, is the one" in str(caught.value)
    assert "tfs.Sweep(optimizer, variables)" in str(caught.value)


def test_what_cannot_be_copied_is_refused():
    model = linear_model()
    for state in (model, [model.optimizer], {"a": model.layers[0]}):
        with pytest.raises(TypeError, match=r"`state` .*no layers or optimizers"):
            tfs.sweep(count_up(LOSSES), state, range(100))
    with pytest.raises(TypeError, match=r"`state` must .*deepcopy.* TypeError: cannot"):
        tfs.sweep(count_up(LOSSES), (each for each in "ab"), range(100))


@pytest.mark.skipif(BACKEND != "torch", reason="tensors are PyTorch's")
def test_a_tensor_with_a_history_is_refused():
    import torch

    state = 2 * torch.ones(3, requires_grad=True)
    with pytest.raises(TypeError, match=r"`state` must .*tensor\.detach\(\)"):
        tfs.sweep(count_up(LOSSES), state, range(100))


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        (lambda: iter(BATCHES), "Call the function that makes it"),
        ("a text", "must be an iterable"),
        ({"x": X}, "must be an iterable"),
        (3, "must be an iterable"),
    ],
)
def test_what_brings_no_batches_is_refused(batches, words):
    with pytest.raises(TypeError, match=rf"Argument `batches` .*{words}"):
        tfs.sweep(count_up(LOSSES), 0, batches)


@pytest.mark.parametrize("step", [None, 3, "a text", np.ones(3)])
def test_what_is_no_function_is_refused(step):
    with pytest.raises(TypeError, match=r"`step` must be a function step\(state, batc"):
        tfs.sweep(step, 0, range(100))


def test_a_pydataset_is_gone_through_once():
    class Data(keras.utils.PyDataset):
        num_batches = 20

        def __getitem__(self, index):
            return index

    with pytest.warns(UserWarning, match="ended after 20"):
        result = tfs.sweep(count_up(LOSSES), 0, Data())
    assert len(result.losses) == 20


def test_rates_can_be_swept_in_a_line():
    seen = []

    def step(state, batch, learning_rate):
        seen.append(learning_rate)
        return state + 1, 1.0

    result = tfs.sweep(
        step, 0, range(9), min_lr=0.1, max_lr=0.9, steps=9, mode="linear"
    )
    np.testing.assert_allclose(result.learning_rates, np.linspace(0.1, 0.9, 9))
    assert {rate.dtype for rate in seen} == {np.dtype("float32")}
    np.testing.assert_array_equal(seen, np.linspace(0.1, 0.9, 9).astype("float32"))
