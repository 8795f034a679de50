"""What `.values(10**6)` costs, beside the bare NumPy formula.

The two take turns; printed are medians in milliseconds and of the ratios.

    python -m benchmarks.values [--rounds 15] [--steps 1000000]
"""

from __future__ import annotations

import argparse
import math
import os
import time

import numpy as np


def clr(n):
    """Smith 2015, as papers and posts write it."""
    t = np.arange(n)
    cycle = np.floor(1 + t / 4000)
    x = np.abs(t / 2000 - 2 * cycle + 1)
    return 0.001 + 0.005 * np.maximum(0, 1 - x)


def sgdr(n):
    """Equal cycles of 1000 steps."""
    t = np.arange(n) % 1000
    return 0.001 + 0.0495 * (1 + np.cos(math.pi * t / 1000))


def growing_sgdr(n):
    """Cycles of 1000·2^i steps, found with logarithms."""
    t = np.arange(n)
    i = np.floor(np.log2(t / 1000 + 1))
    share = (t - 1000 * (2**i - 1)) / (1000 * 2**i)
    return 0.001 + 0.0495 * (1 + np.cos(math.pi * share))


def cycle(n):
    """A one-cycle over all the steps."""
    t = np.arange(n)
    peak, last = 0.3 * n - 1, n - 1
    up = 0.1 + (0.004 - 0.1) / 2 * (1 + np.cos(math.pi * t / peak))
    share = np.minimum((t - peak) / (last - peak), 1)
    down = 4e-7 + (0.1 - 4e-7) / 2 * (1 + np.cos(math.pi * share))
    return np.where(t < peak, up, down)


def cosine(n):
    """Half a cosine over all the steps."""
    share = np.minimum(np.arange(n) / n, 1)
    return 0.05 * (1 + np.cos(math.pi * share))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=10**6)
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras  # noqa: F401  before the schedules are

    import tfschedules as tfs

    n = arguments.steps
    pairs = {
        "cyclical": (tfs.cyclical(0.001, 0.006, 2000), clr),
        "warm_restarts": (tfs.warm_restarts(0.1, 1000, 0.001), sgdr),
        "warm_restarts, growing": (
            tfs.warm_restarts(0.1, 1000, 0.001, cycle_mult=2),
            growing_sgdr,
        ),
        "one_cycle": (tfs.one_cycle(0.1, n)["learning_rate"], cycle),
        "cosine": (tfs.Cosine(0.1, 0.0, n), cosine),
    }

    def seconds(function) -> float:
        began = time.perf_counter()
        function(n)
        return time.perf_counter() - began

    print(f"{n:,} steps              bare ms  ours ms  ratio")
    for name, (schedule, formula) in pairs.items():
        # The same numbers: the formulas' 1 + cos and logarithms have rounding errors.
        error = np.abs(schedule.values(n) - formula(n))
        assert np.quantile(error, 0.999) < 1e-9, name
        times = [
            (seconds(formula), seconds(schedule.values))
            for _ in range(arguments.rounds)
        ]
        bare, ours = np.median(times, axis=0) * 1e3
        ratio = np.median([one / other for other, one in times])
        print(f"{name:24s} {bare:8.1f} {ours:8.1f} {ratio:6.2f}", flush=True)


if __name__ == "__main__":
    main()
