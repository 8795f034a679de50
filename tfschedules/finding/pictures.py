"""Results of range tests drawn on given Axes.

Names of metrics and groups are the user's text. matplotlib takes two `$` in a text for
mathematics, the whole text for TeX where `text.usetex` is set, and leaves out of a
legend what begins with "_". `axes.say` and `_entry` show such a text as it was written.
"""

from __future__ import annotations

import base64
import html
import importlib.util
import io
import math
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tfschedules._support.axes import DPI, SIZE, axes_of, say
from tfschedules._support.tables import NO_MATH

if TYPE_CHECKING:
    from tfschedules.finding.result import RangeTestResult

_RAW, _CURVE, _MARK, _CYCLE = "#9db4d3", "#1f4e8c", "#d1495b", "#e9c46a"
# matplotlib adds margins, of a share of the axis: numbers end at 1.8e308.
_FAR, _HIGHEST_RATE = 1e300, 1e100
_LONGEST = 60  # letters of a name


def _name(text: str) -> str:
    """A name in one line, without the middle of what is long."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[:40]} … {text[-15:]}"


def _entry(name: str) -> str:
    """A name for a legend, which the user may make anew, with other lines in it."""
    import matplotlib as mpl

    if mpl.rcParams["text.parse_math"]:
        name = name.replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name


def _legend(ax: Any, entries: Collection[str]) -> None:
    """Name the lines; `entries` are those that no TeX is to read."""
    legend = ax.legend(frameon=False, fontsize="small")
    for text in legend.get_texts():
        if text.get_text() in entries:
            text.set_usetex(False)


def _drawn(values: np.ndarray) -> np.ndarray:
    """The values, and NaN, which is not drawn, where they are infinite or nearly."""
    return np.where(np.abs(values) < _FAR, values, np.nan)


def _height(result: RangeTestResult, rates: np.ndarray, curve: np.ndarray) -> float:
    """The curve's height at the suggested rate; NaN where it has none."""
    if not len(rates) or result.suggestion is None:
        return math.nan
    return float(np.interp(result.suggestion, rates, curve))


def _has_place(rates: np.ndarray) -> np.ndarray:
    """Where rates can be drawn on a logarithmic axis."""
    return (rates > 1 / _HIGHEST_RATE) & (rates < _HIGHEST_RATE)


def plot_range_test(result: RangeTestResult, ax: Any = None, figure: Any = None) -> Any:
    """Draw what was read over the rate: raw, smoothed, with what is suggested.

    Several sweeps are drawn as a band from the lowest to the highest, and their mean.
    """
    rates, raw, smoothed = result.learning_rates, result.values, result.smoothed_values
    seen = ~np.isnan(smoothed) | ~np.isnan(raw)
    if result.metric == "loss":
        seen[:] = True
    seen &= _has_place(rates)
    rates, raw, smoothed = rates[seen], _drawn(raw[seen]), _drawn(smoothed[seen])
    several = len(result.sweeps) > 1
    name = "batch loss" if result.metric == "loss" else _entry(_name(result.metric))
    with axes_of(ax, figure) as ax:
        # Within a decade the labels of a logarithmic axis run into one another.
        wide = len(rates) > 0 and rates[-1] / 10 >= rates[0]
        ax.set_xscale("log" if result.mode == "exponential" and wide else "linear")
        label = f"mean of {len(result.sweeps)}" if several else name
        ax.plot(rates, raw, color=_RAW, linewidth=1, label=label)
        ax.plot(rates, smoothed, color=_CURVE, linewidth=2, label="smoothed")
        limits = _limits(raw, smoothed, result.higher_is_better)
        if limits is not None:
            ax.set_ylim(limits)
        if several:
            sweeps = result.sweeps[:, seen]
            low, high = np.fmin.reduce(sweeps), np.fmax.reduce(sweeps)  # without NaN
            low, high = _drawn(low), _drawn(high)
            ax.fill_between(rates, low, high, color=_RAW, alpha=0.35, linewidth=0)
        if result.bounds is not None and _has_place(np.array(result.bounds)).all():
            ax.axvspan(*result.bounds, color=_CYCLE, alpha=0.3, lw=0, label="cycle")
        if result.suggestion is not None and _has_place(np.array(result.suggestion)):
            height = _height(result, rates, smoothed)
            label = f"suggestion {result.suggestion:.2g}"
            ax.axvline(result.suggestion, color=_MARK, linewidth=1.2, linestyle="--")
            ax.plot([result.suggestion], [height], "o", color=_MARK, label=label)
        group = "" if result.group is None else f" of {_name(result.group)}"
        say(ax.set_xlabel, f"learning rate{group}")
        say(ax.set_ylabel, _name(result.metric))
        _legend(ax, {name})
    return ax


def plot_comparison(
    results: Mapping[str, RangeTestResult], figure: Any = None, *, ax: Any = None
) -> Any:
    """Draw the smoothed curves of several range tests, each with its suggestion."""
    with axes_of(ax, figure) as ax:
        limits: list[float] = []
        for label, result in results.items():
            seen = ~np.isnan(result.smoothed_values)
            seen &= _has_place(result.learning_rates)
            rates = result.learning_rates[seen]
            smoothed = _drawn(result.smoothed_values[seen])
            entry = _entry(_name(label))
            (line,) = ax.plot(rates, smoothed, linewidth=1.8, label=entry)
            limits += _limits(smoothed, smoothed, result.higher_is_better) or ()
            suggestion = np.array([result.suggestion or np.nan])
            if _has_place(suggestion).all():
                height = _height(result, rates, smoothed)
                ax.plot(suggestion, [height], "o", color=line.get_color())
            ax.set_xscale("log" if result.mode == "exponential" else "linear")
            say(ax.set_ylabel, _name(result.metric))
        if limits:
            ax.set_ylim(min(limits), max(limits))
        say(ax.set_xlabel, "learning rate")
        _legend(ax, {_entry(_name(label)) for label in results})
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
    seen = _finite(raw)
    if higher_is_better and len(seen) and seen.min() >= 0 and seen.max() <= 1:
        # An accuracy, most likely: none is below 0 or above 1.
        low, high = max(low, -0.02), min(high, 1.02)
    return low, high


def _limits_of_descent(
    raw: np.ndarray, smoothed: np.ndarray
) -> tuple[float, float] | None:
    """What shows the descent: the losses of a divergence would flatten it to a line."""
    curve, seen = _finite(smoothed), _finite(raw)
    if len(curve) < 2:
        return None
    low, top = float(curve.min()), float(curve[: max(3, len(curve) // 5)].max())
    if len(seen):
        low = min(low, float(seen.min()))
        top = max(top, float(np.quantile(seen, 0.5)))
    # Numbers that hardly differ are no descent, and no axis has room between them.
    margin = 0.15 * max(top - low, 1e-9 * max(abs(top), abs(low))) or 1.0
    return low - margin / 2, top + 2 * margin


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


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
    return f'<div {NO_MATH}>{picture}<pre style="{style}">{text}</pre></div>'


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
    """A picture inside HTML, or why there is none; nothing without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return ""
    try:
        png, width, _ = _png(draw)
    except Exception as error:  # the text below the picture is what counts
        why = html.escape(f"{type(error).__name__}: {error}")
        return f"<p>The picture cannot be drawn: {why}</p>"
    data = base64.b64encode(png).decode()
    return (
        f'<img src="data:image/png;base64,{data}" width="{width * 2 // 3}" '
        'alt="over the learning rate">'
    )
