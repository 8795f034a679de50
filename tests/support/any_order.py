"""Training in any order: whatever came before, each update must have its own rate.

The rules are what a user may do with one model, the oracle is `any_order_model`. To
look past a rule that always fails: `TFSCHEDULES_ANY_ORDER_WITHOUT=rule,another_rule`.
"""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from any_order_base import RATES, At, OneModel, Reader, nothing_waits
from any_order_model import (
    LAYERS,
    Along,
    Course,
    batches,
    kernels,
    saved_and_loaded,
)
from helpers import BACKEND
from hypothesis import strategies as st
from hypothesis.stateful import (
    precondition,
    rule as any_rule,
)

import tfschedules as tfs

_WITHOUT = os.environ.get("TFSCHEDULES_ANY_ORDER_WITHOUT", "").split(",")

COUNTS = st.integers(1, 5)
EPOCHS = st.integers(1, 2)
STARTS = st.sampled_from([None, None, 0, 2])
IN_STEPS = ["linear", "constant", "cosine", "warmup", "restarts", "cyclical"]


def courses(*more: str) -> st.SearchStrategy[Course]:
    """Schedules in steps, and of `more` kinds."""
    return st.builds(
        Course, st.sampled_from([*IN_STEPS, *more]), RATES, st.sampled_from([3, 8])
    )


ANY_COURSE = courses("one_cycle")
MAYBE_A_COURSE = st.none() | ANY_COURSE
SWEEPS = st.builds(
    Course,
    st.just("geometric"),
    st.sampled_from([0.5, 1.0]),
    st.integers(2, 7),
    st.sampled_from([0.01, 0.1]),
)


def rule(
    when: Callable[[Any], bool] = lambda machine: True, **arguments: Any
) -> Callable[[Any], Any]:
    """A rule, unless it is switched off."""

    def decorate(method: Any) -> Any:
        if method.__name__ in _WITHOUT:
            return method
        return precondition(when)(any_rule(**arguments)(method))

    return decorate


class Ended(RuntimeError):
    """What ends a fit."""


