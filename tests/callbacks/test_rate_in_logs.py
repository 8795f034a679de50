"""The rate, and what else is driven, in the logs of every epoch.

The network of `unit_steps` writes down the rates that it really had, which is one
oracle; the other is NumPy.
"""

from __future__ import annotations

import csv
import gc
import re
import weakref
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers import BACKEND, line, one_cycle_values, patches
from unit_steps import STEPS, rates_written, unit_model, units

import tfschedules as tfs

EPOCHS, PER_EPOCH = 4, STEPS // 4
ENDS = np.arange(1, EPOCHS + 1) * PER_EPOCH - 1  # the last batch of each epoch
FALLING = tfs.Linear(0.48, 0.0, STEPS)
RATES = line(0.48, 0.0, STEPS, STEPS)
NOT_ON_TORCH = pytest.mark.skipif(BACKEND == "torch", reason="not on torch")


class Spy(keras.callbacks.Callback):
    """Keeps what it is given at each epoch's end."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, float]] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seen.append(dict(logs))

    def values(self, name: str) -> list[float]:
        return [logs[name] for logs in self.seen]


def batches(first: int = 0, last: int = STEPS) -> Any:
    """One unit vector after the other: weight k has the rate of the k-th batch."""
    x, y = units()
    for i in range(first, last):
        yield x[i : i + 1], y[:1]


def fit(model: keras.Model, callbacks: list[Any], **arguments: Any) -> Any:
    arguments = {"steps_per_epoch": PER_EPOCH, "epochs": EPOCHS, **arguments}
    arguments = {"x": batches(), "verbose": 0, "shuffle": False, **arguments}
    return model.fit(callbacks=callbacks, **arguments).history


def same(found: Any, expected: Any) -> None:
    """Float64 and exact: computed from the schedule, not read from a float32."""
    assert all(type(value) is float for value in found)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("block", [1] if BACKEND == "torch" else [1, 4, 5])
def test_every_callback_sees_the_rate_of_the_last_update(
    block: int, tmp_path: Path
) -> None:
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    model = unit_model(optimizer, steps_per_execution=block)
    before, after = Spy(), Spy()
    files = [tmp_path / "before.csv", tmp_path / "after.csv"]
    tables = [keras.callbacks.CSVLogger(str(file)) for file in files]
    callbacks = [before, tables[0], tfs.OneCycle(0.3), tables[1], after]
    x, y = units()  # with a block of 5, an epoch ends in one of 2
    arrays = {"x": x[:PER_EPOCH], "y": y[:PER_EPOCH], "batch_size": 1}
    history = fit(model, callbacks, steps_per_epoch=None, **arrays)
    rates, momenta = one_cycle_values(0.3, STEPS)
    for found in (before.values, after.values, history.get):
        same(found("learning_rate"), rates[ENDS])
        same(found("momentum"), momenta[ENDS])
    for file in files:
        with file.open(newline="") as lines:
            rows = list(csv.DictReader(lines))
        same([float(row["learning_rate"]) for row in rows], rates[ENDS])
        same([float(row["momentum"]) for row in rows], momenta[ENDS])
    assert patches(model) == []
    assert "_get_metrics_result_or_logs" not in vars(model)


def test_the_rate_is_the_one_that_was_used() -> None:
    model = unit_model()
    history = fit(model, [tfs.HyperparameterScheduler(FALLING)])
    used = rates_written(model)[ENDS]
    np.testing.assert_allclose(history["learning_rate"], used, rtol=1e-5)
    same(history["learning_rate"], RATES[ENDS])
    assert sorted(history) == ["learning_rate", "loss"]


@pytest.mark.parametrize("verbose", [1, 2])
def test_the_progress_bar_shows_it(verbose: int, capsys: Any) -> None:
    fit(unit_model(), [tfs.HyperparameterScheduler(FALLING)], verbose=verbose)
    shown = re.findall(r"learning_rate: ([0-9.e+-]+)", capsys.readouterr().out)
    assert [float(text) for text in shown] == pytest.approx(RATES[ENDS], abs=1e-4)


@pytest.mark.parametrize(
    ("every", "per_epoch", "expected"),
    # The last update of each epoch; without one, the one before, or the first to come.
    [(3, 8, [1, 4, 7, 9]), (8, 5, [0, 0, 0, 1]), (4, 4, [0, 1, 2, 3])],
)
def test_an_update_is_not_a_batch(
    every: int, per_epoch: int, expected: list[int]
) -> None:
    model = unit_model(keras.optimizers.SGD(0.1, gradient_accumulation_steps=every))
    length = EPOCHS * per_epoch // every
    schedule = tfs.HyperparameterScheduler(tfs.Linear(0.4, 0.0, length))
    history = fit(model, [schedule], steps_per_epoch=per_epoch)
    same(history["learning_rate"], line(0.4, 0.0, length, length)[expected])


def test_before_the_first_update_it_is_that_of_the_first() -> None:
    """Also where the schedule, and the optimizer's count, have begun before."""
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=8)
    model = unit_model(optimizer)
    fit(model, [], steps_per_epoch=16, epochs=1)  # two updates
    schedule = tfs.HyperparameterScheduler(tfs.Linear(0.4, 0.0, 6), start_step=4)
    history = fit(model, [schedule], steps_per_epoch=5)
    same(history["learning_rate"], line(0.4, 0.0, 6, 6)[[4, 4, 4, 5]])


