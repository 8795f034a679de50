"""By what a state is known, and the journal in which it is noted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tfschedules._support import journal
from tfschedules.drive import fingerprint
from tfschedules.tensorboard import Journal, begin_run, find_run, let_go

SGD = keras.optimizers.SGD

# The journal. ---------------------------------------------------------------------

STATE, OTHER = "5ca1ab1e" * 4, "f00d" * 8


@pytest.mark.parametrize("lost", [1, 2, 3, 4, 8, 9, 10, 20, 42, 47, 50])
def test_a_journal_that_is_cut_off_anywhere_keeps_its_whole_lines(
    lost: int, tmp_path: Path
) -> None:
    """What is added after a kill is a line of its own, and makes no cut one whole."""
    journal = Journal(str(tmp_path))
    journal.make()
    journal.begin(0)
    journal.note_state(20, STATE)
    journal.end(234)
    path = tmp_path / "tfschedules.run"
    whole = path.read_bytes()
    path.write_bytes(whole[:-lost])
    after = Journal(str(tmp_path))
    after.note_state(30, OTHER)
    again = Journal(str(tmp_path))
    assert again.id == journal.id != ""
    assert again.passed(30, OTHER)
    assert again.passed(20, STATE) == (lost <= len("end 234\n"))
    assert (again.open_from, again.reached) == (0, 30)
    again.end(31)
    assert (Journal(str(tmp_path)).open_from, again.open_from) == (None, None)


def test_a_journal_that_somebody_else_has_written_to_is_read_anew(
    tmp_path: Path,
) -> None:
    one = Journal(str(tmp_path))
    one.make()
    one.begin(0)
    other = Journal(str(tmp_path))
    other.note_state(20, STATE)
    other.begin(10, back=True)
    one.refresh()
    assert not one.passed(20, STATE)
    assert (one.reached, one.open_from) == (10, 0)
    with pytest.raises(OSError, match="Cannot write the journal of the run"):
        Journal(str(tmp_path / "nowhere")).make()


def test_a_start_from_an_unknown_state_reads_only_the_journals_that_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many runs there are, of however many states."""
    for number in range(30):
        one = begin_run(tmp_path, "schedules")
        one.begin(0)
        let_go(one.run_dir)
        states = (f"state {step} {number:08x}{step:08x}" for step in range(1, 2000))
        with (Path(one.run_dir) / "tfschedules.run").open("a") as file:
            file.write("\n".join([*states, "end 1999", ""]))
    read, lines = [], journal._lines

    def reading(data: bytes) -> Any:
        read.append(len(data))
        return lines(data)

    monkeypatch.setattr(journal, "_lines", reading)
    found = find_run(tmp_path, "schedules", 1999, OTHER)
    assert found.stranger
    assert len([size for size in read if size > 100]) == 1  # is the last one unused?
    let_go(found.journal.run_dir)
    read.clear()
    found = find_run(tmp_path, "schedules", 1999, f"{20:08x}{1999:08x}")
    assert Path(found.journal.run_dir).name == "schedules_20"
    assert len([size for size in read if size > 100]) == 1
    let_go(found.journal.run_dir)


@pytest.mark.parametrize("shape", [(3,), (1 << 20,), (3, 1 << 19), (2000, 3000)])
def test_a_fingerprint_sees_the_smallest_change(shape: tuple[int, ...]) -> None:
    """Also of a weight that is too large to be read as a whole."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile(SGD(0.1), "mse")
    layer = keras.layers.Layer()
    weight = layer.add_weight(shape=shape, initializer="zeros")
    model.optimizer.build([weight])
    before = fingerprint(model)
    assert fingerprint(model) == before
    value = np.zeros(shape, "float32")
    value.flat[2] = 1e-30
    weight.assign(value)
    changed = fingerprint(model)
    model.optimizer.iterations.assign(1)
    assert len({before, changed, fingerprint(model)}) == 3


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_trainings_of_one_frozen_backbone_have_fingerprints_of_their_own(
    momentum: float,
) -> None:
    """The many small weights are the same, and one large weight, the head, is not."""
    inputs = outputs = keras.Input((8,))
    for _ in range(40):
        outputs = keras.layers.BatchNormalization()(outputs)
    model = keras.Model(inputs, keras.layers.Dense(500, use_bias=False)(outputs))
    model.compile(SGD(0.1, momentum=momentum), "mse")
    model.optimizer.build(model.trainable_variables)
    head = model.layers[-1].kernel
    before = fingerprint(model)
    head.assign(head + 1.0)
    changed = fingerprint(model)
    assert before != changed
    for layer in model.layers[:-1]:
        layer.trainable = False  # as where the file is loaded, and not yet frozen
    assert fingerprint(model) == changed
    if momentum:
        speed = model.optimizer.momentums[-1]
        assert speed.shape == head.shape
        speed.assign(speed + 1.0)
        assert fingerprint(model) != changed


def test_heads_take_something_of_each_and_little_of_all() -> None:
    from types import SimpleNamespace

    from tfschedules.drive import heads

    shapes = [(3,)] * 900 + [(1000, 1000)] * 100 + [(2, 1 << 20)]
    found = list(heads([SimpleNamespace(shape=shape) for shape in shapes]))
    assert len(found) == len(shapes)
    total = 0
    for variable, part in found:
        taken = np.empty(variable.shape, "bool")[() if part is None else part].size
        assert taken > 0
        total += taken
    assert 1 << 17 < total <= 1 << 18
