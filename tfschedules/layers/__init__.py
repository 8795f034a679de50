"""A rate for each layer: groups of weights, and when each begins to train.

`groups` says which weights belong together; `depth` makes such groups by where a layer
stands, `group_config` and `group_table` write and show them. `optimizer` trains each
group at its own rate. `unfreezing` lets groups begin one after another, and
`fine_tuning` is the recipe of both.

May import `finding`, `callbacks`, `drive`, `schedules` and `_support`.
"""

from tfschedules._support import lazy

__getattr__, __dir__, __all__ = lazy.attach(__name__)
