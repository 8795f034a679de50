"""Steps of a model that several threads train take turns."""

from __future__ import annotations

import threading
from types import TracebackType

from tfschedules._support.telling import tell

PATIENCE = 30.0  # seconds until a step that waits for another one says so


class StepLock:
    """A lock that one thread may take several times, and that does not wait in silence.

    It cannot know whether the other step is slow or will never end.
    """

    def __init__(self, name: str) -> None:
        """Make a lock for the steps of the model `name`."""
        self._name = name
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        if self._lock.acquire(timeout=PATIENCE):
            return
        tell(
            f"A step of {self._name!r} has waited {PATIENCE:g} seconds for a step in "
            "another thread, and goes on waiting. If that one waits for data that "
            "train the model themselves (a generator that calls train_on_batch), "
            "neither of them ever ends: make such steps in a callback.",
            stacklevel=3,
        )
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()
