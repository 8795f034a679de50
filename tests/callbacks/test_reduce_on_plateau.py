"""`ReduceOnPlateau`: every update's rate against a plateau rule in plain Python.

The network of `unit_steps` writes down the rates that it really had.
"""

from __future__ import annotations

import copy
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from event_files import scalars
from helpers import BACKEND, line
from unit_steps import STEPS, loop, rates_written, unit_model, units

import tfschedules as tfs
from tfschedules.drive import innermost, parts_of

EPOCHS, PER_EPOCH = 12, 4
# Falls, rests, falls by a little, rests, rises.
LOSSES = [9.0, 8.0, 8.0, 8.5, 7.9995, 7.9995, 7.0, 7.0, 7.5, 7.0, 6.9, 7.0]
FALLING = tfs.Linear(0.48, 0.0, STEPS)
RATES = line(0.48, 0.0, STEPS, STEPS)
# Of a fit that is cut off.
pytestmark = pytest.mark.filterwarnings("ignore:The schedule of ")


def reductions(
    values: list[float],
    patience: int,
    cooldown: int = 0,
    least: float = 1e-4,
    relative: bool = False,
    grows: bool = False,
    first: int = 0,
) -> list[int]:
    """After which epochs the rate is reduced: the rule, written anew.

    An epoch in the cooldown does not count as bad, unless it is the last of it: Keras
    takes one off before it looks.
    """
    best: float | None = None
    bad, rest, found = 0, 0, []
    for epoch, value in enumerate(values, first):
        if rest > 0:
            rest, bad = rest - 1, 0
        sign = 1 if grows else -1
        margin = least * abs(best) if relative and best is not None else least
        if best is None or sign * (value - best) > margin:
            best, bad = value, 0
            continue
        if rest > 0:
            continue
        bad += 1
        if bad >= patience:
            found.append(epoch)
            bad, rest = 0, cooldown
    return found


def factors(after: list[int], factor: float) -> np.ndarray:
    """The factor at each update, of reductions after these epochs."""
    every = np.ones(STEPS)
    for epoch in after:
        every[(epoch + 1) * PER_EPOCH :] *= factor
    return every


class Says(keras.callbacks.Callback):
    """Puts a metric of the test's into the logs; stands before the rule."""

    def __init__(self, values: Any = LOSSES, name: str = "plan") -> None:
        super().__init__()
        self.values, self.name = values, name

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs[self.name] = self.values[epoch]


def batches(first: int = 0) -> Any:
    x, y = units()
    for i in range(first, STEPS):
        yield x[i : i + 1], y[:1]


def fit(
    model: keras.Model, *callbacks: Any, build: bool = True, **arguments: Any
) -> dict[str, Any]:
    if build and not model.optimizer.built:  # or TensorFlow traces the step twice
        model.optimizer.build(model.trainable_variables)
    first = arguments.get("initial_epoch", 0) * PER_EPOCH
    settings = {"steps_per_epoch": PER_EPOCH, "epochs": EPOCHS, "verbose": 0}
    settings["shuffle"] = False
    made = model.fit(
        batches(arguments.pop("batch", first)),
        callbacks=[Says(), *callbacks],
        **{**settings, **arguments},
    )
    return made.history


def rule(patience: int = 2, factor: float = 0.5, **arguments: Any) -> Any:
    return tfs.ReduceOnPlateau("plan", factor, patience, mode="min", **arguments)


def same(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=1e-9)


TWICE = reductions(LOSSES, 2)


def test_the_plan_has_reductions() -> None:
    assert TWICE == [3, 8]
    assert reductions(LOSSES, 2, cooldown=5) == [3, 9]


@pytest.mark.parametrize(("first", "block"), [(True, 1), (False, 4)])
def test_it_multiplies_a_schedule(first: bool, block: int) -> None:
    model = unit_model(steps_per_execution=1 if BACKEND == "torch" else block)
    both = [rule(), tfs.HyperparameterScheduler(FALLING)]
    history = fit(model, *(both if first else both[::-1]), build=False)
    expected = RATES * factors(TWICE, 0.5)
    same(rates_written(model), expected)
    ends = np.arange(1, EPOCHS + 1) * PER_EPOCH - 1
    np.testing.assert_allclose(history["learning_rate"], expected[ends], rtol=1e-12)
    assert both[0].factor_now == 0.25
    same(float(model.optimizer.learning_rate), expected[-1])


