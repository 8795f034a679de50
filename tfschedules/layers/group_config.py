"""Groups of layers in plain values, as a saved optimizer holds them.

Layers are saved by name, and weights told apart by the names that a loaded model gives
them again.
"""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Sequence
from typing import Any

import keras

from tfschedules.layers.groups import LayerGroup, own_weights


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
        "momentum": group.momentum,
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


def are_those(saved: Sequence[Any], weights: Sequence[Any]) -> bool:
    """Whether weights are those, in this order, that were saved as `kinds_of` has them.

    Keras numbers what has no name of its own, anew in each model that it loads
    (`variable_2` for `variable`, `dense_1` for `dense`). A name that differs in the
    number alone is the same one, unless the other model has it, too, at another place.
    """
    before, now = (
        [_key(kind) for kind in kinds] for kinds in (saved, kinds_of(weights))
    )
    if len(before) != len(now):
        return False
    known = {*before} & {*now}
    return all(
        one == other
        or (_unnumbered(one) == _unnumbered(other) and not {one, other} & known)
        for one, other in zip(before, now, strict=True)
    )


def by_names(saved: dict[str, Any] | None, weights: Sequence[Any]) -> str:
    """Why the groups of a loaded optimizer go by the names of layers."""
    if saved is None:
        return (
            "These groups were saved by the names of layers, as the optimizer was not "
            "built: before saving, optimizer.build(model.trainable_variables)."
        )
    before, now = (
        [_key(kind) for kind in kinds]
        for kinds in (saved["variables"], kinds_of(weights))
    )
    pairs = itertools.zip_longest(before, now, fillvalue=None)
    at, (one, other) = next(
        each for each in enumerate(pairs) if each[1][0] != each[1][1]
    )
    return (
        "These groups go by the names of layers, as the optimizer was saved with other "
        f"weights: at place {at} it had {_words(one)}, and here is {_words(other)}. "
        "Give layers, and weights that have none, names of their own."
    )


def _key(kind: Sequence[Any]) -> tuple[Any, ...]:
    *names, shape = kind
    return (*names, tuple(shape))


def _unnumbered(key: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(re.sub(r"_\d+$", "", x) if isinstance(x, str) else x for x in key)


def _words(key: tuple[Any, ...] | None) -> str:
    if key is None:
        return "none"
    *names, shape = key
    return f"{'/'.join(names)} of shape {shape}"


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
