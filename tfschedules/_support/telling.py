"""Warnings of what is worth less than what goes on: a training, or a sweep's result."""

from __future__ import annotations

import logging
import warnings


def tell(message: str, stacklevel: int = 1) -> None:
    """Warn, and go on also where warnings are errors, as with `python -W error`.

    There the message goes to the log `tfschedules`, which Python shows on stderr.

    Args:
        message: What to say.
        stacklevel: As for `warnings.warn`.

    Example:
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     tell("The disk is full. Training goes on.")
        >>> str(caught[0].message)
        'The disk is full. Training goes on.'
    """
    try:
        warnings.warn(message, stacklevel=stacklevel + 1)
    except Warning:
        logging.getLogger("tfschedules").warning(message)
