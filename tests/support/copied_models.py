"""Range tests whose copy of the model is on disk, and what of it has come back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
from interrupted import X, Y, differences, find, state

from tfschedules.drive import Loan


class At(keras.callbacks.Callback):
    """Does something in the middle of a sweep."""

    def __init__(self, action: Callable[[], Any]) -> None:
        super().__init__()
        self.action = action

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 1:
            self.action()


def nothing() -> None:
    pass


def function(model: keras.Model, folder: Any, action: Any = nothing) -> Any:
    return find(model, snapshot_dir=folder, callbacks=[At(action)])


def wrong(before: dict[str, Any], model: keras.Model) -> list[str]:
    """What is not as it was."""
    after = state(model)
    # Keras makes a history before it asks callbacks.
    before = {**before, "functions": [before["functions"][0]]}
    after["functions"] = after["functions"][:1]
    return [*differences(before, after), *map(str, Loan.borrowers(model))]


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*"), key=lambda path: int(path.name))


def variables(model: keras.Model) -> list[Any]:
    return [*model.variables, *model.optimizer.variables, *model.metrics_variables]


# ------------------------------------------------------------------------- writing


def small() -> keras.Model:
    """Few variables, so that every operation can be tried."""
    keras.utils.set_random_seed(1)
    layers = [keras.Input((6,)), keras.layers.Dense(1), keras.layers.Dropout(0.1)]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse", run_eagerly=True)
    model.fit(X, Y, batch_size=8, verbose=0)
    model.evaluate(X[:8], Y[:8], verbose=0)  # notes something with the model
    return model


# ------------------------------------------------------ other things that go wrong


class Broken(Exception):
    pass
