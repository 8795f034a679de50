"""Reading variables while a fit runs."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np


def read(model: keras.Model, variable: Any) -> np.ndarray:
    """The value of a variable now, also between two steps of a JAX fit.

    JAX keeps the state outside the variables while it trains. Asking the model to write
    it back costs more than the step; this reads the one array instead. To be called
    from the main thread, before the next step takes the state.
    """
    if keras.backend.backend() == "jax" and not model._jax_state_synced:
        for kind in ("optimizer_variables", "metrics_variables"):
            owner = model.optimizer if kind == "optimizer_variables" else model
            names = "variables" if kind == "optimizer_variables" else kind
            for candidate, array in zip(
                getattr(owner, names), model._jax_state[kind], strict=True
            ):
                if candidate is variable:
                    return np.asarray(array)
    # `.numpy()` also reads a mirrored variable, of which int() raises.
    if hasattr(variable, "numpy"):
        return np.asarray(variable.numpy())
    return np.asarray(keras.ops.convert_to_numpy(variable))


def updates(model: keras.Model, optimizer: Any) -> int:
    """How many updates `optimizer` has made: batches over accumulation steps."""
    batches = int(read(model, optimizer._iterations))
    return batches // (optimizer.gradient_accumulation_steps or 1)
