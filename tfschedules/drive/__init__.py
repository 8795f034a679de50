"""The one room that touches the insides of Keras's optimizers and trainers.

`drive` wraps an optimizer's update so that its hyperparameters follow schedules inside
the compiled step; `losses` keeps every batch's own loss; `snapshot` puts a model back
to the bit; `loan` gives back what was borrowed, also after an interrupted fit.
"""

from tfschedules.drive.drive import Drive, drive_of, hyperparameters_of, innermost
from tfschedules.drive.loan import Loan
from tfschedules.drive.losses import StepReader
from tfschedules.drive.snapshot import Generators, Snapshot
from tfschedules.drive.state import read, updates

__all__ = [
    "Drive",
    "Generators",
    "Loan",
    "Snapshot",
    "StepReader",
    "drive_of",
    "hyperparameters_of",
    "innermost",
    "read",
    "updates",
]
