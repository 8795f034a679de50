"""Schedules in a fit: the callbacks that drive a model's optimizer by them.

`scheduler` has the general one, `ready_made` those that are named after a schedule.
`plateau` reduces the rate where a metric stops improving, by the rule in
`plateau_rule`, and keeps its state by `plateau_files`.
`snapshots` keeps the model at the end of each cycle, `snapshot_owner` knows whose they
are, and `ensemble` predicts with them. `position` knows where a fit stands, new or
resumed; `early_stops`, whether it may end at a high rate. `loop` has schedules for
loops without a fit.

May import `drive`, `schedules` and `_support`.
"""

from tfschedules._support import lazy

__getattr__, __dir__, __all__ = lazy.attach(__name__)