def test_in_the_middle_of_an_accumulation_keras_has_the_next_rate() -> None:
    """As the documentation says."""
    plateau = keras.callbacks.ReduceLROnPlateau("loss", patience=EPOCHS)
    model = unit_model(keras.optimizers.SGD(0.1, gradient_accumulation_steps=3))
    before, after = Spy(), Spy()
    schedule = tfs.HyperparameterScheduler(tfs.Linear(0.4, 0.0, 10))
    fit(model, [before, plateau, schedule, after], steps_per_epoch=8)
    rates = line(0.4, 0.0, 10, 11)
    same(before.values("learning_rate"), rates[[1, 4, 7, 9]])
    theirs = after.values("learning_rate")
    np.testing.assert_allclose(theirs, rates[[2, 5, 7, 10]], rtol=1e-6, atol=1e-9)


def test_a_fit_that_goes_on(tmp_path: Path) -> None:
    schedule = tfs.HyperparameterScheduler(FALLING)
    longer = tfs.Linear(0.48, 0.0, STEPS + 7)
    begun = fit(unit_model(), [tfs.HyperparameterScheduler(longer, start_step=7)])
    same(begun["learning_rate"], line(0.48, 0.0, STEPS + 7, STEPS + 7)[ENDS + 7])

    class Stop(keras.callbacks.Callback):
        def __init__(self, how: str) -> None:
            super().__init__()
            self.how = how

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                if self.how == "by Ctrl-C":
                    raise KeyboardInterrupt(self.how)
                self.model.stop_training = True

    model = unit_model()
    fit(model, [schedule, Stop("early")])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    rest = fit(loaded, [schedule], initial_epoch=2, x=batches(2 * PER_EPOCH))
    same(rest["learning_rate"], RATES[ENDS[2:]])

    folder = str(tmp_path / "backup")
    backup = keras.callbacks.BackupAndRestore(folder, delete_checkpoint=False)
    with pytest.raises(KeyboardInterrupt, match="by Ctrl-C"):
        fit(unit_model(), [schedule, backup, Stop("by Ctrl-C")])
    backup = keras.callbacks.BackupAndRestore(folder)
    rest = fit(unit_model(), [schedule, backup], x=batches(2 * PER_EPOCH))
    same(rest["learning_rate"][-2:], RATES[ENDS[2:]])


@NOT_ON_TORCH
def test_a_skipped_step_is_no_update() -> None:
    """A loss scale of 2^127 skips the first steps, where it overflows float32."""
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1), initial_scale=2.0**127
    )

    def loss(y_true: Any, y_pred: Any) -> Any:
        return 64.0 * y_pred

    model = unit_model(optimizer, loss=loss)
    history = fit(model, [tfs.HyperparameterScheduler(FALLING)])
    made = int(optimizer.inner_optimizer.iterations)
    skipped = STEPS - made
    assert 3 <= skipped <= PER_EPOCH - 2
    same(history["learning_rate"], RATES[ENDS - skipped])
    used = rates_written(model)[ENDS] / 64
    np.testing.assert_allclose(history["learning_rate"], used, rtol=1e-5)


