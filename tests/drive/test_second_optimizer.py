"""Schedules for optimizers that are not the compiled one: a GAN has two."""

from __future__ import annotations

import copy
import functools
import pickle
import types
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers import BACKEND, JIT
from pages import ROOT, blocks
from two_optimizers import STEPS, Duel, data, duel, left, step, written

import tfschedules as tfs

# Most schedules here are longer than their fits, which is none of their matter.
pytestmark = pytest.mark.filterwarnings("ignore:.*and this fit has")

FALL = tfs.Linear(1.0, 0.0, 40)


def fit(model: keras.Model, *callbacks: Any, batches: int = 8, **arguments: Any) -> Any:
    return model.fit(
        data(batches), batch_size=2, verbose=0, callbacks=[*callbacks], **arguments
    )


class Seen(keras.callbacks.Callback):
    """Keeps each epoch's logs."""

    def on_train_begin(self, logs: Any = None) -> None:
        self.logs: list[dict[str, float]] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.logs.append(dict(logs))


@pytest.mark.parametrize("block", [1] if BACKEND == "torch" else [1, 4])
def test_each_optimizer_follows_its_own_updates(block: int) -> None:
    g = keras.optimizers.SGD(0.25)
    model = duel(
        keras.optimizers.Adam(0.5), g, critic_steps=3, steps_per_execution=block
    )
    falls = {"learning_rate": FALL, "momentum": tfs.Linear(0.9, 0.5, 40)}
    of_d = tfs.HyperparameterScheduler(optimizer="d_optimizer", **falls)
    seen = Seen()
    fit(model, seen, of_d, tfs.WarmRestarts(0.4, 5, optimizer=g), epochs=2)
    restarts = 0.2 * (1 + np.cos(np.pi * (np.arange(16) % 5) / 5))
    assert written(model.g)[:16] == pytest.approx(restarts, rel=1e-5)
    assert not written(model.g)[16:].any()
    assert int(model.d_optimizer.iterations) == 48
    for epoch, last in enumerate((23, 47)):
        expected = {
            "d_optimizer/learning_rate": max(1 - last / 40, 0),
            "d_optimizer/momentum": max(0.9 - 0.4 * last / 40, 0.5),
            "g_optimizer/learning_rate": restarts[8 * epoch + 7],
        }
        found = {name: seen.logs[epoch].get(name) for name in expected}
        assert found == pytest.approx(expected)
        assert "learning_rate" not in seen.logs[epoch]
    assert model.d_optimizer.beta_1 == 0.9
    assert left(model) == []


@pytest.mark.skipif(BACKEND == "jax", reason="Keras needs a compiled optimizer there")
def test_a_model_may_be_compiled_without_an_optimizer(tmp_path: Path) -> None:
    model = duel(optimizer=None)
    with pytest.raises(
        ValueError, match=r'name another .*as in optimizer="d_optimizer"'
    ):
        fit(model, tfs.HyperparameterScheduler(FALL))
    named = tfs.HyperparameterScheduler(FALL, optimizer="g_optimizer")
    fit(model, named, tfs.TensorBoardLogger(tmp_path))
    assert written(model.g)[:8] == pytest.approx(1 - np.arange(8) / 40)
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == ["schedules_d_optimizer", "schedules_g_optimizer"]
    result = tfs.find_learning_rate(
        model, data(4), optimizer="g_optimizer", metric="g_loss", steps=4, verbose=0,
        min_lr=0.1, max_lr=0.8, stop_factor=None, batch_size=2,
    )  # fmt: skip
    assert result.learning_rates == pytest.approx([0.1, 0.2, 0.4, 0.8])


def test_a_rate_that_an_optimizer_was_made_with_is_in_logs() -> None:
    model = duel(keras.optimizers.SGD(tfs.Linear(1.0, 0.0, 40)), critic_steps=2)
    seen = Seen()
    fit(model, tfs.WarmRestarts(0.1, 4, optimizer="g_optimizer"), seen, epochs=2)
    assert written(model.d)[:32] == pytest.approx(1 - np.arange(32) / 40)
    found = [logs["d_optimizer/learning_rate"] for logs in seen.logs]
    assert found == pytest.approx([1 - 15 / 40, 1 - 31 / 40])
    with pytest.raises(ValueError, match="must be a number for a callback to drive"):
        fit(model, tfs.HyperparameterScheduler(FALL, optimizer="d_optimizer"))


def test_with_several_updates_a_batch_a_line_is_followed_to_the_step() -> None:
    model = duel(critic_steps=5)
    fit(model, tfs.HyperparameterScheduler(FALL, optimizer="d_optimizer"))
    assert written(model.d)[:40] == pytest.approx(1 - np.arange(40) / 40, abs=1e-6)
    assert written(model.g)[:8] == pytest.approx(0.25)
    # A second fit begins anew, and without callbacks the last rate stays.
    assert float(model.d_optimizer.learning_rate) == pytest.approx(1 / 40)
    assert left(model) == []


