"""Checks of the user's arguments: the argument, the rule, the value received."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

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
    hint = hint or _way_out(name, value)
    hint = f" {hint}" if hint else ""
    exact = as_real(value)
    try:
        number = math.nan if exact is None else float(exact)
    except OverflowError:
        number = math.inf
    except Exception:  # of a class of the user's
        exact = None
    if exact is None:
        raise TypeError(
            f"Argument `{name}` must be a number. "
            f"Received: {name}={shown(value)} (of type {type(value).__name__}).{hint}"
        )
    rules = [
        (math.isfinite(number), "finite"),
        (above is None or number > above, f"> {above}"),
        (at_least is None or number >= at_least, f">= {at_least}"),
        (at_most is None or number <= at_most, f"<= {at_most}"),
    ]
    for holds, rule in rules:
        if not holds:
            raise ValueError(
                f"Argument `{name}` must be {rule}. "
                f"Received: {name}={shown(value)}.{hint}"
            )
    return number


def as_real(value: Any) -> Any:
    """The real number that something is, or `None` if it is none.

    Booleans are none. Arrays and tensors without axes are the number in them, if they
    have one: what is masked has not, though NumPy gives 0.0 for it.

    Example:
        >>> as_real(0.5), as_real(np.array(3)), as_real("3")
        (0.5, 3, None)
        >>> as_real(np.ma.masked)
    """
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        return None
    if not isinstance(value, numbers.Real):
        if getattr(value, "shape", None) != () or not hasattr(value, "item"):
            return None
        try:
            value = value.item()  # a NumPy scalar or 0-d array
        except Exception:  # a tensor without a value
            return None
    real_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return value if real_number else None


def _way_out(name: str, value: Any) -> str:
    """What to give in place of something that is often given for a number."""
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return ""
        return "Leave the quotes out."
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        return "A masked value is none: leave it out, or fill it."
    if as_real(value) is None and hasattr(value, "shape"):
        return f"Of an array or a tensor that holds one number give float({name})."
    return ""


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
        f"Received: {name}={shown(value)}."
    )


def shown(value: Any) -> str:
    """The value as Python writes it, without the middle of what is long.

    Example:
        >>> shown(0.1), shown(10**5000)
        ('0.1', '<int of 16610 bits>')
    """
    if isinstance(value, int) and value.bit_length() > 1000:  # Python may refuse it
        return f"<int of {value.bit_length()} bits>"
    try:
        text = " ".join(repr(value).split())
    except Exception as error:  # a message about an argument comes all the same
        return f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"
    return text if len(text) <= 100 else f"{text[:60]} … {text[-20:]}"


def seen(value: Any) -> str:
    """What stands in a file of somebody's, in few letters: lists may be long, and deep.

    Example:
        >>> seen([[1], [2]]), seen("a")
        ('a list of 2', "'a'")
    """
    if isinstance(value, (list, dict)):
        return f"a {type(value).__name__} of {len(value)}"
    return shown(value)


def whole(
    name: str,
    value: Any,
    *,
    at_least: int = 1,
    at_most: int | None = None,
    hint: str = "",
) -> int:
    """Return `value` as an int, or say why it is not the whole number it must be.

    Raises:
        TypeError: If `value` is not a real number.
        ValueError: If it is not a whole number, or out of its range.

    Example:
        >>> whole("step_size", 2000.0)
        2000
    """
    number = real(name, value, at_least=at_least, hint=hint)
    if number != int(number):
        raise ValueError(
            f"Argument `{name}` must be a whole number. "
            f"Received: {name}={shown(value)}." + (f" {hint}" if hint else "")
        )
    exact = as_real(value)  # a float holds integers up to 2^53
    count = int(exact) if isinstance(exact, numbers.Integral) else int(number)
    if at_most is not None and count > at_most:
        raise ValueError(
            f"Argument `{name}` must be <= {at_most}. "
            f"Received: {name}={shown(value)}." + (f" {hint}" if hint else "")
        )
    return count


def flag(name: str, value: Any) -> bool:
    """Return `value` as a bool, or say that it is neither True nor False.

    Raises:
        TypeError: If it is neither.

    Example:
        >>> flag("overwrite", np.bool_(True))
        True
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(
            f"Argument `{name}` must be True or False. Received: {name}={shown(value)}"
        )
    return bool(value)


def text(name: str, value: Any, what: str = "a name") -> str:
    """Return `value` if it is text and not empty, or say what it must be.

    Raises:
        TypeError: If it is no text.
        ValueError: If it is empty.

    Example:
        >>> text("metric", "accuracy")
        'accuracy'
    """
    if not isinstance(value, str):
        raise TypeError(
            f"Argument `{name}` must be {what}. "
            f"Received: {name}={shown(value)} (of type {type(value).__name__})"
        )
    if not value.strip():
        raise ValueError(
            f"Argument `{name}` must be {what}, and not empty. "
            f"Received: {name}={shown(value)}"
        )
    return value


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
            f"Argument `{name}` must be one of {listed}. "
            f"Received: {name}={shown(value)}."
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
            '{"weight_decay": 1e-3}. '
            f"Received: hyperparameters={shown(hyperparameters)}"
        )
    if "learning_rate" in hyperparameters:
        raise ValueError(
            "Argument `hyperparameters` must not hold the learning rate, which is "
            f"swept. Received: hyperparameters={shown(hyperparameters)}"
        )
    return {
        text("hyperparameters", name, "a dict of numbers by name"): real(
            f'hyperparameters["{name}"]', value
        )
        for name, value in hyperparameters.items()
    }


def listed(name: str, value: Any, what: str = "a list") -> list[Any]:
    """Return the items of a list, or say that it is none.

    Whatever can be gone through is a list, but for text and dictionaries.

    Raises:
        TypeError: If it is no list.

    Example:
        >>> listed("weight_decay", (0.0, 0.1))
        [0.0, 0.1]
    """
    try:
        # A variable has no `__iter__`, and on JAX its items never end.
        fits = isinstance(value, Iterable)
        if fits and not isinstance(value, (str, bytes, Mapping)):
            return list(value)
    except Exception:  # a tensor without axes, or without values
        pass
    raise TypeError(
        f"Argument `{name}` must be {what}. "
        f"Received: {name}={shown(value)} (of type {type(value).__name__})"
    )


def callbacks(given: Any) -> list[Any]:
    """Return the argument `callbacks` as a list, or say what is none in it.

    Raises:
        TypeError: If it is no list, or something in it no callback.

    Example:
        >>> callbacks(())
        []
    """
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
        raise TypeError(
            "Argument `callbacks` must be a list of callbacks. "
            f"Received: callbacks={shown(given)}"
        )
    for each in given:
        if hasattr(each, "set_model") and not isinstance(each, type):
            continue
        way_out = ""
        if hasattr(each, "equation") or isinstance(each, Mapping):
            way_out = (
                " A schedule is no callback: give tfs.HyperparameterScheduler("
                "learning_rate=schedule) or, of a dictionary, (**schedules)."
            )
        raise TypeError(
            "Argument `callbacks` must be a list of callbacks. Received: "
            f"{shown(each)} (of type {type(each).__name__}) in it.{way_out}"
        )
    return list(given)


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
