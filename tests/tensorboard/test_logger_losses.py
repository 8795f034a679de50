"""What of a fit is lost, and when; resumed runs, and several at once."""

import sys
import time

import keras
import numpy as np
import pytest
from event_files import read, run_python, runs
from helpers import SUPPORT
from linear_model import LOSS, X, Y, fit, linear_model

import tfschedules as tfs
from tfschedules.drive import StepReader
from tfschedules.tensorboard import last_step, recording

# What is lost, and when. ----------------------------------------------------------


def test_losses_that_are_all_lost_are_recorded_as_nan(tmp_path):
    model = linear_model(steps_per_execution=5)
    nothing = np.full_like(X, np.nan)
    model.fit(
        nothing,
        Y,
        batch_size=32,
        verbose=0,
        callbacks=[tfs.TensorBoardLogger(tmp_path)],
    )
    steps, losses, _ = read(tmp_path / "schedules")["schedule/loss"]
    np.testing.assert_array_equal(steps, np.arange(20))
    assert np.isnan(losses).all()


@pytest.mark.tensorflow  # a train step of JAX's hands its state on
def test_a_train_step_that_reports_no_loss_is_recorded_without(tmp_path):
    class Silent(keras.Model):
        def train_step(self, data):
            variables = self.trainable_variables
            self.optimizer.apply([0.0 * v for v in variables], variables)
            return {"mine": 0.0}

    inputs = keras.Input((64,))
    model = Silent(inputs, keras.layers.Dense(10)(inputs))
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), LOSS)
    fit(model, tfs.TensorBoardLogger(tmp_path), epochs=1)
    tags = read(tmp_path / "schedules")
    assert set(tags) == {"schedule/learning_rate", "schedule/momentum"}
    np.testing.assert_array_equal(tags["schedule/momentum"][0], np.arange(20))


