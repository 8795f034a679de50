"""Hooks in sessions and in real Estimators, beside NumPy loops of the same training."""

import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

# Canned Estimators are made of legacy Keras; read when tf.keras is first used.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

tf = pytest.importorskip("tensorflow", reason="needs TensorFlow")

from registry import SCHEDULES, exact, moments_of  # noqa: E402
from test_logger import read, runs  # noqa: E402

import tfschedules as tfs  # noqa: E402
from tfschedules.estimator import (  # noqa: E402
    RangeTestHook,
    ScheduleHook,
    TensorBoardHook,
    learning_rate,
    recording,
)

v1 = tf.compat.v1

# `.ci/run estimator` asks for these, so that there a missing tf.estimator is an error.
HAS_ESTIMATOR = hasattr(tf, "estimator") and hasattr(tf.estimator, "Estimator")
estimator = pytest.mark.skipif(
    not HAS_ESTIMATOR and "TFSCHEDULES_NEEDS_ESTIMATOR" not in os.environ,
    reason="needs tf.estimator, which TensorFlow has up to 2.15",
)
pytestmark = [
    pytest.mark.tensorflow,
    # What TensorFlow's own modules of that age do.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorflow"),
]

COUNT, SIZE = 64, 8
_generator = np.random.default_rng(1)
X = _generator.normal(size=(COUNT, 3)).astype("float32")
Y = (X @ [1.0, -2.0, 0.5] + 0.1 * _generator.normal(size=COUNT)).astype("float32")
FIRST = np.array([0.3, 0.1, -0.2], "float32")
# Wraps around within the tests, and has values that float32 must round.
SCHEDULE = tfs.cyclical(0.003, 0.05, step_size=3, window="hann")


@pytest.fixture(autouse=True)
def quiet():
    level = v1.logging.get_verbosity()
    v1.logging.set_verbosity(v1.logging.ERROR)
    yield
    v1.logging.set_verbosity(level)


def dataset(first_step=0):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(SIZE)
    return data.repeat().skip(first_step)


def next_batch(first_step=0):
    return v1.data.make_one_shot_iterator(dataset(first_step)).get_next()


def fed_batch():
    return v1.placeholder("float32", (SIZE, 3)), v1.placeholder("float32", SIZE)


def feed(data, step):
    return dict(zip(data, batch(step), strict=True))


def batch(step):
    at = step * SIZE % COUNT
    return X[at : at + SIZE].astype("float64"), Y[at : at + SIZE].astype("float64")


def oracle(rates, kind="momentum", first_step=0, weights=FIRST):
    """Losses of each step and the weights after it, of plain NumPy in float64."""
    w, speed, square = np.array(weights, "float64"), np.zeros(3), np.zeros(3)
    losses, course = [], []
    for step, rate in enumerate(rates):
        x, y = batch(first_step + step)
        error = x @ w - y
        losses.append((error**2).mean())
        gradient = 2 * x.T @ error / SIZE
        if kind == "momentum":
            speed = 0.9 * speed + gradient
            w = w - rate * speed
        elif kind == "velocity":  # Keras's momentum has the rate inside
            speed = 0.9 * speed - rate * gradient
            w = w + speed
        elif kind == "plain":
            w = w - rate * gradient
        elif kind == "adagrad":
            square = square + gradient**2
            w = w - rate * gradient / np.sqrt(0.1 + square)
        else:
            speed = 0.9 * speed + 0.1 * gradient
            square = 0.999 * square + 0.001 * gradient**2
            unbiased = np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
            w = w - rate * unbiased * speed / (np.sqrt(square) + 1e-8)
        course.append(w)
    return np.array(losses), np.array(course)


def regression(features, labels):
    """Weights and their loss, which is in the collection of losses."""
    w = v1.get_variable("w", initializer=FIRST)
    return w, v1.losses.mean_squared_error(labels, tf.linalg.matvec(features, w))


def minimized(optimizer, loss, w):
    """The training op of an optimizer of TensorFlow or of Keras."""
    step = v1.train.get_or_create_global_step()
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        return optimizer.minimize(loss, step)
    optimizer.build([w])

    @tf.function  # Keras counts on it to keep reads and assignments in order
    def update(gradient):
        optimizer.apply([gradient], [w])
        return tf.zeros(())

    with tf.control_dependencies([update(*tf.gradients(loss, [w.value]))]):
        return tf.group(step.assign_add(1))


