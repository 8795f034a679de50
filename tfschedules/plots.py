"""Schedules and results drawn on given Axes.

Sizes are chosen for TensorBoard's thumbnails and for print: 5 x 3.1 inches at 160 dots
an inch, with letters of 12 points.
"""

from __future__ import annotations

import base64
import contextlib
import html
import importlib.util
import io
from collections.abc import Callable, Iterator, Mapping
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
            bottom = min(0.0, float(np.min(values)), ax.get_ylim()[0])
            ax.set_ylim(bottom=bottom, auto=True)  # what is drawn next may be higher
    return ax


def plot_range_test(result: RangeTestResult, ax: Any = None, figure: Any = None) -> Any:
    """Draw what was read over the rate: raw, smoothed, with what is suggested.

    Several sweeps are drawn as a band from the lowest to the highest, and their mean.
    """
    rates, raw, smoothed = result.learning_rates, result.values, result.smoothed_values
    seen = ~np.isnan(smoothed) | ~np.isnan(raw)
    if result.metric == "loss":
        seen[:] = True
    rates, raw, smoothed = rates[seen], raw[seen], smoothed[seen]
    several = len(result.sweeps) > 1
    name = "batch loss" if result.metric == "loss" else result.metric
    with _axes(ax, figure) as ax:
        # Within a decade the labels of a logarithmic axis run into one another.
        wide = len(rates) > 0 and rates[-1] >= 10 * rates[0]
        ax.set_xscale("log" if result.mode == "exponential" and wide else "linear")
        name = f"mean of {len(result.sweeps)}" if several else name
        ax.plot(rates, raw, color=_RAW, linewidth=1, label=name)
        ax.plot(rates, smoothed, color=_CURVE, linewidth=2, label="smoothed")
        limits = _limits(raw, smoothed, result.higher_is_better)
        if limits is not None:
            ax.set_ylim(limits)
        if several:
            sweeps = result.sweeps[:, seen]
            low, high = np.fmin.reduce(sweeps), np.fmax.reduce(sweeps)  # without NaN
            ax.fill_between(rates, low, high, color=_RAW, alpha=0.35, linewidth=0)
        if result.bounds is not None:
            ax.axvspan(*result.bounds, color=_CYCLE, alpha=0.3, lw=0, label="cycle")
        if result.suggestion is not None:
            height = float(np.interp(result.suggestion, rates, smoothed))
            label = f"suggestion {result.suggestion:.2g}"
            ax.axvline(result.suggestion, color=_MARK, linewidth=1.2, linestyle="--")
            ax.plot([result.suggestion], [height], "o", color=_MARK, label=label)
        group = "" if result.group is None else f" of {result.group}"
        ax.set_xlabel(f"learning rate{group}")
        ax.set_ylabel(result.metric)
        ax.legend(frameon=False, fontsize="small")
    return ax


def plot_comparison(
    results: Mapping[str, RangeTestResult], figure: Any = None, *, ax: Any = None
) -> Any:
    """Draw the smoothed curves of several range tests, each with its suggestion."""
    with _axes(ax, figure) as ax:
        limits: list[float] = []
        for label, result in results.items():
            seen = ~np.isnan(result.smoothed_values)
            rates, smoothed = result.learning_rates[seen], result.smoothed_values[seen]
            (line,) = ax.plot(rates, smoothed, linewidth=1.8, label=label)
            limits += _limits(smoothed, smoothed, result.higher_is_better) or ()
            if result.suggestion is not None:
                height = float(np.interp(result.suggestion, rates, smoothed))
                ax.plot([result.suggestion], [height], "o", color=line.get_color())
            ax.set_xscale("log" if result.mode == "exponential" else "linear")
            ax.set_ylabel(result.metric)
        if limits:
            ax.set_ylim(min(limits), max(limits))
        ax.set_xlabel("learning rate")
        ax.legend(frameon=False, fontsize="small")
    return ax


def _limits(
    raw: np.ndarray, smoothed: np.ndarray, higher_is_better: bool
) -> tuple[float, float] | None:
    """The ends of the axis; for what rises, those of its negative turned over."""
    sign = -1.0 if higher_is_better else 1.0
    found = _limits_of_descent(sign * raw, sign * smoothed)
    if found is None:
        return None
    low, high = sorted(sign * limit for limit in found)
    if higher_is_better and np.nanmin(raw) >= 0 and np.nanmax(raw) <= 1:
        # An accuracy, most likely: none is below 0 or above 1.
        low, high = max(low, -0.02), min(high, 1.02)
    return low, high


def _limits_of_descent(
    raw: np.ndarray, smoothed: np.ndarray
) -> tuple[float, float] | None:
    """What shows the descent: the losses of a divergence would flatten it to a line."""
    finite = smoothed[np.isfinite(smoothed)]
    if len(finite) < 2:
        return None
    low, top = float(finite.min()), float(finite[: max(3, len(finite) // 5)].max())
    seen = raw[np.isfinite(raw)]
    low, top = min(low, float(seen.min())), max(top, float(np.quantile(seen, 0.5)))
    margin = 0.15 * (top - low) or 1.0
    return low - margin / 2, top + 2 * margin


Draw = Callable[[Any], Any]


def range_test_png(result: RangeTestResult) -> tuple[bytes, int, int]:
    """A range test's picture as a PNG, with its width and height in pixels."""
    return _png(lambda figure: plot_range_test(result, figure=figure))


def range_test_html(result: RangeTestResult) -> str:
    """What a notebook shows: the picture, if there is matplotlib, and the text."""
    picture = png_html(lambda figure: plot_range_test(result, figure=figure))
    # Jupyter breaks lines inside words, and numbers, unless it is told otherwise.
    style = "white-space: pre-wrap; word-break: normal"
    text = html.escape(str(result))
    return f'<div>{picture}<pre style="{style}">{text}</pre></div>'


def _png(draw: Draw) -> tuple[bytes, int, int]:
    """What `draw` draws on a figure that leaves pyplot and the user's alone."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    draw(figure)
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    return buffer.getvalue(), *canvas.get_width_height()


def png_html(draw: Draw) -> str:
    """A picture inside HTML; nothing where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return ""
    png, width, _ = _png(draw)
    data = base64.b64encode(png).decode()
    return (
        f'<img src="data:image/png;base64,{data}" width="{width * 2 // 3}" '
        'alt="over the learning rate">'
    )
