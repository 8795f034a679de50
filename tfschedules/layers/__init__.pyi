from .depth import (
    discriminative_groups as discriminative_groups,
    layer_decay_groups as layer_decay_groups,
)
from .fine_tuning import fine_tune as fine_tune
from .groups import LayerGroup as LayerGroup
from .optimizer import LayerwiseOptimizer as LayerwiseOptimizer
from .unfreezing import GradualUnfreezing as GradualUnfreezing

__all__: list[str]
