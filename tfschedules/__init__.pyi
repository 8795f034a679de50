from . import estimator as estimator, models as models
from .callbacks import (
    CyclicalLearningRate as CyclicalLearningRate,
    HyperparameterScheduler as HyperparameterScheduler,
    OneCycle as OneCycle,
    ReduceOnPlateau as ReduceOnPlateau,
    SnapshotEnsemble as SnapshotEnsemble,
    WarmRestarts as WarmRestarts,
    driven as driven,
)
from .finding import (
    RangeTest as RangeTest,
    RangeTestComparison as RangeTestComparison,
    RangeTestResult as RangeTestResult,
    Sweep as Sweep,
    compare_range_tests as compare_range_tests,
    find_learning_rate as find_learning_rate,
    suggest as suggest,
    sweep as sweep,
)
from .layers import (
    GradualUnfreezing as GradualUnfreezing,
    LayerGroup as LayerGroup,
    LayerwiseOptimizer as LayerwiseOptimizer,
    discriminative_groups as discriminative_groups,
    fine_tune as fine_tune,
    layer_decay_groups as layer_decay_groups,
)
from .schedules import (
    Constant as Constant,
    Cosine as Cosine,
    Exponential as Exponential,
    InverseSqrt as InverseSqrt,
    Join as Join,
    Linear as Linear,
    Noise as Noise,
    PerCycle as PerCycle,
    Piecewise as Piecewise,
    Polynomial as Polynomial,
    Repeat as Repeat,
    ScaleFunction as ScaleFunction,
    Schedule as Schedule,
    SquareRoot as SquareRoot,
    cyclical as cyclical,
    epochs as epochs,
    fit_share as fit_share,
    flat_cosine as flat_cosine,
    one_cycle as one_cycle,
    polynomial_restarts as polynomial_restarts,
    swa as swa,
    warm_restarts as warm_restarts,
    warmup as warmup,
    warmup_stable_decay as warmup_stable_decay,
)
from .tensorboard import TensorBoardLogger as TensorBoardLogger

__version__: str
__all__: list[str]
