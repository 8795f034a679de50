"""A logger never ends a training, whatever it meets; and it says what it cannot do."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from event_files import read, runs
from helpers import JIT, arrays, digits, patches, softmax_regression

import tfschedules as tfs
from tfschedules.drive import StepReader
from tfschedules.tensorboard import EventWriter, fit_settings, run_files

X, Y = digits(48)  # six batches of eight to an epoch
SGD = keras.optimizers.SGD
pytestmark = pytest.mark.filterwarnings(
    "ignore:The schedule of ", "ignore:__array__ implementation"
)


def fit(model: keras.Model, *callbacks: Any, **arguments: Any) -> keras.Model:
    arguments = {"epochs": 2, "shuffle": False, "verbose": 0} | arguments
    model.fit(X, Y, batch_size=8, callbacks=list(callbacks), **arguments)
    return model


def said(warned: Any) -> list[str]:
    """What the logger has said."""
    texts = [str(each.message) for each in warned]
    return [text for text in texts if text.startswith("TensorBoardLogger")]


@pytest.mark.parametrize("how", ["driven", "compiled"])
def test_a_schedule_of_endless_length_is_recorded(how: str, tmp_path: Path) -> None:
    endless = tfs.Linear(0.1, 0.0, steps=1e30)
    model = softmax_regression(SGD(endless if how == "compiled" else 0.5))
    callbacks = [tfs.HyperparameterScheduler(endless)] if how == "driven" else []
    fit(model, *callbacks, tfs.TensorBoardLogger(tmp_path))
    steps, rates, _ = read(tmp_path / "schedules")["schedule/learning_rate"]
    np.testing.assert_array_equal(steps, np.arange(12))
    np.testing.assert_array_equal(rates, np.float32(0.1))


@pytest.mark.tensorflow  # the other backends count with 32 bits
@pytest.mark.parametrize("left", [1, 3, 8])
def test_a_count_that_passes_its_largest_number(left: int, tmp_path: Path) -> None:
    model = softmax_regression(SGD(0.1))
    model.optimizer.iterations.assign(2**63 - left)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        fit(model, tfs.TensorBoardLogger(tmp_path))
    (text,) = said(warned)
    assert "count of updates has passed the largest number" in text
    for one, other in zip(arrays(model), plain(), strict=True):
        np.testing.assert_array_equal(one, other)


def plain() -> list[np.ndarray]:
    return arrays(fit(softmax_regression(SGD(0.1))))


def breaks(*args: Any, **kwargs: Any) -> Any:
    raise ZeroDivisionError("a fault of the logger's own")


def full(*args: Any, **kwargs: Any) -> Any:
    raise OSError(28, "No space left on device")


FAULTS: dict[str, tuple[Any, str]] = {
    "reading losses": (StepReader, "read"),
    "a row": (run_files, "settings_of"),
    "writing scalars": (EventWriter, "scalars"),
    "flushing": (EventWriter, "flush"),
    "hiding": (EventWriter, "restart"),
    "the journal": (run_files.Journal, "begin"),
    "a state": (run_files.Journal, "note_state"),
    "an end": (run_files.Journal, "end"),
    "the end of a row": (EventWriter, "session_end"),
}


@pytest.mark.parametrize("error", [breaks, full], ids=["a fault", "a full disk"])
@pytest.mark.parametrize("where", FAULTS)
def test_a_failure_of_any_kind_is_one_warning(
    where: str, error: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Then(keras.callbacks.Callback):
        """The run is opened at the beginning: an error there is an error."""

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            monkeypatch.setattr(*FAULTS[where], error)

    model = softmax_regression(SGD(0.1))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        fit(model, Then(), tfs.TensorBoardLogger(tmp_path))
    (text,) = said(warned)
    cause = {breaks: "ZeroDivisionError: a fault of the logger's own", full: "No space"}
    assert f"no longer records to '{tmp_path}'" in text
    assert cause[error] in text
    assert text.endswith(". Training goes on.")
    for one, other in zip(arrays(model), plain(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert patches(model) == []
    monkeypatch.undo()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        fit(model, tfs.TensorBoardLogger(tmp_path))  # the run is locked no more
    assert all("or its recording had failed" in text for text in said(warned))
    assert sum(len(read(tmp_path / r)["schedule/loss"][0]) for r in runs(tmp_path)) > 0


def test_an_interruption_goes_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt("by the test")

    with monkeypatch.context() as patch:
        patch.setattr(EventWriter, "scalars", interrupted)
        with pytest.raises(KeyboardInterrupt, match="by the test"):
            fit(softmax_regression(SGD(0.1)), tfs.TensorBoardLogger(tmp_path))


def test_a_model_that_is_compiled_anew_in_a_loop(tmp_path: Path) -> None:
    """Somebody else has ended the loan: a schedule refuses to go on, a logger stops."""
    model = softmax_regression(SGD(0.1))
    logger = tfs.TensorBoardLogger(tmp_path)
    callbacks = keras.callbacks.CallbackList([logger], model=model)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        callbacks.on_train_begin()
        for epoch in range(2):
            callbacks.on_epoch_begin(epoch)
            for batch in range(3):
                callbacks.on_train_batch_begin(batch)
                model.train_on_batch(X[:8], Y[:8])
                callbacks.on_train_batch_end(batch)
            callbacks.on_epoch_end(epoch)
            model.compile(model.optimizer, model.loss, jit_compile=JIT)
        callbacks.on_train_end()
    (text,) = said(warned)
    assert "the model was compiled anew" in text
    np.testing.assert_array_equal(
        read(tmp_path / "schedules")["schedule/loss"][0], np.arange(3)
    )


def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        fit(softmax_regression(SGD(0.1)), tfs.TensorBoardLogger(tmp_path / "file"))


# Nothing to record. ---------------------------------------------------------------


class Adversarial(keras.Model):
    """Its training step updates with optimizers of its own."""

    own_from = 0  # steps before which the compiled one is used

    def train_step(self, data: Any) -> Any:
        if "d_optimizer" not in vars(self):
            self.d_optimizer, self.g_optimizer = SGD(0.1), keras.optimizers.Adam(0.1)
        for optimizer in (self.d_optimizer, self.g_optimizer):
            values = [keras.ops.zeros_like(v) for v in self.trainable_variables]
            optimizer.apply(values, self.trainable_variables)
        return {"d_loss": keras.ops.sum(self.trainable_variables[1]) * 0}


def adversarial() -> keras.Model:
    inputs = keras.Input((64,))
    model = Adversarial(inputs, keras.layers.Dense(10)(inputs))
    model.compile(keras.optimizers.Adam(0.1), "mse", run_eagerly=True)
    return model


@pytest.mark.tensorflow  # a train step of JAX's hands its state on
def test_a_step_with_optimizers_of_its_own_is_told_and_leaves_no_run(
    tmp_path: Path,
) -> None:
    with pytest.warns(UserWarning, match="TensorBoardLogger has nothing") as warned:
        fit(adversarial(), tfs.TensorBoardLogger(tmp_path))
    (text,) = said(warned)
    assert (
        "the compiled optimizer, Adam, has made no update in 6 training steps" in text
    )
    assert "`d_optimizer` (SGD) and `g_optimizer` (Adam)" in text
    assert "Give compile the optimizer" in text
    assert list(tmp_path.iterdir()) == []


def test_a_fit_that_is_over_before_the_first_update(tmp_path: Path) -> None:
    model = softmax_regression(SGD(0.1, gradient_accumulation_steps=16))
    with pytest.warns(UserWarning, match="TensorBoardLogger has nothing") as warned:
        fit(model, tfs.TensorBoardLogger(tmp_path))
    (text,) = said(warned)
    assert "accumulates the gradients of 16 batches, and had those of 12" in text
    assert list(tmp_path.iterdir()) == []


def test_a_first_epoch_without_an_update_is_no_fault(tmp_path: Path) -> None:
    model = softmax_regression(SGD(0.1, gradient_accumulation_steps=8))
    fit(model, tfs.TensorBoardLogger(tmp_path))
    steps = read(tmp_path / "schedules")["schedule/loss"][0]
    np.testing.assert_array_equal(steps, [0])


def test_a_loss_scale_that_skips_every_step(tmp_path: Path) -> None:
    scaled = keras.optimizers.LossScaleOptimizer(SGD(0.1), initial_scale=2.0**120)
    model = softmax_regression(scaled)
    x = np.full_like(X, np.nan)
    logger = tfs.TensorBoardLogger(tmp_path)
    with pytest.warns(UserWarning, match="TensorBoardLogger has nothing") as warned:
        model.fit(x, Y, batch_size=8, epochs=2, verbose=0, callbacks=[logger])
    (text,) = said(warned)
    assert "skipped every step" in text
    assert f"from {2.0**120:g} to {2.0**114:g}" in text
    assert list(tmp_path.iterdir()) == []


def test_settings_of_a_schedule_of_endless_length() -> None:
    found = fit_settings._of_schedule(tfs.Linear(0.1, 0.0, steps=1e30))
    assert found["total_steps"] == 1e30
    assert found["max_lr"] == 0.1


@pytest.mark.parametrize("steps", [2.5, 9_999.5, 10_001, 2**53 + 1, 2**63 - 1, 2**64])
def test_the_highest_rate_of_a_rise_is_at_its_end(steps: float) -> None:
    found = fit_settings._of_schedule(tfs.Linear(0.0, 0.1, steps))
    assert found["max_lr"] == pytest.approx(0.1 if steps < 2**63 else 0.05, rel=1e-12)
    assert found["total_steps"] == int(steps)


def test_the_highest_rate_of_what_is_over_before_step_0() -> None:
    joined = tfs.Join([tfs.Constant(9.0), tfs.Linear(0.0, 0.1, 10)], [-20])
    found = fit_settings._of_schedule(joined)
    assert (found["max_lr"], found["total_steps"]) == (0.1, 0)
