"""Schedules in `fit`: callbacks that drive the compiled optimizer."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, ClassVar

from tfschedules._support.arguments import did_you_mean
from tfschedules.callbacks.early_stops import warn_of_early_stops
from tfschedules.callbacks.pace import OwnPace
from tfschedules.callbacks.position import (
    epochs_of,
    position_given,
    resolved_in,
    resumed_position,
    tell_if_not_restorable,
    updates_in_epoch,
)
from tfschedules.drive import (
    Borrower,
    Drive,
    Loan,
    callbacks_around,
    optimizer_given,
)
from tfschedules.schedules import Schedule, schedule_given


def schedule_for(name: str, given: Any) -> Schedule:
    """The schedule of a hyperparameter; its name may be meant for something else."""
    try:
        return schedule_given(name, given)
    except TypeError as error:
        meant = did_you_mean(name, ("learning_rate", "start_step", "optimizer"))
        if name == "learning_rate" or not meant:
            raise
        raise TypeError(f"{error}{meant}") from None


class HyperparameterScheduler(Borrower):
    """Drives any hyperparameter of an optimizer of the model with a schedule.

    The values are computed inside the compiled training step: exact to the step with
    any `steps_per_execution`, `jit_compile`, mixed precision and gradient accumulation
    (a step is an optimizer update), and nearly free. After the fit the learning rate
    stays at its last value; every other hyperparameter has its Python value back.

    It drives the compiled optimizer, or another one of the model that `optimizer`
    names: a GAN has a callback for each of its two. A step is then an update of that
    one, and `logs` has its rate as `d_optimizer/learning_rate`.

    The position is 0 at the start of a new `fit`. A resumed one (`BackupAndRestore`, or
    a loaded model with `initial_epoch`) continues where it was.

    What a callback does with the model during the fit is none of the schedule: steps of
    its own (`train_on_batch`, a `fit` without callbacks of this package) have the rate
    that is set, and do not count. In a loop around `train_on_batch` the callback works
    as in `fit`, in a `keras.callbacks.CallbackList`: see "Loops of your own" in the
    documentation.

    Lengths in epochs are resolved when `fit` begins. Where the data's length is not
    known before the first epoch is over, that is possible if the first epoch does not
    depend on it, as for `Piecewise([epochs(1)], …)`.

    A schedule that takes the rate down by the end of the fit, as `OneCycle` does, is
    made for the whole of it. There is a warning beside an `EarlyStopping` that may end
    the fit while the rate is high, and does not restore the best weights.

    At the end of each epoch `logs` has the values of its last update: `learning_rate`
    (with a `LayerwiseOptimizer` also `learning_rate/<group>`), and what else is driven
    under the name that was given. All callbacks of the fit see them, those before this
    one, too.

    A rate that another callback reduces between epochs scales the schedule from there
    on: beside `ReduceLROnPlateau(factor=0.5)` it goes on at half its height. There is a
    warning, because a callback that sets a rate of its own, as `LearningRateScheduler`
    does, is a mistake here; a rate that is raised is ignored.

    Args:
        learning_rate: A schedule for the learning rate: a `Schedule`, another Keras
            `LearningRateSchedule`, or a function of the step in `keras.ops` (which
            takes a float tensor and cannot be saved).
        start_step: The position of the first update of this fit, in steps; overrides
            what is said above.
        optimizer: The optimizer, if it is not the compiled one: the name of the model's
            attribute that holds it, as "d_optimizer" or "discriminator.optimizer", or
            the optimizer itself. Lengths in epochs are for one that makes an update
            with each batch.
        **hyperparameters: Schedules by name: `momentum`, `weight_decay`, `beta_2` … .
            `momentum` means `beta_1` where the optimizer has no momentum.

    Raises:
        TypeError: If something given is not a schedule.
        ValueError: If nothing is given; when `fit` begins, if the model does not have
            the optimizer, that lacks a hyperparameter or its rate is a schedule
            already, or if a length in epochs cannot be resolved.
        RuntimeError: When `fit` begins, if another fit of the model has callbacks of
            this package; in a loop, if updates are made that cannot be driven.

    Example:
        >>> import tfschedules as tfs
        >>> callback = tfs.HyperparameterScheduler(
        ...     learning_rate=tfs.warmup(tfs.Cosine(0.1, 0.0, tfs.epochs(9)), 500),
        ...     weight_decay=tfs.Linear(1e-4, 1e-3, steps=1000),
        ... )
        >>> # model.fit(x, y, callbacks=[callback])
    """

    def __init__(
        self,
        learning_rate: Schedule | Callable[[Any], Any] | None = None,
        *,
        start_step: int | None = None,
        optimizer: Any = None,
        **hyperparameters: Schedule | Callable[[Any], Any],
    ) -> None:
        """Check the schedules; the optimizer is seen when `fit` begins."""
        super().__init__()
        self._optimizer = optimizer_given(optimizer)
        schedules = dict(hyperparameters)
        if learning_rate is not None:
            schedules = {"learning_rate": learning_rate, **hyperparameters}
        if not schedules and type(self) is HyperparameterScheduler:
            raise ValueError(
                "HyperparameterScheduler needs a schedule to follow: argument "
                "`learning_rate`, or the name of another hyperparameter. Received: "
                "none. For instance learning_rate=tfs.Cosine(0.1, 0.0, steps=1000)."
            )
        if start_step is not None:
            start_step = position_given("start_step", start_step)
        self._schedules = {n: schedule_for(n, given) for n, given in schedules.items()}
        self._start_step = start_step
        self.drives: list[Drive] = []  # in a fit
        self._waiting = False
        self._to_resolve: dict[str, Schedule] = {}

    _of_a_fit: ClassVar[dict[str, Any]] = {
        **Borrower._of_a_fit,
        "drives": [],
        "_to_resolve": {},
        "_pace": None,
    }

    _pace: OwnPace | None = None  # in a fit, of another optimizer than the compiled

    @property
    def arguments(self) -> dict[str, Any]:
        """What it was made with, by name, defaults among it."""
        return self._recalled(defaults=True)

    @property
    def schedules(self) -> dict[str, Schedule]:
        """The schedules by hyperparameter, as far as they are known before the fit."""
        return dict(self._schedules)

    @property
    def driven_names(self) -> list[str]:
        """The hyperparameters that it drives, by the names that were given."""
        return list(self._schedules)

    def schedules_for_fit(self) -> dict[str, Schedule]:
        """The schedules of the fit that begins; may look at `self.params`."""
        return self._schedules

    def on_train_begin(self, logs: Any = None) -> None:
        """Take the hyperparameters over."""
        given = self.schedules_for_fit()
        known = updates_in_epoch(self)
        epochs = epochs_of(self)
        if epochs is not None:
            epochs = max(epochs, 1)  # a fit of none makes no step
        resolved = {n: resolved_in(n, s, known, epochs) for n, s in given.items()}
        loan = self._borrow()
        self._waiting = True
        with loan.closed_on_error():
            self.drives = Drive.attach(self.model, loan, resolved)
        # A resumed state is loaded by the first epoch; a loop may have no epochs.
        for drive in self.drives:
            drive.start = self.chosen.updates() - (self._start_step or 0)
        self._made = self._updates()
        self._prove(self._driven, self._why())
        # By name how many lengths are rounded down to steps, each of them by up to one.
        self._names = {n: max(1, given[n].fit_lengths) for n in resolved}
        if known is None:
            self._to_resolve = {n: s for n, s in given.items() if s.in_epochs}
        self._in_epochs = known is not None and any(s.in_epochs for s in given.values())
        tell_if_not_restorable(self, callbacks_around())

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Find the position before the first step: a resumed state is loaded by now."""
        if not self._check_on_loan():
            return
        self._epoch_begins = True
        if self._waiting:
            self._begin(epoch)

    def _begin(self, epoch: int) -> None:
        """Find the position."""
        self._waiting, self._epoch_begins = False, True
        chosen = self.chosen
        made = chosen.updates()
        position = self._start_step
        if position is None:
            position = resumed_position(self, epoch, made, updates_in_epoch(self))
        self._batches = chosen.batches()
        if self._to_resolve and position > 0:  # how long was the first epoch?
            if epoch == 0 or position != made:
                raise ValueError(
                    "A fit that goes on inside a schedule has to know the steps in an "
                    "epoch, and this data does not tell. Give steps_per_epoch= to fit, "
                    f"or lengths in steps. Received: start_step={position}, "
                    f"initial_epoch={epoch}"
                )
            self._resolve(made / epoch)
        for drive in self.drives:
            drive.start, drive.begins = made - position, position
            if drive.attribute == "learning_rate":
                for each in Loan.borrowers(self.model):
                    if each.chosen.inner is drive.optimizer:
                        each.rate_begins(drive, epoch)
            resumed = position > 0 and self._start_step is None and drive.start == 0
            # A plateau rule of ours speaks for itself.
            if resumed and not drive.is_reduced and (f := drive.factor_from_outside()):
                warnings.warn(
                    f"The restored rate is {f:.4g} times what the schedule has at step "
                    f"{position}; the schedule goes on at its own height. (What "
                    "ReduceLROnPlateau has taken off is no part of a checkpoint: "
                    "multiply the schedule by it to go on as before.)",
                    stacklevel=3,
                )
            drive.show()
        self._began = self._made = self._updates()
        self._first_epoch, self._position = epoch, position
        if chosen.is_compiled:
            self._look_ahead(updates_in_epoch(self))
        else:
            self._pace = OwnPace(self, self._made, in_epochs=self._in_epochs)

    def _look_ahead(self, per_epoch: float | None) -> None:
        """Warn of what is to come, if the fit is as long as it seems."""
        epochs = epochs_of(self)
        if per_epoch is None or epochs is None:
            return
        self._compare_lengths(per_epoch, epochs)
        self._look_for_early_stops(per_epoch, epochs)

    def _look_for_early_stops(self, per_epoch: float, epochs: int) -> None:
        """Warn if another callback may end the fit while the rate is high."""
        for drive in self.drives:
            if drive.attribute == "learning_rate":
                warn_of_early_stops(
                    type(self).__name__,
                    drive.given,
                    callbacks_around(),
                    epoch=self._first_epoch,
                    epochs=epochs,
                    position=self._position,
                    per_epoch=per_epoch,
                )

    def _updates(self) -> int:
        """How many updates the optimizer has made, without those of others."""
        return self.drives[0].made

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Look, once an epoch, whether another callback has set the rate."""
        if not self._check_on_loan():
            return
        if self._waiting:  # a loop of the user's without epochs
            self._begin(0)
        if self._epoch_begins:
            self._epoch_begins = False
            self._new_epoch()
            self._follow_others()
        self._look_at_updates()  # in a loop others may make the steps
        if self._pace is not None and self._pace.looks_on:
            self._pace.look(self._updates())

    def _driven(self) -> bool:
        return all(drive.entered for drive in self.drives)

    def _why(self) -> str:
        return (
            f"{type(self).__name__} does not drive the updates that are made: they "
            "come from a function that was compiled before the callback began, and "
            "that knows nothing of it. Compile it (tf.function) after "
            "callbacks.on_train_begin(), use model.fit or model.train_on_batch, or "
            "put the schedule into the optimizer: "
            "keras.optimizers.SGD(tfs.Cosine(0.1, 0.0, 1000))."
        )

    def _follow_others(self) -> None:
        """Go on at another height, if another callback has reduced the rate."""
        put_back = self._updates() != self._made
        for drive in self.drives:
            factor = drive.factor_from_outside()
            if factor is None:
                continue
            if 0 < factor < 1 and not put_back:
                drive.given = drive.given * factor
                what = f"the schedule goes on at {factor:.6g} times its height"
            else:
                drive.show()
                what = "it is ignored, as only a reduction can be taken over"
            if not put_back:  # a rollback to a checkpoint is no wish for another rate
                warnings.warn(
                    "Another callback has set the learning rate while "
                    f"{type(self).__name__} drives it: {what}. (ReduceLROnPlateau may "
                    "do that; a LearningRateScheduler beside it is a mistake.)",
                    stacklevel=3,
                )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Resolve what had to wait for the length of an epoch."""
        if self._loan is None or self._loan.closed is not None:
            return
        self._check_updates()
        self._tell(logs)
        self._made = made = self._updates()
        if self._pace is not None and self._pace.per_epoch is None:
            self._pace.end_epoch(made)
            self._look_ahead(self._pace.per_epoch)
        batches = self.chosen.batches() - self._batches
        if self._to_resolve and batches:
            self._resolve(batches / self.chosen.every)

    def _resolve(self, per_epoch: float) -> None:
        """Put schedules in steps in place of those that had to wait."""
        epochs = epochs_of(self)
        resolved = {
            n: s.resolve(per_epoch, epochs) for n, s in self._to_resolve.items()
        }
        self._to_resolve = {}
        for drive, name in zip(self.drives, self._names, strict=True):
            drive.given = resolved.get(name, drive.given)

    def on_train_end(self, logs: Any = None) -> None:
        """Give the hyperparameters back."""
        try:
            if self._loan is not None and self._loan.closed is None:
                self._conclude_updates()
        finally:
            self._give_back()

    def _give_back(self) -> None:
        super()._give_back()
        self.drives, self._to_resolve, self._pace = [], {}, None

    def _compare_lengths(self, per_epoch: float, epochs: int) -> None:
        """Warn of schedules that the fit cuts off, or that end before the fit."""
        first, last = 0, epochs
        if self._start_step is not None:
            first, last = self._start_step, epochs - self._first_epoch
        fit = first + math.floor(last * per_epoch + 1e-9)
        names: dict[float, list[str]] = {}
        for name, drive in zip(self._names, self.drives, strict=True):
            length = drive.given.length
            # One that is made for the fit reaches its end with the last step, or would
            # with one more; a sum of two ramps may miss that by rounding.
            least = fit - self._names[name]
            if length is None or least - 1e-6 <= length <= fit + 1e-6:
                continue
            names.setdefault(length, []).append(name)
        for length, those in names.items():
            what = "stays as it is after that"
            if length > fit:
                what = "will not be finished"
            warnings.warn(
                f"The schedule of {' and '.join(those)} reaches its end at step "
                f"{length:g}, and this fit has {fit} steps"
                + (", with those before start_step" if self._start_step else "")
                + f": it {what}.",
                stacklevel=2,
            )
