"""A rate that is reduced where a metric stops improving."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Any, ClassVar

import keras

from tfschedules._support import checks
from tfschedules._support.paths import local_path
from tfschedules._support.telling import tell
from tfschedules.callbacks.plateau_files import PlateauFile, backup_files
from tfschedules.callbacks.plateau_groups import (
    check_groups,
    hold_up,
    least_rates,
    multiples,
)
from tfschedules.callbacks.plateau_metric import Metric
from tfschedules.callbacks.plateau_rule import Rule, State
from tfschedules.callbacks.position import resumed_position, updates_in_epoch
from tfschedules.callbacks.scheduler import HyperparameterScheduler
from tfschedules.drive import (
    Borrower,
    Chosen,
    Drive,
    callbacks_around,
    is_first_process,
    optimizer_given,
    read,
)
from tfschedules.schedules import Constant, Schedule


class ReduceOnPlateau(Borrower):
    """Multiplies the rate by a factor where a metric stops improving.

    Beside `HyperparameterScheduler`, `OneCycle` and their like it multiplies their
    schedule from there on; alone it multiplies the optimizer's own rate. The product is
    a function of the step and is computed inside the compiled training step: exact with
    any `steps_per_execution`, mixed precision and gradient accumulation. `logs` has the
    reduced rate as `learning_rate`, and `TensorBoardLogger` records it.

    An epoch is an improvement if its metric is better than the best so far, by more
    than the threshold. After `patience` epochs without one the rate is reduced. NaN is
    never better. An epoch without validation is left out.

    A fit with `initial_epoch=0` begins anew. A resumed one goes on with the best
    value, the epochs waited, the cooldown and the reductions. These are kept in the
    callback, in the folder of a `BackupAndRestore` beside it, and in `state_file`. A
    model that is loaded in another process needs the `state_file`: a model file cannot
    hold them. Alone it goes on from a rate that was set in between, with a warning.

    Args:
        monitor: The metric, as it is called in `logs`.
        factor: What the rate is multiplied by, in (0, 1).
        patience: Epochs without an improvement before a reduction; 0 and 1 mean the
            same, as in Keras. torch waits one more.
        mode: "min" or "max": which way is better; "auto" asks the metric.
        min_delta: What an improvement has to be more than; by default 1e-4.
        threshold: The same, as torch has it, in place of `min_delta`.
        threshold_mode: "rel", a share of the best value's size, or "abs".
        cooldown: Epochs after a reduction that are not counted.
        min_lr: A reduction does not take the rate below this. A schedule that is lower
            by itself stays. With a `LayerwiseOptimizer` it may be a dictionary, of
            the rates of groups by their names; one that is left out has none. Those
            of groups hold until the fit ends; the optimizer's rate stays reduced.
        warmup_steps: Updates after a reduction in which the rate climbs again, on a
            line from 0.
        state_file: A file to keep the state in, of a few hundred bytes an epoch. The
            same file goes to the fit that goes on.
        optimizer: Which of the model's optimizers: see `HyperparameterScheduler`.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If one is out of range; when `fit` begins, if the rate is a schedule
            that was compiled in, or the state file is of another rule; at the end of
            an epoch, if there is no such metric.

    Example:
        >>> import tfschedules as tfs
        >>> callbacks = [tfs.OneCycle(0.1), tfs.ReduceOnPlateau("loss", factor=0.5)]
        >>> # model.fit(x, y, epochs=50, callbacks=callbacks)
    """

    _of_a_fit: ClassVar[dict[str, Any]] = {
        **Borrower._of_a_fit,
        "_drive": None,
        "_own": None,
        "_alone": False,
        "_states": {},
        "_trained": None,
        "_files": [],
    }

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        *,
        mode: str = "auto",
        min_delta: float | None = None,
        threshold: float | None = None,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Mapping[str, float] = 0.0,
        warmup_steps: int = 0,
        state_file: str | os.PathLike[str] | None = None,
        optimizer: Any = None,
    ) -> None:
        """Check the arguments."""
        super().__init__()
        self._optimizer = optimizer_given(optimizer)
        self._metric = Metric(monitor, mode)
        factor = checks.single("factor", factor, above=0)
        if factor >= 1:
            raise ValueError(
                f"Argument `factor` must be < 1. Received: factor={factor}. "
                "For half the rate give factor=0.5."
            )
        if min_delta is not None and threshold is not None:
            raise ValueError(
                "Arguments `min_delta` and `threshold` are the same thing: give one. "
                f"Received: min_delta={checks.shown(min_delta)}, "
                f"threshold={checks.shown(threshold)}"
            )
        kind = checks.choice("threshold_mode", threshold_mode, ["rel", "abs"])
        if threshold is not None:
            least = checks.real("threshold", threshold, at_least=0)
        elif min_delta is not None:
            least = checks.real("min_delta", min_delta, at_least=0)
        else:
            least = 1e-4
        self._rule = Rule(
            factor=factor,
            patience=checks.whole("patience", patience, at_least=0),
            threshold=least,
            relative=threshold is not None and kind == "rel",
            cooldown=checks.whole("cooldown", cooldown, at_least=0),
            min_lr=least_rates(min_lr),
            warmup_steps=checks.whole(
                "warmup_steps", warmup_steps, at_least=0, at_most=2**53
            ),
        )
        self._state_file = None
        if state_file is not None:
            self._state_file = local_path("state_file", state_file, "file")
        self._state = State()
        self._drive: Drive | None = None
        self._own: Drive | None = None  # where nothing else drives the rate
        self._alone = self._begins = False
        self._states: dict[int, State] = {}  # after so many epochs
        self._trained: Any = None  # the model that these are of
        self._files: list[PlateauFile] = []

    @property
    def factor_now(self) -> float:
        """What the rate is multiplied by now: a power of `factor`; 1 at first."""
        return self._state.factor

    def on_train_begin(self, logs: Any = None) -> None:
        """See whether something else drives the rate; if not, drive it."""
        chosen = self.chosen
        others = [
            each
            for each in callbacks_around()
            if not isinstance(each, Borrower) or each.chosen.inner is chosen.inner
        ]
        if sum(isinstance(each, ReduceOnPlateau) for each in others) > 1:
            raise ValueError(
                "A fit can have one ReduceOnPlateau for an optimizer, and this one has "
                "several. Give one of them."
            )
        backups = backup_files(others, chosen.name)
        loan = self._borrow()
        self._drive = None
        self._alone = not any(
            isinstance(each, HyperparameterScheduler)
            and "learning_rate" in each.driven_names
            for each in others
        )
        with loan.closed_on_error():
            settings = {"monitor": self._metric.name, **dataclasses.asdict(self._rule)}
            own = [] if self._state_file is None else [self._state_file]
            self._files = [PlateauFile(path, settings) for path in [*own, *backups]]
            if self._alone:
                rate = _rate_now(chosen)
                given = {"learning_rate": Constant(1.0 if rate is None else rate)}
                (drive,) = Drive.attach(self.model, loan, given)
                drive.start = chosen.updates()  # till the first epoch tells
                self._own = drive
                self._prove(lambda: drive.entered, _NOT_DRIVEN)
            if isinstance(self._rule.min_lr, Mapping):
                check_groups(loan, self._rule.min_lr)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Take the rate over before the first step: a resumed state is loaded."""
        if not self._check_on_loan():
            return
        self._begins = True
        if self._drive is None and self._alone:
            self._begin_alone(epoch)

    def _begin_alone(self, epoch: int) -> None:
        drive, rate = self._own, _rate_now(self.chosen)
        assert drive is not None  # attached as the fit began
        assert rate is not None  # or nothing could drive it
        made = self.chosen.updates()
        position = resumed_position(self, epoch, made, updates_in_epoch(self))
        drive.start, drive.begins = made - position, position
        drive.given = Constant(rate)
        self.rate_begins(drive, epoch)
        drive.given = Constant(self._own_rate(drive, rate))
        drive.show()

    def _own_rate(self, drive: Drive, rate: float) -> float:
        """What is reduced: the rate of the first epoch, or what has been set since."""
        own = self._state.own
        if own is None:
            own = rate
        else:
            drive.given = Constant(own)
            set_since = drive.factor_from_outside() is not None
            if set_since and not math.isclose(rate, own, rel_tol=1e-4):
                tell(
                    f"The optimizer's rate has been set to {rate:.6g} since the epochs "
                    f"before this fit, where it was {drive.latest(drive.made):.6g}. "
                    "ReduceOnPlateau goes on from what has been set.",
                    stacklevel=5,
                )
                own = rate / self._state.factor
        self._state = dataclasses.replace(self._state, own=own)
        return own

    def rate_begins(self, drive: Drive, epoch: int) -> None:
        """Begin anew, or go on where a fit was left.

        Args:
            drive: What drives the rate.
            epoch: The first epoch of the fit.
        """
        self._drive = drive
        known = self._known_states() if epoch > 0 else {}
        self._states = {done: s for done, s in known.items() if done <= epoch}
        self._trained = self.model
        self._state = State()
        if self._states:
            done = max(self._states)
            self._state = self._states[done].moved_before(drive.begins)
            if done != epoch:
                tell(
                    f"ReduceOnPlateau knows its state after epoch {done}, and the fit "
                    f"goes on with epoch {epoch}: it goes on with that.",
                    stacklevel=4,
                )
        elif epoch > 0:
            self._go_on_without(drive)
        self._apply()

    def _known_states(self) -> dict[int, State]:
        """What is known of the epochs before."""
        for file in self._files:
            if states := file.read():
                return states
        return self._states if self._trained is self.model else {}

    def _go_on_without(self, drive: Drive) -> None:
        """The fit is resumed, and nothing is known: the rate may tell the factor."""
        factor = None
        if not self._alone and drive.start == 0:
            factor = drive.factor_from_outside()
        what = "begins with the rate as it is"
        if not self._alone:
            what = "begins with the schedule as it is"
        if factor is not None and 0 < factor < 1:
            self._state = State().reduced(drive.begins, factor)
            what = f"goes on at {factor:.6g} times the schedule, which the rate tells"
        tell(
            "ReduceOnPlateau has no state of the epochs before this fit: it "
            f"{what}, and counts epochs anew. Give ReduceOnPlateau(state_file=…) to "
            "both fits, the same file, to go on as before.",
            stacklevel=5,
        )

    def _apply(self) -> None:
        """Let the drive follow the state."""
        assert self._drive is not None
        rule, state, drive = self._rule, self._state, self._drive

        def reduce(schedule: Schedule) -> Schedule:
            if isinstance(rule.min_lr, Mapping):
                hold_up(drive, rule.floors(schedule, state, drive))
            return rule.applied(schedule, state)

        drive.reduce_by(reduce)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Look, once an epoch, whether another callback has set the rate."""
        if not self._check_on_loan() or not self._alone:
            return
        if self._drive is None:  # a loop of the user's without epochs
            self._begins = True
            self._begin_alone(0)
        if self._begins:
            self._begins = False
            self._new_epoch()
            self._look_at_others()
        self._look_at_updates()

    def _look_at_others(self) -> None:
        assert self._drive is not None
        if self._drive.factor_from_outside() is not None:
            self._drive.show()
            tell(
                "Another callback has set the learning rate while ReduceOnPlateau "
                "drives it: it is ignored. Put a schedule beside it into a "
                "tfs.HyperparameterScheduler.",
                stacklevel=4,
            )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Look at the metric, and reduce the rate of what comes if it is time."""
        if self._loan is None or self._loan.closed is not None:
            return
        if self._alone:
            self._check_updates()
        self._tell(logs)
        drive = self._drive
        if drive is None:
            raise RuntimeError(
                "ReduceOnPlateau found a callback that drives the rate, and it does "
                "not drive it in this fit."
            )
        value = self._metric.value(logs or {}, known=self._state.best is not None)
        if value is not None:
            before = self._state.pairs
            self._state = self._rule.after_epoch(
                self._state,
                value,
                self._metric.is_growing(self.model),
                drive.given,
                drive.step,
                multiples(drive),
            )
            if self._state.pairs != before:  # each time the step is compiled anew
                self._apply()
        self._states[epoch + 1] = self._state
        if is_first_process():
            for file in self._files:
                file.write(self._states)

    def on_train_end(self, logs: Any = None) -> None:
        """Give the rate back, at its last value."""
        try:
            if self._alone and self._loan is not None and self._loan.closed is None:
                self._conclude_updates()
        finally:
            self._give_back()

    def _give_back(self) -> None:
        super()._give_back()
        self._drive = self._own = None


_NOT_DRIVEN = (
    "ReduceOnPlateau does not drive the updates that are made: they come from a "
    "function that was compiled before the callback began, and that knows nothing of "
    "it. Compile it (tf.function) after callbacks.on_train_begin(), or use model.fit "
    "or model.train_on_batch."
)


def _rate_now(chosen: Chosen) -> float | None:
    """The optimizer's own rate; `None` where it is no number."""
    rate = chosen.rate
    if not isinstance(rate, keras.Variable):
        return None
    return float(read(chosen.model, rate))