@NOT_ON_TORCH
def test_mixed_precision() -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = unit_model()
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        history = fit(model, [tfs.HyperparameterScheduler(FALLING)])
    finally:
        keras.config.set_dtype_policy(before)
    skipped = STEPS - int(model.optimizer.inner_optimizer.iterations)
    same(history["learning_rate"], RATES[ENDS - skipped])


def test_several_callbacks_and_the_names_that_they_use() -> None:
    model = unit_model(keras.optimizers.AdamW(0.1, weight_decay=0.1))
    history = fit(
        model,
        [
            tfs.HyperparameterScheduler(FALLING),
            tfs.HyperparameterScheduler(momentum=tfs.Linear(0.9, 0.5, STEPS)),
            tfs.HyperparameterScheduler(
                beta_2=tfs.Linear(0.99, 0.9, STEPS),
                weight_decay=tfs.Linear(0.2, 0.1, STEPS),
            ),
        ],
    )
    expected = {
        "learning_rate": RATES,
        "momentum": line(0.9, 0.5, STEPS, STEPS),
        "beta_2": line(0.99, 0.9, STEPS, STEPS),
        "weight_decay": line(0.2, 0.1, STEPS, STEPS),
    }
    assert sorted(history) == sorted([*expected, "loss"])
    for name, values in expected.items():
        same(history[name], values[ENDS])


def test_a_rate_that_nothing_drives_stands_beside_what_is_driven() -> None:
    momentum = tfs.Linear(0.9, 0.5, STEPS)
    optimizer = keras.optimizers.SGD(0.125, momentum=0.9)
    history = fit(
        unit_model(optimizer), [tfs.HyperparameterScheduler(momentum=momentum)]
    )
    assert history["learning_rate"] == [0.125] * EPOCHS
    same(history["momentum"], line(0.9, 0.5, STEPS, STEPS)[ENDS])


class Wrapped(keras.callbacks.Callback):
    """Hands its calls on to callbacks, in a list of Keras's or by hand."""

    def __init__(self, callbacks: list[Any], listed: bool) -> None:
        super().__init__()
        self.inner, self.listed = callbacks, listed

    def on_train_begin(self, logs: Any = None) -> None:
        if self.listed:
            params = self.params
            self.inner = [
                keras.callbacks.CallbackList(self.inner, model=self.model, **params)
            ]
        else:
            for each in self.inner:
                each.set_model(self.model)
                each.set_params(self.params)
        for each in self.inner:
            each.on_train_begin(logs)

    def on_train_end(self, logs: Any = None) -> None:
        for each in self.inner:
            each.on_train_end(logs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        for each in self.inner:
            each.on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        for each in self.inner:
            each.on_epoch_end(epoch, logs)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        for each in self.inner:
            each.on_train_batch_begin(batch, logs)


@pytest.mark.parametrize("listed", [True, False])
def test_in_a_callback_that_holds_callbacks(listed: bool) -> None:
    outside, inside = Spy(), Spy()
    wrapped = Wrapped([inside, tfs.HyperparameterScheduler(FALLING)], listed)
    history = fit(unit_model(), [outside, wrapped])
    for found in (outside.values("learning_rate"), inside.values("learning_rate")):
        same(found, RATES[ENDS])
    same(history["learning_rate"], RATES[ENDS])


def test_a_list_of_callbacks_that_is_given_to_fit() -> None:
    model, spy = unit_model(), Spy()
    callbacks = keras.callbacks.CallbackList(
        [spy, tfs.HyperparameterScheduler(FALLING)],
        add_history=True,
        model=model,
        epochs=EPOCHS,
        steps=PER_EPOCH,
    )
    history = fit(model, callbacks)  # type: ignore[arg-type]
    same(spy.values("learning_rate"), RATES[ENDS])
    same(history["learning_rate"], RATES[ENDS])
    assert "on_epoch_end" not in vars(callbacks)


@pytest.mark.parametrize("first", [True, False])
def test_beside_a_plateau(first: bool) -> None:
    """It writes the live rate, a float32, over ours; both are of the last update."""
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1)
    plateau._is_improvement = lambda *_: False  # there is none, and it begins at once
    schedule, before, after = tfs.HyperparameterScheduler(FALLING), Spy(), Spy()
    ours = [plateau, schedule] if first else [schedule, plateau]
    model = unit_model()
    with pytest.warns(UserWarning, match=r"goes on at 0\.5 times its height"):
        history = fit(model, [before, *ours, after])
    expected = RATES[ENDS] * 0.5 ** np.arange(EPOCHS)
    # The factor is what is read of a float32.
    for found in (before, after):
        np.testing.assert_allclose(found.values("learning_rate"), expected, rtol=1e-6)
    np.testing.assert_allclose(history["learning_rate"], expected, rtol=1e-6)
    np.testing.assert_allclose(rates_written(model)[ENDS], expected, rtol=1e-5)


