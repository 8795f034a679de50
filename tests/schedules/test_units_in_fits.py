"""Lengths in epochs in real fits, of data of known and unknown length."""

from __future__ import annotations

import re
from typing import Any

import keras
import numpy as np
import pytest
from helpers import BACKEND, Rates, arrays, one_cycle_values, softmax_regression
from slope_fits import X, Y, fit, interrupted_fit, momentum_model, same, untouched

import tfschedules as tfs
from tfschedules import (
    Constant,
    Cosine,
    Join,
    Linear,
    Piecewise,
    epochs,
)
from tfschedules.schedules import PerCycle
from tfschedules.schedules.units import Epochs

SGD = keras.optimizers.SGD


def plain(**arguments: Any) -> keras.Model:
    return softmax_regression(SGD(0.1, **arguments))


# Keras says so of any data whose length it learns only when they end.
pytestmark = pytest.mark.filterwarnings("ignore:Your input ran out of data")


# In fit ---------------------------------------------------------------------------


def known(batches: int = 6) -> Any:
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(8).take(batches)


def unknown(batches: int = 6) -> Any:
    """The same; how many there are is seen when they end."""
    return known(batches).filter(lambda *_: True)


class Batches(keras.utils.PyDataset):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, i: int) -> Any:
        return X[8 * i : 8 * i + 8], Y[8 * i : 8 * i + 8]


LINE = Linear(0.5, 0.1, epochs(2))  # 12 steps of the data


@pytest.mark.parametrize("data", ["arrays", "PyDataset", "tf.data", "steps_per_epoch"])
def test_resolved_from_the_data(data):
    arguments: dict[str, Any] = {
        "arrays": lambda: {},
        "PyDataset": lambda: {"x": Batches()},
        "tf.data": lambda: {"x": known()},
        "steps_per_epoch": lambda: {"x": unknown().repeat(), "steps_per_epoch": 6},
    }[data]()
    rates = fit(plain(), tfs.HyperparameterScheduler(LINE), epochs=2, **arguments)
    same(rates, np.linspace(0.5, 0.1, 13)[:12])


def test_a_last_batch_that_is_smaller_counts():
    rates = fit(
        plain(), tfs.HyperparameterScheduler(LINE), x=X, y=Y, batch_size=9, epochs=2
    )
    assert len(rates) == 2 * 6
    same(rates, np.linspace(0.5, 0.1, 13)[:12])


def test_steps_per_epoch_shorter_than_the_data():
    rates = fit(
        plain(),
        tfs.HyperparameterScheduler(LINE),
        x=known().repeat(),
        steps_per_epoch=4,
        epochs=2,
    )
    same(rates, np.linspace(0.5, 0.1, 9)[:8])


def test_a_validation_split_shortens_the_epoch():
    rates = fit(
        plain(), tfs.HyperparameterScheduler(LINE), validation_split=1 / 3, epochs=2
    )
    same(rates, np.linspace(0.5, 0.1, 9)[:8])


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_an_epoch_is_not_counted_in_executions(steps_per_execution):
    model = softmax_regression(SGD(0.1), steps_per_execution=steps_per_execution)
    rates = fit(model, tfs.HyperparameterScheduler(LINE), epochs=2)
    expected = np.linspace(0.5, 0.1, 13)[:12]
    same(rates, expected if steps_per_execution == 1 else expected[[3, 5, 9, 11]])


def test_with_gradient_accumulation_an_epoch_is_in_updates():
    # Two updates of three batches to an epoch.
    rates = fit(
        plain(gradient_accumulation_steps=3),
        tfs.HyperparameterScheduler(LINE),
        epochs=2,
    )
    same(rates, np.repeat(np.linspace(0.5, 0.1, 5)[:4], 3))


def test_an_epoch_of_one_and_a_half_updates():
    callback = tfs.HyperparameterScheduler(LINE)  # two epochs: three updates
    rates = fit(plain(gradient_accumulation_steps=4), callback, epochs=2)
    same(rates, np.repeat(np.linspace(0.5, 0.1, 4)[:3], 4))


def test_a_second_fit_has_its_own_epoch():
    model, callback = plain(), tfs.HyperparameterScheduler(LINE)
    same(fit(model, callback, epochs=2), np.linspace(0.5, 0.1, 13)[:12])
    rates = fit(model, callback, x=X[:16], y=Y[:16], batch_size=8, epochs=2)
    same(rates, np.linspace(0.5, 0.1, 5)[:4])
    assert callback.schedules == {"learning_rate": LINE}


