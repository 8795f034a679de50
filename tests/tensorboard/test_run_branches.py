"""Which fit resumes another, which branches off, and what else lies in the log_dir."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers import BACKEND, Interrupt
from resumed_runs import fit, model_at, rates, saved, steps

import tfschedules as tfs
from tfschedules.drive import Loan
from tfschedules.tensorboard import EventWriter, Journal, find_run, run_files

pytestmark = [
    pytest.mark.filterwarnings("ignore:The schedule of"),
    pytest.mark.filterwarnings("ignore:The restored rate"),
]


OTHERS = r"new run with .*schedules_1'.*/schedules' was broken off.* other schedules"


def cosine(start: float) -> Any:
    return tfs.HyperparameterScheduler(tfs.Cosine(start, 0.0, 60))


def counts(folder: Path) -> dict[str, list[int]]:
    """The steps of each run, whatever their rates."""
    found = rates(folder)
    return {
        run: sorted(step for those in of.values() for step in those)
        for run, of in found.items()
    }


def broken_off(model: keras.Model, logs: Path, after: int, *others: Any) -> None:
    with pytest.raises(KeyboardInterrupt, match="by the test"):
        fit(model, logs, *others, Interrupt(after), epochs=4)


@pytest.mark.parametrize("caught", ["in the third epoch", "in the first epoch"])
def test_a_trial_that_is_lost_with_its_model_has_all_its_steps(
    tmp_path: Path, caught: str
) -> None:
    """As Optuna prunes it: an exception leaves the function that has made the model.

    The run of one that has made no step is removed.
    """
    after = 4 if caught == "in the first epoch" else 15

    def trial(*others: Any) -> None:
        with contextlib.suppress(KeyboardInterrupt, ValueError):
            fit(model_at(0.1), tmp_path, *others, Interrupt(after), epochs=4)

    class Refuses(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            raise ValueError("by the test")

    trial()
    gc.collect()
    assert counts(tmp_path) == {"schedules": steps(after)}
    journal = Journal(str(tmp_path / "schedules"))
    assert (journal.open_from, journal.left_from, journal.reached) == (None, 0, after)
    trial(Refuses())
    gc.collect()
    assert [path.name for path in tmp_path.iterdir()] == ["schedules"]
    with EventWriter(tmp_path / "schedules"):  # nobody keeps it
        pass


@pytest.mark.parametrize("lost", [False, True])
def test_trials_from_one_file_that_an_exception_ends_have_a_run_each(
    tmp_path: Path, lost: bool
) -> None:
    """Also where they are given the same, and the model is gone before the next."""
    logs, first = tmp_path / "logs", model_at(0.1)
    fit(first, tmp_path / "elsewhere")
    path = saved(first, tmp_path / "m.keras")
    kept = []
    for rate in (0.1, 0.2, 0.2):
        model = keras.saving.load_model(path)
        broken_off(model, logs, 9, cosine(rate))
        if not lost:
            kept.append(model)
        del model
        gc.collect()
    del kept
    expected = counts(logs)
    assert [*expected] == ["schedules", "schedules_1", "schedules_2"]
    for found in expected.values():
        assert found[:6] == steps(6, 12)


def test_a_branch_of_an_interrupted_fit_leaves_its_run_alone(tmp_path: Path) -> None:
    """And what was interrupted goes on in it, from its last state."""
    logs, model = tmp_path / "logs", model_at(0.1)
    checkpoint = keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch}.keras"))
    broken_off(model, logs, 12, checkpoint)
    last = saved(model, tmp_path / "last.keras")
    count = int(model.optimizer.iterations)
    branch = keras.saving.load_model(tmp_path / "1.keras")
    branch.optimizer.learning_rate = 0.002
    fit(branch, logs)
    expected = {"schedules": {0.1: steps(count)}, "schedules_1": {0.002: steps(6, 12)}}
    assert rates(logs) == expected
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "TensorBoardLogger")
        fit(keras.saving.load_model(last), logs)
    expected["schedules"] = {0.1: steps(count + 6)}
    assert rates(logs) == expected


@pytest.mark.parametrize("same", [True, False])
def test_a_backup_is_resumed_in_the_run_if_the_fit_is_given_the_same(
    tmp_path: Path, same: bool
) -> None:
    logs = tmp_path / "logs"

    def backup() -> Any:
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    broken_off(model_at(0.1), logs, 15, cosine(0.1), backup())
    if same:
        fit(model_at(0.1), logs, cosine(0.1), backup(), epochs=4)
        assert counts(logs) == {"schedules": steps(24)}
    else:
        with pytest.warns(UserWarning, match=OTHERS):
            fit(model_at(0.1), logs, cosine(0.2), backup(), epochs=4)
        found = counts(logs)
        assert found["schedules"][:12] == steps(12)
        assert found["schedules_1"] == steps(12, 24)


@pytest.mark.parametrize("same", [True, False])
def test_a_killed_fit_is_resumed_only_by_one_that_is_given_the_same(
    tmp_path: Path, same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is hidden then is told."""
    monkeypatch.setattr(Journal, "leave", lambda *_: None)  # as killed
    logs, model = tmp_path / "logs", model_at(0.1)
    checkpoint = keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch}.keras"))
    broken_off(model, logs, 14, cosine(0.1), checkpoint)
    model = keras.saving.load_model(tmp_path / "1.keras")
    arguments: dict[str, Any] = {"initial_epoch": 1, "epochs": 2}
    if same:
        with pytest.warns(UserWarning, match=r"schedules'.* from 6 to 1\d are hidden"):
            fit(model, logs, cosine(0.1), **arguments)
        assert counts(logs) == {"schedules": steps(12)}
    else:
        with pytest.warns(UserWarning, match=OTHERS):
            fit(model, logs, cosine(0.2), **arguments)
        found = counts(logs)
        assert found["schedules"][:12] == steps(12)
        assert found["schedules_1"] == steps(6, 12)


