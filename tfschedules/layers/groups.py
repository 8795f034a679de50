"""Layers in groups: which weight follows which rate.

A partition of a model's weights is total and disjoint, or an error that lists both
sides. Weights are found by identity where layers are given as objects, else by path:
`dense_1/kernel`, without the model's own name, which changes when a model is loaded.
Nothing here needs Keras: layers and variables are looked at, not made.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tfschedules._support import checks
from tfschedules._support.arguments import Named, did_you_mean
from tfschedules.drive import trained

# Names of weights that are commonly not decayed, by what `no_decay` calls them.
NO_DECAY = {
    "bias": re.compile(r"(^|_)bias$"),
    "norm": re.compile(r"^(gamma|beta|scale)$"),
    "embedding": re.compile(r"(^|_)embeddings?$"),
}


@dataclasses.dataclass(frozen=True)
class LayerGroup(Named):
    """Layers that share a learning rate.

    Args:
        name: What tables, errors and TensorBoard call the group.
        layers: A list of layers, each an object or a name; or one string, a regular
            expression that is searched in the paths of weights (`dense_1/kernel`, as
            in `variable.path`, without the model's own name). A nested model is given
            as an object, as paths do not always hold its name. Single weights may be
            in the list, too.
        multiplier: The group's rate over the optimizer's, >= 0: a number, or a
            schedule of the optimizer's updates. (A function that is not registered with
            Keras cannot be loaded again. Ftrl divides by the rate: a schedule must not
            reach 0 there.)
        weight_decay_multiplier: The group's weight decay over the optimizer's, >= 0.
            Decay is applied with the group's own rate, and this scales it besides.
        momentum: The group's own momentum, in [0, 1); `beta_1` where an optimizer has
            no momentum. Without one it has the optimizer's. A schedule that drives
            momentum drives that of groups without their own.

    Raises:
        TypeError: If an argument is of another kind.
        ValueError: If a group is empty, a number negative or not finite, a momentum
            not below 1, or the regular expression broken.

    Example:
        >>> LayerGroup("head", ["dense_2"], multiplier=10.0)
        LayerGroup(name='head', layers=('dense_2',), multiplier=10.0, ...)
        >>> LayerGroup("body", "^(conv|norm)", weight_decay_multiplier=0.0).layers
        '^(conv|norm)'
    """

    name: str
    layers: Any
    multiplier: Any = 1.0
    weight_decay_multiplier: float = 1.0
    momentum: float | None = None

    def __post_init__(self) -> None:
        """Check and normalise the arguments."""
        checks.text("name", self.name, "a string")
        where = f"of the group {self.name!r}"
        object.__setattr__(self, "layers", _layers(where, self.layers))
        if not callable(self.multiplier):
            number = checks.real(
                "multiplier",
                self.multiplier,
                at_least=0,
                hint="A tfschedules.Schedule will do, too.",
            )
            object.__setattr__(self, "multiplier", number)
        decay = checks.real(
            "weight_decay_multiplier", self.weight_decay_multiplier, at_least=0
        )
        object.__setattr__(self, "weight_decay_multiplier", decay)
        if self.momentum is not None:
            momentum = checks.real("momentum", self.momentum, at_least=0)
            if momentum >= 1:
                raise ValueError(
                    f"Argument `momentum` must be < 1. Received: momentum={momentum}. "
                    "1 - momentum is what a new gradient counts for: say 0.9."
                )
            object.__setattr__(self, "momentum", momentum)

    @property
    def layer_names(self) -> list[str]:
        """The names of the layers, or the regular expression between slashes."""
        if isinstance(self.layers, str):
            return [f"/{self.layers}/"]
        return [name_of(layer) for layer in self.layers]


def _layers(where: str, given: Any) -> Any:
    """The layers of a group as a tuple, or the regular expression."""
    if isinstance(given, str):
        try:
            re.compile(given)
        except re.error as error:
            raise ValueError(
                f"Argument `layers` {where} is a string, and so a regular expression "
                f"on the paths of weights; this one is broken: {error}. Received: "
                f"layers={checks.shown(given)}. Layer names go into a list."
            ) from None
        if not given:
            raise ValueError(
                f"Argument `layers` {where} must not be an empty regular expression, "
                "which matches every weight. Received: layers=''. To take all of them, "
                "say '.*'."
            )
        return given
    if is_layer(given):
        return (given,)
    what = f"a list of layers or their names, or a regular expression, {where}"
    layers = tuple(checks.listed("layers", given, what))
    if not layers:
        raise ValueError(
            f"Argument `layers` {where} must hold a layer. Received: layers=[]. Leave "
            "the group out."
        )
    for layer in layers:
        if not (isinstance(layer, str) and layer) and not is_layer(layer):
            raise TypeError(
                f"Argument `layers` must be layers or their names, {where}. "
                f"Received: {checks.shown(layer)} (of type {type(layer).__name__})"
            )
    return layers


def is_layer(thing: Any) -> bool:
    """Whether this is a layer, a model or a single weight."""
    return not isinstance(thing, type) and hasattr(thing, "trainable")


def weights_of(thing: Any) -> list[Any]:
    """A layer's weights, or a single weight."""
    return list(thing.variables) if hasattr(thing, "variables") else [thing]


