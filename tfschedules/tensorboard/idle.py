"""Why training steps have led to no update of the compiled optimizer."""

from __future__ import annotations

from typing import Any

import keras

from tfschedules.drive import batches_made, innermost, read


class Idle:
    """Watches whether a fit updates with the optimizer that its model has."""

    def __init__(self, model: keras.Model) -> None:
        """Note where the optimizer stands before the first step."""
        self._model = model
        self._batches = batches_made(model)
        self._scale = self._loss_scale()
        self.steps = 0  # the train function was called so often

    def _loss_scale(self) -> float | None:
        scaled = self._model.optimizer
        if not isinstance(scaled, keras.optimizers.LossScaleOptimizer):
            return None
        scale = getattr(scaled, "dynamic_scale", None)
        if scale is None:  # not built yet
            return float(scaled.initial_scale)
        return float(read(self._model, scale))

    def cause(self, *, over: bool = False) -> str | None:
        """The cause and the way out; None where there is nothing to say.

        Args:
            over: Whether the fit is; until then gradients may be accumulated.
        """
        optimizer = innermost(self._model.optimizer)
        name, batches = type(optimizer).__name__, batches_made(self._model)
        if self.steps == 0:
            return None
        if batches != self._batches:
            every = optimizer.gradient_accumulation_steps or 1
            if not over or batches // every != self._batches // every:
                return None
            return (
                f"the compiled optimizer, {name}, has made no update: it accumulates "
                f"the gradients of {every} batches, and had those of {batches % every} "
                "when the fit ended. Train on more batches"
            )
        scale = self._loss_scale()
        if scale is not None and self._scale is not None and scale < self._scale:
            return (
                "the loss scale has skipped every step, as there were gradients that "
                f"are not finite: it has come down from {self._scale:g} to {scale:g}. "
                "Train for longer, with a lower initial_scale, or look for the values "
                "that are not finite"
            )
        others = _other_optimizers(self._model)
        has = f" The model also has {' and '.join(others)}." if others else ""
        return (
            f"the compiled optimizer, {name}, has made no update in {self.steps} "
            f"training steps. The model's train_step does not update with it.{has} "
            "Give compile the optimizer whose updates are to be recorded"
        )


def _other_optimizers(model: keras.Model) -> list[str]:
    """The names and kinds of optimizers that a model has beside the compiled one."""
    compiled: list[Any] = [model.optimizer, innermost(model.optimizer)]
    return [
        f"`{name}` ({type(value).__name__})"
        for name, value in sorted(vars(model).items())
        if isinstance(value, keras.optimizers.Optimizer)
        and not any(value is each for each in compiled)
    ]
