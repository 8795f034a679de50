from .loop import driven as driven
from .plateau import ReduceOnPlateau as ReduceOnPlateau
from .position import (
    epochs_of as epochs_of,
    resumed_position as resumed_position,
    updates_in as updates_in,
    updates_in_epoch as updates_in_epoch,
)
from .ready_made import (
    CyclicalLearningRate as CyclicalLearningRate,
    OneCycle as OneCycle,
    WarmRestarts as WarmRestarts,
)
from .scheduler import HyperparameterScheduler as HyperparameterScheduler
from .snapshots import SnapshotEnsemble as SnapshotEnsemble

__all__: list[str]
