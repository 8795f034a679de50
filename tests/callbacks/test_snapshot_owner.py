"""Whose snapshots lie in a directory: its own training goes on there, no other does."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers import BACKEND, Interrupt, digits, softmax_regression

import tfschedules as tfs
from tfschedules.callbacks import snapshot_files, snapshot_owner

pytestmark = [
    pytest.mark.skipif(BACKEND == "torch", reason="refused there"),
    pytest.mark.filterwarnings("ignore:The schedule of"),
]

SGD = keras.optimizers.SGD
X, Y = digits(48)  # six batches of eight to an epoch
STRANGE = "snapshots that are not known to be of this training"


def model_at(momentum: float = 0.9) -> keras.Model:
    """Two momenta make two trainings, with the same counts and the same schedule."""
    return softmax_regression(SGD(0.1, momentum=momentum))


def fit(model: keras.Model, *callbacks: Any, **arguments: Any) -> keras.Model:
    arguments = {"epochs": 2, "shuffle": False, "verbose": 0} | arguments
    cycles = tfs.WarmRestarts(0.2, first_cycle=5)
    model.fit(X, Y, batch_size=8, callbacks=[cycles, *callbacks], **arguments)
    return model


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*")}


def steps_in(folder: Path) -> list[int]:
    return sorted(int(path.stem.split("_")[3]) for path in folder.glob("*.keras"))


def weights_in(folder: Path) -> dict[int, list[np.ndarray]]:
    return {
        int(path.stem.split("_")[3]): keras.saving.load_model(path).get_weights()
        for path in folder.glob("*.keras")
    }


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """What nobody expects is an error also where a fit goes on after it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "SnapshotEnsemble")
        yield


def elsewhere() -> None:
    """To call where a process ends: the next one knows no directory of before."""
    gc.collect()
    snapshot_owner._own.clear()


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """Snapshots of a training at 5 and 10, and its model in a file, at 12."""
    fit(model_at(), tfs.SnapshotEnsemble(tmp_path / "kept")).save(tmp_path / "a.keras")
    elsewhere()
    return tmp_path / "kept"


def resumed(path: Path, folder: Path, **arguments: Any) -> keras.Model:
    """Go on from a file, as in a new process."""
    model = keras.saving.load_model(path)
    epoch = int(model.optimizer.iterations) // 6
    kept = tfs.SnapshotEnsemble(folder, **arguments)
    return fit(model, kept, initial_epoch=epoch, epochs=epoch + 1)


# Goes on, or not.


def test_a_training_goes_on_from_its_file(first: Path, tmp_path: Path) -> None:
    resumed(tmp_path / "a.keras", first)
    assert steps_in(first) == [5, 10, 15]
    whole = fit(model_at(), tfs.SnapshotEnsemble(tmp_path / "whole"), epochs=3)
    expected = weights_in(tmp_path / "whole")
    for step, found in weights_in(first).items():
        for one, other in zip(found, expected[step], strict=True):
            np.testing.assert_array_equal(one, other)
    assert int(whole.optimizer.iterations) == 18


def test_another_model_with_the_same_count_and_schedule_is_refused(
    first: Path, tmp_path: Path
) -> None:
    """Before anything is changed; with a directory of its own it is trained."""
    other = tmp_path / "b.keras"
    fit(model_at(0.5)).save(other)
    before = contents(first)
    with pytest.raises(ValueError, match=STRANGE) as error:
        resumed(other, first)
    assert "cycle_0001_step_000000005.keras and 1 more" in str(error.value)
    assert "never in the state, after 12 updates, in which this fit" in str(error.value)
    assert "Give another directory" in str(error.value)
    assert "overwrite=True) goes on here" in str(error.value)
    assert contents(first) == before
    resumed(other, tmp_path / "its own")
    assert steps_in(tmp_path / "its own") == [15]
    resumed(tmp_path / "a.keras", first)  # the first is not put out by that
    assert steps_in(first) == [5, 10, 15]


