"""Learning-rate craft for Keras 3: find the rate, schedule it, watch it.

The public names below are loaded when they are first used: importing
``tfschedules`` imports neither Keras nor TensorFlow.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from tfschedules.registration import register_with_keras

if TYPE_CHECKING:
    from tfschedules import estimator as estimator, models as models
    from tfschedules.callbacks import HyperparameterScheduler
    from tfschedules.comparison import RangeTestComparison
    from tfschedules.depth import discriminative_groups, layer_decay_groups
    from tfschedules.find import compare_range_tests, find_learning_rate
    from tfschedules.fine_tuning import fine_tune
    from tfschedules.groups import LayerGroup
    from tfschedules.logger import TensorBoardLogger
    from tfschedules.optimizers import LayerwiseOptimizer
    from tfschedules.range_test import RangeTest
    from tfschedules.ready_made import (
        CyclicalLearningRate,
        OneCycle,
        WarmRestarts,
    )
    from tfschedules.recipes import (
        cyclical,
        flat_cosine,
        one_cycle,
        warm_restarts,
        warmup,
        warmup_stable_decay,
    )
    from tfschedules.records import RangeTestResult
    from tfschedules.schedules import (
        Constant,
        Cosine,
        Exponential,
        InverseSqrt,
        Join,
        Linear,
        PerCycle,
        Piecewise,
        Polynomial,
        Repeat,
        ScaleFunction,
        Schedule,
        SquareRoot,
    )
    from tfschedules.snapshots import SnapshotEnsemble
    from tfschedules.unfreezing import GradualUnfreezing
    from tfschedules.units import epochs

__version__ = "0.1.0"

_HOMES = {
    "callbacks": ("HyperparameterScheduler",),
    "ready_made": ("CyclicalLearningRate", "OneCycle", "WarmRestarts"),
    "depth": ("discriminative_groups", "layer_decay_groups"),
    "logger": ("TensorBoardLogger",),
    "find": ("compare_range_tests", "find_learning_rate"),
    "comparison": ("RangeTestComparison",),
    "fine_tuning": ("fine_tune",),
    "groups": ("LayerGroup",),
    "optimizers": ("LayerwiseOptimizer",),
    "range_test": ("RangeTest",),
    "recipes": (
        "cyclical",
        "flat_cosine",
        "one_cycle",
        "warm_restarts",
        "warmup",
        "warmup_stable_decay",
    ),
    "records": ("RangeTestResult",),
    "schedules": (
        "Constant",
        "Cosine",
        "Exponential",
        "InverseSqrt",
        "Join",
        "Linear",
        "PerCycle",
        "Piecewise",
        "Polynomial",
        "Repeat",
        "ScaleFunction",
        "Schedule",
        "SquareRoot",
    ),
    "snapshots": ("SnapshotEnsemble",),
    "unfreezing": ("GradualUnfreezing",),
    "units": ("epochs",),
}
_NAMESPACES = ("estimator", "models")  # public as modules: tfs.models.resnet
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Constant",
    "Cosine",
    "CyclicalLearningRate",
    "Exponential",
    "GradualUnfreezing",
    "HyperparameterScheduler",
    "InverseSqrt",
    "Join",
    "LayerGroup",
    "LayerwiseOptimizer",
    "Linear",
    "OneCycle",
    "PerCycle",
    "Piecewise",
    "Polynomial",
    "RangeTest",
    "RangeTestComparison",
    "RangeTestResult",
    "Repeat",
    "ScaleFunction",
    "Schedule",
    "SnapshotEnsemble",
    "SquareRoot",
    "TensorBoardLogger",
    "WarmRestarts",
    "compare_range_tests",
    "cyclical",
    "discriminative_groups",
    "epochs",
    "find_learning_rate",
    "fine_tune",
    "flat_cosine",
    "layer_decay_groups",
    "one_cycle",
    "warm_restarts",
    "warmup",
    "warmup_stable_decay",
]


def __getattr__(name: str) -> Any:
    if name in _NAMESPACES:
        return importlib.import_module(f"tfschedules.{name}")
    if name not in _HOME_OF:
        # With these two Python itself asks "Did you mean …?".
        raise AttributeError(
            f"module 'tfschedules' has no attribute {name!r}",
            name=name,
            obj=sys.modules[__name__],
        )
    value = getattr(importlib.import_module(f"tfschedules.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_NAMESPACES})


register_with_keras()
