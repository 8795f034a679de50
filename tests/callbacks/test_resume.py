"""Going on where a run has ended: after a kill, from a checkpoint, by hand.

The children of `benchmarks/kill_and_resume.py` are killed with SIGKILL; this is a few
of its rounds.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers import (
    ROOT,
    arrays,
    in_batches,
    one_cycle_values,
    relative_error,
    sgd_loop,
    softmax_regression,
)
from slope_fits import BATCHES, SLOPE, X, Y, fit, interrupted_fit, same, slope

import tfschedules as tfs
from benchmarks import kill_and_resume

SGD, Adam = keras.optimizers.SGD, keras.optimizers.Adam
pytestmark = pytest.mark.filterwarnings("ignore:The schedule of ")

KILLS = {  # at which steps of a run, one run after another
    "one_cycle": [17],
    "restarts, momentum, epochs": [30],
    "one_cycle, mid-epoch": [21],
}


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Any]]:
    """The undisturbed run of each case, and its killed and resumed ones."""
    whole, broken = (
        {case: str(tmp_path_factory.mktemp(kind)) for case in KILLS}
        for kind in ("whole", "killed")
    )

    def kill(case: str) -> Any:
        return [
            kill_and_resume.run(case, broken[case], at, 0.001) for at in KILLS[case]
        ]

    with ThreadPoolExecutor(2) as pool:
        wholes = pool.submit(to_the_end, whole)
        killed = dict(zip(KILLS, pool.map(kill, KILLS), strict=True))
        resumed = to_the_end(broken)
        return {
            case: (wholes.result()[case], [*killed[case], resumed[case]])
            for case in KILLS
        }


CHILDREN = """
import sys
sys.path.insert(0, sys.argv[1])
from benchmarks.kill_and_resume import child
for case, folder in zip(sys.argv[2::2], sys.argv[3::2]):
    child(case, folder)
