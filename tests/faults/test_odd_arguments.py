"""Odd values for every argument of every public callable: refused by name, or taken.

The table is made by looking at what there is: a new public name is in it, and fails as
long as it takes what it cannot use, or as `VALID` lacks a value that it needs.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
import numbers
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tfschedules as tfs

BACKEND = keras.backend.backend()
X = np.ones((8, 2), "float32")


class Reached(Exception):
    """Every argument was taken, and the training would begin."""


class Model(keras.Sequential):
    @functools.wraps(keras.Model.fit)  # an argument that it has not is refused
    def fit(self, *data: Any, **arguments: Any) -> Any:
        raise Reached


class BadRepr:
    def __repr__(self):
        raise RuntimeError("no repr")


@numbers.Real.register
class BadFloat:
    def __float__(self):
        raise RuntimeError("no float")


class BadPath:
    def __fspath__(self):
        raise RuntimeError("no path")


NO_NUMBERS: dict[str, Any] = {
    "a text": "0.1",
    "an empty text": "",
    "True": True,
    "NumPy's True": np.True_,
    "a complex number": 1j,
    "a NumPy complex number": np.complex64(1j),
    "a list": [1],
    "an empty list": [],
    "an array of one": np.array([1.0]),
    "an array of several": np.array([1.0, 2.0]),
    "masked": np.ma.masked,
    "a masked scalar": np.ma.array(0.5, mask=True),
    "a dictionary": {"a": 1},
    "bytes": b"0.1",
    "a path": Path("0.1"),
    "an object": object(),
    "an object without a repr": BadRepr(),
    "a number without a float": BadFloat(),
    "a path that fails": BadPath(),
    "a variable": keras.Variable([1.0, 2.0]),
    "a symbolic tensor": keras.Input((2,)),
    "a symbolic number": keras.KerasTensor((), "float32"),
    "a schedule": tfs.Linear(0.1, 0.0, 10),
    "NaN": math.nan,
    "infinity": math.inf,
    "minus infinity": np.float32(-math.inf),
    "10**400": 10**400,
    "10**5000": 10**5000,
}
OTHERS: dict[str, Any] = {
    "None": None,
    "0": 0,
    "-1": -1,
    "1.5": 1.5,
    "2**63": 2**63,
    "a tiny number": 1e-320,
    "a half": np.float16(0.5),
    "a number in an array": np.array(2),
    "a number in a tensor": keras.ops.convert_to_tensor(2),
    "a number in a variable": keras.Variable(2.0),
}
ODD = NO_NUMBERS | OTHERS
ALSO_TAKEN = {("verbose", "True")}  # as Keras's own
# They are read by Keras itself, or mean anything.
FREE = {"x", "y", "sample_weight", "data", "ax", "step", "state", "batches"}
# Made by other public names, and not by hand.
MADE_ELSEWHERE = {"RangeTestResult", "Schedule"}
NAMES = sorted({*tfs.__all__} - MADE_ELSEWHERE)


@pytest.fixture(scope="module")
def valid() -> dict[str, Any]:
    """A good value for each argument that something needs, by its name."""
    model = Model([keras.Input((2,)), *(keras.layers.Dense(2) for _ in range(3))])
    model.compile("sgd", "mse")
    rates = np.geomspace(1e-4, 1, 20)
    result = tfs.RangeTestResult.from_sweep(rates, 1 / (1 + rates), steps=20)
    return {
        **dict.fromkeys(("start", "max_lr", "value", "peak", "decay", "low"), 0.5),
        "share": 0.5,
        **dict.fromkeys(("end", "base_lr", "swa_lr"), 0.25),
        **dict.fromkeys(("steps", "total_steps", "first_cycle", "step_size"), 10),
        **dict.fromkeys(("warmup_steps", "stable_steps", "decay_steps"), 10),
        **dict.fromkeys(("swa_start", "anneal_steps"), 5),
        **dict.fromkeys(("epochs", "count", "power", "factor"), 2),
        "amount": 0.5,
        "model": model,
        "x": X,
        "y": X,
        "data": (X, X),
        "schedule": tfs.Linear(0.1, 0.0, 10),
        "schedules": [tfs.Constant(0.1), tfs.Constant(0.2)],
        "boundaries": [5],
        "values": [0.1, 0.2],
        "function": lambda step: 0.1,
        "variables": model.variables,
        "step": lambda state, batch, rate: (rate, 1.0),
        "state": np.ones(2),
        "batches": itertools.repeat(X),
        "learning_rate": tfs.Constant(0.1),
        "name": "body",
        "layers": [model.layers[0]],
        "groups": tfs.discriminative_groups(model, 0.1),
        "optimizer": keras.optimizers.SGD(),
        "directory": "snapshots",
        "log_dir": "logs",
        "over": "group",
        "results": {"a": result},
        "weight_decay": [0.0, 0.1],
        "learning_rates": rates,
        "losses": 1 / (1 + rates),
    }


# Needed though it has a default.
NEEDED = {
    "HyperparameterScheduler": ["learning_rate"],
    "compare_range_tests": ["weight_decay"],
    "driven": ["learning_rate"],
}


def parameters_of(name: str) -> dict[str, inspect.Parameter]:
    function = getattr(tfs, name)
    if inspect.isclass(function):
        function = function.__init__
    parameters = inspect.signature(function).parameters
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {
        name: each
        for name, each in parameters.items()
        if name != "self" and each.kind not in variable
    }


def passes_on(name: str) -> bool:
    """Whether it is a function that has `**arguments` for others."""
    parameters = inspect.signature(getattr(tfs, name)).parameters.values()
    return any(each.kind is each.VAR_KEYWORD for each in parameters)


def needed_by(name: str, valid: dict[str, Any]) -> dict[str, Any]:
    arguments = {
        each.name: valid[each.name]
        for each in parameters_of(name).values()
        if each.default is each.empty
    }
    return arguments | {each: valid[each] for each in NEEDED.get(name, [])}


def takes_numbers(parameter: inspect.Parameter) -> bool:
    """Whether the annotation allows numbers, and lengths in epochs, alone."""
    kinds = set(re.split(r"\s*\|\s*", str(parameter.annotation)))
    numbers = kinds & {"int", "float"}
    return bool(numbers) and kinds - numbers <= {"FitLength", "None"}


def takes_paths(parameter: inspect.Parameter) -> bool:
    return "PathLike" in str(parameter.annotation)


def call(name: str, arguments: dict[str, Any]) -> Any:
    """What comes of a call; `Reached` if all was well until the training."""
    try:
        return getattr(tfs, name)(**arguments)
    except Reached:
        return Reached


CASES = [
    pytest.param(name, parameter, id=f"{name}-{parameter}")
    for name in NAMES
    for parameter in parameters_of(name)
    if parameter not in FREE
]


@pytest.mark.parametrize(("name", "parameter"), CASES)
def test_an_odd_value_is_taken_or_refused_by_its_name(
    name: str, parameter: str, valid: dict[str, Any], tmp_path: Path, monkeypatch: Any
) -> None:
    if BACKEND == "torch" and name == "LayerwiseOptimizer":
        pytest.skip("it is refused on torch")
    monkeypatch.chdir(tmp_path)
    bad = []
    for what, value in ODD.items():
        arguments = needed_by(name, valid) | {parameter: value}
        if name == "compare_range_tests" and parameter in ("momentum", "groups"):
            del arguments["weight_decay"]
        try:
            call(name, arguments)
        except (TypeError, ValueError) as error:
            message = " ".join(str(error).split())
            if f"`{parameter}`" not in message or "Received: " not in message:
                bad.append(f"{what}: {message}")
        except Exception as error:
            bad.append(f"{what}: {type(error).__name__}: {error}")
        else:
            kind = parameters_of(name)[parameter]
            number = what in NO_NUMBERS and takes_numbers(kind)
            path = takes_paths(kind) and what not in ("a text", "a path", "None")
            if (number or path) and (parameter, what) not in ALSO_TAKEN:
                bad.append(f"{what}: taken in silence")
    assert not bad, "\n".join(bad)


def test_the_table_tells_numbers_and_paths(valid: dict[str, Any]) -> None:
    known = [each for name in NAMES for each in parameters_of(name).values()]
    numbers = {each.name for each in known if takes_numbers(each)}
    assert {"max_lr", "total_steps", "low", "div_factor", "repeats"} <= numbers
    assert not {"learning_rate", "groups", "name", "mode"} & numbers
    paths = {each.name for each in known if takes_paths(each)}
    assert paths == {"log_dir", "snapshot_dir", "directory", "state_file"}
    for name in NAMES:  # every good value is one
        if BACKEND != "torch" or name != "LayerwiseOptimizer":
            call(name, needed_by(name, valid))


@pytest.mark.parametrize("name", NAMES)
def test_a_misspelt_name_is_told(name: str, valid: dict[str, Any]) -> None:
    if BACKEND == "torch" and name == "LayerwiseOptimizer":
        pytest.skip("it is refused on torch")
    known = parameters_of(name)
    for parameter in known.keys() - FREE:  # too short to be told
        wrong = parameter.replace("_", "") if "_" in parameter else f"{parameter}ss"
        arguments = needed_by(name, valid)
        arguments[wrong] = arguments.pop(parameter, 5)
        takes_any = name in ("HyperparameterScheduler", "driven")
        if takes_any and callable(arguments[wrong]):
            continue  # it may be a hyperparameter: `fit`, or the optimizer, tells
        if passes_on(name) and known[parameter].default is inspect.Parameter.empty:
            continue  # Python misses it before the name is looked at
        meant = rf"`{wrong}`.*Did you mean `{parameter}`\?"
        with pytest.raises(TypeError, match=meant):
            call(name, arguments)
