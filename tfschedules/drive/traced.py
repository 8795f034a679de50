"""Numbers that are Python's to Python and tensors to the operations of a graph."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras


def _through(part: str, name: str) -> Callable[..., Any]:
    """Make a method that does what that of `self.tensor` or `self.like` does."""

    def operation(self: Any, *others: Any) -> Any:
        others = tuple(
            getattr(other, part) if isinstance(other, Traced) else other
            for other in others
        )
        return getattr(getattr(self, part), name)(*others)

    operation.__name__ = name
    return operation


class Traced:
    """What a hyperparameter holds while an optimizer's update is traced.

    Optimizers test hyperparameters in Python (`if self.momentum != 0:`), where a tensor
    would raise, and compute with them, where a float would be baked into the graph. To
    comparisons this is `like`, a float; to arithmetic, conversions and `keras.ops` it
    is `tensor`.
    """

    like: float
    tensor: Any

    @property
    def dtype(self) -> Any:
        """The tensor's dtype: `keras.ops` infers result types from it."""
        return self.tensor.dtype

    @property
    def shape(self) -> Any:
        """The tensor's shape, ()."""
        return self.tensor.shape

    __add__ = _through("tensor", "__add__")
    __radd__ = _through("tensor", "__radd__")
    __sub__ = _through("tensor", "__sub__")
    __rsub__ = _through("tensor", "__rsub__")
    __mul__ = _through("tensor", "__mul__")
    __rmul__ = _through("tensor", "__rmul__")
    __truediv__ = _through("tensor", "__truediv__")
    __rtruediv__ = _through("tensor", "__rtruediv__")
    __pow__ = _through("tensor", "__pow__")
    __rpow__ = _through("tensor", "__rpow__")
    __neg__ = _through("tensor", "__neg__")
    __abs__ = _through("tensor", "__abs__")


class _TracedFloat(Traced, float):
    """For TensorFlow, which asks a value to convert itself before it looks at its type.

    A float, because `tf.clip_by_norm` and others insist on one.
    """

    def __new__(cls, like: float, tensor: Any) -> _TracedFloat:
        value = super().__new__(cls, like)
        value.like, value.tensor = like, tensor
        return value

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> Any:
        import tensorflow as tf

        return self.tensor if dtype is None else tf.cast(self.tensor, dtype)


class _TracedNumber(Traced):
    """For JAX, which takes a float's value without asking it to convert itself."""

    def __init__(self, like: float, tensor: Any) -> None:
        self.like, self.tensor = like, tensor

    def __jax_array__(self) -> Any:
        return self.tensor

    __eq__ = _through("like", "__eq__")
    __ne__ = _through("like", "__ne__")
    __lt__ = _through("like", "__lt__")
    __le__ = _through("like", "__le__")
    __gt__ = _through("like", "__gt__")
    __ge__ = _through("like", "__ge__")
    __bool__ = _through("like", "__bool__")
    __float__ = _through("like", "__float__")
    __hash__ = _through("like", "__hash__")


@functools.cache
def _on_jax() -> type[_TracedNumber]:
    import jax

    # jitted functions of JAX's own (`jnp.clip`) take what is a tree of arrays.
    jax.tree_util.register_pytree_node(
        _TracedNumber,
        lambda number: ((number.tensor,), number.like),
        lambda like, tensors: _TracedNumber(like, *tensors),
    )
    return _TracedNumber


def traced(like: float, tensor: Any) -> Any:
    """A number that compares as `like` and computes as `tensor`, on this backend."""
    like = float(like)  # of an int, comparisons with floats are NotImplemented
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _TracedFloat(like, tensor)
    if backend == "jax":
        return _on_jax()(like, tensor)
    return float(tensor)  # an eager backend: the step is Python's
