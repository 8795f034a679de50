"""The sweeps of a range test, made here or handed to an executor.

They are independent: each begins with the same weights and the same random generators.
So a sweep in another process is the sweep that would be made here, and the model here
is left alone. Sweeps in threads of one process take turns.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import itertools
import os
import pickle
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import keras

from tfschedules._support import checks
from tfschedules._support.arguments import check_names, names_of, takes_any
from tfschedules._support.paths import log_path
from tfschedules.drive import (
    AtTheEnd,
    Generators,
    Loan,
    Unbuilt,
    Unsaved,
    check_compiled,
    choose,
    do_all,
    fits_running,
    has_weights,
    is_first_process,
)
from tfschedules.finding.held_out import bounded
from tfschedules.finding.range_test import RangeTest
from tfschedules.finding.reports import log_range_test, new_range_test_run
from tfschedules.finding.result import RangeTestResult
from tfschedules.finding.sources import Source, check_targets, source_of

_OF_A_TEST = inspect.signature(RangeTest).parameters.keys()
RESERVED = {"epochs", "initial_epoch", "validation_split", "validation_freq"}
_MOST_REPEATS = 10_000  # a test is made for each at once
_BATCHES_LEFT_OUT = 1_000  # at most, to an update of an optimizer of a user's own step
_IMPORTED_IN = os.getpid()
_one_at_a_time = threading.Lock()
_T = TypeVar("_T")


@dataclasses.dataclass
class _Job:
    """All that a sweep needs.

    Attributes:
        model: The model.
        source: The data.
        test: The arguments of `RangeTest`.
        repeats: How many sweeps there are.
        batch_size: As in `fit`.
        callbacks: More callbacks for the fit.
        fit_arguments: More arguments of `fit`.
    """

    model: keras.Model
    source: Source
    test: dict[str, Any]
    repeats: int
    batch_size: int | None
    callbacks: list[keras.callbacks.Callback]
    fit_arguments: dict[str, Any]

    def run(self, number: int, test: RangeTest, *, show_progress: bool) -> None:
        """Make one sweep, with a test of its own; the model is as before."""
        progress = [_Progress(test, number, self.repeats)] if show_progress else []
        test.keep_snapshot = True
        with warnings.catch_warnings():
            # Data that end before the sweep does are gone through again, on purpose;
            # and `shuffle` is Keras's default, not a wish.
            warnings.filterwarnings("ignore", ".*input ran out of data.*")
            if "shuffle" not in self.fit_arguments:
                warnings.filterwarnings("ignore", "`shuffle=True` was passed, but")
            self.model.fit(
                **self.source.sweep(number, self.batch_size, self.fit_arguments),
                verbose=0,
                callbacks=[test, *progress, *self.callbacks],
            )
        test.restore()  # over what other callbacks have done at the end

    def pickled(self) -> bytes:
        """The job for another process, with the random generators as they are.

        Raises:
            TypeError: If a part of it cannot be pickled.
            ValueError: If it is about another optimizer than the compiled one.
        """
        optimizer = self.model.optimizer
        if not optimizer.built:  # Keras saves it badly before, as if it were
            optimizer.build(self.model.trainable_variables)
        chosen = choose(self.model, self.test.get("optimizer"))
        if not chosen.is_compiled:
            raise ValueError(
                "With an `executor` the model is copied by Keras, and the state of an "
                "optimizer that is not the compiled one is no sure part of a copy. "
                f"Received: optimizer={chosen.name!r}. Make the sweeps here, without "
                "`executor`."
            )
        parts = {}
        for field in dataclasses.fields(self):
            try:
                parts[field.name] = pickle.dumps(getattr(self, field.name))
            except Exception as error:
                raise TypeError(
                    "With an `executor` sweeps are sent to other processes, and "
                    "`pickle` must take all they need: arrays, a PyDataset or a "
                    "function of a module for data, and no lambdas. "
                    f"Received: {field.name}: {type(error).__name__}: {error}"
                ) from error
        own = pickle.dumps(
            (
                Generators(),
                Unsaved(self.model),
                bool(Unbuilt(self.model)),
                keras.config.floatx(),
            )
        )
        return pickle.dumps((keras.backend.backend(), own, parts))


def _run_pickled(job: bytes, number: int) -> RangeTestResult:
    """Make one sweep of a job from another process.

    An executor may have threads, which share random generators: they take turns.
    """
    if os.getpid() != _IMPORTED_IN:
        raise RuntimeError(
            "The executor's process is a fork of one that has Keras in it, whose "
            "threads a fork lacks: it would wait for ever. Give ProcessPoolExecutor "
            "mp_context=multiprocessing.get_context('spawn')."
        )
    backend, own, parts = pickle.loads(job)
    if backend != keras.backend.backend():
        raise RuntimeError(
            f"The sweeps were asked for on Keras's backend {backend!r}, and this "
            f"process has {keras.backend.backend()!r}. Set KERAS_BACKEND={backend} "
            "where the executor's workers are started."
        )
    with _one_at_a_time:
        generators, unsaved, unbuilt, floatx = pickle.loads(own)
        before = keras.config.floatx()
        try:
            keras.config.set_floatx(floatx)
            here = _Job(**{name: pickle.loads(part) for name, part in parts.items()})
            if not unbuilt and Unbuilt(here.model):
                _build(here.model, here.source.first(), here.batch_size)
            unsaved.give(here.model)
            generators.restore()  # after the model is made, which draws from them
            test = RangeTest(**here.test)
            here.run(number, test, show_progress=False)
        finally:
            # In a thread the generators are those of all.
            do_all([lambda: keras.config.set_floatx(before), generators.restore])
    assert test.result is not None
    return test.result


class Sweeps:
    """What `find_learning_rate` is asked for: checked, and then made."""

    result: RangeTestResult | None = None

    def __init__(
        self,
        model: keras.Model,
        x: Any,
        y: Any = None,
        *,
        batch_size: int | None = None,
        sample_weight: Any = None,
        repeats: int = 1,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        log_dir: str | os.PathLike[str] | None = None,
        verbose: int = 1,
        **others: Any,
    ) -> None:
        """Check the arguments of `find_learning_rate`.

        `others` are those of `RangeTest` and of `fit`.
        """
        check_compiled(model, others.get("optimizer"))
        if fits_running(model):
            raise ValueError(
                "A range test makes a fit of its own, and cannot run inside another "
                "one of the same model, or beside it in another thread. Received: "
                f"{model.name!r} in `fit`. Call find_learning_rate before it, or "
                "between two."
            )
        for reserved in RESERVED & others.keys():
            raise ValueError(
                f"Argument `{reserved}` has no place in a range test, whose length is "
                f"`steps`. Received: {reserved}={checks.shown(others[reserved])}"
            )
        test = {name: others.pop(name) for name in _OF_A_TEST & others.keys()}
        if batch_size is not None:
            batch_size = checks.whole("batch_size", batch_size)
        given = checks.callbacks(callbacks)
        repeats = checks.whole("repeats", repeats, at_most=_MOST_REPEATS)
        if test.get("validation_data") is not None:
            data, size = test["validation_data"], test.get("validation_size", 512)
            test["validation_data"] = bounded(data, size)
        self._tests = [RangeTest(**test) for _ in range(repeats)]
        chosen = choose(model, self._tests[0].optimizer)
        needed = self._tests[0].steps * chosen.every
        if not chosen.is_compiled:  # it may leave batches out; the sweep ends the fit
            needed *= _BATCHES_LEFT_OUT
        check_targets(model, x, y, way_out="Give them apart: (model, x, y).")
        source = source_of(x, y, sample_weight, batches=needed, repeats=repeats)
        self._job = _Job(model, source, test, repeats, batch_size, given, others)
        self._run_dir: str | None = None
        if log_dir is not None:
            log_dir = log_path("log_dir", log_dir)
        if log_dir is not None and is_first_process():
            self._run_dir = new_range_test_run(log_dir)
        self._verbose = shows_progress(verbose)

    def make(self) -> None:
        """Make them here, one after the other, and put the model back."""
        put_back = self._put_back

        def sweeps() -> None:
            # Three times: Ctrl-C may end one of them, and then another.
            with AtTheEnd(put_back), AtTheEnd(put_back), AtTheEnd(put_back):
                for number, test in enumerate(self._tests):
                    self._job.run(number, test, show_progress=self._verbose)

        self._with_a_built_model(sweeps)
        self._finish([test.result for test in self._tests if test.result is not None])

    def _put_back(self) -> None:
        model = self._job.model
        # At the end the loans also of callbacks that had just begun.
        do_all([lambda: Loan.end_if_over(model), *(t.restore for t in self._tests)])

    def _finish(self, results: Sequence[RangeTestResult]) -> None:
        """Take the sweeps' results together, and write them."""
        if not results or not min(len(result.losses) for result in results):
            raise ValueError(
                "Argument `x` must hold data. Received: a data set without a batch in "
                "it"
            )
        self.result = RangeTestResult.of_several(results)
        if self._run_dir is not None:
            log_range_test(self.result, self._run_dir)

    def _with_a_built_model(self, action: Callable[[], _T]) -> _T:
        """Do something with a model that has weights; all but those is put back.

        (No context manager: one that is interrupted when it has just begun is not
        ended.)
        """
        model = self._job.model
        history, unbuilt = getattr(model, "history", None), Unbuilt(model)
        generators = Generators()

        def put_history_back() -> None:
            model.history = history

        def remove_run() -> None:
            if self._run_dir is not None:  # a run that has not come to be
                with contextlib.suppress(OSError):
                    Path(self._run_dir).rmdir()

        def give_back() -> None:
            put_generators_back = generators.restore
            do_all([remove_run, put_generators_back, put_history_back, unbuilt.restore])

        with AtTheEnd(give_back), AtTheEnd(give_back), AtTheEnd(give_back):
            if not has_weights(model):
                _build(model, self._job.source.first(), self._job.batch_size)
                generators = Generators()  # as they are when a fit has built it
            return action()

    @staticmethod
    def make_elsewhere(asked: Sequence[Sweeps], executor: Any) -> None:
        """Make the sweeps of all that is asked for, by an executor.

        Raises:
            TypeError: If `pickle` does not take something.
        """
        jobs = []
        for sweeps in asked:
            jobs.append(sweeps._with_a_built_model(sweeps._job.pickled))
        total = sum(sweeps._job.repeats for sweeps in asked)
        shown = any(sweeps._verbose for sweeps in asked)
        bar = keras.utils.Progbar(total, width=15, unit_name="sweep") if shown else None
        futures: list[list[Any]] = [[] for _ in asked]
        try:
            for own, sweeps, job in zip(futures, asked, jobs, strict=True):
                for number in range(sweeps._job.repeats):
                    own.append(executor.submit(_run_pickled, job, number))
            for own, sweeps in zip(futures, asked, strict=True):
                results = []
                for future in own:
                    results.append(future.result())
                    if bar is not None:
                        bar.add(1)
                sweeps._finish(results)
        except BaseException:
            for future in itertools.chain(*futures):
                with contextlib.suppress(Exception):
                    future.cancel()
            for own, sweeps in zip(futures, asked, strict=True):
                # What has been swept after the one that failed is not lost, either.
                with contextlib.suppress(Exception):
                    if sweeps.result is None and all(f.done() for f in own):
                        sweeps._finish([future.result() for future in own])
            raise


