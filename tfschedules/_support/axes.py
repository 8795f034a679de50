"""Axes in the style of the package, and text on them as it was written.

Sizes are chosen for TensorBoard's thumbnails and for print: 5 x 3.1 inches at 160 dots
an inch, with letters of 12 points.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

SIZE, DPI = (5.0, 3.1), 160
STYLE: dict[Any, Any] = {
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def say(set_text: Callable[..., Any], text: str, **settings: Any) -> None:
    """Set a title or the like to a text that is neither mathematics nor TeX."""
    set_text(text, parse_math=False, usetex=False, **settings)


@contextlib.contextmanager
def axes_of(ax: Any, figure: Any = None) -> Iterator[Any]:
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
