"""Groups of layers in plain values, as a saved optimizer holds them.

Layers are saved by name, and weights told apart by the names that a loaded model gives
them again.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import keras

from tfschedules.groups import LayerGroup, own_weights


def group_config(group: LayerGroup) -> dict[str, Any]:
    """A group in plain values; nested models as the layers that hold weights."""
    layers = group.layers
    if not isinstance(layers, str):
        layers = [name for layer in layers for name in _saved_names(layer)]
    return {
        "name": group.name,
        "layers": layers,
        "multiplier": keras.saving.serialize_keras_object(group.multiplier),
        "weight_decay_multiplier": group.weight_decay_multiplier,
    }


def group_from_config(config: dict[str, Any], custom_objects: Any = None) -> LayerGroup:
    """The group that `group_config` has described."""
    load = keras.saving.deserialize_keras_object
    multiplier = load(config["multiplier"], custom_objects)
    return LayerGroup(**{**config, "multiplier": multiplier})


def warn_of_names_twice(groups: list[dict[str, Any]]) -> None:
    """Warn of layers that cannot be told apart by what is saved of them."""
    lists = [group["layers"] for group in groups]
    names = [name for names in lists if not isinstance(names, str) for name in names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        warnings.warn(
            f"Several layers are called {', '.join(twice)}, and the optimizer is saved "
            "before it is built, with layers by their names: it will not find them. "
            "Before saving: optimizer.build(model.trainable_variables).",
            stacklevel=4,
        )


def kinds_of(weights: Sequence[Any]) -> list[Any]:
    """What weights are told apart by: the layer's name, their own, and their shape."""
    return [[*weight.path.split("/")[-2:], list(weight.shape)] for weight in weights]


def _saved_names(layer: Any) -> list[str]:
    """A layer's name, a weight's path; of a model those of its layers with weights."""
    if isinstance(layer, keras.Model):
        inside = [name for each in layer.layers for name in _saved_names(each)]
        return inside + [weight.path for weight in own_weights(layer)]
    if isinstance(layer, keras.Variable):  # without the model's name, if that is there
        return [layer.path.split("/", layer.path.count("/") > 1)[-1]]
    if isinstance(layer, str):
        return [layer]
    return [layer.name] if layer.weights or not layer.built else []
