"""Lengths in epochs: what they become in steps, alone, in files and in `fit`."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
from typing import Any

import keras
import numpy as np
import pytest

import tfschedules as tfs
from tfschedules import (
    Constant,
    Cosine,
    Exponential,
    Join,
    Linear,
    Piecewise,
    epochs,
    schedules,
)
from tfschedules.schedules import PerCycle, Ramp, Repeat, ScaleFunction

SGD = keras.optimizers.SGD


# Keras says so of any data whose length it learns only when they end.
pytestmark = pytest.mark.filterwarnings("ignore:Your input ran out of data")


@keras.saving.register_keras_serializable("tfschedules_tests", "inverse_cycle")
def inverse_cycle(x):
    return 1.0 / x


# name: (with lengths in epochs, updates in an epoch, the same with lengths in steps)
LENGTHS: dict[str, tuple[Any, float, Any]] = {
    "linear": (Linear(0.1, 0.2, epochs(2.5)), 100, Linear(0.1, 0.2, 250)),
    "cosine": (Cosine(0.1, 0.2, epochs(3)), 7, Cosine(0.1, 0.2, 21)),
    "exponential": (Exponential(1, 2, epochs(1)), 12, Exponential(1, 2, 12)),
    "polynomial": (
        tfs.Polynomial(0.1, 0.0, epochs(0.5), 2),
        9,  # four and a half
        tfs.Polynomial(0.1, 0.0, 4, 2),
    ),
    "square root": (tfs.SquareRoot(1, 0, epochs(4)), 5, tfs.SquareRoot(1, 0, 20)),
    "inverse root": (tfs.InverseSqrt(1, epochs(2)), 30, tfs.InverseSqrt(1, 60)),
    "join": (
        Join([Linear(0, 1, epochs(1)), Cosine(1, 0, epochs(9))], [epochs(1)]),
        10,
        Join([Linear(0, 1, 10), Cosine(1, 0, 90)], [10]),
    ),
    "join, steps and epochs": (
        Join([Constant(1), Constant(2), Cosine(1, 0, 55)], [5, epochs(1.5)]),
        10,
        Join([Constant(1), Constant(2), Cosine(1, 0, 55)], [5, 15]),
    ),
    "piecewise": (
        Piecewise([epochs(1), epochs(2.5)], [0.1, 0.2, 0.3]),
        4,
        Piecewise([4, 10], [0.1, 0.2, 0.3]),
    ),
    "repeat": (
        Repeat(Linear(1, 0, epochs(2)), epochs(2), 1.5),
        10,
        Repeat(Linear(1, 0, 20), 20, 1.5),
    ),
    "repeat of steps": (
        Repeat(Linear(1, 0, 8), epochs(1)),
        10,
        Repeat(Linear(1, 0, 8), 10),
    ),
    "per cycle": (PerCycle(0.5, epochs(2), 2.0), 10, PerCycle(0.5, 20, 2.0)),
    "function of the cycle": (
        ScaleFunction(inverse_cycle, epochs(2)),
        10,
        ScaleFunction(inverse_cycle, 20),
    ),
    "sum, product and clip": (
        (0.5 * Linear(0, 1, epochs(1)) + Cosine(1, 0, 7) * PerCycle(0.5, 3)).clip(0, 1),
        10,
        (0.5 * Linear(0, 1, 10) + Cosine(1, 0, 7) * PerCycle(0.5, 3)).clip(0, 1),
    ),
    "cyclical": (tfs.cyclical(0.1, 0.5, epochs(2)), 10, tfs.cyclical(0.1, 0.5, 20)),
    "cyclical, triangular2": (
        tfs.cyclical(0.1, 0.5, epochs(0.5), "triangular2", window="hann"),
        10,
        tfs.cyclical(0.1, 0.5, 5, "triangular2", window="hann"),
    ),
    "cyclical, welch, scale_fn": (
        tfs.cyclical(0.1, 0.5, epochs(2), scale_fn=inverse_cycle, window="welch"),
        10,
        tfs.cyclical(0.1, 0.5, 20, scale_fn=inverse_cycle, window="welch"),
    ),
    "warm_restarts": (
        tfs.warm_restarts(0.1, epochs(1.5), 0.01, 1.5, 0.5),
        10,
        tfs.warm_restarts(0.1, 15, 0.01, 1.5, 0.5),
    ),
    **{
        f"one_cycle, {key}": (
            tfs.one_cycle(0.1, epochs(3), three_phase=True, anneal="linear")[key],
            33,
            tfs.one_cycle(0.1, 99, three_phase=True, anneal="linear")[key],
        )
        for key in ("learning_rate", "momentum")
    },
    "flat_cosine": (
        tfs.flat_cosine(0.1, epochs(3), pct_flat=0.7),
        11,
        tfs.flat_cosine(0.1, 33, pct_flat=0.7),
    ),
    "warmup, its length": (
        tfs.warmup(Cosine(0.1, 0, 50), epochs(0.5)),
        10,
        tfs.warmup(Cosine(0.1, 0, 50), 5),
    ),
    "warmup, its schedule": (
        tfs.warmup(tfs.cyclical(0.1, 0.5, epochs(2)), 7, start=0.01),
        10,
        tfs.warmup(tfs.cyclical(0.1, 0.5, 20), 7, start=0.01),
    ),
    "warmup, both": (
        tfs.warmup(Cosine(0.1, 0, epochs(9)), epochs(1)),
        10,
        tfs.warmup(Cosine(0.1, 0, 90), 10),
    ),
    "warmup, of a warmup": (
        tfs.warmup(tfs.warmup(Constant(0.1), epochs(1)), epochs(2), start=0.5),
        10,
        tfs.warmup(tfs.warmup(Constant(0.1), 10), 20, start=0.5),
    ),
    "warmup_stable_decay, all": (
        tfs.warmup_stable_decay(0.1, epochs(0.5), epochs(2), epochs(1), decay="1-sqrt"),
        10,
        tfs.warmup_stable_decay(0.1, 5, 20, 10, decay="1-sqrt"),
    ),
    "warmup_stable_decay, one": (
        tfs.warmup_stable_decay(0.1, 0, 20, epochs(1.5)),
        10,
        tfs.warmup_stable_decay(0.1, 0, 20, 15),
    ),
    "warmup, overlapping": (
        tfs.warmup(Cosine(0.1, 0, epochs(9)), epochs(1), overlap=True),
        10,
        tfs.warmup(Cosine(0.1, 0, 90), 10, overlap=True),
    ),
    "cyclical, both ways": (
        tfs.cyclical(0.1, 0.5, epochs(0.5), step_size_down=epochs(2)),
        10,
        tfs.cyclical(0.1, 0.5, 5, step_size_down=20),
    ),
    "polynomial_restarts": (
        tfs.polynomial_restarts(0.1, epochs(2), power=2),
        10,
        tfs.polynomial_restarts(0.1, 20, power=2),
    ),
    "swa": (
        tfs.swa(Cosine(0.1, 0, epochs(9)), epochs(6), 0.05, epochs(1)),
        10,
        tfs.swa(Cosine(0.1, 0, 90), 60, 0.05, 10),
    ),
    "growing cycles": (
        Repeat(tfs.warmup(Cosine(0.1, 0, epochs(2)), epochs(0.5)), epochs(2.5), 2),
        10,
        Repeat(tfs.warmup(Cosine(0.1, 0, 20), 5), 25, 2),
    ),
    "recipes in a join of products": (
        Join(
            [
                tfs.warmup(Constant(0.1), epochs(1)) * 0.5,
                tfs.warm_restarts(0.1, epochs(2)) * tfs.flat_cosine(1, epochs(4)) + 0.1,
            ],
            [epochs(1.5)],
        ),
        10,
        Join(
            [
                tfs.warmup(Constant(0.1), 10) * 0.5,
                tfs.warm_restarts(0.1, 20) * tfs.flat_cosine(1, 40) + 0.1,
            ],
            [15],
        ),
    ),
}


every_length = pytest.mark.parametrize("name", LENGTHS)


NAMES = {
    **{kind: value for kind, value in vars(schedules).items() if kind[0] != "_"},
    "epochs": epochs,
    "fit_share": tfs.fit_share,
    "inverse_cycle": inverse_cycle,
}


# Alone ------------------------------------------------------------------------


@every_length
def test_resolves_to_the_same_in_steps(name):
    waiting, per_epoch, in_steps = LENGTHS[name]
    assert waiting.in_epochs
    resolved = waiting.resolve(per_epoch)
    assert not resolved.in_epochs
    assert resolved == in_steps
    np.testing.assert_array_equal(resolved.values(300), in_steps.values(300))
    # What is resolved stays as it is, whatever the epoch.
    assert resolved.resolve(per_epoch) is resolved
    assert resolved.resolve(per_epoch + 1) == in_steps
    assert waiting.resolve(2 * per_epoch) != in_steps
    assert waiting.in_epochs  # nothing was changed in place


@every_length
def test_calling_what_is_not_resolved_says_so(name):
    waiting = LENGTHS[name][0]
    message = r"(?s)lengths in epochs.*schedule\.resolve\(steps_per_epoch\).*Received: "
    for use in (lambda: waiting(0), lambda: waiting.values(3), lambda: waiting.plot(3)):
        with pytest.raises(ValueError, match=message + re.escape(repr(waiting))):
            use()


@every_length
def test_round_trip_while_not_resolved(name):
    waiting, per_epoch, in_steps = LENGTHS[name]
    plain = json.loads(json.dumps(waiting.get_config()))
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(waiting)))
    text = re.sub(r"<function inverse_cycle at \w+>", "inverse_cycle", repr(waiting))
    for other in [
        type(waiting).from_config(plain),
        keras.saving.deserialize_keras_object(serialized),
        pickle.loads(pickle.dumps(waiting)),
        eval(text, NAMES),
    ]:
        assert type(other) is type(waiting)
        assert other == waiting
        assert hash(other) == hash(waiting)
        assert repr(other) == repr(waiting)
        assert other.resolve(per_epoch) == in_steps


def test_schedules_that_wait_differ():
    every = [waiting for waiting, _, _ in LENGTHS.values()]
    assert len(set(every)) == len(every)
    assert Linear(0, 1, epochs(1)) != Linear(0, 1, 1)
    assert Linear(0, 1, epochs(1)) == Linear(0, 1, epochs(1.0))
    one, other = tfs.one_cycle(0.1, epochs(3)).values()
    assert one != other
    assert tfs.cyclical(0.1, 0.5, epochs(1)) != tfs.cyclical(0.1, 0.5, epochs(2))


@pytest.mark.parametrize(
    ("count", "per_epoch", "steps"),
    [
        (0.29, 100, 29),  # 28.999999999999996 in floats
        (0.57, 100, 57),  # 56.99999999999999
        (1.1, 10, 11),
        (2.5, 3, 7),  # whole steps only
        (0.3, 3, 1),  # at least one
        (0.001, 3, 1),
        (3, 2.5, 7),  # accumulation
        (1 / 3, 3, 1),
        (2 / 3, 30, 20),
        (1e6, 1e6, 10**12),
        (epochs(3).count, 7, 21),
    ],
)
def test_whole_steps_without_rounding_errors(count, per_epoch, steps):
    assert Linear(0, 1, epochs(count)).resolve(per_epoch).steps == steps
    assert type(Linear(0, 1, epochs(count)).resolve(per_epoch).steps) is int


def test_epochs_are_shown_as_they_are_written():
    assert repr(epochs(2.5)) == "epochs(2.5)"
    assert (
        repr(Linear(0, 1, epochs(2))) == "Linear(start=0.0, end=1.0, steps=epochs(2.0))"
    )
    text = repr(tfs.one_cycle(0.1, epochs(3))["momentum"])
    assert text.startswith("one_cycle(max_lr=0.1, total_steps=epochs(3.0), ")
    assert text.endswith("['momentum']")


@pytest.mark.parametrize("count", ["1", None, True, [1], 1j, epochs(1)])
def test_epochs_of_what_is_no_number(count):
    with pytest.raises(TypeError, match=r"`count` must be a number.*Received: count="):
        epochs(count)


@pytest.mark.parametrize("count", [0, -1, float("nan"), float("inf")])
def test_epochs_out_of_range(count):
    with pytest.raises(ValueError, match=rf"`count` must be .*Received: count={count}"):
        epochs(count)


@pytest.mark.parametrize(
    ("per_epoch", "error"),
    [
        ("10", TypeError),
        (None, TypeError),
        *[(bad, ValueError) for bad in (0, -1, float("nan"), float("inf"))],
    ],
)
def test_bad_steps_per_epoch(per_epoch, error):
    for schedule in (
        Linear(0, 1, epochs(1)),
        tfs.cyclical(0, 1, epochs(1)),
        Constant(1),
    ):
        with pytest.raises(error, match="`steps_per_epoch` must be"):
            schedule.resolve(per_epoch)


def test_bad_arguments_are_found_before_the_length_is_known():
    with pytest.raises(ValueError, match="`max_lr` must be > 0"):
        tfs.warm_restarts(-0.1, epochs(1))
    with pytest.raises(ValueError, match=r"`pct_start` must be <= 0\.5"):
        tfs.one_cycle(0.1, epochs(3), pct_start=0.7, three_phase=True)
    with pytest.raises(TypeError, match=r"`schedule` must be a tfschedules\.Sch"):
        tfs.warmup(0.1, epochs(1))
    with pytest.raises(ValueError, match="`growth` must be >= 1"):
        Repeat(Linear(0, 1, epochs(1)), epochs(2), 0.5)
    with pytest.raises(ValueError, match="must increase"):
        Piecewise([epochs(2), epochs(1)], [1, 2, 3])
    with pytest.raises(TypeError, match=r"`steps` must be a number.*tfs.epochs"):
        Linear(0, 1, "3")


def test_boundaries_that_cross_are_found_when_the_length_is_known():
    crossing = Piecewise([50, epochs(1)], [1, 2, 3])
    assert crossing.resolve(60) == Piecewise([50, 60], [1, 2, 3])
    with pytest.raises(ValueError, match=r"must increase.*=\[50, 40\]"):
        crossing.resolve(40)


def test_a_recipe_around_boundaries_in_steps_and_epochs():
    # A trial with an epoch of 1000 steps finds boundaries [2000, 1000].
    inner = Piecewise([2000, epochs(1)], [1, 2, 3])
    waiting = tfs.warmup(inner, 10)
    expected = tfs.warmup(Piecewise([2000, 5000], [1, 2, 3]), 10)
    assert waiting.resolve(5000) == expected


def test_every_ramp_is_in_the_table():
    kinds = {type(waiting) for waiting, _, _ in LENGTHS.values()}
    assert {
        kind for kind in Ramp.__subclasses__() if "test" not in kind.__module__
    } <= kinds


# Through files ------------------------------------------------------------------

LOAD = """
import sys
import tfschedules
import keras
for path in sys.argv[1:]:
    model = keras.saving.load_model(path, safe_mode=True)
    config = model.optimizer.get_config()["learning_rate"]
    print(repr(keras.saving.deserialize_keras_object(config).resolve(10)))
"""


def model_with(schedule: Any) -> keras.Model:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(SGD(schedule), loss="mse")
    return model


@pytest.mark.parametrize("name", ["warm_restarts", "recipes in a join of products"])
def test_saved_in_a_model_while_not_resolved(name, tmp_path):
    waiting = LENGTHS[name][0]
    model_with(waiting).save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    config = loaded.optimizer.get_config()["learning_rate"]
    assert keras.saving.deserialize_keras_object(config) == waiting


def test_loaded_in_a_fresh_process(tmp_path):
    """Nothing but the package's lazy door is imported there."""
    names = ["join", "warmup, both", "one_cycle, learning_rate"]
    paths = [str(tmp_path / f"{i}.keras") for i in range(3)]
    for name, path in zip(names, paths, strict=True):
        model_with(LENGTHS[name][0]).save(path)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *paths],
        env=os.environ.copy(),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-1000:]
    expected = [repr(LENGTHS[name][0].resolve(10)) for name in names]
    assert done.stdout.splitlines() == expected
