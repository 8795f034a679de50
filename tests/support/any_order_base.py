"""One model, what it must hold after anything, and helpers for the rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from any_order_model import (
    LAYERS,
    WIDTH,
    Along,
    Config,
    Course,
    Oracle,
    batches,
    kernels,
    left_over,
    rate_of,
)
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant

import tfschedules as tfs

# Few values: XLA compiles the same step once, and failing examples are easy to read.
RATES = st.sampled_from([0.1, 0.2, 0.4])


class At(keras.callbacks.Callback):
    """Does something at one place of a fit, once."""

    def __init__(self, hook: str, action: Callable[[], Any]) -> None:
        super().__init__()
        self.done = False

        def act(*_: Any, **__: Any) -> None:
            if not self.done:
                self.done = True
                self.model  # on JAX this writes the state back  # noqa: B018
                action()

        setattr(self, hook, act)


class Reader(keras.callbacks.Callback):
    """Notes the weights after each execution, or after each epoch."""

    def __init__(self, count: int, *, each: bool) -> None:
        super().__init__()
        self.count, self.each = count, each
        self.before = self.now = 0
        self.seen: list[tuple[int, np.ndarray]] = []  # batches so far, and weights

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.now = self.before + min(batch + 1, self.count)
        if self.each:
            self.seen.append((self.now, kernels(self.model)))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.before = self.now
        if not self.each:
            self.seen.append((self.now, kernels(self.model)))


class OneModel(RuleBasedStateMachine):
    """A model, what is done with it, and what it must hold."""

    @initialize(
        layerwise=st.booleans(),
        block=st.sampled_from([1, 3]),
        accumulate=st.sampled_from([1, 2]),
        decay=st.sampled_from([None, 0.1]),
        rate=RATES,
    )
    def begin(
        self,
        layerwise: bool,
        block: int,
        accumulate: int,
        decay: float | None,
        rate: float,
    ) -> None:
        self.config = Config(layerwise, block, accumulate, decay)
        self.model = self.config.model(rate)
        self.oracle = Oracle(self.config, rate)
        self.cursor = 0
        self.kept: list[Any] = []
        self.unfrozen = False
        # What an interrupted fit has left may stay until the model is used again.
        self.tidy = True

    # What must be so after every rule.

    @invariant()
    def every_update_had_its_rate(self) -> None:
        np.testing.assert_allclose(
            kernels(self.model), self.oracle.weights, rtol=2e-5, atol=2e-6
        )

    @invariant()
    def every_update_was_counted(self) -> None:
        made = int(self.model.optimizer.iterations)
        assert made == self.oracle.updates, (made, self.oracle.updates)

    @invariant()
    def the_rate_is_where_it_was_left(self) -> None:
        now = rate_of(self.model)
        assert np.isclose(now, self.oracle.rate, rtol=1e-5, atol=1e-7), (
            now,
            self.oracle.rate,
        )

    @invariant()
    def nothing_is_left_behind(self) -> None:
        if self.tidy:
            left = left_over(self.model, self.config, self.unfrozen)
            assert left == [], left

    # Helpers.

    def take(self, count: int, of: int = 0) -> list[int]:
        """Fresh batches; there is room for `of` in all."""
        if self.cursor + max(count, of) > WIDTH:
            for name in LAYERS:
                self.model.get_layer(name).kernel.assign(np.zeros((WIDTH, 1)))
            self.oracle.weights[:], self.cursor = 0, 0
        self.cursor += count
        return list(range(self.cursor - count, self.cursor))

    def fit(
        self,
        numbers: Sequence[int],
        epochs: int = 1,
        *callbacks: keras.callbacks.Callback,
        validate: bool = False,
    ) -> None:
        """A fit as in Keras."""
        x, y = batches(numbers)
        self.model.fit(
            x,
            y,
            batch_size=1,
            epochs=epochs,
            shuffle=False,
            verbose=0,
            callbacks=[*callbacks],
            validation_data=(x, y) if validate else None,
        )
        self.tidy = True

    def along(
        self, course: Course | None, start: int | None, count: int, epochs: int = 1
    ) -> Along | None:
        """The oracle's schedule for a fit of so many batches."""
        if course is None:
            return None
        updates = int(epochs * count / self.config.accumulate + 1e-9)
        return Along(course.over(updates), start)

    def settle(self, along: Along | None, before: float, failed: bool = False) -> None:
        """Look at the rate that a fit has left, where there is a choice."""
        self.every_update_had_its_rate()
        if along is None:
            return
        allowed = along.rates_afterwards(before, self.oracle.between or failed)
        found = rate_of(self.model)
        assert np.isclose(found, allowed, rtol=1e-5, atol=1e-7).any(), (found, allowed)
        self.oracle.rate = found

    def executions(self, numbers: Sequence[int]) -> Iterator[Sequence[int]]:
        """An epoch's batches as the train function takes them."""
        for i in range(0, len(numbers), self.config.block):
            yield numbers[i : i + self.config.block]

    def whole(self, count: int) -> int:
        """So many updates' batches."""
        return count * self.config.accumulate

    def check_sweep(
        self,
        reader: Reader,
        result: Any,
        sweep: Course,
        numbers: Sequence[int],
        **how: Any,
    ) -> None:
        """Compare what a sweep did, and what it says, with a loop."""
        oracle, along, done = self.oracle.copy(), Along(sweep), 0
        assert reader.seen
        for count, weights in reader.seen:
            oracle.train(
                [numbers[n % len(numbers)] for n in range(done, count)], along, **how
            )
            np.testing.assert_allclose(weights, oracle.weights, rtol=2e-5, atol=2e-6)
            done = count
        rates = [sweep(step) for step in range(sweep.length)]
        np.testing.assert_allclose(result.learning_rates, rates, rtol=1e-5)
        losses = [np.mean(losses) for losses in oracle.losses[: sweep.length]]
        np.testing.assert_allclose(result.losses, losses, rtol=1e-4, atol=1e-5)

    @staticmethod
    def of_sweep(sweep: Course) -> dict[str, Any]:
        """Its arguments."""
        bounds = {"min_lr": sweep.low, "max_lr": sweep.high, "steps": sweep.length}
        return {**bounds, "stop_factor": None}

    def find(
        self,
        sweep: Course,
        numbers: Sequence[int],
        *callbacks: keras.callbacks.Callback,
        by: Callable[..., Any] = tfs.find_learning_rate,
        **arguments: Any,
    ) -> Any:
        """A range test over these batches, again and again."""
        result = by(
            self.model,
            *batches(numbers),
            batch_size=1,
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
            **self.of_sweep(sweep),
            **arguments,
        )
        self.tidy = True
        return result

    def interrupted(
        self, kind: Any, keep: bool, action: Callable[[], Any]
    ) -> BaseException:
        """Do what raises, and keep the traceback as IPython does, or not."""
        error: BaseException | None = None
        try:
            action()
        except kind as raised:
            error = raised
        assert error is not None
        assert not isinstance(error, Warning)
        if keep:
            self.kept.append(error)
        self.tidy = False
        return error

    def teardown(self) -> None:
        """Leave nothing to the next one."""
        self.kept = []
        self.model = None
        keras.backend.clear_session()


def nothing_waits(machine: OneModel) -> bool:
    """Whether all batches so far have become updates."""
    return not machine.oracle.between