def checked_executor(executor: Any) -> Any:
    """The executor, or an error if it is none."""
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise TypeError(
            "Argument `executor` must have a method `submit`, as those of "
            f"concurrent.futures have. Received: executor={checks.shown(executor)}"
        )
    return executor


def shows_progress(verbose: Any) -> bool:
    """Whether `verbose`, as `fit` takes it, asks for a progress bar.

    Raises:
        ValueError: If it is none of what `fit` takes.
    """
    if isinstance(verbose, (bool, str)) and verbose in (True, False, "auto"):
        return bool(verbose)
    if checks.as_real(verbose) not in (0, 1, 2):
        raise ValueError(
            "Argument `verbose` must be 1 for a progress bar, or 0 for nothing. "
            f"Received: verbose={checks.shown(verbose)}"
        )
    return bool(checks.as_real(verbose))


def check_known(
    what: str,
    arguments: Mapping[str, Any],
    model: keras.Model,
    own: Iterable[str],
    reserved: Iterable[str] = (),
) -> None:
    """Refuse arguments that neither a function nor `fit` has.

    Args:
        what: The function.
        arguments: Those that it passes on.
        model: Whose `fit` it is; one of the user's may take any.
        own: The names that the function knows itself.
        reserved: Those of `fit` that it refuses for another reason.

    Raises:
        TypeError: If one is not known.
    """
    if not takes_any(type(model).fit):
        known = dict.fromkeys([*own, *names_of(type(model).fit)[1:]])
        others = {n: v for n, v in arguments.items() if n not in {*reserved}}
        check_names(what, others, [name for name in known if name not in {*reserved}])


