"""Models whose sweeps are NumPy loops, and what a sweep has to leave alone."""

import keras
import numpy as np
from helpers import digits, in_batches

X, Y = digits(640)
X_VAL, Y_VAL = (part[640:1600] for part in digits())
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
RATES = np.geomspace(1e-3, 3.0, 30)
SWEEP = {
    "min_lr": 1e-3, "max_lr": 3.0, "steps": 30, "shuffle": False, "verbose": 0
}  # fmt: skip


def dense_model(model_class=keras.Model, metrics=(), **arguments):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((64,))
    model = model_class(inputs, keras.layers.Dense(10, name="head")(inputs))
    metrics = list(metrics) or None
    model.compile(keras.optimizers.SGD(0.1), LOSS, metrics=metrics, **arguments)
    return model


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def scores(weights, x, y):
    """Cross entropy and accuracy of a softmax regression, in float64."""
    p = softmax(x.astype("float64") @ weights[0] + weights[1])
    return -np.log(p[np.arange(len(y)), y]).mean(), (p.argmax(axis=1) == y).mean()


def oracle(model, rates=RATES, accumulate=1):
    """Of each update: loss and accuracy before it on its batches, weights after it."""
    weights = [value.astype("float64") for value in model.get_weights()]
    batches = in_batches(X, Y, 32)
    rows, after = [], []
    for i, rate in enumerate(rates):
        micro, gradient = [], [0.0, 0.0]
        for j in range(accumulate):
            x, y = batches[(i * accumulate + j) % len(batches)]
            micro.append(scores(weights, x, y))
            error = softmax(x.astype("float64") @ weights[0] + weights[1])
            error[np.arange(len(y)), y] -= 1
            gradient[0] = gradient[0] + x.T @ error / len(y) / accumulate
            gradient[1] = gradient[1] + error.mean(axis=0) / accumulate
        rows.append(np.mean(micro, axis=0))
        weights = [w - rate * g for w, g in zip(weights, gradient, strict=True)]
        after.append(weights)
    return np.array(rows), after


def state_of(model):
    variables = [*model.variables, *model.optimizer.variables]
    return [np.array(keras.ops.convert_to_numpy(v.value)) for v in variables]


def assert_untouched(model, before):
    for a, b in zip(before, state_of(model), strict=False):
        np.testing.assert_array_equal(a, b)


def batches():
    yield from in_batches(X, Y, 32)
