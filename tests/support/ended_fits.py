"""A fit that ends with its process, each in a way of its own, in a forked child.

`python ended_fits.py FOLDER CASE …` imports Keras once. What a child writes lies in
`FOLDER/<case>`; then it ends as a script does.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

AT = 15  # the count at which the fit ends, in its third epoch of six steps
CASES = ["an exception", "sys.exit", "caught", "saved", "a thread"]


def train(case: str, folder: Path) -> None:
    """The script."""
    import threading

    import keras
    from helpers import digits, softmax_regression

    import tfschedules as tfs

    class Ends(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if int(self.model.optimizer.iterations) != AT:
                return
            if case == "a thread":  # the process ends while the fit goes on
                reached.set()
                threading.Event().wait()
            if case == "sys.exit":
                sys.exit(3)
            raise RuntimeError("by the test")

    x, y = digits(48)
    model = softmax_regression(keras.optimizers.SGD(0.1, momentum=0.9))
    checkpoint = keras.callbacks.ModelCheckpoint(str(folder / "{epoch}.keras"))
    arguments = {"batch_size": 8, "epochs": 4, "shuffle": False, "verbose": 0}
    callbacks = [checkpoint, tfs.TensorBoardLogger(folder / "logs"), Ends()]

    def fit() -> None:
        model.fit(x, y, callbacks=callbacks, **arguments)

    if case == "a thread":
        reached = threading.Event()
        threading.Thread(target=fit, daemon=True).start()
        assert reached.wait(60)
        return
    if case not in ("caught", "saved"):
        fit()
    try:
        fit()
    except RuntimeError:
        pass
    if case == "saved":
        model.save(folder / "last.keras")


def main(folder: Path, cases: list[str]) -> None:
    """End in all cases, each as a process ends that runs a script."""
    import helpers  # noqa: F401  # and with it Keras, once for all

    for case in cases:
        (folder / case).mkdir(parents=True)
        child = os.fork()
        if child == 0:
            train(case, folder / case)
            sys.exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or CASES)
