"""Which optimizer of a model is meant.

Most models have one, the one that `compile` was given. A GAN has two, and its own
`train_step` knows which updates what. So whoever borrows an optimizer names it once:
what is chosen is a value that a loan carries, and everything else asks that.

The optimizers of a model are those that its attributes hold, and those of the models
and layers in it, also in lists and dictionaries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from tfschedules._support import checks
from tfschedules.drive.state import innermost, read

_COMPILED = "optimizer"  # the attribute that `compile` sets
_TORCHS = "_modules"  # where torch keeps the layers that attributes hold
_KERASS = ("_self_", "_layers", "_functional", "_operations", "_tracker", _TORCHS)


class Chosen:
    """One optimizer of one model.

    Attributes:
        model: The model.
        name: The attribute that holds it, dotted; `None` for the compiled one.
        optimizer: The optimizer, as the attribute holds it.
        inner: The one that makes the updates, inside those that wrap it.
    """

    def __init__(self, model: keras.Model, name: str | None, optimizer: Any) -> None:
        self.model, self.name, self.optimizer = model, name, optimizer
        self.inner = innermost(optimizer)

    @classmethod
    def compiled(cls, model: keras.Model) -> Chosen:
        """The one that `compile` was given.

        Raises:
            ValueError: If there is none.
        """
        optimizer = getattr(model, _COMPILED, None)
        if optimizer is None:
            raise ValueError(
                "Callbacks of tfschedules need a model that is compiled with an "
                f"optimizer. Received: {model.name!r}, compiled without one (or not at "
                "all). Give compile the optimizer that the training step updates with."
                + _way_to_others(model)
            )
        return cls(model, None, optimizer)

    @property
    def is_compiled(self) -> bool:
        """Whether it is the one that `compile` was given."""
        return self.name is None

    @property
    def kind(self) -> str:
        """The name of its class, inside of what wraps it."""
        return type(self.inner).__name__

    @property
    def every(self) -> int:
        """How many batches make an update."""
        return self.inner.gradient_accumulation_steps or 1

    @property
    def rate(self) -> Any:
        """What its rate comes from: a variable, or a schedule that it was made with."""
        return self.inner._learning_rate

    def batches(self) -> int:
        """How many batches it has seen, also to accumulate them."""
        return int(read(self.model, self.inner._iterations))

    def updates(self) -> int:
        """How many updates it has made: batches over accumulation."""
        return self.batches() // self.every

    def tag(self, name: str) -> str:
        """A name in logs: of another optimizer than the compiled one it tells whose."""
        return name if self.name is None else f"{self.name}/{name}"

    def __str__(self) -> str:
        return f"`{self.name or _COMPILED}` ({self.kind})"


def choose(model: keras.Model, given: Any = None) -> Chosen:
    """The optimizer of a model that is meant.

    Args:
        model: The model.
        given: `None` for the compiled one; the name of the attribute that holds it, as
            `d_optimizer` or `discriminator.optimizer`; or the optimizer itself.

    Raises:
        ValueError: If the model does not have it.
    """
    if given is None:
        return Chosen.compiled(model)
    known = optimizers_of(model)
    optimizer = given
    if isinstance(given, str):
        named = [each.optimizer for each in known if each.name == given]
        optimizer = named[0] if named else _found(model, given)
    if isinstance(optimizer, keras.Optimizer):
        inner = innermost(optimizer)
        for each in known:
            if each.inner is inner:
                return each
        if isinstance(given, str):  # a property has it
            return Chosen(model, given, optimizer)
    has = f"It has {_listed(known)}." if known else "It has none."
    if isinstance(given, str):
        raise ValueError(
            "Argument `optimizer` must name an attribute of the model that holds an "
            f"optimizer of Keras. Received: optimizer={given!r}. {has}"
        )
    raise ValueError(
        f"Argument `optimizer` must be one of the model {model.name!r}, held by an "
        f"attribute. Received: {type(given).__name__}, which it does not have. {has} "
        "Set it as an attribute before fit, as in model.d_optimizer = optimizer."
    )


def optimizer_given(given: Any) -> Any:
    """Return what names an optimizer, or say what is wrong.

    Raises:
        TypeError: If it is no name and no optimizer.
        ValueError: If it is an empty name.
    """
    if given is None or isinstance(given, keras.Optimizer):
        return given
    if not isinstance(given, str):
        raise TypeError(
            "Argument `optimizer` must be the name of the model's attribute that holds "
            "an optimizer, as 'd_optimizer', or that optimizer of Keras. Received: "
            f"optimizer={checks.shown(given)} (of type {type(given).__name__})"
        )
    return checks.text("optimizer", given, "the name of an attribute")


def optimizers_of(model: keras.Model) -> list[Chosen]:
    """The optimizers that a model has, and the models in it; the compiled one first."""
    found: dict[int, Chosen] = {}
    for name, optimizer in _held(model, "", set()):
        inner = innermost(optimizer)
        own = None if name == _COMPILED else name
        found.setdefault(id(inner), Chosen(model, own, optimizer))
    return list(found.values())


def is_carried(chosen: Chosen) -> bool:
    """Whether a step has its state: JAX hands it what the model and `compile` hold."""
    if keras.backend.backend() != "jax" or chosen.is_compiled:
        return True
    carried = {id(variable) for variable in chosen.model.variables}
    optimizer = chosen.optimizer
    return optimizer.built and all(id(v) in carried for v in optimizer.variables)


def check_carried(chosen: Chosen) -> None:
    """Refuse an optimizer whose state a step on JAX does not get, and cannot return.

    Raises:
        ValueError: If it is one.
    """
    if is_carried(chosen):
        return
    name = chosen.name
    raise ValueError(
        "On JAX a training step gets the model's variables and those of the compiled "
        f"optimizer, and nothing else lasts. Those of {chosen} are not among them. "
        f"Build it in compile(), and let a layer of the model hold its variables: "
        f"self.{name}.build(weights), self.state = keras.layers.Layer(), "
        f"self.state.held = self.{name}.variables, self.state.built = True. "
        f"Then train_step updates by self.{name}.stateless_apply, and returns the new "
        "values among the non-trainable ones. In a loop of your own use tfs.driven."
    )


def unused(chosen: Chosen, example: str) -> str:
    """What to say where an optimizer has made no update: which there are.

    Args:
        chosen: The optimizer.
        example: How to name another one, with `{}` for the name.
    """
    known = optimizers_of(chosen.model)
    others = [each for each in known if each.inner is not chosen.inner]
    if not others:
        return ""
    updates = [each.updates() for each in others]
    names = [str(each) for each in others]
    if any(updates):
        pairs = zip(names, updates, strict=True)
        names = [f"{each} with {made} updates" for each, made in pairs]
    name = others[updates.index(max(updates))].name
    how = "no optimizer=" if name is None else f'optimizer="{name}"'
    named = example.replace("{}", how)
    return f" The model also has {_listed(names)}. Name one: {named}."


def _way_to_others(model: keras.Model) -> str:
    others = optimizers_of(model)
    if not others:
        return ""
    return (
        f" Or name another one that it has, {_listed(others)}, as in "
        f'optimizer="{others[0].name}".'
    )


def _listed(known: Sequence[Chosen | str]) -> str:
    *first, last = map(str, known)
    return f"{', '.join(first)} and {last}" if first else last


def _found(model: keras.Model, name: str) -> Any:
    """What a dotted name stands for; `None` if it stands for nothing."""
    value: Any = model
    for part in name.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, Sequence) and part.isdecimal():
            value = value[int(part)] if int(part) < len(value) else None
        else:
            value = getattr(value, part, None)
    return value


def _held(owner: Any, prefix: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """The optimizers that a layer and those in it hold, with their dotted names.

    Args:
        owner: The layer.
        prefix: The beginning of the names.
        seen: The layers and containers that were looked through.
    """
    seen.add(id(owner))
    inside: list[tuple[str, Any]] = []
    own = {**vars(owner), **vars(owner).get(_TORCHS, {})}
    names = [name for name in own if not name.startswith(_KERASS)]
    # The compiled one first, and what is public before what is not.
    for name in sorted(names, key=lambda n: (n != _COMPILED, n.startswith("_"))):
        for path, value in _leaves(prefix + name, own[name], seen):
            if isinstance(value, keras.Optimizer):
                yield path, value
            elif isinstance(value, keras.Layer):
                inside.append((path, value))
    if isinstance(owner, keras.Model):
        layers = enumerate(owner.layers)
        inside += [(f"{prefix}layers.{place}", layer) for place, layer in layers]
    for path, layer in inside:
        if id(layer) not in seen:
            yield from _held(layer, f"{path}.", seen)


def _leaves(path: str, value: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """What an attribute holds, in lists and dictionaries, too."""
    if not isinstance(value, (dict, list, tuple)):
        yield path, value
    elif id(value) not in seen:
        seen.add(id(value))
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, each in pairs:
            yield from _leaves(f"{path}.{key}", each, seen)
