"""A range test of a functional loop: the state goes in and comes out, the rate too."""

from __future__ import annotations

import contextlib
import copy
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfschedules._support import checks
from tfschedules._support.arguments import checked_names
from tfschedules._support.paths import log_path
from tfschedules._support.telling import tell
from tfschedules.drive import Generators, is_first_process
from tfschedules.finding.loop_losses import no_loss, number_of
from tfschedules.finding.reports import log_range_test, new_range_test_run
from tfschedules.finding.result import RangeTestResult
from tfschedules.finding.sweep_notes import RUNNING, SweepNotes
from tfschedules.finding.sweep_plan import SweepPlan

_STATEFUL = (
    "A step that changes variables of its own is for "
    "`for _ in tfs.Sweep(optimizer, variables)`."
)


@checked_names
def sweep(
    step: Callable[[Any, Any, Any], tuple[Any, Any]],
    state: Any,
    batches: Iterable[Any],
    *,
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    steps: int = 100,
    mode: str = "exponential",
    stop_factor: float | None = 4.0,
    rule: str = "descent",
    log_dir: str | os.PathLike[str] | None = None,
) -> RangeTestResult:
    """Run a range test of a functional training step.

    The k-th call is `state, loss = step(state, batch, r_k)` with the k-th of `steps`
    rates from `min_lr` to `max_lr`. The sweep ends with them, where the loss diverges
    or is not finite, or with the data. It begins with a copy of `state`, so yours is
    what it was, also where the step changes arrays in place or JAX is told to donate
    them. Python's and the backend's random generators are put back, too.

    The rate is a NumPy float32 without axes. `jax.jit` and `tf.function` take it as a
    tensor and trace the step once; PyTorch and NumPy compute with it as with a number.

    Any framework will do, and the backend of Keras need not be the step's: it has to be
    a function of what it is given. For a step that changes variables of its own there
    is `Sweep`.

    Args:
        step: A function of the state, a batch and a rate, which makes one update and
            returns the new state and the batch's loss: a scalar, of before the update.
        state: What training changes: weights and the optimizer's state in any tree of
            arrays; for PyTorch also `(model, optimizer)`. `copy.deepcopy` has to take
            it.
        batches: An iterable of what `step` takes as a batch. At most `steps` are
            taken. It is gone through once: what ends sooner ends the sweep, with a
            warning.
        min_lr: The first rate, > 0.
        max_lr: The last rate, > `min_lr`.
        steps: The length of the sweep in updates, >= 2.
        mode: "exponential" or "linear".
        stop_factor: See `RangeTest`.
        rule: See `RangeTest`.
        log_dir: Where to write a TensorBoard run `range_test`; not written if `None`.

    Returns:
        A `RangeTestResult`: print it, or take `.suggestion`.

    Raises:
        TypeError: If an argument is of another kind, if the state cannot be copied, or
            if the step returns something else than a state and a loss.
        ValueError: If one is out of range, there is no batch, or the step never
            changes the state.
        OSError: If the folder of the run cannot be made.

    An exception in the step, and Ctrl-C, go on. What was swept until then is not lost:
    the exception has the attribute `result`, a `RangeTestResult`.

    Example:
        >>> import numpy as np, tfschedules as tfs
        >>> generator = np.random.default_rng(0)
        >>> def step(weights, batch, learning_rate):
        ...     x, y = batch
        ...     error = x @ weights - y
        ...     gradient = 2 * x.T @ error / len(x)
        ...     return weights - learning_rate * gradient, np.mean(error**2)
        >>> xs = generator.normal(size=(100, 32, 8))
        >>> result = tfs.sweep(step, np.zeros(8), [(x, x.sum(1)) for x in xs])
        >>> 1e-3 < result.suggestion < 1
        True
    """
    plan = SweepPlan.checked(min_lr, max_lr, steps, mode, stop_factor, rule)
    if not callable(step):
        raise TypeError(
            "Argument `step` must be a function step(state, batch, learning_rate). "
            f"Received: step={checks.shown(step)}"
        )
    _check_batches(batches)
    folder = None if log_dir is None else log_path("log_dir", log_dir)
    generators = Generators()
    try:
        own = _copied(state)
        run_dir = None
        if folder is not None and is_first_process():
            run_dir = new_range_test_run(folder)
        notes = plan.notes()
        try:
            own = _go(plan, notes, step, own, batches)
        except BaseException as error:
            notes.stop_reason = "interrupted"
            result = _conclude(plan, notes, run_dir)
            with contextlib.suppress(Exception):  # a class of the user's may refuse
                error.result = result  # type: ignore[attr-defined]
            raise
        try:
            _check_course(plan, notes, state, own)
        except BaseException:
            _conclude(plan, plan.notes(), run_dir)
            raise
        return _conclude(plan, notes, run_dir)
    finally:
        generators.restore()


def _go(
    plan: SweepPlan,
    notes: SweepNotes,
    step: Callable[[Any, Any, Any], Any],
    state: Any,
    batches: Iterable[Any],
) -> Any:
    """Make the steps; the state after them."""
    rates = plan.schedule.values(plan.steps)
    for number, batch in zip(range(plan.steps), _iterator(batches), strict=False):
        returned = step(state, batch, np.float32(rates[number]))
        state, loss = _state_and_loss(returned, state)
        notes.note(number, loss)
        if notes.stop_reason != RUNNING:
            break
    return state


