"""Which fits are being made, read off the stacks of Python's threads.

Keras keeps no note of it, and a fit that dies of an exception tells nobody. But while
it lives, its frame is on a stack. A fit is known by the `id` of that frame, which is
not held. Two fits that live at the same time have two ids. A later fit may get the id
of one that is dead: whoever compares ids has to exclude that.
"""

from __future__ import annotations

import functools
import inspect
import sys
import weakref
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any

import keras

from tfschedules.drive.chosen import optimizers_of


@functools.cache
def codes() -> dict[str, CodeType]:
    """The code of Keras's own methods: a subclass that overrides one calls it."""
    methods = {
        "fit": _of_trainer("fit"),
        "train_on_batch": _of_trainer("train_on_batch"),
        "on_train_begin": keras.callbacks.CallbackList.on_train_begin,
        "set_model": keras.callbacks.CallbackList.set_model,
    }
    return {name: inspect.unwrap(method).__code__ for name, method in methods.items()}


def _of_trainer(name: str) -> Any:
    """A method of the backend's trainer, also where the model's is wrapped."""
    kinds = [kind for kind in keras.Model.__mro__ if name in vars(kind)]
    own = [kind for kind in kinds if kind.__module__.startswith("keras.src.backend.")]
    return vars((own or kinds)[0])[name]


def upwards(frame: FrameType | None) -> Iterator[FrameType]:
    """A frame, and those that wait for it."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def is_code(frame: FrameType, name: str) -> bool:
    """Whether a frame is that of Keras's method `name` of anything."""
    return frame.f_code is codes()[name]


def is_of(frame: FrameType, name: str, owner: Any) -> bool:
    """Whether a frame is that of Keras's method `name` of `owner`."""
    return is_code(frame, name) and frame.f_locals.get("self") is owner


def fit_around(model: keras.Model, frame: FrameType | None) -> int | None:
    """The innermost fit of `model` that waits for a frame, or is the frame."""
    for each in upwards(frame):
        if is_of(each, "fit", model):
            return id(each)
    return None


@functools.cache
def codes_of_lists() -> set[CodeType]:
    """The code of all methods of a `CallbackList`."""
    methods = map(inspect.unwrap, vars(keras.callbacks.CallbackList).values())
    return {method.__code__ for method in methods if inspect.isfunction(method)}


def is_in_callback(callback_list: Any, frame: FrameType | None) -> bool:
    """Whether a frame is of a callback that a `CallbackList` has called."""
    return any(
        each.f_code in codes_of_lists() and each.f_locals.get("self") is callback_list
        for each in upwards(frame)
    )


def running(model: keras.Model, *names: str) -> set[int]:
    """The fits (or calls of the methods `names`) of `model` now, in all threads.

    A frame of another thread may return while its stack is read, and then has lost the
    frames that wait for it. Three looks see what one may miss.
    """
    return {
        id(frame)
        for _ in range(3)
        for bottom in sys._current_frames().values()
        for frame in upwards(bottom)
        for name in names or ("fit",)
        if is_of(frame, name, model)
    }


def beginning(model: keras.Model, frame: FrameType | None) -> tuple[int | None, Any]:
    """Who calls a callback's `on_train_begin`, seen from a frame in it.

    Returns:
        The fit, if it is one's own callback; else `None`, and the `CallbackList` of a
        loop of the user's, if there is one.
    """
    callback_list, outermost = None, None
    for each in upwards(frame):
        if is_of(each, "fit", model):
            # A callback of the fit may hand its calls on to a list of its own, and a
            # list may be of a kind of its own.
            if outermost is None or is_code(outermost, "on_train_begin"):
                return id(each), None
            break
        if each.f_code in codes_of_lists():
            outermost = each
            if is_code(each, "on_train_begin") and callback_list is None:
                callback_list = each.f_locals.get("self")
    return None, callback_list


def callbacks_around() -> list[Any]:
    """The callbacks of the fit, or the loop, in which a callback is called.

    They are those of all lists between the caller and its fit.
    """
    found: dict[int, Any] = {}
    for each in upwards(sys._getframe(1)):
        if is_code(each, "fit"):
            break
        if each.f_code in codes_of_lists():
            callbacks = each.f_locals["self"].callbacks
            found.update({id(callback): callback for callback in callbacks})
    return list(found.values())


def fits_running(model: keras.Model) -> bool:
    """Whether `model` is in a fit, or in `train_on_batch`, in any thread."""
    return bool(running(model, "fit", "train_on_batch"))


def model_in_step(optimizer: Any) -> keras.Model | None:
    """A model with this optimizer that is in a fit, or in `train_on_batch`, now.

    Args:
        optimizer: The innermost.
    """
    for bottom in sys._current_frames().values():
        for frame in upwards(bottom):
            if is_step(frame):
                model = frame.f_locals.get("self")
                if any(each.inner is optimizer for each in optimizers_of(model)):
                    return model
    return None


def is_step(frame: FrameType) -> bool:
    """Whether a frame is that of a fit, or of `train_on_batch`, of any model."""
    return is_code(frame, "fit") or is_code(frame, "train_on_batch")


def running_here() -> bool:
    """Whether a fit, or `train_on_batch`, of any model waits for the caller."""
    return any(map(is_step, upwards(sys._getframe(1))))


class Taken:
    """By which fit a callback is taken, seen from a frame in its `set_model`.

    The frame of a fit lives as long as its `CallbackList` does: with that the `id` is
    nobody else's.

    Attributes:
        model: The fit's model.
    """

    def __init__(self, model: keras.Model, frame: FrameType) -> None:
        """Note the fit, if there is one."""
        self.model, self._fit = model, fit_around(model, frame)
        self._callbacks: Callable[[], Any] = lambda: None
        for each in upwards(frame):
            if is_code(each, "set_model"):
                self._callbacks = weakref.ref(each.f_locals["self"])
                break
        else:
            self._fit = None

    @property
    def callbacks(self) -> list[Any]:
        """The callbacks of the fit, as far as they are known."""
        known = self._callbacks()
        return [] if known is None else list(known.callbacks)

    def excludes(self, other: Taken) -> bool:
        """Whether that fit is running, and is not the one that is beginning now."""
        if self._fit is None or self._callbacks() is None:
            return False
        same = other._fit is not None and other._callbacks() is self._callbacks()
        return not same and self._fit in running(self.model)
