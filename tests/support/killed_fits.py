"""Fits that are killed with SIGKILL and resumed, each in a process of its own.

`python killed_fits.py FOLDER CASE …` imports Keras once and forks: a child trains until
it kills itself at one of the steps in `KILLS`, the next goes on, and the last trains to
the end. What is written lies in `FOLDER/<case>`.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

EPOCHS, STEPS = 4, 6  # in a fit, in an epoch
# By case: at which counts of updates the first process kills itself, the second, …
KILLS = {
    "a backup at every epoch": [15, 20],
    "a backup at every fourth step": [11, 13],
    "whole models": [9, 17],
    "weights": [15, 20],
}


def train(case: str, folder: Path, kill_at: int | None) -> None:
    """Train, or go on training, as a script does that is started again."""
    import keras
    from helpers import digits, softmax_regression

    import tfschedules as tfs
    from tfschedules.tensorboard import recording

    recording._SECONDS_BETWEEN_WRITES = 0.0  # also what is undone is written

    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if int(self.model.optimizer.iterations) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    class Save(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.save_weights(weights)

    x, y = digits(8 * STEPS)
    model = softmax_regression(keras.optimizers.SGD(0.1, momentum=0.9))
    weights, whole = folder / "saved.weights.h5", folder / "saved.keras"
    first = 0
    callbacks: list[Any] = [Save()]
    if "backup" in case:
        save_freq = 4 if "fourth" in case else "epoch"
        backup = keras.callbacks.BackupAndRestore(folder / "backup", save_freq)
        callbacks = [backup]
    elif case == "whole models":
        if whole.exists():
            model = keras.saving.load_model(whole)
            first = int(model.optimizer.iterations) // STEPS
        callbacks = [keras.callbacks.ModelCheckpoint(whole, save_freq=4)]
    elif weights.exists():
        model.load_weights(weights)
        first = int(model.optimizer.iterations) // STEPS
    model.fit(
        x, y, batch_size=8, epochs=EPOCHS, initial_epoch=first, shuffle=False,
        verbose=0,
        callbacks=[
            tfs.OneCycle(0.5, total_steps=EPOCHS * STEPS),
            *callbacks,
            tfs.TensorBoardLogger(folder / "logs"),
            Kill(),
        ],
    )  # fmt: skip


def main(folder: Path, cases: list[str]) -> None:
    """Train all cases, and kill."""
    import helpers  # noqa: F401  # and with it Keras, once for all

    for case in cases:
        (folder / case).mkdir(parents=True)
        for kill_at in [*KILLS[case], None]:
            child = os.fork()
            if child == 0:
                train(case, folder / case, kill_at)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            expected = 0 if kill_at is None else signal.SIGKILL
            if status != expected:
                sys.exit(f"{case}, to be killed at {kill_at}: status {status}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
