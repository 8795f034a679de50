"""The lowest and the highest of every so many steps: what TensorBoard may not lose.

TensorBoard keeps 1000 events of a scalar, chosen at random, and of a spike of one step
in 60,000 most likely none. It keeps a tensor whole. So the writer of scalars writes one
for each tag now and then, float64 `[n, 2]`: steps and their values, of each bucket of
steps the lowest, the highest and the first that is not finite, with the run's first and
last. Buckets are as many steps wide as leaves a few hundred of them.

It knows no Keras: the plugin, which reads it, is loaded by TensorBoard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

PLUGIN_NAME = "schedules"  # of the tab, whose data the tensors are
CONTENT = b'{"version": 1}'

_KEPT = 1000  # steps of which TensorBoard keeps every one
_BUCKETS = 512  # at most
_AT_ONCE = 5000  # steps that are thinned together: of few it costs too much
_GROWTH = 1.5  # of the steps, from one record to the next
_MOST_ROWS = 100_000  # of a tensor, which may come from anybody


def extremes_tag(tag: str) -> str:
    """The tag of the tensor that belongs to a scalar's tag."""
    return f"extremes/{tag}"


class Extremes:
    """The extremes of the steps that were written, by tag."""

    def __init__(self) -> None:
        self._series: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        self._steps = self._noted = self._waiting = 0

    def add(self, steps: np.ndarray, columns: Mapping[str, np.ndarray]) -> None:
        """Take in steps that rise strictly, above those before, and their values."""
        self._steps += len(steps)
        self._waiting += len(steps)
        for tag, values in columns.items():
            self._series.setdefault(tag, []).append((steps, values))
        if self._waiting >= _AT_ONCE:
            self._thin()

    def _thin(self) -> None:
        self._waiting = 0
        for series in self._series.values():
            steps, values = zip(*series, strict=True)
            series[:] = [thinned(np.concatenate(steps), np.concatenate(values))]

    @property
    def due(self) -> bool:
        """Whether enough steps for another record have come since the last."""
        return self._steps > max(_KEPT, _GROWTH * self._noted)

    @property
    def left(self) -> bool:
        """Whether steps have come since the last record, in a run that has some."""
        return self._steps > max(_KEPT, self._noted)

    def tables(self) -> Iterator[tuple[str, np.ndarray]]:
        """The tag and the tensor of each scalar."""
        self._noted = self._steps
        self._thin()
        for tag, (series,) in self._series.items():
            yield extremes_tag(tag), np.stack(series, axis=1)


def thinned(
    steps: np.ndarray, values: np.ndarray, buckets: int = _BUCKETS
) -> tuple[np.ndarray, np.ndarray]:
    """The extremes of each bucket, at most three, and the first and the last step.

    A bucket has a power of two of steps, the least that makes no more than `buckets`.
    Thinned again, or joined with others and thinned, it is what it would be of all.
    """
    if not len(steps):
        return steps, values
    shift = 0
    while (steps[-1] >> shift) - (steps[0] >> shift) >= buckets:
        shift += 1
    places = steps >> shift
    starts = np.flatnonzero(np.diff(places, prepend=places[0] - 1))
    sizes = np.diff(starts, append=len(steps))
    bad = ~np.isfinite(values)
    found = [np.array([0, len(steps) - 1]), _firsts(bad, places)]
    for ufunc, instead in ((np.minimum, np.inf), (np.maximum, -np.inf)):
        filled = np.where(bad, instead, values)
        ends = np.repeat(ufunc.reduceat(filled, starts), sizes)
        found.append(_firsts((filled == ends) & ~bad, places))
    rows = np.unique(np.concatenate(found))
    return steps[rows], values[rows]


def _firsts(chosen: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The first index of each place at which something is chosen."""
    rows = np.flatnonzero(chosen)
    return rows[np.unique(places[rows], return_index=True)[1]]


def joined_extremes(
    tensors: Sequence[np.ndarray],
) -> tuple[np.ndarray, np.ndarray, int] | None:
    """What a run's tensors hold together: steps, values, and how far that is all.

    A run that was resumed has tensors of several processes. Up to the step that is
    returned every step was seen by one of them, from the first on.

    Raises:
        ValueError: If a tensor is damaged.
    """
    # Of the tensors of one process, which begin with the same step, the last has all.
    latest: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for steps, values in (_checked(tensor) for tensor in tensors if len(tensor)):
        first = int(steps[0])
        if first not in latest or steps[-1] > latest[first][0][-1]:
            latest[first] = steps, values
    if not latest:
        return None
    series = [latest[first] for first in sorted(latest)]
    reach = int(series[0][0][-1])
    for steps, _ in series:
        if steps[0] <= reach + 1:
            reach = max(reach, int(steps[-1]))
    if len(series) == 1:
        return *series[0], reach
    steps, rows = np.unique(
        np.concatenate([steps for steps, _ in series]), return_index=True
    )
    values = np.concatenate([values for _, values in series])[rows]
    return *thinned(steps, values), reach


def _checked(tensor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if tensor.ndim != 2 or tensor.shape[1] != 2 or len(tensor) > _MOST_ROWS:
        raise ValueError(f"its extremes have the shape {tensor.shape}")
    if tensor.dtype.kind not in "fiu":
        raise ValueError(f"its extremes are {tensor.dtype}, and no numbers")
    steps, values = tensor.astype(np.float64).T
    if not (np.abs(steps) < 2**62).all() or (np.diff(steps) <= 0).any():
        raise ValueError("the steps of its extremes do not rise")
    return steps.astype(np.int64), values
