"""Snapshots: whose weights are kept, and what a kill leaves."""

from __future__ import annotations

import functools
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    ROOT,
    SUPPORT,
    Interrupt,
    arrays,
    patches,
    softmax_regression,
)
from snapshot_networks import X, Y, fit, identical, kept, network, optimizers, restarts

import tfschedules as tfs


class Captured(keras.callbacks.Callback):
    """The oracle: copies weights by update, in a fit with single steps."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: dict[int, list[np.ndarray]] = {}
        self.first: int | None = None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        made = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        if made not in self.weights:  # skipped and accumulating batches made none
            self.weights[made] = everything(self.model)


def everything(model: keras.Model) -> list[np.ndarray]:
    """Weights and optimizer state; Keras does not load seed generators' states."""
    variables = [*model.weights, *model.optimizer.variables]
    return [np.array(keras.ops.convert_to_numpy(v.value)) for v in variables]


def dense(**compile_arguments: Any) -> keras.Model:
    """The smallest: no Dropout either, whose generator's state Keras does not load."""
    return softmax_regression(optimizers.SGD(0.1, momentum=0.9), **compile_arguments)


def names(directory: Path) -> list[str]:
    """All but the small hidden file that says whose they are."""
    return sorted({path.name for path in directory.iterdir()} - {".tfschedules"})


def steps_kept(directory: Path) -> list[tuple[int, int]]:
    """(cycle, step) by name; nothing else may lie in the directory."""
    pairs = [name.removesuffix(".keras").split("_") for name in names(directory)]
    assert all(pair[0::2] == ["cycle", "step"] for pair in pairs)
    return sorted((int(pair[1]), int(pair[3])) for pair in pairs)


@functools.cache
def every_third() -> tuple[dict[int, list[np.ndarray]], list[np.ndarray]]:
    """By update, and at the end: the weights of a plain fit with cycles of three."""
    oracle = Captured()
    plain = fit(network(), restarts(first_cycle=3), oracle)
    return oracle.weights, everything(plain)


@pytest.mark.parametrize(
    ("steps_per_execution", "order"),
    [
        (1, "schedule first"),
        (4, "snapshots first"),
        (5, "schedule first"),
        (32, "schedule first"),
    ],
)
def test_the_weights_are_those_right_after_the_cycles_last_update(
    tmp_path: Path, steps_per_execution: int, order: str
) -> None:
    """Ends at 3, 6 … 18: inside, at the end of, and several to a block."""
    weights, last = every_third()
    model = network(steps_per_execution=steps_per_execution)
    callbacks = [restarts(first_cycle=3), tfs.SnapshotEnsemble(tmp_path)]
    fit(model, *(callbacks if order == "schedule first" else callbacks[::-1]))
    assert steps_kept(tmp_path) == [(i, 3 * i) for i in range(1, 7)]
    for step, snapshot in kept(tmp_path).items():
        identical(everything(snapshot), weights[step])
    identical(everything(model), last)
    assert patches(model) == []
    assert "_make_function" not in vars(model)


@pytest.mark.parametrize(("steps_per_execution", "shuffle"), [(1, False), (4, True)])
def test_training_is_the_same_to_the_bit_without_it(
    tmp_path: Path, steps_per_execution: int, shuffle: bool
) -> None:
    def trained(*callbacks: Any) -> tuple[list[np.ndarray], Any, float]:
        model = network(steps_per_execution=steps_per_execution, metrics=["accuracy"])
        fit(
            model,
            restarts(first_cycle=5),
            *callbacks,
            shuffle=shuffle,
            validation_data=(X[:16], Y[:16]),
        )
        return everything(model), model.history.history, random.random()

    weights, history, number = trained(tfs.SnapshotEnsemble(tmp_path))
    without, history_without, number_without = trained()
    assert steps_kept(tmp_path) == [(1, 5), (2, 10), (3, 15)]
    identical(weights, without)
    assert history == history_without
    assert number == number_without


def test_compiled_by_xla(tmp_path: Path) -> None:
    oracle = Captured()
    fit(network(jit_compile=True), restarts(), oracle, epochs=1)
    model = network(jit_compile=True, steps_per_execution=5)
    fit(model, restarts(), tfs.SnapshotEnsemble(tmp_path), epochs=1)
    assert steps_kept(tmp_path) == [(1, 4)]
    for step, snapshot in kept(tmp_path).items():
        identical(everything(snapshot), oracle.weights[step])


def test_run_eagerly(tmp_path: Path) -> None:
    oracle = Captured()
    arguments = {"run_eagerly": True, "jit_compile": False}
    fit(dense(**arguments), restarts(), oracle, epochs=1)
    model = dense(**arguments, steps_per_execution=3)
    fit(model, restarts(), tfs.SnapshotEnsemble(tmp_path), epochs=1)
    (snapshot,) = kept(tmp_path).values()
    identical(everything(snapshot), oracle.weights[4])


