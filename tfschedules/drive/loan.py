"""What a callback borrows of a model for one fit, and gives back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras


class Loan:
    """A list of what to undo when a fit is over, however it ends.

    An exception in `fit` skips `on_train_end`. So a loan also watches for the next use
    of the model: `fit` and `train_on_batch` begin with `make_train_function`, which
    gives back whatever an interrupted fit has left and only then goes on. So does
    `compile`, as a new optimizer has to find every weight that is to be trained.

    The train function may be traced already, and tracing is when borrowed things are
    seen: it is made anew after borrowing, and dropped after giving back.
    """

    def __init__(self, model: keras.Model, borrower: Any = None) -> None:
        """Begin a loan on `model`, in `on_train_begin`; `borrower` can be asked for."""
        self._model = model
        self._borrower = borrower
        self._undo = contextlib.ExitStack()
        guard = vars(model).get("make_train_function")
        if not isinstance(guard, _Guard):
            guard = _Guard(model)
        guard.loans.append(self)

    @staticmethod
    def borrowers(model: keras.Model) -> list[Any]:
        """Who has something of `model` on loan now."""
        guard = vars(model).get("make_train_function")
        loans = guard.loans if isinstance(guard, _Guard) else []
        return [loan._borrower for loan in loans]

    @contextlib.contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Give everything back if what follows raises."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def borrow(self, owner: Any, name: str, replacement: Any) -> None:
        """Put `replacement` in the place of an attribute until the loan is closed."""
        self.undo_with(_in_place_of(owner, name, replacement))

    def undo_with(self, action: Callable[[], None]) -> None:
        """Add an action to be done at the end; the last added is done first."""
        self._undo.callback(action)

    def retrace(self) -> None:
        """Make the train function anew, so that it sees what was borrowed."""
        self._model.make_train_function(force=True)

    def close(self) -> None:
        """Give everything back; a second time does nothing."""
        try:
            self._undo.close()  # all of it, also where some of it raises
        finally:
            guard = vars(self._model).get("make_train_function")
            if isinstance(guard, _Guard) and self in guard.loans:
                guard.loans.remove(self)
                self._model.train_function = None
                if not guard.loans:
                    guard.take_down()


class Functions:
    """A model's compiled functions, to go on with after a loan.

    Tracing them anew would be right, too, but for random operations of TensorFlow's
    own: these are at a place in their sequence that only the old function knows.
    """

    def __init__(self, model: keras.Model) -> None:
        """Note them, and have tests traced anew for the time of the loan."""
        self._model, self._optimizer = model, model.optimizer
        self._train, self._test = model.train_function, model.test_function
        model.test_function = None

    @property
    def fitting(self) -> bool:
        """Whether the model has not been compiled anew; to be asked within the loan."""
        model = self._model
        return model.optimizer is self._optimizer and model.train_function is not None

    def restore(self) -> None:
        """Put them back."""
        self._model.train_function = self._train
        self._model.test_function = self._test


class _Guard:
    """In place of `model.make_train_function` while something is on loan."""

    def __init__(self, model: keras.Model) -> None:
        self.original = model.make_train_function
        self.original_compile = model.compile
        self.loans: list[Loan] = []
        self._give_back = [
            _in_place_of(model, "make_train_function", self),
            _in_place_of(model, "compile", self.compile),
        ]

    def __call__(self, force: bool = False) -> Any:
        if not force:  # a fit begins; with force, one in progress is traced anew
            self._close_all()
        return self.original(force)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        self._close_all()
        self.original_compile(*args, **kwargs)

    def _close_all(self) -> None:
        for loan in reversed(self.loans[:]):
            loan.close()

    def take_down(self) -> None:
        """Give the model its own methods again."""
        for give_back in self._give_back:
            give_back()


def _in_place_of(owner: Any, name: str, replacement: Any) -> Callable[[], None]:
    """Put `replacement` in the place of an attribute; what gives that back."""
    none = object()
    before = vars(owner).get(name, none)
    _set(owner, name, replacement)

    def give_back() -> None:
        if before is none:
            object.__delattr__(owner, name)
        else:
            _set(owner, name, before)

    return give_back


def _set(owner: Any, name: str, value: Any) -> None:
    """Set an attribute behind the back of Keras's and TensorFlow's tracking."""
    object.__setattr__(owner, name, value)
