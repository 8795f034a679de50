"""One optimizer with a rate for each group of layers."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tfschedules._support import checks
from tfschedules._support.arguments import Named
from tfschedules.drive import (
    Part,
    Proxy,
    Split,
    innermost,
    momentum_now,
    own_momentum,
    parts_of,
    trained_by,
)
from tfschedules.layers.group_config import (
    are_those,
    by_names,
    group_config,
    group_from_config,
    kinds_of,
    warn_of_names_twice,
)
from tfschedules.layers.group_table import Decays, GroupTable, group_row
from tfschedules.layers.groups import (
    LayerGroup,
    assign,
    check_groups,
    is_decayed,
    no_decay_kinds,
    weights_known,
)
from tfschedules.schedules import Schedule, schedule_given

_PACKAGE = "tfschedules"
_DEFAULT = "(default)"
# Where a multiplier that is a schedule must be a multiplier; past its end it stays so.
_LOOKED_AT = np.array([0, *range(1, 64), *(2**i for i in range(6, 31))])


@keras.saving.register_keras_serializable(_PACKAGE)
class LayerwiseOptimizer(Named, Proxy):
    """Any Keras optimizer, with a learning rate for each group of layers.

    It stays one optimizer: one count of updates, one clipping by the global norm of all
    gradients, one gradient accumulation, one average of weights, one loss scale. Only
    the rate of each weight is multiplied, and its weight decay with it, as decay is
    applied with the rate. A group may have a momentum of its own besides. There are no
    further variables, so state that was saved with the plain optimizer can be loaded,
    and the other way round. With all multipliers 1 the weights are those of the plain
    optimizer to the bit.

    `learning_rate` reads and sets the rate that the multipliers refer to, and every
    other attribute is the wrapped optimizer's, too, with whatever methods its class
    overrides: callbacks of Keras and schedules of this package go on working.

    Args:
        optimizer: The optimizer, built or not; from then on it is this one's, which
            divides the weights however it is built. For mixed precision leave the
            `LossScaleOptimizer` to `compile`, or put it around this one.
        groups: A list of `LayerGroup`, for instance from `discriminative_groups`. A
            multiplier that is a schedule follows the optimizer's updates.
        default: The multiplier of weights in no group; `None` makes that an error.
        no_decay: Weights that have no weight decay, by their names: a list of "bias"
            (`bias`), "norm" (`gamma`, `beta`, `scale`) and "embedding" (`embeddings`);
            True for all three.
        name: The optimizer's name.

    Raises:
        TypeError: If an argument is of another kind.
        ValueError: If the optimizer cannot be divided, everything would be frozen, or
            a group has a momentum, and the optimizer none that a weight can have alone;
            when it is built, and before it changes anything, if a weight is in no group
            or in two, a group is empty, or a layer is unknown or of another model. With
            no weights at all there is nothing to divide, and no error.
        NotImplementedError: On the torch backend, whose built-in optimizers update all
            weights at once.

    Example:
        >>> import keras
        >>> import tfschedules as tfs
        >>> model = keras.Sequential(
        ...     [keras.Input((8,)), keras.layers.Dense(8), keras.layers.Dense(2)]
        ... )
        >>> groups = tfs.discriminative_groups(model, low=0.1, n_groups=2)
        >>> optimizer = tfs.LayerwiseOptimizer(keras.optimizers.Adam(0.01), groups)
        >>> model.compile(optimizer, "mse")
        >>> round(float(model.optimizer.learning_rate), 6)
        0.01
    """

    _OWN = Proxy._OWN | {
        *("groups", "default", "no_decay", "name"),
        *("_numbers", "_saved", "_loaded"),
    }

    def __init__(
        self,
        optimizer: Any,
        groups: Iterable[LayerGroup],
        default: float | None = None,
        *,
        no_decay: bool | Sequence[str] = (),
        name: str = "layerwise",
    ) -> None:
        """Check the arguments, and divide the optimizer if it is built."""
        _check_optimizer(optimizer)
        groups = check_groups(groups)
        for group in groups:
            _factor(group)
            _own(optimizer, group)
        if default is not None:
            default = checks.real("default", default, at_least=0)
            if _DEFAULT in [group.name for group in groups]:
                raise ValueError(
                    f"The name {_DEFAULT!r} is that of the weights in no group, which "
                    "`default` makes. Give the group another one."
                )
        if not default and all(group.multiplier == 0 for group in groups):
            raise ValueError(
                "Every multiplier is 0, which freezes everything: nothing would be "
                f"trained. Received: {len(groups)} group(s), default={default!r}"
            )
        kinds = no_decay_kinds(no_decay)
        super().__init__(optimizer)
        self.name = checks.text("name", name)
        self.groups, self.default, self.no_decay = groups, default, kinds
        self._numbers: list[int | None] = []
        self._saved: dict[str, Any] | None = None
        self._loaded = False
        if optimizer.built:
            self._divide(trained_by(optimizer))
        else:  # whoever builds it, also from within; behind Keras's tracking
            object.__setattr__(optimizer, "build", self.build)

    def build(self, variables: Iterable[Any]) -> None:
        """Divide the weights and make the wrapped optimizer's variables."""
        inner = self.inner_optimizer
        if inner.built:
            return
        variables = list(variables)
        self._divide(variables)
        type(inner).build(inner, variables)
        vars(inner).pop("build", None)

    def _divide(self, variables: list[Any]) -> None:
        """Give each weight its part of the update; nothing changes if that fails."""
        saved = self._saved
        numbers = self._saved_numbers(variables)
        if numbers is None and not variables:
            numbers = []  # a model may have nothing to train
        elif numbers is None:
            total = self.default is None
            why = by_names(saved, variables) if self._loaded else ""
            numbers = assign(self.groups, variables, total=total, loaded=why)
        parts = []
        for number in [*range(len(self.groups)), None]:
            members = [i for i, group in enumerate(numbers) if group == number]
            own: dict[str, float] = {}
            if number is not None:
                group = self.groups[number]
                name, factor = group.name, _factor(group)
                decay = group.weight_decay_multiplier
                own = _own(self.inner_optimizer, group)
            elif self.default is not None and members:
                name, factor, decay = _DEFAULT, self.default, 1.0
            else:
                continue
            decays = [
                decay if is_decayed(variables[i], self.no_decay) else 0.0
                for i in members
            ]
            parts.append(Part(name, factor, members, decays, own=own))
        empty = [part.name for part in parts if not part.members]
        if self._loaded and self.default is not None and variables and empty:
            warnings.warn(
                f"The loaded groups {', '.join(empty)} have no trainable weights here: "
                f"are their layers frozen? What is in no group has {self.default:g} "
                "times the rate.",
                stacklevel=4,
            )
        split = Split.of(self.inner_optimizer)
        split.parts = parts
        if self._saved is not None:
            split.missed = dict(enumerate(self._saved["missed"]))
        self._saved = None
        self._numbers = numbers

    def _saved_numbers(self, variables: list[Any]) -> list[int | None] | None:
        """The division that was saved, if it is of such variables as these."""
        if self._saved is None:
            return None
        if are_those(self._saved["variables"], variables):
            return list(self._saved["groups"])
        self._saved = None
        return None

    def describe(self) -> None:
        """Print a table of the groups as they are now.

        Before the first step the optimizer does not know the weights. The numbers of
        groups whose layers are given as objects are known then, too; for the others
        there is a "?".
        """
        print(self.table())  # noqa: T201

    def table(self) -> GroupTable:
        """The groups as they are now: `describe` prints it, a notebook shows it."""
        inner = self.inner_optimizer
        made = np.array([int(keras.ops.convert_to_numpy(inner.iterations))])
        rate = float(keras.ops.convert_to_numpy(inner.learning_rate))
        layers = {group.name: group.layer_names for group in self.groups}
        return GroupTable(
            tuple(
                group_row(
                    part.name,
                    layers.get(part.name, ["all others"]),
                    _shown(part.factor),
                    rate * float(part.values(made)[0]),
                    next(iter(part.own.values()), momentum_now(inner)),
                    inner.weight_decay,
                    decays,
                )
                for part, decays in self._contents()
            )
        )

    def _contents(self) -> Iterator[tuple[Part, Decays]]:
        """The parts, and what the decay of each weight is multiplied by."""
        inner = self.inner_optimizer
        if self.built:
            weights = trained_by(inner)
            for part in Split.of(inner).parts:
                those = [weights[i] for i in part.members]
                yield part, list(zip(those, part.decays, strict=True))
            return
        for group in self.groups:
            known, decay = weights_known(group), group.weight_decay_multiplier
            decays: Decays = decay
            if known is not None:
                decays = [
                    (weight, decay if is_decayed(weight, self.no_decay) else 0.0)
                    for weight in known
                ]
            own = _own(inner, group)
            yield Part(group.name, _factor(group), (), (), own=own), decays
        if self.default is not None:
            yield Part(_DEFAULT, self.default, (), ()), 1.0

    def _repr_html_(self) -> str:
        """What a notebook shows of the optimizer."""
        return self.table()._repr_html_()

    def get_config(self) -> dict[str, Any]:
        """The optimizer, the groups, and which weight is in which.

        Layers are saved by name. Weights are found again by their positions, as an
        optimizer's state is: Keras gives some of them other paths when it loads them.
        An optimizer that is not built knows no positions, and there is a warning if
        names do not tell its layers apart.
        """
        config = {
            "optimizer": keras.saving.serialize_keras_object(self.inner_optimizer),
            "groups": [group_config(group) for group in self.groups],
            "default": self.default,
            "no_decay": list(self.no_decay),
            "name": self.name,
            "saved": self._saved,
        }
        if not self.built and self._saved is None:
            warn_of_names_twice(config["groups"])
        if self.built:
            weights = trained_by(self.inner_optimizer)
            missed = Split.of(self.inner_optimizer).missed
            config["saved"] = {
                "variables": kinds_of(weights),
                "groups": self._numbers,
                "missed": [missed.get(i, 0) for i in range(len(weights))],
            }
        return config

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> LayerwiseOptimizer:
        """Make the optimizer that `get_config` has described."""
        config = dict(config)
        saved = config.pop("saved", None)
        load = keras.saving.deserialize_keras_object
        config["optimizer"] = load(config["optimizer"], custom_objects)
        config["groups"] = [
            group_from_config(group, custom_objects) for group in config["groups"]
        ]
        optimizer = cls(**config)
        optimizer._saved, optimizer._loaded = saved, True
        return optimizer


