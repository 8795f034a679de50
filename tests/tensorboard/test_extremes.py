"""The extremes beside scalars: what TensorBoard's sampling must not lose."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from event_files import accumulated
from tensorboard.util import tensor_util

from tfschedules.tensorboard import EventWriter, joined_extremes
from tfschedules.tensorboard.extremes import Extremes, thinned

pytestmark = pytest.mark.any_backend


def expected(steps: np.ndarray, values: np.ndarray, buckets: int) -> set[int]:
    """The steps that are kept, found one by one."""
    width = 1
    while steps[-1] // width - steps[0] // width >= buckets:
        width *= 2
    kept = {int(steps[0]), int(steps[-1])}
    for place in range(steps[0] // width, steps[-1] // width + 1):
        rows = [i for i, step in enumerate(steps) if step // width == place]
        finite = [i for i in rows if np.isfinite(values[i])]
        for row in (
            min(finite, key=lambda i: values[i], default=None),
            max(finite, key=lambda i: values[i], default=None),
            next((i for i in rows if not np.isfinite(values[i])), None),
        ):
            if row is not None:
                kept.add(int(steps[row]))
    return kept


def course(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps with gaps, and noise with spikes, plateaus and what is not finite."""
    rng = np.random.default_rng(seed)
    steps = np.cumsum(rng.integers(1, 4, count)) + seed
    values = np.round(rng.normal(size=count), 1).astype(np.float32)
    values[rng.integers(0, count, 5)] = 50, -50, np.nan, np.inf, -np.inf
    return steps, values


@pytest.mark.parametrize("count", [1, 2, 40, 700])
def test_each_bucket_keeps_its_lowest_highest_and_first_that_is_not_finite(count):
    for seed in range(3):
        steps, values = course(count, seed)
        by_step = dict(zip(steps.tolist(), values, strict=True))
        for buckets in (1, 16):
            found, own = thinned(steps, values, buckets)
            assert {*found.tolist()} == expected(steps, values, buckets)
            assert len(found) <= 3 * buckets + 2
            np.testing.assert_array_equal(own, [by_step[s] for s in found.tolist()])
        # Piece by piece it is the same, but for ends of pieces, which no bucket needs.
        extremes = Extremes()
        for part in np.array_split(np.arange(count), 7):
            if part.size:
                extremes.add(steps[part], {"a": values[part]})
        ((tag, table),) = extremes.tables()
        assert tag == "extremes/a"
        assert {*table[:, 0].tolist()} == expected(steps, values, 512)


def tables_of(folder) -> list[tuple[int, np.ndarray]]:
    """The step and the tensor of each record of a loss's extremes."""
    found = accumulated(folder)
    if "extremes/loss" not in found.Tags()["tensors"]:
        return []
    return [
        (event.step, tensor_util.make_ndarray(event.tensor_proto))
        for event in found.Tensors("extremes/loss")
    ]


def test_long_runs_have_their_extremes_now_and_then_and_at_the_end(tmp_path):
    count = 20_000
    steps = np.arange(count)
    values = np.sin(steps).astype(np.float32)
    spikes = [1500, 1501, 9999, 19_990]
    values[spikes] = 9, -9, 9, 9
    with EventWriter(tmp_path / "long") as writer:
        for part in np.array_split(steps, 100):
            writer.scalars(part, np.full(len(part), 1.7e9), {"loss": values[part]})
    tables = tables_of(tmp_path / "long")
    ends = [step for step, _ in tables]
    # Each at half as many steps again: few, and never much is missing while it runs.
    assert ends[-1] == count - 1
    assert 1000 <= ends[0] < 1300
    assert all(1.5 <= b / a < 1.8 for a, b in itertools.pairwise(ends[:-1]))
    for _, table in tables:
        assert table.shape[0] <= 3 * 512 + 2
        np.testing.assert_array_equal(table[:, 1], values[table[:, 0].astype(int)])
    assert {*spikes} <= {*tables[-1][1][:, 0].astype(int).tolist()}
    sizes = sum(table.nbytes for _, table in tables)
    assert sizes < 0.1 * next((tmp_path / "long").iterdir()).stat().st_size
    # Of a short run TensorBoard keeps every step.
    with EventWriter(tmp_path / "short") as writer:
        writer.scalars(steps[:1000], np.full(1000, 1.7e9), {"loss": values[:1000]})
    assert tables_of(tmp_path / "short") == []


def test_tensors_of_several_processes_are_joined_as_far_as_they_meet():
    table = np.stack([np.arange(10.0), np.arange(10.0)], axis=1)
    later, away = (table + np.array([first, 0.0]) for first in (10, 50))
    steps, values, reach = joined_extremes([later, table, table[:4], away])
    assert steps.tolist() == [*range(20), *range(50, 60)]
    assert values.tolist() == [*range(10)] * 3
    assert reach == 19  # not known: 20 to 49
    assert joined_extremes([]) is None
    assert joined_extremes([table[:0]]) is None
    for bad in (
        table[::-1],
        table[:, :1],
        table[0],
        np.full((1, 2), np.nan),
        np.full((1, 2), 1e300),
        np.array([["a", "b"]]),
        np.zeros((100_001, 2)),
    ):
        with pytest.raises(ValueError, match="extremes"):
            joined_extremes([table, bad])
