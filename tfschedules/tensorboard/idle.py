"""Why training steps have led to no update of the compiled optimizer."""

from __future__ import annotations

import keras

from tfschedules.drive import Chosen, optimizers_of, read


class Idle:
    """Watches whether a fit updates with the optimizer that its model has."""

    def __init__(self, chosen: Chosen) -> None:
        """Note where the optimizer stands before the first step."""
        self._chosen = chosen
        self._batches = chosen.batches()
        self._others = [
            (each, each.batches())
            for each in optimizers_of(chosen.model)
            if not each.is_compiled
        ]
        self._scale = self._loss_scale()
        self.steps = 0  # the train function was called so often

    def _loss_scale(self) -> float | None:
        scaled = self._chosen.optimizer
        if not isinstance(scaled, keras.optimizers.LossScaleOptimizer):
            return None
        scale = getattr(scaled, "dynamic_scale", None)
        if scale is None:  # not built yet
            return float(scaled.initial_scale)
        return float(read(self._chosen.model, scale))

    def cause(self, *, over: bool = False) -> str | None:
        """The cause and the way out; None where there is nothing to say.

        Args:
            over: Whether the fit is; until then gradients may be accumulated.
        """
        chosen = self._chosen
        name, batches = chosen.kind, chosen.batches()
        if self.steps == 0:
            return None
        if batches != self._batches:
            every = chosen.every
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
        if any(other.batches() != before for other, before in self._others):
            return None  # they are recorded
        known = optimizers_of(chosen.model)  # a step may have made some since
        others = [str(other) for other in known if not other.is_compiled]
        has = f" The model also has {' and '.join(others)}." if others else ""
        return (
            f"the compiled optimizer, {name}, has made no update in {self.steps} "
            f"training steps. The model's train_step does not update with it.{has} "
            "Give compile the optimizer whose updates are to be recorded, or let an "
            "attribute of the model hold it before fit"
        )