@pytest.mark.filterwarnings("ignore:The schedule of ")
@pytest.mark.parametrize("first", [True, False])
def test_steps_before_an_interruption_are_not_lost(first, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 13 and self.armed:
                self.armed = False
                raise KeyboardInterrupt("here")

        armed = True

    rates = tfs.HyperparameterScheduler(tfs.Linear(0.5, 0.0, 15))
    callbacks = [rates, tfs.TensorBoardLogger(tmp_path), Stop()]
    if first:
        callbacks = callbacks[1:] + callbacks[:1]
    model = linear_model()
    with pytest.raises(KeyboardInterrupt, match="here"):
        fit(model, *callbacks, epochs=1)
    stopped = time.time()
    time.sleep(0.2)
    fit(model, *callbacks, epochs=1)
    assert runs(tmp_path) == ["schedules"]
    steps, values, times = read(tmp_path / "schedules")["schedule/learning_rate"]
    np.testing.assert_array_equal(steps, np.arange(33))
    expected = tfs.Linear(0.5, 0.0, 15).values(20)
    np.testing.assert_allclose(values, [*expected[:13], *expected], rtol=1e-6)
    assert times[12] <= stopped < times[13]


def test_slow_callbacks_at_the_end_of_an_epoch_delay_nothing(tmp_path):
    class Slow(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.began = time.time()
            self.last = last_step(tmp_path / "schedules")
            time.sleep(0.1)

    slow = Slow()
    fit(linear_model(), slow, tfs.TensorBoardLogger(tmp_path), epochs=1)
    assert slow.last == 19
    assert read(tmp_path / "schedules")["schedule/loss"][2][-1] <= slow.began


class Clock:
    """Time that passes when it is told to."""

    def __init__(self):
        self.now = 1.7e9

    def time(self):
        return self.now

    monotonic = time


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(recording, "time", made)
    return made


@pytest.mark.parametrize("block", [1, 5])
@pytest.mark.parametrize("seconds", [0.3, 1.9, 2.9, 20.0])
def test_a_killed_process_loses_five_seconds_at_most(seconds, block, clock, tmp_path):
    """And the block that is running, whatever time it takes."""

    class Pass(keras.callbacks.Callback):
        made = 0

        def on_train_batch_end(self, batch, logs=None):  # the moment before it ends
            clock.now += seconds
            finished = clock.now - seconds * np.arange(1, self.made // block + 1)
            unwritten = np.arange(self.made)[::-1] > (last_step(run) or -1)
            lost = np.repeat(finished, block)[unwritten]
            assert (lost >= clock.now - max(5, seconds)).all()
            self.made += block

    run = tmp_path / "schedules"
    fit(
        linear_model(steps_per_execution=block),
        Pass(),
        tfs.TensorBoardLogger(tmp_path),
        epochs=1,
    )
    times = read(run)["schedule/loss"][2]
    ends = 1.7e9 + seconds / block * np.arange(1, 21)
    np.testing.assert_allclose(times, ends, rtol=0, atol=1e-3)


def test_where_python_runs_ahead_of_the_device(clock, monkeypatch, tmp_path):
    """As on JAX: steps take half a second, and are waited for when they are read."""
    original, reads = StepReader.read, []

    def read_slowly(self):
        done = original(self)
        clock.now += 0.5 * len(done.steps)
        reads.append(len(done.steps))
        return done

    monkeypatch.setattr(StepReader, "read", read_slowly)
    fit(linear_model(), tfs.TensorBoardLogger(tmp_path))
    assert max(reads) == 4  # two seconds of the device's time
    times = read(tmp_path / "schedules")["schedule/loss"][2]
    ends = 1.7e9 + 0.5 * np.arange(1, 61)
    np.testing.assert_allclose(times, ends, rtol=0, atol=1e-3)


KILLED = """
import sys, time
import keras
from helpers import digits, softmax_regression
import tfschedules as tfs

class Slow(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        time.sleep(0.05)
        print(batch, time.time(), flush=True)

x, y = digits()
model = softmax_regression("sgd")
model.fit(x, y, batch_size=4, verbose=0,
          callbacks=[Slow(), tfs.TensorBoardLogger(sys.argv[1])])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_fit_that_is_killed(tmp_path):
    child = run_python(
        f"import sys; sys.path.append({str(SUPPORT)!r})" + KILLED, tmp_path
    )
    try:
        done = [child.stdout.readline().split() for _ in range(75)]
    finally:
        child.kill()  # at some moment of the fourth second
        killed = time.time()
        child.communicate(timeout=30)
    safe = [int(batch) for batch, made in done if float(made) < killed - 2.5]
    steps = read(tmp_path / "schedules")["schedule/loss"][0]
    assert len(safe) > 10
    np.testing.assert_array_equal(steps, np.arange(len(steps)))
    assert steps[-1] >= safe[-1]


# Resumed runs, and several at once. -----------------------------------------------


@pytest.mark.parametrize("at", [40, 50])
def test_a_resumed_run_goes_on(at, tmp_path):
    """A backup is made at every epoch's end; steps made since are undone."""

    class Stop(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if int(batch) + 20 * self.epoch == at:
                raise KeyboardInterrupt("here")

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

    def callbacks():
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        return [tfs.OneCycle(0.5), backup, tfs.TensorBoardLogger(tmp_path / "logs")]

    model = linear_model()
    with pytest.raises(KeyboardInterrupt, match="here"):
        fit(model, *callbacks(), Stop())
    model.make_train_function()  # closes the files, as the end of a process does
    model = linear_model()
    fit(model, *callbacks())
    rates = tfs.one_cycle(0.5, 60)["learning_rate"].values(60)
    logs = tmp_path / "logs"
    assert runs(logs) == ["schedules"]
    found, values, _ = read(logs / "schedules")["schedule/learning_rate"]
    np.testing.assert_array_equal(found, np.arange(60))
    np.testing.assert_allclose(values, rates, rtol=1e-6)


def test_a_loaded_model_with_initial_epoch_goes_on(tmp_path):
    model = linear_model()
    fit(model, tfs.TensorBoardLogger(tmp_path / "logs"), epochs=2)
    model.save(tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras")
    fit(model, tfs.TensorBoardLogger(tmp_path / "logs"), initial_epoch=2, epochs=3)
    assert runs(tmp_path / "logs") == ["schedules"]
    steps = read(tmp_path / "logs" / "schedules")["schedule/loss"][0]
    np.testing.assert_array_equal(steps, np.arange(60))


def test_two_loggers_at_once_write_a_run_each(tmp_path):
    class Inside(keras.callbacks.Callback):
        """Another model is trained in the middle of the fit."""

        def on_epoch_end(self, epoch, logs=None):
            other = linear_model(keras.optimizers.SGD(0.01))
            fit(other, tfs.TensorBoardLogger(tmp_path), epochs=1)

    two = [tfs.TensorBoardLogger(tmp_path) for _ in range(2)]
    fit(linear_model(), Inside(), *two, epochs=1)
    assert runs(tmp_path) == ["schedules", "schedules_1", "schedules_2"]
    found = [read(tmp_path / run) for run in runs(tmp_path)]
    for tags in found:
        np.testing.assert_array_equal(tags["schedule/loss"][0], np.arange(20))
    losses = [tags["schedule/loss"][1] for tags in found]
    np.testing.assert_array_equal(losses[0], losses[1])
    assert (losses[0] != losses[2]).any()
