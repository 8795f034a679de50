"""Ctrl-C at any statement, while what an earlier one has left is being tidied up.

Some statements of each case are tried, evenly spaced; all of them where the environment
has TFSCHEDULES_EVERY_STATEMENT=1.
"""

from __future__ import annotations

import contextlib
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import pytest
from helpers import JIT, patches
from injector import EVERY, Injector
from interrupted import (
    EAGERLY,
    Interrupts,
    X,
    Y,
    differences,
    find,
    names,
    network,
    state,
)
from unit_steps import rates_written, unit_model, units

import tfschedules as tfs

HOW = ["exception", "signal"]
# Where it is decided what is done when: of these every statement is always tried.
FILES = {
    "find": ("tidying.py", "sweeps.py"),
    "find, as it begins": ("borrower.py",),
    "callback": ("tidying.py",),
    "train end": ("tidying.py",),
}
FEW = 6  # statements of a case, or pairs of them, where not all are tried


@pytest.fixture(autouse=True)
def _ctrl_c() -> Iterator[None]:
    """A process that a script starts in the background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


# What is run, and what has to be right afterwards.


def handler(injector: Injector) -> list[str]:
    """What is wrong with the handler of SIGINT.

    The injector's exceptions come also where SIGINT would wait, and may leave it
    waiting: then the next SIGINT has to have its effect, and to put its handler back.
    """
    if injector.how == "exception":
        came = False
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            came = True
        if not came:
            return ["SIGINT has no effect"]
    found = signal.signal(signal.SIGINT, signal.default_int_handler)
    return [] if found is signal.default_int_handler else [f"handler: {found}"]


class Sweep:
    """A range test that makes its own fit; a model is used as long as it is right."""

    def __init__(self, call: Callable[..., Any], hook: str = "batch", **arguments: Any):
        self.call, self.hook, self.arguments = call, hook, arguments
        self.model: Any = None

    def __call__(self, injector: Injector) -> list[str]:
        model, self.model = self.model or network(**self.arguments), None
        before = state(model)
        if self.hook == "begin":
            injector.arm()
        came_out = False
        try:
            self.call(model, callbacks=[Interrupts(injector, self.hook)])
        except KeyboardInterrupt:
            came_out = True
        finally:
            injector.disarm()
        if not came_out and injector.where:
            return ["no interruption came out"]
        wrong = [*differences(before, state(model)), *handler(injector)]
        if not wrong:
            self.model = model
        return wrong


def compare(model: keras.Model, **arguments: Any) -> Any:
    arguments = {"max_lr": 1.0, "steps": 4, "batch_size": 8, **arguments}
    return tfs.compare_range_tests(
        model, X, Y, momentum=[0.5, 0.9], verbose=0, **arguments
    )


class CallbackInFit:
    """A `RangeTest` in a fit, which is asked to put the model back."""

    model: Any = None

    def __call__(self, injector: Injector) -> list[str]:
        model, self.model = self.model or network(), None
        test = tfs.RangeTest(max_lr=1.0, steps=4)
        generators = np.random.get_state(), random.getstate()
        before = state(model)
        first = Interrupts(Injector(), "batch")
        with pytest.raises(KeyboardInterrupt, match="the first"):
            model.fit(X, Y, batch_size=8, verbose=0, callbacks=[test, first])
        first.injector.disarm()
        injector.arm()
        try:
            for _ in range(3):
                with contextlib.suppress(KeyboardInterrupt):
                    test.restore()
        finally:
            injector.disarm()
        # Keras draws the order of the samples, and makes its history, before it is
        # asked.
        np.random.set_state(generators[0])
        random.setstate(generators[1])
        after = state(model)
        before["functions"] = after["functions"]
        wrong = [*differences(before, after), *handler(injector)]
        if test.result is None:
            wrong.append("no result")
        self.model = model if not wrong else None
        return wrong


GROUPS = [tfs.LayerGroup(name, [name]) for name in ("body", "head")]


class Fit:
    """A fit with loans of all kinds; what tidies up after it is interrupted."""

    def __init__(self, folder: Any, hook: str, callbacks: Callable[[Any], list[Any]]):
        self.folder, self.hook, self.callbacks = folder, hook, callbacks
        self.tries, self.model = 0, None
        self.usual: Any = None

    def __call__(self, injector: Injector) -> list[str]:
        if self.usual is None:
            self._make(Injector(), "never")
        return self._make(injector, self.hook)

    def _make(self, injector: Injector, hook: str) -> list[str]:
        self.tries += 1
        model, self.model = self.model or unit_model(**EAGERLY), None
        model.set_weights([np.zeros_like(value) for value in model.get_weights()])
        model.optimizer.learning_rate = 0.25
        x, y = units()
        plain(model, 0)
        callbacks = self.callbacks(self.folder / str(self.tries))
        first = Interrupts(injector, hook)
        if hook == "next use":
            first = Interrupts(Injector(), "batch")
        if hook == "begin":
            injector.arm()
        try:
            model.fit(
                x[2:6], y[2:6], batch_size=1, shuffle=False, verbose=0,
                callbacks=[first, *callbacks],
            )  # fmt: skip
        except KeyboardInterrupt:
            pass
        first.injector.disarm()
        injector.disarm()
        if hook == "next use":
            injector.arm()
            for _ in range(2):
                with contextlib.suppress(KeyboardInterrupt):
                    plain(model, 8, Interrupts(injector, "no step"))
            injector.disarm()
        wrong = handler(injector)
        plain(model, 10)
        model.optimizer.learning_rate = 0.5
        plain(model, 12)
        wrong += [f"left: {name}" for name in patches(model)]
        left = names(model), numbers(model)
        if self.usual is None:  # as after one that nothing interrupts
            self.usual = left
        elif left != self.usual:
            wrong.append(f"other attributes: {left}, not {self.usual}")
        if not all(weight.trainable for weight in model.weights):
            wrong.append("a weight is frozen")
        for layer in ("body", "head"):
            rates = rates_written(model, layer)
            if not np.allclose(rates[10:12], rates[10]) or rates[10] == 0:
                wrong.append(f"{layer} is driven: {rates[10:12]}")
            if not np.allclose(rates[12:14], 0.5):
                wrong.append(f"{layer} is driven: {rates[12:14]}")
        self.model = model if not wrong else None
        return wrong


def plain(model: keras.Model, at: int, *callbacks: Any) -> None:
    x, y = units()
    arguments = {"batch_size": 1, "shuffle": False, "verbose": 0}
    model.fit(x[at : at + 2], y[:2], callbacks=list(callbacks), **arguments)


def numbers(model: keras.Model) -> dict[str, Any]:
    return {n: v for n, v in vars(model.optimizer).items() if isinstance(v, float)}


def all_kinds(folder: Any) -> list[Any]:
    return [
        tfs.WarmRestarts(0.1, 3),
        tfs.GradualUnfreezing(GROUPS),
        tfs.SnapshotEnsemble(folder / "kept"),
        tfs.TensorBoardLogger(folder / "logs"),
    ]


def one_cycle(folder: Any) -> list[Any]:
    return [tfs.OneCycle(0.1), tfs.TensorBoardLogger(folder)]


VALIDATION = {"validation_data": (X[:8], Y[:8]), "validation_every": 2}
CASES: dict[str, Callable[[Any], Any]] = {
    "find": lambda folder: Sweep(find),
    "find, compiled": lambda folder: Sweep(find, run_eagerly=False, jit_compile=JIT),
    "find, on disk": lambda folder: Sweep(
        lambda model, **k: find(model, snapshot_dir=folder, **k)
    ),
    "find, a group": lambda folder: Sweep(
        lambda model, **k: find(model, group="low", **k), layerwise=True
    ),
    "find, accuracy": lambda folder: Sweep(
        lambda model, **k: find(model, metric="accuracy", **k)
    ),
    "find, validation": lambda folder: Sweep(
        lambda model, **k: find(model, **VALIDATION, **k)
    ),
    "compare": lambda folder: Sweep(compare),
    "find, as it begins": lambda folder: Sweep(find, "begin"),
    "callback": lambda folder: CallbackInFit(),
    "fit": lambda folder: Fit(folder, "next use", all_kinds),
    "fit, one cycle": lambda folder: Fit(folder, "next use", one_cycle),
    "fit, as it begins": lambda folder: Fit(folder, "begin", all_kinds),
    "train end": lambda folder: Fit(folder, "end", all_kinds),
}


def chosen(counted: Injector, files: Sequence[str] = ()) -> list[tuple[int, str]]:
    """Each statement when it is run for the first and for the last time, or a few.

    Args:
        counted: What has counted them.
        files: What is run of these for the first time is among the few.
    """
    numbers = counted.firsts_and_lasts()
    if EVERY:
        return [(number, how) for number in numbers for how in HOW]
    few = {numbers[at] for at in np.linspace(0, len(numbers) - 1, FEW).astype(int)}
    few |= {counted.lines.index(line) + 1 for line in counted.lines_in(*files)}
    return [(number, HOW[i % 2]) for i, number in enumerate(sorted(few))]


def report(case: Any, tried: list[Injector], record_property: Any, count: int) -> None:
    faults, missed = {}, 0
    for injector in tried:
        wrong = case(injector)
        missed += bool(injector.points)
        if wrong:
            faults[" then ".join(injector.where), injector.how] = wrong
    figures = {"run": count, "tried": len(tried), "missed": missed}
    for name, figure in {**figures, "faults": len(faults)}.items():
        record_property(name, figure)
    assert not faults, f"{figures}: {faults}"


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_second_interruption(name, tmp_path, record_property, told) -> None:
    case, counted = CASES[name](tmp_path), Injector()
    assert case(counted) == []
    assert counted.seen > 100
    numbers = chosen(counted, FILES.get(name, ()))
    tried = [Injector(n, how=how) for n, how in numbers]
    report(case, tried, record_property, counted.seen)
    # Interrupted while it sees that the count is put back, a logger misses some steps.
    told[:] = [said for said in told if "has not recorded the last" not in said]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["find", "find, a group", "fit", "train end"])
def test_a_second_and_a_third(name, tmp_path, record_property, told) -> None:
    case, counted = CASES[name](tmp_path), Injector()
    assert case(counted) == []
    later = np.random.default_rng(0).permutation(counted.seen) // 4 + 1
    pairs = zip(chosen(counted), later, strict=False)
    tried = [Injector(n, int(m), how=how) for (n, how), m in pairs]
    if name == "find":  # before one has begun to put back, and before the next has
        begins = counted.lines.index(counted.lines_in("tidying.py")[0]) + 1
        tried += [Injector(begins, later) for later in (1, 2, 3)]
    report(case, tried, record_property, counted.seen)
    told[:] = [said for said in told if "has not recorded the last" not in said]


def test_ctrl_c_held_down_while_a_model_is_put_back(tmp_path) -> None:
    """More often than is tried again: here it is the waiting that helps."""
    case, counted = CASES["find"](tmp_path), Injector()
    assert case(counted) == []
    begins = counted.lines.index(counted.lines_in("snapshot.py")[0])
    held = Injector(begins, *[9] * 12, how="signal")
    assert case(held) == []
    assert held.points == []