class AnyOrder(OneModel):
    """What may be done with the model."""

    # Training.

    @rule(count=COUNTS, epochs=EPOCHS, validate=st.booleans())
    def plain_fit(self, count: int, epochs: int, validate: bool) -> None:
        numbers = self.take(count)
        self.fit(numbers, epochs, validate=validate)
        self.oracle.train(numbers * epochs)

    @rule(
        course=ANY_COURSE,
        start=STARTS,
        count=COUNTS,
        epochs=EPOCHS,
        validate=st.booleans(),
    )
    def scheduled_fit(
        self,
        course: Course,
        start: int | None,
        count: int,
        epochs: int,
        validate: bool,
    ) -> None:
        numbers, before = self.take(count), self.oracle.rate
        self.fit(numbers, epochs, course.callback(start), validate=validate)
        along = self.along(course, start, count, epochs)
        self.oracle.train(numbers * epochs, along)
        self.settle(along, before)

    @rule(count=st.integers(1, 3))
    def train_on_batch(self, count: int) -> None:
        for number in self.take(count):
            self.model.train_on_batch(*batches([number]))
            self.oracle.train([number])
        self.tidy = True

    @rule(
        course=ANY_COURSE,
        start=STARTS,
        count=COUNTS,
        epochs=EPOCHS,
        ends=st.booleans(),
        keep=st.booleans(),
    )
    def loop_by_hand(
        self,
        course: Course,
        start: int | None,
        count: int,
        epochs: int,
        ends: bool,
        keep: bool,
    ) -> None:
        """A loop of the user's own around `train_on_batch`, with Keras's callbacks.

        One that does not end is followed by a plain fit: that is no part of it.
        """
        numbers, before = self.take(count, of=count + 3), self.oracle.rate
        along = self.along(course, start, count, epochs)
        callbacks = keras.callbacks.CallbackList(
            [course.callback(start)], model=self.model, epochs=epochs, steps=count
        )
        callbacks.on_train_begin()
        for epoch in range(epochs):
            callbacks.on_epoch_begin(epoch)
            for batch, number in enumerate(numbers):
                callbacks.on_train_batch_begin(batch)
                logs = self.model.train_on_batch(*batches([number]), return_dict=True)
                self.oracle.train([number], along)
                callbacks.on_train_batch_end(batch, logs)
            callbacks.on_epoch_end(epoch, {})
        if ends:
            callbacks.on_train_end({})
            self.tidy = True
        if keep:
            self.kept.append(callbacks)
        del callbacks
        self.settle(along, before)
        if not ends:
            self.plain_fit(3, 1, validate=False)

    @rule(
        when=nothing_waits,
        count=st.integers(1, 3),
        epochs=st.integers(1, 3),
        course=MAYBE_A_COURSE,
    )
    def unfreezing_fit(self, count: int, epochs: int, course: Course | None) -> None:
        numbers, before = self.take(self.whole(count)), self.oracle.rate
        callbacks = [tfs.GradualUnfreezing(self.config.groups())]
        if course is not None:
            callbacks.append(course.callback(None))
        self.fit(numbers, epochs, *callbacks)
        self.unfrozen = True
        along = self.along(course, None, len(numbers), epochs)
        for epoch in range(epochs):
            self.oracle.train(numbers, along, live=LAYERS if epoch else ["head"])
        self.settle(along, before)

    # Training inside of training.

    @rule(
        when=nothing_waits,
        course=ANY_COURSE,
        start=STARTS,
        count=COUNTS,
        epochs=EPOCHS,
        by=st.sampled_from(["train_on_batch", "fit"]),
        hook=st.sampled_from(["on_train_batch_end", "on_epoch_end"]),
        first=st.booleans(),
    )
    def train_inside_a_scheduled_fit(
        self,
        course: Course,
        start: int | None,
        count: int,
        epochs: int,
        by: str,
        hook: str,
        first: bool,
    ) -> None:
        """What is trained inside has the rate as it is, and the fit goes on as ever."""
        if self.config.accumulate > 1:  # between two batches it would join them
            hook = "on_epoch_end"
        count, before = self.whole(count), self.oracle.rate
        numbers = self.take(count, of=count + self.whole(2))
        inner = self.take(self.whole(2))

        def train() -> None:
            if by == "fit":
                self.fit(inner)
            else:
                for number in inner:
                    self.model.train_on_batch(*batches([number]))

        inside = At(hook, train)
        callbacks = [course.callback(start)]
        callbacks.insert(0 if first else 1, inside)
        self.fit(numbers, epochs, *callbacks)
        along = self.along(course, start, count, epochs)
        blocks = [*self.executions(numbers)]
        at = 1 if hook == "on_train_batch_end" else len(blocks)
        for done, block in enumerate(blocks * epochs):
            if done == at:
                self.oracle.train(inner)
            self.oracle.train(block, along)
        if at == len(blocks) * epochs:
            self.oracle.train(inner)
        self.settle(along, before)

    @rule(
        course=ANY_COURSE,
        count=COUNTS,
        epochs=EPOCHS,
        kind=st.sampled_from(["schedule", "unfreezing", "range test", "find", "loop"]),
        hook=st.sampled_from(["on_train_batch_end", "on_epoch_begin", "on_epoch_end"]),
    )
    def ours_inside_a_scheduled_fit(
        self, course: Course, count: int, epochs: int, kind: str, hook: str
    ) -> None:
        """A second one that wants to drive is refused, and has changed nothing."""
        numbers, before = self.take(count, of=count + 2), self.oracle.rate
        inner = self.take(2)
        refused: list[Exception] = []

        def drive() -> None:
            sweep = {"min_lr": 0.01, "max_lr": 1.0, "steps": 2, "stop_factor": None}
            try:
                if kind == "find":
                    x, y = batches(inner)
                    tfs.find_learning_rate(
                        self.model, x, y, batch_size=1, verbose=0, **sweep
                    )
                    return
                callback = {
                    "unfreezing": lambda: tfs.GradualUnfreezing(self.config.groups()),
                    "range test": lambda: tfs.RangeTest(**sweep),
                }.get(kind, lambda: course.callback(None))()
                if kind == "loop":
                    keras.callbacks.CallbackList(
                        [callback], model=self.model, epochs=1, steps=2
                    ).on_train_begin()
                else:
                    self.fit(inner, 1, callback)
            except (ValueError, RuntimeError) as error:
                refused.append(error)

        self.fit(numbers, epochs, course.callback(None), At(hook, drive))
        assert refused, f"{kind} in {hook} was not refused"
        along = self.along(course, None, count, epochs)
        self.oracle.train(numbers * epochs, along)
        self.settle(along, before)

    # Range tests, after which all is as before.

    @rule(sweep=SWEEPS, count=COUNTS, each=st.booleans(), held=st.booleans())
    def range_test_in_a_fit(
        self, sweep: Course, count: int, each: bool, held: bool
    ) -> None:
        count = self.whole(count)
        numbers, reader = self.take(count), Reader(count, each=each)
        how = {"decay": 0.5} if held and self.config.decay else {}
        test = tfs.RangeTest(
            **self.of_sweep(sweep),
            hyperparameters={"weight_decay": how["decay"]} if how else None,
        )
        self.fit(numbers, -(-self.whole(sweep.length) // count), reader, test)
        self.check_sweep(reader, test.result, sweep, numbers, **how)

    @rule(
        sweep=SWEEPS,
        count=COUNTS,
        each=st.booleans(),
        held=st.booleans(),
        group=st.sampled_from([None, "head", "body"]),
        others=st.sampled_from(["still", "training"]),
    )
    def find_learning_rate(
        self,
        sweep: Course,
        count: int,
        each: bool,
        held: bool,
        group: str | None,
        others: str,
    ) -> None:
        numbers, reader = self.take(count), Reader(count, each=each)
        how: dict[str, Any] = {"decay": 0.5} if held and self.config.decay else {}
        arguments: dict[str, Any] = {}
        if how:
            arguments["hyperparameters"] = {"weight_decay": how["decay"]}
        if group is not None and self.config.layerwise:
            arguments |= {"group": group, "others": others}
            live = [group] if others == "still" else LAYERS
            how |= {"swept": group, "live": live}
        result = self.find(sweep, numbers, reader, **arguments)
        self.check_sweep(reader, result, sweep, numbers, **how)

    @rule(sweep=SWEEPS, count=st.integers(1, 3), over=st.sampled_from(["gr", "wd"]))
    def compare_range_tests(self, sweep: Course, count: int, over: str) -> None:
        """Their losses tell the rates: data are gone through several times."""
        if over == "wd" and self.config.decay:
            arguments: dict[str, Any] = {"weight_decay": [0.0, 1.0]}
        elif self.config.layerwise:
            arguments = {"groups": list(LAYERS)}
        else:
            return
        numbers = self.take(count)
        compared = self.find(sweep, numbers, by=tfs.compare_range_tests, **arguments)
        total = self.whole(sweep.length)
        for key, result in compared.results.items():
            how = {"decay": key}
            if "groups" in arguments:
                how = {"swept": key, "live": [key]}
            reader = Reader(count, each=True)
            oracle = self.oracle.copy()
            oracle.train((numbers * total)[:total], Along(sweep), **how)
            reader.seen = [(total, oracle.weights)]  # nobody has read them
            self.check_sweep(reader, result, sweep, numbers, **how)

    # Fits that end badly.

    @rule(
        course=MAYBE_A_COURSE,
        count=COUNTS,
        epochs=EPOCHS,
        hook=st.sampled_from(
            [
                "on_train_begin",
                "on_train_batch_begin",
                "on_train_batch_end",
                "on_epoch_end",
            ]
        ),
        kind=st.sampled_from([KeyboardInterrupt, Ended]),
        first=st.booleans(),
        keep=st.booleans(),
    )
    def interrupted_fit(
        self,
        course: Course | None,
        count: int,
        epochs: int,
        hook: str,
        kind: type[BaseException],
        first: bool,
        keep: bool,
    ) -> None:
        numbers, before = self.take(count), self.oracle.rate

        def end() -> None:
            raise kind("by the test")

        callbacks = [] if course is None else [course.callback(None)]
        callbacks.insert(0 if first else 1, At(hook, end))
        self.interrupted(kind, keep, lambda: self.fit(numbers, epochs, *callbacks))
        along = self.along(course, None, count, epochs)
        blocks = [*self.executions(numbers)]
        done = {"on_train_batch_end": 1, "on_epoch_end": len(blocks)}.get(hook, 0)
        for block in blocks[:done]:
            self.oracle.train(block, along)
        self.settle(along, before)

    @rule(sweep=SWEEPS, count=COUNTS, keep=st.booleans(), by_hand=st.booleans())
    def interrupted_range_test(
        self, sweep: Course, count: int, keep: bool, by_hand: bool
    ) -> None:
        numbers = self.take(count)

        def end() -> None:
            raise KeyboardInterrupt("by the test")

        interrupt = At("on_train_batch_end", end)
        if by_hand:
            count = self.whole(sweep.length)
            test = tfs.RangeTest(**self.of_sweep(sweep))
            self.interrupted(
                KeyboardInterrupt,
                keep,
                lambda: self.fit(self.take(count), 1, interrupt, test),
            )
            test.restore()
        else:
            self.interrupted(
                KeyboardInterrupt, keep, lambda: self.find(sweep, numbers, interrupt)
            )
        self.tidy = True

    # TensorFlow counts the batch that fails: the next updates are of other batches.
    @rule(
        when=lambda self: self.config.accumulate == 1 or BACKEND == "jax",
        course=st.none() | courses(),
        count=st.integers(2, 3),
        keep=st.booleans(),
    )
    def failed_step(self, course: Course | None, count: int, keep: bool) -> None:
        """A batch of another width, after whole executions: others JAX would lose."""
        numbers, before = self.take(count * self.config.block), self.oracle.rate

        def data() -> Iterator[Any]:
            for number in numbers:
                yield batches([number])
            x, y = batches(numbers[:1])
            yield x[:, :7], y

        callbacks = [] if course is None else [course.callback(None)]
        self.interrupted(
            Exception,
            keep,
            lambda: self.model.fit(
                data(), shuffle=False, verbose=0, callbacks=callbacks
            ),
        )
        along = self.along(course, None, len(numbers))
        self.oracle.train(numbers, along)
        # TensorFlow does meanwhile what does not depend on the batch: it counts it,
        # decays the weights, and has the rate of the next update.
        made = int(keras.ops.convert_to_numpy(self.model.optimizer.variables[0]))
        assert made - self.oracle.batches in (0, 1)
        self.oracle.batches = made
        if self.config.decay:
            found = kernels(self.model)
            np.testing.assert_allclose(found, self.oracle.weights, rtol=0.05, atol=2e-6)
            self.oracle.weights = found.astype(np.float64)
        self.settle(along, before, failed=True)

    # What is done between fits.

    @rule(count=COUNTS)
    def evaluate(self, count: int) -> None:
        numbers = list(range(max(self.cursor - count, 0), self.cursor)) or [0]
        x, y = batches(numbers)
        found = self.model.evaluate(x, y, batch_size=1, verbose=0)
        assert np.isclose(found, self.oracle.loss(numbers), rtol=1e-4, atol=1e-5)

    @rule(rate=RATES, slope=st.sampled_from([1.0, 2.0]))
    def compile(self, rate: float, slope: float) -> None:
        if BACKEND == "jax":
            # Keras alone would go on with a step that somebody keeps: JAX knows it by
            # the method that it is made of, which is the same one.
            self.let_go_of_what_was_kept()
        self.config.compile(self.model, rate, slope)
        self.model.optimizer.build(self.model.trainable_variables)
        self.oracle.compiled(rate, slope)
        self.unfrozen, self.tidy = False, True

    @rule(rate=RATES)
    def set_rate(self, rate: float) -> None:
        self.model.optimizer.learning_rate = self.oracle.rate = rate

    @rule(keep=st.booleans())
    def save_and_load(self, keep: bool) -> None:
        if keep:
            self.kept.append(self.model)
        with tempfile.TemporaryDirectory() as folder:
            self.model = saved_and_loaded(self.model, folder)
        self.tidy, self.unfrozen = True, False

    @rule()
    def keep_the_train_function(self) -> None:
        self.kept.append(self.model.train_function)

    @rule()
    def let_go_of_what_was_kept(self) -> None:
        self.kept.clear()
        gc.collect()