def _check_optimizer(optimizer: Any) -> None:
    """Refuse what cannot be divided."""
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(
            "Argument `optimizer` must be a Keras optimizer, for instance "
            f"keras.optimizers.Adam(1e-3). Received: "
            f"optimizer={checks.shown(optimizer)}"
        )
    kind = type(optimizer).__name__
    if keras.backend.backend() == "torch":
        raise NotImplementedError(
            "LayerwiseOptimizer needs the TensorFlow or the JAX backend. Keras's "
            "optimizers on torch update all weights at once, without update_step, "
            "where a weight's rate could be changed."
        )
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            "LayerwiseOptimizer goes inside the LossScaleOptimizer: "
            "LossScaleOptimizer(LayerwiseOptimizer(Adam(), groups)). Under the policy "
            f"mixed_float16 compile does that by itself. Received: {kind}"
        )
    if hasattr(optimizer, "optimizers") or innermost(optimizer) is not optimizer:
        raise ValueError(
            "LayerwiseOptimizer must wrap an optimizer that updates weights itself. "
            f"Received: {kind}, which wraps others."
        )
    if parts_of(optimizer):
        raise ValueError(
            f"This {kind} is in a LayerwiseOptimizer already. Make a new one."
        )


def _own(optimizer: Any, group: LayerGroup) -> dict[str, float]:
    """What a group has in place of the optimizer's hyperparameters."""
    if group.momentum is None:
        return {}
    return own_momentum(innermost(optimizer), group.name, group.momentum)


def _factor(group: LayerGroup) -> float | Schedule:
    """A group's multiplier: a float, or a schedule in steps."""
    if not callable(group.multiplier):
        return group.multiplier
    schedule = schedule_given("multiplier", group.multiplier)
    if schedule.in_epochs:
        raise ValueError(
            f"The multiplier of the group {group.name!r} has lengths in epochs or "
            "shares of the fit, and an optimizer counts steps. Give steps, or "
            f"multiplier.resolve(steps_per_epoch). Received: {schedule!r}"
        )
    schedule(0)  # an error in it comes now
    steps = _LOOKED_AT if isinstance(group.multiplier, Schedule) else _LOOKED_AT[:1]
    values = schedule.values(steps)
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        raise ValueError(
            f"The multiplier of the group {group.name!r} must be finite and >= 0 at "
            f"every step. Received: {schedule!r}, which is {values[bad][0]:g} at step "
            f"{steps[bad][0]}"
        )
    return schedule


def _shown(factor: float | Schedule) -> str:
    return type(factor).__name__ if isinstance(factor, Schedule) else f"{factor:.4g}"
