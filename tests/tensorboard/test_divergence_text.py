"""What the logger says in words when a loss is not finite."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from event_files import accumulated, runs
from tensorboard.util import tensor_util

import tfschedules as tfs


def texts(run_dir) -> list[tuple[int, str]]:
    found = accumulated(run_dir)
    if "schedule/divergence" not in found.Tags()["tensors"]:
        return []
    return [
        (event.step, tensor_util.make_ndarray(event.tensor_proto).item().decode())
        for event in found.Tensors("schedule/divergence")
    ]


@pytest.mark.parametrize("word", ["NaN", "infinite", None])
def test_the_first_loss_that_is_not_finite_is_told_once_with_its_rate(tmp_path, word):
    x, y = np.ones((12, 1), "float32"), np.zeros((12, 1), "float32")
    if word is not None:
        y[[5, 7]] = {"NaN": np.nan, "infinite": np.inf}[word]
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(), "mse")
    callbacks = [
        tfs.HyperparameterScheduler(learning_rate=tfs.Linear(0.1, 0.0, 12)),
        tfs.TensorBoardLogger(tmp_path),
    ]
    model.fit(x, y, batch_size=1, shuffle=False, verbose=0, callbacks=callbacks)
    (run,) = runs(tmp_path)
    if word is None:
        assert texts(tmp_path / run) == []
        return
    ((_, text),) = texts(tmp_path / run)
    assert text == f"The loss is {word} at step 5, at the learning rate 0.0583."
