"""A network that a sweep is made of, all that must be put back, and what differs."""

from __future__ import annotations

import random
from typing import Any

import keras
import numpy as np
from injector import Injector

import tfschedules as tfs

X = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
Y = (X.sum(1) > 0).astype("float32")
EAGERLY = {"run_eagerly": True, "jit_compile": False}


class Interrupts(keras.callbacks.Callback):
    """The first Ctrl-C: from then on statements are counted."""

    def __init__(self, injector: Injector, hook: str, batch: int = 2):
        super().__init__()
        self.injector, self.hook, self.batch = injector, hook, batch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        # By now all is tidied up. (An interruption of a first step costs the weights on
        # JAX, also without this package: Keras has taken them out of the variables.)
        if self.hook == "no step":
            self.injector.disarm()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.hook == "batch" and batch == self.batch:
            self.injector.arm()
            raise KeyboardInterrupt("the first")

    def on_train_end(self, logs: Any = None) -> None:
        if self.hook == "end":
            self.injector.arm()


def network(layerwise: bool = False, **arguments: Any) -> keras.Model:
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(4, name="body"),
            keras.layers.BatchNormalization(name="statistics"),
            keras.layers.Dropout(0.3, seed=1),
            keras.layers.Dense(1, "sigmoid", name="head"),
        ]
    )
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9, weight_decay=0.01)
    if layerwise:
        groups = [
            tfs.LayerGroup("low", ["body", "statistics"], multiplier=0.1),
            tfs.LayerGroup("high", ["head"]),
        ]
        optimizer = tfs.LayerwiseOptimizer(optimizer, groups)
    arguments = {**EAGERLY, "metrics": ["accuracy"], **arguments}
    model.compile(optimizer, "binary_crossentropy", **arguments)
    model.fit(X, Y, batch_size=8, verbose=0)
    model.evaluate(X[:8], Y[:8], verbose=0)  # notes something with the model
    return model


def optimizers(model: keras.Model) -> list[Any]:
    optimizer = model.optimizer
    return [optimizer, *filter(None, [vars(optimizer).get("inner_optimizer")])]


def names(model: keras.Model) -> list[set[str]]:
    """The attributes of a model, of its optimizer and of its layers."""
    owners = [model, *optimizers(model), *model._flatten_layers(include_self=False)]
    return [set(vars(owner)) for owner in owners]


def state(model: keras.Model) -> dict[str, list[Any]]:
    """All that a sweep has to put back."""
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    numpy = np.random.get_state()
    return {
        "variables": [np.array(keras.ops.convert_to_numpy(v)) for v in variables],
        "generators": [random.getstate(), numpy[1].tolist(), numpy[2:]],
        "names": names(model),
        "numbers": [
            {n: v for n, v in vars(o).items() if isinstance(v, (int, float))}
            for o in optimizers(model)
        ],
        "functions": [model.stop_training, model.history],
    }


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [
        f"{kind}[{at}]"
        for kind in before
        for at, (a, b) in enumerate(zip(before[kind], after[kind], strict=True))
        if not (np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b)
    ]


def find(model: keras.Model, **arguments: Any) -> Any:
    arguments = {"max_lr": 1.0, "steps": 4, "batch_size": 8, **arguments}
    return tfs.find_learning_rate(model, X, Y, verbose=0, **arguments)