"""


def to_the_end(folders: dict[str, str]) -> dict[str, Any]:
    """Runs that nobody kills: all in one process, one after another."""
    arguments = [word for pair in folders.items() for word in pair]
    done = subprocess.run(
        [sys.executable, "-c", CHILDREN, str(ROOT), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    lines = iter(done.stdout.splitlines())
    runs = {}
    for case in folders:
        run = runs[case] = kill_and_resume.Run([], None, done.stderr)
        for first, second in map(str.split, lines):
            if first == "weights":
                run.weights = second
                break
            run.steps.append((int(first), second))
    return runs


@pytest.mark.slow
@pytest.mark.parametrize("case", KILLS)
def test_a_killed_run_is_resumed_as_if_it_had_not_been(case: str, killed: Any) -> None:
    whole, runs = killed[case]
    assert all(one.weights is None for one in runs[:-1]), "it was to be killed"
    assert kill_and_resume.verdict(case, runs, whole)[0] == ""
    # It did go on: the first count of the last run is not 1.
    assert runs[-1].steps[0][0] > 1
    counts, rates = zip(*runs[-1].steps, strict=True)
    values = [float.fromhex(rate) for rate in rates]
    if case.startswith("one_cycle"):
        expected = one_cycle_values(0.1, 48)[0]
        positions = np.minimum(np.array(counts) - 1, 47)  # then its last value
        same(np.array(values), expected[positions])


def test_the_script_sees_what_is_wrong() -> None:
    run, verdict = kill_and_resume.Run, kill_and_resume.verdict
    steps = [(count, (0.1 * count).hex()) for count in range(1, 49)]
    whole = run(steps, "a", "")

    def first(killed: list[Any], resumed: list[Any], weights: Any = "a") -> str:
        runs = [run(killed, None, ""), run(resumed, weights, "")]
        return verdict("one_cycle", runs, whole)[0]

    assert first(steps[:20], steps[12:]) == ""
    assert "weights differ" in first(steps[:20], steps[12:], "b")
    assert "did not finish" in first(steps[:20], steps[12:], None)
    other = [(count, (0.1 * (count - 12)).hex()) for count, _ in steps]
    assert "run 1, count 13: rate" in first(steps[:20], other[12:])
    assert "jumps" in first(steps[:20], [*steps[12:20], *steps[22:]])
    assert "begins after" in first(steps[:20], steps[30:])
    assert "49 updates" in first(steps[:20], [*steps[12:], (49, "0x1p0")])


# In this process: Keras's backups inside an epoch, at all their moments. ---------


def backup_and(callback: Any, folder: Path, save_freq: Any) -> list[Any]:
    backup = keras.callbacks.BackupAndRestore(str(folder / "b"), save_freq=save_freq)
    return [callback, backup]


def momentum_model() -> keras.Model:
    return softmax_regression(SGD(0.1, momentum=0.9))


@pytest.mark.parametrize(
    ("save_freq", "interrupted", "resumed"),
    [(3, 8, 6), (4, 14, 12), (2, 13, 12), (6, 8, 6), (5, 7, 5)],
)
def test_a_backup_at_any_step_of_an_epoch(
    tmp_path: Path, save_freq: int, interrupted: int, resumed: int
) -> None:
    """Also at the last one of an epoch, which Keras counts to that epoch."""
    scheduler = tfs.HyperparameterScheduler
    callbacks = backup_and(scheduler(SLOPE), tmp_path, save_freq)
    interrupted_fit(momentum_model(), interrupted, *callbacks, epochs=4)
    callbacks = backup_and(scheduler(SLOPE), tmp_path, save_freq)
    rates = fit(momentum_model(), *callbacks, epochs=4)
    same(rates[:4], slope(resumed, resumed + 4))


def test_two_interruptions_inside_one_epoch(tmp_path: Path) -> None:
    """Keras begins the first epoch three times; the count goes on."""
    done = 0
    for _ in range(2):
        callbacks = backup_and(tfs.HyperparameterScheduler(SLOPE), tmp_path, 4)
        rates = interrupted_fit(momentum_model(), 5, *callbacks, epochs=2)
        same(rates, slope(done, done + 4))
        done += 4
    callbacks = backup_and(tfs.HyperparameterScheduler(SLOPE), tmp_path, 4)
    same(fit(momentum_model(), *callbacks, epochs=2), slope(8, 20))


# Checkpoints. --------------------------------------------------------------------


@pytest.mark.parametrize("epoch", [1, 2])
def test_checkpoint_load_and_initial_epoch(tmp_path: Path, epoch: int) -> None:
    """To the bit, with momentum, restarts and lengths in epochs."""

    def callback() -> Any:
        return tfs.HyperparameterScheduler(
            tfs.warm_restarts(0.5, tfs.epochs(1.5), 0.01),
            beta_1=tfs.Linear(0.95, 0.5, tfs.epochs(3)),
        )

    def model() -> keras.Model:
        return softmax_regression(Adam(0.01))

    path = str(tmp_path / "{epoch}.keras")
    whole = model()
    checkpoint = keras.callbacks.ModelCheckpoint(path)
    rates = fit(whole, callback(), checkpoint, epochs=3)
    same(rates, tfs.warm_restarts(0.5, 9, 0.01).values(18))

    loaded = keras.saving.load_model(path.format(epoch=epoch))
    assert int(loaded.optimizer.iterations) == 6 * epoch
    again = fit(loaded, callback(), initial_epoch=epoch, epochs=3)
    np.testing.assert_array_equal(again, rates[6 * epoch :])
    for value, expected in zip(arrays(loaded), arrays(whole), strict=True):
        np.testing.assert_array_equal(value, expected)


def test_loaded_by_hand_with_start_step(tmp_path: Path) -> None:
    """Weights and optimizer from a file, at step 9 of 18: in the middle of an epoch."""
    batches = BATCHES * 3
    rates, momenta = one_cycle_values(0.5, 18)
    path = str(tmp_path / "at.weights.h5")

    class Save(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if int(self.model.optimizer.iterations) == 9:
                self.model.save_weights(path)

    whole = momentum_model()
    fit(whole, tfs.OneCycle(0.5, total_steps=18), Save(), epochs=3)

    model = momentum_model()
    model.load_weights(path)
    rest = batches[9:]
    x, y = (np.concatenate(column) for column in zip(*rest, strict=True))
    callback = tfs.OneCycle(0.5, total_steps=18, start_step=9)
    same(fit(model, callback, x=x, y=y, batch_size=8), rates[9:])
    for value, expected in zip(arrays(model), arrays(whole), strict=True):
        np.testing.assert_array_equal(value, expected)
    assert relative_error(arrays(model), sgd_loop(batches, rates, momenta)) < 1e-6
    assert len(in_batches(x, y, 8)) == 9


# Models in files. -----------------------------------------------------------------

LOAD = """
import sys
{first}
import keras
import numpy as np
for path in sys.argv[1:]:
    model = keras.saving.load_model(path, safe_mode=True)
    slots = [keras.ops.convert_to_numpy(v) for v in model.optimizer.variables[2:]]
    line = [
        int(model.optimizer.iterations),
        getattr(model.optimizer, "beta_1", None),
        len(slots),
        float(sum(np.abs(slot).sum() for slot in slots)),
    ]
    for _ in range(3):
        model.train_on_batch(np.ones((1, 64)), np.ones((1,)))
        rate = model.optimizer.learning_rate
        line.append(float(keras.ops.convert_to_numpy(rate)).hex())
    print(*line)
