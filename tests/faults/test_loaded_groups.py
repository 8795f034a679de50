"""Groups of a loaded optimizer whose weights, or their layers, have no names.

Keras numbers them anew in each model that it loads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tfschedules as tfs

pytestmark = pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="LayerwiseOptimizer is refused on torch"
)
X = np.ones((8, 2), "float32")


@keras.saving.register_keras_serializable("tfschedules_tests_loaded")
class Nameless(keras.layers.Layer):
    """Two weights without names."""

    def build(self, shape: Any) -> None:
        self.a = self.add_weight(shape=(shape[-1],), initializer="ones")
        self.b = self.add_weight(shape=(shape[-1],), initializer="zeros")

    def call(self, x: Any) -> Any:
        return x * self.a + self.b


@keras.saving.register_keras_serializable("tfschedules_tests_loaded")
class Nested(keras.layers.Layer):
    """Two layers without names."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.a, self.b = keras.layers.Dense(2), keras.layers.Dense(2)

    def build(self, shape: Any) -> None:
        self.a.build(shape)
        self.b.build(shape)

    def call(self, x: Any) -> Any:
        return self.b(self.a(x))


def layerwise(kind: Any) -> keras.Model:
    """Only what is called `b` is trained."""
    model = keras.Sequential([keras.Input((2,)), kind(name="body")])
    body = model.layers[0]
    groups = [tfs.LayerGroup("A", [body.a], 0.0), tfs.LayerGroup("B", [body.b])]
    optimizer = tfs.LayerwiseOptimizer(keras.optimizers.SGD(0.1), groups)
    model.compile(optimizer, "mse")
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.mark.parametrize("kind", [Nameless, Nested])
@pytest.mark.parametrize("default", [None, 1.0])
def test_weights_without_names_are_found_again(
    kind: Any, default: float | None, tmp_path: Path
) -> None:
    model = layerwise(kind)
    model.optimizer.default = default
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    names = [[v.path.split("/", 1)[1] for v in m.weights] for m in (model, loaded)]
    assert names[0] != names[1]  # Keras has given others
    before = [np.array(weight) for weight in loaded.get_weights()]
    loaded.fit(X, X + 1, verbose=0)
    changed = [
        bool((one != other).any())
        for one, other in zip(before, loaded.get_weights(), strict=True)
    ]
    half = len(changed) // 2
    assert changed == [False] * half + [True] * half


def variables(*names: str) -> list[Any]:
    """The weights of layers of these names, of which each is a group of its own."""
    layers = [keras.layers.Dense(2, name=name) for name in names]
    return keras.Sequential([keras.Input((2,)), *layers]).trainable_variables


def saved(*names: str, built: bool = True) -> tfs.LayerwiseOptimizer:
    groups = [tfs.LayerGroup(name, [name], i + 1.0) for i, name in enumerate(names)]
    optimizer = tfs.LayerwiseOptimizer(keras.optimizers.SGD(0.1), groups)
    if built:
        optimizer.build(variables(*names))
    return tfs.LayerwiseOptimizer.from_config(optimizer.get_config())


def test_a_number_tells_nothing_unless_it_is_anothers() -> None:
    numbered = saved("dense", "dense_1")
    numbered.build(variables("dense_7", "dense_8"))
    groups = [numbered.groups[number].name for number in numbered._numbers]
    assert groups == ["dense", "dense", "dense_1", "dense_1"]

    turned = saved("dense", "dense_1")
    turned.build(variables("dense_1", "dense"))
    groups = [turned.groups[number].name for number in turned._numbers]
    assert groups == ["dense_1", "dense_1", "dense", "dense"]  # by their names

    shifted = saved("dense", "dense_1")
    message = (
        r"In no group: dense_2/kernel.* go by the names of layers, as the optimizer "
        r"was saved with other weights: at place 0 it had dense/kernel of shape "
        r"\(2, 2\), and here is dense_1/kernel of shape \(2, 2\)\. Give layers"
    )
    with pytest.raises(ValueError, match=message):
        shifted.build(variables("dense_1", "dense_2"))


def test_the_cause_is_that_it_was_not_built_where_it_was_not() -> None:
    with pytest.raises(ValueError, match=r"as the optimizer was not built: before sav"):
        saved("a", "b", built=False).build(variables("a", "c"))
    with pytest.raises(ValueError, match=r"at place 2 it had none, and here is b/kern"):
        saved("a").build(variables("a", "b"))
