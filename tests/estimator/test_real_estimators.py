"""Hooks in real Estimators, where TensorFlow has them."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from event_files import read, runs
from helpers import ROOT
from sessions import (
    COUNT,
    FIRST,
    SCHEDULE,
    SIZE,
    X,
    Y,
    batch,
    dataset,
    estimator,
    momentum,
    oracle,
    recorded,
    regression,
    saved,
    tf,
    v1,
)

import tfschedules as tfs
from tfschedules.estimator import (
    RangeTestHook,
    ScheduleHook,
    TensorBoardHook,
    learning_rate,
)

pytestmark = [
    pytest.mark.tensorflow,
    # What TensorFlow's own modules of that age do.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorflow"),
]


# ---------------------------------------------------------------------- real Estimators


def input_fn(first_step=0):
    """Starts where training does: an Estimator's input begins anew with each train."""
    return lambda: dataset(first_step).map(lambda x, y: ({"x": x}, y))


def evaluation_fn():
    return tf.data.Dataset.from_tensor_slices(({"x": X}, Y)).batch(COUNT)


def momentum_model_fn(features, labels, mode):
    """The rate is made with the model, metrics of evaluation as well."""
    w, loss = regression(features["x"], labels)
    prediction = tf.linalg.matvec(features["x"], w)
    error = v1.metrics.mean_absolute_error(labels, prediction)
    rate = learning_rate(SCHEDULE)
    optimizer = v1.train.MomentumOptimizer(rate, 0.9)
    return tf.estimator.EstimatorSpec(
        mode,
        loss=loss,
        train_op=optimizer.minimize(loss, v1.train.get_global_step()),
        eval_metric_ops={"mae": error},
    )


def keras_model_fn(features, labels, mode):
    """A Keras 3 model, its loss not in any collection, TensorFlow's optimizer."""
    first = keras.initializers.Constant(FIRST.reshape(3, 1))
    dense = keras.layers.Dense(1, use_bias=False, kernel_initializer=first, name="w")
    model = keras.Sequential([keras.Input((3,)), dense], name="net")
    return _trained_by_momentum(model, features, labels, mode)


def noisy_model_fn(features, labels, mode):
    """A Keras 3 model with statistics and random numbers of its own."""
    # Keras's Dropout numbers its seeds, and no second graph has the same numbers.
    seeds = keras.random.SeedGenerator(3, name="seeds")

    class Noise(keras.layers.Layer):
        def call(self, x, training=False):
            return keras.random.dropout(x, 0.5, seed=seeds) if training else x

    layers = [
        keras.layers.Dense(4, name="dense"),
        keras.layers.BatchNormalization(name="norm"),
        Noise(name="noise"),
        keras.layers.Dense(1, name="head"),
    ]
    model = keras.Sequential([keras.Input((3,)), *layers], name="net")
    return _trained_by_momentum(model, features, labels, mode)


def _trained_by_momentum(model, features, labels, mode):
    training = mode == tf.estimator.ModeKeys.TRAIN
    # A function, so that statistics and seeds are updated where it is run.
    prediction = tf.function(model)(features["x"], training=training)
    loss = tf.reduce_mean(tf.square(prediction[:, 0] - labels))
    optimizer = v1.train.MomentumOptimizer(learning_rate(SCHEDULE), 0.9)
    variables = [variable.value for variable in model.trainable_variables]
    op = optimizer.minimize(loss, v1.train.get_global_step(), variables)
    return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=op)


def plain_model_fn(features, labels, mode):
    """Knows nothing of us: its rate is a number, its loss has a part that decays."""
    w, _ = regression(features["x"], labels)
    v1.losses.add_loss(tf.reduce_sum(w * w) * 0.0)
    total = v1.losses.get_total_loss()
    op = momentum().minimize(total, v1.train.get_global_step())
    return tf.estimator.EstimatorSpec(mode, loss=total, train_op=op)


MODELS = {
    "momentum": (momentum_model_fn, "w"),
    "Keras": (keras_model_fn, None),
    "plain": (plain_model_fn, "w"),
}


def made(model_fn, folder, **options):
    config = tf.estimator.RunConfig(str(folder), tf_random_seed=1, **options)
    return tf.estimator.Estimator(model_fn, config=config)


def weights_of(trained, name=None):
    names = trained.get_variable_names()
    name = name or next(n for n in names if n.endswith("kernel"))
    return trained.get_variable_value(name).ravel()


@estimator
@pytest.mark.parametrize("model", MODELS)
def test_an_estimator_follows_the_schedule_before_and_after_a_resume(model, tmp_path):
    model_fn, name = MODELS[model]
    for first, steps in ((0, 7), (7, 8)):
        hooks = [TensorBoardHook(tmp_path)]
        hooks += [ScheduleHook(SCHEDULE)] if model == "plain" else []
        trained = made(model_fn, tmp_path)  # as in a new process
        trained.train(input_fn(first), hooks, steps)
    losses, weights = oracle(SCHEDULE.values(15))
    np.testing.assert_allclose(weights_of(trained, name), weights[-1], rtol=2e-5)
    steps, rates, seen = recorded(tmp_path / "schedules")
    np.testing.assert_array_equal(steps, np.arange(15))
    np.testing.assert_array_equal(rates, SCHEDULE.values(15).astype("float32"))
    np.testing.assert_allclose(seen, losses, rtol=2e-5)


