"""Which weights a layer and an optimizer have, where Keras has no public name."""

from __future__ import annotations

from typing import Any

from tfschedules.drive.state import innermost


def trained(layer: Any) -> list[Any]:
    """The weights of a layer that gradients change, frozen now or not."""
    return [w for each in layer._flatten_layers() for w in each._trainable_variables]


def trained_by(optimizer: Any) -> list[Any]:
    """The weights that an optimizer was built on, in their order."""
    return list(innermost(optimizer)._trainable_variables)


def is_trained_by(optimizer: Any, weight: Any) -> bool:
    """Whether a weight is one of them."""
    optimizer = innermost(optimizer)
    return optimizer._var_key(weight) in optimizer._trainable_variables_indices


def place_of(weight: Any, optimizer: Any) -> int:
    """The place of a weight among them."""
    return int(innermost(optimizer)._get_variable_index(weight))


def calls_in_graphs(layer: Any) -> int:
    """In how many places of graphs a layer is called."""
    return len(layer._inbound_nodes)
