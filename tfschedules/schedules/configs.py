"""The arguments of a schedule as plain Python objects, and back."""

from __future__ import annotations

from typing import Any

import keras

from tfschedules.schedules.units import Epochs, FitShare

_KerasSchedule = keras.optimizers.schedules.LearningRateSchedule


def serialized(value: Any) -> Any:
    """An argument as plain Python objects.

    Raises:
        ValueError: If it is a function that is not registered.
    """
    if isinstance(value, tuple):
        return [serialized(item) for item in value]
    if isinstance(value, Epochs):
        return {"epochs": value.count}
    if isinstance(value, FitShare):
        return {"fit_share": value.share}
    if isinstance(value, _KerasSchedule):
        return keras.saving.serialize_keras_object(value)
    if callable(value):
        name = getattr(value, "__name__", None)
        if name is None or keras.saving.get_registered_name(value) == name:
            raise ValueError(
                f"The function {value!r} in this schedule cannot be saved: "
                "it is not registered. Decorate it with "
                "@keras.saving.register_keras_serializable('my_package')."
            )
        return keras.saving.serialize_keras_object(value)
    return value


def deserialized(value: Any) -> Any:
    """The argument that `serialized` has made a plain object of."""
    if isinstance(value, list):
        return tuple(deserialized(item) for item in value)
    if isinstance(value, dict) and set(value) == {"epochs"}:
        return Epochs(value["epochs"])
    if isinstance(value, dict) and set(value) == {"fit_share"}:
        return FitShare(value["fit_share"])
    if isinstance(value, dict):
        return keras.saving.deserialize_keras_object(value)
    return value
