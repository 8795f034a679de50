"""A momentum of its own for one part of an optimizer's weights.

Keras's optimizers read it in `update_step`, once for each weight: there `split` puts
the part's number in its place.
"""

from __future__ import annotations

from typing import Any

import keras

# Optimizers with slots by another rule than momentum, which a momentum of 0 breaks.
_ABOVE_ZERO = ("Lion", "ScheduleFreeAdamW")


def momentum_now(optimizer: Any) -> float | None:
    """The momentum of an innermost optimizer; `None` where it has no such number."""
    name = _name(optimizer)
    value = None if name is None else getattr(optimizer, name)
    return None if value is None or callable(value) else float(value)


def own_momentum(optimizer: Any, part: str, momentum: float) -> dict[str, float]:
    """The hyperparameter that a part has for itself, by the optimizer's name for it.

    Args:
        optimizer: The innermost optimizer.
        part: The part's name, for the message.
        momentum: Its momentum, in [0, 1).

    Raises:
        ValueError: If the optimizer has no momentum, or one that is not of each weight.
    """
    kind, name = type(optimizer).__name__, _name(optimizer)
    if name is None:
        why = f"{kind} has neither `momentum` nor `beta_1`. Leave it out"
    elif _is(optimizer, "Muon"):
        why = (
            "Muon has two, `momentum` of matrices and `adam_beta_1` of other weights. "
            "Leave it out"
        )
    elif _updates_all(optimizer):
        why = (
            f"{kind} has one for all weights: it keeps a product of them, or updates "
            "weights together. Take another optimizer, as Adam, or leave it out"
        )
    elif name == "momentum" and getattr(optimizer, name) == 0:
        if momentum == 0:
            return {}
        why = (
            f"{kind} was compiled with momentum=0.0, and so keeps no velocities. "
            f"Compile it with momentum={momentum:g}, and give the other groups "
            "momentum=0.0"
        )
    elif momentum == 0 and any(_is(optimizer, each) for each in _ABOVE_ZERO):
        why = f"{kind} needs one > 0. Give a small one, as 0.1"
    else:
        return {name: momentum}
    raise ValueError(
        f"The group {part!r} cannot have a `momentum` of its own: {why}. "
        f"Received: momentum={momentum:g}"
    )


def _name(optimizer: Any) -> str | None:
    names = [name for name in ("momentum", "beta_1") if hasattr(optimizer, name)]
    return names[0] if names else None


def _is(optimizer: Any, kind: str) -> bool:
    """Whether it is one of Keras's, by name: not every version has each of them."""
    return isinstance(optimizer, getattr(keras.optimizers, kind, ()))


def _updates_all(optimizer: Any) -> bool:
    """Whether its class has an update of its own for all weights, as Nadam."""
    name = "_backend_update_step"
    kinds = (kind for kind in type(optimizer).__mro__ if name in vars(kind))
    return next(kinds) not in keras.optimizers.Optimizer.__mro__
