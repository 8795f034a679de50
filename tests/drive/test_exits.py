"""A process that ends while something is on loan: no hang, no noise, nothing left."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

BEGIN = """
import os, signal, sys, threading
import keras, numpy as np
import tfschedules as tfs
from tfschedules.drive import Snapshot
# A process that a script starts in the background ignores it otherwise.
signal.signal(signal.SIGINT, signal.default_int_handler)
folder = sys.argv[1]
x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")

def network():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01), "mse", run_eagerly=True)
    return model

class At(keras.callbacks.Callback):
    def __init__(self, action):
        super().__init__()
        self.action = action
    def on_train_batch_end(self, batch, logs=None):
        if batch == 3:
            self.action()

def find(model, action):
    tfs.find_learning_rate(
        model, x, x.sum(1), steps=8, batch_size=8, verbose=0, callbacks=[At(action)],
        snapshot_dir=folder,
    )

def fit(model, action):
    callbacks = [tfs.WarmRestarts(0.1, 8), tfs.TensorBoardLogger(folder + "/logs")]
    model.fit(x, x.sum(1), batch_size=8, verbose=0, callbacks=[*callbacks, At(action)])
"""

TWICE = """
model = network()
before = model.get_weights()
restore = Snapshot.restore

def restore_and_be_interrupted(self):
    assert os.listdir(folder) != []
    os.kill(os.getpid(), signal.SIGINT)
    restore(self)
    print("restored", all(map(np.array_equal, before, model.get_weights())), flush=True)

Snapshot.restore = restore_and_be_interrupted
find(model, lambda: os.kill(os.getpid(), signal.SIGINT))
"""

# The threads wait within their fits: what one does that runs beside the end of the
# interpreter, nobody can tell.
EXIT = """
def daemon(what):
    at_rest = threading.Event()
    def stay():
        at_rest.set()
        threading.Event().wait()
    threading.Thread(target=what, args=(network(), stay), daemon=True).start()
    assert at_rest.wait(60)

daemon(fit)
daemon(find)
try:
    fit(network(), lambda: sys.exit(2))
except SystemExit as error:
    print("exit", error.code)
find(network(), lambda: sys.exit(3))
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


def test_sys_exit_beside_daemons_is_the_end_with_its_status(tmp_path) -> None:
    done = run(EXIT, tmp_path)
    assert done.returncode == 3, done.stderr[-3000:]
    assert done.stdout.split() == ["exit", "2"]
    assert "Traceback" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"logs"}
