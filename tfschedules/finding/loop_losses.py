"""The loss of a step of the user's own, of whichever framework, as a number."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfschedules._support import checks


def number_of(loss: Any) -> float | None:
    """A scalar of any framework as a float, also NaN; `None` if it is none.

    Example:
        >>> number_of(np.float32(0.5)), number_of(np.ones(3)), number_of("0.5")
        (0.5, None, None)
    """
    try:
        number = checks.as_real(loss)
        if number is None and tuple(getattr(loss, "shape", (0,))) == ():
            number = checks.as_real(np.asarray(loss.numpy()))  # one of TensorFlow's
        return None if number is None else float(number)
    except Exception:  # a tensor without a value, a number of a user's class
        return None


def no_loss(loss: Any) -> str:
    """What is wrong with a loss that is no number, to follow the words "must be".

    Example:
        >>> no_loss(np.ones(3))
        'its loss, a number. Received: an array of shape (3,). Take its mean.'
    """
    shape = getattr(loss, "shape", None)
    kind = type(loss).__name__
    if shape is not None and (held := _sizes(shape)) != ():
        what, way_out = f"an array of shape {held}", "Take its mean."
    elif shape is not None:
        what = f"a {kind} that has no real value now"
        way_out = (
            "The loop has to be Python's, outside of tf.function and jax.jit; a "
            "complex loss has no order."
        )
    elif isinstance(loss, (tuple, list, dict)):
        what = f"a {kind} of {len(loss)}"
        way_out = "The loss alone is wanted, without metrics and the like."
    else:
        what = f"{checks.shown(loss)} (of type {kind})"
        way_out = "Return the loss of the batch, from before the update."
    return f"its loss, a number. Received: {what}. {way_out}"


def _sizes(shape: Any) -> Any:
    try:
        return tuple(shape)
    except Exception:  # of a symbolic tensor with any number of axes
        return shape
