"""The gallery: a picture of every public schedule, drawn when the site is built.

Each picture comes from evaluating the very line that stands above it.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable
from typing import Any

from svg import INK, svg

# One home for what the pictures show: a public name, and lines that make one. Recipes
# first: they are what most come for.
TABLE: dict[str, list[str]] = {
    "one_cycle": [
        "tfs.one_cycle(max_lr=0.1, total_steps=1000)",
        "tfs.one_cycle(max_lr=0.1, total_steps=1000, three_phase=True)",
    ],
    "cyclical": [
        "tfs.cyclical(base_lr=0.001, max_lr=0.006, step_size=500)",
        'tfs.cyclical(base_lr=0.001, max_lr=0.006, step_size=500, mode="triangular2")',
        "tfs.cyclical(base_lr=0.001, max_lr=0.006, step_size=500, "
        'mode="exp_range", gamma=0.9995)',
        'tfs.cyclical(base_lr=0.001, max_lr=0.006, step_size=500, window="welch")',
        'tfs.cyclical(base_lr=0.001, max_lr=0.006, step_size=500, window="hann")',
        "tfs.cyclical(base_lr=0.001, max_lr=0.006, step_size=200, step_size_down=600)",
    ],
    "warm_restarts": [
        "tfs.warm_restarts(max_lr=0.05, first_cycle=1000)",
        "tfs.warm_restarts(max_lr=0.05, first_cycle=1000, "
        "cycle_mult=1.5, peak_decay=0.8)",
    ],
    "warmup_stable_decay": [
        "tfs.warmup_stable_decay(max_lr=0.1, warmup_steps=100, stable_steps=700, "
        'decay_steps=200, decay="1-sqrt")',
    ],
    "flat_cosine": ["tfs.flat_cosine(max_lr=0.1, total_steps=1000)"],
    "polynomial_restarts": [
        "tfs.polynomial_restarts(max_lr=0.1, steps=250, power=2)",
    ],
    "warmup": [
        "tfs.warmup(tfs.Cosine(0.1, 0.0, steps=900), steps=100)",
        "tfs.warmup(tfs.Cosine(0.1, 0.0, steps=1000), steps=100, overlap=True)",
    ],
    "swa": [
        "tfs.swa(tfs.Cosine(0.1, 0.0, steps=1000), swa_start=750, swa_lr=0.05, "
        "anneal_steps=50)",
    ],
    "Noise": [
        "tfs.Noise(0.67, steps=50)",
        "tfs.Cosine(0.1, 0.0, steps=1000) * tfs.Join("
        "[tfs.Constant(1.0), tfs.Noise(0.3, steps=10), tfs.Constant(1.0)], [400, 900])",
    ],
    "Constant": ["tfs.Constant(0.1)"],
    "Linear": ["tfs.Linear(0.1, 0.0, steps=1000)"],
    "Cosine": [
        "tfs.Cosine(0.1, 0.0, steps=1000)",
        "tfs.Cosine(0.1, 0.0, steps=1000, exponent=2)",
        "tfs.Cosine(0.1, 0.0, steps=1000, k_decay=2)",
    ],
    "Exponential": ["tfs.Exponential(0.1, 0.001, steps=1000)"],
    "Polynomial": ["tfs.Polynomial(0.1, 0.0, steps=1000, power=2)"],
    "SquareRoot": ["tfs.SquareRoot(0.1, 0.0, steps=1000)"],
    "InverseSqrt": ["tfs.InverseSqrt(0.1, warmup_steps=100)"],
    "Piecewise": ["tfs.Piecewise([300, 600], [0.1, 0.05, 0.01])"],
    "Join": ["tfs.Join([tfs.Constant(0.1), tfs.Cosine(0.1, 0.01, 400)], [300])"],
    "Repeat": [
        "tfs.Repeat(tfs.Linear(0.1, 0.01, 250), 250)",
        "tfs.Repeat(tfs.warmup(tfs.Cosine(0.1, 0.0, 90), 10), 100, growth=2)",
    ],
    "PerCycle": [
        "tfs.PerCycle(0.5, steps=250)",
        "tfs.Repeat(tfs.Linear(0.1, 0.01, 250), 250) * tfs.PerCycle(0.5, steps=250)",
    ],
    "ScaleFunction": [
        "tfs.Repeat(tfs.Linear(0.1, 0.01, 250), 250) "
        "* tfs.ScaleFunction(lambda cycle: 1 / cycle, steps=250)"
    ],
}
_CURVE = {"light": "#00796b", "dark": "#4db6ac"}


def missing(public: Iterable[str]) -> list[str]:
    """Public schedules that are not in the table, or are there and not public."""
    return sorted(set(public) ^ set(TABLE))


def pages() -> dict[str, str | bytes]:
    """The gallery page and its pictures, by path in the site."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tfschedules as tfs

    text = [
        # On a phone the ends of the lines, which differ, would be out of sight.
        "<style>.md-typeset pre > code { white-space: pre-wrap }</style>\n\n"
        "# Gallery\n\nEvery schedule, each drawn from the line above it when this page "
        "was made. Steps run to the right. On the command line, "
        "`tfschedules plot one_cycle --max-lr 0.1 --total-steps 1000` draws one.\n"
    ]
    made: dict[str, str | bytes] = {}
    for name, lines in TABLE.items():
        public = getattr(tfs, name)
        sentence = (inspect.getdoc(public) or "").partition("\n\n")[0]
        text.append(f"## {name}\n")
        text.append(
            f"{' '.join(sentence.split())} [Reference][tfschedules.schedules.{name}]\n"
        )
        for number, line in enumerate(lines, 1):
            text.append(f"```python\n{line}\n```\n")
            for scheme in INK:
                path = f"gallery/{name}-{number}-{scheme}.svg"
                made[path] = _picture(line, scheme)
                text.append(f"![{line}]({path}#only-{scheme}){{ loading=lazy }}")
            text.append("")
    made["gallery.md"] = "\n".join(text)
    return made


def _picture(line: str, scheme: str) -> bytes:
    """What a line of code makes, as an SVG without a background."""
    import tfschedules as tfs
    from tfschedules.commands import plot

    def draw(figure: Any) -> None:
        label = plot.label_of(line)
        plot.draw(eval(line, {"tfs": tfs}), figure, label=label)

    return svg(draw, scheme, colors=[_CURVE[scheme]], salt=line)
