"""`fine_tune`: train the head of a pretrained model, then all of it, in one call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import keras

from tfschedules._support import checks
from tfschedules._support.arguments import names_of
from tfschedules.callbacks import HyperparameterScheduler
from tfschedules.drive import check_compiled, hyperparameters_of
from tfschedules.finding import check_known, check_targets
from tfschedules.layers.depth import layer_decay_groups
from tfschedules.layers.groups import LayerGroup, assign, check_groups, memberships
from tfschedules.layers.optimizer import LayerwiseOptimizer
from tfschedules.layers.unfreezing import BATCH_NORM, GradualUnfreezing
from tfschedules.schedules import Join, one_cycle, units

_RESERVED = ("x", "y", "initial_epoch")  # said otherwise, or not at all


def fine_tune(
    model: keras.Model,
    data: Any,
    epochs: int,
    freeze_epochs: int = 1,
    base_lr: float = 2e-3,
    *,
    groups: Iterable[LayerGroup] | None = None,
    pct_start: float = 0.3,
    div_factor: float = 5.0,
    batch_norm: str = "frozen",
    callbacks: Sequence[keras.callbacks.Callback] = (),
    **fit_arguments: Any,
) -> keras.callbacks.History:
    """Train the last group for `freeze_epochs`, then everything for `epochs`.

    The head is new and has to be warmed up before its gradients reach the rest, as in
    fastai's function of this name (Howard & Gugger 2020, "fastai: A Layered API for
    Deep Learning", section 2.1). Made of public pieces, in one fit that can be resumed:
    a `GradualUnfreezing` of two groups, and two one-cycles in a row, the second with
    half the peak. With a `LayerwiseOptimizer` its multipliers hold throughout; any
    other optimizer trains all layers with one rate.

    Args:
        model: A compiled and built model, with everything trainable.
        data: What `fit` takes: a tuple `(x, y)` or `(x, y, sample_weight)`, or a
            dataset of known length.
        epochs: How long to train everything, >= 1.
        freeze_epochs: How long to train the last group alone before, >= 0.
        base_lr: The peak of the first cycle; the second's is half of it. At the
            optimizer's rate, that is, for groups whose multiplier is 1.
        groups: Groups from the input to the output, of which the last is the head. By
            default those of the `LayerwiseOptimizer` (what its `default` takes is not
            the head); else the last layer with weights is the head.
        pct_start: The share of the second cycle spent going up.
        div_factor: The second cycle begins at its peak divided by this.
        batch_norm: See `GradualUnfreezing`.
        callbacks: More callbacks for the fit.
        **fit_arguments: More arguments of `fit`: `batch_size`, `validation_data` … .

    Returns:
        The `History` of the fit, of `freeze_epochs` + `epochs` epochs.

    Raises:
        TypeError: If an argument is of another kind.
        ValueError: If an argument is out of its range, the model is not compiled or
            not built, or there is no group besides the head.

    Example:
        >>> import keras, numpy as np, tfschedules as tfs
        >>> x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
        >>> model = keras.Sequential(
        ...     [keras.Input((8,)), keras.layers.Dense(8), keras.layers.Dense(1)]
        ... )
        >>> groups = tfs.discriminative_groups(model, low=0.1, n_groups=2)
        >>> optimizer = tfs.LayerwiseOptimizer(keras.optimizers.Adam(), groups)
        >>> model.compile(optimizer, "mse")
        >>> history = tfs.fine_tune(model, (x, x.sum(1)), epochs=2, verbose=0)
        >>> len(history.history["loss"])
        3
    """
    check_compiled(model)
    own = names_of(fine_tune)
    check_known("fine_tune", fit_arguments, model, own, _RESERVED)
    for reserved in _RESERVED:
        if reserved in fit_arguments:
            raise ValueError(
                f"Argument `{reserved}` has no place in fine_tune: data are one "
                "argument, (x, y), and a fit that goes on is found by BackupAndRestore."
            )
    # fine_tune(model, x, y) is what one writes after find_learning_rate(model, x, y).
    hint = "Data are one argument: (x, y)." if hasattr(epochs, "__len__") else ""
    epochs = checks.whole("epochs", epochs, hint=hint)
    freeze_epochs = checks.whole("freeze_epochs", freeze_epochs, at_least=0)
    checks.real("base_lr", base_lr, above=0)
    base_lr = checks.single("base_lr", base_lr, at_least=2 * checks.LEAST)  # half of it
    checks.choice("batch_norm", batch_norm, BATCH_NORM)
    given = checks.callbacks(callbacks)
    if groups is not None:
        groups = check_groups(groups)

    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    check_targets(model, x, y, way_out="Give fine_tune(model, (x, y), epochs).")

    cycle = one_cycle(base_lr / 2, units.epochs(epochs), pct_start, div_factor)
    unfreezing: list[keras.callbacks.Callback] = []
    if freeze_epochs:
        warming = one_cycle(base_lr, units.epochs(freeze_epochs), pct_start=0.99)
        boundary = [units.epochs(freeze_epochs)]
        cycle = {name: Join([warming[name], cycle[name]], boundary) for name in cycle}
        both = _body_and_head(model, groups)
        unfreezing = [GradualUnfreezing(both, freeze_epochs, batch_norm=batch_norm)]
    if not {"momentum", "beta_1"} & set(hyperparameters_of(model.optimizer)):
        del cycle["momentum"]

    return model.fit(
        x,
        y,
        sample_weight=sample_weight,
        epochs=freeze_epochs + epochs,
        callbacks=[*unfreezing, HyperparameterScheduler(**cycle), *given],
        **fit_arguments,
    )


def _body_and_head(
    model: keras.Model, groups: Iterable[LayerGroup] | None
) -> list[LayerGroup]:
    """The last group, and all others as one."""
    others = False  # whether weights may be in no group
    if groups is not None:
        groups = tuple(groups)
        assign(groups, model.trainable_variables)
    else:
        optimizer = model.optimizer
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            optimizer = optimizer.inner_optimizer
        layerwise = isinstance(optimizer, LayerwiseOptimizer)
        groups = optimizer.groups if layerwise else layer_decay_groups(model, 1.0)
        others = layerwise and optimizer.default is not None
    last = len(groups) - 1
    parts: dict[str, list[Any]] = {"body": [], "head": []}
    weights = model.weights
    for weight, found in zip(weights, memberships(groups, weights), strict=True):
        if found or others:
            parts["head" if found and max(found) == last else "body"].append(weight)
    if not parts["body"]:
        raise ValueError(
            "fine_tune needs a group besides the head, to be frozen first. Received: "
            f"{len(groups)} group(s) with weights in the head only. Give "
            "freeze_epochs=0 to train everything from the start."
        )
    return [LayerGroup(name, those) for name, those in parts.items()]