def test_beside_a_scheduler_of_keras_that_is_ignored() -> None:
    theirs = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.9)
    with pytest.warns(UserWarning, match="it is ignored"):
        history = fit(unit_model(), [tfs.HyperparameterScheduler(FALLING), theirs])
    np.testing.assert_allclose(history["learning_rate"], RATES[ENDS], rtol=1e-6)


def test_validation_has_no_rate() -> None:
    x, y = units()
    history = fit(
        unit_model(), [tfs.HyperparameterScheduler(FALLING)], validation_data=(x, y)
    )
    assert sorted(history) == ["learning_rate", "loss", "val_loss"]
    same(history["learning_rate"], RATES[ENDS])


def test_a_range_test_leaves_the_logs_alone(capsys: Any) -> None:
    model, (x, y) = unit_model(), units()
    spy = Spy()
    test = tfs.RangeTest(1e-4, 1e-2, steps=STEPS, stop_factor=None)
    history = fit(model, [spy, test])
    assert sorted(history) == ["loss"]
    assert all(sorted(logs) == ["loss"] for logs in spy.seen)
    tfs.find_learning_rate(
        model, x, y, min_lr=1e-4, max_lr=1e-2, steps=8, batch_size=1, stop_factor=None
    )
    shown = capsys.readouterr().out
    assert " lr: " in shown
    assert "learning_rate:" not in shown


def layerwise() -> keras.Model:
    model = unit_model()
    optimizer = tfs.LayerwiseOptimizer(
        keras.optimizers.SGD(0.25),
        [
            tfs.LayerGroup("low", ["body"], tfs.Linear(1.0, 0.0, STEPS)),
            tfs.LayerGroup("high", ["head"], 2.0),
        ],
    )
    model.compile(optimizer, loss=model.loss, jit_compile=BACKEND == "jax")
    return model


@NOT_ON_TORCH
@pytest.mark.parametrize("scheduled", [True, False])
def test_the_rate_of_every_group(scheduled: bool, tmp_path: Path) -> None:
    model, spy = layerwise(), Spy()
    ours = tfs.HyperparameterScheduler(FALLING)
    history = fit(model, [spy, ours if scheduled else tfs.TensorBoardLogger(tmp_path)])
    base = RATES if scheduled else np.full(STEPS, 0.25)
    for found in (spy.values, history.get):
        same(found("learning_rate"), base[ENDS])
        same(found("learning_rate/low"), (base * line(1.0, 0.0, STEPS, STEPS))[ENDS])
        same(found("learning_rate/high"), 2 * base[ENDS])
    for layer, name in (("body", "low"), ("head", "high")):
        used = rates_written(model, layer)[ENDS]
        np.testing.assert_allclose(history[f"learning_rate/{name}"], used, rtol=1e-4)


