"""A fit in which somebody changes the working directory writes where it began."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras
import pytest
from helpers import BACKEND, digits, softmax_regression

import tfschedules as tfs

X, Y = digits(48)


class Goes(keras.callbacks.Callback):
    """Goes to another folder after two steps."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 1:
            os.chdir(self.folder)


def fit(*callbacks: Any, epochs: int = 2) -> None:
    model = softmax_regression(keras.optimizers.SGD(0.1))
    arguments = {"batch_size": 8, "shuffle": False, "verbose": 0, "epochs": epochs}
    model.fit(X, Y, callbacks=list(callbacks), **arguments)


def files(folder: Path) -> list[str]:
    """The files of a folder, without what makes names of event files unique."""
    return sorted(
        str(path.relative_to(folder)).split(".out.")[0]
        for path in folder.rglob("*")
        if path.is_file()
    )


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another folder; the test is in `here`, and comes back."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "there"


def test_a_range_test_is_written_where_it_began(there: Path) -> None:
    test = tfs.RangeTest(steps=10, log_dir="logs", snapshot_dir=".")
    fit(test, Goes(there))
    assert test.result is not None
    assert files(there) == []
    assert files(there.parent / "here") == ["logs/range_test/events"]


def test_a_range_test_beside_a_logger_of_the_same_folder_is_one_run(
    there: Path,
) -> None:
    """However that is spelled."""
    fit(
        tfs.RangeTest(steps=10, log_dir="logs"),
        tfs.TensorBoardLogger(there.parent / "here" / "logs"),
    )
    assert files(there.parent / "here") == ["logs/range_test/events"]


def test_a_found_rate_is_recorded_where_it_was_asked_for(there: Path) -> None:
    model = softmax_regression(keras.optimizers.SGD(0.1))
    arguments = {"batch_size": 8, "steps": 10, "verbose": 0, "log_dir": "logs"}
    tfs.find_learning_rate(model, X, Y, callbacks=[Goes(there)], **arguments)
    assert files(there) == []
    assert files(there.parent / "here") == ["logs/range_test/events"]


@pytest.mark.skipif(BACKEND == "torch", reason="refused there")
def test_snapshots_are_kept_where_the_fit_began(there: Path) -> None:
    kept = tfs.SnapshotEnsemble("kept", max_to_keep=1)
    fit(tfs.WarmRestarts(0.2, first_cycle=5), kept, Goes(there))
    assert files(there) == []
    names = [".tfschedules", "cycle_0002_step_000000010.keras"]
    assert files(there.parent / "here") == [f"kept/{name}" for name in names]
    # The next fit is in another folder, and has another directory.
    fit(tfs.WarmRestarts(0.2, first_cycle=5), kept, epochs=1)
    names = [".tfschedules", "cycle_0001_step_000000005.keras"]
    assert files(there) == [f"kept/{name}" for name in names]
