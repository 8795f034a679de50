"""Schedules drawn on given Axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfschedules._support.axes import axes_of


def plot_schedule(steps: np.ndarray, values: np.ndarray, ax: Any = None) -> Any:
    """Draw values `(n,)` over steps `(n,)`, in the Axes' next colour."""
    with axes_of(ax) as ax:
        ax.plot(steps, values, linewidth=1.8)
        ax.set_xlabel("step")
        ax.set_ylabel("value")
        if len(values):
            bottom = min(0.0, float(np.min(values)), ax.get_ylim()[0])
            ax.set_ylim(bottom=bottom, auto=True)  # what is drawn next may be higher
    return ax
