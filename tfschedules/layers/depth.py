"""Groups by depth: rates that grow from the input of a model to its output.

Nothing here needs Keras: layers are looked at, not made.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from tfschedules._support import checks
from tfschedules._support.arguments import checked_names
from tfschedules.layers.groups import (
    LayerGroup,
    is_layer,
    name_of,
    own_weights,
    weights_of,
)

_GROUPS = 3  # if not told, and where there are as many layers


@checked_names
def discriminative_groups(
    model: Any,
    low: float,
    high: float = 1.0,
    n_groups: int | None = None,
    *,
    boundaries: Sequence[Any] | None = None,
    by: str = "layers",
) -> list[LayerGroup]:
    """Groups from the input to the output, with rates that grow geometrically.

    The multiplier of group i of n is low · (high / low)^(i / (n−1)), i = 0 … n−1
    (Howard & Ruder 2018, section 3.2, divide by 2.6 from layer to layer).

    The order is that of `model.layers`, with nested models opened; in a subclassed
    model it is the order in which layers were made. A normalisation layer stays with
    the layer before it; weights that a model holds itself (class tokens, positions)
    are in the first group. A weight that two layers share is with the first of them.

    Args:
        model: A built model.
        low: The multiplier of the first group, at the input; > 0.
        high: That of the last group, at the output; >= `low`.
        n_groups: How many groups. Without it, and without `boundaries`, there are
            three, or as many as the model has layers with weights if these are fewer.
        boundaries: The layers or nested models, as objects or names, with which the
            second and later groups begin.
        by: What is divided evenly without boundaries: "layers" or "parameters".

    Returns:
        The groups, named `group_1` (input) to `group_n` (output).

    Raises:
        TypeError: If `model` is not a model.
        ValueError: If the model is not built, has fewer layers with weights than
            groups, or lacks a boundary; or if a number is out of its range.

    Example:
        >>> import keras
        >>> model = keras.Sequential(
        ...     [keras.Input((4,)), *(keras.layers.Dense(4) for _ in range(3))]
        ... )
        >>> tuple(group.multiplier for group in discriminative_groups(model, low=0.01))
        (0.01, 0.1, 1.0)
    """
    low = checks.real("low", low, above=0)
    high = checks.real("high", high, above=0)
    checks.ordered("low", low, "high", high)
    checks.choice("by", by, ["layers", "parameters"])
    units = _units(model)
    if boundaries is not None:
        first = _positions(model, units, boundaries)
        count = None if n_groups is None else checks.whole("n_groups", n_groups)
        if count not in (None, len(first)):
            raise ValueError(
                f"Argument `n_groups` must be left out, or as the {len(first) - 1} "
                f"`boundaries` have it: {len(first)}. "
                f"Received: n_groups={count}"
            )
    else:
        if n_groups is None:
            n_groups = min(_GROUPS, len(units))
        count = checks.whole("n_groups", n_groups)
        if count > len(units):
            raise ValueError(
                f"Argument `n_groups` must be at most the number of layers with "
                f"weights, here {len(units)}. Received: n_groups={count}. Give "
                f"n_groups={len(units)} or less."
            )
        sizes = [1 if by == "layers" else _size(unit) for unit in units]
        first = _even(sizes, count)
    last = max(len(first) - 1, 1)
    return [
        LayerGroup(f"group_{number + 1}", layers, low ** (1 - share) * high**share)
        for number, layers in enumerate(_each_weight_once(_cut(units, first)))
        for share in [number / last if len(first) > 1 else 1.0]
    ]


@checked_names
def layer_decay_groups(
    model: Any, decay: float, *, boundaries: Sequence[Any] | None = None
) -> list[LayerGroup]:
    """A group for each layer, with rates that decay from the output to the input.

    The multiplier is decay^d, d the number of groups up to the last, which has 1
    (ELECTRA, Clark et al. 2020, table 6; BEiT, Bao et al. 2021, appendix). The order
    of layers is that of `discriminative_groups`.

    Args:
        model: A built model.
        decay: The factor from one group to the one before it, in (0, 1].
        boundaries: The layers or nested models, as objects or names, with which the
            second and later groups begin: blocks of a network, for instance. Else each
            layer with weights is a group, with the normalisation after it.

    Returns:
        The groups from input to output, named after their first layers.

    Raises:
        TypeError: If `model` is not a model.
        ValueError: If the model is not built or lacks a boundary; or if `decay` is out
            of its range.

    Example:
        >>> import keras
        >>> model = keras.Sequential(
        ...     [keras.Input((4,)), *(keras.layers.Dense(4) for _ in range(3))]
        ... )
        >>> tuple(group.multiplier for group in layer_decay_groups(model, 0.5))
        (0.25, 0.5, 1.0)
    """
    decay = checks.real("decay", decay, above=0, at_most=1)
    units = _units(model)
    first = list(range(len(units)))
    if boundaries is not None:
        first = _positions(model, units, boundaries)
    parts = _cut(units, first)
    return [
        LayerGroup(name, layers, decay ** (len(parts) - 1 - number))
        for number, (name, layers) in enumerate(
            zip(
                _unlike([part[0].name for part in parts]),
                _each_weight_once(parts),
                strict=True,
            )
        )
    ]


def _unlike(names: list[str]) -> list[str]:
    """The names, numbered where they repeat: layers of nested models may."""
    seen: dict[str, int] = {}
    for number, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        names[number] = name if seen[name] == 1 else f"{name} ({seen[name]})"
    return names


def _units(model: Any) -> list[list[Any]]:
    """The layers with weights from input to output, each with what belongs to it."""
    if not hasattr(model, "layers") or not is_layer(model):
        raise TypeError(
            "Argument `model` must be a Keras model. "
            f"Received: model={checks.shown(model)} (of type {type(model).__name__})"
        )
    if not model.built or not model.weights:
        raise ValueError(
            f"The model {model.name!r} is not built yet, and groups are made of its "
            "weights. Give it a keras.Input, call it once, or model.build(shape)."
        )
    own: list[Any] = []
    units: list[list[Any]] = []
    for layer in _opened(model, own, set()):
        kind = type(layer).__name__
        if units and kind.endswith(("Normalization", "Norm")):
            units[-1].append(layer)
        else:
            units.append([layer])
    if not units:
        return [own]
    units[0][:0] = own
    return units


def _opened(model: Any, own: list[Any], seen: set[int]) -> Iterable[Any]:
    """The layers with weights, nested models opened; the models' own into `own`."""
    own += own_weights(model)
    for layer in model.layers:
        fresh = [weight for weight in layer.weights if id(weight) not in seen]
        if id(layer) in seen or (layer.weights and not fresh):
            continue  # shared by two models, or tied to layers before
        seen.add(id(layer))
        if _is_model(layer):
            yield from _opened(layer, own, seen)
        elif fresh:
            seen.update(map(id, fresh))
            yield layer


