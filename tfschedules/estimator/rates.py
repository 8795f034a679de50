"""Schedules as rates in a graph, and the hook that puts one into any graph."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfschedules.estimator import graph as graphs
from tfschedules.schedules import Schedule, as_schedule, moments

_V1 = tf.compat.v1
_TAG = "schedule/learning_rate"


def learning_rate(schedule: Schedule, global_step: Any = None) -> Any:
    """The rate in the graph, for the optimizer of a `model_fn`.

    It is `schedule.values(global_step)`, rounded to float32, and appears in the
    summaries as `schedule/learning_rate`. Hooks find it: `ScheduleHook` and
    `RangeTestHook` put other values in its place, `TensorBoardHook` records it.

    Args:
        schedule: A `tfs.Schedule`, with lengths in steps.
        global_step: The count of updates, an integer variable or tensor; the graph's
            own, made if need be, if `None`.

    Returns:
        A float32 scalar tensor.

    Raises:
        TypeError: If `schedule` is no schedule, or `global_step` no integer.
        ValueError: If a length is in epochs.
        RuntimeError: If no graph is being built, or Keras runs on another backend.

    Example:
        >>> import tensorflow as tf, tfschedules as tfs
        >>> from tfschedules import estimator
        >>> def model_fn(features, labels, mode):
        ...     loss = tf.reduce_mean((features - labels) ** 2)
        ...     rate = estimator.learning_rate(tfs.warm_restarts(0.1, 1000))
        ...     optimizer = tf.compat.v1.train.MomentumOptimizer(rate, 0.9)
        ...     step = tf.compat.v1.train.get_global_step()
        ...     return tf.estimator.EstimatorSpec(
        ...         mode, loss=loss, train_op=optimizer.minimize(loss, step)
        ...     )
    """
    schedule = _ready(schedule)
    if tf.executing_eagerly():
        raise RuntimeError(
            "tfschedules.estimator.learning_rate is for a graph: call it in a model_fn "
            "or in `with tf.Graph().as_default():`. In eager code call schedule(step)."
        )
    graph = _V1.get_default_graph()
    if global_step is None:
        global_step = _V1.train.get_or_create_global_step(graph)
    step = graphs.read_step(graph, global_step)
    # A copy, so that another value can be put in here for all that use it.
    with graph.control_dependencies(None):
        rate = tf.identity(_evaluated(schedule, step), name="learning_rate")
    graph.add_to_collection(graphs.REGISTERED, rate)
    graph.add_to_collection(graphs.REGISTERED_STEPS, step)
    _summarize(graph, rate)
    return rate


class ScheduleHook(tf.compat.v1.train.SessionRunHook):
    """Takes the learning rate over, whatever the `model_fn` has given its optimizer.

    The rate is computed in the graph, from the global step: exact with several workers
    and in a resumed training. It goes in place of the one that `learning_rate` has
    made; else of the one that the optimizer's update ops take (all of
    `tf.compat.v1.train`, and legacy Keras, which canned Estimators use); else of the
    variable `learning_rate` of a Keras 3 optimizer.

    Args:
        schedule: A `tfs.Schedule`, with lengths in steps.

    Raises:
        TypeError: If `schedule` is no schedule.
        ValueError: If a length is in epochs; when a session begins, if the graph has no
            global step, no learning rate or several, or another hook has taken over.
        RuntimeError: If Keras runs on another backend than TensorFlow.

    Example:
        >>> import tfschedules as tfs
        >>> from tfschedules import estimator
        >>> hook = estimator.ScheduleHook(tfs.cyclical(1e-3, 0.1, step_size=2000))
        >>> # tf.estimator.DNNClassifier(...).train(input_fn, hooks=[hook])
    """

    def __init__(self, schedule: Schedule) -> None:
        """Check the schedule; the graph is not there yet."""
        self.schedule = _ready(schedule)

    def begin(self) -> None:
        """Put the schedule in place of the rate: the graph is complete."""
        graph = _V1.get_default_graph()
        step = graphs.read_step(graph)
        with graph.control_dependencies(None):
            rate = _evaluated(self.schedule, step)
        graphs.take_over(graph, rate, step)
        graphs.before_counting(graph, step, rate)
        _summarize(graph, rate)


def _ready(schedule: Any) -> Schedule:
    """The schedule, if it can be evaluated in a graph of TensorFlow."""
    schedule = as_schedule("schedule", schedule)
    if schedule.in_epochs:
        raise ValueError(
            "Argument `schedule` must have its lengths in steps: in a graph nothing "
            "tells how many steps an epoch has. Received: "
            f"schedule={schedule!r}. Give schedule.resolve(steps_per_epoch)."
        )
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "tfschedules.estimator needs Keras on TensorFlow. Received: the backend "
            f"{keras.backend.backend()!r}. Set KERAS_BACKEND=tensorflow."
        )
    return schedule


def _evaluated(schedule: Schedule, step: Any) -> Any:
    """The schedule's equation in float64, as `values` has it, and then in float32."""
    with tf.name_scope("tfschedules"):
        value = schedule.equation(moments.in_graph(step, "float64"))
        return tf.reshape(tf.cast(value, tf.float32), (), name="learning_rate")


def _summarize(graph: Any, rate: Any) -> None:
    """Let the summaries of the graph have the rate, once."""
    summaries = graph.get_collection(_V1.GraphKeys.SUMMARIES)
    if not any(getattr(s, "op", s).name == _TAG for s in summaries):
        with graph.name_scope(None):
            _V1.summary.scalar(_TAG, rate)
