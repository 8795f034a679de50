"""Gradual unfreezing: train the last layers first, and then one group more at a time.

Howard & Ruder 2018, "Universal Language Model Fine-tuning", section 3.3.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from tfschedules._support import checks
from tfschedules.callbacks import resumed_position, updates_in_epoch
from tfschedules.drive import (
    Borrower,
    Freezer,
    Loan,
    is_trained_by,
    layers_with_statistics,
    place_of,
)
from tfschedules.layers.groups import LayerGroup, assign, check_groups, memberships

BATCH_NORM = ["frozen", "updating"]  # what layers with statistics may do

_UNSEEN = (
    "GradualUnfreezing does not see the updates that are made: they come from a "
    "function that was compiled before the callback began, and that trains what it "
    "trained then. Use model.fit or model.train_on_batch, or a step that is not "
    "compiled."
)


class GradualUnfreezing(Borrower):
    """Trains the last group first, and adds the one before it every so many epochs.

    The groups go from the input to the output, as `discriminative_groups` makes them.
    Epoch e trains the last 1 + e // `epochs_per_group` of them; a fit that goes on at
    an `initial_epoch`, or that `BackupAndRestore` has put back, goes on at its place.
    Groups still frozen cost no backward pass and no update, keep their optimizer state,
    and after the fit everything is trainable again. (After one that was interrupted,
    when the model is next trained or compiled.)

    Adam and its like correct averages for the number of updates, as they begin at 0. A
    weight that joins late is corrected by the updates that it has taken itself; by all
    that were made, its first one would be about three times too long. (That is kept
    with the optimizer, also after the fit; a saved file has it with a
    `LayerwiseOptimizer` only. On torch, whose optimizers update all weights at once,
    it is still all that were made.)

    A copy, deep or not, has the same groups, and so the layers of the same model. What
    `pickle` makes has other layers, which are no model's: give names to it instead.

    Works with any optimizer, and needs one that knows all the weights: compile while
    they are trainable. Weights that are frozen then are left alone.

    Args:
        groups: A list of `LayerGroup` from input to output. Their multipliers are not
            used here: give the groups to a `LayerwiseOptimizer`, too, for those.
        epochs_per_group: After how many epochs the next group is added.
        batch_norm: What BatchNormalization in frozen groups, and other layers with
            statistics, do: "frozen" calls them as in inference, "updating" as in
            training, where only their weights stand still.

    Raises:
        TypeError: If an argument is of another kind.
        ValueError: If an argument is out of its range; when `fit` begins, and before it
            changes anything, if the model is not built, a trainable weight is in no
            group or in two, a group has no weights to train, or the optimizer does not
            know them; if the fit has two of these callbacks.
        RuntimeError: In a loop of one's own whose updates do not see what is frozen: a
            compiled step, or one that was made before the loop began.

    Example:
        >>> import keras
        >>> import tfschedules as tfs
        >>> model = keras.Sequential(
        ...     [keras.Input((8,)), *(keras.layers.Dense(8) for _ in range(6))]
        ... )
        >>> groups = tfs.discriminative_groups(model, low=0.1)
        >>> optimizer = tfs.LayerwiseOptimizer(keras.optimizers.Adam(), groups)
        >>> model.compile(optimizer, "mse")
        >>> callback = tfs.GradualUnfreezing(groups, epochs_per_group=2)
        >>> # model.fit(x, y, epochs=10, callbacks=[callback])
    """

    def __init__(
        self,
        groups: Iterable[LayerGroup],
        epochs_per_group: int = 1,
        *,
        batch_norm: str = "frozen",
    ) -> None:
        """Check the arguments; the model is seen when `fit` begins."""
        super().__init__()
        self.groups = check_groups(groups)
        self.epochs_per_group = checks.whole("epochs_per_group", epochs_per_group)
        self.batch_norm = checks.choice("batch_norm", batch_norm, BATCH_NORM)
        self._freezer: Freezer | None = None
        self._begun = False

    _of_a_fit: ClassVar[dict[str, Any]] = {
        **Borrower._of_a_fit,
        "_freezer": None,
        "_begun": False,
        "_weights": [],
        "_layers": [],
    }

    _shared: ClassVar[tuple[str, ...]] = (*Borrower._shared, "groups")

    @property
    def frozen_groups(self) -> list[str]:
        """The names of the groups that are frozen now; none outside of a fit."""
        if self._loan is None or not self._begun:
            return []
        return [group.name for group in self.groups[: self._frozen_at(self._epoch)]]

    def on_train_begin(self, logs: Any = None) -> None:
        """Find the groups' weights and layers."""
        self._check_model()
        weights = list(self.model.trainable_variables)
        numbers = [n for n in assign(self.groups, weights) if n is not None]
        self._check_known(weights, numbers)
        loan, self._begun = self._borrow(), False
        with loan.closed_on_error():
            self._weights = list(zip(weights, numbers, strict=True))
            self._layers = self._layers_to_calm()
            self._freezer = freezer = Freezer(self.model, loan)
            self._prove(lambda: freezer.guard.entered, _UNSEEN)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Freeze what is not to be trained in this epoch."""
        if not self._check_on_loan() or self._freezer is None:
            return
        self._new_epoch()
        self._epoch = epoch
        if not self._begun:  # a resumed state is loaded by now
            self._begun = True
            self._begin(epoch)
        first = self._frozen_at(epoch)
        self._freezer.freeze(
            [weight for weight, number in self._weights if number < first],
            [layer for layer, number in self._layers if number < first],
        )

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Refuse a loop that tells no epochs, or that does not see what is frozen."""
        if not self._check_on_loan():
            return
        if not self._begun:
            raise RuntimeError(
                "GradualUnfreezing goes by epochs, and this loop has none: call "
                "callbacks.on_epoch_begin(epoch) before the first batch of each."
            )
        self._look_at_updates()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Refuse a loop that does not see what is frozen."""
        self._check_updates()
        self._tell(logs)

    def on_train_end(self, logs: Any = None) -> None:
        """Make everything trainable again."""
        try:
            self._conclude_updates()
        finally:
            self._give_back()

    def _give_back(self) -> None:
        super()._give_back()
        self._freezer, self._weights, self._layers = None, [], []

    def _frozen_at(self, epoch: int) -> int:
        """How many groups, from the first, are frozen in `epoch`."""
        return max(len(self.groups) - 1 - epoch // self.epochs_per_group, 0)

    def _begin(self, epoch: int) -> None:
        """Tell the freezer what has been frozen how long, where a fit goes on."""
        chosen = self.chosen
        optimizer, accumulated = chosen.inner, chosen.every
        per_epoch = updates_in_epoch(self)
        made = chosen.updates()
        position = resumed_position(self, epoch, made, per_epoch)
        since = max(chosen.batches() - position * accumulated, 0)
        missed = None
        if position > 0:
            batches = (per_epoch or made / max(epoch, 1)) * accumulated
            missed = {}
            for weight, number in self._weights:
                thawed = (len(self.groups) - 1 - number) * self.epochs_per_group
                if 0 < thawed <= epoch:
                    late = min(round(thawed * batches), made * accumulated)
                    missed[place_of(weight, optimizer)] = late
        assert self._freezer is not None
        self._freezer.begin(since, missed)

    def _check_model(self) -> None:
        """Refuse a model whose weights are not there, or frozen by another one."""
        if not self.model.built:
            raise ValueError(
                f"The model {self.model.name!r} is not built, and GradualUnfreezing "
                "freezes its weights before the first step. Give it a keras.Input, "
                "call it once, or model.build(shape)."
            )
        others = Loan.borrowers(self.model)
        two = [o for o in others if isinstance(o, GradualUnfreezing) and o is not self]
        if two:
            raise ValueError(
                "A fit has one GradualUnfreezing, and this one has two: what is frozen "
                "would be decided twice. (fine_tune makes one itself.)"
            )

    def _check_known(self, weights: list[Any], numbers: list[int]) -> None:
        """Refuse groups with nothing to train, and an optimizer that lacks weights."""
        for number, group in enumerate(self.groups):
            if number not in numbers:
                raise ValueError(
                    f"All weights of the group {group.name!r} are frozen, and there is "
                    "nothing to train in its epochs. GradualUnfreezing freezes by "
                    "itself: leave `trainable` at True, and compile."
                )
        optimizer = self.chosen.optimizer
        if not optimizer.built:
            optimizer.build(weights)
        unknown = [w.path for w in weights if not is_trained_by(optimizer, w)]
        if unknown:
            raise ValueError(
                "The optimizer was built while some weights were frozen, and cannot "
                f"train them now: {', '.join(unknown)}. Compile the model with a new "
                "optimizer while everything that is ever to be trained is trainable."
            )

    def _layers_to_calm(self) -> list[tuple[Any, int]]:
        """Layers with statistics, and the group with which each begins to train.

        One without weights of its own to train is where its statistics are.
        """
        if self.batch_norm == "updating":
            return []
        numbers = {id(weight): number for weight, number in self._weights}
        everything = self.model.weights
        inside = dict(
            zip(map(id, everything), memberships(self.groups, everything), strict=True)
        )
        layers = []
        for layer in layers_with_statistics(self.model):
            found = [numbers[id(w)] for w in layer.weights if id(w) in numbers]
            if not found:
                found = [n for w in layer.weights for n in inside.get(id(w), [])]
            if found:
                layers.append((layer, max(found)))
        return layers
