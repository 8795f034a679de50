"""Hooks in sessions and in real Estimators, beside NumPy loops of the same training."""

import keras
import numpy as np
import pytest
from event_files import runs
from registry import SCHEDULES, exact, moments_of
from sessions import (
    HAS_ESTIMATOR,
    SCHEDULE,
    Watch,
    momentum,
    next_batch,
    oracle,
    recorded,
    regression,
    tf,
    train,
    training_op,
    v1,
)

import tfschedules as tfs
from tfschedules.estimator import (
    ScheduleHook,
    TensorBoardHook,
    learning_rate,
    recording,
)

pytestmark = [
    pytest.mark.tensorflow,
    # What TensorFlow's own modules of that age do.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorflow"),
]


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
