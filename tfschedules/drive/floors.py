"""A least rate of one part of the weights, where a plateau rule reduces the rate."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfschedules.schedules import Schedule

if TYPE_CHECKING:
    from tfschedules.drive.split import Clock

_LEAST = 1e-37  # of a rate, in float32


@dataclasses.dataclass(frozen=True)
class Floor:
    """What a reduction does not take a part's rate below.

    Where the optimizer's rate is W F s and the part's multiple of it m, the part's rate
    is W max(F m s, min(m s, least)). So its multiple is m min(1/F, least/(m F s)), and
    not below m. What is lower by itself stays.

    Attributes:
        least: The rate.
        factor: F, what the rule multiplies the schedule by, > 0.
        reduced: F s, without the warm-up W of the rule.
        clock: Tells the step of both.
    """

    least: float
    factor: Schedule
    reduced: Schedule
    clock: Clock

    def raised(self, multiple: Any, made: Any) -> Any:
        """The part's multiple in an update, as a tensor."""
        step = self.clock.position(made)
        multiple = keras.ops.cast(multiple, "float32")
        return self._raised(keras.ops, multiple, self.factor(step), self.reduced(step))

    def values(self, multiples: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """The same at each of the optimizer's updates `steps`, in float64."""
        steps = np.maximum(steps - self.clock.start, 0)
        factors, reduced = self.factor.values(steps), self.reduced.values(steps)
        return self._raised(np, multiples, factors, reduced)

    def _raised(self, ops: Any, multiple: Any, factor: Any, reduced: Any) -> Any:
        up = self.least / ops.maximum(multiple * reduced, _LEAST)
        return multiple * ops.maximum(ops.minimum(up, 1.0 / factor), 1.0)
