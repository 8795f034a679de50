"""One row for each schedule in TensorBoard's HParams tab, as its protos have it."""

import keras
import numpy as np
import pytest
from event_files import accumulated, read, row, runs
from linear_model import LOSS, fit, linear_model
from tensorboard.plugins.hparams import metadata

import tfschedules as tfs
from tfschedules.tensorboard import EventWriter, last_step

SGD = keras.optimizers.SGD


def row_of_fit(folder, model, *callbacks, **arguments):
    fit(model, *callbacks, tfs.TensorBoardLogger(folder), epochs=1, **arguments)
    return row(folder / "schedules")


def mine(step):
    return 0.1 / (1 + step)


def test_a_ready_made_callback_is_there_with_its_arguments(tmp_path):
    expected = {
        "schedule": "OneCycle",
        "max_lr": 0.5,
        "total_steps": 20,
        "pct_start": 0.3,
        "div_factor": 25.0,
        "final_div_factor": 1e4,
        "three_phase": False,
        "anneal": "linear",
        "base_momentum": 0.85,
        "max_momentum": 0.95,
        "optimizer": "SGD",
        "steps_per_execution": 4,
    }
    model = linear_model(steps_per_execution=4)
    assert row_of_fit(tmp_path, model, tfs.OneCycle(0.5, anneal="linear")) == expected
    assert (
        metadata.SESSION_END_INFO_TAG
        in accumulated(tmp_path / "schedules").summary_metadata
    )
    assert last_step(tmp_path / "schedules") == 19


COSINE = tfs.Cosine(0.3, 0.0, 16)
SCHEDULES = {
    "fields": (
        COSINE,
        {
            "schedule": "Cosine",
            "start": 0.3,
            "end": 0.0,
            "steps": 16,
            "exponent": 1.0,
            "k_decay": 1.0,
            "max_lr": 0.3,
            "total_steps": 16,
        },
    ),
    "nested": (
        tfs.warmup(COSINE, 4),
        {
            "schedule": "Join",
            "formula": "Join(schedules=(Linear(start=0.0, end=0.3, steps=4), "
            "Cosine(start=0.3, end=0.0, steps=16)), boundaries=(4,))",
            "max_lr": 0.3,
            "total_steps": 20,
        },
    ),
    "function": (mine, {"schedule": "mine"}),
    "function in a schedule": (
        tfs.Constant(0.5) * tfs.ScaleFunction(mine),
        {
            "schedule": "Product",
            # Without its place in memory, which is another in a resumed run.
            "formula": "(Constant(value=0.5) * ScaleFunction(function=<function mine>, "
            "steps=None))",
        },
    ),
}


@pytest.mark.filterwarnings("ignore:The schedule of ")
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_of_every_kind(name, tmp_path):
    schedule, expected = SCHEDULES[name]
    found = row_of_fit(tmp_path, linear_model(), tfs.HyperparameterScheduler(schedule))
    others = {"optimizer": "SGD", "steps_per_execution": 1, "momentum": 0.9}
    assert found == {**others, **expected}


def test_rates_without_a_callback(tmp_path):
    none = row_of_fit(tmp_path / "none", linear_model(SGD(0.1, momentum=0.9)))
    assert none == {
        "schedule": "none",
        "learning_rate": 0.1,
        "momentum": 0.9,
        "optimizer": "SGD",
        "steps_per_execution": 1,
    }
    decay = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    compiled = row_of_fit(tmp_path / "keras", linear_model(SGD(decay)))
    assert compiled == {
        "schedule": "ExponentialDecay",
        "initial_learning_rate": 0.1,
        "decay_steps": 10,
        "decay_rate": 0.5,
        "staircase": False,
        "optimizer": "SGD",
        "steps_per_execution": 1,
    }

    class Mine(keras.optimizers.schedules.LearningRateSchedule):  # has no get_config
        def __call__(self, step):
            return 0.1

    assert (
        row_of_fit(tmp_path / "mine", linear_model(SGD(Mine())))["schedule"] == "Mine"
    )
    ours = row_of_fit(tmp_path / "ours", linear_model(SGD(COSINE)))
    assert ours["schedule"] == "Cosine"
    assert ours["start"] == 0.3


def test_hyperparameters_groups_epochs_and_accumulation(tmp_path):
    model = linear_model()
    adam = keras.optimizers.AdamW(0.1, weight_decay=0.01, gradient_accumulation_steps=2)
    groups = [
        tfs.LayerGroup("kernel", "kernel", tfs.Linear(0.0, 1.0, steps=5)),
        tfs.LayerGroup("bias", "bias", 0.25),
    ]
    model.compile(tfs.LayerwiseOptimizer(adam, groups), LOSS)
    found = row_of_fit(
        tmp_path,
        model,
        tfs.WarmRestarts(0.5, tfs.epochs(1)),
        tfs.HyperparameterScheduler(weight_decay=tfs.Linear(0.1, 0.2, 10)),
    )
    assert found == {
        "schedule": "WarmRestarts",
        "max_lr": 0.5,
        "first_cycle_in_epochs": 1,
        "min_lr": 0,
        "cycle_mult": 1,
        "peak_decay": 1,
        "momentum": 0.9,
        "weight_decay_schedule": "Linear(start=0.1, end=0.2, steps=10)",
        "multiplier/bias": 0.25,
        "multiplier_schedule/kernel": "Linear(start=0.0, end=1.0, steps=5)",
        "gradient_accumulation_steps": 2,
        "optimizer": "AdamW",
        "steps_per_execution": 1,
    }


