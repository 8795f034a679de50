"""Event files with known values, and processes that write them."""

from __future__ import annotations

import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
from event_files import accumulated

from tfschedules.tensorboard import EventWriter, find_run

TAGS = ("schedule/learning_rate", "schedule/momentum", "schedule/loss")
NOW = 1.7e9


def png(width: int = 3, height: int = 2) -> bytes:
    """A black picture, put together from the PNG specification."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress((b"\0" + bytes(width)) * height)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def write(run_dir: Path | str, steps, tags=TAGS, seed: int = 0) -> dict:
    """Write random values at `steps`, and return what was written."""
    steps = np.asarray(steps)
    rng = np.random.default_rng(seed)
    values = {tag: rng.lognormal(size=len(steps)) for tag in tags}
    with EventWriter(run_dir) as writer:
        writer.scalars(steps, NOW + steps * 0.5, values)
    return values


def steps_of(run_dir: Path | str, tag: str = TAGS[0]) -> list[int]:
    return [point.step for point in accumulated(run_dir).Scalars(tag)]


def outcome(child: subprocess.Popen) -> tuple[int, str]:
    """The exit status of a child, and all it said."""
    out, error = child.communicate(timeout=60)
    return child.returncode, out + error


def found(log_dir: Path | str, step: int, *state: str) -> str:
    """The folder of the run that a training goes on in."""
    return find_run(log_dir, "schedules", step, *state).journal.run_dir