def test_callbacks_that_drive_nothing(tmp_path: Path) -> None:
    """The schedule that the optimizer was compiled with; a constant rate is no news."""
    model = unit_model(keras.optimizers.SGD(tfs.Linear(0.48, 0.0, STEPS)))
    history = fit(model, [tfs.TensorBoardLogger(tmp_path / "ours")])
    same(history["learning_rate"], RATES[ENDS])

    theirs = keras.optimizers.schedules.PolynomialDecay(0.48, STEPS, 0.0)
    model = unit_model(keras.optimizers.SGD(theirs))
    history = fit(model, [tfs.TensorBoardLogger(tmp_path / "theirs")])
    np.testing.assert_allclose(history["learning_rate"], RATES[ENDS], rtol=1e-6)

    history = fit(unit_model(), [tfs.TensorBoardLogger(tmp_path / "constant")])
    assert sorted(history) == ["loss"]


@NOT_ON_TORCH
def test_unfreezing_of_groups_with_rates() -> None:
    groups = [tfs.LayerGroup("low", ["body"]), tfs.LayerGroup("high", ["head"])]
    history = fit(layerwise(), [tfs.GradualUnfreezing(groups)])
    same(history["learning_rate/low"], (0.25 * line(1.0, 0.0, STEPS, STEPS))[ENDS])
    assert history["learning_rate/high"] == [0.5] * EPOCHS


@NOT_ON_TORCH
def test_snapshots_and_fine_tuning(tmp_path: Path) -> None:
    spy = Spy()
    cycles = [tfs.WarmRestarts(0.4, PER_EPOCH), tfs.SnapshotEnsemble(tmp_path)]
    history = fit(unit_model(), [spy, *cycles])
    share = (PER_EPOCH - 1) / PER_EPOCH
    expected = [0.2 * (1 + np.cos(np.pi * share))] * EPOCHS
    same(history["learning_rate"], expected)
    same(spy.values("learning_rate"), expected)

    x, y = units()
    model, spy = unit_model(), Spy()
    groups = [tfs.LayerGroup("low", ["body"]), tfs.LayerGroup("high", ["head"])]
    tfs.fine_tune(
        model, (x, y), epochs=2, groups=groups, callbacks=[spy],
        batch_size=4, verbose=0,
    )  # fmt: skip
    last = spy.values("learning_rate")
    assert len(last) == 3
    # The last update of a one-cycle that begins anew; of the second's own end.
    assert last[-1] == pytest.approx(1e-3 / 5 / 1e4, rel=1e-6)


def test_steps_of_others_are_none_of_the_schedule() -> None:
    x, y = units()

    class Replay(keras.callbacks.Callback):
        """Trains on after the last batch of an epoch, and before its end is told."""

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == PER_EPOCH - 1:
                for i in range(3):
                    self.model.train_on_batch(x[i : i + 1], y[:1])

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.train_on_batch(x[:1], y[:1])

    model, spy = unit_model(), Spy()
    history = fit(model, [Replay(), tfs.HyperparameterScheduler(FALLING), spy])
    same(history["learning_rate"], RATES[ENDS])
    same(spy.values("learning_rate"), RATES[ENDS])
    if BACKEND == "torch":
        return
    # A multiplier goes by the optimizer's own count: 4 updates an epoch are of others.
    model = layerwise()
    history = fit(model, [Replay(), tfs.HyperparameterScheduler(FALLING)])
    factors = line(1.0, 0.0, STEPS, 2 * STEPS)[ENDS + 4 * np.arange(EPOCHS)]
    same(history["learning_rate/low"], RATES[ENDS] * factors)


class Idle(keras.Model):
    """Computes a loss, and does not update with the compiled optimizer."""

    def train_step(self, *arguments: Any) -> Any:
        if BACKEND == "jax":
            state, _data = arguments
            return {"loss": 1.0 * state[0][0][0, 0]}, state
        return {"loss": 1.0 * self.trainable_variables[0][0, 0]}


