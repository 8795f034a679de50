"""A model that writes down its rates, and what it must hold, in plain NumPy.

The network is linear and its loss is its output, so every gradient is constant. Batch k
is the k-th unit vector: weight k is minus the rate of the update that consumed batch k.
Two layers see the same input, so that groups and frozen layers can be told apart.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from helpers import JIT

import tfschedules as tfs

WIDTH = 96  # batches before the weights are set back to zeros
LAYERS = ("body", "head")
FACTORS = {"body": 0.5, "head": 1.0}
# What a GradualUnfreezing leaves in an optimizer, on purpose.
SPLIT = {
    "_tfschedules_split",
    "_apply_weight_decay",
    "_backend_update_step",
    "load_own_variables",
    "update_step",
}


@keras.saving.register_keras_serializable("any_order")
def output(_: Any, predicted: Any) -> Any:
    """A loss with the gradient 1."""
    return predicted


@keras.saving.register_keras_serializable("any_order")
def twice_the_output(_: Any, predicted: Any) -> Any:
    """A loss with the gradient 2."""
    return 2 * predicted


LOSSES: dict[float, Callable[[Any, Any], Any]] = {1.0: output, 2.0: twice_the_output}


@dataclasses.dataclass(frozen=True)
class Config:
    """How a model is compiled."""

    layerwise: bool = False
    block: int = 1  # steps_per_execution
    accumulate: int = 1
    decay: float | None = None

    def groups(self) -> list[tfs.LayerGroup]:
        """A group for each layer."""
        return [tfs.LayerGroup(name, [name], FACTORS[name]) for name in LAYERS]

    def compile(self, model: keras.Model, rate: float, slope: float = 1.0) -> None:
        """Compile with a new optimizer and a loss of this gradient."""
        optimizer = keras.optimizers.SGD(
            rate,
            weight_decay=self.decay,
            gradient_accumulation_steps=self.accumulate
            if self.accumulate > 1
            else None,
        )
        if self.layerwise:
            optimizer = tfs.LayerwiseOptimizer(optimizer, self.groups())
        model.compile(
            optimizer,
            LOSSES[slope],
            jit_compile=JIT,
            steps_per_execution=self.block,
        )

    def model(self, rate: float) -> keras.Model:
        """A compiled model whose weights are zeros."""
        inputs = keras.Input((WIDTH,))
        model = keras.Model(
            inputs,
            keras.layers.Add(name="sum")(
                [
                    keras.layers.Dense(
                        1, use_bias=False, kernel_initializer="zeros", name=name
                    )(inputs)
                    for name in LAYERS
                ]
            ),
        )
        self.compile(model, rate)
        model.optimizer.build(model.trainable_variables)
        return model


def kernels(model: keras.Model) -> np.ndarray:
    """The weights, `(2, WIDTH)`."""
    return np.array(
        [keras.ops.convert_to_numpy(model.get_layer(n).kernel)[:, 0] for n in LAYERS]
    )


def rate_of(model: keras.Model) -> float:
    """The optimizer's rate as it is."""
    return float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))


