"""An optimizer that stands for another one.

What the other one's class overrides, and what has been put in the place of one of its
methods, is found by looking and not from a list: so it holds for optimizers of users,
and for what Keras will add.
"""

from __future__ import annotations

from typing import Any

import keras

_TENSORFLOWS = ("_self_", "_update_uid")  # with which TensorFlow tracks an object


class Proxy(keras.optimizers.Optimizer):
    """Another optimizer, but for the names that a class derived from this defines.

    A method of Keras's base class that nobody overrides runs on the proxy, where
    TensorFlow's tracking needs it, and finds there what the other optimizer has.
    """

    _OWN = frozenset({"inner_optimizer"})  # attributes; a derived class adds its own

    def __init__(self, optimizer: Any) -> None:
        """Stand for `optimizer`; all other attributes are set afterwards."""
        # Not super().__init__(): what that sets, the other optimizer has.
        super().__setattr__("_lock", False)  # Keras asks for it before it sets others
        super().__setattr__("inner_optimizer", optimizer)  # tracked by TensorFlow

    def __getattribute__(self, name: str) -> Any:
        """What is not the proxy's is the other optimizer's."""
        inner = object.__getattribute__(self, "__dict__").get("inner_optimizer")
        if inner is None or _is_own(type(self), name) or _is_of_keras(inner, name):
            return super().__getattribute__(name)
        return getattr(inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set on the other optimizer what is not the proxy's."""
        inner = self.__dict__.get("inner_optimizer")
        if inner is None:  # Keras says that super().__init__() was forgotten
            super().__setattr__(name, value)
        elif _is_own(type(self), name):  # plain values, not to be tracked
            object.__setattr__(self, name, value)
        else:
            setattr(inner, name, value)

    def __delattr__(self, name: str) -> None:
        """Delete of the other optimizer what is not the proxy's."""
        inner = self.__dict__.get("inner_optimizer")
        if inner is None or _is_own(type(self), name):
            super().__delattr__(name)
        else:
            delattr(inner, name)

    def __dir__(self) -> list[str]:
        """Without `inner_optimizer`: its state is this one's, and not saved twice."""
        return [name for name in super().__dir__() if name != "inner_optimizer"]

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Update the weights, and name variables as the other optimizer does."""
        self.inner_optimizer.apply(grads, trainable_variables)


def _is_own(kind: type[Proxy], name: str) -> bool:
    """Whether a proxy of this class has a name itself."""
    if name in kind._OWN or name.startswith(("__", *_TENSORFLOWS)):
        return True
    derived = kind.__mro__[: kind.__mro__.index(Proxy) + 1]
    return any(name in vars(each) for each in derived)


def _is_of_keras(optimizer: Any, name: str) -> bool:
    """Whether what an optimizer has by this name is as in Keras's base class."""
    if name in vars(optimizer):
        return False
    kinds = (kind for kind in type(optimizer).__mro__ if name in vars(kind))
    return next(kinds, None) in keras.optimizers.Optimizer.__mro__
