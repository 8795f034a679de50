"""The one room that touches the insides of Keras's optimizers and trainers.

`drive` wraps an optimizer's update so that its hyperparameters follow schedules inside
the compiled step; `split` gives each part of the weights a rate of its own, with
`floors` under it, and `proxy` stands for an optimizer; `freezing` leaves some out;
`losses` keeps every batch's own loss, of all `replicas`; `snapshot` puts a model back
to the bit, with its `generators`, by `copies` in a `store` in memory or on disk;
`unsaved` is what a copy of one lacks; `members` lends it weights from files; `between`
shows it right after an update; `loan` gives back what was borrowed, also after an
interrupted fit; `chosen` is which of a model's optimizers is meant; `turns` tells the
steps of a fit from those of others, with a `count` of each optimizer's; `epoch_logs`
puts the rate into an epoch's logs; `insides` has what of Keras all this leans on. In a
loop of the user's own a `hold` is taken on the optimizer alone; `loop` sets its rate
between two updates, and `loop_drive` drives them, with a look at the `calls` of
functions that were compiled before. `fingerprint` tells states of a training apart,
`restored` whether a fit was put back, and `put_back` sees it happen within one.

May import `schedules` and `_support`.
"""

from tfschedules.drive.attributes import InPlace
from tfschedules.drive.between import Stops, after_steps, before_saves
from tfschedules.drive.borrower import Borrower
from tfschedules.drive.chosen import (
    Chosen,
    choose,
    is_carried,
    optimizer_given,
    optimizers_of,
    unused,
)
from tfschedules.drive.copies import NotRestoredError
from tfschedules.drive.drive import Drive, drive_of, hyperparameters_of, name_of
from tfschedules.drive.fingerprint import digest, fingerprint, heads, known_state
from tfschedules.drive.floors import Floor
from tfschedules.drive.frames import Taken, callbacks_around, fits_running
from tfschedules.drive.freezing import Freezer, layers_with_statistics
from tfschedules.drive.generators import Generators
from tfschedules.drive.hold import check_optimizer
from tfschedules.drive.loan import Functions, Loan
from tfschedules.drive.loop import Loop, check_variables
from tfschedules.drive.loop_drive import DrivenLoop, hyperparameters_checked
from tfschedules.drive.losses import StepReader, Steps, block_of, grows
from tfschedules.drive.members import Members
from tfschedules.drive.part_drive import sweep
from tfschedules.drive.part_momentum import momentum_now, own_momentum
from tfschedules.drive.proof import Proof
from tfschedules.drive.proxy import Proxy
from tfschedules.drive.put_back import around_put_back
from tfschedules.drive.replicas import is_first_process
from tfschedules.drive.restored import is_restored, mark_earlier
from tfschedules.drive.snapshot import Snapshot, Unbuilt
from tfschedules.drive.split import Clock, Part, Split, parts_of
from tfschedules.drive.state import (
    check_compiled,
    has_weights,
    innermost,
    is_compiled,
    rates_compiled,
    read,
    value_of,
)
from tfschedules.drive.tidying import AtTheEnd, Uninterrupted, do_all
from tfschedules.drive.unsaved import Unsaved
from tfschedules.drive.weights import (
    calls_in_graphs,
    is_trained_by,
    place_of,
    trained,
    trained_by,
)

__all__ = [
    "AtTheEnd",
    "Borrower",
    "Chosen",
    "Clock",
    "Drive",
    "DrivenLoop",
    "Floor",
    "Freezer",
    "Functions",
    "Generators",
    "InPlace",
    "Loan",
    "Loop",
    "Members",
    "NotRestoredError",
    "Part",
    "Proof",
    "Proxy",
    "Snapshot",
    "Split",
    "StepReader",
    "Steps",
    "Stops",
    "Taken",
    "Unbuilt",
    "Uninterrupted",
    "Unsaved",
    "after_steps",
    "around_put_back",
    "before_saves",
    "block_of",
    "callbacks_around",
    "calls_in_graphs",
    "check_compiled",
    "check_optimizer",
    "check_variables",
    "choose",
    "digest",
    "do_all",
    "drive_of",
    "fingerprint",
    "fits_running",
    "grows",
    "has_weights",
    "heads",
    "hyperparameters_checked",
    "hyperparameters_of",
    "innermost",
    "is_carried",
    "is_compiled",
    "is_first_process",
    "is_restored",
    "is_trained_by",
    "known_state",
    "layers_with_statistics",
    "mark_earlier",
    "momentum_now",
    "name_of",
    "optimizer_given",
    "optimizers_of",
    "own_momentum",
    "parts_of",
    "place_of",
    "rates_compiled",
    "read",
    "sweep",
    "trained",
    "trained_by",
    "unused",
    "value_of",
]