def weights_known(group: LayerGroup) -> list[Any] | None:
    """The weights of a group that an optimizer would be built on now.

    `None` where that takes a model: layers are given by name, or are not built.
    """
    if isinstance(group.layers, str):
        return None
    for layer in group.layers:
        if isinstance(layer, str) or not getattr(layer, "built", True):
            return None
    weights = [w for layer in group.layers for w in weights_of(layer) if w.trainable]
    return list({id(weight): weight for weight in weights}.values())


def _trained(layer: Any) -> list[Any]:
    """The weights that training changes by gradients, frozen now or not."""
    if not hasattr(layer, "variables"):
        return [layer]
    return trained(layer)


def own_weights(model: Any) -> list[Any]:
    """The trainable weights that a model holds itself, and none of its layers."""
    inside = {id(weight) for layer in model.layers for weight in layer.variables}
    return [w for w in model.trainable_variables if id(w) not in inside]


def name_of(layer: Any) -> str:
    """The name of a layer that is given as an object or by name."""
    return layer if isinstance(layer, str) else layer.name


def check_groups(groups: Any) -> tuple[LayerGroup, ...]:
    """What can be checked of groups before there is a model.

    Raises:
        TypeError: If it is not a list of groups.
        ValueError: If there is none, or a name or a layer is there twice.
    """
    groups = tuple(checks.listed("groups", groups, "a list of LayerGroup"))
    for group in groups:
        if not isinstance(group, LayerGroup):
            raise TypeError(
                "Argument `groups` must be a list of LayerGroup, as "
                "discriminative_groups(model, low=0.01) returns. "
                f"Received: {checks.shown(group)} "
                f"(of type {type(group).__name__}) in it"
            )
    if not groups:
        raise ValueError(
            "Argument `groups` must hold at least one LayerGroup. Received: groups=[]"
        )
    for what, keys in (
        ("name", [(group.name, group.name) for group in groups]),
        # A name may be that of two layers, in two nested models: see `assign`.
        ("layer", [(id(x), x.name) for x in _objects(groups)]),
    ):
        seen = set()
        for key, name in keys:
            if key in seen:
                raise ValueError(
                    f"Argument `groups` has the {what} {name!r} twice: every layer "
                    "is in one group, and every group has a name of its own."
                )
            seen.add(key)
    return groups


def _objects(groups: Iterable[LayerGroup]) -> list[Any]:
    lists = [group.layers for group in groups if not isinstance(group.layers, str)]
    return [x for layers in lists for x in layers if not isinstance(x, str)]


def paths_of(weights: Sequence[Any]) -> list[str]:
    """The weights' paths without the root: what regular expressions are searched in.

    The root is the first part if all paths share it: Keras begins the paths of a
    Sequential or a subclassed model with its name, those of a functional one not.
    """
    paths = [_path(weight) for weight in weights]
    if len({path.split("/")[0] for path in paths}) > 1:
        return paths
    return [_inside(path) for path in paths]


def memberships(
    groups: Sequence[LayerGroup], weights: Sequence[Any]
) -> list[list[int]]:
    """For each weight, the groups that it is in, by their positions."""
    paths = paths_of(weights)
    known = {name for path in paths for name in _names_on(path)}
    tests = [_test(group, paths, known) for group in groups]
    return [
        [number for number, test in enumerate(tests) if test(weight, path)]
        for weight, path in zip(weights, paths, strict=True)
    ]


def _test(
    group: LayerGroup, paths: Sequence[str], known: set[str]
) -> Callable[[Any, str], bool]:
    if isinstance(group.layers, str):
        pattern = re.compile(group.layers)
        if any(map(pattern.search, paths)):
            return lambda weight, path: pattern.search(path) is not None
        # Beside a nested model that was built before, the root's name is on some paths.
        return lambda weight, path: pattern.search(_inside(path)) is not None
    given = {layer for layer in group.layers if isinstance(layer, str)}
    # The root may be called as one of its layers, or be left out where it is a layer.
    names, whole = given & known, given - known
    objects = [layer for layer in group.layers if not isinstance(layer, str)]
    members = {id(weight) for layer in objects for weight in weights_of(layer)}
    return lambda weight, path: (
        id(weight) in members
        or not names.isdisjoint(_names_on(path))
        or not whole.isdisjoint(_names_on(_path(weight)))
    )


def _inside(path: str) -> str:
    """A path without its first part, of those of a layer and a weight at least."""
    return path.split("/", 1)[1] if path.count("/") > 1 else path


def _path(weight: Any) -> str:
    return getattr(weight, "path", weight.name)