def test_overwrite_lets_it_go_on_and_says_so(first: Path, tmp_path: Path) -> None:
    """From then on the directory is the other's."""
    other = tmp_path / "b.keras"
    fit(model_at(0.5)).save(other)
    with pytest.warns(UserWarning, match="goes on in '.*kept', and .* are not known"):
        resumed(other, first, overwrite=True).save(other)
    assert steps_in(first) == [5, 10, 15]
    elsewhere()
    resumed(other, first)
    assert steps_in(first) == [5, 10, 15, 20]
    with pytest.raises(ValueError, match=STRANGE):
        resumed(tmp_path / "a.keras", first)


@pytest.mark.parametrize("how", ["no journal", "by hand"])
def test_what_nobody_has_noted_is_not_guessed(
    first: Path, tmp_path: Path, how: str
) -> None:
    if how == "no journal":
        (first / ".tfschedules").unlink()
        with pytest.raises(ValueError, match=r"There is no journal in it \(\.tfsched"):
            resumed(tmp_path / "a.keras", first)
        return
    model = model_at()
    model.set_weights(keras.saving.load_model(tmp_path / "a.keras").get_weights())
    cycles = tfs.WarmRestarts(0.2, first_cycle=5, start_step=12)
    with pytest.raises(ValueError, match=STRANGE):
        model.fit(X, Y, verbose=0, callbacks=[cycles, tfs.SnapshotEnsemble(first)])


def test_a_directory_without_snapshots_is_anybodys_and_then_its_own(
    tmp_path: Path,
) -> None:
    """The journal of another training that kept none does not count."""
    folder, one, other = (tmp_path / name for name in ("kept", "a.keras", "b.keras"))
    fit(model_at(), tfs.SnapshotEnsemble(folder), epochs=2).save(one)
    for path in folder.glob("*.keras"):
        path.unlink()
    fit(model_at(0.5)).save(other)
    resumed(other, folder).save(other)
    assert steps_in(folder) == [15]
    elsewhere()
    with pytest.raises(ValueError, match=STRANGE):
        resumed(one, folder)
    resumed(other, folder)
    assert steps_in(folder) == [15, 20]


# Where a state is saved, it is noted.


