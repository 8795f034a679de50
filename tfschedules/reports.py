"""A range test's result as a TensorBoard run: scalars, a picture and a report."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Sequence

import numpy as np

from tfschedules import plots
from tfschedules.records import RangeTestResult
from tfschedules.tensorboard import EventWriter, new_run


def new_range_test_run(log_dir: str | os.PathLike[str]) -> str:
    """Make `<log_dir>/range_test`, or `range_test_1`, … if that is there.

    Raises:
        OSError: If the folder cannot be made.
    """
    return new_run(log_dir, "range_test")


def write_range_test(
    result: RangeTestResult, run_dir: str, wall_times: Sequence[float] | None = None
) -> None:
    """Write a result into a run's folder.

    Scalars are written at the sweep's steps 0 … n-1 under `range_test/loss`,
    `range_test/smoothed_loss` and `range_test/learning_rate`. The picture,
    `range_test/curve`, needs matplotlib and is left out where that is not installed.

    Args:
        result: What to write.
        run_dir: The run's folder.
        wall_times: When the updates were made, seconds since 1970, `(n,)`.

    Raises:
        OSError: If it cannot be written.
    """
    count = len(result.losses)
    times = np.full(count, time.time()) if wall_times is None else wall_times
    with EventWriter(run_dir) as writer:
        writer.scalars(
            np.arange(count),
            times,
            {
                "range_test/loss": result.losses,
                "range_test/smoothed_loss": result.smoothed_losses,
                "range_test/learning_rate": result.learning_rates,
            },
        )
        if count and importlib.util.find_spec("matplotlib") is not None:
            picture, width, height = plots.range_test_png(result)
            writer.image("range_test/curve", picture, width, height, step=0)
        writer.text("range_test/report", report(result), step=0)


def report(result: RangeTestResult) -> str:
    """The result in Markdown, with the rule's rates and a line of code to paste."""
    summary = "\n\n".join(str(result).splitlines())
    rows = "\n".join(
        f"| {name} | {'none' if rate is None else f'{rate:.3g}'} |"
        for name, rate in result.suggestions.items()
    )
    lines = [summary, f"| rule | learning rate |\n| --- | --- |\n{rows}"]
    if result.suggestion is not None:
        lines.append(
            "```python\n"
            "model.fit(x, y, epochs=epochs, "
            f"callbacks=[tfs.OneCycle(max_lr={result.suggestion:.3g})])\n"
            "```"
        )
    return "\n\n".join(lines)
