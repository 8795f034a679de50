"""Where warnings are errors, as with `python -W error`: ours end no training.

The tests run so anyway. `told` is what is said in place of the warning.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers import BACKEND, arrays, digits, softmax_regression

import tfschedules as tfs
from tfschedules.callbacks import snapshots
from tfschedules.finding import reports
from tfschedules.tensorboard import EventWriter

SGD = keras.optimizers.SGD
X, Y = digits(48)


@pytest.fixture(autouse=True)
def _errors() -> Iterator[None]:
    """Of ours all; Keras has some of its own."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=UserWarning)
        yield


def fit(*callbacks: Any, model: keras.Model | None = None) -> keras.Model:
    model = model or softmax_regression(SGD(0.1))
    arguments = {"batch_size": 8, "epochs": 2, "shuffle": False, "verbose": 0}
    model.fit(X, Y, callbacks=list(callbacks), **arguments)
    return model


def full(*_: Any, **__: Any) -> None:
    raise OSError(28, "No space left on device")


def as_ever(model: keras.Model, *callbacks: Any) -> None:
    """The training is the one that it would have been."""
    for one, other in zip(arrays(model), arrays(fit(*callbacks)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_record_that_fails_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    monkeypatch.setattr(EventWriter, "scalars", full)
    as_ever(fit(tfs.TensorBoardLogger(tmp_path)))
    (text,) = told
    assert "no longer records" in text
    assert "No space left on device" in text
    told.clear()


def test_a_run_that_is_new_ends_no_training(tmp_path: Path, told: list[str]) -> None:
    fit(tfs.TensorBoardLogger(tmp_path))
    model = softmax_regression(SGD(0.1))
    model.optimizer.iterations.assign(5)
    fit(tfs.TensorBoardLogger(tmp_path), model=model)
    (text,) = told
    assert "begins a new run with step 5" in text
    assert len(list(tmp_path.iterdir())) == 2
    told.clear()


def test_a_fit_without_an_update_is_not_ended_by_the_logger(
    tmp_path: Path, told: list[str]
) -> None:
    model = softmax_regression(SGD(0.1, gradient_accumulation_steps=16))
    fit(tfs.TensorBoardLogger(tmp_path), model=model)
    (text,) = told
    assert "has nothing to record" in text
    told.clear()


@pytest.mark.skipif(BACKEND == "torch", reason="refused there")
def test_a_snapshot_that_fails_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    monkeypatch.setattr(snapshots.SnapshotEnsemble, "_write", full)
    cycles = tfs.WarmRestarts(0.2, first_cycle=5)
    as_ever(fit(cycles, tfs.SnapshotEnsemble(tmp_path)), cycles)
    assert len(told) == 2
    assert all("could not keep the snapshot" in text for text in told)
    told.clear()


@pytest.mark.parametrize("what", ["log", "picture"])
def test_a_finished_sweep_is_returned(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    pytest.importorskip("matplotlib")
    if what == "log":
        monkeypatch.setattr(EventWriter, "scalars", full)
    else:
        monkeypatch.setattr(reports.pictures, "range_test_png", full)
    model = softmax_regression(SGD(0.1))
    before = arrays(model)
    result = tfs.find_learning_rate(
        model, X, Y, batch_size=8, steps=20, log_dir=tmp_path, verbose=0
    )
    assert len(result.losses) > 5
    for one, other in zip(arrays(model), before, strict=True):
        np.testing.assert_array_equal(one, other)
    (text,) = told
    assert f"has no {what}" in text or "is missing or not whole" in text
    told.clear()


def test_a_sweep_whose_data_ended_early_is_returned(told: list[str]) -> None:
    """`tfs.sweep` of a parabola: 8 of 20 batches."""

    def step(weight: Any, _: Any, rate: Any) -> Any:
        return weight - rate * weight, float(weight * weight / 2)

    result = tfs.sweep(step, np.float64(1.0), range(8), max_lr=0.5, steps=20)
    assert len(result.losses) == 8
    assert result.stop_reason == "out of data"
    (text,) = told
    assert "these data ended after 8" in text
    told.clear()
