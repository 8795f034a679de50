"""Many schedules one after another, in a graph whose size does not grow with them.

A graph that evaluates every part of a `Join` and takes one of the values costs some ten
milliseconds of tracing a part. Here the part is looked up first. Parts of one form,
ramps of one kind or sums of such, differ in numbers alone, which are looked up in
tables; so a form is evaluated once. To the bit it is what one part after another gives,
but for JAX, which does not divide by a constant and multiplies by its inverse.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from tfschedules.schedules.arithmetic import Clip, Pair
from tfschedules.schedules.base import Constant, Schedule
from tfschedules.schedules.shapes import Ramp
from tfschedules.schedules.spans import Spans
from tfschedules.schedules.steps import Time

_Spans = tuple[tuple[Schedule, Any], ...]


def value_of(spans: _Spans, time: Time) -> Any:
    """The value of the schedule that has begun last.

    Args:
        spans: Schedules with the moments at which they begin, increasing; the first
            begins at or before step 0, or with the time itself, where it is `None`.
        time: The moment.
    """
    ops, value = time.ops, None
    first, groups = _plan(spans, dataclasses.replace(time, whole=None, ops=None))
    index = time.row_at(first)
    for group in groups:
        if group.table is None:
            begun = time if group.edge is None else time.since(group.edge)
            own = group.schedule.equation(begun)
        else:
            own = _looked_up(group.table, time.looked_up(group.rows, index), time)
        if value is None:
            value = own
        else:
            now = time.looked_up(group.chosen, index)
            value = ops.where(now, time.as_float(own), time.as_float(value))
    return value


@dataclasses.dataclass(frozen=True)
class _Part:
    """A schedule, and its own time as it is at the first step of it.

    Attributes:
        schedule: The schedule.
        edge: When it begins, in steps; `None` if with the time itself.
        first: The first whole step of it.
        begun: Its own time then.
    """

    schedule: Any
    edge: float | None
    first: int
    begun: Time


@dataclasses.dataclass(frozen=True)
class _Table:
    """The numbers of schedules of one form, one row each.

    Attributes:
        kind: Their class.
        numbers: Columns by field.
        spans: When they are, if they are ramps.
        inside: The tables of schedules in them, by field.
    """

    kind: Any
    numbers: Mapping[str, np.ndarray]
    spans: Spans | None
    inside: Mapping[str, _Table]


@dataclasses.dataclass(frozen=True)
class _Group:
    """Parts that are evaluated together, or a part by itself.

    Attributes:
        schedule: The first of them.
        edge: When it begins, as in a `_Part`.
        chosen: Of every part, whether it is one of them.
        rows: Of every part, its row in the table.
        table: Their numbers; `None` of a part by itself.
    """

    schedule: Schedule
    edge: float | None
    chosen: np.ndarray
    rows: np.ndarray
    table: _Table | None


@functools.lru_cache(maxsize=64)
def _plan(spans: _Spans, time: Time) -> tuple[np.ndarray, list[_Group]]:
    """Where parts begin, and how they are evaluated, in a time without steps.

    It is kept: TensorFlow's AutoGraph makes Python many times slower while it traces.
    """
    at_first = dataclasses.replace(time, whole=np.asarray(0), ops=np)
    parts = []
    for schedule, edge in spans:
        if edge is None:
            parts.append(_Part(schedule, None, 0, at_first))
        elif time.first_after(edge) <= time.limit:
            own = time.part_at(edge)
            begun = dataclasses.replace(at_first, part=own, before=0)
            parts.append(_Part(schedule, edge, time.first_after(edge), begun))
    forms: dict[Hashable, list[int]] = {}
    for i, part in enumerate(parts):
        form = _form(part.schedule, part)
        forms.setdefault(("alone", i) if form is None else form, []).append(i)
    first = time.whole_constants([part.first for part in parts])
    groups = []
    for members in forms.values():
        chosen = np.zeros(len(parts), bool)
        chosen[members] = True
        rows = np.zeros(len(parts), first.dtype)
        rows[members] = np.arange(len(members))
        one, some = parts[members[0]], [parts[i] for i in members]
        table = _table(some, time) if len(some) > 1 else None
        groups.append(_Group(one.schedule, one.edge, chosen, rows, table))
    return first, groups


def _form(schedule: Schedule, part: _Part) -> Hashable | None:
    """What schedules that are evaluated together have in common; `None` if alone."""
    kind = type(schedule)
    if isinstance(schedule, Constant):
        return kind
    if isinstance(schedule, Ramp):
        # Only what says which numbers it reads. Ramps of a step or less, and those
        # that have begun before step 0, are counted in another way.
        says = schedule.has_table and part.first >= 0
        return kind if says and part.begun.first_after(_length(schedule)) > 1 else None
    if isinstance(schedule, Clip):
        inside = _form(schedule.schedule, part)
        return None if inside is None else (kind, inside)
    if isinstance(schedule, Pair):
        forms = [_form(each, part) for each in (schedule.first, schedule.second)]
        return None if None in forms or schedule.grows(part.begun) else (kind, *forms)
    return None


def _table(parts: Sequence[_Part], time: Time) -> _Table:
    """The numbers of parts of one form."""
    kind: Any = type(parts[0].schedule)

    def numbers(*names: str) -> dict[str, np.ndarray]:
        rows = {
            name: [getattr(part.schedule, name) for part in parts] for name in names
        }
        return {name: time.constants(column) for name, column in rows.items()}

    def inside(*names: str) -> dict[str, _Table]:
        return {
            name: _table(
                [
                    dataclasses.replace(part, schedule=getattr(part.schedule, name))
                    for part in parts
                ],
                time,
            )
            for name in names
        }

    if issubclass(kind, Constant):
        return _Table(kind, numbers("value"), None, {})
    if issubclass(kind, Clip):
        return _Table(kind, numbers("lower", "upper"), None, inside("schedule"))
    if issubclass(kind, Pair):
        return _Table(kind, {}, None, inside("first", "second"))
    return _Table(kind, numbers(*kind.numbers), _spans(parts, time), {})


def _spans(parts: Sequence[_Part], time: Time) -> Spans:
    """When ramps are."""
    lengths = [time.scaled(_length(part.schedule)) for part in parts]
    last = time.whole_constants(
        [part.first + part.begun.first_after(_length(part.schedule)) for part in parts]
    )
    rest = [
        part.begun.rest(length, int(end) - part.first)
        for part, length, end in zip(parts, lengths, last, strict=True)
    ]
    return Spans(
        first=time.whole_constants([part.first for part in parts]),
        offset=np.array([part.begun.offset for part in parts], np.float64),
        last=last,
        rest=np.array([float(each) for each in rest]),
        length=np.array([float(each) for each in lengths]),
    )


def _length(ramp: Any) -> float:
    return ramp.steps  # in steps: else it would not be evaluated


def _looked_up(table: _Table, row: Any, time: Time) -> Any:
    """The value of the schedule in a row."""
    ops = time.ops
    numbers = {
        name: time.looked_up(column, row) for name, column in table.numbers.items()
    }
    inside = {name: _looked_up(each, row, time) for name, each in table.inside.items()}
    if issubclass(table.kind, Constant):
        return numbers["value"]
    if issubclass(table.kind, Clip):
        return table.kind.of(**inside, **numbers, time=time)
    if issubclass(table.kind, Pair):
        return table.kind.operate(**inside)
    assert table.spans is not None
    # In what other rows are for, ramps have not begun, or are over.
    now = ops.minimum(time.whole, time.looked_up(table.spans.last, row))
    now = ops.maximum(now, time.looked_up(table.spans.first, row))
    done, left = time.over_row(table.spans, row, now)
    return table.kind.blend(
        types.SimpleNamespace(**numbers, has_table=True), done, left, ops
    )
