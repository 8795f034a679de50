"""Schedules, range tests and records for `tf.estimator` and `MonitoredTrainingSession`.

In a `model_fn`, `learning_rate` makes a rate in the graph out of any schedule. Hooks
passed to `train` do the rest: `ScheduleHook` and `RangeTestHook` take the rate over,
`TensorBoardHook` records it. They are `tf.compat.v1.train.SessionRunHook`s, for a
`tf.estimator.Estimator`, which TensorFlow has up to 2.15 (Keras 3 installed over it
works), and for `tf.compat.v1.train.MonitoredTrainingSession`, which it still has.

A step is an update that the global step counts. That is in the checkpoint, so a resumed
training continues its schedule.

Importing this module imports TensorFlow.

Left out: `tf.distribute` strategies inside an Estimator, TPUs, `iterations_per_loop`.
"""

try:
    import tensorflow as tf
except ImportError as error:
    raise ImportError(
        "tfschedules.estimator needs TensorFlow, which cannot be imported here. For "
        "tf.estimator: pip install 'tensorflow-cpu==2.15.*' and, after it, "
        "'keras>=3.8'; for MonitoredTrainingSession: pip install 'tensorflow>=2.16'. "
        "Without TensorFlow, model.fit takes callbacks: tfschedules.OneCycle, "
        "RangeTest, TensorBoardLogger."
    ) from error

if not hasattr(tf.compat.v1.train, "SessionRunHook"):
    raise ImportError(
        "tfschedules.estimator needs tf.estimator or "
        "tf.compat.v1.train.MonitoredTrainingSession. Installed: TensorFlow "
        f"{tf.__version__}, which has neither. With it, model.fit takes callbacks: "
        "tfschedules.OneCycle, RangeTest, TensorBoardLogger."
    )

from tfschedules.estimator.rates import ScheduleHook, learning_rate
from tfschedules.estimator.recording import TensorBoardHook
from tfschedules.estimator.sweep import RangeTestHook

__all__ = ["RangeTestHook", "ScheduleHook", "TensorBoardHook", "learning_rate"]