def training_op(make_optimizer, features, labels):
    optimizer = make_optimizer()
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        return minimized(optimizer, regression(features, labels)[1], None)
    w = keras.Variable(FIRST, name="w")
    prediction = tf.linalg.matvec(features, w.value)
    return minimized(optimizer, v1.losses.mean_squared_error(labels, prediction), w)


def train(make_optimizer, hooks, steps, first_step=0, **session):
    """Train in a session until `steps`, or until a hook stops it."""
    with tf.Graph().as_default():
        op = training_op(make_optimizer, *next_batch(first_step))
        hooks = [*hooks, v1.train.StopAtStepHook(last_step=steps)]
        options = {"log_step_count_steps": None} | session
        with v1.train.MonitoredTrainingSession(hooks=hooks, **options) as monitored:
            while not monitored.should_stop():
                monitored.run(op)


class Watch(v1.train.SessionRunHook):
    """Reads weights and count after each run, from outside of all that is tested."""

    def __init__(self):
        self.weights, self.steps = [], []

    def begin(self):
        self.variables = v1.global_variables()
        (self.w,) = [v for v in self.variables if v.name == "w:0"]
        self.step = v1.train.get_global_step()

    def after_create_session(self, session, coord):
        self.at_begin = session.run(self.variables)

    def after_run(self, context, values):
        w, step = context.session.run([self.w, self.step])
        self.weights.append(w)
        self.steps.append(int(step))

    def end(self, session):
        self.at_end = session.run(self.variables)


def momentum():
    return v1.train.MomentumOptimizer(7.0, 0.9)


def recorded(folder):
    tags = read(folder)
    steps, rates, _ = tags["schedule/learning_rate"]
    np.testing.assert_array_equal(steps, tags["schedule/loss"][0])
    return steps, rates.astype("float32"), tags["schedule/loss"][1]


def saved(folder):
    """Every checkpoint that is there: from its step to its weights."""
    paths = v1.train.get_checkpoint_state(str(folder)).all_model_checkpoint_paths
    readers = [tf.train.load_checkpoint(path) for path in paths]
    return {int(r.get_tensor("global_step")): r.get_tensor("w") for r in readers}


# ------------------------------------------------------------------ the rate in a graph


def test_every_schedule_is_its_values_in_float32_at_any_age():
    # Of what is composed alike, some; all of it in the environment of its own.
    alike = (
        "warmup_stable_decay",
        "one_cycle",
        "flat_cosine",
        "polynomial",
        "join, of",
    )
    cases = {
        name: case
        for name, case in SCHEDULES.items()
        if HAS_ESTIMATOR or not name.startswith(alike)
    }
    assert len(cases) > 60
    with tf.Graph().as_default(), v1.Session() as session:
        step = v1.placeholder(tf.int64, ())
        rates = {n: learning_rate(case.schedule, step) for n, case in cases.items()}
        moments = set().union(*(moments_of(case) for case in cases.values()))
        for moment in sorted(moments):
            found = session.run(rates, {step: moment})
            for name, case in cases.items():
                (value,) = case.schedule.values([moment]).astype("float32")
                if (
                    abs(value) < np.finfo("float32").tiny
                ):  # TensorFlow has no smaller ones
                    value = 0
                assert found[name] == value, (name, moment)
                if moment in moments_of(case):
                    independent = exact(case.schedule, moment)
                    assert found[name] == pytest.approx(independent, rel=2e-7, abs=1e-9)


@pytest.mark.parametrize("how", ["plain", "tensor", "the graph's own"])
def test_a_rate_follows_the_count_it_is_given(how):
    with tf.Graph().as_default():
        count = v1.train.get_or_create_global_step()
        if how == "tensor":
            rate = learning_rate(tfs.Linear(0.0, 1.0, 4), count + 2)
        else:
            given = {"plain": [count], "the graph's own": []}[how]
            rate = learning_rate(tfs.Linear(0.0, 1.0, 4), *given)
        assert rate.dtype == tf.float32
        assert rate.shape == ()
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            found = [session.run(rate)]
            session.run(count.assign_add(1))
            found.append(session.run(rate))
    assert found == ([0.5, 0.75] if how == "tensor" else [0.0, 0.25])


