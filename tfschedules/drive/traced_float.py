"""A number that is a float to Python and a tensor to the operations of a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _through_tensor(name: str) -> Callable[..., Any]:
    def operation(self: TracedFloat, *others: Any) -> Any:
        others = tuple(
            other.tensor if isinstance(other, TracedFloat) else other
            for other in others
        )
        return getattr(self.tensor, name)(*others)

    operation.__name__ = name
    return operation


class TracedFloat(float):
    """What a hyperparameter holds while an optimizer's update is traced.

    Optimizers test hyperparameters in Python (`if self.momentum != 0:`), where a tensor
    would raise, and compute with them, where a float would be baked into the graph. To
    comparisons this is `like`; to arithmetic, conversions and `keras.ops` it is
    `tensor`.
    """

    tensor: Any

    def __new__(cls, like: float, tensor: Any) -> TracedFloat:
        """Make a float that compares as `like` and computes as `tensor`."""
        value = super().__new__(cls, like)
        value.tensor = tensor
        return value

    @property
    def dtype(self) -> Any:
        """The tensor's dtype: `keras.ops` infers result types from it."""
        return self.tensor.dtype

    @property
    def shape(self) -> Any:
        """The tensor's shape, ()."""
        return self.tensor.shape

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> Any:
        """TensorFlow's protocol for values that convert themselves."""
        import tensorflow as tf

        return self.tensor if dtype is None else tf.cast(self.tensor, dtype)

    def __jax_array__(self) -> Any:
        """JAX's protocol for values that convert themselves."""
        return self.tensor

    __add__ = _through_tensor("__add__")
    __radd__ = _through_tensor("__radd__")
    __sub__ = _through_tensor("__sub__")
    __rsub__ = _through_tensor("__rsub__")
    __mul__ = _through_tensor("__mul__")
    __rmul__ = _through_tensor("__rmul__")
    __truediv__ = _through_tensor("__truediv__")
    __rtruediv__ = _through_tensor("__rtruediv__")
    __pow__ = _through_tensor("__pow__")
    __rpow__ = _through_tensor("__rpow__")
    __neg__ = _through_tensor("__neg__")
    __abs__ = _through_tensor("__abs__")