def test_it_multiplies_the_optimizers_own_rate() -> None:
    model = unit_model(rate=0.1)
    history = fit(model, rule())
    expected = 0.1 * factors(TWICE, 0.5)
    same(rates_written(model), expected)
    same(history["learning_rate"], expected[PER_EPOCH - 1 :: PER_EPOCH])
    # It stays, as stock callbacks have it.
    same(float(model.optimizer.learning_rate), 0.025)


@pytest.mark.parametrize(
    "arguments",
    [
        {"patience": 0},
        {"patience": 3, "min_delta": 0.2},
        {"patience": 1, "cooldown": 3},
        {"patience": 1, "min_lr": 0.02, "cooldown": 1, "mode": "max"},
    ],
    ids=str,
)
def test_alone_it_does_as_kerass_own(arguments: dict[str, Any]) -> None:
    model, other = unit_model(rate=0.1), unit_model(rate=0.1)
    arguments = {"factor": 0.5, "mode": "min", **arguments}
    theirs = keras.callbacks.ReduceLROnPlateau("plan", **arguments)
    theirs.set_model(other)
    theirs.on_train_begin()
    expected = []
    for epoch, value in enumerate(LOSSES):
        expected += [float(other.optimizer.learning_rate)] * PER_EPOCH
        theirs.on_epoch_end(epoch, {"plan": value})
    assert len(set(expected)) > 1
    fit(model, tfs.ReduceOnPlateau("plan", **arguments))
    same(rates_written(model), expected)


@pytest.mark.parametrize(
    ("arguments", "oracle"),
    [
        ({"threshold": 0.15}, {"least": 0.15, "relative": True}),
        ({"threshold": 0.15, "threshold_mode": "abs"}, {"least": 0.15}),
        (
            {"mode": "max", "threshold": 0.01},
            {"grows": True, "least": 0.01, "relative": True},
        ),
    ],
    ids=str,
)
def test_thresholds_and_cooldown(
    arguments: dict[str, Any], oracle: dict[str, Any]
) -> None:
    model = unit_model()
    given = {"mode": "min", "factor": 0.3, "patience": 2, **arguments}
    scheduler = tfs.HyperparameterScheduler(FALLING)
    fit(model, scheduler, tfs.ReduceOnPlateau("plan", **given))
    after = reductions(LOSSES, 2, **oracle)
    assert after
    same(rates_written(model), RATES * factors(after, 0.3))


def test_min_lr_holds_up_a_reduction_and_not_the_schedule() -> None:
    model = unit_model()
    fit(model, tfs.HyperparameterScheduler(FALLING), rule(1, 0.1, min_lr=0.05))
    after = reductions(LOSSES, 1)
    expected = np.maximum(RATES * factors(after, 0.1), np.minimum(RATES, 0.05))
    assert (expected == 0.05).any()
    assert expected[-1] < 0.05
    same(rates_written(model), expected)


def test_a_warm_up_after_each_reduction() -> None:
    model = unit_model(rate=0.1)
    fit(model, rule(warmup_steps=6))
    expected = 0.1 * factors(TWICE, 0.5)
    for epoch in TWICE:
        begin = (epoch + 1) * PER_EPOCH
        expected[begin : begin + 6] *= np.arange(6) / 6
    same(rates_written(model), expected)


@pytest.mark.skipif(BACKEND == "torch", reason="a step is not compiled")
def test_the_step_is_compiled_anew_for_a_reduction_alone() -> None:
    traced = []

    def loss(y_true: Any, y_pred: Any) -> Any:
        traced.append(y_pred)
        return y_pred

    counts = []
    for callbacks in ([tfs.HyperparameterScheduler(FALLING)], [rule()]):
        traced.clear()
        fit(unit_model(loss=loss), *callbacks)
        counts.append(len(traced))
    assert counts[1] - counts[0] == len(TWICE)


