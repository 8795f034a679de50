"""Whether a sweep's training step updates with the optimizer whose rate is swept."""

from __future__ import annotations

from tfschedules.drive import Chosen, Drive, is_compiled, unused


def unswept(chosen: Chosen, drive: Drive, *, over: bool) -> str | None:
    """What is wrong, and the way out; `None` where nothing is.

    A step that is not compiled may update with some batches only: of it the first
    epoch tells.

    Args:
        chosen: The optimizer.
        drive: What sweeps its rate.
        over: Whether an epoch is.
    """
    if drive.entered or not (over or is_compiled(chosen.model)):
        return None
    how = unused(chosen, "RangeTest(…, {}), or find_learning_rate(…, {})")
    return (
        f"The range test sweeps the rate of {chosen}, and the training step does not "
        f"update with it.{how}"
    )
