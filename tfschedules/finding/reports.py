"""A range test's result as a TensorBoard run: scalars, a picture and a report."""

from __future__ import annotations

import html
import importlib.util
import os
import re
import time
from collections.abc import Sequence

import numpy as np

from tfschedules._support.telling import tell
from tfschedules.finding import event_record, pictures
from tfschedules.finding.result import RangeTestResult
from tfschedules.tensorboard import EventWriter, new_run

# What follows `range_test/` in the tags that every range test has.
_TAKEN = {"loss", "smoothed_loss", "learning_rate", "result", "report", "curve"}


def new_range_test_run(log_dir: str | os.PathLike[str]) -> str:
    """Make `<log_dir>/range_test`, or `range_test_1`, … if that is there.

    Raises:
        OSError: If the folder cannot be made.
    """
    return new_run(log_dir, "range_test")


def log_range_test(
    result: RangeTestResult, run_dir: str, wall_times: Sequence[float] | None = None
) -> None:
    """Write a result into a run's folder; where that fails, warn.

    The sweep has been made, and the log is an extra: its error is no reason to lose
    the result. See `write_range_test` for the arguments.
    """
    try:
        write_range_test(result, run_dir, wall_times)
    except Exception as error:
        _warn(
            f"The range test is over and its result is kept, but its log in "
            f"{run_dir!r} is missing or not whole",
            error,
        )


def write_range_test(
    result: RangeTestResult, run_dir: str, wall_times: Sequence[float] | None = None
) -> None:
    """Write a result into a run's folder.

    Scalars are written at the sweep's steps 0 … n-1 under `range_test/loss`,
    `range_test/smoothed_loss` and `range_test/learning_rate`; if another metric was
    read, also under `range_test/<metric>` (`range_test/metric <metric>` where that is
    another's tag) and `range_test/smoothed_<metric>`, at the steps where it was
    measured. The Schedules tab reads `range_test/result`. The picture,
    `range_test/curve`, needs matplotlib and is left out where that is not installed,
    and with a warning where it cannot be drawn.

    Args:
        result: What to write.
        run_dir: The run's folder.
        wall_times: When the updates were made, seconds since 1970, `(n,)`.

    Raises:
        OSError: If it cannot be written.
    """
    count = len(result.losses)
    times = np.full(count, time.time()) if wall_times is None else wall_times
    always = {
        "range_test/loss": result.losses,
        "range_test/smoothed_loss": result.smoothed_losses,
        "range_test/learning_rate": result.learning_rates,
    }
    measured = {}
    seen = np.zeros(count, bool)
    if result.metric != "loss":
        name = (
            result.metric if result.metric not in _TAKEN else f"metric {result.metric}"
        )
        seen = ~np.isnan(result.values)
        measured = {
            f"range_test/{name}": result.values,
            f"range_test/smoothed_{result.metric}": result.smoothed_values,
        }
    with EventWriter(run_dir) as writer:
        # Runs of steps with the same tags: validation data are looked at now and then.
        for part in np.split(np.arange(count), np.flatnonzero(np.diff(seen)) + 1):
            tags = always if not len(part) or not seen[part[0]] else always | measured
            series = {tag: values[part] for tag, values in tags.items()}
            writer.scalars(part, np.asarray(times)[part], series)
        table, content = event_record.to_tensor(result)
        writer.table(event_record.TAG, table, event_record.PLUGIN_NAME, content, step=0)
        writer.text("range_test/report", report(result), step=0)
        picture = _picture(result, run_dir) if count else None
        if picture is not None:
            writer.image("range_test/curve", *picture, step=0)


def _picture(result: RangeTestResult, run_dir: str) -> tuple[bytes, int, int] | None:
    if importlib.util.find_spec("matplotlib") is None:
        return None
    try:
        return pictures.range_test_png(result)
    except Exception as error:
        _warn(f"The log in {run_dir!r} has no picture of the range test", error)
        return None


def _warn(what: str, error: Exception) -> None:
    why = f"{type(error).__name__}: {error}"
    tell(f"{what}. Received: {why}", stacklevel=2)


def report(result: RangeTestResult) -> str:
    """The result in Markdown, with the rule's rates and a line of code to paste."""
    summary = "\n\n".join(_as_text(line) for line in str(result).splitlines())
    rows = "\n".join(
        f"| {_as_text(name)} | {'none' if rate is None else f'{rate:.3g}'} |"
        for name, rate in result.suggestions.items()
    )
    lines = [summary, f"| rule | learning rate |\n| --- | --- |\n{rows}"]
    if result.suggestion is not None and result.group is not None:
        lines.append(
            f"This is the rate of the group {_as_text(result.group)}: its `multiplier` "
            "times the optimizer's."
        )
    elif result.suggestion is not None:
        lines.append(
            "```python\n"
            "model.fit(x, y, epochs=epochs, "
            f"callbacks=[tfs.OneCycle(max_lr={result.suggestion:.3g})])\n"
            "```"
        )
    return "\n\n".join(lines)


def _as_text(text: str) -> str:
    """Text for Markdown: nothing in it is emphasis, a link or an element.

    Code between backticks stays code: reasons name arguments so.
    """

    def escaped(match: re.Match[str]) -> str:
        if match["code"]:
            return match["code"]
        return html.escape(match[0]) if match[0] in "<>&" else f"\\{match[0]}"

    return re.sub(r"(?P<code>`[^`]+`)|[\\`*_{}\[\]<>&#|]", escaped, text)
