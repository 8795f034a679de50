"""What hooks refuse, and the guide that is about them."""

import re
import sys

import keras
import pytest
from event_files import runs
from helpers import ROOT
from sessions import (
    FIRST,
    SCHEDULE,
    Watch,
    estimator,
    fed_batch,
    feed,
    momentum,
    recorded,
    saved,
    tf,
    train,
    training_op,
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
    text = (ROOT / "docs" / "estimator.md").read_text("utf-8")
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
