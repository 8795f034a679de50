"""Which run a training goes on in: that of its own, whatever its count of steps."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import keras
import killed_fits
import numpy as np
import pytest
from event_files import read, row, runs
from helpers import (
    BACKEND,
    SUPPORT,
    Interrupt,
    in_batches,
    one_cycle_values,
    softmax_regression,
)
from resumed_runs import (
    LOSS,
    RATE,
    SGD,
    X,
    Y,
    fit,
    model_at,
    rates,
    recorded,
    saved,
    steps,
)

import tfschedules as tfs
from tfschedules.tensorboard import Journal, run_files


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Any:
    """To call where a process ends: the next one knows no run of before.

    A process that is killed notes nothing any more.
    """
    monkeypatch.setattr(Journal, "leave", lambda *_: None)

    def forget() -> None:
        gc.collect()
        run_files._runs.clear()

    return forget


# Inside of one process. -----------------------------------------------------------


def test_each_model_goes_on_in_its_own_run(tmp_path: Path) -> None:
    """Whose last step is the lower one makes no difference."""
    first, second = model_at(0.1), model_at(0.002)
    fit(first, tmp_path)
    fit(second, tmp_path, epochs=3)
    fit(second, tmp_path)
    fit(first, tmp_path, epochs=2)
    fit(second, tmp_path)
    assert rates(tmp_path) == {
        "schedules": {0.1: steps(18)},
        "schedules_1": {0.002: steps(30)},
    }


def test_a_run_goes_on_where_training_without_a_logger_came_in_between(
    tmp_path: Path,
) -> None:
    model = model_at(0.1)
    fit(model, tmp_path)
    fit(model_at(0.2), tmp_path)
    model.fit(X, Y, batch_size=8, verbose=0)
    gap = r"goes on in '.*/schedules' with step 12\. The last step there is 5, and no"
    with pytest.warns(UserWarning, match=gap):
        fit(model, tmp_path)
    assert rates(tmp_path)["schedules"] == {0.1: [*steps(6), *steps(12, 18)]}


def test_weights_of_another_training_go_on_in_the_run_of_the_model_with_a_warning(
    tmp_path: Path,
) -> None:
    """With the optimizer's state; known by another run they go on in that."""
    logs, paths = tmp_path / "logs", []
    for folder, rate in (("elsewhere", 0.2), ("logs", 0.3)):
        other = model_at(rate)
        fit(other, tmp_path / folder, epochs=3)
        paths.append(tmp_path / f"{folder}.weights.h5")
        other.save_weights(paths[-1])
    model = model_at(0.1)
    fit(model, logs)
    model.load_weights(paths[0])
    model.optimizer.learning_rate = 0.1
    with pytest.warns(UserWarning, match="another training's, .* another log_dir"):
        fit(model, logs)
    model.load_weights(paths[1])
    model.optimizer.learning_rate = 0.1
    fit(model, logs)
    assert rates(logs) == {
        "schedules": {0.3: steps(18), 0.1: steps(18, 24)},
        "schedules_1": {0.1: [*steps(6), *steps(18, 24)]},
    }


def test_a_copy_of_a_model_goes_on_in_the_run_once(tmp_path: Path) -> None:
    """The first that goes on has the run; the other has branched off."""
    model = model_at(0.1)
    fit(model, tmp_path / "logs")
    model.save(tmp_path / "m.keras")
    copies = [keras.saving.load_model(tmp_path / "m.keras") for _ in range(2)]
    for rate, copy in zip((0.2, 0.3), copies, strict=True):
        copy.optimizer.learning_rate = rate
        fit(copy, tmp_path / "logs")
    fit(model, tmp_path / "logs")
    fit(copies[0], tmp_path / "logs")
    assert rates(tmp_path / "logs") == {
        "schedules": {0.1: steps(6), 0.2: steps(6, 18)},
        "schedules_1": {0.3: steps(6, 12)},
        "schedules_2": {0.1: steps(6, 12)},
    }


def test_logs_that_are_removed_begin_anew(tmp_path: Path) -> None:
    model, logs = model_at(0.1), tmp_path / "logs"
    fit(model, logs)
    shutil.rmtree(logs)
    fit(model_at(0.3), logs)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "TensorBoardLogger")
        shutil.rmtree(logs)
        fit(model, logs)
    assert rates(logs) == {"schedules": {0.1: steps(6, 12)}}