@pytest.mark.filterwarnings("ignore:The schedule of ")
def test_another_schedule_in_the_same_run_has_a_row_of_its_own(tmp_path):
    model, logger = linear_model(), tfs.TensorBoardLogger(tmp_path)

    def cosine(start):
        return tfs.HyperparameterScheduler(tfs.Cosine(start, 0.0, 40))

    fit(model, cosine(0.1), logger, epochs=1)
    fit(model, cosine(0.2), logger, epochs=1)
    fit(model, cosine(0.2), logger, epochs=2)
    fit(model, cosine(0.1), logger, epochs=1)  # has its row
    fit(model, cosine(0.3), logger, epochs=1)
    run = tmp_path / "schedules"
    assert runs(tmp_path) == ["schedules"]
    assert sorted(path.name for path in run.iterdir() if path.is_dir()) == [
        "fit_2",
        "fit_3",
    ]
    whole = read(run)
    np.testing.assert_array_equal(whole["schedule/loss"][0], np.arange(120))
    # What the tab shows is the last value.
    for folder, start, steps in (
        (run, 0.1, None),
        (run / "fit_2", 0.2, [39, 59, 79]),
        (run / "fit_3", 0.3, [119]),
    ):
        assert row(folder)["start"] == start
        if steps is not None:
            tags = read(folder)
            assert set(tags) == set(whole)
            for tag, (found, values, times) in tags.items():
                np.testing.assert_array_equal(found, steps)
                np.testing.assert_array_equal(values, whole[tag][1][steps])
                np.testing.assert_allclose(
                    times, whole[tag][2][steps], rtol=0, atol=0.5
                )


def test_a_fit_without_steps_leaves_no_row(tmp_path):
    """It was a mistake; the next one begins the run, with its own row."""

    class Mistake(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            raise RuntimeError("a mistake")

    model, logger = linear_model(), tfs.TensorBoardLogger(tmp_path)
    with pytest.raises(RuntimeError, match="a mistake"):
        fit(model, tfs.OneCycle(9.0), logger, Mistake())
    fit(model, tfs.OneCycle(0.5), logger, epochs=1)
    assert runs(tmp_path) == ["schedules"]
    assert row(tmp_path / "schedules")["max_lr"] == 0.5


def test_a_model_put_back_has_a_row_in_its_new_run(tmp_path):
    class Rollback(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            path = str(tmp_path / "at_20.weights.h5")
            if epoch == 1:
                self.model.save_weights(path)
            if epoch == 2:
                self.model.load_weights(path)

    logs = tmp_path / "logs"
    fit(linear_model(), Rollback(), tfs.TensorBoardLogger(logs))
    assert row(logs / "schedules") == row(logs / "schedules_1") is not None


def test_beside_a_range_test_there_is_no_row(tmp_path):
    fit(linear_model(), tfs.RangeTest(steps=20), tfs.TensorBoardLogger(tmp_path))
    assert row(tmp_path / "range_test") is None


# Without Keras. --------------------------------------------------------------------


def test_numbers_that_json_lacks_are_left_out_and_others_refused(tmp_path):
    settings = {"a": 1, "b": 0.5, "c": True, "d": "<b>ä</b>", "e": np.nan, "f": -np.inf}
    with EventWriter(tmp_path) as writer:
        writer.session_start(settings)
        with pytest.raises(TypeError, match=r"`settings` must hold .*g=None"):
            writer.session_start({"g": None})
    assert row(tmp_path) == {"a": 1, "b": 0.5, "c": True, "d": "<b>ä</b>"}
    assert type(row(tmp_path)["c"]) is bool


def test_a_row_is_no_step(tmp_path):
    with EventWriter(tmp_path) as writer:
        writer.session_start({"max_lr": 0.1, "learning_rate": 0.1})
        writer.session_end()
    assert last_step(tmp_path) is None


def test_what_other_callbacks_make_of_the_rate_is_no_other_row(tmp_path):
    model, logger = linear_model(SGD(0.1)), tfs.TensorBoardLogger(tmp_path)
    for rate in (0.1, 0.05):
        model.optimizer.learning_rate = rate
        fit(model, logger, epochs=1)
    assert runs(tmp_path) == ["schedules"]
    assert not [path for path in (tmp_path / "schedules").iterdir() if path.is_dir()]
    assert row(tmp_path / "schedules")["learning_rate"] == 0.1
