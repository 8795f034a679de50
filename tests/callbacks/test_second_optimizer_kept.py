"""Snapshots and groups of layers by an optimizer that is not the compiled one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers import BACKEND
from two_optimizers import STEPS, Duel, data, duel, written

import tfschedules as tfs

pytestmark = pytest.mark.filterwarnings("ignore:.*and this fit has")


def fit(model: keras.Model, *callbacks: Any, batches: int = 8, **arguments: Any) -> Any:
    return model.fit(
        data(batches), batch_size=2, verbose=0, callbacks=[*callbacks], **arguments
    )


@pytest.mark.skipif(BACKEND == "torch", reason="no snapshots there")
@pytest.mark.parametrize("block", [1, 3])
def test_a_snapshot_is_taken_as_that_optimizers_cycle_ends(
    block: int, tmp_path: Path
) -> None:
    model = duel(critic_steps=2, steps_per_execution=block)
    both = [
        tfs.WarmRestarts(0.1, 5, optimizer="d_optimizer"),
        tfs.WarmRestarts(0.1, 4, optimizer="g_optimizer"),
        tfs.SnapshotEnsemble(tmp_path / "d", optimizer="d_optimizer"),
        tfs.SnapshotEnsemble(tmp_path / "g", optimizer=model.g_optimizer),
    ]
    fit(model, *both, batches=12)
    # A batch has two updates of `d`: cycles end after 5, 10, 15 and 20.
    names = {
        folder: sorted(path.name for path in (tmp_path / folder).glob("cycle*"))
        for folder in ("d", "g")
    }
    assert names["d"] == [
        f"cycle_000{i + 1}_step_0000000{5 * (i + 1):02}.keras" for i in range(4)
    ]
    assert names["g"] == [
        f"cycle_000{i + 1}_step_0000000{4 * (i + 1):02}.keras" for i in range(3)
    ]
    for folder, updates in (("d", [6, 10, 16, 20]), ("g", [8, 16, 24])):
        kept = tfs.SnapshotEnsemble.load(tmp_path / folder)
        made = [np.count_nonzero(written(each.d)[:24]) for each in kept]
        rates = 0.05 * (1 + np.cos(np.pi * (np.arange(24) % 5) / 5))
        assert made == updates
        for each, count in zip(kept, updates, strict=True):
            assert written(each.d)[:count] == pytest.approx(rates[:count], rel=1e-5)
    # The same training goes on in its directory; another one is refused.
    again = tfs.SnapshotEnsemble(tmp_path / "g", optimizer="g_optimizer")
    restarts = tfs.WarmRestarts(0.1, 4, optimizer="g_optimizer")
    fit(model, restarts, again, epochs=2, initial_epoch=1, batches=4)
    assert len(list((tmp_path / "g").glob("cycle*"))) == 4
    other = r'this one has no cycles.* optimizer="g_optimizer"\)'
    with pytest.raises(ValueError, match=other):
        fit(model, tfs.SnapshotEnsemble(tmp_path / "x", optimizer="d_optimizer"))


class Layered(Duel):
    """Trains two weights by `d_optimizer`, with rates of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.e = self.add_weight((STEPS,), "zeros", name="e")

    def compile(self, **arguments: Any) -> None:
        groups = [
            tfs.LayerGroup("first", "^(.*/)?d$", multiplier=0.5),
            tfs.LayerGroup("last", "^(.*/)?e$"),
        ]
        keras.Model.compile(self, **arguments)
        self.d_optimizer = tfs.LayerwiseOptimizer(keras.optimizers.SGD(0.1), groups)
        self.d_optimizer.build([self.d, self.e])

    def train_step(self, *arguments: Any) -> Any:
        if BACKEND == "jax":
            return self._with_state(*arguments)
        made = keras.ops.convert_to_tensor(self.d_optimizer.iterations)
        gradient = keras.ops.one_hot(made, STEPS, dtype="float32")
        self.d_optimizer.apply([gradient, gradient], [self.d, self.e])
        return {"loss": keras.ops.sum(self.d**2) + keras.ops.sum(self.e**2)}


@pytest.mark.tensorflow
def test_the_groups_of_a_layerwise_optimizer_follow_it(tmp_path: Path) -> None:
    model = Layered()
    model.compile()
    callback = tfs.HyperparameterScheduler(
        tfs.Linear(1.0, 0.0, 10), optimizer="d_optimizer"
    )
    history = fit(model, callback, tfs.TensorBoardLogger(tmp_path))
    line = 1 - np.arange(8) / 10
    assert written(model.d)[:8] == pytest.approx(line / 2)
    assert written(model.e)[:8] == pytest.approx(line)
    last = {name: values[-1] for name, values in history.history.items()}
    del last["loss"]
    assert last == pytest.approx(
        {
            "d_optimizer/learning_rate": 0.3,
            "d_optimizer/learning_rate/first": 0.15,
            "d_optimizer/learning_rate/last": 0.3,
        }
    )
    from event_files import scalars

    tag = "schedule/d_optimizer/learning_rate/first"
    _, found = scalars(tmp_path / "schedules_d_optimizer", tag)
    assert found == pytest.approx(line / 2)
    assert left_of(model) == []
    # A range test of one group; the other stands still, and all is put back.
    before = written(model.e)
    result = tfs.find_learning_rate(
        model, data(8), optimizer="d_optimizer", group="first", steps=8, verbose=0,
        min_lr=0.01, max_lr=0.1, stop_factor=None, batch_size=2,
    )  # fmt: skip
    rates = np.geomspace(0.01, 0.1, 8)
    made = np.sum(written(model.d) ** 2) + np.sum(before**2) + np.cumsum(rates**2)
    assert result.losses == pytest.approx(made, rel=1e-5)
    assert (written(model.e) == before).all()


def left_of(model: keras.Model) -> list[str]:
    inner = model.d_optimizer.inner_optimizer
    return [n for o in (model, inner) for n in ("apply", "compile") if n in vars(o)]