def _is_model(layer: Any) -> bool:
    return any(kind.__name__ == "Model" for kind in type(layer).__mro__)


def _nested(model: Any) -> Iterable[Any]:
    """The models inside a model, at any depth."""
    for layer in model.layers:
        if _is_model(layer):
            yield layer
            yield from _nested(layer)


def _size(unit: list[Any]) -> int:
    weights = [weight for layer in unit for weight in weights_of(layer)]
    return sum(math.prod(weight.shape) for weight in weights)


def _even(sizes: list[int], count: int) -> list[int]:
    """Where each of `count` parts begins, with sums of `sizes` as even as may be."""
    first, total, done = [0], sum(sizes), 0
    for position, size in enumerate(sizes):
        left, parts_left = len(sizes) - position, count - len(first)
        # Cut before this one if the mark is nearer to here than to the next.
        mark = total * len(first) / count
        near = done + size - mark >= mark - done
        if position > first[-1] and parts_left and (near or left <= parts_left):
            first.append(position)
        done += size
    return first


def _cut(units: list[list[Any]], first: list[int]) -> list[list[Any]]:
    ends = [*first[1:], len(units)]
    return [
        [layer for unit in units[begin:end] for layer in unit]
        for begin, end in zip(first, ends, strict=True)
    ]


def _each_weight_once(parts: list[list[Any]]) -> list[list[Any]]:
    """Layers as they are, but of one tied to a layer before only what is its own."""
    seen: set[int] = set()
    result = []
    for part in parts:
        members: list[Any] = []
        for layer in part:
            weights = layer.weights if hasattr(layer, "weights") else [layer]
            own = [weight for weight in weights if id(weight) not in seen]
            members += [layer] if len(own) == len(weights) else own
            seen.update(map(id, own))
        result.append(members)
    return result


def _positions(model: Any, units: list[list[Any]], boundaries: Any) -> list[int]:
    """Where the groups begin that `boundaries` name."""
    boundaries = checks.listed(
        "boundaries", boundaries, "a list of layers or their names"
    )
    for boundary in boundaries:
        if not isinstance(boundary, str) and not is_layer(boundary):
            raise TypeError(
                "Argument `boundaries` must be a list of layers or their names. "
                f"Received: {checks.shown(boundary)} "
                f"(of type {type(boundary).__name__}) in it"
            )
    nested = list(_nested(model))
    first = [0]
    for boundary in boundaries:
        name = getattr(boundary, "name", boundary)
        # A name may be that of a layer, of a nested model, or of both.
        meant = [boundary]
        if isinstance(boundary, str):
            meant += [inner for inner in nested if inner.name == boundary]
        at = [
            n
            for n, unit in enumerate(units)
            if any(_begins(unit, one, n == 0) for one in meant)
        ]
        if len(at) != 1:
            starts = [*(unit[0] for unit in units[1:]), *nested]
            names = ", ".join(dict.fromkeys(map(name_of, starts)))
            what = (
                "more than one layer" if at else "no layer that a group can begin with"
            )
            raise ValueError(
                f"Argument `boundaries` has {checks.shown(name)}, which is {what} of "
                f"the model {model.name!r}. There are: {names}."
            )
        if at[0] <= first[-1]:
            raise ValueError(
                "Argument `boundaries` must go from the input to the output, without "
                f"the first layer. Received: {checks.shown(name)} at or before the "
                "boundary before it"
            )
        first.append(at[0])
    return first


def _begins(unit: list[Any], boundary: Any, is_first: bool) -> bool:
    """Whether `boundary` is this unit's first layer, or a model that begins with it."""
    if isinstance(boundary, str):
        return any(layer.name == boundary for layer in unit[: None if is_first else 1])
    if hasattr(boundary, "layers"):
        inside = list(_opened(boundary, [], set()))
        return bool(inside) and inside[0] is unit[0]
    return unit[0] is boundary
