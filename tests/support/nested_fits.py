"""A fit of unit vectors whose callbacks train the model themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
from unit_steps import units

FIT = 12  # updates of the fit; what callbacks do has unit vectors from 16 on
OTHERS = 16


class Does(keras.callbacks.Callback):
    """Calls something in every `on_<hook>`."""

    def __init__(self, hook: str, action: Callable[[Any, int], None]) -> None:
        super().__init__()
        self.times = 0

        def call(*_: Any, **__: Any) -> None:
            self.times += 1
            action(self.model, OTHERS + 2 * (self.times - 1))

        setattr(self, f"on_{hook}", call)


def on_batches(model: keras.Model, at: int) -> None:
    x, y = units()
    for i in (at, at + 1):
        model.train_on_batch(x[i : i + 1], y[:1])


def fit(model: keras.Model, *callbacks: Any) -> None:
    """Twelve updates in four epochs, on a vector of its own each."""
    x, y = units()
    every = model.optimizer.gradient_accumulation_steps or 1

    def batches() -> Iterator[Any]:
        for i in range(FIT * every):
            at = i // every
            yield x[at : at + 1], y[:1]

    model.fit(
        batches(),
        steps_per_epoch=3 * every,
        epochs=4,
        shuffle=False,
        verbose=0,
        callbacks=[*callbacks],
    )
