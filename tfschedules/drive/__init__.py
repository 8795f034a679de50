"""The one room that touches the insides of Keras's optimizers and trainers.

`drive` wraps an optimizer's update so that its hyperparameters follow schedules inside
the compiled step; `losses` keeps every batch's own loss; `snapshot` puts a model back
to the bit; `between` shows it right after an update; `loan` gives back what was
borrowed, also after an interrupted fit.
"""

from tfschedules.drive.between import Stops
from tfschedules.drive.drive import Drive, drive_of, hyperparameters_of
from tfschedules.drive.loan import Loan
from tfschedules.drive.losses import StepReader, block_of
from tfschedules.drive.snapshot import Generators, Snapshot
from tfschedules.drive.state import (
    batches_made,
    innermost,
    rate_of,
    read,
    updates,
)

__all__ = [
    "Drive",
    "Generators",
    "Loan",
    "Snapshot",
    "StepReader",
    "Stops",
    "batches_made",
    "block_of",
    "drive_of",
    "hyperparameters_of",
    "innermost",
    "rate_of",
    "read",
    "updates",
]