def test_every_hyperparameter_is_resolved():
    model = momentum_model()
    callback = tfs.HyperparameterScheduler(
        **tfs.one_cycle(0.5, epochs(2)), nesterov=Linear(0, 1, 1)
    )
    with pytest.raises(ValueError, match="no hyperparameter 'nesterov'"):
        fit(model, callback, epochs=2)
    driven, reference = momentum_model(), momentum_model()
    fit(driven, tfs.HyperparameterScheduler(**tfs.one_cycle(0.5, epochs(2))), epochs=2)
    fit(reference, tfs.HyperparameterScheduler(**tfs.one_cycle(0.5, 12)), epochs=2)
    for value, expected in zip(arrays(driven), arrays(reference), strict=True):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize(
    ("callback", "in_steps"),
    [
        (lambda: tfs.OneCycle(0.5, epochs(3)), lambda: tfs.OneCycle(0.5, 18)),
        (
            lambda: tfs.WarmRestarts(0.5, epochs(0.5), cycle_mult=2),
            lambda: tfs.WarmRestarts(0.5, 3, cycle_mult=2),
        ),
        (
            lambda: tfs.CyclicalLearningRate(0.1, 0.5, epochs(0.5), window="welch"),
            lambda: tfs.CyclicalLearningRate(0.1, 0.5, 3, window="welch"),
        ),
    ],
    ids=["one-cycle", "restarts", "cyclical"],
)
def test_ready_made_callbacks_take_epochs(callback, in_steps):
    same(fit(plain(), callback(), epochs=3), fit(plain(), in_steps(), epochs=3))


# Data of unknown length -------------------------------------------------------------

LATER = {  # the first epoch does not depend on its length
    "piecewise": (Piecewise([epochs(1)], [0.1, 0.02]), Piecewise([6], [0.1, 0.02])),
    "join": (
        Join([Constant(0.1), Cosine(0.1, 0.0, epochs(2))], [epochs(1)]),
        Join([Constant(0.1), Cosine(0.1, 0.0, 12)], [6]),
    ),
    "a ramp in steps first": (
        Join([Linear(0.0, 0.1, 4), tfs.warm_restarts(0.1, epochs(1))], [epochs(1.5)]),
        Join([Linear(0.0, 0.1, 4), tfs.warm_restarts(0.1, 6)], [9]),
    ),
}


@pytest.mark.parametrize("steps_per_execution", [1, 4])
@pytest.mark.parametrize("name", LATER)
def test_resolved_after_the_first_epoch(name, steps_per_execution):
    waiting, in_steps = LATER[name]
    model = softmax_regression(SGD(0.1), steps_per_execution=steps_per_execution)
    reader = Rates()
    callback = tfs.HyperparameterScheduler(waiting)
    fit(model, callback, reader, x=unknown(), epochs=3)
    executions = 6 if steps_per_execution == 1 else 2
    positions = np.array(reader.counts) - 1
    per_epoch = positions[executions] - (steps_per_execution - 1)
    # TensorFlow's Keras counts an update more where the data end within `get_next`.
    assert per_epoch == 6 or (BACKEND, per_epoch) == ("tensorflow", 7)
    if per_epoch == 6:
        assert waiting.resolve(6) == in_steps
    expected = waiting.resolve(float(per_epoch)).values(positions)
    np.testing.assert_allclose(reader.rates, expected, rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize(
    "schedule",
    [
        LINE,
        Piecewise([epochs(0.5)], [0.1, 0.02]),
        tfs.warm_restarts(0.1, epochs(1)),
        tfs.warmup(Constant(0.1), epochs(1)),
        Constant(0.1) * PerCycle(0.5, epochs(0.5)),
        Join([Constant(0.1), Cosine(0.1, 0, epochs(1))], [3]),
    ],
    ids=repr,
)
def test_what_depends_on_the_first_epochs_length_is_refused(schedule):
    model = momentum_model()
    before = arrays(model)
    message = r"(?s)learning_rate.*not known before the first is over.*steps_per_epoch="
    with pytest.raises(ValueError, match=message + f".*{re.escape(repr(schedule))}"):
        fit(model, tfs.HyperparameterScheduler(schedule), x=unknown())
    untouched(model, before)


def test_the_hyperparameter_that_cannot_wait_is_named():
    callback = tfs.HyperparameterScheduler(
        Piecewise([epochs(1)], [0.1, 0.02]), momentum=Linear(0.9, 0.5, epochs(1))
    )
    model = momentum_model()
    before = arrays(model)
    with pytest.raises(ValueError, match="The schedule of momentum has lengths in ep"):
        fit(model, callback, x=unknown())
    untouched(model, before)


def test_a_second_fit_of_unknown_length_has_its_own_epoch():
    waiting = Piecewise([epochs(1)], [0.1, 0.02])
    model, callback = plain(), tfs.HyperparameterScheduler(waiting)
    same(fit(model, callback, x=unknown(), epochs=2), [0.1] * 6 + [0.02] * 6)
    same(fit(model, callback, x=unknown(3), epochs=2), [0.1] * 3 + [0.02] * 3)
    same(fit(model, callback, x=known(2), epochs=2), [0.1] * 2 + [0.02] * 2)


def test_an_epoch_of_unknown_length_and_of_one_and_a_half_updates():
    waiting = Piecewise([epochs(2)], [0.1, 0.02])  # three updates of four batches
    # In blocks: see the count in the test above.
    model = softmax_regression(
        SGD(0.1, gradient_accumulation_steps=4), steps_per_execution=2
    )
    rates = fit(model, tfs.HyperparameterScheduler(waiting), x=unknown(), epochs=4)
    same(rates, [0.1] * 6 + [0.02] * 6)


@pytest.mark.parametrize("how", ["initial_epoch", "start_step", "backup"])
def test_a_resumed_fit_of_unknown_length(how, tmp_path):
    """Its first epoch is not the schedule's first."""
    waiting = Piecewise([epochs(1)], [0.1, 0.02])
    callback = tfs.HyperparameterScheduler(waiting)
    model, others, arguments = plain(), [], {"initial_epoch": 2}
    if how == "backup":
        others = [keras.callbacks.BackupAndRestore(str(tmp_path / "b"))]
        interrupted_fit(model, 14, callback, *others, x=unknown(), epochs=4)
        model, arguments = plain(), {}
    else:
        fit(model, callback, x=unknown(), epochs=2)
        if how == "start_step":
            callback = tfs.HyperparameterScheduler(waiting, start_step=12)
            with pytest.raises(ValueError, match=r"this data does not tell.*step=12"):
                fit(model, callback, x=unknown(), epochs=4)
            return
    rates = fit(model, callback, *others, x=unknown(), epochs=4, **arguments)
    same(rates, [0.02] * len(rates))


# The length warning -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (Cosine(0.1, 0, 30), "of learning_rate .* step 30, .* 12 steps: .*not be fin"),
        (Cosine(0.1, 0, epochs(3)), "step 18, .* 12 steps: it will not be finished"),
        (Cosine(0.1, 0, epochs(1)), "step 6, .* 12 steps: it stays as it is after"),
        (Cosine(0.1, 0, 10), "step 10, .* 12 steps: it stays as it is after that"),
        (Cosine(0.1, 0, 10.5), r"step 10\.5, .* 12 steps: it stays as it is"),
        (tfs.warmup(Cosine(0.1, 0, epochs(2)), 5), "step 17, .* 12 steps: .*not be"),
        (tfs.flat_cosine(0.1, 8), "step 8, .* 12 steps: it stays as it is after that"),
        (tfs.warmup_stable_decay(0.1, 1, 2, 3), "step 6, .* 12 steps: it stays"),
        (Cosine(0.1, 0, 30) * Linear(1, 0, 5), "step 30, .* 12 steps: .*not be fin"),
        (Cosine(0.1, 0, 30).clip(0.01, 1), "step 30, .* 12 steps: .*not be finished"),
        (Cosine(0.1, 0, 30) * 0.5, "step 30, .* 12 steps: it will not be finished"),
    ],
    ids=repr,
)
def test_another_length_than_the_fits_is_told(schedule, message):
    with pytest.warns(UserWarning, match=message):
        fit(plain(), tfs.HyperparameterScheduler(schedule), epochs=2)


