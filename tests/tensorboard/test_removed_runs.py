"""Logs that are removed while a fit writes there: what comes there is another's."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest
from resumed_runs import RATE, fit, model_at, rates, steps

from tfschedules.tensorboard import EventWriter, Journal, begin_run


class After(keras.callbacks.Callback):
    """Calls something at the end of the second epoch, before the logger is."""

    def __init__(self, action: Callable[[], None]) -> None:
        super().__init__()
        self.action = action

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == 1:
            self.action()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def of_another(logs: Path) -> dict[str, bytes]:
    """A run as another process begins it; what there is then."""
    journal = begin_run(logs, "schedules")
    journal.begin(0)
    with EventWriter(journal.run_dir) as writer:
        writer.restart(0)
        writer.scalars([*range(9)], [1.7e9] * 9, {RATE: [0.25] * 9})
    journal.end(9)
    return contents(logs)


@pytest.mark.parametrize("begun_anew", [True, False])
def test_a_fit_whose_run_is_removed_writes_nothing_where_it_was(
    tmp_path: Path, begun_anew: bool
) -> None:
    logs, there = tmp_path / "logs", {}

    def remove() -> None:
        shutil.rmtree(logs)
        there.update(of_another(logs) if begun_anew else {})

    model = model_at(0.1)
    with pytest.warns(UserWarning, match="no longer records.*somebody has removed it"):
        fit(model, logs, After(remove), epochs=4)
    assert contents(logs) == there
    if begun_anew:
        with pytest.warns(UserWarning, match="new run with step 24, .*schedules_1'"):
            fit(model, logs)
        new = {"schedules": {0.25: steps(9)}, "schedules_1": {0.1: steps(24, 30)}}
    else:
        fit(model, logs)
        new = {"schedules": {0.1: steps(24, 30)}}
    assert rates(logs) == new


def test_no_file_of_a_run_is_made_a_second_time(tmp_path: Path) -> None:
    """Nor is another one written to in its place."""
    journal = begin_run(tmp_path, "schedules")
    journal.begin(0)
    path = tmp_path / "schedules" / "tfschedules.run"
    writer = EventWriter(journal.run_dir)
    Path(writer.path).unlink()
    with pytest.raises(
        OSError, match=r"somebody has removed it since.*between two fits"
    ):
        writer.restart(0)
    path.unlink()
    with pytest.raises(OSError, match="Cannot write the journal of the run"):
        journal.end(6)
    assert contents(tmp_path) == {}
    path.write_text("run other\nbegin 0\n")
    with pytest.raises(OSError, match="it was removed and made anew"):
        journal.end(6)
    assert path.read_text() == "run other\nbegin 0\n"
    first, second = (Journal(str(tmp_path / "schedules")) for _ in range(2))
    path.unlink()
    first.refresh()
    second.refresh()
    first.make()
    with pytest.raises(OSError, match="File exists"):  # of two that begin one does
        second.make()
    writer.close()
