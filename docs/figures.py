"""The pictures of the tutorial and the explanations, drawn when the site is built.

What a picture shows is what its page computes: the page's own blocks of Python are run,
and the picture is drawn from their variables.

    python docs/figures.py FOLDER

writes them into a folder, to be looked at.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pages as guides
from svg import INK, svg

DOCS = Path(__file__).parent
_COLORS = {
    "light": ["#00796b", "#c2185b", "#b26a00"],
    "dark": ["#4db6ac", "#f48fb1", "#ffb74d"],
}


def pages() -> dict[str, bytes]:
    """The pictures, SVG without a background, by path in the site."""
    made = {}
    for page, drawings in DRAWINGS.items():
        scope = run(DOCS / page)
        for name, draw in drawings.items():
            for scheme in INK:
                made[f"images/{name}-{scheme}.svg"] = _picture(draw, scope, scheme)
    return made


def run(page: Path) -> dict[str, Any]:
    """The variables that a page's blocks of Python leave, run in an empty folder."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with (
        tempfile.TemporaryDirectory() as folder,
        _inside(folder),
        warnings.catch_warnings(),
    ):
        return guides.run(page)


@contextlib.contextmanager
def _inside(folder: str) -> Iterator[None]:
    """Work in a folder for a while (`contextlib.chdir`, from Python 3.11 on)."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _picture(
    draw: Callable[[Any, dict[str, Any]], None], scope: Any, scheme: str
) -> bytes:
    style = {
        "axes.spines.right": False,
        "axes.spines.top": False,
        "figure.constrained_layout.use": True,
        "figure.figsize": (6.4, 3.8),
        "font.size": 12,
        "legend.frameon": False,
    }
    return svg(
        lambda figure: draw(figure, scope),
        scheme,
        colors=_COLORS[scheme],
        salt=draw.__name__,
        style=style,
    )


def _why_range_test(figure: Any, page: dict[str, Any]) -> None:
    ax = figure.add_subplot()
    ax.loglog(page["rates"], page["losses"], label="a sweep of 100 updates")
    ax.loglog(page["constant"], page["after"], label="300 updates at this rate")
    ax.axvline(page["limit"], color="gray", linewidth=1, linestyle="--")
    ax.annotate(
        "the limit 2/λ",
        (page["limit"], 10),
        (-5, 0),
        textcoords="offset points",
        ha="right",
        va="center",
    )
    ax.plot(page["suggested"], page["there"], "o", label="suggested", clip_on=False)
    ax.set_ylim(1e-3, 30)
    ax.set_xlabel("learning rate")
    ax.set_ylabel("loss")
    ax.legend(loc="lower left")


def _running_mean(figure: Any, page: dict[str, Any]) -> None:
    ax = figure.add_subplot()
    for values, label in (
        (page["losses"], "each batch's own"),
        (page["reported"], 'logs["loss"]'),
    ):
        (line,) = ax.semilogx(page["rates"], values, label=label)
        lowest = int(np.argmin(values))
        ax.plot(page["rates"][lowest], values[lowest], "o", color=line.get_color())
    ax.set_ylim(0, 1.5 * page["losses"][0])
    ax.set_xlabel("learning rate")
    ax.set_ylabel("loss")
    ax.legend(loc="lower left")


def _drive(figure: Any, page: dict[str, Any]) -> None:
    ax = figure.add_subplot()
    steps = range(page["steps"])
    ax.plot(steps, page["driven"][8], ".-", label="driven, in blocks of 8")
    ax.step(steps, page["poked"], ".", where="post", label="assigned by a callback")
    ax.set_ylim(0, 0.15)
    ax.set_xlabel("update")
    ax.set_ylabel("rate that it had")
    ax.legend(loc="upper center", ncols=2)


def _step_size(figure: Any, page: dict[str, Any]) -> None:
    ax = figure.add_subplot()
    for half, losses in page["losses"].items():
        label = f"step_size of {half} epoch{'s' if half > 1 else ''}"
        ax.plot(np.arange(1, len(losses) + 1) / 44, losses, label=label)
        ends = np.arange(2 * half * 44, len(losses) + 1, 2 * half * 44) - 1
        ax.plot((ends + 1) / 44, losses[ends], "o", color=ax.lines[-1].get_color())
    ax.set_ylim(0, 0.6)
    ax.set_xlabel("epoch")
    ax.set_ylabel("loss")
    ax.legend(loc="upper right", fontsize="small")


def _tutorial_range_test(figure: Any, page: dict[str, Any]) -> None:
    ax = figure.add_subplot()
    page["result"].plot(ax)
    raw, smoothed = ax.lines[:2]
    raw.set_color("gray")  # the package's own blue is for white paper
    smoothed.set_color("C0")
    ax.legend(loc="lower left", fontsize="small")


def _tutorial_accuracy(figure: Any, page: dict[str, Any]) -> None:
    ax = figure.add_subplot()
    for name, history in (("one cycle", page["cycle"]), ("plain fit", page["plain"])):
        accuracy = history.history["val_accuracy"]
        ax.plot(range(1, len(accuracy) + 1), accuracy, "o-", label=name)
    ax.set_xticks(range(1, len(accuracy) + 1))
    ax.set_xlabel("epoch")
    ax.set_ylabel("validation accuracy")
    ax.legend(loc="lower right")


# One home for what is drawn from which page.
DRAWINGS: dict[str, dict[str, Callable[[Any, dict[str, Any]], None]]] = {
    "drive.md": {"drive": _drive},
    "running_mean.md": {"running_mean": _running_mean},
    "step_size.md": {"step_size": _step_size},
    "tutorial.md": {
        "tutorial_accuracy": _tutorial_accuracy,
        "tutorial_range_test": _tutorial_range_test,
    },
    "why_range_test.md": {"why_range_test": _why_range_test},
}

if __name__ == "__main__":
    for path, picture in pages().items():
        target = Path(sys.argv[1]) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(picture)