class Momentum(keras.callbacks.Callback):
    """Sets the momentum by the epoch."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.model.optimizer.momentum = (0.9, 0.8, 0.7, 0.6)[epoch]


@pytest.mark.parametrize("killed", [True, False])
@pytest.mark.parametrize("what", ["momentum", "steps_per_execution", "numbers"])
def test_a_script_that_is_started_again_goes_on_in_its_run(
    tmp_path: Path, what: str, killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a callback sets, and how fast it trains, is none of the schedules."""
    if what == "steps_per_execution" and BACKEND == "torch":
        pytest.skip("refused there")
    if killed:
        monkeypatch.setattr(Journal, "leave", lambda *_: None)
    logs, again = tmp_path / "logs", False

    def script() -> tuple[keras.Model, list[Any]]:
        model, rate = model_at(0.1), np.float32(0.1) if again else 0.1
        if what == "steps_per_execution" and again:
            model.compile(model.optimizer, model.loss, steps_per_execution=3)
        if what == "numbers":
            model.optimizer.momentum = np.float32(0.9) if again else 0.9
            schedule = tfs.Linear(np.float64(0.1), np.float32(0), np.int64(60))
            plain = tfs.Linear(0.1, 0.0, 60)
            both = [tfs.HyperparameterScheduler(schedule if again else plain)]
        else:
            both = [Momentum()] if what == "momentum" else []
        model.optimizer.learning_rate = rate
        return model, [*both, keras.callbacks.BackupAndRestore(tmp_path / "backup")]

    model, callbacks = script()
    broken_off(model, logs, 15, *callbacks)
    del model
    gc.collect()
    again = True
    model, callbacks = script()
    fit(model, logs, *callbacks, epochs=4)
    assert counts(logs) == {"schedules": steps(24)}


HOLDS = """
import fcntl, os, sys
fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)
print(flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(os.name == "nt", reason="there are no such locks")
@pytest.mark.parametrize("here", [True, False])
def test_a_run_that_somebody_keeps_is_named_where_a_fit_would_go_on_in_it(
    tmp_path: Path, here: bool
) -> None:
    """As a fit does that has failed in a notebook, while another process resumes it."""
    logs, run = tmp_path / "logs", tmp_path / "logs" / "schedules"

    def backup() -> Any:
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    model = model_at(0.1)
    broken_off(model, logs, 15, cosine(0.1), backup())
    Loan.end_if_over(model)
    with contextlib.ExitStack() as kept:
        if here:
            kept.enter_context(EventWriter(run))
        else:
            holds = subprocess.Popen(
                [sys.executable, "-c", HOLDS, run],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            kept.enter_context(holds)
            assert holds.stdout is not None
            holds.stdout.readline()
        who = "another fit of this process" if here else "another process"
        message = rf"new run with step 12, .*schedules_1'.*schedules', is kept by {who}"
        with pytest.warns(UserWarning, match=message):
            fit(model_at(0.1), logs, cosine(0.1), backup(), epochs=4)
    found = counts(logs)
    assert found == {"schedules": steps(15), "schedules_1": steps(12, 24)}


class Goes(keras.callbacks.Callback):
    """Goes to another folder after an epoch."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        os.chdir(self.folder)


