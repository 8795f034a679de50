"""A model put back in the middle of a fit: what is made again is recorded at once.

The oracle is a list of what each step really had: its count, and the weights before it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers import BACKEND, Interrupt, digits, softmax_regression
from tensorboard.backend.event_processing import event_accumulator

import tfschedules as tfs
from tfschedules.drive import fingerprint
from tfschedules.tensorboard import Journal, recording, run_files

SGD = keras.optimizers.SGD
X, Y = digits(80)  # ten batches of eight to an epoch
pytestmark = pytest.mark.filterwarnings("ignore:The schedule of")


def loss_of(weights: list[np.ndarray], batch: int) -> float:
    """The mean cross-entropy of a batch, in float64."""
    x, y = X[8 * batch : 8 * batch + 8], Y[8 * batch : 8 * batch + 8]
    logits = x.astype(np.float64) @ weights[0] + weights[1]
    return float(np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(8), y]))


class Course(keras.callbacks.Callback):
    """Notes the count and the batch's loss before each step, and goes back once.

    `set_back` is called in the batch `at` of an epoch, and there is a save at `save`.
    """

    def __init__(
        self,
        folder: Path,
        save: tuple[int, int],
        back: tuple[int, int],
        when: str = "end",
        load: Callable[[keras.Model, str], None] = lambda m, path: m.load_weights(path),
    ) -> None:
        super().__init__()
        self.path = str(folder / "saved.weights.h5")
        self.save, self.back, self.when, self.load = save, back, when, load
        self.made: list[tuple[int, float]] = []
        self.state: tuple[int, str] | None = None
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self.when == "begin":
            self.turn(batch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.when == "end":
            self.turn(batch)

    def turn(self, batch: int) -> None:
        at, model = (self.epoch, batch), self.model
        if at == self.save:
            model.save_weights(self.path)
        elif at == self.back:
            self.load(model, self.path)
            self.state = int(model.optimizer.iterations), fingerprint(model)


class Seen(keras.callbacks.Callback):
    """Stands last: what each step begins with."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[int, float]] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        weights = [np.asarray(w, np.float64) for w in self.model.get_weights()]
        count = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        self.made.append((count, loss_of(weights, batch)))


def fit(model: keras.Model, *callbacks: Any, epochs: int = 3) -> None:
    arguments = {"batch_size": 8, "shuffle": False, "verbose": 0}
    model.fit(X, Y, epochs=epochs, callbacks=[*callbacks], **arguments)


def model_of(optimizer: Any = None) -> keras.Model:
    return softmax_regression(optimizer or SGD(0.1, momentum=0.9))


def losses_in(run: Path) -> dict[int, float]:
    """The losses of a run as TensorBoard shows them, by step."""
    found = event_accumulator.EventAccumulator(str(run), size_guidance={"scalars": 0})
    found.Reload()
    return {event.step: event.value for event in found.Scalars("schedule/loss")}


def runs_of(logs: Path) -> list[dict[int, float]]:
    return [losses_in(run) for run in sorted(logs.iterdir())]


def expected_runs(made: list[tuple[int, float]]) -> list[dict[int, float]]:
    """A run for each rise of the counts."""
    runs: list[dict[int, float]] = [{}]
    for count, loss in made:
        if runs[-1] and count <= max(runs[-1]):
            runs.append({})
        runs[-1][count] = loss
    return runs