def test_logs_that_are_removed_and_begun_by_another_model(tmp_path: Path) -> None:
    """Whose run has the same name, and a journal of the same length."""
    first, second, logs = model_at(0.1), model_at(0.3), tmp_path / "logs"
    journal = logs / "schedules" / "tfschedules.run"
    fit(first, logs)
    size = journal.stat().st_size
    shutil.rmtree(logs)
    fit(second, logs)
    assert journal.stat().st_size == size
    with pytest.warns(UserWarning, match="new run with step 6, .*schedules_1'"):
        fit(first, logs)
    fit(second, logs)
    assert rates(logs) == {
        "schedules": {0.3: steps(12)},
        "schedules_1": {0.1: steps(6, 12)},
    }


def test_a_fit_that_is_interrupted_and_begun_by_another_model(tmp_path: Path) -> None:
    """As in a notebook: the files of the first are still open."""

    def callbacks() -> list[Any]:
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        return [tfs.OneCycle(0.5, total_steps=24), backup]

    first = model_at(0.1)
    with pytest.raises(KeyboardInterrupt, match="by the test"):
        fit(first, tmp_path / "logs", *callbacks(), Interrupt(15), epochs=4)
    fit(model_at(0.1), tmp_path / "logs", *callbacks(), epochs=4)
    (values,) = recorded(tmp_path / "logs").values()
    expected = one_cycle_values(0.5, 24)[0]
    assert [*values] == steps(24)
    np.testing.assert_allclose([*values.values()], expected, rtol=1e-6)


def test_two_loggers_give_everything_back_in_the_order_in_which_they_end(
    tmp_path: Path,
) -> None:
    model = model_at(0.1)
    fit(model, tmp_path, tfs.TensorBoardLogger(tmp_path))
    assert "_get_metrics_result_or_logs" not in vars(model)
    assert "get_state_tree" not in vars(model)
    assert "save_own_variables" not in vars(model.optimizer)
    fit(model, tmp_path, tfs.TensorBoardLogger(tmp_path))
    expected = {0.1: steps(12)}
    assert rates(tmp_path) == {"schedules": expected, "schedules_1": expected}