def test_gradient_accumulation() -> None:
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    model = unit_model(optimizer)
    fit(model, tfs.HyperparameterScheduler(FALLING), rule())
    updates = line(0.48, 0.0, STEPS, STEPS)[: STEPS // 2]
    # Two batches to an update, each with half its weight.
    same(rates_written(model), np.repeat(updates, 2) / 2 * factors(TWICE, 0.5))


needs_groups = pytest.mark.skipif(
    BACKEND == "torch", reason="LayerwiseOptimizer is refused on torch"
)


def grouped(low: Any = 0.1) -> keras.Model:
    groups = [tfs.LayerGroup("low", ["body"], low), tfs.LayerGroup("high", ["head"])]
    model = unit_model()
    model.compile(tfs.LayerwiseOptimizer(keras.optimizers.SGD(0.1), groups), model.loss)
    return model


@needs_groups
def test_layer_groups_keep_their_shares() -> None:
    model = grouped()
    history = fit(model, rule(min_lr={"low": 1e-9}), build=False)
    expected = 0.1 * factors(TWICE, 0.5)
    same(rates_written(model), expected)
    same(rates_written(model, "body"), 0.1 * expected)
    same(history["learning_rate/low"], 0.1 * expected[PER_EPOCH - 1 :: PER_EPOCH])


@needs_groups
@pytest.mark.parametrize("alone", [True, False])
def test_min_lr_of_groups(alone: bool, tmp_path: Path) -> None:
    """By hand: max(m·F·s, min(m·s, least)) of each, also of a fit that goes on."""
    multiple = tfs.Linear(0.2, 0.8, STEPS - 1)  # of the optimizer's updates
    least = {"low": 0.02, "high": 0.003}

    def callbacks() -> list[Any]:
        made = [rule(1, 0.1, min_lr=least, state_file=tmp_path / "p.json")]
        return [*made, tfs.TensorBoardLogger(tmp_path / "run"), *schedules(alone)]

    model = grouped(multiple)
    history = fit(model, *callbacks(), epochs=7)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    history_2 = fit(loaded, *callbacks(), initial_epoch=7)

    rates = np.full(STEPS, 0.1) if alone else RATES
    shares = {"low": line(0.2, 0.8, STEPS - 1, STEPS), "high": 1.0}
    after, low, best = [], None, np.inf
    for epoch, value in enumerate(LOSSES):  # patience 1, and no more than all can take
        better, best = value < best - 1e-4, min(value, best)
        steps = slice((epoch + 1) * PER_EPOCH - 1, (epoch + 1) * PER_EPOCH + 1)
        own = (rates * factors(after, 0.1))[steps]
        low = all(
            ((np.ones(STEPS) * shares[n])[steps] * own <= least[n] * (1 + 1e-6)).all()
            for n in least
        )
        if not better and not low:
            after.append(epoch)
    assert low
    assert len(after) > 1
    for name, layer in (("low", "body"), ("high", "head")):
        height = rates * shares[name]
        floor = np.minimum(height, least[name])
        expected = np.maximum(height * factors(after, 0.1), floor)
        assert (expected == least[name]).any()
        same(rates_written(loaded, layer), expected)
        tag = f"learning_rate/{name}"
        ends = np.arange(1, EPOCHS + 1) * PER_EPOCH - 1
        seen = history[tag] + history_2[tag]
        np.testing.assert_allclose(seen, expected[ends], rtol=1e-7)
        steps, values = scalars(tmp_path / "run" / "schedules", f"schedule/{tag}")
        assert list(steps) == list(range(STEPS))
        same(values, expected)
    assert all(part.floor is None for part in parts_of(innermost(loaded.optimizer)))


@needs_groups
def test_min_lr_of_groups_that_are_not_there() -> None:
    with pytest.raises(ValueError, match=r"There are: 'low', 'high'.* with 'head'"):
        fit(grouped(), rule(min_lr={"low": 0.1, "head": 0.1}))
    with pytest.raises(ValueError, match="It has SGD without groups: compile it"):
        fit(unit_model(), rule(min_lr={"low": 0.1}))
    nobody = tfs.LayerGroup("low", ".*")
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(tfs.LayerwiseOptimizer(keras.optimizers.SGD(0.1), [nobody]), "mse")
    plateau = rule(min_lr={"low": 0.1})
    plateau.set_model(model)
    with pytest.raises(ValueError, match=r"is not built, and `min_lr` of groups"):
        plateau.on_train_begin()


def test_every_step_is_recorded(tmp_path: Path) -> None:
    model = unit_model()
    logger = tfs.TensorBoardLogger(tmp_path)
    fit(model, rule(), logger, tfs.HyperparameterScheduler(FALLING))
    steps, values = scalars(tmp_path / "schedules", "schedule/learning_rate")
    assert list(steps) == list(range(STEPS))
    same(values, RATES * factors(TWICE, 0.5))


# Resuming. -------------------------------------------------------------------------


class Dies(keras.callbacks.Callback):
    """Stands for Ctrl-C, before the `at`-th batch of the fit."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt("by the test")


def schedules(alone: bool) -> list[Any]:
    return [] if alone else [tfs.HyperparameterScheduler(FALLING)]


def undisturbed(alone: bool) -> np.ndarray:
    return (0.1 if alone else RATES) * factors(reductions(LOSSES, 2, 1), 0.5)


@pytest.mark.parametrize(
    ("alone", "epoch"), [(True, 4), (True, 9), (False, 3), (False, 4)]
)
def test_a_backup_has_it(alone: bool, epoch: int, tmp_path: Path) -> None:
    def callbacks(*more: Any) -> list[Any]:
        backup = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))
        return [rule(cooldown=1), *schedules(alone), backup, *more]

    model = unit_model()
    with pytest.raises(KeyboardInterrupt, match="by the test"):
        fit(model, *callbacks(Dies(epoch * PER_EPOCH)))
    model = unit_model()
    fit(model, *callbacks(), batch=epoch * PER_EPOCH)
    same(rates_written(model), undisturbed(alone))


@pytest.mark.parametrize(("alone", "epoch"), [(True, 4), (False, 3), (False, 9)])
def test_a_loaded_model_goes_on_with_its_file(
    alone: bool, epoch: int, tmp_path: Path
) -> None:
    def callbacks() -> list[Any]:
        state = tmp_path / "new" / "plateau.json"
        return [rule(cooldown=1, state_file=state), *schedules(alone)]

    model = unit_model()
    fit(model, *callbacks()[:1], *schedules(alone), epochs=epoch)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    fit(loaded, *callbacks(), initial_epoch=epoch)
    same(rates_written(loaded), undisturbed(alone))


@pytest.mark.parametrize("alone", [True, False])
def test_a_second_fit_goes_on_or_begins_anew(alone: bool) -> None:
    model, plateau = unit_model(), rule(cooldown=1)
    fit(model, plateau, *schedules(alone), epochs=9)
    fit(model, plateau, *schedules(alone), initial_epoch=9)
    same(rates_written(model), undisturbed(alone))
    other = unit_model()  # a training of its own
    fit(other, plateau, *schedules(alone))
    same(rates_written(other), undisturbed(alone))


@pytest.mark.parametrize("alone", [True, False])
def test_a_new_optimizer_goes_on_with_the_file(alone: bool, tmp_path: Path) -> None:
    """Its count begins at 0, and what was taken off stays taken off."""

    def callbacks() -> list[Any]:
        return [rule(cooldown=1, state_file=tmp_path / "p.json"), *schedules(alone)]

    model, other = unit_model(), unit_model()
    fit(model, *callbacks(), epochs=6)
    other.set_weights(model.get_weights())
    fit(other, *callbacks(), initial_epoch=6)
    same(rates_written(other), undisturbed(alone))


def test_a_schedule_that_begins_anew_keeps_the_factor() -> None:
    model, plateau = unit_model(), rule(cooldown=1)
    fit(model, plateau, *schedules(False), epochs=6)
    anew = tfs.HyperparameterScheduler(tfs.Linear(0.24, 0.0, 24), start_step=0)
    fit(model, plateau, anew, initial_epoch=6)  # of steps that lie behind its own
    same(rates_written(model), undisturbed(False))


def test_a_rate_that_was_set_between_two_fits() -> None:
    model, plateau = unit_model(), rule(cooldown=1)
    fit(model, plateau, epochs=6)
    model.optimizer.learning_rate = 0.02
    with pytest.warns(UserWarning, match=r"has been set to 0\.02 .* it was 0\.05"):
        fit(model, plateau, initial_epoch=6)
    expected = undisturbed(True)
    expected[24:] *= 0.02 / 0.05
    same(rates_written(model), expected)


def test_without_a_file_the_rate_tells_the_factor(tmp_path: Path) -> None:
    model = unit_model()
    fit(model, rule(), *schedules(False), epochs=6)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    with pytest.warns(UserWarning, match=r"goes on at 0\.5 times .*state_file="):
        fit(loaded, rule(), *schedules(False), initial_epoch=6)
    after = [3, *reductions(LOSSES[6:], 2, first=6)]
    same(rates_written(loaded), RATES * factors(after, 0.5))


def test_a_file_of_another_rule_is_refused(tmp_path: Path) -> None:
    path, model = tmp_path / "plateau.json", unit_model()
    fit(model, rule(state_file=path), epochs=3)
    with pytest.raises(ValueError, match=r"other arguments \(patience\).*plateau.json"):
        fit(model, rule(3, state_file=path), initial_epoch=3)
    for text in ("", "[]", "{}", '{"format": 1, "rule": {}, "epochs": {"1": {}}}'):
        path.write_text(text)
        with pytest.raises(ValueError, match="holds no state of a ReduceOnPlateau"):
            fit(model, rule(state_file=path), initial_epoch=3)


def test_copies_are_in_no_fit() -> None:
    plateau = rule()
    model = unit_model()
    fit(model, plateau)
    for made in (copy.deepcopy(plateau), pickle.loads(pickle.dumps(plateau))):
        other = unit_model()
        fit(other, made)
        same(rates_written(other), rates_written(model))


def test_a_loop_of_ones_own() -> None:
    model = unit_model(rate=0.1)

    class Same(Says):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["plan"] = 1.0

    loop(model, [Same(), rule(1)], epochs=4, steps=4)
    expected = 0.1 * np.repeat([1, 1, 0.5, 0.25], 4)
    same(rates_written(model)[:16], expected)


# Refusals, and what is told. --------------------------------------------------------


def test_no_such_metric() -> None:
    plateau = tfs.ReduceOnPlateau("val_los")
    said = r"no 'val_los': this epoch had no validation.*'plan', .*'loss'|'loss'"
    with pytest.warns(UserWarning, match=said):
        fit(unit_model(), plateau, epochs=1)
    with pytest.raises(ValueError, match=r"no metric 'los' .*There are: .*'loss'"):
        fit(unit_model(), tfs.ReduceOnPlateau("los"), epochs=1)
    x, y = units()
    with pytest.raises(ValueError, match=r"no metric 'val_los' .*'val_loss'"):
        fit(unit_model(), plateau, epochs=1, validation_data=(x[:4], y[:4]))


def test_a_metric_that_has_no_direction() -> None:
    with pytest.raises(ValueError, match=r"'plan' does not say .*mode=\"max\""):
        fit(unit_model(), tfs.ReduceOnPlateau("plan"), epochs=2)


def test_epochs_without_validation_are_left_out() -> None:
    model = unit_model(rate=0.1)
    x, y = units()
    with pytest.warns(UserWarning, match="is left out"):
        fit(
            model,
            tfs.ReduceOnPlateau(factor=0.5, patience=2, min_delta=1e9),
            validation_data=(x[:4], y[:4]),
            validation_freq=2,
        )
    # Validation after the epochs 1, 3, 5 …: the first is the best.
    same(rates_written(model), 0.1 * factors([5, 9], 0.5))


def test_not_a_number_is_never_better() -> None:
    model = unit_model(rate=0.1)
    values = [np.nan, 3.0, np.nan, np.nan, 2.0, *[2.0] * 7]
    model.fit(
        batches(),
        steps_per_epoch=4,
        epochs=5,
        verbose=0,
        shuffle=False,
        callbacks=[Says(values), rule()],
    )
    same(rates_written(model)[:20], 0.1 * np.repeat([1, 1, 1, 1, 0.5], 4))


def test_two_rules_and_a_compiled_schedule() -> None:
    with pytest.raises(ValueError, match="can have one ReduceOnPlateau"):
        fit(unit_model(), rule(), rule())
    compiled = unit_model(keras.optimizers.SGD(tfs.Cosine(0.1, 0.0, 10)))
    with pytest.raises(ValueError, match="a schedule goes into a callback"):
        fit(compiled, rule())


def test_another_callback_that_sets_the_rate_is_told_of() -> None:
    model = unit_model(rate=0.1)
    always = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.3)
    with pytest.warns(UserWarning, match="while ReduceOnPlateau drives it: it is igno"):
        fit(model, rule(), always)
    same(rates_written(model), 0.1 * factors(TWICE, 0.5))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"factor": 1.0}, "`factor` must be < 1"),
        ({"factor": 0.0}, "`factor` must be > 0"),
        ({"mode": "down"}, "`mode` must be one of 'auto', 'min', 'max'"),
        ({"min_delta": 0.1, "threshold": 0.1}, "are the same thing: give one"),
        ({"threshold_mode": "relative"}, "`threshold_mode` must be one of 'rel'"),
        ({"patience": -1}, "`patience` must be >= 0"),
        ({"min_lr": -0.1}, "`min_lr` must be >= 0"),
        ({"min_lr": {}}, "a dict that has a group"),
        ({"min_lr": {"low": -1}}, '`min_lr["low"]` must be >= 0'),
    ],
    ids=str,
)
def test_bad_arguments(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        tfs.ReduceOnPlateau(**arguments)


@pytest.mark.parametrize("alone", [True, False])
def test_reductions_before_an_update_are_its_own(alone: bool) -> None:
    """An epoch may make no update: nobody else has set the rate then."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.5, gradient_accumulation_steps=8), "mse")
    first = [] if alone else [tfs.HyperparameterScheduler(tfs.Constant(0.5))]
    rule = tfs.ReduceOnPlateau("loss", factor=0.5, patience=1, mode="max")
    x = np.ones((2, 1), "float32")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model.fit(x, x, batch_size=1, epochs=4, verbose=0, callbacks=[*first, rule])
    assert rule.factor_now == 0.125
    assert not [w for w in told if "Another callback" in str(w.message)]
