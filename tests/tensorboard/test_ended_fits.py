"""Fits that end with their process, or that it survives: what is recorded of them."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import ended_fits
import keras
import pytest
from event_files import accumulated
from helpers import ROOT, SUPPORT, digits, softmax_regression
from tensorboard.plugins.hparams import metadata, plugin_data_pb2

import tfschedules as tfs
from tfschedules.tensorboard import Journal, run_files

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:The schedule of"),
]

X, Y = digits(48)
AT = ended_fits.AT


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of all cases."""
    if not hasattr(os, "fork"):
        pytest.skip("there is no fork")
    folder = tmp_path_factory.mktemp("ended")
    paths = [str(ROOT), str(SUPPORT), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, ended_fits.__file__, str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.count("RuntimeError: by the test") == 1
    return folder


def steps_in(run: Path) -> list[int]:
    return [event.step for event in accumulated(run).Scalars("schedule/loss")]


@pytest.mark.slow
@pytest.mark.parametrize("case", ended_fits.CASES)
def test_all_steps_are_recorded_up_to_the_end(case: str, ended: Path) -> None:
    """But where the fit itself goes on to the end of the process, beside it."""
    run = ended / case / "logs" / "schedules"
    count = 12 if case == "a thread" else AT
    assert steps_in(run) == list(range(count))
    journal = Journal(str(run))
    if case == "saved":
        assert (journal.open_from, journal.left_from) == (None, 0)
    else:
        assert (journal.open_from, journal.left_from) == (0, None)


def test_what_the_next_process_makes_of_it(ended: Path) -> None:
    """The script is run again from its last checkpoint; of what was saved, branches."""

    def go_on(case: str, name: str) -> list[str]:
        folder = ended / case
        model = keras.saving.load_model(folder / name)
        logger = tfs.TensorBoardLogger(folder / "logs")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.fit(X, Y, batch_size=8, shuffle=False, verbose=0, callbacks=[logger])
        texts = [str(w.message) for w in caught]
        return [text for text in texts if text.startswith("TensorBoardLogger")]

    for case in ("an exception", "sys.exit"):
        (text,) = go_on(case, "2.keras")
        assert "steps from 12 to 14 are hidden" in text
        (run,) = (ended / case / "logs").iterdir()
        assert steps_in(run) == list(range(18))
    assert go_on("saved", "2.keras") == []
    assert steps_in(ended / "saved" / "logs" / "schedules_1") == list(range(12, 18))
    assert go_on("saved", "last.keras") == []
    assert steps_in(ended / "saved" / "logs" / "schedules") == list(range(AT + 6))


# Rows. ----------------------------------------------------------------------------


def start_of(run: Path) -> float:
    """The first rate of the schedule that a row shows."""
    content = accumulated(run).PluginTagToContent(metadata.PLUGIN_NAME)
    data = plugin_data_pb2.HParamsPluginData.FromString(
        content[metadata.SESSION_START_INFO_TAG]
    )
    return float(data.session_start_info.hparams["start"].number_value)


@pytest.mark.parametrize("killed_in", [1, 2])
def test_a_row_that_a_killed_fit_has_not_noted_is_nobody_elses(
    tmp_path: Path, killed_in: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed between the two files: the folder's and the journal."""

    class Killed(BaseException):
        pass

    def killed(*_: Any) -> None:
        raise Killed("by the test")

    model, logs = softmax_regression(keras.optimizers.SGD(0.1)), tmp_path / "logs"

    def fit(start: float) -> None:
        cosine = tfs.HyperparameterScheduler(tfs.Cosine(start, 0.0, 60))
        callbacks = [cosine, tfs.TensorBoardLogger(logs)]
        model.fit(X, Y, batch_size=8, verbose=0, callbacks=callbacks)

    rates = [0.1, 0.2, 0.3]
    for number, start in enumerate(rates[:killed_in], start=1):
        with monkeypatch.context() as patch:
            if number == killed_in:
                patch.setattr(run_files.Journal, "note_row", killed)
                with pytest.raises(Killed, match="by the test"):
                    fit(start)
            else:
                fit(start)
    fit(rates[killed_in])
    run = logs / "schedules"
    folders = [run, *(run / f"fit_{n}" for n in range(2, killed_in + 2))]
    assert [start_of(folder) for folder in folders] == rates[: killed_in + 1]