def test_an_optimizer_that_makes_no_update_has_no_rate(tmp_path: Path) -> None:
    """As in a GAN, for which Keras compiles an RMSprop that is never used."""
    plain = unit_model()
    inner = keras.Model(plain.input, plain.output)
    model = Idle(inner.input, inner.output)
    model.compile(keras.optimizers.RMSprop(0.1), loss=plain.loss)
    with pytest.warns(UserWarning, match="made no update"):
        history = fit(model, [tfs.HyperparameterScheduler(FALLING)])
    assert sorted(history) == ["loss"]
    with pytest.warns(UserWarning, match="has made no update"):
        history = fit(model, [tfs.TensorBoardLogger(tmp_path)])
    assert sorted(history) == ["loss"]


@NOT_ON_TORCH
def test_what_the_train_step_reports_itself_stays() -> None:
    class Reports(keras.Model):
        def train_step(self, *arguments: Any) -> Any:
            found = super().train_step(*arguments)
            logs = found[0] if BACKEND == "jax" else found
            logs["learning_rate"] = 7.0 + 0.0 * logs["loss"]
            return found

    plain = unit_model()
    model = Reports(plain.input, plain.output)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss=plain.loss)
    history = fit(model, [tfs.OneCycle(0.3)])
    assert history["learning_rate"] == [7.0] * EPOCHS
    same(history["momentum"], one_cycle_values(0.3, STEPS)[1][ENDS])


def loop(model: keras.Model, callbacks: Any, epochs: int = EPOCHS) -> None:
    """A loop of one's own; `callbacks` is a list of Keras's, or one callback."""
    callbacks.on_train_begin()
    for epoch in range(epochs):
        callbacks.on_epoch_begin(epoch)
        for batch in range(PER_EPOCH):
            i = epoch * PER_EPOCH + batch
            callbacks.on_train_batch_begin(batch)
            x, y = next(batches(i))
            logs = {"loss": float(model.train_on_batch(x, y))}
        given = dict(logs)
        callbacks.on_epoch_end(epoch, logs)
        if isinstance(callbacks, keras.callbacks.CallbackList):
            assert logs == given  # the user's own dictionary
        else:
            same([logs["learning_rate"]], [RATES[ENDS][epoch]])
    callbacks.on_train_end()


def test_a_loop_around_train_on_batch() -> None:
    model, before, after = unit_model(), Spy(), Spy()
    history = keras.callbacks.History()
    callbacks = keras.callbacks.CallbackList(
        [before, tfs.HyperparameterScheduler(FALLING), after, history],
        model=model,
        epochs=EPOCHS,
        steps=PER_EPOCH,
    )
    loop(model, callbacks)
    same(before.values("learning_rate"), RATES[ENDS])
    same(after.values("learning_rate"), RATES[ENDS])
    same(history.history["learning_rate"], RATES[ENDS])
    assert "on_epoch_end" not in vars(callbacks)

    alone = tfs.HyperparameterScheduler(FALLING)
    model = unit_model()
    alone.set_model(model)
    alone.set_params({"epochs": EPOCHS, "steps": PER_EPOCH})
    loop(model, alone)


def test_a_loop_whose_list_is_gone_is_over() -> None:
    model = unit_model()
    callbacks = keras.callbacks.CallbackList(
        [tfs.HyperparameterScheduler(FALLING)],
        model=model,
        epochs=EPOCHS,
        steps=PER_EPOCH,
    )
    gone = weakref.ref(callbacks)
    callbacks.on_train_begin()
    assert "on_epoch_end" in vars(callbacks)
    gc.disable()
    try:
        del callbacks
        assert gone() is None  # at once: nothing holds it, nor is it in a circle
    finally:
        gc.enable()
    x, y = next(batches())
    model.train_on_batch(x, y)
    np.testing.assert_allclose(rates_written(model)[0], 0.1, rtol=1e-6)


def test_a_fit_that_dies_leaves_nothing() -> None:
    class Die(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            raise KeyboardInterrupt("by the test")

    model = unit_model()
    with pytest.raises(KeyboardInterrupt, match="by the test"):
        fit(model, [tfs.HyperparameterScheduler(FALLING), Die()])
    history = fit(model, [])
    assert sorted(history) == ["loss"]
    assert "_get_metrics_result_or_logs" not in vars(model)
