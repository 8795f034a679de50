"""Whose the copy on disk is: copies of callbacks, processes, signals, folders."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import signal
import subprocess
import sys
from typing import Any

import keras
import numpy as np
import pytest
from copied_models import At, Broken, files, function, small, variables, wrong
from interrupted import X, Y, state

import tfschedules as tfs


def test_a_copy_of_the_callback_has_nothing_of_the_copy_on_disk(tmp_path) -> None:
    model = small()
    values = [np.array(v) for v in variables(model)]
    test = tfs.RangeTest(max_lr=1.0, steps=4, snapshot_dir=tmp_path)

    def stop() -> None:
        raise Broken("of the sweep")

    with pytest.raises(Broken, match="of the sweep"):
        model.fit(X, Y, batch_size=8, verbose=0, callbacks=[test, At(stop)])
    for made in (
        copy.copy(test),
        copy.deepcopy(test),
        pickle.loads(pickle.dumps(test)),
    ):
        made.restore()
        del made
    gc.collect()
    assert len(files(tmp_path)) > 2
    test.restore()
    assert all(map(np.array_equal, values, map(np.array, variables(model))))
    assert list(tmp_path.iterdir()) == []


def test_a_callback_that_is_thrown_away_takes_the_copy_with_it(tmp_path) -> None:
    model = small()
    test = tfs.RangeTest(max_lr=1.0, steps=4, snapshot_dir=tmp_path)
    callbacks = keras.callbacks.CallbackList([test], model=model, epochs=1, steps=4)
    callbacks.on_train_begin()
    assert len(files(tmp_path)) > 2
    model.compile(model.optimizer, "mse")
    del test, callbacks
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_two_sweeps_at_once_in_one_place(tmp_path) -> None:
    one, other = small(), small()
    before = state(one), state(other)
    inner: list[Any] = []
    generators = np.random.get_state()

    def sweep() -> None:
        if not inner:
            inner.append(function(other, tmp_path, lambda: counts.append(count())))

    def count() -> int:
        return len(list(tmp_path.iterdir()))

    counts: list[int] = []
    np.random.set_state(generators)
    function(one, tmp_path, sweep)
    assert counts == [2]
    assert wrong(before[0], one) == []
    assert wrong(before[1], other) == []
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_the_process_changes_meanwhile(tmp_path, monkeypatch) -> None:
    model = small()
    before = state(model)
    monkeypatch.chdir(tmp_path)
    function(model, ".", lambda: monkeypatch.chdir("/"))
    assert wrong(before, model) == []
    assert list(tmp_path.iterdir()) == []


def test_sigterm_with_a_handler_that_raises(tmp_path) -> None:
    """As Ctrl-C: all is put back, and the exception goes on."""
    model = small()
    before = state(model)

    def ends(*of_the_signal: Any) -> None:
        raise SystemExit(143)

    signal.signal(signal.SIGTERM, ends)
    try:
        with pytest.raises(SystemExit, match="143"):
            function(model, tmp_path, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert signal.getsignal(signal.SIGTERM) is ends
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert wrong(before, model) == []
    assert list(tmp_path.iterdir()) == []


SCRIPT = """
import atexit, os, signal, sys, time, warnings
import keras, numpy as np
import tfschedules as tfs
warnings.simplefilter("ignore")  # of JAX, about forks
x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
model.compile(keras.optimizers.SGD(0.01), "mse", run_eagerly=True)
before = model.get_weights()
folder = sys.argv[1]

class At(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch != 3:
            return
        if len(sys.argv) > 2:
            print("waits", flush=True)
            time.sleep(60)
        files = sorted(os.listdir(folder + "/" + os.listdir(folder)[0]))
        child = os.fork()
        if child == 0:
            sys.exit(5)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        print(sorted(os.listdir(folder + "/" + os.listdir(folder)[0])) == files)

def sweep():
    tfs.find_learning_rate(
        model, x, x.sum(1), steps=8, batch_size=8, verbose=0, callbacks=[At()],
        snapshot_dir=folder,
    )

try:
    sweep()
except SystemExit as error:  # in the forked process, which has put its model back
    atexit._run_exitfuncs()
    os._exit(error.code)  # TensorFlow's own end would wait for threads that it lacks
print(all(map(np.array_equal, before, model.get_weights())), os.listdir(folder))
sys.argv.append("wait")
sweep()
"""


def test_a_fork_and_then_sigterm_in_the_middle_of_a_sweep(tmp_path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if line == "waits\n":
            assert len(files(tmp_path)) > 1
            process.terminate()
    _, errors = process.communicate(timeout=60)
    # The child's status; the files are there; the model is as it was.
    assert lines == ["5", "True", "True []", "waits"], errors[-2000:]
    assert process.returncode == -signal.SIGTERM
    assert list(tmp_path.iterdir()) == []