def test_a_fit_that_changes_the_folder_writes_into_the_run_that_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        monkeypatch.chdir(folder)
        fit(model_at(0.1), Path("logs"))
    journals = [f / "logs" / "schedules" / "tfschedules.run" for f in (here, there)]
    before = [journal.read_bytes() for journal in journals]
    monkeypatch.chdir(here)
    fit(model_at(0.2), Path("logs"), Goes(there), epochs=2)
    assert [journal.read_bytes() for journal in journals] == before
    assert counts(there / "logs") == {"schedules": steps(6)}
    expected = {"schedules": steps(6), "schedules_1": steps(12)}
    assert counts(here / "logs") == expected
    assert "end 12" in (here / "logs/schedules_1/tfschedules.run").read_text()


@pytest.mark.parametrize("trained", [False, True])
def test_a_damaged_run_keeps_no_fit_from_beginning(
    tmp_path: Path, trained: bool
) -> None:
    """It is a folder here, where the file of the journal is expected."""
    logs, model = tmp_path / "logs", model_at(0.1)
    fit(model, logs)
    path = saved(model, tmp_path / "m.keras")
    (logs / "schedules_1" / "tfschedules.run").mkdir(parents=True)
    fit(keras.saving.load_model(path) if trained else model_at(0.2), logs)
    shutil.rmtree(logs / "schedules_1")
    new = {"schedules": {0.1: steps(6)}, "schedules_2": {0.2: steps(6)}}
    assert rates(logs) == ({"schedules": {0.1: steps(12)}} if trained else new)


@contextlib.contextmanager
def another_user() -> Iterator[None]:
    """Who is not root, and owns nothing."""
    if os.geteuid() == 0:
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)
    else:
        yield


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="there are no such modes")
@pytest.mark.parametrize("mode", [0o000, 0o555])
def test_runs_of_somebody_else_are_passed_over(mode: int) -> None:
    """Of one that may not be read nothing is known; one that may has the state."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    run_dir, state = folder / "schedules", "5ca1ab1e" * 4
    try:
        journal = find_run(folder, "schedules", 0).journal
        journal.begin(0)
        journal.note_state(5, state)
        journal.end(5)
        run_files.let_go(journal.run_dir)
        (run_dir / "tfschedules.run").chmod(0o444)
        run_dir.chmod(mode)
        with another_user():
            for step in (0, 5):
                found = find_run(folder, "schedules", step, state if step else None)
                readable = mode == 0o555 and step > 0
                assert ("cannot be written to" in found.passed_over) == readable
                assert Path(found.journal.run_dir).name == "schedules_1"
                run_files.let_go(found.journal.run_dir)
    finally:
        run_dir.chmod(0o755)
        shutil.rmtree(folder)


def test_a_run_that_cannot_be_written_to_after_all_is_left_for_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems tell so only then."""
    model, logs = model_at(0.1), tmp_path / "logs"
    fit(model, logs)
    writer = run_files.EventWriter

    def refusing(run_dir: str) -> Any:
        if run_dir == str(logs / "schedules"):
            raise PermissionError(13, "Permission denied")
        return writer(run_dir)

    monkeypatch.setattr(run_files, "EventWriter", refusing)
    with pytest.warns(UserWarning, match="cannot be written to: .*Permission denied"):
        fit(model, logs)
    assert counts(logs) == {"schedules": steps(6), "schedules_1": steps(6, 12)}


def test_a_killed_run_is_read_from_its_end(tmp_path: Path) -> None:
    """By an independent reading of all of it."""
    from tfschedules.tensorboard import EventWriter, last_step
    from tfschedules.tensorboard.runs import shown_before

    assert shown_before(str(tmp_path)) == 0
    for first, count in ((0, 5), (3, 0), (3, 1), (4, 6)):
        with EventWriter(tmp_path) as writer:
            writer.restart(first)
            if count:
                made = [*range(first, first + count)]
                writer.scalars(made, [1.7e9] * count, {"a": made})
        shown = last_step(tmp_path)
        assert shown is not None
        assert shown_before(str(tmp_path)) == shown + 1
