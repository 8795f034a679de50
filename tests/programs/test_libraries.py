"""The recipes of docs/recipes.md, with the libraries themselves.

They are installed by the extra `recipes`: `.ci/run recipes` has them, and a test that
is skipped there has failed.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
from event_files import scalars
from helpers import ROOT, one_cycle_values
from pages import blocks

import tfschedules as tfs

PAGE = ROOT / "docs" / "recipes.md"
REQUIRED = os.environ.get("TFSCHEDULES_NEEDS_RECIPES") == "1"
pytestmark = pytest.mark.filterwarnings(
    # KerasTuner 1.4.8 asks for the thread in the old way.
    "ignore:(currentThread|getName):DeprecationWarning"
)
PER_EPOCH = 16  # 512 samples in batches of 32


def library(name: str) -> Any:
    """The library, or the test is skipped; where it is required it fails."""
    if REQUIRED:
        return __import__(name)
    return pytest.importorskip(name, reason=f"pip install {name}, or -e .[recipes]")


def run(name: str, **scope: Any) -> dict[str, Any]:
    """Run the beginning of the page, and the block whose test has the name."""
    for block in blocks(PAGE):
        if block.language == "python" and (
            block.note is None or block.note.endswith(f"::{name}")
        ):
            exec(compile("\n" * block.line + block.code, str(PAGE), "exec"), scope)
    return scope


class Follow(keras.callbacks.Callback):
    """Reads the rate after each batch, of each trial: a tuner copies its callbacks."""

    trials: ClassVar[list[list[float]]] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self.trials.append([])

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        rate = self.model.optimizer.learning_rate
        self.trials[-1].append(float(keras.ops.convert_to_numpy(rate)))


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> type[Follow]:
    """Every search of the block is given the callback."""
    keras_tuner = library("keras_tuner")
    monkeypatch.setattr(Follow, "trials", [])
    search = keras_tuner.RandomSearch.search
    monkeypatch.setattr(
        keras_tuner.RandomSearch,
        "search",
        lambda self, *args, callbacks=(), **kwargs: search(
            self, *args, callbacks=[*callbacks, Follow()], **kwargs
        ),
    )
    return Follow


def test_a_search_between_the_bounds(tmp_path, monkeypatch, followed) -> None:
    monkeypatch.chdir(tmp_path)
    scope = run("test_a_search_between_the_bounds")
    tried = scope["tuner"].oracle.trials.values()
    peaks = [trial.hyperparameters["peak"] for trial in tried]
    assert len(set(peaks)) == 3
    assert scope["best"] in peaks
    low, high = scope["found"].bounds
    assert 0 < low <= min(peaks) <= max(peaks) <= high
    for trial, peak in zip(followed.trials, peaks, strict=True):
        rates = one_cycle_values(peak, 2 * 12)[0]  # a quarter is held out
        np.testing.assert_allclose(trial, rates, rtol=1e-5, atol=1e-9)


def test_a_range_test_in_each_trial(tmp_path, monkeypatch, followed) -> None:
    monkeypatch.chdir(tmp_path)
    suggested = []
    find = tfs.find_learning_rate

    def noting(model: Any, *args: Any, **kwargs: Any) -> Any:
        before = model.get_weights()
        result = find(model, *args, **kwargs)
        suggested.append(result.suggestion)
        for one, other in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(one, other)
        return result

    with monkeypatch.context() as patched:
        patched.setattr(tfs, "find_learning_rate", noting)
        scope = run("test_a_range_test_in_each_trial")
    trials = list(scope["tuner"].oracle.trials.values())
    assert len(trials) == len(followed.trials) == len(suggested) - 1 == 3
    for trial, rates, found in zip(trials, followed.trials, suggested[1:], strict=True):
        factor = trial.hyperparameters["factor"]
        wanted = one_cycle_values(found * factor, 2 * 12)[0]
        np.testing.assert_allclose(rates, wanted, rtol=1e-5, atol=1e-9)


def test_callbacks_that_are_given_to_a_search(tmp_path, monkeypatch, followed) -> None:
    """A tuner copies them for each trial; each records a run of its own."""
    import keras_tuner

    monkeypatch.chdir(tmp_path)
    scope = run("none")
    tuner = keras_tuner.RandomSearch(
        lambda hp: scope["network"](hp.Choice("units", [4, 8])),
        "val_loss",
        max_trials=2,
    )
    callbacks = [tfs.OneCycle(0.05), tfs.TensorBoardLogger("logs")]
    x, y = scope["x"], scope["y"]
    arguments = {"epochs": 2, "validation_split": 0.25, "verbose": 0}
    tuner.search(x, y, callbacks=callbacks, **arguments)
    rates = one_cycle_values(0.05, 2 * 12)[0]
    assert len(followed.trials) == 2
    for trial in followed.trials:
        np.testing.assert_allclose(trial, rates, rtol=1e-5, atol=1e-9)
    for folder in ("schedules", "schedules_1"):
        steps, seen = scalars(Path("logs", folder), "schedule/learning_rate")
        assert steps == list(range(2 * 12))
        np.testing.assert_allclose(seen, rates, rtol=1e-6)


def records_of(path: Path) -> list[Any]:
    """The records of W&B's file: LevelDB's log format, after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, found, part = path.read_bytes(), 7, [], b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:  # the rest of a block is padding
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # full, or the last part
            found.append(Record.FromString(part))
            part = b""
    return found


