"""Range tests by hook: losses, where they stop, what they leave."""

import numpy as np
import pytest
from event_files import read, runs
from sessions import (
    FIRST,
    SCHEDULE,
    Watch,
    dataset,
    fed_batch,
    feed,
    momentum,
    next_batch,
    oracle,
    saved,
    tf,
    train,
    training_op,
    v1,
)

from tfschedules.estimator import (
    RangeTestHook,
    TensorBoardHook,
    learning_rate,
)

pytestmark = [
    pytest.mark.tensorflow,
    # What TensorFlow's own modules of that age do.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorflow"),
]


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
