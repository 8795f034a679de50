"""A network that writes down the rates it really had, update by update.

Its loss is its output, the sum of two layers without biases that begin at 0; batch k is
the k-th unit vector. So the gradient of weight k is 1 in the update with batch k, and 0
in all others: by SGD without momentum weight k is minus the rate of that update.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from helpers import JIT

STEPS = 48


def units() -> tuple[np.ndarray, np.ndarray]:
    """The unit vectors, and targets that mean nothing."""
    return np.eye(STEPS, dtype="float32"), np.zeros((STEPS, 1), "float32")


@keras.saving.register_keras_serializable("tfschedules_tests", "output")
def output(y_true: Any, y_pred: Any) -> Any:
    """The output is the loss."""
    return y_pred


def unit_model(
    optimizer: Any = None, rate: float = 0.1, **compile_arguments: Any
) -> keras.Model:
    """The network, compiled with SGD if not told otherwise."""
    inputs = keras.Input((STEPS,))
    body, head = (
        keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros", name=name)
        for name in ("body", "head")
    )
    model = keras.Model(inputs, keras.layers.Add()([body(inputs), head(inputs)]))
    if optimizer is None:
        optimizer = keras.optimizers.SGD(rate)
    arguments = {"jit_compile": JIT, "loss": output, **compile_arguments}
    model.compile(optimizer, **arguments)
    return model


def rates_written(model: keras.Model, layer: str = "head") -> np.ndarray:
    """The rates of all updates so far, by the unit vector that they were made with."""
    kernel = model.get_layer(layer).kernel
    return -np.array(keras.ops.convert_to_numpy(kernel))[:, 0]


def tape_step(model: keras.Model) -> Any:
    """A step of a user's own on TensorFlow: a function of a batch of inputs."""
    import tensorflow as tf

    def step(batch: Any) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(batch, training=True))
        weights = model.trainable_variables
        model.optimizer.apply(tape.gradient(loss, weights), weights)

    return step


def loop(
    model: keras.Model,
    callbacks: list[Any],
    epochs: int = 2,
    steps: int = 4,
    begin: int = 0,
    **told: Any,
) -> None:
    """What TensorFlow's guide to callbacks shows."""
    told = told or {"epochs": epochs, "steps": steps}
    x, y = units()
    callback_list = keras.callbacks.CallbackList(callbacks, model=model, **told)
    callback_list.on_train_begin()
    for epoch in range(epochs):
        callback_list.on_epoch_begin(epoch)
        for batch in range(steps):
            at = begin + epoch * steps + batch
            callback_list.on_train_batch_begin(batch)
            logs = model.train_on_batch(x[at : at + 1], y[:1], return_dict=True)
            callback_list.on_train_batch_end(batch, logs)
        callback_list.on_epoch_end(epoch, {})
    callback_list.on_train_end()