@pytest.mark.parametrize("steps_per_execution", [4])
def test_with_gradient_accumulation_a_step_is_an_update(
    tmp_path: Path, steps_per_execution: int
) -> None:
    def optimizer() -> Any:
        return optimizers.Adam(0.1, gradient_accumulation_steps=3)

    oracle = Captured()
    fit(network(optimizer()), restarts(first_cycle=2), oracle)
    model = network(optimizer(), steps_per_execution=steps_per_execution)
    fit(model, restarts(first_cycle=2), tfs.SnapshotEnsemble(tmp_path))
    assert steps_kept(tmp_path) == [(1, 2), (2, 4), (3, 6)]
    for step, snapshot in kept(tmp_path).items():
        identical(everything(snapshot), oracle.weights[step])


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_a_step_that_a_loss_scale_skips_is_no_update(
    tmp_path: Path, steps_per_execution: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second batch of each epoch has no finite gradients: 15 updates of 18."""

    def scaled_fit(callback: Any, **arguments: Any) -> None:
        scaled = optimizers.LossScaleOptimizer(optimizers.SGD(0.1))
        model = softmax_regression(scaled, **arguments)
        x = X.copy()
        x[9] = np.nan
        common = {"batch_size": 8, "epochs": 3, "verbose": 0, "shuffle": False}
        model.fit(x, Y, **common, callbacks=[restarts(), callback])

    oracle = Captured()
    scaled_fit(oracle)
    written, save = [], keras.Model.save
    monkeypatch.setattr(
        keras.Model,
        "save",
        lambda model, path: (written.append(path), save(model, path)),
    )
    scaled_fit(tfs.SnapshotEnsemble(tmp_path), steps_per_execution=steps_per_execution)
    assert steps_kept(tmp_path) == [(1, 4), (2, 8), (3, 12)]
    for step, snapshot in kept(tmp_path).items():
        identical(arrays(snapshot), oracle.weights[step][:2])
    assert len(written) == 3  # none too early, and then again


def test_mixed_precision(tmp_path: Path) -> None:
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        oracle = Captured()
        fit(network(), restarts(), oracle, epochs=2)
        model = network(steps_per_execution=5)
        assert isinstance(model.optimizer, optimizers.LossScaleOptimizer)
        fit(model, restarts(), tfs.SnapshotEnsemble(tmp_path), epochs=2)
        assert len(kept(tmp_path)) >= 2
        for step, snapshot in kept(tmp_path).items():
            identical(
                snapshot.get_weights(), oracle.weights[step][: len(snapshot.weights)]
            )
    finally:
        keras.mixed_precision.set_dtype_policy("float32")


def test_a_schedule_that_the_optimizer_was_compiled_with(tmp_path: Path) -> None:
    """Its position is the optimizer's count, so that a second fit goes on."""
    schedule = tfs.warm_restarts(0.2, first_cycle=4, cycle_mult=2)
    model = network(optimizers.SGD(schedule), steps_per_execution=6)
    callback = tfs.SnapshotEnsemble(tmp_path)
    fit(model, callback)
    assert steps_kept(tmp_path) == [(1, 4), (2, 12)]
    fit(model, callback)
    assert steps_kept(tmp_path) == [(1, 4), (2, 12), (3, 28)]


def test_lengths_in_epochs_after_a_warm_up(tmp_path: Path) -> None:
    schedule = tfs.warmup(tfs.warm_restarts(0.2, tfs.epochs(1)), tfs.epochs(0.5))
    model = dense(steps_per_execution=4)
    callback = tfs.HyperparameterScheduler(schedule)
    fit(model, callback, tfs.SnapshotEnsemble(tmp_path))
    assert steps_kept(tmp_path) == [(1, 9), (2, 15)]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_data_of_unknown_length(tmp_path: Path) -> None:
    """Blocks are cut short at the data's end, which is not known before."""

    def batches() -> Any:
        for i in range(0, 48, 8):
            yield X[i : i + 8], Y[i : i + 8]

    oracle = Captured()
    fit(dense(), restarts(first_cycle=3), oracle, epochs=1)
    model = dense(steps_per_execution=4)
    model.fit(
        batches(),
        verbose=0,
        shuffle=False,
        callbacks=[restarts(first_cycle=3), tfs.SnapshotEnsemble(tmp_path)],
    )
    assert steps_kept(tmp_path) == [(1, 3), (2, 6)]
    for step, snapshot in kept(tmp_path).items():
        identical(everything(snapshot), oracle.weights[step])


def test_max_to_keep_and_two_at_once(tmp_path: Path) -> None:
    model = dense(steps_per_execution=4)
    last = tfs.SnapshotEnsemble(tmp_path / "last", max_to_keep=2)
    every = tfs.SnapshotEnsemble(tmp_path / "every")
    fit(model, restarts(first_cycle=3), last, every)
    assert steps_kept(tmp_path / "last") == [(5, 15), (6, 18)]
    assert steps_kept(tmp_path / "every") == [(i, 3 * i) for i in range(1, 7)]
    assert "_make_function" not in vars(model)


@pytest.mark.tensorflow
def test_a_mirrored_model(tmp_path: Path) -> None:
    import tensorflow as tf

    oracle = Captured()
    fit(network(), restarts(), oracle, epochs=1)
    # With the collective ops of CPUs blocks of steps fail, or go wrong: docs/where.md.
    one_device = tf.distribute.ReductionToOneDevice()
    with tf.distribute.MirroredStrategy(["CPU:0"], one_device).scope():
        model = network(steps_per_execution=6)
    fit(model, restarts(), tfs.SnapshotEnsemble(tmp_path), epochs=1)
    (snapshot,) = kept(tmp_path).values()
    for value, expected in zip(everything(snapshot), oracle.weights[4], strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-7)


# Position, one fit after another, and interruptions.


# With 4 and blocks of 2 Keras saves at the epoch's end, and as if within the epoch.
@pytest.mark.parametrize(
    ("save_freq", "steps_per_execution"), [("epoch", 2), (4, 1), (3, 2)]
)
def test_a_resumed_fit_goes_on_in_the_directory(
    tmp_path: Path, save_freq: Any, steps_per_execution: int
) -> None:
    """Interrupted at 11, in the second epoch; backed up at 6 or 8."""
    folder = tmp_path / "snapshots"

    def callbacks() -> list[Any]:
        return [
            restarts(first_cycle=5),
            tfs.SnapshotEnsemble(folder),
            keras.callbacks.BackupAndRestore(str(tmp_path / "b"), save_freq=save_freq),
            keras.callbacks.ModelCheckpoint(str(tmp_path / "last.keras")),
        ]

    def model() -> keras.Model:
        return dense(steps_per_execution=steps_per_execution)

    interrupt = Interrupt(11 // steps_per_execution)
    with pytest.raises(KeyboardInterrupt, match="by the test"):
        fit(model(), *callbacks(), interrupt, epochs=4)
    assert steps_kept(folder) == [(1, 5), (2, 10)]
    fit(model(), *callbacks(), epochs=4)
    # Keras begins the interrupted epoch anew, on top of the updates made.
    expected = [(1, 5), (2, 10), (3, 15), (4, 20)]
    assert steps_kept(folder) == expected + ([(5, 25)] if save_freq != "epoch" else [])


def test_a_loaded_model_goes_on_to_the_bit(tmp_path: Path) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "folder"
    fit(dense(), restarts(first_cycle=5), tfs.SnapshotEnsemble(whole))
    path = str(tmp_path / "model.keras")
    fit(dense(), restarts(first_cycle=5), tfs.SnapshotEnsemble(folder), epochs=2)
    keras.saving.save_model(fit(dense(), restarts(first_cycle=5), epochs=1), path)
    # From the end of the first epoch: the second cycle's end is made again.
    loaded = keras.saving.load_model(path)
    fit(loaded, restarts(first_cycle=5), tfs.SnapshotEnsemble(folder), initial_epoch=1)
    assert steps_kept(folder) == [(1, 5), (2, 10), (3, 15)]
    resumed = kept(folder)
    for step, model in kept(whole).items():
        identical(everything(resumed[step]), everything(model))


def test_a_second_fit_wants_a_directory_of_its_own(tmp_path: Path) -> None:
    model, callback = dense(), tfs.SnapshotEnsemble(tmp_path / "one")
    fit(model, restarts(first_cycle=6), callback)
    before, files = arrays(model), names(tmp_path / "one")
    with pytest.raises(
        ValueError, match=r"snapshots of another run.*and 2 more.*overw"
    ):
        fit(model, restarts(first_cycle=6), callback)
    assert names(tmp_path / "one") == files
    identical(arrays(model), before)
    assert "_make_function" not in vars(model)
    fit(model, restarts(first_cycle=6), tfs.SnapshotEnsemble(tmp_path / "two"))
    assert patches(model) == []
    assert names(tmp_path / "two") == files
    (tmp_path / "one" / "notes.txt").write_text("mine")
    over = tfs.SnapshotEnsemble(tmp_path / "one", overwrite=True)
    fit(model, restarts(first_cycle=9), over)
    (tmp_path / "one" / "notes.txt").unlink()
    assert steps_kept(tmp_path / "one") == [(1, 9), (2, 18)]


def test_refuses_to_go_on_with_another_schedule(tmp_path: Path) -> None:
    fit(dense(), restarts(first_cycle=4), tfs.SnapshotEnsemble(tmp_path))
    with pytest.raises(ValueError, match=r"no cycle 1 of this one ends at step 4"):
        fit(
            dense(),
            restarts(first_cycle=6, start_step=20),
            tfs.SnapshotEnsemble(tmp_path, overwrite=True),
        )
    assert steps_kept(tmp_path) == [(1, 4), (2, 8), (3, 12), (4, 16)]


def test_an_interrupted_fit_gives_the_model_back(tmp_path: Path) -> None:
    model = dense(steps_per_execution=4)
    with pytest.raises(KeyboardInterrupt, match="by the test"):
        fit(model, restarts(), tfs.SnapshotEnsemble(tmp_path / "one"), Interrupt(2))
    kept_before = names(tmp_path / "one")
    fit(model, epochs=1)
    assert patches(model) == []
    assert "_make_function" not in vars(model)
    assert names(tmp_path / "one") == kept_before
    fit(model, restarts(), tfs.SnapshotEnsemble(tmp_path / "two"))
    assert steps_kept(tmp_path / "two") == [(1, 4), (2, 8), (3, 12), (4, 16)]


def test_a_disk_that_is_full_for_a_while_costs_those_snapshots_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cycles end at 4, 8, 12 and 16; the disk is full from the second to the third."""
    oracle = Captured()
    fit(dense(), restarts(), oracle)
    model = dense(steps_per_execution=4)
    calls, save = [], keras.Model.save

    def full(self: Any, path: str, **arguments: Any) -> None:
        calls.append(path)
        if len(calls) in (1, 4):
            return save(self, path, **arguments)
        Path(path).write_bytes(b"half")
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return None  # h5py may say nothing at all

    kept_at: list[list[tuple[int, int]]] = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            kept_at.append(steps_kept(tmp_path))

    monkeypatch.setattr(keras.Model, "save", full)
    snapshots = tfs.SnapshotEnsemble(tmp_path, max_to_keep=1)
    with pytest.warns(UserWarning, match="could not keep the snapshot") as warned:
        fit(model, restarts(), snapshots, Look())
    messages = [str(each.message) for each in warned]
    messages = [each for each in messages if each.startswith("SnapshotEnsemble")]
    assert len(messages) == 2
    assert "step_000000008.keras: [Errno 28] No space left on device" in messages[0]
    assert "step_000000012.keras: ValueError" in messages[1]
    # The only good one stays until there is another whole one.
    assert {tuple(found) for found in kept_at} == {((1, 4),), ((4, 16),)}
    identical(arrays(model), oracle.weights[18][:2])
    (snapshot,) = kept(tmp_path).values()
    identical(everything(snapshot), oracle.weights[16])


CHILD = """
    import os, sys
    sys.path[:0] = {paths!r}
    import conftest
    import test_snapshots as t, tfschedules as tfs
    model = t.dense(steps_per_execution=3)
    print("begun", flush=True)
    snapshots = tfs.SnapshotEnsemble({folder!r})
    t.fit(model, t.restarts(first_cycle=1), snapshots, epochs=500)
"""


PATHS = [SUPPORT, ROOT / "tests", ROOT / "tests" / "callbacks"]


@pytest.mark.slow
def test_a_killed_process_leaves_whole_files_only(tmp_path: Path) -> None:
    """Killed at any moment while it does little but write."""
    generator = np.random.default_rng(0)
    seen = 0
    for attempt in range(2):
        folder = tmp_path / str(attempt)
        code = CHILD.format(paths=[str(path) for path in PATHS], folder=str(folder))
        child = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
            env=os.environ | {"KERAS_BACKEND": BACKEND},
            stdout=subprocess.PIPE,
        )
        try:
            assert child.stdout is not None
            assert b"begun" in child.stdout.readline()
            limit = time.monotonic() + 60
            while not (folder.is_dir() and len(list(folder.glob("*.keras"))) >= 5):
                assert child.poll() is None
                assert time.monotonic() < limit
                time.sleep(0.005)
            time.sleep(generator.uniform(0, 0.1))
        finally:
            child.send_signal(signal.SIGKILL)
            child.communicate()
        files = sorted(folder.glob("*.keras"))
        for file in files:
            with zipfile.ZipFile(file) as archive:
                assert archive.testzip() is None
        seen += len(files)
        assert len(tfs.SnapshotEnsemble.load(folder, last=1)) == 1
        assert {*names(folder)} - {f.name for f in files} <= {".partial"}
        (folder / ".partial").mkdir(exist_ok=True)
        (folder / ".partial" / "cycle_9999_step_000009999.keras").write_bytes(b"half")
        over = tfs.SnapshotEnsemble(folder, overwrite=True)
        fit(softmax_regression(optimizers.SGD(0.1)), restarts(), over, epochs=1)
        assert steps_kept(folder) == [(1, 4)]
    assert seen >= 10