def test_weights_and_biases_has_each_step(tmp_path, monkeypatch) -> None:
    wandb = library("wandb")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SILENT", "true")
    scope = run("test_weights_and_biases_has_each_step")
    wandb.teardown()  # its process writes the file a little later, and at its end
    (path,) = Path("wandb").glob("offline-run-*/*.wandb")
    rows = []
    for record in records_of(path):
        if record.HasField("history"):
            items = record.history.item
            rows.append(
                {
                    ".".join(i.nested_key) or i.key: json.loads(i.value_json)
                    for i in items
                }
            )
    rates, momenta = one_cycle_values(scope["found"].suggestion, 2 * PER_EPOCH)
    steps = [row for row in rows if "schedule/step" in row]
    assert [row["schedule/step"] for row in steps] == list(range(2 * PER_EPOCH))
    seen = [row["schedule/learning_rate"] for row in steps]
    np.testing.assert_allclose(seen, rates, rtol=1e-6)
    epochs = [row for row in rows if "epoch/learning_rate" in row]
    seen = [row["epoch/learning_rate"] for row in epochs]
    np.testing.assert_allclose(seen, rates[PER_EPOCH - 1 :: PER_EPOCH], rtol=1e-6)
    seen = [row["epoch/momentum"] for row in epochs]
    np.testing.assert_allclose(seen, momenta[PER_EPOCH - 1 :: PER_EPOCH], rtol=1e-6)
    means = np.mean(
        np.reshape([row["schedule/loss"] for row in steps], (2, -1)), axis=1
    )
    np.testing.assert_allclose([row["epoch/loss"] for row in epochs], means, rtol=1e-5)
    assert list(Path("wandb").glob("offline-run-*/files/media/images/range_test_*.png"))
    loaded = tfs.RangeTestResult.load("range_test.json")
    assert loaded.suggestion == scope["found"].suggestion


def test_mlflow_has_each_step(tmp_path, monkeypatch) -> None:
    # Files, and not a data base, which mlflow-skinny lacks.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow = library("mlflow")
    monkeypatch.chdir(tmp_path)
    scope = run("test_mlflow_has_each_step")
    client, run_id = mlflow.MlflowClient(), scope["run"].info.run_id

    def history(name: str) -> tuple[list[int], list[float]]:
        metrics = sorted(client.get_metric_history(run_id, name), key=lambda m: m.step)
        return [m.step for m in metrics], [m.value for m in metrics]

    rates, momenta = one_cycle_values(scope["found"].suggestion, 2 * PER_EPOCH)
    steps, seen = history("schedule/learning_rate")
    assert steps == list(range(2 * PER_EPOCH))
    np.testing.assert_allclose(seen, rates, rtol=1e-6)
    for name, values in (("learning_rate", rates), ("momentum", momenta)):
        steps, seen = history(name)
        assert steps == [0, 1]
        np.testing.assert_allclose(seen, values[PER_EPOCH - 1 :: PER_EPOCH], rtol=1e-9)
    means = np.mean(np.reshape(history("schedule/loss")[1], (2, -1)), axis=1)
    np.testing.assert_allclose(history("loss")[1], means, rtol=1e-5)
    names = {each.path for each in client.list_artifacts(run_id)}
    assert names == {"range_test.json", "range_test.png"}
    local = client.download_artifacts(run_id, "range_test.json", str(tmp_path))
    loaded = tfs.RangeTestResult.load(local)
    assert loaded.suggestion == scope["found"].suggestion
