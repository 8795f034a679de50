"""A range test of an optimizer that is not the compiled one."""

from __future__ import annotations

import concurrent.futures
from typing import Any

import keras
import numpy as np
import pytest
from helpers import BACKEND
from two_optimizers import Duel, data, duel, step, written

import tfschedules as tfs


def everything(model: keras.Model, *others: Any) -> list[np.ndarray]:
    """All that a step changes, of both optimizers and of others."""
    owners = [model, model.d_optimizer, model.g_optimizer, *others]
    variables = [variable for owner in owners for variable in owner.variables]
    return [np.array(keras.ops.convert_to_numpy(each)) for each in variables]


def same(model: keras.Model, values: list[np.ndarray], *others: Any) -> bool:
    """Whether all of it is so, to the bit."""
    pairs = zip(everything(model, *others), values, strict=True)
    return all(np.array_equal(now, value) for now, value in pairs)


class Uneven(Duel):
    """Updates `g` with each fourth batch, and reports the number of the batch."""

    def __init__(self) -> None:
        super().__init__(critic_steps=5)
        self.batches = self.add_weight((), "zeros", dtype="int32", trainable=False)

    def _update(self) -> int:
        step(self.g_optimizer, self.g)
        return 0

    def train_step(self, batch: Any) -> Any:
        import tensorflow as tf

        for _ in range(self.critic_steps):
            step(self.d_optimizer, self.d)
        self.batches.assign(self.batches + 1)
        now = tf.convert_to_tensor(self.batches)
        tf.cond(tf.equal(now % 4, 0), self._update, lambda: 0)
        return {"d_loss": 1.0 / tf.cast(now, "float32"), "number": now}


def test_the_rate_of_one_is_swept_and_both_are_put_back() -> None:
    model = duel(critic_steps=4)
    model.fit(data(2), batch_size=2, verbose=0)
    before = everything(model)
    for optimizer in ("d_optimizer", model.d_optimizer):
        result = tfs.find_learning_rate(
            model,
            data(4),
            batch_size=2,
            steps=24,
            min_lr=1e-3,
            max_lr=0.1,
            optimizer=optimizer,
            metric="d_loss",
            stop_factor=None,
            verbose=0,
        )
        # A batch has four updates, and its loss is that of the last.
        rates = np.geomspace(1e-3, 0.1, 24)
        assert result.learning_rates == pytest.approx(rates[3::4])
        made = np.cumsum(rates**2) + 8 * 0.5**2
        assert result.losses == pytest.approx(made[3::4], rel=1e-5)
        assert same(model, before)
    # It goes on as if nothing had been.
    model.fit(data(2), batch_size=2, verbose=0)
    assert written(model.d)[:16] == pytest.approx(0.5)
    assert not written(model.d)[16:].any()
    assert written(model.g)[:4] == pytest.approx(0.25)


@pytest.mark.tensorflow
@pytest.mark.parametrize("block", [1, 8])
def test_a_batch_without_an_update_has_no_loss(block: int) -> None:
    for name, updates in (("g_optimizer", 6), ("d_optimizer", 30)):
        model = Uneven()
        model.compile(steps_per_execution=block)
        test = tfs.RangeTest(
            0.1, 0.2, updates, optimizer=name, metric="number", stop_factor=None,
            higher_is_better=True,
        )  # fmt: skip
        model.fit(data(24), batch_size=2, verbose=0, callbacks=[test])
        rates = np.geomspace(0.1, 0.2, updates)
        if name == "g_optimizer":
            numbers = 4.0 * np.arange(1, 7)
        else:
            numbers, rates = np.arange(1.0, 7), rates[4::5]
        assert test.result is not None
        assert test.result.learning_rates == pytest.approx(rates)
        assert test.result.values == pytest.approx(numbers)
        assert int(model.batches) == 0


@pytest.mark.tensorflow
def test_data_without_an_end_last_for_a_sweep_that_leaves_batches_out() -> None:
    def batches() -> Any:
        while True:
            yield (data(1),)

    model = Uneven()
    model.compile()
    result = tfs.find_learning_rate(
        model, batches, optimizer="g_optimizer", metric="number", steps=6, verbose=0,
        higher_is_better=True, stop_factor=None,
    )  # fmt: skip
    assert result.stop_reason == "finished"
    assert result.values == pytest.approx(4.0 * np.arange(1, 7))


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore:.*and this fit has")  # looked for in the test
def test_lengths_in_epochs_of_one_that_leaves_batches_out_are_told_of() -> None:
    model = Uneven()
    model.compile()
    fall = tfs.Linear(1.0, 0.0, tfs.epochs(2))
    callback = tfs.HyperparameterScheduler(fall, optimizer="g_optimizer")
    with pytest.warns(UserWarning, match="updates in this epoch") as warned:
        model.fit(data(8), batch_size=2, epochs=2, verbose=0, callbacks=[callback])
    texts = [str(each.message) for each in warned]
    assert "SGD) has made 2 updates in this epoch, and lengths in epochs" in texts[0]
    assert "end at step 16, and this fit has 4 steps" in texts[1]
    assert written(model.g)[:4] == pytest.approx(1 - np.arange(4) / 16)


def test_an_optimizer_that_does_not_update_is_refused_with_those_that_do() -> None:
    model = duel()
    before = everything(model)
    with pytest.raises(
        ValueError,
        match=r"sweeps the rate of `optimizer` \(RMSprop\), and the training step does "
        r"not update with it. The model also has `d_optimizer` \(SGD\) .*"
        r'find_learning_rate\(…, optimizer="d_optimizer"\)\.$',
    ):
        tfs.find_learning_rate(model, data(8), metric="d_loss", verbose=0)
    assert same(model, before)
    with pytest.raises(ValueError, match=r"with d_loss, g_loss\. Give"):
        tfs.find_learning_rate(model, data(8), optimizer="g_optimizer", verbose=0)
    with pytest.raises(ValueError, match=r"Received: optimizer='other'. It has"):
        tfs.find_learning_rate(model, data(8), optimizer="other", verbose=0)
    with (
        concurrent.futures.ThreadPoolExecutor(1) as executor,
        pytest.raises(ValueError, match=r"Received: optimizer='d_optimizer'. Make the"),
    ):
        tfs.find_learning_rate(
            model, data(8), optimizer="d_optimizer", metric="d_loss", executor=executor
        )


@pytest.mark.skipif(BACKEND == "jax", reason="the step changes variables")
def test_what_is_built_by_the_sweep_begins_anew() -> None:
    class Unbuilt(Duel):
        def compile(self, **arguments: Any) -> None:
            keras.Model.compile(self, **arguments)
            self.d_optimizer = keras.optimizers.Adam(0.5)
            self.g_optimizer = keras.optimizers.Adam(0.5)
            self.inner = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
            self.inner.compile("adam", "mse")

        def train_step(self, batch: Any) -> Any:
            logs = super().train_step(batch)
            self.inner.optimizer.apply([keras.ops.ones((1, 1)), keras.ops.ones(1)],
                                       self.inner.trainable_variables)  # fmt: skip
            return logs

    swept, other = Unbuilt(), Unbuilt()
    for model in (swept, other):
        model.compile()
        model.inner.set_weights([np.ones((1, 1)), np.zeros(1)])
    tfs.find_learning_rate(
        swept, data(8), optimizer="d_optimizer", metric="d_loss", steps=8, verbose=0
    )
    for model in (swept, other):
        model.fit(data(8), batch_size=2, verbose=0)
    values = everything(other, other.inner.optimizer)
    assert same(swept, values, swept.inner.optimizer)
