"""Each optimizer of a model is recorded under its own tags, over its own updates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from event_files import row, runs, scalars
from two_optimizers import data, duel

import tfschedules as tfs

LINE = tfs.Linear(0.0, 1.0, 100)

pytestmark = pytest.mark.filterwarnings("ignore:.*and this fit has")


def fit(model: keras.Model, *callbacks: Any, **arguments: Any) -> Any:
    return model.fit(
        data(8), batch_size=2, verbose=0, callbacks=[*callbacks], **arguments
    )


def test_each_optimizer_has_its_run_and_its_tags(tmp_path: Path) -> None:
    adam = keras.optimizers.AdamW(0.5, weight_decay=0.25)
    model = duel(adam, critic_steps=3)
    drives = {"learning_rate": LINE, "momentum": tfs.Linear(1.0, 0.0, 100)}
    both = [
        tfs.HyperparameterScheduler(optimizer="d_optimizer", **drives),
        tfs.OneCycle(0.1, optimizer="g_optimizer"),
    ]
    fit(model, *both, tfs.TensorBoardLogger(tmp_path), epochs=2)
    # The compiled one makes no update, and has no run.
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "schedules_d_optimizer",
        "schedules_g_optimizer",
    ]
    d, g = tmp_path / "schedules_d_optimizer", tmp_path / "schedules_g_optimizer"
    line = np.arange(48) / 100
    columns = {
        "learning_rate": line,
        "momentum": 1 - line,
        "weight_decay": 0.25 + 0 * line,
    }
    for name, values in columns.items():
        steps, found = scalars(d, f"schedule/d_optimizer/{name}")
        assert steps == list(range(48))
        assert found == pytest.approx(values, abs=1e-6)
    cycle = tfs.one_cycle(0.1, 16)["learning_rate"].values(16)
    steps, found = scalars(g, "schedule/g_optimizer/learning_rate")
    assert (steps, found) == (list(range(16)), pytest.approx(cycle, rel=1e-6))
    assert row(d)["optimizer"] == "AdamW"
    assert {"schedule": "OneCycle", "optimizer": "SGD"}.items() <= row(g).items()
    # The next fit of the training goes on in both.
    fit(model, tfs.TensorBoardLogger(tmp_path))
    steps, found = scalars(d, "schedule/d_optimizer/learning_rate")
    assert steps == list(range(72))
    assert found[48:] == pytest.approx([0.47] * 24)
    steps, _ = scalars(g, "schedule/g_optimizer/learning_rate")
    assert steps == list(range(24))


def test_beside_the_compiled_one_it_has_the_losses(tmp_path: Path) -> None:
    extra = keras.Variable([0.0])  # none of the model's: the compiled one has no part

    class Aside(keras.Sequential):
        def train_step(self, *arguments: Any) -> Any:
            logs = super().train_step(*arguments)
            if keras.backend.backend() != "jax":
                self.other.apply([keras.ops.ones(1)], [extra])
            return logs

    model = Aside([keras.Input((1,)), keras.layers.Dense(1)])
    model.other = keras.optimizers.SGD(0.125)
    model.other.build([extra])
    model.compile("sgd", "mse")
    logger = tfs.TensorBoardLogger(tmp_path)
    model.fit(
        data(8), data(8), batch_size=2, verbose=0,
        callbacks=[tfs.HyperparameterScheduler(LINE), logger],
    )  # fmt: skip
    steps, losses = scalars(tmp_path / "schedules", "schedule/loss")
    assert (steps, losses) == (list(range(8)), pytest.approx([0.0] * 8))
    steps, found = scalars(tmp_path / "schedules", "schedule/learning_rate")
    assert (steps, found) == (list(range(8)), pytest.approx(LINE.values(8)))
    if keras.backend.backend() == "jax":  # whose step updates the compiled one alone
        assert [path.name for path in tmp_path.iterdir()] == ["schedules"]
    else:
        other = tmp_path / "schedules_other"
        steps, found = scalars(other, "schedule/other/learning_rate")
        assert (steps, found) == (list(range(8)), pytest.approx([0.125] * 8))


def test_a_batch_with_several_updates_has_one_loss_for_them(tmp_path: Path) -> None:
    class Thrice(keras.Model):
        """Updates the compiled optimizer three times, and gives the loss once."""

        def __init__(self) -> None:
            super().__init__()
            self.w = self.add_weight((1,), "zeros", name="w")
            self.built = True

        def train_step(self, batch: Any) -> Any:
            for _ in range(3):
                self.optimizer.apply([keras.ops.ones(1)], [self.w])
            self._loss_tracker.update_state(-keras.ops.sum(self.w))
            return {"loss": self._loss_tracker.result()}

    if keras.backend.backend() == "jax":
        pytest.skip("the step changes variables")
    model = Thrice()
    model.compile(keras.optimizers.SGD(1.0))
    fit(model, tfs.TensorBoardLogger(tmp_path))
    steps, losses = scalars(tmp_path / "schedules", "schedule/loss")
    assert steps == list(range(24))
    assert losses == pytest.approx(np.repeat(3.0 * np.arange(1, 9), 3))
    assert [Path(run).name for run in runs(tmp_path)] == ["schedules"]