def _conclude(
    plan: SweepPlan, notes: SweepNotes, run_dir: str | None
) -> RangeTestResult:
    """Read the curve, and write it; of a sweep without a step nothing is left."""
    result = plan.result(notes)
    if run_dir is not None and notes.steps:
        log_range_test(result, run_dir, notes.times)
    elif run_dir is not None:
        with contextlib.suppress(OSError):
            Path(run_dir).rmdir()
    return result


def _copied(state: Any) -> Any:
    """A copy of the state, with which the step may do what it likes.

    Raises:
        TypeError: If there is none.
    """
    for leaf in _leaves(state):
        if isinstance(leaf, (keras.Layer, keras.Optimizer)):
            raise TypeError(
                "Argument `state` must hold arrays, and no layers or optimizers of "
                f"Keras. Received: a {type(leaf).__name__} in it. Give the values of "
                f"its variables. {_STATEFUL}"
            )
    try:
        return copy.deepcopy(state)
    except Exception as error:
        raise TypeError(
            "Argument `state` must be something that copy.deepcopy can copy, as yours "
            "is not changed: a tree of arrays. Of a PyTorch tensor with a history give "
            f"tensor.detach(). Received: state={checks.shown(state)}, for which "
            f"it raises {type(error).__name__}: {error}"
        ) from error


def _check_batches(batches: Any) -> None:
    """Refuse what brings no batches.

    Raises:
        TypeError: If it is no iterable, or one that is often given for one.
    """
    readable = isinstance(batches, (Iterable, keras.utils.PyDataset))
    if not readable or isinstance(batches, (str, bytes, Mapping)):
        way_out = ""
        if callable(batches):
            way_out = " Call the function that makes it."
        raise TypeError(
            "Argument `batches` must be an iterable of batches, as a list, a generator "
            f"or a dataset. Received: batches={checks.shown(batches)} "
            f"(of type {type(batches).__name__}).{way_out}"
        )


def _iterator(batches: Any) -> Iterator[Any]:
    if isinstance(batches, keras.utils.PyDataset):  # iterating one would not end
        count = batches.num_batches
        numbers = itertools.count() if count is None else range(count)
        return (batches[i] for i in numbers)
    return iter(batches)


def _state_and_loss(returned: Any, state: Any) -> tuple[Any, float]:
    """What a step returns, as a state and a number.

    Raises:
        TypeError: If it returns something else.
    """
    if not isinstance(returned, (tuple, list)) or len(returned) != 2:
        what = checks.shown(returned)
        if isinstance(returned, (tuple, list)):
            what = f"a {type(returned).__name__} of {len(returned)}"
        raise TypeError(
            "Argument `step` must be a function that returns two things, the new state "
            f"and the loss. Received: one that returns {what}. Leave out what else it "
            f"returns. {_STATEFUL}"
        )
    new, loss = returned
    number = number_of(loss)
    if number is None:
        raise TypeError(
            "Argument `step` must be a function that returns the new state and, as the "
            f"second, {no_loss(loss)}"
        )
    if new is None and state is not None:
        raise TypeError(
            "Argument `step` must be a function that returns the new state. Received: "
            f"one that returns None for it. {_STATEFUL}"
        )
    return new, number


def _check_course(plan: SweepPlan, notes: SweepNotes, before: Any, after: Any) -> None:
    """Refuse a sweep without data, or without training; warn of a short one.

    Raises:
        ValueError: If there was no batch, or the state has never changed.
    """
    done = len(notes.losses)
    if not done:
        raise ValueError(
            "Argument `batches` must bring at least one batch. Received: none. A "
            "generator that was gone through before is empty: make it anew."
        )
    if notes.stop_reason in ("finished", "diverged") and _same(before, after):
        raise ValueError(
            f"Argument `step` must be a function that trains `state`. Received: one "
            f"whose state, after {done} updates with rates of up to "
            f"{plan.schedule.values([done - 1])[0]:.2g}, is the one that it was given. "
            f"Return the new one. {_STATEFUL}"
        )
    if notes.stop_reason == RUNNING:
        tell(
            f"The range test is {plan.steps} steps long and these data ended after "
            f"{done}, at a rate of {plan.schedule.values([done - 1])[0]:.2g}. Give "
            "more of them (itertools.cycle(batches), dataset.repeat()), or "
            f"steps={done}.",
            stacklevel=4,
        )


def _leaves(tree: Any) -> list[Any]:
    """What a tree of dictionaries, lists and tuples holds."""
    leaves: list[Any] = keras.tree.flatten(tree)
    return leaves


def _same(before: Any, after: Any) -> bool:
    """Whether two states are known to be the same; of what is opaque nobody knows."""
    first, second = _leaves(before), _leaves(after)
    return len(first) == len(second) and all(map(_equal, first, second))


def _equal(one: Any, other: Any) -> bool:
    if one is None or isinstance(one, (bool, int, float, str, bytes)):
        return type(one) is type(other) and one == other
    if not (hasattr(one, "shape") and hasattr(one, "dtype")):
        return False  # an object that may have changed inside
    try:
        first, second = (np.asarray(_on_host(each)) for each in (one, other))
        return np.array_equal(first, second)
    except Exception:  # keys of JAX's generators are no numbers
        return False


def _on_host(array: Any) -> Any:
    """An array as NumPy takes it: PyTorch's may have a history, or a device."""
    return array.detach().cpu() if hasattr(array, "detach") else array
