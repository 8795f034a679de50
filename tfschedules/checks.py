"""Checks of the user's arguments: the argument, the rule, the value received."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

LEAST, GREATEST = 1e-37, 1e38  # sizes that float32 has in full, with some room


def real(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    hint: str = "",
) -> float:
    """Return `value` as a float, or say why it is not the number it must be.

    Args:
        name: The argument's name, for the message.
        value: What the user gave. Python and NumPy numbers pass; booleans,
            strings, NaN and infinities do not.
        above: The value must be greater than this.
        at_least: The value must not be less than this.
        at_most: The value must not be greater than this.
        hint: A sentence that tells the way out.

    Raises:
        TypeError: If `value` is not a real number.
        ValueError: If it is not finite, or out of its range.

    Example:
        >>> real("max_lr", 1)
        1.0
    """
    if hasattr(value, "suggestion"):
        hint = "For a rate give result.suggestion."
    hint = f" {hint}" if hint else ""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        if getattr(value, "shape", None) == () and hasattr(value, "item"):
            value = value.item()  # a NumPy scalar or 0-d array
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"Argument `{name}` must be a number. "
            f"Received: {name}={shown(value)} (of type {type(value).__name__}).{hint}"
        )
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    rules = [
        (math.isfinite(number), "finite"),
        (above is None or number > above, f"> {above}"),
        (at_least is None or number >= at_least, f">= {at_least}"),
        (at_most is None or number <= at_most, f"<= {at_most}"),
    ]
    for holds, rule in rules:
        if not holds:
            raise ValueError(
                f"Argument `{name}` must be {rule}. Received: {name}={value!r}.{hint}"
            )
    return number


def single(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    at_least: float | None = None,
    hint: str = "",
) -> float:
    """Return `value` as a float that a float32 can hold, or say why it is none.

    What a schedule computes with is a float32 in the training step. There 1e-60 is 0
    and 1e60 is infinite.

    Args:
        name: The argument's name, for the message.
        value: What the user gave, as in `real`.
        above: The value must be greater than this. With 0, a value so small that a
            float32 has 0 in its place is refused.
        at_least: The value must not be less than this.
        hint: A sentence that tells the way out.

    Raises:
        TypeError: If `value` is not a real number.
        ValueError: If it is not finite, or out of its range, or no float32 is like it.

    Example:
        >>> single("max_lr", 0.5, above=0)
        0.5
    """
    number = real(name, value, above=above, at_least=at_least, hint=hint)
    if abs(number) > GREATEST:
        rule = f"<= {GREATEST:g} in size"
    elif above == 0 and number < LEAST:
        rule = f">= {LEAST:g}"
    else:
        return number
    raise ValueError(
        f"Argument `{name}` must be {rule}: a schedule is computed in float32. "
        f"Received: {name}={value!r}."
    )


def shown(value: Any) -> str:
    """The value as Python writes it, without the middle of what is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else f"{text[:60]} … {text[-20:]}"


def whole(name: str, value: Any, *, at_least: int = 1, hint: str = "") -> int:
    """Return `value` as an int, or say why it is not the whole number it must be.

    Raises:
        TypeError: If `value` is not a real number.
        ValueError: If it is not a whole number, or less than `at_least`.

    Example:
        >>> whole("step_size", 2000.0)
        2000
    """
    number = real(name, value, at_least=at_least, hint=hint)
    if number != int(number):
        raise ValueError(
            f"Argument `{name}` must be a whole number. Received: {name}={value!r}."
            + (f" {hint}" if hint else "")
        )
    return int(value)


def choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """Return `value` if it is one of `choices`, or list them.

    Raises:
        ValueError: If `value` is not one of `choices`.

    Example:
        >>> choice("mode", "linear", ["exponential", "linear"])
        'linear'
    """
    if not isinstance(value, str) or value not in choices:
        listed = ", ".join(repr(option) for option in choices)
        raise ValueError(
            f"Argument `{name}` must be one of {listed}. Received: {name}={value!r}."
        )
    return value


def ordered(low_name: str, low: float, high_name: str, high: float) -> None:
    """Refuse a lower bound above its upper bound.

    Raises:
        ValueError: If `low` > `high`.

    Example:
        >>> ordered("min_lr", 1e-7, "max_lr", 10.0)
    """
    if low > high:
        raise ValueError(
            f"Argument `{low_name}` must be <= `{high_name}`. Received: "
            f"{low_name}={low!r}, {high_name}={high!r}. Swap them?"
        )


def held_values(hyperparameters: Mapping[str, float] | None) -> dict[str, float]:
    """Return values to be held in a sweep, by name, or say what is wrong with them.

    Raises:
        TypeError: If they are no dictionary, or one is no number.
        ValueError: If the learning rate is among them, or one is not finite.

    Example:
        >>> held_values({"weight_decay": 0})
        {'weight_decay': 0.0}
    """
    if hyperparameters is None:
        return {}
    if not isinstance(hyperparameters, Mapping):
        raise TypeError(
            "Argument `hyperparameters` must be a dict of numbers by name, as "
            f'{{"weight_decay": 1e-3}}. Received: hyperparameters={hyperparameters!r}'
        )
    if "learning_rate" in hyperparameters:
        raise ValueError(
            "Argument `hyperparameters` must not hold the learning rate, which is "
            f"swept. Received: hyperparameters={dict(hyperparameters)!r}"
        )
    return {name: real(name, value) for name, value in hyperparameters.items()}


def no_schedule(value: Any) -> str:
    """What to do with something that was given as a schedule and is none.

    Example:
        >>> no_schedule(0.1)
        'For a fixed value use tfs.Constant(value).'
    """
    if hasattr(value, "set_model"):
        return "A callback goes into callbacks=[…] as it is."
    if isinstance(value, Mapping):
        return "A dictionary of schedules, as one_cycle returns: unpack it with **."
    return "For a fixed value use tfs.Constant(value)."