def _names_on(path: str) -> set[str]:
    """What a weight may be called by: the layers on its path, and the ends of that."""
    parts = path.split("/")
    ends = {"/".join(parts[begin:]) for begin in range(len(parts) - 1)}
    return {*parts[:-1], *ends}


def assign(
    groups: Sequence[LayerGroup],
    weights: Sequence[Any],
    *,
    total: bool = True,
    loaded: str = "",
) -> list[int | None]:
    """For each weight, the group that it is in.

    Args:
        groups: The groups.
        weights: What is to be divided: the trainable weights of a model.
        total: Whether every weight has to be in a group; else those left are `None`.
        loaded: If the groups come from a file, a sentence that says why they go by
            names, for the message. Names may be of frozen layers then.

    Raises:
        ValueError: If a weight is in no group or in two, or a group has none; if a
            layer is unknown, not built, or of another model; if there are no weights.
    """
    if not (weights or loaded):
        raise ValueError(
            "There are no trainable weights: everything is frozen, or the model is not "
            "built yet. Leave what is ever to be trained at trainable=True, and build "
            "the model (give it a keras.Input) first."
        )
    found = memberships(groups, weights)
    if not loaded:
        _check_layers(groups, weights, found)
    paths = paths_of(weights)
    doubled = [
        f"{path} (in {' and '.join(repr(groups[n].name) for n in numbers)})"
        for path, numbers in zip(paths, found, strict=True)
        if len(numbers) > 1
    ]
    unmatched = [p for p, numbers in zip(paths, found, strict=True) if not numbers]
    if doubled or (total and unmatched):
        raise ValueError(
            "Every weight must be in one group."
            + (f" In no group: {', '.join(unmatched)}." if unmatched and total else "")
            + (f" In more than one: {', '.join(doubled)}." if doubled else "")
            + (" Add a group for the first" if unmatched and total else "")
            + (" (LayerwiseOptimizer: or give default=1.0)." if unmatched else "")
            + (
                f" {loaded} Or load_model(path, compile=False), and compile anew."
                if loaded
                else ""
            )
        )
    return [numbers[0] if numbers else None for numbers in found]


def _check_layers(
    groups: Sequence[LayerGroup], weights: Sequence[Any], found: list[list[int]]
) -> None:
    """Refuse groups without weights, and layers that are not in the model."""
    known = {id(weight) for weight in weights}
    names = {name for weight in weights for name in _names_on(_path(weight))}
    inside = {name for path in paths_of(weights) for name in _names_on(path)}
    layers = sorted(name for name in inside if "/" not in name)
    for number, group in enumerate(groups):
        where = f"of the group {group.name!r}"
        frozen = False
        for layer in () if isinstance(group.layers, str) else group.layers:
            if isinstance(layer, str):
                if layer not in names:
                    raise ValueError(
                        f"The layer {layer!r} {where} is unknown: no trainable weight "
                        "has it on its path."
                        + did_you_mean(layer, layers, "'{}'")
                        + " A nested model is given as an object, and a layer that is "
                        "frozen when the optimizer is built is not seen by name. "
                        f"There are: {', '.join(layers)}."
                    )
                continue
            if not getattr(layer, "built", True):
                raise ValueError(
                    f"The layer {layer.name!r} {where} is not built, and so is not in "
                    "the model that is trained. Build the model first (give it a "
                    "keras.Input), and take its own layers."
                )
            for weight in weights_of(layer):
                if weight.trainable and id(weight) not in known:
                    raise ValueError(
                        f"The layer {layer.name!r} {where} is not in the model that is "
                        "trained, or was frozen when its optimizer was built: the "
                        f"optimizer does not know {weight.path}. Take the layers of "
                        "the model itself, for instance model.get_layer(name); after "
                        "changing `trainable`, compile with a new optimizer."
                    )
            frozen = frozen or any(not w.trainable for w in _trained(layer))
        if not frozen and not any(number in numbers for numbers in found):
            what = "have none"
            if isinstance(group.layers, str):
                what = (
                    f"{group.layers!r} matches none of {', '.join(paths_of(weights))}"
                )
            raise ValueError(
                f"The group {group.name!r} is empty: its layers must hold trainable "
                f"weights, and {what}."
            )


def no_decay_kinds(given: bool | Sequence[str]) -> tuple[str, ...]:
    """Check and normalise `no_decay`: the kinds of weights that are not decayed."""
    if isinstance(given, bool):
        return tuple(NO_DECAY) if given else ()
    what = f"True, False, or a list of {', '.join(map(repr, NO_DECAY))}"
    kinds = checks.listed("no_decay", given, what)
    return tuple(checks.choice("no_decay", kind, list(NO_DECAY)) for kind in kinds)


def is_decayed(weight: Any, no_decay: Iterable[str]) -> bool:
    """Whether `weight` is of none of the kinds `no_decay`, by its name."""
    name = weight.name.split("/")[-1].split(":")[0]
    return not any(NO_DECAY[kind].search(name) for kind in no_decay)
