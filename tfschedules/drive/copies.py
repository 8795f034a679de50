"""Copies of variables, to be put back to the bit."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from tfschedules.drive.replicas import copies_of
from tfschedules.drive.state import innermost, value_of
from tfschedules.drive.store import InMemory, OnDisk


class NotRestoredError(OSError, RuntimeError):
    """A model is not in all as it was.

    Attributes:
        restore: Puts it back once more, to be called when the cause is gone.
    """

    def __init__(self, message: str, restore: Callable[[], None] | None = None) -> None:
        super().__init__(message)
        self.restore = restore


class Copies:
    """Copies of variables, each once; of several replicas what each one has."""

    def __init__(self, store: InMemory | OnDisk) -> None:
        """Begin with none; `store` keeps them."""
        self._store = store
        self._kept: dict[int, _Kept] = {}

    def take(self, variables: Iterable[Any]) -> None:
        """Copy variables of Keras's or of TensorFlow's.

        Raises:
            OSError: If a copy cannot be written.
        """
        for variable in variables:
            name = getattr(variable, "path", variable.name)
            for copy in copies_of(variable):
                if id(copy) not in self._kept:
                    stored = self._store.put(_value_of_any(copy))
                    self._kept[id(copy)] = _Kept(copy, name, stored)

    def has(self, variable: Any) -> bool:
        """Whether a variable was copied."""
        return all(id(copy) in self._kept for copy in copies_of(variable))

    def putting_back(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """The name of each, and what puts it back."""
        for kept in self._kept.values():
            yield kept.name, functools.partial(self._put_back, kept)

    def _put_back(self, kept: _Kept) -> None:
        kept.variable.assign(self._store.get(kept.stored))


class _Kept(NamedTuple):
    variable: Any
    name: str
    stored: Any


def put_back(
    whose: str,
    actions: Iterable[tuple[str, Callable[[], None]]],
    way_out: str,
    again: Callable[[], None],
) -> None:
    """Put everything back that can be.

    Args:
        whose: What is not as it was where one fails, the beginning of a sentence.
        actions: What is to be done, and what is not put back where it fails.
        way_out: What to do then.
        again: Puts it back once more.

    Raises:
        NotRestoredError: If something could not be put back; all the rest is.
    """
    failed: dict[str, list[str]] = {}
    first: Exception | None = None
    for name, action in actions:
        try:
            action()
        except Exception as error:  # not kept: its frames hold arrays
            failed.setdefault(_reason(error), []).append(name)
            first = first or error
    if first is None:
        return
    parts = [
        f"{', '.join(dict.fromkeys(names))} ({reason})"
        for reason, names in failed.items()
    ]
    raise NotRestoredError(
        f"{whose} is not as it was before its range test. Not put back: "
        f"{'; '.join(parts)}. All the rest is. {way_out}",
        again,
    ) from first


def _reason(error: Exception) -> str:
    """Why something could not be put back, the same for all files of a folder."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.strerror}, in {str(Path(error.filename).parent)!r}"
    return f"{type(error).__name__}: {error}"


def held_by(optimizer: Any) -> list[Any]:
    """An optimizer's variables, with those that are none of its `variables`."""
    return [
        value
        for attribute in vars(innermost(optimizer)).values()
        for value in (attribute if isinstance(attribute, list) else [attribute])
        if isinstance(value, keras.Variable)
    ]


def _value_of_any(variable: Any) -> np.ndarray:
    """A copy of the value of Keras's or TensorFlow's variable."""
    if isinstance(variable, keras.Variable):
        return value_of(variable)
    return np.array(variable.numpy())