def batches(numbers: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The unit vectors of these numbers, and targets that do not matter."""
    return (
        np.eye(WIDTH, dtype="float32")[list(numbers)],
        np.zeros((len(numbers), 1), "float32"),
    )


@dataclasses.dataclass(frozen=True)
class Course:
    """A schedule: `make()` is ours, a call is its formula."""

    kind: str
    high: float
    length: int
    low: float = 0.01

    def make(self) -> tfs.Schedule:
        """The schedule of the package."""
        high, length, low = self.high, self.length, self.low
        if self.kind == "warmup":
            return tfs.warmup(tfs.Constant(high), length, low)
        return {
            "constant": lambda: tfs.Constant(high),
            "linear": lambda: tfs.Linear(high, low, length),
            "cosine": lambda: tfs.Cosine(high, low, length),
            "restarts": lambda: tfs.warm_restarts(high, length, low),
            "cyclical": lambda: tfs.cyclical(low, high, length),
        }[self.kind]()

    def callback(self, start: int | None) -> keras.callbacks.Callback:
        """What drives the rate in a fit."""
        if self.kind == "one_cycle":  # of the length of the fit
            return tfs.OneCycle(self.high, start_step=start)
        return tfs.HyperparameterScheduler(self.make(), start_step=start)

    def over(self, updates: int) -> Course:
        """The schedule in a fit of so many updates."""
        if self.kind != "one_cycle":
            return self
        return dataclasses.replace(self, length=max(updates, 1))

    def __call__(self, step: int) -> float:
        """The rate of an update."""
        high, length, low = self.high, self.length, self.low
        done = min(step / length, 1.0)

        def half_cosine(start: float, end: float, share: float) -> float:
            return end + (start - end) * (1 + math.cos(math.pi * share)) / 2

        if self.kind == "constant":
            return high
        if self.kind == "linear":
            return high + (low - high) * done
        if self.kind == "warmup":
            return low + (high - low) * done
        if self.kind == "cosine":
            return half_cosine(high, low, done)
        if self.kind == "restarts":
            return half_cosine(high, low, step % length / length)
        if self.kind == "cyclical":
            return low + (high - low) * (1 - abs(step % (2 * length) / length - 1))
        if self.kind == "geometric":  # a sweep of `length` updates
            return low * (high / low) ** min(step / (length - 1), 1.0)
        peak, last = 0.3 * length - 1, length - 1.0
        if step <= peak and peak > 0:
            return half_cosine(high / 25, high, step / peak)
        share = min((step - peak) / (last - peak), 1.0)
        return half_cosine(high, high / 25e4, share)


class Along:
    """A course that updates follow, one after the other."""

    def __init__(self, course: Course, start: int | None = None) -> None:
        self.course, self.first = course, start or 0
        self.at = self.first

    def next(self) -> float:
        """The rate of the next update."""
        self.at += 1
        return self.course(self.at - 1)

    def rates_afterwards(self, before: float, between: bool) -> list[float]:
        """What the optimizer's rate may be: the last, as a rule.

        Without an update it may be shown already or not; `between` two batches that are
        accumulated, it may be that of the update to come.
        """
        made = self.at > self.first
        last = self.course(self.at - 1) if made else before
        return [last, self.course(self.at)] if between or not made else [last]


class Oracle:
    """What weights, count and rate must be."""

    def __init__(self, config: Config, rate: float) -> None:
        self.config, self.rate, self.slope = config, rate, 1.0
        self.weights = np.zeros((2, WIDTH))
        self.pending = np.zeros((2, WIDTH))
        self.batches = 0
        self.losses: list[list[float]] = [[]]  # of the batches, by update

    @property
    def updates(self) -> int:
        """The optimizer's count."""
        return self.batches // self.config.accumulate

    @property
    def between(self) -> bool:
        """Whether batches wait for others, to become an update with them."""
        return self.batches % self.config.accumulate != 0

    def copy(self) -> Oracle:
        """Another one that begins here."""
        other = copy.deepcopy(self)
        other.losses = [[]]
        return other

    def compiled(self, rate: float, slope: float) -> None:
        """A new optimizer."""
        self.rate, self.slope, self.batches = rate, slope, 0
        self.pending[:] = 0

    def loss(self, numbers: Iterable[int]) -> float:
        """What the model evaluates to."""
        return float(np.mean([self.slope * self.weights[:, n].sum() for n in numbers]))

    def train(
        self,
        numbers: Iterable[int],
        along: Along | None = None,
        *,
        live: Sequence[str] = LAYERS,
        swept: str | None = None,
        decay: float | None = None,
    ) -> None:
        """Train on these batches.

        Args:
            numbers: Which unit vectors.
            along: What the rate follows; it stays as it is if `None`.
            live: The layers that are trained.
            swept: The one layer that follows `along`, without its factor.
            decay: A weight decay in place of the compiled one.
        """
        decay = (self.config.decay or 0.0) if decay is None else decay
        those = [LAYERS.index(name) for name in live]
        for number in numbers:
            self.losses[-1].append(self.loss([number]))
            self.pending[those, number] += self.slope / self.config.accumulate
            self.batches += 1
            if self.between:
                continue
            rates = {}
            if along is not None and swept is None:
                self.rate = along.next()
            for name in LAYERS:
                factor = FACTORS[name] if self.config.layerwise else 1.0
                rates[name] = self.rate * factor
            if along is not None and swept is not None:
                rates[swept] = along.next()
            for name, row in zip(live, those, strict=True):
                self.weights[row] -= rates[name] * decay * self.weights[row]
                self.weights[row] -= rates[name] * self.pending[row]
            self.pending[:] = 0
            self.losses.append([])


def places(model: keras.Model) -> dict[str, Any]:
    """The objects in which something of ours might be left."""
    optimizer = model.optimizer
    return {
        "model": model,
        "optimizer": optimizer,
        "inner": getattr(optimizer, "inner_optimizer", optimizer),
        **{layer.name: layer for layer in model.layers if layer.name in LAYERS},
    }


@functools.cache
def plain_names(layerwise: bool, accumulate: int) -> dict[str, set[str]]:
    """The attributes of a model that has seen Keras's own methods only."""
    x, y = batches(range(4))
    model = Config(layerwise, 1, accumulate, 0.1).model(0.1)
    names = {place: set(vars(what)) for place, what in places(model).items()}

    def use(model: keras.Model) -> None:
        model.fit(x, y, batch_size=1, validation_data=(x, y), verbose=0)
        for place, what in places(model).items():
            names[place] |= vars(what).keys()
        model.fit(x, y, batch_size=1, verbose=0)
        model.evaluate(x, y, batch_size=1, verbose=0)
        model.train_on_batch(x[:1], y[:1])
        for place, what in places(model).items():
            names[place] |= vars(what).keys()

    use(model)
    with tempfile.TemporaryDirectory() as folder:
        use(saved_and_loaded(model, folder))
    return names


def saved_and_loaded(model: keras.Model, folder: str) -> keras.Model:
    """The model from its file."""
    path = Path(folder, "model.keras")
    model.save(path)
    return keras.saving.load_model(path)


def left_over(model: keras.Model, config: Config, unfrozen: bool) -> list[str]:
    """What is in a model or its optimizer that plain Keras would not put there."""
    found = []
    for place, what in places(model).items():
        allowed = plain_names(config.layerwise, config.accumulate)[place]
        if place == "inner" or (place == "optimizer" and not config.layerwise):
            allowed = allowed | SPLIT if unfrozen else allowed
        found += [f"{place}.{name}" for name in sorted(vars(what).keys() - allowed)]
        may_be_ours = SPLIT | {"inner_optimizer", "groups"}
        for name, value in sorted(vars(what).items()):
            kind = value if isinstance(value, type) or callable(value) else type(value)
            ours = getattr(kind, "__module__", None) or type(value).__module__
            if ours.startswith("tfschedules") and name not in may_be_ours:
                if not isinstance(value, tfs.LayerwiseOptimizer):
                    found.append(f"{place}.{name} is {value!r}")
        if type(what).__module__.startswith("tfschedules") and not isinstance(
            what, tfs.LayerwiseOptimizer
        ):
            found.append(f"{place} is of {type(what)}")
    return found
