"""Event files read with TensorBoard's own readers, and processes that write them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from helpers import ROOT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata


def read(run):
    accumulator = EventAccumulator(str(run), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return {
        tag: (
            np.array([event.step for event in accumulator.Scalars(tag)]),
            np.array([event.value for event in accumulator.Scalars(tag)]),
            np.array([event.wall_time for event in accumulator.Scalars(tag)]),
        )
        for tag in accumulator.Tags()["scalars"]
    }


def runs(folder):
    return sorted(path.name for path in folder.iterdir())


def accumulated(run_dir: Path | str) -> EventAccumulator:
    everything = dict.fromkeys(("scalars", "tensors", "images"), 0)
    return EventAccumulator(str(run_dir), size_guidance=everything).Reload()


def run_python(code: str, *arguments: object, **options) -> subprocess.Popen:
    """Start Python on `code`, with this checkout importable."""
    root = str(ROOT)
    paths = [root, os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def row(run):
    """The columns of a run's row, or None."""
    found = accumulated(run).summary_metadata.get(metadata.SESSION_START_INFO_TAG)
    if found is None:
        return None
    info = metadata.parse_session_start_info_plugin_data(found.plugin_data.content)
    return {n: getattr(v, v.WhichOneof("kind")) for n, v in info.hparams.items()}


def scalars(folder: Any, tag: str) -> tuple[list[int], list[float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    events = accumulator.Scalars(tag)
    return [event.step for event in events], [event.value for event in events]
