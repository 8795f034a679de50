"""Devices that each train on a part of every batch, as `tf.distribute` has them.

A replica has a copy of every variable. Those of weights are kept equal, those of
metrics are summed when they are read outside of a step, and those of
BatchNormalization's statistics drift apart. On JAX a batch is one array on several
devices, also of several processes, and there are no replicas.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import Any

import keras


def replicas_of(model: keras.Model) -> int:
    """On how many replicas a model is trained."""
    if keras.backend.backend() != "tensorflow":
        return 1
    return int(model.distribute_strategy.num_replicas_in_sync)


def scope_of(model: keras.Model) -> contextlib.AbstractContextManager[Any]:
    """Where variables are to be made that each replica has: callbacks are outside."""
    if replicas_of(model) == 1:
        return contextlib.nullcontext()
    return model.distribute_strategy.scope()


def copies_of(variable: Any) -> tuple[Any, ...]:
    """What a variable is made of: one copy for each replica, or itself alone."""
    held = variable.value if isinstance(variable, keras.Variable) else variable
    if keras.backend.backend() != "tensorflow":
        return (variable,)
    import tensorflow as tf

    if isinstance(held, tf.distribute.DistributedValues):
        return tuple(held._values)
    return (variable,)


def whole_batch(
    model: keras.Model, logs: Any, samples: Any, idle: Collection[str] = ()
) -> Any:
    """What a step reports about its batch, from what a replica says about its part.

    To be called within the step. Metrics of the model are read from the variables of
    all replicas, which is right for those that are no means, too; anything else is a
    mean over samples.

    Args:
        model: The model.
        logs: Scalars by name.
        samples: How many samples the replica has of this batch.
        idle: Names of the model's metrics that the step does not update.
    """
    if replicas_of(model) == 1:
        return logs
    import tensorflow as tf

    def merged(strategy: Any, shares: Any, samples: Any) -> Any:
        total = strategy.reduce("SUM", samples, axis=None)
        means = {
            name: strategy.reduce("SUM", value, axis=None) / total
            for name, value in shares.items()
        }
        metrics = model.get_metrics_result()
        return {
            name: metrics.get(name, mean) if name not in idle else mean
            for name, mean in means.items()
        }

    samples = keras.ops.cast(samples, "float32")
    shares = {name: share(value, samples) for name, value in logs.items()}
    return tf.distribute.get_replica_context().merge_call(
        merged, args=(shares, samples)
    )


def share(value: Any, samples: Any) -> Any:
    """A replica's part of a sum over samples; it may have none of a small batch."""
    ops = keras.ops
    value = ops.mean(ops.cast(value, "float32")) * samples
    return ops.where(samples > 0, value, ops.zeros_like(value))


def is_first_process() -> bool:
    """Whether this is the one process of a training that writes its records.

    The others make the same steps, and must: all of them run one program.
    """
    if keras.backend.backend() != "jax":
        return True
    import jax

    return bool(jax.process_index() == 0)
