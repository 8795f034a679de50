"""A process that ends while something is on loan: no hang, no noise, nothing left."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BEGIN = """
import os, signal, sys, threading
import keras, numpy as np
import tfschedules as tfs
from tfschedules.drive import Snapshot
# A process that a script starts in the background ignores it otherwise.
signal.signal(signal.SIGINT, signal.default_int_handler)
folder = sys.argv[1]
x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
model.compile(keras.optimizers.SGD(0.01), "mse", run_eagerly=True)
before = model.get_weights()

class At(keras.callbacks.Callback):
    def __init__(self, action):
        super().__init__()
        self.action = action
    def on_train_batch_end(self, batch, logs=None):
        if batch == 3:
            self.action()

def find(action):
    tfs.find_learning_rate(
        model, x, x.sum(1), steps=8, batch_size=8, verbose=0, callbacks=[At(action)],
        snapshot_dir=folder,
    )

def fit(action):
    callbacks = [tfs.WarmRestarts(0.1, 8), tfs.TensorBoardLogger(folder + "/logs")]
    model.fit(x, x.sum(1), batch_size=8, verbose=0, callbacks=[*callbacks, At(action)])
"""

TWICE = """
restore = Snapshot.restore

def restore_and_be_interrupted(self):
    assert os.listdir(folder) != []
    os.kill(os.getpid(), signal.SIGINT)
    restore(self)
    print("restored", all(map(np.array_equal, before, model.get_weights())), flush=True)

Snapshot.restore = restore_and_be_interrupted
find(lambda: os.kill(os.getpid(), signal.SIGINT))
"""

EXIT = """
try:
    fit(lambda: sys.exit(2))
except SystemExit as error:
    print("exit", error.code)
model.set_weights(before)
find(lambda: sys.exit(3))
"""

# The thread waits within its fit: what a thread does that runs beside the end of the
# interpreter, nobody can tell.
DAEMON = """
reached = threading.Event()

def stay():
    reached.set()
    threading.Event().wait()

threading.Thread(target=lambda: {what}(stay), daemon=True).start()
assert reached.wait(60)
print("ends")
"""


def run(script: str, folder: Path) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + script, str(folder)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    for noise in ("Exception ignored", "Fatal", "RuntimeError", "core dumped"):
        assert noise not in done.stderr, done.stderr[-3000:]
    return done


def test_ctrl_c_twice_ends_the_process_as_once(tmp_path) -> None:
    done = run(TWICE, tmp_path)
    assert done.returncode == -signal.SIGINT, done.stderr[-3000:]
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
    assert set(done.stdout.split()) == {"restored", "True"}
    assert list(tmp_path.iterdir()) == []


def test_sys_exit_in_a_callback_is_the_end_with_its_status(tmp_path) -> None:
    done = run(EXIT, tmp_path)
    assert done.returncode == 3, done.stderr[-3000:]
    assert done.stdout.split() == ["exit", "2"]
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]


@pytest.mark.parametrize("what", ["fit", "find"])
def test_the_end_does_not_wait_for_a_daemon_that_fits(what, tmp_path) -> None:
    done = run(DAEMON.format(what=what), tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["ends"]
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name != "logs"] == []
