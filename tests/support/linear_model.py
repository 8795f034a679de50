"""A softmax regression on digits under momentum, its fit, and its sweep in NumPy."""

from __future__ import annotations

import keras
import numpy as np
from sklearn.datasets import load_digits

X, Y = load_digits(return_X_y=True)
X = (X[:640] / 16).astype("float32")
Y = Y[:640]
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def linear_model(optimizer=None, **compile_arguments):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    optimizer = optimizer or keras.optimizers.SGD(0.1, momentum=0.9)
    model.compile(optimizer, LOSS, **compile_arguments)
    return model


def numpy_sweep(model, rates, batch_size=32, accumulate=1, momentum=0.9, first=0):
    """Softmax regression in float64: the loss of each update, before it is made."""
    weights, bias = (value.astype("float64") for value in model.get_weights())
    speed_w, speed_b = np.zeros_like(weights), np.zeros_like(bias)
    batches = [slice(i, i + batch_size) for i in range(0, len(X), batch_size)]
    losses, at = [], first
    for rate in rates:
        micro, grad_w, grad_b = [], 0.0, 0.0
        for _ in range(accumulate):
            x, y = X[batches[at % len(batches)]], Y[batches[at % len(batches)]]
            at += 1
            z = x @ weights + bias
            z = z - z.max(axis=1, keepdims=True)
            p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
            micro.append(-np.log(p[np.arange(len(y)), y]).mean())
            p[np.arange(len(y)), y] -= 1
            grad_w = grad_w + x.T @ p / len(y) / accumulate
            grad_b = grad_b + p.mean(axis=0) / accumulate
        losses.append(np.mean(micro))
        speed_w = momentum * speed_w - rate * grad_w
        speed_b = momentum * speed_b - rate * grad_b
        weights, bias = weights + speed_w, bias + speed_b
    return np.array(losses)


def fit(model, *callbacks, **arguments):
    arguments = {"epochs": 3, "shuffle": False, "verbose": 0} | arguments
    return model.fit(X, Y, batch_size=32, callbacks=list(callbacks), **arguments)
