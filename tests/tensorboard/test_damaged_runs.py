"""A run whose journal is damaged, or of a later version: nobody touches it."""

from __future__ import annotations

import gc
import re
import warnings
from pathlib import Path
from typing import Any

import keras
import pytest
from resumed_runs import fit, model_at, rates, saved, steps

from tfschedules.drive import Loan
from tfschedules.tensorboard import EventWriter, Journal, begin_run, let_go, run_files
from tfschedules.tensorboard.identity import discard

NAME = "tfschedules.run"
DAMAGES = {
    "cut after its first line": lambda data: data.split(b"\n")[0] + b"\n",
    "of a later version": lambda data: re.sub(rb"begin 0", rb"begin 0 v2", data),
    "with zeros inside": lambda data: data.replace(b"begin 0\n", bytes(8)),
    "with zeros at its end": lambda data: data[:40] + bytes(len(data) - 40),
    "all zeros": lambda data: bytes(len(data)),
    "empty": lambda data: b"",
    "with a line of no known form": lambda data: data + b"paused 6\n",
}


class Refuses(keras.callbacks.Callback):
    """Stands for what ends a fit before its first step."""

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        raise ValueError("by the test")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("damage", DAMAGES)
def test_no_fit_deletes_or_hides_or_changes_anything_of_it(
    damage: str, tmp_path: Path
) -> None:
    """Not one without a step, nor one of a new model, nor its own from a file."""
    logs, model = tmp_path / "logs", model_at(0.1)
    fit(model, logs)
    path = saved(model, tmp_path / "m.keras")
    journal = logs / "schedules" / NAME
    journal.write_bytes(DAMAGES[damage](journal.read_bytes()))
    before = contents(logs)
    del model
    gc.collect()
    run_files._runs.clear()  # as in another process
    refused = model_at(0.3)
    with pytest.raises(ValueError, match="by the test"):
        fit(refused, logs, Refuses())
    Loan.end_if_over(refused)
    assert contents(logs) == before
    fit(model_at(0.3), logs)
    with pytest.warns(UserWarning, match="its run's journal is damaged"):
        fit(keras.saving.load_model(path), logs)
    assert before.items() <= contents(logs).items()
    assert rates(logs) == {
        "schedules": {0.1: steps(6)},
        "schedules_1": {0.3: steps(6)},
        "schedules_2": {0.1: steps(6, 12)},
    }


def test_of_a_run_that_is_not_used_nothing_else_is_deleted(tmp_path: Path) -> None:
    """Neither what lies beside it, nor one that another process has made."""

    def made() -> tuple[Journal, str, Path]:
        journal = begin_run(tmp_path, "schedules")
        with EventWriter(journal.run_dir) as writer:
            return journal, writer.path, Path(journal.run_dir)

    journal, path, run = made()
    (run / "events.out.tfevents.9999999999.of.another").touch()
    (run / "notes.txt").write_text("mine")
    before = contents(tmp_path)
    discard(journal, path)
    assert contents(tmp_path) == before
    (run / "notes.txt").unlink()
    discard(journal, path)
    assert len(contents(tmp_path)) == 3
    again = begin_run(tmp_path, "schedules")  # which is taken as it is
    assert again.id == journal.id
    let_go(again.run_dir)
    (run / "events.out.tfevents.9999999999.of.another").unlink()
    discard(again, path)  # another object has made it, as in another process
    assert len(contents(tmp_path)) == 2
    discard(journal, path)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("size", [0, 5, 39, 40])
def test_an_event_file_with_its_version_at_most_is_not_used(
    tmp_path: Path, size: int
) -> None:
    """Also where a kill has cut it off."""
    journal = begin_run(tmp_path, "schedules")
    with EventWriter(journal.run_dir) as writer:
        pass
    path = Path(writer.path)
    assert path.stat().st_size == 40
    path.write_bytes(path.read_bytes()[:size])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "TensorBoardLogger")
        fit(model_at(0.1), tmp_path)
    assert rates(tmp_path) == {"schedules": {0.1: steps(6)}}
