"""Fits with a logger, saved and gone on with, and what their runs show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
from event_files import read, runs
from helpers import (
    digits,
    softmax_regression,
)

import tfschedules as tfs

X, Y = digits(48)  # six batches of eight to an epoch
SGD = keras.optimizers.SGD
RATE, LOSS = "schedule/learning_rate", "schedule/loss"


def model_at(rate: float) -> keras.Model:
    return softmax_regression(SGD(rate, momentum=0.9))


def fit(model: keras.Model, folder: Path, *callbacks: Any, **arguments: Any) -> None:
    arguments = {"epochs": 1, "shuffle": False, "verbose": 0} | arguments
    logger = tfs.TensorBoardLogger(folder)
    model.fit(X, Y, batch_size=8, callbacks=[*callbacks, logger], **arguments)


def recorded(folder: Path, tag: str = RATE) -> dict[str, dict[int, float]]:
    """Of each run: the value at each step, as TensorBoard shows them."""
    found = {}
    for run in runs(folder):
        steps, values, _ = read(folder / run)[tag]
        assert len({*steps}) == len(steps)
        found[run] = dict(zip(map(int, steps), map(float, values), strict=True))
    return found


def rates(folder: Path) -> dict[str, dict[float, list[int]]]:
    """Of each run: at which steps it has which rate, rounded."""
    found: dict[str, dict[float, list[int]]] = {}
    for run, values in recorded(folder).items():
        for step, value in values.items():
            found.setdefault(run, {}).setdefault(round(value, 4), []).append(step)
    return found


def steps(*bounds: int) -> list[int]:
    return list(range(*bounds))


def saved(model: keras.Model, path: Path) -> Path:
    model.save(path)
    return path
