"""Pictures of the site: SVG without a background, for the light and the dark scheme."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

INK = {"light": "#3a3f45", "dark": "#d5d9e0"}


def svg(
    draw: Callable[[Any], object],
    scheme: str,
    *,
    colors: list[str],
    salt: str,
    style: dict[str, Any] | None = None,
) -> bytes:
    """What `draw` draws on a figure; the same `salt` and picture, the same file."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    ink, buffer = INK[scheme], io.BytesIO()
    settings: dict[str, Any] = {
        "axes.edgecolor": ink,
        "axes.labelcolor": ink,
        "axes.prop_cycle": mpl.cycler(color=colors),
        "svg.hashsalt": salt,
        "text.color": ink,
        "xtick.color": ink,
        "ytick.color": ink,
        **(style or {}),
    }
    with mpl.rc_context(settings):
        figure = Figure()
        draw(figure)
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()
