"""What recording a step of four values costs: ours beside `tf.summary.scalar`.

    python -m benchmarks.tensorboard_writing [--steps 10000] [--repeats 7]

Prints medians, in µs and in bytes a step, of repetitions that take turns. Ours is
handed arrays, as the logger does at the end of an epoch; "in blocks of 100" is a
short epoch. `tf.summary.scalar` is called as a callback calls it: at every step, for
every value. Its flush is inside its time, and ours inside ours.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tfschedules.tensorboard import EventWriter

TAGS = [
    f"schedule/{name}" for name in ("learning_rate", "momentum", "weight_decay", "loss")
]


def ours(run_dir: str, values: np.ndarray, block: int) -> None:
    """Write `values` [steps, 4] in blocks of so many steps."""
    with EventWriter(run_dir) as writer:
        for begin in range(0, len(values), block):
            part = values[begin : begin + block]
            steps = np.arange(begin, begin + len(part))
            columns = dict(zip(TAGS, part.T, strict=True))
            writer.scalars(steps, 1.7e9 + steps, columns)
            writer.flush()


def tf_summary(run_dir: str, values: np.ndarray) -> None:
    """Write `values` [steps, 4] with TensorFlow, value by value."""
    import tensorflow as tf

    writer = tf.summary.create_file_writer(run_dir)
    with writer.as_default():
        for step, row in enumerate(values):
            for tag, value in zip(TAGS, row, strict=True):
                tf.summary.scalar(tag, value, step=step)
    writer.close()


def cost(write: Callable[[str], None], steps: int) -> tuple[float, float]:
    """Microseconds and bytes a step."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        write(folder)
        seconds = time.perf_counter() - begin
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
    return seconds / steps * 1e6, size / steps


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    values = np.random.default_rng(0).lognormal(size=(options.steps, len(TAGS)))

    writers: dict[str, Callable[[str], None]] = {
        "tfschedules, at once": lambda folder: ours(folder, values, options.steps),
        "tfschedules, in blocks of 100": lambda folder: ours(folder, values, 100),
    }
    try:
        import tensorflow  # noqa: F401
    except ImportError:
        print("TensorFlow is not installed: `tf.summary.scalar` is left out.")
    else:
        writers["tf.summary.scalar"] = lambda folder: tf_summary(folder, values)

    for write in writers.values():  # caches, kernels
        cost(write, options.steps)
    costs: dict[str, list[tuple[float, float]]] = {name: [] for name in writers}
    for _ in range(options.repeats):
        for name, write in writers.items():
            costs[name].append(cost(write, options.steps))

    print(f"{options.steps} steps of {len(TAGS)} values, {options.repeats} repeats")
    print(f"{'':32}{'µs/step':>10}{'min':>9}{'max':>9}{'bytes/step':>13}")
    for name, pairs in costs.items():
        times, sizes = zip(*pairs, strict=True)
        print(
            f"{name:32}{statistics.median(times):10.2f}{min(times):9.2f}"
            f"{max(times):9.2f}{statistics.median(sizes):13.1f}"
        )


if __name__ == "__main__":
    main()