OPTIMIZERS = {
    "momentum": (lambda: v1.train.MomentumOptimizer(7.0, 0.9), "momentum"),
    "momentum, of a tensor": (
        lambda: v1.train.MomentumOptimizer(
            v1.train.exponential_decay(7.0, v1.train.get_or_create_global_step(), 9, 2),
            0.9,
        ),
        "momentum",
    ),
    "momentum, of learning_rate": (
        lambda: v1.train.MomentumOptimizer(learning_rate(tfs.Constant(7.0)), 0.9),
        "momentum",
    ),
    "gradient descent": (lambda: v1.train.GradientDescentOptimizer(7.0), "plain"),
    "adagrad": (lambda: v1.train.AdagradOptimizer(7.0), "adagrad"),
    "adam": (lambda: v1.train.AdamOptimizer(7.0), "adam"),
    "Keras SGD": (lambda: keras.optimizers.SGD(7.0, momentum=0.9), "velocity"),
    "Keras SGD, of learning_rate": (
        lambda: keras.optimizers.SGD(
            (lambda rate: lambda: rate)(learning_rate(tfs.Constant(7.0)))
        ),
        "plain",
    ),
    "Keras Adam": (lambda: keras.optimizers.Adam(7.0, epsilon=1e-8), "adam"),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_schedule_takes_the_rate_of_any_optimizer_over(name, tmp_path):
    make, kind = OPTIMIZERS[name]
    watch = Watch()
    # The one that records comes first: what others do to the rate it still sees.
    train(make, [TensorBoardHook(tmp_path), ScheduleHook(SCHEDULE), watch], 14)
    losses, weights = oracle(SCHEDULE.values(14), kind)
    np.testing.assert_allclose(watch.weights, weights, rtol=2e-5, atol=1e-6)
    steps, rates, seen = recorded(tmp_path / "schedules")
    np.testing.assert_array_equal(steps, np.arange(14))
    np.testing.assert_array_equal(rates, SCHEDULE.values(14).astype("float32"))
    np.testing.assert_allclose(seen, losses, rtol=2e-5)


def test_what_learning_rate_returned_shows_what_has_taken_over():
    with tf.Graph().as_default():
        rate = learning_rate(tfs.Constant(7.0))
        op = momentum().minimize(
            regression(*next_batch())[1],
            v1.train.get_global_step(),
        )
        found = []
        hooks = [ScheduleHook(tfs.Linear(0.0, 1.0, 4))]
        # The optimizer has a rate of its own, but what is asked for by name wins.
        with v1.train.MonitoredTrainingSession(hooks=hooks) as session:
            for _ in range(3):
                found.append(session.run([rate, op])[0])
    assert found == [0.0, 0.25, 0.5]


def test_a_resumed_session_continues_its_schedule_in_the_same_run(tmp_path):
    make = lambda: v1.train.MomentumOptimizer(learning_rate(SCHEDULE), 0.9)  # noqa: E731
    watch = Watch()
    for first, last in ((0, 7), (7, 15)):
        hooks = [TensorBoardHook(tmp_path / "logs"), watch]
        train(make, hooks, last, first, checkpoint_dir=str(tmp_path / "model"))
    assert watch.steps == list(range(1, 16))
    losses, weights = oracle(SCHEDULE.values(15))
    np.testing.assert_allclose(watch.weights, weights, rtol=2e-5)
    assert runs(tmp_path / "logs") == ["schedules"]
    steps, rates, seen = recorded(tmp_path / "logs" / "schedules")
    np.testing.assert_array_equal(steps, np.arange(15))
    np.testing.assert_array_equal(rates, SCHEDULE.values(15).astype("float32"))
    np.testing.assert_allclose(seen, losses, rtol=2e-5)


def test_where_the_count_has_gone_back_a_new_run_begins(tmp_path):
    for folder in ("a", "b"):  # the second model is trained from its step 0
        hooks = [TensorBoardHook(tmp_path / "logs"), ScheduleHook(SCHEDULE)]
        train(momentum, hooks, 5, checkpoint_dir=str(tmp_path / folder))
    assert runs(tmp_path / "logs") == ["schedules", "schedules_1"]
    for run in ("schedules", "schedules_1"):
        np.testing.assert_array_equal(recorded(tmp_path / "logs" / run)[0], range(5))


def test_trainings_in_one_folder_go_on_in_their_own_runs(tmp_path):
    """Whose last step is the lower one makes no difference."""
    schedules = {"a": SCHEDULE, "b": SCHEDULE * 0.5}
    for folder, first, last in [("a", 0, 5), ("b", 0, 9), ("b", 9, 12), ("a", 5, 20)]:
        make = lambda s=schedules[folder]: v1.train.MomentumOptimizer(  # noqa: E731
            learning_rate(s), 0.9
        )
        model = str(tmp_path / folder)
        hooks = [TensorBoardHook(tmp_path / "logs")]
        train(make, hooks, last, first, checkpoint_dir=model)
    assert runs(tmp_path / "logs") == ["schedules", "schedules_1"]
    for run, count, schedule in (
        ("schedules", 20, schedules["a"]),
        ("schedules_1", 12, schedules["b"]),
    ):
        steps, rates, _ = recorded(tmp_path / "logs" / run)
        np.testing.assert_array_equal(steps, np.arange(count))
        np.testing.assert_array_equal(rates, schedule.values(count).astype("float32"))


def test_steps_after_the_last_checkpoint_are_undone(tmp_path):
    class Fail(v1.train.SessionRunHook):
        def before_run(self, run_context):
            self.left = getattr(self, "left", 8) - 1
            if self.left == 0:
                raise RuntimeError("the power is gone")

    make = lambda: v1.train.MomentumOptimizer(learning_rate(SCHEDULE), 0.9)  # noqa: E731
    options = {"checkpoint_dir": str(tmp_path / "model"), "save_checkpoint_steps": 4}
    hook = TensorBoardHook(tmp_path / "logs")
    with pytest.raises(RuntimeError, match="the power is gone"):
        train(make, [hook, Fail()], 12, **options)
    hook._write()  # else nobody has seen the last seconds
    hook._close()
    (checkpoint,) = {tf.train.latest_checkpoint(tmp_path / "model")[-1]}
    train(make, [TensorBoardHook(tmp_path / "logs")], 12, int(checkpoint), **options)
    assert runs(tmp_path / "logs") == ["schedules"]
    steps, rates, losses = recorded(tmp_path / "logs" / "schedules")
    assert 0 < int(checkpoint) < 7
    np.testing.assert_array_equal(steps, np.arange(12))
    np.testing.assert_array_equal(rates, SCHEDULE.values(12).astype("float32"))
    np.testing.assert_allclose(losses, oracle(SCHEDULE.values(12))[0], rtol=2e-5)


def test_a_count_set_back_within_a_session_begins_a_new_run_as_well(tmp_path):
    with tf.Graph().as_default():
        op = training_op(momentum, *next_batch())
        back = v1.train.get_global_step().initializer
        hooks = [TensorBoardHook(tmp_path), ScheduleHook(SCHEDULE)]
        with v1.train.MonitoredTrainingSession(hooks=hooks) as session:
            for count in (4, 3):
                for _ in range(count):
                    session.run(op)
                session.run(back)
    assert runs(tmp_path) == ["schedules", "schedules_1"]
    for run, count in (("schedules", 4), ("schedules_1", 3)):
        steps, rates, _ = recorded(tmp_path / run)
        np.testing.assert_array_equal(steps, range(count))
        np.testing.assert_array_equal(rates, SCHEDULE.values(count).astype("float32"))


def test_rates_that_nothing_of_ours_has_made_are_recorded(tmp_path):
    def make():
        step = v1.train.get_or_create_global_step()
        return v1.train.MomentumOptimizer(
            v1.train.inverse_time_decay(0.02, step, 1, 1), 0.9
        )

    train(make, [TensorBoardHook(tmp_path / "tensor")], 4)
    train(
        lambda: v1.train.AdamOptimizer(0.02), [TensorBoardHook(tmp_path / "number")], 4
    )
    steps, rates, _ = recorded(tmp_path / "tensor" / "schedules")
    np.testing.assert_array_equal(steps, range(4))
    np.testing.assert_allclose(rates, 0.02 / np.arange(1, 5), rtol=1e-6)
    np.testing.assert_array_equal(
        recorded(tmp_path / "number" / "schedules")[1], np.float32(0.02)
    )


def test_a_count_that_does_not_wait_for_the_update_is_read_before_it(tmp_path):
    with tf.Graph().as_default():
        data = next_batch()
        update = v1.train.GradientDescentOptimizer(1e-3).minimize(regression(*data)[1])
        step = v1.train.get_or_create_global_step()
        op = tf.group(update, step.assign_add(1))
        schedule = tfs.Linear(0.0, 0.01, 300)
        hooks = [ScheduleHook(schedule), TensorBoardHook(tmp_path)]
        with v1.train.MonitoredTrainingSession(hooks=hooks) as session:
            for _ in range(300):
                session.run(op)
    steps, rates, _ = recorded(tmp_path / "schedules")
    np.testing.assert_array_equal(steps, np.arange(300))
    np.testing.assert_array_equal(rates, schedule.values(300).astype("float32"))


def test_runs_that_are_not_counted_are_one_step(tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "_SECONDS_BETWEEN_WRITES", -1.0)
    with tf.Graph().as_default():
        update = momentum().minimize(regression(*next_batch())[1])
        counted = tf.group(update, v1.train.get_or_create_global_step().assign_add(1))
        hooks = [ScheduleHook(SCHEDULE), TensorBoardHook(tmp_path)]
        with v1.train.MonitoredTrainingSession(hooks=hooks) as session:
            for op in [update, counted] * 3:
                session.run(op)
    assert runs(tmp_path) == ["schedules"]
    steps, rates, _ = recorded(tmp_path / "schedules")
    np.testing.assert_array_equal(steps, range(3))
    np.testing.assert_array_equal(rates, SCHEDULE.values(3).astype("float32"))


def test_runs_that_do_not_train_take_no_data_and_are_no_steps(tmp_path):
    with tf.Graph().as_default():
        data = next_batch()
        op = training_op(momentum, *data)
        step, watch = v1.train.get_global_step(), Watch()
        hooks = [ScheduleHook(SCHEDULE), TensorBoardHook(tmp_path), watch]
        with v1.train.MonitoredTrainingSession(hooks=hooks) as session:
            for _ in range(4):
                session.run(step)
                session.run({"any": [op]})
    losses, _ = oracle(SCHEDULE.values(4))
    steps, _, seen = recorded(tmp_path / "schedules")
    np.testing.assert_array_equal(steps, range(4))
    np.testing.assert_allclose(seen, losses, rtol=2e-5)


# ----------------------------------------------------------------------- the range test


@pytest.mark.parametrize("make", [
    momentum, lambda: v1.train.MomentumOptimizer(learning_rate(SCHEDULE), 0.9),
])  # fmt: skip
def test_a_range_test_sees_each_rates_loss_and_leaves_all_as_it_was(make, tmp_path):
    train(make, [], 3, checkpoint_dir=str(tmp_path / "model"), save_checkpoint_steps=1)
    before = saved(tmp_path / "model")
    assert sorted(before) == [0, 1, 2, 3]
    test, watch = RangeTestHook(1e-4, 1e-2, 40), Watch()
    hooks = [TensorBoardHook(tmp_path / "logs"), test, watch]
    options = {"checkpoint_dir": str(tmp_path / "model"), "save_checkpoint_steps": 1}
    train(make, hooks, 100, **options)
    after = saved(tmp_path / "model")
    assert max(after) == 3
    for step, weights in after.items():
        np.testing.assert_array_equal(weights, before[step])
    assert not watch.steps
    rates = np.geomspace(1e-4, 1e-2, 40)
    assert test.result.stop_reason == "finished"
    np.testing.assert_allclose(test.result.learning_rates, rates, rtol=1e-9)
    assert runs(tmp_path / "logs") == ["range_test"]
    curve = read(tmp_path / "logs" / "range_test")
    np.testing.assert_allclose(
        curve["range_test/loss"][1], test.result.losses, rtol=1e-6
    )
    # And training goes on as if there had been no test.
    train(make, [watch := Watch()], 5, **options)
    assert watch.steps == [4, 5]


@pytest.mark.parametrize("fed", [False, True])
def test_a_sweep_is_the_numpy_loop_and_stops_where_it_diverges(fed):
    losses, _ = oracle(np.geomspace(1e-4, 10.0, 60))
    test, watch = RangeTestHook(1e-4, 10.0, 60), Watch()
    with tf.Graph().as_default():
        data = fed_batch() if fed else next_batch()
        op = training_op(momentum, *data)
        step = 0
        with v1.train.MonitoredTrainingSession(hooks=[test, watch]) as session:
            while not session.should_stop():
                session.run(op, feed(data, step) if fed else None)
                step += 1
    count = len(test.result.losses)
    assert test.result.stop_reason == "diverged"
    assert 20 < count < 60
    assert step == (count if fed else 0)
    np.testing.assert_allclose(test.result.losses, losses[:count], rtol=1e-3)
    assert losses[count - 1] > 4 * losses[:count].min()
    for before, after in zip(watch.at_begin, watch.at_end, strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_loss_that_is_lost_ends_a_sweep():
    test = RangeTestHook(1e-3, 1e12, 40, "linear", stop_factor=None)
    train(momentum, [test], 100)
    assert test.result.stop_reason == "non-finite loss"
    assert not np.isfinite(test.result.losses[-1])
    assert np.isfinite(test.result.losses[:-1]).all()


@pytest.mark.parametrize("fed", [False, True])
def test_data_that_end_early_end_the_sweep(fed, tmp_path):
    test, watch = RangeTestHook(1e-4, 1e-2, 40, log_dir=tmp_path), Watch()
    with tf.Graph().as_default():
        few = v1.data.make_one_shot_iterator(dataset().take(5))
        data = fed_batch() if fed else few.get_next()
        op = training_op(momentum, *data)
        with v1.train.MonitoredTrainingSession(hooks=[test, watch]) as session:
            for step in range(5):
                session.run(op, feed(data, step) if fed else None)
    for before, after in zip(watch.at_begin, watch.at_end, strict=True):
        np.testing.assert_array_equal(before, after)
    assert test.result.stop_reason == "out of data"
    assert len(test.result.losses) == 5
    assert runs(tmp_path) == ["range_test"]


def test_a_log_that_fails_leaves_the_result(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tfschedules.finding.reports.EventWriter.scalars", full)
    test = RangeTestHook(1e-4, 1e-2, 10, log_dir=tmp_path)
    with pytest.warns(UserWarning, match="result is kept.*No space left on device"):
        train(momentum, [test], 100)
    assert test.result.stop_reason == "finished"
    assert len(test.result.losses) == 10


def test_data_without_a_batch_are_an_error_that_leaves_no_run(tmp_path):
    with tf.Graph().as_default():
        none = v1.data.make_one_shot_iterator(dataset().take(0))
        op = training_op(momentum, *none.get_next())
        hooks = [RangeTestHook(log_dir=tmp_path)]
        with (
            pytest.raises(ValueError, match="needs data to sweep over"),
            v1.train.MonitoredTrainingSession(hooks=hooks) as session,
        ):
            session.run(op)
    assert [*tmp_path.iterdir()] == []


def test_an_interrupted_sweep_keeps_its_curve_and_writes_no_checkpoint(
    tmp_path, monkeypatch
):
    test = RangeTestHook(1e-4, 1e-2, 40)
    note = RangeTestHook._note

    def interrupted(self, loss):
        note(self, loss)
        if len(self._losses) == 7:
            raise KeyboardInterrupt("by the test")

    monkeypatch.setattr(RangeTestHook, "_note", interrupted)
    with pytest.raises(KeyboardInterrupt, match="by the test"):
        train(
            momentum, [test], 9, checkpoint_dir=str(tmp_path), save_checkpoint_steps=1
        )
    assert test.result.stop_reason == "interrupted"
    assert len(test.result.losses) == 7
    assert list(saved(tmp_path)) == [0]
    np.testing.assert_array_equal(saved(tmp_path)[0], FIRST)


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: ScheduleHook(0.1), TypeError, "must be a tfschedules.Schedule"),
        (lambda: learning_rate(0.1), TypeError, "must be a tfschedules.Schedule"),
        (
            lambda: learning_rate(tfs.Constant(0.1)),
            RuntimeError,
            "call it in a model_fn",
        ),
        (
            lambda: ScheduleHook(tfs.Linear(1.0, 0.0, tfs.epochs(3))),
            ValueError,
            r"Give schedule.resolve\(steps_per_epoch\)",
        ),
        (lambda: TensorBoardHook(None), TypeError, "`output_dir` must be the path"),
        (lambda: TensorBoardHook(""), TypeError, "`output_dir` must be the path"),
        (lambda: RangeTestHook(log_dir=3), TypeError, "`log_dir` must be the path"),
        (lambda: RangeTestHook(1.0, 0.1), ValueError, "`min_lr` must be < `max_lr`"),
        (lambda: RangeTestHook(steps=1), ValueError, "`steps` must be >= 2"),
        (lambda: RangeTestHook(mode="up"), ValueError, "`mode` must be one of"),
    ],
)
def test_bad_arguments(make, error, match):
    with pytest.raises(error, match=match):
        make()