@pytest.mark.skipif(BACKEND == "jax", reason="what a callback assigns there is lost")
@pytest.mark.parametrize("when", ["on_train_batch_begin", "on_train_batch_end"])
@pytest.mark.parametrize("block", [1] if BACKEND == "torch" else [1, 4])
def test_a_save_within_an_epoch_misplaces_no_rate(
    tmp_path: Path, when: str, block: int
) -> None:
    """The records are written up to the save, and go on with the next step."""

    class Save(keras.callbacks.Callback):
        def save(self, batch: int, logs: Any = None) -> None:
            if batch in (1, 2, 3, 5):
                self.model.save_weights(tmp_path / "m.weights.h5")

    class Assign(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            made = int(self.model.optimizer.iterations)
            self.model.optimizer.learning_rate = 0.001 * (made + 1)

    setattr(Save, when, Save.save)
    model = model_at(0.1)
    model.compile(model.optimizer, model.loss, steps_per_execution=block)
    fit(model, tmp_path / "logs", Assign(), Save(), epochs=2)
    (values,) = recorded(tmp_path / "logs").values()
    first = np.array([(i // block) * block if i < 6 else i for i in range(6)])
    expected = 0.001 * (np.concatenate([first, first + 6]) + 1)
    np.testing.assert_allclose([*values.values()], expected, rtol=1e-6)


# From one process to the next. ----------------------------------------------------


def test_loaded_models_go_on_in_the_runs_that_they_are_from(
    tmp_path: Path, elsewhere: Any
) -> None:
    """All at the same count."""
    logs, paths = tmp_path / "logs", []
    for number, rate in enumerate((0.1, 0.2, 0.3)):
        model = model_at(rate)
        fit(model, logs)
        paths.append(saved(model, tmp_path / f"{number}.keras"))
    elsewhere()
    for path in (paths[1], paths[2], paths[0]):
        fit(keras.saving.load_model(path), logs)
    assert rates(logs) == {
        "schedules": {0.1: steps(12)},
        "schedules_1": {0.2: steps(12)},
        "schedules_2": {0.3: steps(12)},
    }


def test_trainings_that_are_equal_go_on_in_a_run_of_their_steps(
    tmp_path: Path, elsewhere: Any
) -> None:
    """The second was in the state of the first, and has gone on since."""
    logs = tmp_path / "logs"
    first = model_at(0.1)
    fit(first, logs)
    path = saved(first, tmp_path / "m.keras")
    fit(model_at(0.1), logs, epochs=3)
    elsewhere()
    fit(keras.saving.load_model(path), logs)
    assert {run: [*found] for run, found in recorded(logs).items()} == {
        "schedules": steps(12),
        "schedules_1": steps(18),
    }


def test_a_branch_from_an_old_checkpoint_is_a_new_run(
    tmp_path: Path, elsewhere: Any
) -> None:
    logs = tmp_path / "logs"
    checkpoint = keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch}.keras"))
    fit(model_at(0.1), logs, checkpoint, epochs=3)
    elsewhere()
    model = keras.saving.load_model(tmp_path / "1.keras")
    model.optimizer.learning_rate = 0.2
    fit(model, logs, epochs=2)
    assert rates(logs) == {
        "schedules": {0.1: steps(18)},
        "schedules_1": {0.2: steps(6, 18)},
    }


def test_a_branch_that_is_killed_undoes_nothing_of_the_fit_before(
    tmp_path: Path, elsewhere: Any
) -> None:
    """The run was ended, went on, and was killed: what was ended stays."""
    logs = tmp_path / "logs"
    checkpoint = keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch}.keras"))
    model = model_at(0.1)
    fit(model, logs, checkpoint, epochs=2)
    with pytest.raises(KeyboardInterrupt, match="by the test"):
        fit(model, logs, Interrupt(3))
    del model
    elsewhere()
    model = keras.saving.load_model(tmp_path / "1.keras")
    model.optimizer.learning_rate = 0.2
    fit(model, logs)
    found = rates(logs)
    assert found["schedules"][0.1][:12] == steps(12)
    assert found["schedules_1"] == {0.2: steps(6, 12)}
    # The end of the first fit is where the second, which was killed, had begun.
    with pytest.warns(UserWarning, match=r"steps from 12 to 14 are hidden"):
        fit(keras.saving.load_model(tmp_path / "2.keras"), logs)
    assert rates(logs)["schedules"] == {0.1: steps(18)}


def test_an_undone_state_is_known_no_more(tmp_path: Path, elsewhere: Any) -> None:
    """A checkpoint of steps that were undone does not go on in the run."""
    logs = tmp_path / "logs"
    checkpoint = keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch}.keras"))
    model = model_at(0.1)
    with pytest.raises(KeyboardInterrupt, match="by the test"):
        fit(model, logs, checkpoint, Interrupt(14), epochs=3)
    del model
    elsewhere()
    model = keras.saving.load_model(tmp_path / "1.keras")
    model.optimizer.learning_rate = 0.2
    with pytest.warns(UserWarning, match=r"logs/schedules'.* steps from 6 to 13 are"):
        fit(model, logs)
    elsewhere()
    with pytest.warns(UserWarning, match=r"hidden in '.*logs/schedules', where a fit"):
        fit(keras.saving.load_model(tmp_path / "2.keras"), logs)
    assert rates(logs) == {
        "schedules": {0.1: steps(6), 0.2: steps(6, 12)},
        "schedules_1": {0.1: steps(12, 18)},
    }


@pytest.mark.parametrize("how", ["another folder", "an earlier version"])
def test_a_state_that_no_run_knows_is_a_new_run_and_told(
    tmp_path: Path, how: str, elsewhere: Any
) -> None:
    model, logs = model_at(0.2), tmp_path / "logs"
    fit(model, tmp_path / "other" if how == "another folder" else logs)
    path = saved(model, tmp_path / "m.keras")
    if how == "an earlier version":
        (logs / "schedules" / "tfschedules.run").unlink()
    else:
        fit(model_at(0.1), logs)
    elsewhere()
    with pytest.warns(UserWarning, match="new run with step 6, .*schedules_1'"):
        fit(keras.saving.load_model(path), logs)
    assert rates(logs)["schedules_1"] == {0.2: steps(6, 12)}
    assert [*recorded(logs)["schedules"]] == steps(6)


def test_rows_of_undone_fits_show_what_is_left(tmp_path: Path, elsewhere: Any) -> None:
    def cosine(start: float) -> Any:
        return tfs.HyperparameterScheduler(tfs.Cosine(start, 0.0, 60))

    logs, path = tmp_path / "logs", str(tmp_path / "{epoch}.keras")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The schedule of ")
        model = model_at(0.1)
        checkpoint = keras.callbacks.ModelCheckpoint(path)
        with pytest.raises(KeyboardInterrupt, match="by the test"):
            fit(model, logs, cosine(0.1), checkpoint, Interrupt(8), epochs=2)
        fit(model, logs, cosine(0.2), checkpoint, epochs=2)  # has a row: fit_2
        del model
        elsewhere()
        # The last fit came to its end. So that it did not:
        journal = logs / "schedules" / "tfschedules.run"
        lines = journal.read_text().splitlines(keepends=True)
        assert lines[-1].startswith("end ")
        journal.write_text("".join(lines[:-1]))
        model = keras.saving.load_model(path.format(epoch=1))
        with pytest.warns(UserWarning, match=r"steps from 14 to 19 are hidden"):
            fit(model, logs, cosine(0.2), initial_epoch=1, epochs=2)
    run = logs / "schedules"
    assert runs(logs) == ["schedules"]
    assert [*recorded(logs)["schedules"]] == steps(20)
    assert row(run)["start"] == 0.1
    assert row(run / "fit_2")["start"] == 0.2
    assert [*read(run / "fit_2")[RATE][0]] == [13, 19]


# Killed. --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of all cases; on JAX, which compiles for long, of half of them."""
    if not hasattr(os, "fork"):
        pytest.skip("there is no fork")
    folder = tmp_path_factory.mktemp("killed")
    here = SUPPORT
    paths = [str(here.parent), str(here), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, str(here / "killed_fits.py"), str(folder), *CASES],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "new run" not in done.stderr
    return folder


CASES = [*killed_fits.KILLS][:: 2 if BACKEND == "jax" else 1]
if BACKEND == "torch":
    CASES = []


def loop_of(count: int) -> tuple[list[float], list[float]]:
    """The oracle: rates and losses of as many steps that nobody disturbs, in NumPy."""
    all_rates, momenta = one_cycle_values(0.5, 24)
    positions = np.minimum(np.arange(count), 23)
    model = softmax_regression(SGD(0.1, momentum=0.9))
    kernel, bias = (np.array(w, np.float64) for w in model.get_weights())
    speed, speeds, losses = np.zeros_like(kernel), np.zeros_like(bias), []
    batches = in_batches(X, Y, 8)
    for i, at in enumerate(positions):
        x, y = batches[i % len(batches)]
        logits = x @ kernel + bias
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        losses.append(float(-np.log(p[np.arange(8), y]).mean()))
        p[np.arange(8), y] -= 1
        rate, momentum = all_rates[at], momenta[at]
        speed = momentum * speed - rate * x.T @ p / 8
        speeds = momentum * speeds - rate * p.mean(axis=0)
        kernel, bias = kernel + speed, bias + speeds
    return [float(all_rates[at]) for at in positions], losses


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_training_that_is_killed_twice_is_one_run(case: str, killed: Path) -> None:
    logs = killed / case / "logs"
    assert runs(logs) == ["schedules"]
    shown = recorded(logs)["schedules"]
    count = len(shown)
    assert [*shown] == steps(count)
    assert count == 24 if case in ("a backup at every epoch", "weights") else 24 < count
    expected, losses = loop_of(count)
    np.testing.assert_allclose([*shown.values()], expected, rtol=1e-6)
    if count == 24:  # else Keras has begun an epoch anew, with other batches
        found = recorded(logs, LOSS)["schedules"].values()
        np.testing.assert_allclose([*found], losses, rtol=2e-4)


def loaders(folder: Path) -> dict[str, dict[int, float]]:
    """What each of TensorBoard's loaders has of the run in a log directory."""
    from tensorboard.backend.event_processing import (
        data_provider,
        plugin_event_multiplexer,
    )
    from tensorboard.context import RequestContext
    from tensorboard.data import server_ingester
    from tensorboard.util import grpc_util

    everything = plugin_event_multiplexer.EventMultiplexer(
        size_guidance={"tensors": 0}, tensor_size_guidance={"scalars": 0}
    )
    everything.AddRunsFromDirectory(str(folder)).Reload()
    rust = server_ingester.SubprocessServerDataIngester(
        server_binary=server_ingester.get_server_binary(),
        logdir=str(folder),
        reload_interval=0,
        channel_creds_type=grpc_util.ChannelCredsType.LOCAL,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves the process be
        rust.start()
    found = {}
    for name, provider in {
        "slow": data_provider.MultiplexerDataProvider(everything, str(folder)),
        "fast": rust.data_provider,
    }.items():
        data = provider.read_scalars(
            RequestContext(),
            experiment_id="",
            plugin_name="scalars",
            downsample=10_000,
        )["schedules"][RATE]
        assert len({datum.step for datum in data}) == len(data)
        found[name] = {datum.step: datum.value for datum in data}
    rust._stdin_handle.close()  # that ends it
    return found


@pytest.mark.parametrize("case", CASES)
def test_tensorboards_loaders_hide_what_was_undone(case: str, killed: Path) -> None:
    """The Schedules tab has its data from them."""
    logs = killed / case / "logs"
    shown = recorded(logs)["schedules"]
    for found in loaders(logs).values():
        assert found == shown