@estimator
def test_train_and_evaluate_with_metrics_and_summaries_in_model_dir(tmp_path):
    trained = made(
        momentum_model_fn, tmp_path, save_summary_steps=1, save_checkpoints_steps=6
    )

    def bias(labels, features):
        return {"first": v1.metrics.mean(labels - features["x"][:, 0])}

    trained = tf.estimator.add_metrics(trained, bias)
    found, _ = tf.estimator.train_and_evaluate(
        trained,
        tf.estimator.TrainSpec(input_fn(), 12, [TensorBoardHook(tmp_path)]),
        tf.estimator.EvalSpec(evaluation_fn, throttle_secs=0),
    )
    losses, weights = oracle(SCHEDULE.values(12))
    w = weights[-1]
    assert found["global_step"] == 12
    assert found["loss"] == pytest.approx(((X @ w - Y) ** 2).mean(), rel=1e-4)
    assert found["mae"] == pytest.approx(np.abs(X @ w - Y).mean(), rel=1e-4)
    assert found["first"] == pytest.approx((Y - X[:, 0]).mean(), rel=1e-4)
    # What one `tensorboard --logdir model_dir` shows: the Estimator's run, and ours.
    steps, rates, seen = recorded(tmp_path / "schedules")
    np.testing.assert_array_equal(steps, np.arange(12))
    np.testing.assert_array_equal(rates, SCHEDULE.values(12).astype("float32"))
    np.testing.assert_allclose(seen, losses, rtol=2e-5)
    own = read(tmp_path)
    assert {"schedule/learning_rate", "loss"} <= own.keys()
    np.testing.assert_array_equal(
        np.unique(own["schedule/learning_rate"][1].astype("float32")),
        np.unique(SCHEDULE.values(12).astype("float32")),
    )


@estimator
@pytest.mark.parametrize("kind", ["v1, learning_rate", "v1", "Adagrad", "SGD", "Adam"])
def test_a_canned_estimator_trains_at_the_schedule(kind, tmp_path):
    columns = [tf.feature_column.numeric_column("x", (3,))]
    config = tf.estimator.RunConfig(str(tmp_path), tf_random_seed=1)
    if kind.startswith("v1"):

        def optimizer():
            rate = learning_rate(SCHEDULE) if "," in kind else 7.0
            return v1.train.MomentumOptimizer(rate, 0.9)

        made = v1.estimator.DNNClassifier
    else:
        optimizer, made = kind, tf.estimator.DNNClassifier
    hooks = [TensorBoardHook(tmp_path)]
    hooks += [] if "," in kind else [ScheduleHook(SCHEDULE)]

    def classes():
        return dataset().map(lambda x, y: ({"x": x}, tf.cast(y > 0, tf.int32)))

    for _ in range(2):
        classifier = made([4], columns, optimizer=optimizer, config=config)
        classifier.train(classes, hooks, 6)
    steps, rates, losses = recorded(tmp_path / "schedules")
    np.testing.assert_array_equal(steps, np.arange(12))
    np.testing.assert_array_equal(rates, SCHEDULE.values(12).astype("float32"))
    summed = SIZE if kind.startswith("v1") else 1  # what the older ones reduce with
    assert losses[0] / summed == pytest.approx(np.log(2), abs=0.4)  # not twice
    assert classifier.evaluate(classes, 8)["global_step"] == 12


@estimator
def test_a_canned_estimators_weights_move_with_the_schedules_rate(tmp_path):
    """A softmax regression without hidden units, so that NumPy can follow it."""
    columns = [tf.feature_column.numeric_column("x", (3,))]
    config = tf.estimator.RunConfig(str(tmp_path), tf_random_seed=1)
    classifier = tf.estimator.LinearClassifier(
        columns, optimizer="SGD", config=config, loss_reduction="sum_over_batch_size"
    )

    def classes():
        return dataset().map(lambda x, y: ({"x": x}, tf.cast(y > 0, tf.int32)))

    classifier.train(classes, [ScheduleHook(SCHEDULE)], 10)
    w, b = np.zeros(3), 0.0
    for step, rate in enumerate(SCHEDULE.values(10)):
        x, y = batch(step)
        error = 1 / (1 + np.exp(-(x @ w + b))) - (y > 0)
        w, b = w - rate * x.T @ error / SIZE, b - rate * error.mean()
    found = classifier.get_variable_value("linear/linear_model/x/weights").ravel()
    np.testing.assert_allclose(found, w, rtol=1e-4)


