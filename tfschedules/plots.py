"""Schedules and results drawn on given Axes.

Sizes are chosen for TensorBoard's thumbnails and for print: 5 x 3.1 inches at 160 dots
an inch, with letters of 12 points.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tfschedules.records import RangeTestResult

SIZE, DPI = (5.0, 3.1), 160
STYLE: dict[Any, Any] = {
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_RAW, _CURVE, _MARK, _CYCLE = "#9db4d3", "#1f4e8c", "#d1495b", "#e9c46a"


@contextlib.contextmanager
def _axes(ax: Any, figure: Any = None) -> Iterator[Any]:
    """The user's Axes as they are, or new ones in our style."""
    if ax is not None:
        yield ax
        return
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        if figure is None:
            import matplotlib.pyplot as plt

            figure = plt.figure(figsize=SIZE, dpi=DPI, layout="constrained")
        yield figure.add_subplot()


def plot_schedule(steps: np.ndarray, values: np.ndarray, ax: Any = None) -> Any:
    """Draw values `(n,)` over steps `(n,)`, in the Axes' next colour."""
    with _axes(ax) as ax:
        ax.plot(steps, values, linewidth=1.8)
        ax.set_xlabel("step")
        ax.set_ylabel("value")
        if len(values):
            ax.set_ylim(bottom=min(0.0, float(np.min(values)), ax.get_ylim()[0]))
    return ax


def plot_range_test(result: RangeTestResult, ax: Any = None, figure: Any = None) -> Any:
    """Draw loss against rate: raw, smoothed, with the suggestion and the bounds."""
    rates, raw = result.learning_rates, result.losses
    smoothed = result.smoothed_losses
    with _axes(ax, figure) as ax:
        ax.set_xscale("log" if result.mode == "exponential" else "linear")
        ax.plot(rates, raw, color=_RAW, linewidth=1, label="batch loss")
        ax.plot(rates, smoothed, color=_CURVE, linewidth=2, label="smoothed")
        _fit_to_descent(ax, raw, smoothed)
        if result.bounds is not None:
            ax.axvspan(*result.bounds, color=_CYCLE, alpha=0.3, lw=0, label="cycle")
        if result.suggestion is not None:
            height = float(np.interp(result.suggestion, rates, smoothed))
            label = f"suggestion {result.suggestion:.2g}"
            ax.axvline(result.suggestion, color=_MARK, linewidth=1.2, linestyle="--")
            ax.plot([result.suggestion], [height], "o", color=_MARK, label=label)
        ax.set_xlabel("learning rate")
        ax.set_ylabel("loss")
        ax.legend(frameon=False, fontsize="small")
    return ax


def _fit_to_descent(ax: Any, raw: np.ndarray, smoothed: np.ndarray) -> None:
    """Show the descent: the losses of a divergence would flatten it to a line."""
    finite = smoothed[np.isfinite(smoothed)]
    if len(finite) < 2:
        return
    low, top = float(finite.min()), float(finite[: max(3, len(finite) // 5)].max())
    seen = raw[np.isfinite(raw)]
    low, top = min(low, float(seen.min())), max(top, float(np.quantile(seen, 0.5)))
    margin = 0.15 * (top - low) or 1.0
    ax.set_ylim(low - margin / 2, top + 2 * margin)


def range_test_png(result: RangeTestResult) -> tuple[bytes, int, int]:
    """A range test's picture as a PNG, with its width and height in pixels.

    It is drawn beside pyplot and leaves the user's figures alone.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    plot_range_test(result, figure=figure)
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    return buffer.getvalue(), *canvas.get_width_height()
