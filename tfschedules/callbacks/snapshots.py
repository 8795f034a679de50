"""Snapshot ensembles: the model at every cycle's end, and their mean prediction.

Huang et al., Snapshot Ensembles: Train 1, Get M for Free, 2017 (arXiv:1704.00109),
section 3: at the end of each cycle, where the rate is lowest, the model has reached a
minimum of its own; the last m of them, averaged, predict better than each.

Left out: averaging weights, which is another method (SWA).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import keras

from tfschedules._support import checks
from tfschedules._support.paths import local_path
from tfschedules._support.telling import tell
from tfschedules.callbacks.ensemble import Ensemble, check_read_again, mean_of
from tfschedules.callbacks.snapshot_files import (
    Snapshot,
    check_whole,
    chosen,
    name_of,
    snapshots_in,
    some,
)
from tfschedules.callbacks.snapshot_owner import SnapshotOwner, owner_of
from tfschedules.drive import (
    Borrower,
    Chosen,
    Drive,
    Members,
    Stops,
    before_saves,
    drive_of,
    optimizer_given,
    unused,
)
from tfschedules.schedules import Schedule

_UNSEEN = (
    "SnapshotEnsemble takes no snapshots here: the updates are made in a loop that "
    "does not call model.train_on_batch or model.fit, and it sees no others. Train by "
    "one of these, or call model.save(path) at the end of each cycle."
)
_PARTIAL = ".partial"  # a folder in the directory: what a killed process leaves behind


class SnapshotEnsemble(Borrower):
    """Keeps the model at the end of every cycle of the learning rate.

    After the last update before a restart (and after the last of the fit, if a cycle
    is complete there) the whole model is written to
    `<directory>/cycle_<cycle>_step_<step>.keras`: cycles count from 1, steps are the
    schedule's, the updates that were made. The weights are those right after that very
    update, also inside an execution block, which is made of single steps then. Training
    is not affected.

    The cycles are those of the schedule that drives the learning rate (`WarmRestarts`,
    `CyclicalLearningRate`, a `HyperparameterScheduler` with a `tfs.Repeat` in its
    schedule), or that the optimizer was compiled with: see `Schedule.cycles`.

    A file is written elsewhere and moved into place: a killed process leaves whole
    files only. Where one cannot be written, as on a full disk, there is a warning,
    training goes on, and the snapshots that are there stay. A relative `directory` is
    that of the folder in which `fit` begins.

    A resumed fit (one whose position is not 0) goes on in its directory, and writes
    again what it trains again. It is known by the state that it begins in: a small
    hidden file, `.tfschedules`, has the states that the training was in at epoch ends
    and whenever it was saved. Any other fit needs a directory without snapshots, unless
    `overwrite` is set.

    With `use_ema` a snapshot has the weights as trained, not their average.

    Args:
        directory: The folder for the snapshots; made when the first step begins.
        max_to_keep: How many of the last snapshots to keep; all by default.
        overwrite: Whether a fit may have a directory with snapshots that are not known
            to be its own: one that begins at 0 removes them; one that goes on inside
            of the schedule keeps them, with a warning, and writes again what it trains
            again.
        optimizer: Which of the model's optimizers has the cycles: see
            `HyperparameterScheduler`. The whole model is kept.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If `max_to_keep` is not a whole number >= 1; when the first step
            begins, if the learning rate has no cycles, or if the directory has
            snapshots of another run, or of another schedule.
        RuntimeError: In a loop that calls neither `fit` nor `train_on_batch`, after
            its first update.

    Example:
        >>> import tempfile, numpy as np, keras, tfschedules as tfs
        >>> x, y = np.random.rand(64, 3), np.random.rand(64, 1)
        >>> model = keras.Sequential([keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> directory = tempfile.mkdtemp()
        >>> callbacks = [
        ...     tfs.WarmRestarts(0.1, first_cycle=4),
        ...     tfs.SnapshotEnsemble(directory),
        ... ]
        >>> history = model.fit(x, y, epochs=4, verbose=0, callbacks=callbacks)
        >>> callbacks[1].predict(x, last=2, verbose=0).shape
        (64, 1)
        >>> ensemble = tfs.SnapshotEnsemble.load(directory)  # in another process, too
        >>> len(ensemble), ensemble.predict(x, verbose=0).shape
        (2, (64, 1))
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        max_to_keep: int | None = None,
        overwrite: bool = False,
        *,
        optimizer: Any = None,
    ) -> None:
        """Check the arguments; the directory is seen when training begins."""
        super().__init__()
        self._optimizer = optimizer_given(optimizer)
        self.directory = self._folder = local_path("directory", directory)
        if max_to_keep is not None:
            max_to_keep = checks.whole("max_to_keep", max_to_keep)
        self.max_to_keep = max_to_keep
        self.overwrite = checks.flag("overwrite", overwrite)
        self._drive: Drive | None = None  # in a fit

    _of_a_fit: ClassVar[dict[str, Any]] = {
        **Borrower._of_a_fit,
        "_drive": None,
        "_owner": None,
    }
    _owner: SnapshotOwner | None = None  # in a fit, while its states can be noted
    _training = ""  # whose snapshots the directory has; empty where nobody knows

    def on_train_begin(self, logs: Any = None) -> None:
        """Begin to watch the training steps."""
        self._folder = self.directory.absolute()  # also after `os.chdir`
        self._owner, self._training = None, ""
        loan = self._borrow()
        with loan.closed_on_error():
            Stops.attach(self.model, loan, self._next_end, self._keep)
            before_saves(self.model, loan, self._note_state)
            self._prove(lambda: loan.stepped, _UNSEEN)
        self._fit_begins = self._epoch_begins = True

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Plan anew: a schedule in epochs may have been resolved."""
        self._epoch_begins = True
        self._new_epoch()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Find the position and the cycles: every callback has begun by now."""
        if not self._check_on_loan():
            return
        self._look_at_updates()
        if not self._epoch_begins:
            return
        assert self._loan is not None
        self._epoch_begins = False
        with self._loan.closed_on_error():
            self._schedule, self._drive = _schedule_of(self.chosen)
            if self._fit_begins:
                self._open(self.chosen.updates() - self._start)
                self._fit_begins = False
            Stops.plan(self._loan)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Refuse a loop whose updates it does not see; note the state."""
        self._check_updates()
        self._note_state()
        self._tell(logs)

    def on_train_end(self, logs: Any = None) -> None:
        """Let go of the model."""
        try:
            self._conclude_updates()
            self._note_state()
        finally:
            self._give_back()

    def _give_back(self) -> None:
        super()._give_back()
        self._drive = self._owner = None

    def predict(self, x: Any, last: int | None = None, **arguments: Any) -> Any:
        """The mean of what the last snapshots predict: (p₁ + … + p_m)/m.

        After the fit, in the same process. The snapshots' weights are put into the
        fit's model one after the other, and then its own again, to the bit, whatever
        happens. So there are two copies of the weights in memory at most, and custom
        layers need no registration. Optimizer and metrics are left alone. `load` has
        them as models of their own, in another process, too.

        What the model returns is averaged: probabilities if it ends in a softmax, else
        raw outputs. (The paper averages probabilities.)

        Args:
            x: Data as for `model.predict`, in the same order each time it is read.
            last: How many of the last snapshots; all by default. It is m in the paper.
            **arguments: For `model.predict`: `batch_size`, `verbose`, `steps` … .

        Returns:
            Arrays of the structure, shapes and float types that the model returns.

        Raises:
            TypeError: If `x` can be read once only, or `last` is no number.
            FileNotFoundError: If there are no snapshots.
            ValueError: If there are fewer than `last`; if they are of another training
                by now, or one is of another model, or is damaged. Nothing has changed.
            RuntimeError: If there was no fit, or it is not over.
        """
        model = self._fitted()
        found = chosen(self._folder, last)
        check_read_again(x, len(found))
        if self._training and owner_of(self._folder) != self._training:
            raise ValueError(
                f"The snapshots in {str(self._folder)!r} are of another training by "
                "now, and not of the last fit with this SnapshotEnsemble. Load them as "
                "they are: tfs.SnapshotEnsemble.load(directory)."
            )
        members = Members(model, [snapshot.path for snapshot in found])
        return mean_of(members.each(lambda: model.predict(x, **arguments)))

    def _fitted(self) -> keras.Model:
        """The model of the fit that is over."""
        if self._model is None:
            why = "has no model yet: it was in no fit"
        elif self._loan is not None and self._loan.in_progress:
            why = "is in a fit that is not over"
        else:
            return self.model
        raise RuntimeError(
            f"SnapshotEnsemble.predict needs the model of a fit, and this one {why}. "
            "Call it after model.fit(…, callbacks=[…]) with it; or predict with the "
            "files alone: tfs.SnapshotEnsemble.load(directory).predict(x)."
        )

    @staticmethod
    def load(
        directory: str | os.PathLike[str], last: int | None = None, **arguments: Any
    ) -> Ensemble:
        """Load the snapshots of a directory, to predict with them together.

        Args:
            directory: Where a `SnapshotEnsemble` has kept them.
            last: How many of the last; all by default.
            **arguments: For `keras.saving.load_model`: `custom_objects`, `compile`
                (here `False` by default) or `safe_mode`.

        Raises:
            FileNotFoundError: If the directory has no snapshots.
            ValueError: If it has fewer than `last`, or if a file is damaged.
        """
        found = chosen(local_path("directory", directory), last)
        arguments = {"compile": False, **arguments}
        return Ensemble([keras.saving.load_model(s.path, **arguments) for s in found])

    @property
    def _start(self) -> int:
        """The optimizer's count of updates at the schedule's step 0."""
        return 0 if self._drive is None else self._drive.start

    def _next_end(self, made: int) -> int | None:
        end = self._schedule.cycles(max(made - self._start, 0)).next_end
        return None if end is None else end + self._start

    def _open(self, position: int) -> None:
        found = snapshots_in(self._folder)
        owner = SnapshotOwner(self.chosen, self._folder)
        if position == 0 and found and not self.overwrite:
            raise ValueError(
                f"The directory has snapshots of another run: {some(found)}. Give "
                "another directory, or SnapshotEnsemble(…, overwrite=True) to remove "
                "them. (A resumed fit goes on in its directory; this one begins at "
                "step 0.)"
            )
        known = position > 0 and owner.is_this
        if position > 0:
            self._check_schedule(found)
        if position > 0 and found and not known:
            self._refuse_or_warn(found, owner)
        shutil.rmtree(self._folder / _PARTIAL, ignore_errors=True)
        if position == 0:
            for snapshot in found:
                snapshot.path.unlink()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._owner = owner
        self._guarded(lambda: owner.begin(anew=not known))
        self._training = owner.id if self._owner is owner else ""

    def _check_schedule(self, found: list[Snapshot]) -> None:
        for cycle, step, path in found:
            if self._schedule.cycles(step - 1) != (cycle - 1, step):
                raise ValueError(
                    f"The directory has a snapshot of another schedule: {path}, and "
                    f"no cycle {cycle} of this one ends at step {step}. Give another "
                    f"directory. Received: {self._schedule!r}"
                )

    def _refuse_or_warn(self, found: list[Snapshot], owner: SnapshotOwner) -> None:
        """The fit goes on inside of the schedule, and nobody knows it here."""
        why = owner.unknown_because
        if not self.overwrite:
            raise ValueError(
                "The directory has snapshots that are not known to be of this "
                f"training: {some(found)}. {why} Give another directory. If they are "
                "this training's (it went on without SnapshotEnsemble, or its weights "
                "were changed, before it was saved), SnapshotEnsemble(…, "
                "overwrite=True) goes on here."
            )
        tell(
            f"SnapshotEnsemble goes on in {str(self._folder)!r}, and {some(found)}, "
            f"which it has, are not known to be of this training. {why} If they are "
            "not, load(…, last=…) the later ones only.",
            stacklevel=3,
        )

    def _note_state(self) -> None:
        on_loan = self._loan is not None and self._loan.closed is None
        if on_loan and self._owner is not None:
            self._guarded(self._owner.note_state)

    def _guarded(self, action: Callable[[], None]) -> None:
        """Do what notes a state, and if that fails, note no more: training goes on."""
        try:
            action()
        except Exception as error:
            self._owner = None
            tell(
                f"SnapshotEnsemble cannot note in {str(self._folder)!r} which training "
                f"its snapshots are of: {error}. Training goes on. A fit that is "
                "resumed from here on will not be known there.",
                stacklevel=3,
            )

    def _keep(self, end: int, made: int) -> None:
        step = end - self._start
        cycle = self._schedule.cycles(step).ended
        path = self._folder / name_of(cycle, step)
        try:
            self._write(path)
        except Exception as error:  # HDF5 has other classes for a full disk, too
            cause = error if isinstance(error, OSError) else repr(error)
            tell(
                f"SnapshotEnsemble could not keep the snapshot {path}: {cause}. "
                "Training goes on without it; those that are there stay.",
                stacklevel=2,
            )
            return
        if self.max_to_keep is not None:
            self._remove_all_but(self.max_to_keep, cycle)

    def _write(self, path: Path) -> None:
        """Write the model: the whole file is there, or the one of before."""
        partial = self._folder / _PARTIAL / path.name
        try:
            partial.parent.mkdir(parents=True, exist_ok=True)
            self.model.save(str(partial))
            check_whole(partial)
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            shutil.rmtree(partial.parent, ignore_errors=True)

    def _remove_all_but(self, last: int, cycle: int) -> None:
        """Keep the last ones, up to that of `cycle`."""
        try:
            kept = [s for s in snapshots_in(self._folder) if s.cycle <= cycle]
            for snapshot in kept[:-last]:
                snapshot.path.unlink(missing_ok=True)
        except OSError as error:
            tell(
                f"SnapshotEnsemble could not remove older snapshots: {error}. There "
                "are more than max_to_keep now.",
                stacklevel=2,
            )


def _schedule_of(chosen: Chosen) -> tuple[Schedule, Drive | None]:
    """The schedule of the learning rate, and what drives it, if it is a callback."""
    drive = drive_of(chosen.inner, "learning_rate")
    schedule = chosen.rate if drive is None else drive.schedule
    if isinstance(schedule, Schedule) and schedule.cycles(0) != (0, None):
        return schedule, drive
    has = repr(schedule) if drive is not None or callable(schedule) else "a fixed rate"
    raise ValueError(
        "SnapshotEnsemble keeps the model at the end of each cycle of the learning "
        "rate, and this one has no cycles. Add tfs.WarmRestarts(max_lr, first_cycle) "
        "or tfs.CyclicalLearningRate(…) to the callbacks of this fit, or a "
        "tfs.HyperparameterScheduler with tfs.Repeat(…) in its schedule. "
        f"Received: {has}." + unused(chosen, "SnapshotEnsemble(…, {})")
    )