@estimator
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("high", [10.0, 1e19])
def test_a_range_test_of_an_estimator_leaves_its_checkpoint(model, high, tmp_path):
    model_fn, name = MODELS[model]
    options = {"save_checkpoints_steps": 1, "save_summary_steps": 1}
    made(model_fn, tmp_path, **options).train(input_fn(), steps=2)
    trained = made(model_fn, tmp_path, **options)
    names = trained.get_variable_names()
    before = {n: trained.get_variable_value(n) for n in names}
    # Alone, and with a NaN that would make the Estimator raise.
    test = RangeTestHook(1e-4, high, 60, stop_factor=4.0 if high == 10 else None)
    trained.train(input_fn(), [TensorBoardHook(tmp_path / "logs"), test], 50)
    assert test.result.stop_reason in ("diverged", "non-finite loss")
    if model == "plain":  # begins with no speed; the others' is in the checkpoint
        assert len(test.result.losses) > 5
    assert trained.latest_checkpoint().endswith("model.ckpt-2")
    for variable in names:
        found = trained.get_variable_value(variable)
        np.testing.assert_array_equal(found, before[variable])
    assert runs(tmp_path / "logs") == ["range_test"]
    # Training goes on where it was.
    trained.train(input_fn(2), [ScheduleHook(SCHEDULE)], 3)
    if model != "plain":
        _, weights = oracle(SCHEDULE.values(5))
        np.testing.assert_allclose(weights_of(trained, name), weights[-1], rtol=2e-5)


@estimator
def test_a_range_test_of_a_new_estimator_leaves_its_initial_weights(tmp_path):
    losses, _ = oracle(np.geomspace(1e-4, 10.0, 60))
    test = RangeTestHook(1e-4, 10.0, 60)
    trained = made(momentum_model_fn, tmp_path)
    trained.train(input_fn(), [test], max_steps=10)
    count = len(test.result.losses)
    assert test.result.stop_reason == "diverged"
    np.testing.assert_allclose(test.result.losses, losses[:count], rtol=1e-3)
    assert saved(tmp_path).keys() == {0}
    np.testing.assert_array_equal(saved(tmp_path)[0], FIRST)
    trained.train(input_fn(), max_steps=10)
    _, weights = oracle(SCHEDULE.values(10))
    np.testing.assert_allclose(weights_of(trained, "w"), weights[-1], rtol=2e-5)


@estimator
def test_a_range_test_of_a_warm_start_leaves_the_weights_it_starts_with(tmp_path):
    first = made(momentum_model_fn, tmp_path / "first")
    first.train(input_fn(), steps=2)
    second = tf.estimator.Estimator(
        momentum_model_fn, tmp_path / "second", warm_start_from=str(tmp_path / "first")
    )
    test = RangeTestHook(1e-4, 1e-2, 6)
    second.train(input_fn(), [test], steps=1)
    assert len(test.result.losses) == 6
    np.testing.assert_array_equal(weights_of(second, "w"), weights_of(first, "w"))


@estimator
@pytest.mark.parametrize(
    "hook",
    [
        lambda folder: ScheduleHook(SCHEDULE),
        lambda folder: RangeTestHook(),
        TensorBoardHook,
    ],
    ids=["ScheduleHook", "RangeTestHook", "TensorBoardHook"],
)
@pytest.mark.filterwarnings("ignore:To make it possible to preserve tf.data options")
def test_strategies_are_refused(hook, tmp_path):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    distributed = made(momentum_model_fn, tmp_path, train_distribute=strategy)
    with pytest.raises(ValueError, match=r"without a `tf\.distribute` strategy"):
        distributed.train(input_fn(), [hook(tmp_path)], steps=1)


@estimator
def test_statistics_and_seeds_of_a_keras_model_are_put_back_as_well(tmp_path):
    def variables():
        names = trained.get_variable_names()
        return {name: trained.get_variable_value(name) for name in names}

    trained = made(noisy_model_fn, tmp_path)
    trained.train(input_fn(), steps=1)
    first = variables()
    trained.train(input_fn(1), [ScheduleHook(SCHEDULE)], 2)
    second = variables()
    moved = {name for name in first if (first[name] != second[name]).any()}
    assert moved == first.keys()  # the statistics and the seeds as well
    assert any("moving_mean" in name for name in moved)
    assert any("seeds" in name for name in moved)
    test = RangeTestHook(1e-5, 1.0, 10)
    trained.train(input_fn(3), [test], 5)
    assert len(test.result.losses) > 3
    for name, value in variables().items():
        np.testing.assert_array_equal(value, second[name])
    assert trained.evaluate(evaluation_fn)["global_step"] == 3


@estimator
@pytest.mark.slow
def test_rates_follow_the_step_that_a_cluster_shares(tmp_path):
    """A parameter server, a chief and a worker, each a process on loopback."""
    script = ROOT / "examples" / "estimator_parameter_server.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("not the schedule's: 0\n") == 2
    schedule = tfs.warm_restarts(0.05, first_cycle=40, min_lr=1e-3)
    counts = []
    for run in ("schedules", "schedules_1"):
        steps, rates, _ = recorded(tmp_path / run)
        np.testing.assert_array_equal(rates, schedule.values(steps).astype("float32"))
        counts.append(len(steps))
    assert min(counts) > 20  # each has trained
    assert 600 <= sum(counts) <= 602  # and every step was one of theirs