"""


def load_elsewhere(first: str, *paths: Path) -> list[list[str]]:
    """Of each model: count, `beta_1`, slots, the sum of their sizes; and three rates.

    Keras only warns of optimizer state that it skips: warnings are errors there.
    """
    code = LOAD.format(first=first)
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code, *map(str, paths)],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr[-1500:]
    return [line.split() for line in done.stdout.splitlines()]


def test_a_model_saved_while_driven_needs_nothing_of_this_package(
    tmp_path: Path,
) -> None:
    class Slots(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 3:  # with the checkpoint
                slots = self.model.optimizer.variables[2:]
                values = [keras.ops.convert_to_numpy(slot) for slot in slots]
                sizes.append((len(slots), sum(np.abs(v).sum() for v in values)))

    paths: list[Path] = []
    sizes: list[tuple[int, float]] = []
    for name, make, callback in [
        ("sgd", lambda: SGD(0.1, momentum=0.9), tfs.OneCycle(0.5)),
        (
            "adam",
            lambda: Adam(0.1),
            tfs.HyperparameterScheduler(
                tfs.warm_restarts(0.5, tfs.epochs(1)), beta_1=tfs.Linear(0.95, 0.8, 6)
            ),
        ),
        (
            "ema",
            lambda: SGD(0.1, use_ema=True, clipnorm=1.0),
            tfs.HyperparameterScheduler(
                SLOPE, ema_momentum=tfs.Constant(0.5), clipnorm=tfs.Constant(0.1)
            ),
        ),
    ]:
        paths.append(tmp_path / f"{name}.keras")
        checkpoint = keras.callbacks.ModelCheckpoint(str(paths[-1]), save_freq=4)
        fit(softmax_regression(make()), callback, checkpoint, Slots())
    first = 'sys.modules["tfschedules"] = None  # importing it raises'
    expected = [
        one_cycle_values(0.5, 6)[0][3],
        tfs.warm_restarts(0.5, 6).values(4)[3],
        slope(3, 4)[0],
    ]
    found = load_elsewhere(first, *paths)
    assert [line[0] for line in found] == ["4", "4", "4"]
    # What is driven beside the rate has the value it was compiled with.
    assert [line[1] for line in found] == ["None", "0.9", "None"]
    for line, rate, (count, size) in zip(found, expected, sizes, strict=True):
        assert int(line[2]) == count > 0
        assert float(line[3]) == pytest.approx(size, rel=1e-5)
        # A plain optimizer stays at the rate it was saved with.
        same(np.array([float.fromhex(text) for text in line[4:]]), [rate] * 3)


COMPILED = {
    "constant": tfs.Constant(0.1),
    "polynomial": tfs.Polynomial(0.1, 0.01, 7, 2),
    "inverse sqrt": tfs.InverseSqrt(0.1, 5),
    "piecewise": tfs.Piecewise([4, 5], [0.1, 0.2, 0.3]),
    "cyclical": tfs.cyclical(0.1, 0.5, 3, "triangular2", window="welch"),
    "warm_restarts": tfs.warm_restarts(0.1, 5, 0.01, 1.5, 0.5),
    "one_cycle": tfs.one_cycle(0.1, 9, three_phase=True)["learning_rate"],
    "flat_cosine": tfs.flat_cosine(0.1, 8),
    "warmup": tfs.warmup(tfs.Cosine(0.1, 0.01, 5) * 0.5, 4),
    "warmup_stable_decay": tfs.warmup_stable_decay(0.1, 2, 2, 4, decay="1-sqrt"),
    "clipped": (tfs.Linear(0.1, 0.3, 9) + 0.01).clip(0.15, 0.2),
}


def save_compiled(folder: Path, names: list[str]) -> list[Path]:
    """Each with three updates made; eager, as is what loads them: no step is traced."""
    paths = []
    for i, name in enumerate(names):
        optimizer = SGD(COMPILED[name])
        model = softmax_regression(optimizer, run_eagerly=True, jit_compile=False)
        fit(model, x=X[:24], y=Y[:24], batch_size=8)
        paths.append(folder / f"{i}.keras")
        model.save(paths[-1])
    return paths


@pytest.mark.parametrize(
    "first",
    [
        "import tfschedules",
        "import tfschedules; tfschedules.Schedule",
        "import tfschedules.schedules",
    ],
)
def test_a_model_compiled_with_a_schedule_goes_on(first: str, tmp_path: Path) -> None:
    # All of them behind the lazy door; where its rooms have been entered already, a
    # shape, a recipe and an expression.
    names = ["polynomial", "warm_restarts", "clipped"]
    if first == "import tfschedules":
        names = list(COMPILED)
    found = load_elsewhere(first, *save_compiled(tmp_path, names))
    assert [line[0] for line in found] == ["3"] * len(names)
    for line, name in zip(found, names, strict=True):
        rates = [float.fromhex(text) for text in line[4:]]
        # What Keras shows is the rate of the next update.
        expected = COMPILED[name].values([4, 5, 6])
        np.testing.assert_allclose(rates, expected, rtol=2e-6, err_msg=name)


def test_a_model_compiled_with_a_schedule_goes_on_in_fit(tmp_path: Path) -> None:
    """The rates are used, not only shown."""
    schedule = COMPILED["warm_restarts"]
    model = softmax_regression(SGD(schedule))
    fit(model)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras", safe_mode=True)
    fit(loaded)
    expected = sgd_loop(BATCHES * 2, schedule.values(12))
    assert relative_error(arrays(loaded), expected) < 1e-6