def graph_of(*rates, losses=1, counted=True):
    """A graph with so many losses and optimizers of such rates."""
    w = v1.get_variable("w", initializer=FIRST)
    if counted:
        v1.train.get_or_create_global_step()
    for i in range(losses):
        v1.losses.add_loss(tf.reduce_sum(w * w, name=f"part_{i}"))
    for rate in rates:
        v1.train.GradientDescentOptimizer(rate).minimize(tf.reduce_sum(w * w))
    return w


@pytest.mark.parametrize(
    ("graph", "hook", "match"),
    [
        ({}, lambda: ScheduleHook(SCHEDULE), "no learning rate to be found"),
        ({}, lambda: RangeTestHook(), "no learning rate to be found"),
        ({}, lambda: TensorBoardHook("x"), "no learning rate to be found"),
        (
            {"rates": (0.1, 0.2)},
            lambda: ScheduleHook(SCHEDULE),
            "one learning rate.*GradientDescent/.*GradientDescent_1/",
        ),
        (
            {"rates": (0.1,), "counted": False},
            lambda: ScheduleHook(SCHEDULE),
            "needs the global step, and this graph has none",
        ),
        (
            {"rates": (0.1,), "losses": 2},
            lambda: RangeTestHook(),
            "Received: part_0:0, part_1:0. Give the hook loss=",
        ),
        (
            {"rates": (0.1,), "losses": 0},
            lambda: TensorBoardHook("x"),
            "Received: none",
        ),
        ({"rates": (0.1,)}, lambda: RangeTestHook(loss="nix"), "loss='nix'"),
        ({"rates": (0.1,)}, lambda: RangeTestHook(loss="w:0"), "be a scalar of floats"),
        (
            {"rates": (0.1,)},
            lambda: RangeTestHook(loss=3),
            "a tensor of the graph",
        ),
    ],
)
def test_what_is_not_in_the_graph_is_asked_for(
    graph, hook, match, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # a folder for records is made before the graph is read
    graph = dict(graph)
    with tf.Graph().as_default():
        graph_of(*graph.pop("rates", ()), **graph)
        with pytest.raises((ValueError, TypeError), match=match):
            v1.train.MonitoredTrainingSession(hooks=[hook()])


def test_a_loss_of_another_graph_or_kind_is_refused():
    with tf.Graph().as_default():
        other = tf.constant(1.0)
    for loss, error in ((other, ValueError), (tf.constant(1.0), TypeError)):
        with tf.Graph().as_default():
            graph_of(0.1)
            with pytest.raises(error, match="tensor of the graph that is trained, or"):
                v1.train.MonitoredTrainingSession(hooks=[RangeTestHook(loss=loss)])


def test_only_one_hook_takes_the_rate_over():
    with tf.Graph().as_default():
        graph_of(0.1)
        with pytest.raises(ValueError, match="one ScheduleHook or one RangeTestHook"):
            v1.train.MonitoredTrainingSession(
                hooks=[ScheduleHook(SCHEDULE), RangeTestHook()]
            )


def test_a_global_step_must_be_an_integer():
    with tf.Graph().as_default(), pytest.raises(TypeError, match="must be an integer"):
        learning_rate(SCHEDULE, tf.constant(1.0))


def test_fed_data_are_not_swept_where_checkpoints_are_saved(tmp_path):
    with tf.Graph().as_default():
        data = fed_batch()
        op = training_op(momentum, *data)
        with (
            pytest.raises(ValueError, match="must not run in a session that saves"),
            v1.train.MonitoredTrainingSession(
                hooks=[RangeTestHook()], checkpoint_dir=str(tmp_path)
            ) as session,
        ):
            session.run(op, feed(data, 0))
    assert list(saved(tmp_path)) == [0]


def test_a_cluster_is_not_swept():
    server = v1.train.Server.create_local_server()
    with pytest.raises(ValueError, match=r"for one machine.*grpc://localhost"):
        train(momentum, [RangeTestHook()], 3, master=server.target)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_loss_that_is_in_its_collection_again_counts_once(parts, tmp_path):
    """As an Estimator has it: last, beside the parts that it is the sum of."""
    with tf.Graph().as_default() as graph:
        graph_of(0.0, losses=parts)  # what is read after the update is the same
        v1.losses.add_loss(
            tf.add_n(v1.losses.get_losses()) if parts > 1 else v1.losses.get_losses()[0]
        )
        (op,) = graph.get_collection(v1.GraphKeys.TRAIN_OP)
        hook = TensorBoardHook(tmp_path)
        with v1.train.MonitoredTrainingSession(hooks=[hook]) as session:
            session.run(op)
    seen = recorded(tmp_path / "schedules")[2]
    assert seen == pytest.approx([parts * float((FIRST**2).sum())])


def test_a_loss_may_be_named_or_given(tmp_path):
    for how in ("part_1", "part_1:0", "tensor"):
        with tf.Graph().as_default() as graph:
            graph_of(0.0, losses=2)
            loss = graph.get_tensor_by_name("part_1:0") if how == "tensor" else how
            hook = TensorBoardHook(tmp_path / how, loss)
            (op,) = graph.get_collection(v1.GraphKeys.TRAIN_OP)
            with v1.train.MonitoredTrainingSession(hooks=[hook]) as session:
                session.run(op)
        seen = recorded(tmp_path / how / "schedules")[2]
        assert seen == pytest.approx([float((FIRST**2).sum())])


@pytest.mark.parametrize("kind", ["file", "remote"])
def test_a_folder_that_cannot_be_written_to_is_an_error_before_training(kind, tmp_path):
    (tmp_path / "file").write_text("no folder")
    folder = {"file": str(tmp_path / "file"), "remote": "nosuchscheme://b/logs"}[kind]
    watch = Watch()
    with pytest.raises(OSError, match=f"Cannot write event files to '{folder}'"):
        train(momentum, [TensorBoardHook(folder), watch], 3)
    assert watch.steps == []


def test_a_full_disk_stops_the_recording_and_not_the_training(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tfschedules.tensorboard.EventWriter.scalars", full)
    watch = Watch()
    hooks = [TensorBoardHook(tmp_path), ScheduleHook(SCHEDULE), watch]
    with pytest.warns(UserWarning, match="no longer records"):
        train(momentum, hooks, 3)
    assert watch.steps == [1, 2, 3]


def test_without_tensorflow_the_import_says_what_to_do(monkeypatch):
    for name in [
        name for name in sys.modules if name.startswith("tfschedules.estimator")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ImportError, match=r"tensorflow-cpu==2\.15.*Monitored"):
        import tfschedules.estimator
    monkeypatch.setitem(sys.modules, "tensorflow", _Without())
    with pytest.raises(ImportError, match="which has neither"):
        import tfschedules.estimator  # noqa: F401


class _Without:
    """A TensorFlow of the future."""

    __version__ = "3.0"
    __spec__ = None

    class compat:
        class v1:
            train = None


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(RuntimeError, match="Set KERAS_BACKEND=tensorflow"):
        ScheduleHook(SCHEDULE)


@pytest.mark.parametrize("of_estimators", [False, pytest.param(True, marks=estimator)])
def test_the_guide_runs_as_written(of_estimators, tmp_path, monkeypatch):
    """Blocks marked `py`: `python` ones run in test_docs, on JAX as well."""
    text = (Path(__file__).parents[1] / "docs" / "estimator.md").read_text("utf-8")
    blocks = re.findall(r"^```py\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 5
    if not of_estimators:
        blocks = [block for block in blocks if block.startswith(("import", "with"))]
        assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)
    scope = {"__name__": "estimator.md"}
    for block in blocks:
        exec(compile(block, "estimator.md", "exec"), scope)
    assert len(recorded(tmp_path / "session" / "schedules")[0]) == 100
    if of_estimators:
        assert runs(tmp_path / "model" / "range_test")
        assert len(recorded(tmp_path / "model" / "schedules")[0]) == 90
        assert scope["test"].result.suggestion > 1e-4


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
    script = Path(__file__).parents[1] / "examples" / "estimator_parameter_server.py"
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
