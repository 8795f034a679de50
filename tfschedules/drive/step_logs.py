"""What a training step reports, of its own batch alone, for who reads every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras

from tfschedules.drive.replicas import whole_batch
from tfschedules.drive.state import in_state

if TYPE_CHECKING:
    from tfschedules.drive.chosen import Chosen
    from tfschedules.drive.losses import KeptLoss


class Alone:
    """A train step that finds all metrics reset, and whose logs are kept."""

    def __init__(
        self,
        chosen: Chosen,
        kept: KeptLoss,
        metric: str | None,
        on_trace: Callable[[], None],
        keeps: Callable[[], bool],
    ) -> None:
        self.model, self.kept, self.metric = chosen.model, kept, metric
        self.on_trace, self.step = on_trace, chosen.model.train_step
        self.keeps, self.counter = keeps, chosen.inner._iterations

    def on_this_backend(self) -> Callable[..., Any]:
        """The step as the trainer calls it."""
        if keras.backend.backend() != "jax":
            return self.with_variables
        kept = self.kept.ring
        if not any(variable is kept for variable in self.model.metrics_variables):
            raise ValueError(
                f"The `metrics` of {type(self.model).__name__} leave out the model's "
                "loss tracker, and JAX carries the metrics' variables from step to "
                "step. Return [*super().metrics, ...] there, so that a range test can "
                "keep the losses."
            )
        return self.with_state

    def with_variables(self, data: Any) -> Any:
        """A step that changes variables."""
        if not self.keeps():
            return self.step(data)
        self.begin()
        logs = self.step(data)
        self.check(logs)
        x = next(leaf for leaf in keras.tree.flatten(data) if leaf is not None)
        idle = [] if self.kept.seen else [self.kept.name]
        whole = whole_batch(self.model, logs, keras.ops.shape(x)[0], idle)
        self.end(whole, self.counter)
        return logs

    def with_state(self, state: Any, data: Any) -> Any:
        """A step from state to state, as JAX has it."""
        if not self.keeps():
            return self.step(state, data)
        *others, metrics = state
        metrics = self._changed(metrics, self.begin)
        logs, state = self.step((*others, metrics), data)
        self.check(logs)
        *others, metrics = state
        made = in_state(self.model, state, self.counter)
        return logs, (*others, self._changed(metrics, lambda: self.end(logs, made)))

    def _changed(self, metrics: Any, change: Callable[[], None]) -> list[Any]:
        """The values of the metrics' variables after `change`."""
        variables = self.model.metrics_variables
        pairs = list(zip(variables, metrics, strict=True))
        with keras.StatelessScope(state_mapping=pairs) as scope:
            change()
        return [
            value if (new := scope.get_current_value(variable)) is None else new
            for variable, value in pairs
        ]

    def begin(self) -> None:
        """Forget the steps before."""
        self.kept.seen = False
        self.model.reset_metrics()

    def _names(self, logs: Any) -> list[str]:
        """What is read of the logs; the last is the loss, if the tracker lacks it."""
        names = [name for name in (self.metric,) if name is not None]
        if not self.kept.seen:
            names.append("loss" if "loss" in logs else self.metric or "loss")
        return names

    def check(self, logs: Any) -> None:
        """Refuse logs that lack what is to be read.

        Raises:
            ValueError: If they do, and it says which scalars there are.
        """
        self.kept.lacks_loss = not self.kept.seen and "loss" not in logs
        scalars = [name for name, value in logs.items() if _is_scalar(value)]
        for name in self._names(logs):
            if name in scalars:
                continue
            others = [each for each in logs if each not in scalars]
            besides = f", and what is no scalar: {', '.join(others)}" if others else ""
            raise ValueError(
                f"The training step must report {name!r}, a scalar, for the range test "
                f"to read. Received: logs with {', '.join(scalars) or 'nothing'}"
                f"{besides}. Give `metric` the name of a scalar, as in "
                f"metric={([*scalars, 'loss'])[0]!r}, or compile the model "
                "with another metric."
            )

    def end(self, logs: Any, made: Any) -> None:
        """Keep what the step reports, and the optimizer's count after it."""
        names = self._names(logs)
        self.on_trace()
        if not self.kept.seen:
            self.kept.keep(logs[names[-1]])
        if self.metric is not None:
            self.kept.keep_other(logs[self.metric])
        self.kept.keep_count(made)


def _is_scalar(value: Any) -> bool:
    """Whether what a step reports is one number."""
    if isinstance(value, (bool, str)):
        return False
    if isinstance(value, (int, float)):
        return True
    dtype = str(getattr(value, "dtype", ""))
    try:
        scalar = tuple(getattr(value, "shape", (0,))) == ()
    except ValueError:  # of TensorFlow's shapes some are not known
        scalar = True
    return scalar and ("float" in dtype or "int" in dtype)