def test_the_compiled_one_beside_another() -> None:
    class Aside(Duel):
        def compile(self, optimizer: Any, d: Any) -> None:
            super().compile(d, optimizer, optimizer=optimizer)

    model = Aside()
    model.compile(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1))
    seen = Seen()
    if BACKEND == "jax":
        pytest.skip("the step of Duel carries `g` among the model's variables")
    of_d = tfs.CyclicalLearningRate(0.1, 0.2, 2, optimizer="d_optimizer")
    fit(model, tfs.HyperparameterScheduler(FALL), of_d, seen)
    assert written(model.g)[:8] == pytest.approx(1 - np.arange(8) / 40)
    saw = [0.1, 0.15, 0.2, 0.15] * 2
    assert written(model.d)[:8] == pytest.approx(saw)
    assert seen.logs[0]["learning_rate"] == pytest.approx(1 - 7 / 40)
    assert seen.logs[0]["d_optimizer/learning_rate"] == pytest.approx(0.15)
    # `g_optimizer` is another name of the compiled one, and no other optimizer.
    with pytest.raises(ValueError, match="'learning_rate' of SGD is driven already"):
        fit(
            model,
            tfs.HyperparameterScheduler(FALL),
            tfs.HyperparameterScheduler(FALL, optimizer="g_optimizer"),
        )


def _found(optimizer: Any) -> Any:
    return optimizer


