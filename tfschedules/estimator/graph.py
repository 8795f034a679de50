"""What hooks look for in a graph: its rate, its global step, its loss, its training op.

This is the only room that changes a graph that others have made. It uses two methods
that TensorFlow keeps for itself, `Operation._update_input` and `_add_control_input`,
the same since 2017; feeding the rate from Python instead would be behind by what other
workers have done to the global step since.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

# Collections of the graph, of tensors only: others end up in a warning of the saver.
REGISTERED = "tfschedules/learning_rate"  # by `learning_rate`
REGISTERED_STEPS = "tfschedules/global_step"  # and the steps they are of
DRIVEN = "tfschedules/driven_learning_rate"  # by a hook that has taken over
DRIVEN_STEPS = "tfschedules/driven_global_step"
SWEPT = "tfschedules/swept_learning_rate"
LOG_DIRS = "tfschedules/log_dirs"  # where a range test is to be written, too

_COPIES = ("Cast", "EnsureShape", "Identity", "StopGradient")
_KERAS_RATE = re.compile(r"(.*/)?learning_rate(_\d+)?")
_V1 = tf.compat.v1


@dataclasses.dataclass(frozen=True)
class Rate:
    """A learning rate in a graph.

    Attributes:
        tensor: The rate itself, a float scalar.
        step: The global step that it belongs to, or `None` if that is not known.
        uses: Where it goes in: operations, and which of their inputs.
        readers: Calls of functions that read it from a variable inside.
        handle: That variable's handle, if there are any.
    """

    tensor: Any
    step: Any = None
    uses: tuple[tuple[Any, int], ...] = ()
    readers: tuple[Any, ...] = ()
    handle: Any = None

    @property
    def users(self) -> set[str]:
        """The names of all operations that have to do with it."""
        ops = [self.tensor.op, *(op for op, _ in self.uses), *self.readers]
        return {op.name for op in ops}


def find_rate(graph: Any) -> Rate:
    """The one learning rate of a graph.

    That is what `learning_rate` has made; else what the optimizer's update ops take, or
    the variable `learning_rate` of a Keras optimizer.

    Raises:
        ValueError: If there is none, or are several.
    """
    registered = graph.get_collection(REGISTERED)
    if registered:
        _only_one(tensor.name for tensor in registered)
        (step,) = graph.get_collection(REGISTERED_STEPS)
        return Rate(registered[0], step, ((registered[0].op, 0),))
    # By what keeps the rate, a variable's handle or a tensor, all tensors that have it.
    found: dict[str, list[Any]] = {}
    readers: dict[str, list[Any]] = {}
    for op in graph.get_operations():
        tensor = _rate_of(op)
        if tensor is not None:
            kept = _kept_in(tensor)
            found.setdefault(kept.name, []).append(tensor)
        elif op.type == "VarHandleOp" and _KERAS_RATE.fullmatch(op.name):
            (handle,) = op.outputs
            calls = [user for user in handle.consumers() if "Call" in user.type]
            if calls:
                readers[handle.name] = calls
                reads = [u for u in handle.consumers() if u.type == "ReadVariableOp"]
                found.setdefault(handle.name, []).extend(u.outputs[0] for u in reads)
    if not found:
        raise ValueError(
            "There is no learning rate to be found in this graph. Make it in the "
            "model_fn, rate = tfschedules.estimator.learning_rate(schedule), and give "
            "it to the optimizer: tf.compat.v1.train.MomentumOptimizer(rate, 0.9), or "
            "keras.optimizers.SGD(lambda: rate). Hooks are for training only."
        )
    _only_one(found)
    ((name, tensors),) = found.items()
    tensors = list({tensor.name: tensor for tensor in tensors}.values())
    uses = [
        (op, index)
        for tensor in tensors
        for op in tensor.consumers()
        for index, value in enumerate(op.inputs)
        if value.name == tensor.name
    ]
    calls = readers.get(name, [])
    handle = graph.get_tensor_by_name(name) if calls else None
    return Rate(tensors[0], None, tuple(uses), tuple(calls), handle)


def _rate_of(op: Any) -> Any:
    """The rate that an operation uses or reads, if it is of that kind."""
    if op.type == "ReadVariableOp":
        is_rate = _KERAS_RATE.fullmatch(op.inputs[0].op.name)
        return op.outputs[0] if is_rate and op.outputs[0].consumers() else None
    if "Apply" not in op.type:
        return None
    names = [argument.name for argument in op.op_def.input_arg]
    name = "alpha" if "GradientDescent" in op.type else "lr"
    if name not in names:
        return None
    tensor = op.inputs[names.index(name)]
    while tensor.op.type in _COPIES:
        tensor = tensor.op.inputs[0]
    return tensor


def _kept_in(tensor: Any) -> Any:
    """The handle of the variable that a tensor was read from, or itself."""
    return tensor.op.inputs[0] if tensor.op.type == "ReadVariableOp" else tensor


def _only_one(names: Iterable[str]) -> None:
    names = sorted(names)
    if len(names) > 1:
        raise ValueError(
            "There must be one learning rate in this graph. Received: "
            f"{', '.join(names)}. Give each optimizer its own "
            "tfschedules.estimator.learning_rate(schedule), without a hook."
        )


def take_over(graph: Any, tensor: Any, step: Any = None) -> None:
    """Put another tensor in place of the graph's rate, wherever that goes in.

    Args:
        graph: The graph, not run yet.
        tensor: The rate, a float32 scalar.
        step: The global step it is made of, or `None` for a sweep.

    Raises:
        ValueError: If there is no rate, are several, a hook has it already, or the
            graph is that of a strategy.
    """
    if graph.get_collection(DRIVEN) or graph.get_collection(SWEPT):
        raise ValueError(
            "Another hook has taken the learning rate over already. Pass one "
            "ScheduleHook or one RangeTestHook to `train`, not both."
        )
    _refuse_strategies(graph)
    rate = find_rate(graph)
    with graph.as_default(), graph.control_dependencies(None):
        for op, index in rate.uses:
            op._update_input(index, tf.cast(tensor, op.inputs[index].dtype))
        if rate.readers:  # a function reads the variable itself: set it before
            value = tf.cast(tensor, rate.tensor.dtype)
            assign = tf.raw_ops.AssignVariableOp(resource=rate.handle, value=value)
            for op in rate.readers:
                op._add_control_input(assign)
    if step is None:
        graph.add_to_collection(SWEPT, tensor)
    else:
        graph.add_to_collection(DRIVEN, tensor)
        graph.add_to_collection(DRIVEN_STEPS, step)


def observed_rate(graph: Any) -> Rate | None:
    """The rate to be recorded; `None` while it is swept.

    Raises:
        ValueError: If there is none, or are several.
    """
    if graph.get_collection(SWEPT):
        return None
    driven = graph.get_collection(DRIVEN)
    if driven:
        return Rate(driven[0], graph.get_collection(DRIVEN_STEPS)[0])
    return find_rate(graph)


def read_step(graph: Any, variable: Any = None) -> Any:
    """The global step as it is before this run's update: an integer scalar.

    Args:
        graph: The graph.
        variable: Another count than the graph's own.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If the graph has no global step.
    """
    if variable is None:
        variable = _V1.train.get_global_step(graph)
    if variable is None:
        raise ValueError(
            "A schedule needs the global step, and this graph has none. Make it, "
            "step = tf.compat.v1.train.get_or_create_global_step(), and let the "
            "optimizer count: optimizer.minimize(loss, global_step=step)."
        )
    dtype = getattr(variable, "dtype", None)
    if dtype is None or not tf.as_dtype(dtype).base_dtype.is_integer:
        raise TypeError(
            "Argument `global_step` must be an integer variable or tensor. Received: "
            f"global_step={variable!r}. By default it is the graph's own."
        )
    with graph.as_default(), graph.control_dependencies(None):
        # Not the value itself: a variable of the old kind would hand out its buffer,
        # which counts on under the reader's eyes.
        return tf.maximum(
            tf.convert_to_tensor(variable), 0, name="tfschedules/global_step"
        )


def before_counting(graph: Any, *tensors: Any) -> None:
    """Let the global step count only after these have been computed.

    Optimizers see to it; a `tf.group(update, step.assign_add(1))` does not.

    Raises:
        ValueError: If the graph is that of a strategy.
    """
    _refuse_strategies(graph)
    counter = _V1.train.get_global_step(graph)
    handle = getattr(counter, "handle", counter)
    for op in graph.get_operations():
        counts = op.type in ("AssignAddVariableOp", "AssignAdd")
        if counts and op.inputs[0].op is handle.op:
            for tensor in tensors:
                op._add_control_input(tensor.op)


def _refuse_strategies(graph: Any) -> None:
    """Refuse a graph that has each operation once for each of several replicas."""
    if isinstance(_V1.train.get_global_step(graph), tf.distribute.DistributedValues):
        raise ValueError(
            "Hooks of tfschedules.estimator are for an Estimator without a "
            "`tf.distribute` strategy. Received: a global step that is distributed. "
            "Leave train_distribute out of its RunConfig."
        )


def trains(graph: Any, fetches: Any, rate_ops: set[str]) -> bool:
    """Whether a run of `fetches` needs one of these operations, by their names."""
    waiting = []
    for fetch in tf.nest.flatten(fetches):
        element = graph.as_graph_element(fetch)
        waiting.append(element if hasattr(element, "node_def") else element.op)
    seen = set()
    while waiting:
        op = waiting.pop()
        if op.name in rate_ops:
            return True
        if op.name not in seen:
            seen.add(op.name)
            waiting += [value.op for value in op.inputs]
            waiting += op.control_inputs
    return False


def find_loss(graph: Any, loss: Any = None) -> Any:
    """The loss that is trained, a scalar.

    Args:
        graph: The graph.
        loss: A tensor, or its name; found if `None`.

    Raises:
        TypeError: If `loss` is neither.
        ValueError: If it is not in the graph, is not a scalar, or cannot be found.
    """
    tensor = _trained_loss(graph) if loss is None else _named_loss(graph, loss)
    if tensor.shape.rank not in (0, None) or not tensor.dtype.is_floating:
        raise ValueError(
            f"The loss must be a scalar of floats. Received: {tensor.name} of shape "
            f"{tensor.shape}, {tensor.dtype.name}. Reduce it: tf.reduce_mean(loss)."
        )
    return tensor


def _named_loss(graph: Any, loss: Any) -> Any:
    if not isinstance(loss, str):
        of = getattr(loss, "graph", None)  # eager tensors have none
        if of is not graph:
            raise (TypeError if of is None else ValueError)(
                "Argument `loss` must be a tensor of the graph that is trained, or its "
                f"name. Received: loss={loss!r}. A model_fn makes a new graph each "
                "time: give the name."
            )
        return tf.convert_to_tensor(loss)
    try:
        return graph.get_tensor_by_name(loss if ":" in loss else f"{loss}:0")
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"Argument `loss` must name a tensor of the graph. Received: loss={loss!r}."
            f" Name it in the model_fn: tf.identity(loss, name={loss!r})."
        ) from error


def _trained_loss(graph: Any) -> Any:
    """What an Estimator trains, or the only loss there is.

    An Estimator adds its loss to the collection of losses last, where it may be for the
    second time, or beside the parts that it is the sum of.
    """
    keys = tf.compat.v1.GraphKeys
    losses = graph.get_collection(keys.LOSSES)
    if losses:
        *others, last = losses
        of_estimator = any(
            summary.op.name == "loss"
            and last.name in [v.name for v in summary.op.inputs]
            for summary in graph.get_collection(keys.SUMMARIES)
            if hasattr(summary, "op")
        )
        more = others or graph.get_collection(keys.REGULARIZATION_LOSSES)
        if of_estimator or not more:
            return last
        # A total needs each of its parts; parts do not need one another.
        if others and all(trains(graph, last, {loss.op.name}) for loss in others):
            return last
    found = ", ".join(loss.name for loss in losses) or "none"
    raise ValueError(
        "Which loss is trained is not to be seen in this graph's collection of losses. "
        f"Received: {found}. Give the hook loss=, a tensor or its name."
    )