def agree(logs: Path, made: list[tuple[int, float]], count: int) -> None:
    found, expected = runs_of(logs), expected_runs(made)
    assert [[*run] for run in found] == [[*run] for run in expected]
    assert len(found) == count
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose([*one.values()], [*other.values()], rtol=2e-4)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read late is read late: nothing is written by the clock."""
    monkeypatch.setattr(recording, "_SECONDS_BETWEEN_WRITES", 1000.0)


def by_assignment(model: keras.Model, path: str) -> None:
    """As from copies in memory."""
    other = model_of()
    other.load_weights(path)
    model.set_weights(other.get_weights())
    pairs = zip(model.optimizer.variables, other.optimizer.variables, strict=True)
    for variable, value in pairs:
        variable.assign(value.value)


def loads(model: keras.Model, path: str) -> None:
    model.load_weights(path)


# The old count is reached again before the epoch ends in the first and the last case,
# and is not in the second.
@pytest.mark.parametrize(
    ("save", "back", "when", "order", "load"),
    [
        ((1, 1), (1, 4), "end", "logger last", loads),
        ((1, 0), (1, 7), "begin", "logger first", loads),
        ((0, 3), (1, 6), "end", "logger first", by_assignment),
        ((1, 2), (1, 5), "begin", "logger last", by_assignment),
    ],
)
def test_steps_that_are_made_again_are_recorded_from_the_first_on(
    tmp_path: Path, save: Any, back: Any, when: str, order: str, load: Any
) -> None:
    logs, seen = tmp_path / "logs", Seen()
    course, logger = (
        Course(tmp_path, save, back, when, load),
        tfs.TensorBoardLogger(logs),
    )
    callbacks = [logger, course] if order == "logger first" else [course, logger]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Skipping variable loading")
        fit(model_of(), *callbacks, seen)
    counts = [count for count, _ in seen.made]
    assert sorted({*counts}) != counts
    agree(logs, seen.made, 2)


@pytest.mark.parametrize("order", ["logger first", "logger last"])
def test_states_are_noted_in_the_journal_of_the_steps_that_led_to_them(
    tmp_path: Path, order: str
) -> None:
    """The state that was gone back to is the second run's, too; its end is no other's.

    The old count, 14, is not reached again before the last save.
    """
    logs = tmp_path / "logs"
    saved: dict[str, tuple[int, str]] = {}

    class Save(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 6 and course.state is not None and not saved:
                self.model.save_weights(tmp_path / "again.weights.h5")
                made = int(self.model.optimizer.iterations)
                saved["again"] = made, fingerprint(self.model)

    course, logger = Course(tmp_path, (1, 1), (1, 4)), tfs.TensorBoardLogger(logs)
    callbacks = [logger, course] if order == "logger first" else [course, logger]
    model = model_of()
    fit(model, *callbacks, Save(), epochs=2)
    assert course.state is not None
    assert (course.state[0], saved["again"][0]) == (12, 14)
    first, second = (Journal(str(run)) for run in sorted(logs.iterdir()))
    assert first.passed(*course.state)  # it was saved there
    assert second.passed(*course.state)
    assert not first.passed(*saved["again"])
    assert second.passed(*saved["again"])
    last = int(model.optimizer.iterations), fingerprint(model)
    assert second.passed(*last)
    assert not first.passed(*last)
    assert (first.reached, second.reached) == (15, 17)


def test_a_rollback_at_the_very_end_is_no_state_of_later_steps(tmp_path: Path) -> None:
    """And makes no empty run. The next fit begins its run at once."""
    logs, seen = tmp_path / "logs", Seen()
    course, model = Course(tmp_path, (0, 4), (0, 9)), model_of()
    fit(model, course, tfs.TensorBoardLogger(logs), seen, epochs=1)
    (run,) = logs.iterdir()
    journal = Journal(str(run))
    assert course.state is not None
    assert journal.passed(*course.state)
    assert journal.reached == 10
    fit(model, tfs.TensorBoardLogger(logs), seen, epochs=1)
    agree(logs, seen.made, 2)


@pytest.mark.skipif(BACKEND == "torch", reason="refused there")
def test_snapshots_are_made_again_at_once(tmp_path: Path) -> None:
    """A cycle ends at 13, the model is put back from 15 to 12 within the epoch."""
    folder = tmp_path / "kept"

    class Other(keras.callbacks.Callback):
        """So that what is made again is something else."""

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if (course.epoch, batch) == (1, 4):
                weights = [0.5 * w for w in self.model.get_weights()]
                self.model.set_weights(weights)

    course, other = Course(tmp_path, (1, 1), (1, 4)), Other()
    cycles = tfs.WarmRestarts(1e-6, first_cycle=13)
    model = model_of()
    kept = tfs.SnapshotEnsemble(folder)
    fit(model, cycles, course, other, kept, epochs=2)
    path = folder / "cycle_0001_step_000000013.keras"
    found = keras.saving.load_model(path).get_weights()
    saved = model_of()
    saved.load_weights(course.path)
    assert int(saved.optimizer.iterations) == 12
    # One step with hardly a rate, and what momentum has left, from half the weights.
    assert np.linalg.norm(found[0]) < 0.75 * np.linalg.norm(saved.get_weights()[0])


@pytest.mark.tensorflow
@pytest.mark.parametrize("within", [False, True])
def test_what_keras_does_not_see_is_told_or_found_between_epochs(
    tmp_path: Path, within: bool
) -> None:
    import tensorflow as tf

    logs, seen, model = tmp_path / "logs", Seen(), model_of()
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)

    class Rollback(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.epoch = epoch
            if epoch == 1:
                self.path = checkpoint.save(str(tmp_path / "c"))
            if epoch == 2 and not within:
                checkpoint.restore(self.path)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if within and (self.epoch, batch) == (1, 4):
                checkpoint.restore(self.path)

    callbacks = [Rollback(), tfs.TensorBoardLogger(logs), seen]
    if not within:
        fit(model, *callbacks)
        agree(logs, seen.made, 2)
        return
    with pytest.warns(UserWarning, match=r"has not recorded the last steps before st"):
        fit(model, *callbacks)
    for run in runs_of(logs):  # what is shown is right
        for step, loss in run.items():
            assert any(
                count == step and np.isclose(loss, other, rtol=2e-4)
                for count, other in seen.made
            )


@pytest.mark.parametrize("eager", [False, True])
def test_nothing_is_read_or_called_in_a_fit_without_a_rollback(
    tmp_path: Path, eager: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is anything left of it."""
    called: list[str] = []
    for name in ("put_back", "was_put_back"):
        monkeypatch.setattr(
            recording.Recorder, name, lambda *_, name=name: called.append(name)
        )
    model = model_of()
    model.compile(SGD(0.1), model.loss, run_eagerly=eager)
    counter = model.optimizer._iterations
    with pytest.raises(KeyboardInterrupt, match="by the test"):
        fit(model, tfs.TensorBoardLogger(tmp_path), Interrupt(13))
    fit(model, tfs.TensorBoardLogger(tmp_path), tfs.TensorBoardLogger(tmp_path / "b"))
    assert called == []
    assert "assign" not in vars(counter)
    assert not [*run_files._recorded]