@pytest.mark.parametrize(
    ("how", "block"), [("weights", 2), ("a model", 1), ("the snapshot itself", 2)]
)
def test_a_state_that_is_saved_within_an_epoch_is_known(
    tmp_path: Path, how: str, block: int
) -> None:
    """The fit is broken off later, and its last snapshots are made again."""
    folder, path = tmp_path / "kept", tmp_path / "m.weights.h5"
    model = softmax_regression(SGD(0.1, momentum=0.9), steps_per_execution=block)
    save: list[Any] = []
    if how != "the snapshot itself":
        weights = how == "weights"
        path = path if weights else tmp_path / "m.keras"
        arguments = {"save_weights_only": weights, "save_freq": 8}
        save = [keras.callbacks.ModelCheckpoint(str(path), **arguments)]
    with pytest.raises(KeyboardInterrupt, match="by the test"):
        fit(model, *save, tfs.SnapshotEnsemble(folder), Interrupt(11 // block))
    if how == "the snapshot itself":
        path = folder / "cycle_0002_step_000000010.keras"
    del model
    elsewhere()
    model = model_at()
    if how == "weights":
        model.load_weights(path)
    else:
        model = keras.saving.load_model(path)
    made = int(model.optimizer.iterations)
    assert made == (10 if how == "the snapshot itself" else 8)
    fit(model, tfs.SnapshotEnsemble(folder), initial_epoch=1)
    assert steps_in(folder) == ([5, 10] if made == 8 else [5, 10, 15])


def test_who_goes_on_from_an_earlier_state_has_the_directory(
    first: Path, tmp_path: Path
) -> None:
    """The snapshot at 10 is made again: what has led to the end is there no more."""
    early = tmp_path / "early.keras"
    fit(model_at(), epochs=1).save(early)  # as the first was after its first epoch
    model = keras.saving.load_model(early)
    model.optimizer.momentum = 0.3
    branch = fit(model, tfs.SnapshotEnsemble(first), initial_epoch=1)
    branch.save(early)
    elsewhere()
    with pytest.raises(ValueError, match=r"in its state once, but a fit has gone on"):
        resumed(tmp_path / "a.keras", first)
    resumed(early, first)
    assert steps_in(first) == [5, 10, 15]


def test_a_model_put_back_inside_of_a_fit(tmp_path: Path) -> None:
    """States that were undone are known no more; what was made of others is."""
    folder, at_6, at_12 = (tmp_path / n for n in ("kept", "6.keras", "12.keras"))

    class Rollback(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == 0:
                self.model.save(at_6)
            if epoch == 1:
                self.model.save(at_12)
                saved = keras.saving.load_model(at_6)
                self.model.set_weights(saved.get_weights())
                pairs = zip(
                    self.model.optimizer.variables,
                    saved.optimizer.variables,
                    strict=True,
                )
                for variable, value in pairs:
                    variable.assign(value)

    class Fewer(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:  # so that the steps that are made again are others
                self.model.set_weights([0.9 * w for w in self.model.get_weights()])

    kept = tfs.SnapshotEnsemble(folder)
    model = fit(model_at(), kept, Rollback(), Fewer(), epochs=3)
    model.save(tmp_path / "last.keras")
    assert int(model.optimizer.iterations) == 12
    elsewhere()
    with pytest.raises(ValueError, match=r"in its state once, but a fit has gone on"):
        resumed(at_12, folder)
    resumed(tmp_path / "last.keras", folder)
    assert steps_in(folder) == [5, 10, 15]


# In one process.


def test_a_model_whose_weights_somebody_changes_goes_on_in_its_directory(
    tmp_path: Path,
) -> None:
    """Its optimizer is known here; with steps beyond it is another matter."""
    model, folder = model_at(), tmp_path / "kept"
    fit(model, tfs.SnapshotEnsemble(folder))
    before = [np.array(w) for w in model.get_weights()]
    model.set_weights([0.5 * w for w in before])
    fit(model, tfs.SnapshotEnsemble(folder), initial_epoch=2, epochs=3)
    assert steps_in(folder) == [5, 10, 15]
    model.optimizer.iterations.assign(12)
    with pytest.raises(ValueError, match=STRANGE):
        fit(model, tfs.SnapshotEnsemble(folder), initial_epoch=2, epochs=3)


# What cannot be written or read.


def test_a_journal_that_cannot_be_written_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the snapshots are kept all the same."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshot_owner._Journal, "_append", full)
    with pytest.warns(UserWarning, match="cannot note in") as warned:
        fit(model_at(), tfs.SnapshotEnsemble(tmp_path)).save(tmp_path / "m.keras")
    said = [w for w in warned if str(w.message).startswith("SnapshotEnsemble")]
    assert len(said) == 1
    assert "No space left on device. Training goes on" in str(said[0].message)
    assert len(list(tmp_path.glob("cycle_*"))) == 2


def test_half_a_line_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full takes a part of it."""
    journal = snapshot_owner._Journal(tmp_path / "j")
    journal.make()
    whole = (tmp_path / "j").read_bytes()

    class Full:
        def __init__(self, file: Any) -> None:
            self.file, self.written = file, False

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def __enter__(self) -> Any:
            return self

        def write(self, data: bytes) -> int:
            if self.written:
                raise OSError(28, "No space left on device")
            self.written = True
            return int(self.file.write(data[: len(data) // 2]))

        def __exit__(self, *_: Any) -> None:
            self.file.close()

    opened = os.fdopen
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdopen", lambda *a, **k: Full(opened(*a, **k)))
        with pytest.raises(OSError, match="No space left"):
            journal.note_state(3, "5ca1ab1e")
    assert (tmp_path / "j").read_bytes() == whole
    journal.note_state(4, "f00d")
    assert snapshot_owner._Journal(tmp_path / "j").passed(4, "f00d")


def test_only_snapshots_are_found_by_a_pattern(first: Path) -> None:
    import glob

    assert len(glob.glob(str(first / "*"))) == 2  # noqa: PTH207 - as a shell does
    assert (first / ".tfschedules").stat().st_size < 500
    assert len(snapshot_files.snapshots_in(first)) == 2