def _build(model: keras.Model, data: dict[str, Any], batch_size: int | None) -> None:
    """Let a model see a batch, which makes its weights."""
    try:
        model.evaluate(**data, batch_size=batch_size, steps=1, verbose=0)
    except Exception:
        # One with a train step of its own may have no loss to evaluate, and was built.
        if not has_weights(model):
            raise


class _Progress(keras.callbacks.Callback):
    """Keras's own progress bar, over the steps of the sweep, within 80 columns."""

    def __init__(self, test: RangeTest, number: int, count: int) -> None:
        super().__init__()
        self._test = test
        self._loss = f"loss {number + 1}/{count}" if count > 1 else "loss"

    def on_train_begin(self, logs: Any = None) -> None:
        self._ended = False
        self._bar = keras.utils.Progbar(
            self._test.steps, width=15, stateful_metrics=[self._loss, "lr"]
        )

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._show(ended=bool(self.model.stop_training))

    def on_train_end(self, logs: Any = None) -> None:
        self._show(ended=True)  # where data have ended, and nothing before has told

    def _show(self, ended: bool) -> None:
        losses = self._test._notes.losses
        if not losses or self._ended:
            return
        rate = self._test.schedule.values(self._test._notes.steps[-1:])[0]
        self._ended = ended or len(losses) >= self._test.steps
        shown = [(self._loss, losses[-1]), ("lr", rate)]
        self._bar.update(len(losses), shown, finalize=ended)