class Outer(keras.Model):
    """Has its optimizers in all the places in which one may be."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        self.inner.compile(keras.optimizers.SGD(0.1), "mse")
        self.heads = [keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.2)]
        self.named = {"probe": keras.optimizers.SGD(0.3)}
        self._hidden = keras.optimizers.SGD(0.4)
        self.held = types.SimpleNamespace(probe=keras.optimizers.SGD(0.5))
        self.w = self.add_weight((STEPS,), "zeros", name="w")
        self.built = True
        self.choice = lambda: self.heads[0]

    def train_step(self, batch: Any) -> Any:
        step(self.choice(), self.w)
        return {"loss": keras.ops.sum(self.w)}


@pytest.mark.skipif(BACKEND == "jax", reason="the step changes variables")
def test_an_optimizer_is_found_wherever_the_model_has_it() -> None:
    model = Outer()
    model.compile()
    places = {
        "inner.optimizer": model.inner.optimizer,
        "heads.1": model.heads[1],
        "named.probe": model.named["probe"],
        "_hidden": model._hidden,
        "held.probe": model.held.probe,  # in what is no layer: by its name only
    }
    for name, optimizer in places.items():
        model.choice = functools.partial(_found, optimizer)
        model.w.assign(np.zeros(STEPS))
        made = int(optimizer.iterations)
        callback = tfs.HyperparameterScheduler(FALL, optimizer=name)
        model.compile()  # the step has changed
        history = fit(model, callback, batches=3)
        assert written(model.w)[made : made + 3] == pytest.approx([1, 39 / 40, 38 / 40])
        last = history.history[f"{name}/learning_rate"]
        assert last == pytest.approx([38 / 40])
        assert "apply" not in vars(optimizer)
    before = [np.array(v) for v in map(keras.ops.convert_to_numpy, optimizer.variables)]
    tfs.find_learning_rate(model, data(8), optimizer=name, steps=8, verbose=0)
    after = map(keras.ops.convert_to_numpy, optimizer.variables)
    assert all(map(np.array_equal, after, before))


def test_what_is_no_optimizer_of_the_model_is_refused_with_those_that_are() -> None:
    with pytest.raises(TypeError, match=r"must be the name .* Received: optimizer=3"):
        tfs.OneCycle(0.1, optimizer=3)
    with pytest.raises(
        ValueError, match="`optimizer` must be the name of an attribute"
    ):
        tfs.WarmRestarts(0.1, 4, optimizer=" ")
    model = duel()
    for name in ("e_optimizer", "d", "d_optimizer.learning_rate"):
        callback = tfs.HyperparameterScheduler(FALL, optimizer=name)
        with pytest.raises(
            ValueError,
            match=rf"Received: optimizer='{name}'. It has `optimizer` \(RMSprop\), "
            r"`d_optimizer` \(SGD\) and `g_optimizer` \(SGD\)",
        ):
            fit(model, callback)
    other = keras.optimizers.Adam(0.1)
    with pytest.raises(ValueError, match=r"Received: Adam, which it does not have. It"):
        fit(model, tfs.HyperparameterScheduler(FALL, optimizer=other))
    assert left(model) == []


def test_an_unused_compiled_optimizer_is_told_of_with_the_others() -> None:
    model = duel(critic_steps=2)
    way = r"The model also has `d_optimizer` \(SGD\) with 16 updates and `g_optimizer` "
    way += r'\(SGD\) with 8 updates. Name one: {}\(…, optimizer="d_optimizer"\).'
    for callback in (tfs.OneCycle(0.1), tfs.ReduceOnPlateau("d_loss", patience=3)):
        model = duel(critic_steps=2)
        match = "compiled optimizer has made no update.*" + way
        with pytest.warns(UserWarning, match=match.format(type(callback).__name__)):
            history = fit(model, callback, epochs=2)
        assert "learning_rate" not in history.history
    assert left(model) == []


@pytest.mark.skipif(BACKEND == "jax", reason="the step knows its weights by place")
def test_what_is_for_the_compiled_one_tells_no_way_that_it_does_not_have() -> None:
    model = duel()
    groups = [tfs.LayerGroup("d", "^(.*/)?d$"), tfs.LayerGroup("g", "^(.*/)?g$")]
    with pytest.warns(UserWarning, match="GradualUnfreezing is for the compiled"):
        fit(model, tfs.GradualUnfreezing(groups))


def test_lengths_in_epochs_are_for_one_update_a_batch() -> None:
    model = duel()
    fit(model, tfs.OneCycle(0.1, optimizer="g_optimizer"), epochs=2)
    cycle = tfs.one_cycle(0.1, 16)["learning_rate"].values(16)
    assert written(model.g)[:16] == pytest.approx(cycle, rel=1e-5)
    model = duel(critic_steps=5)
    callback = tfs.OneCycle(0.1, optimizer="d_optimizer")
    with pytest.raises(
        ValueError, match=r"`d_optimizer` \(SGD\) makes 5 updates with each training"
    ):
        fit(model, callback, epochs=2)
    if BACKEND != "jax":  # where the step that failed has the state
        assert int(model.d_optimizer.iterations) == 5
    # In updates of its own it is exact, and the length is compared with what is made.
    model = duel(critic_steps=2)
    with pytest.warns(UserWarning, match="at step 40, and this fit has 32 steps"):
        fit(
            model,
            tfs.HyperparameterScheduler(FALL, optimizer="d_optimizer"),
            epochs=2,
        )


def test_steps_of_others_count_for_no_optimizer() -> None:
    model = duel(critic_steps=2)

    class Between(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            rates = 0.5, 0.25
            model.d_optimizer.learning_rate, model.g_optimizer.learning_rate = rates
            model.train_on_batch(data(1))

    rising = tfs.Linear(0.0, 1.0, 100)
    both = [
        tfs.HyperparameterScheduler(rising, optimizer=f"{name}_optimizer")
        for name in ("d", "g")
    ]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*Another callback has set.*")
        fit(model, *both, Between(), batches=4, epochs=2)
    line = np.arange(16) / 100
    d, g = written(model.d), written(model.g)
    assert d[:8] == pytest.approx(line[:8])
    assert d[10:18] == pytest.approx(line[8:])
    assert g[:4] == pytest.approx(line[:4])
    assert g[5:9] == pytest.approx(line[4:8])
    assert d[8:10] == pytest.approx(0.5)
    assert g[4] == pytest.approx(0.25)


def test_a_plateau_rule_reduces_its_own_optimizer() -> None:
    model = duel(critic_steps=2)
    rules = [
        tfs.ReduceOnPlateau("g_loss", 0.5, 1, mode="max", optimizer="d_optimizer"),
        tfs.ReduceOnPlateau("g_loss", 0.1, 1, mode="max", optimizer="g_optimizer"),
    ]
    constant = tfs.HyperparameterScheduler(tfs.Constant(0.8), optimizer="d_optimizer")
    fit(model, constant, *rules, batches=2, epochs=3)
    # The first epoch is the best; each one after it reduces both rates.
    d = np.repeat([0.8, 0.8, 0.4], 4)
    g = np.repeat([0.25, 0.25, 0.025], 2)
    assert written(model.d)[:12] == pytest.approx(d)
    assert written(model.g)[:6] == pytest.approx(g)
    with pytest.raises(ValueError, match="one ReduceOnPlateau for an optimizer"):
        fit(model, rules[0], copy.deepcopy(rules[0]), batches=2)


def test_copies_name_the_same_optimizer() -> None:
    model = duel()
    given = tfs.HyperparameterScheduler(FALL, optimizer=model.d_optimizer)
    named = tfs.HyperparameterScheduler(FALL, optimizer="g_optimizer")
    fit(model, copy.deepcopy(given), pickle.loads(pickle.dumps(named)), batches=3)
    assert written(model.d)[:3] == pytest.approx([1, 39 / 40, 38 / 40])
    assert written(model.g)[:3] == pytest.approx([1, 39 / 40, 38 / 40])


@pytest.mark.skipif(BACKEND == "jax", reason="JAX refuses what is not built")
def test_a_state_that_keras_passes_over_is_told_of(tmp_path: Path) -> None:
    class Unbuilt(Duel):
        def compile(self, d: Any = None, g: Any = None, **arguments: Any) -> None:
            keras.Model.compile(self, **arguments)
            self.d_optimizer = keras.optimizers.SGD(0.5)
            self.g_optimizer = keras.optimizers.SGD(0.5)

    model = Unbuilt()
    model.compile()
    callback = tfs.HyperparameterScheduler(FALL, optimizer="d_optimizer")
    backup = keras.callbacks.BackupAndRestore(str(tmp_path))
    with pytest.warns(UserWarning, match="not built as this fit begins, and BackupAnd"):
        fit(model, callback, backup)
    model = Unbuilt()
    model.compile()
    with pytest.raises(
        ValueError, match=r"no update yet: .*optimizer.build\(weights\)"
    ):
        fit(model, callback, epochs=3, initial_epoch=2)
    fit(
        model,
        tfs.HyperparameterScheduler(FALL, optimizer="d_optimizer", start_step=4),
        batches=2,
        epochs=3,
        initial_epoch=2,
    )
    assert written(model.d)[:2] == pytest.approx([36 / 40, 35 / 40])


# Keras saves the unused optimizer before it is built, and builds it before it loads.
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer 'rm")
@pytest.mark.parametrize("freq", ["epoch", 3])
def test_a_fit_that_was_killed_goes_on_by_that_optimizers_count(
    freq: Any, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    class Kills(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.batches = getattr(self, "batches", 0) + 1
            if self.batches == 13:
                raise Killed("batch 13")

    def callbacks() -> list[Any]:
        backup = keras.callbacks.BackupAndRestore(str(tmp_path), save_freq=freq)
        line = tfs.Linear(0.0, 1.0, 60)
        both = [
            tfs.HyperparameterScheduler(line, optimizer=f"{name}_optimizer")
            for name in ("d", "g")
        ]
        return [*both, backup]

    model = duel(critic_steps=2)
    with pytest.raises(Killed, match="13"):
        fit(model, *callbacks(), Kills(), epochs=3)
    model = duel(critic_steps=2)
    fit(model, *callbacks(), epochs=3)
    made = int(model.d_optimizer.iterations)
    assert made == (48 if freq == "epoch" else 56)  # the epoch is begun anew
    assert written(model.d)[:made] == pytest.approx(np.arange(made) / 60, abs=1e-6)
    assert written(model.g)[: made // 2] == pytest.approx(np.arange(made // 2) / 60)


@pytest.mark.skipif(BACKEND != "jax", reason="others carry no state")
def test_what_jax_does_not_carry_is_refused_with_what_to_do() -> None:
    class Forgets(Duel):
        def compile(self, d: Any = None, g: Any = None, **arguments: Any) -> None:
            keras.Model.compile(self, jit_compile=JIT)
            self.d_optimizer = keras.optimizers.SGD(0.5)

    model = Forgets()
    model.compile()
    callback = tfs.HyperparameterScheduler(FALL, optimizer="d_optimizer")
    for built in (False, True):
        if built:
            model.d_optimizer.build([model.d])
        with pytest.raises(
            ValueError,
            match=r"On JAX .* Those of `d_optimizer` \(SGD\) are not among them.*"
            r"self.state.held = self.d_optimizer.variables.*stateless_apply",
        ):
            fit(model, callback)


@pytest.mark.skipif(BACKEND != "jax", reason="the block is JAX's")
def test_on_jax_the_model_of_the_page_is_driven() -> None:
    here = "test_on_jax_the_model_of_the_page_is_driven"
    page = ROOT / "docs" / "several_optimizers.md"
    (block,) = [b for b in blocks(page) if (b.note or "").endswith(here)]
    scope: dict[str, Any] = {"__name__": "several_optimizers.md", "keras": keras}
    exec(compile(block.code, page.name, "exec"), scope)
    model = scope["Two"]()
    model.compile(keras.optimizers.SGD(0.5))
    history = fit(model, tfs.HyperparameterScheduler(FALL, optimizer="d_optimizer"))
    assert written(model.w) == pytest.approx(np.sum(1 - np.arange(8) / 40))
    assert history.history["d_optimizer/learning_rate"] == pytest.approx([33 / 40])