@pytest.mark.parametrize(
    "schedule",
    [
        Cosine(0.1, 0.01, 12),
        Cosine(0.1, 0.01, 11),
        Cosine(0.1, 0.01, epochs(2)),
        tfs.one_cycle(0.1, epochs(2))["learning_rate"],
        tfs.warmup(Cosine(0.1, 0.01, epochs(1)), epochs(1)),
        Constant(0.1),
        tfs.warm_restarts(0.1, 5, 0.01),
        tfs.cyclical(0.1, 0.5, epochs(3)),
        tfs.InverseSqrt(0.1, 100),
    ],
    ids=repr,
)
def test_a_schedule_of_the_fits_length_or_of_none_is_quiet(schedule):
    fit(plain(), tfs.HyperparameterScheduler(schedule), epochs=2)


def test_the_length_is_that_of_all_epochs_of_a_resumed_fit():
    model = plain()
    callback = tfs.HyperparameterScheduler(Cosine(0.1, 0.01, epochs(3)))
    expected = Cosine(0.1, 0.01, 18).values(18)
    with pytest.warns(UserWarning, match="step 18, and this fit has 6 steps"):
        fit(model, callback)
    same(fit(model, callback, initial_epoch=1, epochs=3), expected[6:])


def test_the_length_counts_from_start_step():
    callback = tfs.HyperparameterScheduler(Cosine(0.1, 0.01, 18), start_step=6)
    same(fit(plain(), callback, epochs=2), Cosine(0.1, 0.01, 18).values(18)[6:])
    callback = tfs.HyperparameterScheduler(Cosine(0.1, 0.01, 12), start_step=6)
    with pytest.warns(UserWarning, match="step 12"):
        fit(plain(), callback, epochs=2)


def test_two_schedules_of_one_length_are_told_of_once():
    callback = tfs.HyperparameterScheduler(**tfs.one_cycle(0.1, 9))
    with pytest.warns(
        UserWarning, match="of learning_rate and momentum .* step 8, "
    ) as w:
        fit(momentum_model(), callback, epochs=2)
    assert len([one for one in w if "schedule" in str(one.message)]) == 1


def test_a_fit_of_a_default_one_cycle_is_quiet():
    same(fit(plain(), tfs.OneCycle(0.5), epochs=2), one_cycle_values(0.5, 12)[0])


def test_epochs_are_immutable():
    length = epochs(2)
    assert isinstance(length, Epochs)
    with pytest.raises(AttributeError, match="count"):
        length.count = 3
