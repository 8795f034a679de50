"""A range test with its copy on disk: whatever a file does, the model is as it was."""

from __future__ import annotations

import contextlib
import errno
import gc
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from copied_models import At, Broken, files, function, nothing, small, variables, wrong
from faulty_files import OPERATIONS, Fault, every_fault
from helpers import BACKEND
from injector import EVERY, Injector
from interrupted import X, Y, find, network, state
from small_disks import PAGE

import tfschedules as tfs
from tfschedules.drive import Loan


def fit(model: keras.Model, folder: Any, action: Callable[[], Any] = nothing) -> Any:
    test = tfs.RangeTest(max_lr=1.0, steps=4, snapshot_dir=folder)
    generators = np.random.get_state()
    try:
        model.fit(X, Y, batch_size=8, verbose=0, callbacks=[test, At(action)])
    finally:
        # Keras draws the order of the samples before it asks callbacks.
        np.random.set_state(generators)
    return test.result


def comparison(model: keras.Model, folder: Any, action: Any = nothing) -> Any:
    return tfs.compare_range_tests(
        model, X, Y, momentum=[0.5, 0.9], max_lr=1.0, steps=4, batch_size=8, verbose=0,
        snapshot_dir=folder, callbacks=[At(action)],
    )  # fmt: skip


FORMS = {"find": function, "compare": comparison, "callback": fit}


def paths_in(file: Path, model: keras.Model) -> set[str]:
    """Of which variables a file may be, by what is in it."""
    data = file.read_bytes()
    values = ((v.path, keras.ops.convert_to_numpy(v)) for v in variables(model))
    return {path for path, value in values if value.ndim and value.tobytes() == data}


@pytest.mark.parametrize("form", ["find", "callback"])
def test_each_fault_while_the_copy_is_written(tmp_path, form) -> None:
    model = small()
    before = state(model)
    kinds = OPERATIONS if form == "find" else ["mkdir", "fsync"]
    for fault in every_fault(tmp_path, kinds, stays=False):
        error = None
        with fault:
            try:
                result = FORMS[form](model, tmp_path)
            except OSError as raised:
                error = raised
        if error is None:
            # The others were met when nothing depended on them any more.
            assert not fault.injected or fault.operation in ("short", "open", "close")
            assert len(result.losses) == 4
        else:
            assert fault.injected
            assert "`snapshot_dir` must" in str(error)
            assert f"{str(tmp_path)!r}: No space left" in str(error)
        assert wrong(before, model) == [], fault
        assert list(tmp_path.iterdir()) == [], fault
    assert len(FORMS[form](model, tmp_path).losses) == 4


@pytest.mark.parametrize("form", ["find", "callback"])
def test_a_copy_that_cannot_be_removed(tmp_path, form) -> None:
    model = small()
    before = state(model)
    with (
        Fault(tmp_path, "remove", code=errno.EROFS),
        pytest.warns(UserWarning, match=r"cannot be removed .*Read-only file system"),
    ):
        assert len(FORMS[form](model, tmp_path).losses) == 4
    assert wrong(before, model) == []
    assert len(files(tmp_path)) > 2
    FORMS[form](model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_disks_with_room_for_a_part_of_the_copy(small_disk) -> None:
    model = network()  # of 15 files
    before = state(model)
    said = 0
    for pages in (0, 9, 14, 18):
        small_disk.fill(leave=pages * PAGE)
        try:
            assert function(model, small_disk.path).stop_reason == "finished"
        except OSError as error:
            said += 1
            assert error.errno == errno.ENOSPC  # noqa: PT017
        assert wrong(before, model) == []
        assert small_disk.files() == []
    assert 0 < said < 4


def test_the_last_block_of_a_file_that_the_disk_has_no_room_for(small_disk) -> None:
    """36,000 bytes were cut to 32,768 without an error, and the model was lost."""
    model = keras.Sequential([keras.Input((9000,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    before = model.get_weights()
    x, y = np.ones((8, 9000), "float32"), np.ones(8, "float32")
    cut = 0
    for pages in range(7, 12):
        small_disk.fill(leave=pages * PAGE)
        try:
            tfs.find_learning_rate(
                model, x, y, steps=4, batch_size=2, verbose=0,
                snapshot_dir=small_disk.path,
            )  # fmt: skip
        except OSError as error:
            cut += 1
            assert error.errno == errno.ENOSPC  # noqa: PT017
        for a, b in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    assert 0 < cut < 5


@pytest.mark.parametrize("form", FORMS)
def test_a_place_that_is_none_changes_nothing(tmp_path, form) -> None:
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    with pytest.raises(OSError, match=r"No such file or directory.*must name a folder"):
        FORMS[form](model, tmp_path / "missing")
    if BACKEND == "tensorflow":  # Keras builds it before it asks callbacks elsewhere
        assert not model.optimizer.built
    assert Loan.borrowers(model) == []
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_path_is_refused_at_once(tmp_path) -> None:
    with pytest.raises(TypeError, match=r"`snapshot_dir` must be .*snapshot_dir=5"):
        tfs.RangeTest(snapshot_dir=5)
    with pytest.raises(TypeError, match=r"`snapshot_dir` must be .*snapshot_dir=''"):
        tfs.RangeTest(snapshot_dir="")
    for path in (tmp_path, str(tmp_path)):
        assert function(small(), path).stop_reason == "finished"


def test_no_run_is_left_of_a_test_that_has_not_begun(tmp_path) -> None:
    model = small()
    for test in (
        lambda **k: find(model, **k),
        lambda **k: model.fit(X, Y, verbose=0, callbacks=[tfs.RangeTest(**k)]),
    ):
        with pytest.raises(OSError, match="No such file or directory"):
            test(log_dir=tmp_path / "logs", snapshot_dir=tmp_path / "missing")
        assert list((tmp_path / "logs").iterdir()) == []


# ------------------------------------------------------------------------- reading


def away(file: Path) -> Callable[[], Any]:
    """Take a file away; what is returned brings it back."""
    other = file.rename(file.parent.with_name("taken away"))
    return lambda: other.rename(file)


def cut(file: Path) -> Callable[[], Any]:
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    return lambda: file.write_bytes(data)


def changed(file: Path) -> Callable[[], Any]:
    data = file.read_bytes()
    file.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    return lambda: file.write_bytes(data)


DAMAGE = {
    away: "No such file or directory",
    cut: "bytes and not",
    changed: "not hold any more what was written",
}


@pytest.mark.parametrize(
    ("form", "damage"),
    [("find", away), ("find", cut), ("callback", changed), ("compare", away)],
)
def test_what_cannot_be_read_is_said_and_all_the_rest_is_put_back(
    tmp_path, form, damage
) -> None:
    model = network()
    before, values = state(model), {v.path: np.array(v) for v in variables(model)}
    lost: dict[str, Any] = {}

    def damaged() -> None:
        which = next(f for f in files(tmp_path) if "body/kernel" in str(of[f.name]))
        lost.update(path=of[which.name].pop(), mend=damage(which))

    def look() -> None:
        damaged() if not lost else None

    of: dict[str, set[str]] = {}
    with watched(of, tmp_path, model), pytest.raises(OSError, match="put") as raised:
        FORMS[form](model, tmp_path, look)
    message = str(raised.value)
    assert f"Not put back: {lost['path']} (" in message
    assert DAMAGE[damage] in message
    assert str(tmp_path) in message
    other = {v.path for v in variables(model) if not same(values[v.path], v)}
    assert other == {lost["path"]}
    assert float(np.array(model.optimizer.learning_rate)) == np.float32(0.05)
    assert len(list(tmp_path.glob("tfschedules-*"))) == 1
    # Not yet:
    with pytest.raises(OSError, match=lost["path"]):
        raised.value.restore()
    lost["mend"]()
    raised.value.restore()
    if form == "find":
        assert wrong(before, model) == []
    assert all(same(values[v.path], v) for v in variables(model))
    assert list(tmp_path.iterdir()) == []
    raised.value.restore()  # once more does nothing
    # And a sweep works.
    assert FORMS[form](model, tmp_path) is not None
    assert all(same(values[v.path], v) for v in variables(model))


def same(value: np.ndarray, variable: Any) -> bool:
    return np.array_equal(value, np.array(variable))


@contextlib.contextmanager
def watched(of: dict[str, set[str]], folder: Path, model: keras.Model) -> Any:
    """Note of which variable each file is, as soon as the copy has been made."""
    begin = tfs.RangeTest._take_over

    def note(self: Any, loan: Any) -> None:
        of.update({f.name: paths_in(f, model) for f in files(folder)})
        begin(self, loan)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tfs.RangeTest, "_take_over", note)
        yield


def test_a_whole_folder_that_has_vanished(tmp_path) -> None:
    model = small()
    values = {v.path: np.array(v) for v in variables(model)}
    generators = state(model)["generators"]

    def vanish() -> None:
        for file in files(tmp_path):
            file.unlink()
        files(tmp_path) or next(tmp_path.iterdir()).rmdir()

    with pytest.raises(OSError, match="No such file or directory") as raised:
        function(model, tmp_path, vanish)
    named = str(raised.value).partition("Not put back: ")[2].partition(" (")[0]
    assert set(named.split(", ")) == {p for p, v in values.items() if v.ndim}
    for variable in variables(model):  # numbers are not in files
        if not np.ndim(variable):
            assert same(values[variable.path], variable), variable.path
    assert state(model)["generators"] == generators
    assert model.stop_training is False
    assert list(tmp_path.iterdir()) == []


def test_the_callback_is_asked_again(tmp_path) -> None:
    model = small()
    values = [np.array(v) for v in variables(model)]
    test = tfs.RangeTest(max_lr=1.0, steps=4, snapshot_dir=tmp_path)
    mend: list[Any] = []
    action = At(lambda: mend.append(away(files(tmp_path)[0])))
    with pytest.raises(OSError, match="call `restore"):
        model.fit(X, Y, batch_size=8, verbose=0, callbacks=[test, action])
    assert test.result is not None
    with pytest.raises(OSError, match="call `restore"):
        test.restore()
    mend[0]()
    test.restore()
    assert all(map(np.array_equal, values, map(np.array, variables(model))))
    assert list(tmp_path.iterdir()) == []
    model.fit(X, Y, verbose=0)
    after = [np.array(v) for v in variables(model)]
    test.restore()  # what was trained since is not put back
    assert all(map(np.array_equal, after, map(np.array, variables(model))))


def test_a_file_that_can_be_read_the_second_time(tmp_path) -> None:
    """`find_learning_rate` puts back twice, and the error was gone by then."""
    model = small()
    before = state(model)
    fault = Fault(tmp_path, "read", stays=False, code=errno.EIO)
    with fault:
        result = function(model, tmp_path)
    assert fault.injected == 1
    assert result.stop_reason == "finished"
    assert wrong(before, model) == []
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_sweep_is_told_beside_it(tmp_path) -> None:
    model = small()

    def fails() -> None:
        files(tmp_path)[0].unlink()
        raise ValueError("of the sweep")

    with pytest.raises(OSError, match="Not put back") as raised:
        function(model, tmp_path, fails)
    told, error = [], raised.value
    while error is not None:
        told.append(str(error))
        error = error.__context__
    assert "of the sweep" in told


def fails(*arguments: Any, **keywords: Any) -> None:
    raise Broken("cannot")


def _break_variable(model: keras.Model, patch: Any) -> str:
    if BACKEND == "jax":
        pytest.skip("KERAS_BACKEND=jax: Keras assigns weights in the fit, too")
    weight = model.get_layer("body").kernel
    patch.setattr(weight, "assign", fails)
    return weight.path


def _break_python(model: keras.Model, patch: Any) -> str:
    patch.setattr(random, "setstate", fails)
    return "the random generators"


def _break_metric(model: keras.Model, patch: Any) -> str:
    from tfschedules.drive.snapshot import Snapshot

    patch.setattr(Snapshot, "_reset_new_metrics", fails)
    return "metrics that were made since"


def _break_state(model: keras.Model, patch: Any) -> str:
    patch.setattr("tfschedules.drive.snapshot.drop_state", fails)
    return "the state outside of the variables"


@pytest.mark.parametrize(
    ("breaks", "on_disk"),
    [
        (_break_variable, True),
        (_break_variable, False),
        (_break_python, False),
        (_break_metric, False),
        (_break_state, False),
    ],
)
def test_whatever_cannot_be_put_back_all_the_rest_is(tmp_path, breaks, on_disk) -> None:
    model = network()
    before, values = state(model), {v.path: np.array(v) for v in variables(model)}
    names: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        with pytest.raises(RuntimeError, match="Broken: cannot") as raised:
            fit(
                model,
                tmp_path if on_disk else None,
                lambda: names.append(breaks(model, patch)),
            )
        message = str(raised.value)
        assert f"Not put back: {names[0]} (Broken: cannot). All the rest is" in message
        others = {v.path for v in variables(model) if not same(values[v.path], v)}
        assert others <= set(names)
        kinds = zip(before["generators"], state(model)["generators"], strict=True)
        put_back = [a == b for a, b in kinds]
        assert put_back == [breaks is not _break_python or put_back[0], True, True]
        assert Loan.borrowers(model) == []
    raised.value.restore()
    assert wrong(before, model) == []
    assert list(tmp_path.iterdir()) == []


# An interruption just before a `with` ends leaves it to Python to close the file.
@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("of_which", ["the copy", "putting back"])
def test_ctrl_c_at_the_statements_of(tmp_path, of_which, record_property) -> None:
    model = small()
    before = state(model)
    here = ("scratch.py", "store.py", "snapshot.py", "generators.py", "range_test.py")

    def run(injector: Injector) -> None:
        """The copy is made from the beginning on, and put back from this action on."""

        def first() -> None:
            injector.arm()
            raise KeyboardInterrupt("the first")

        if of_which == "the copy":
            injector.arm()
        with contextlib.suppress(KeyboardInterrupt):
            function(model, tmp_path, first)
        injector.disarm()
        gc.collect()
        where = " ".join(injector.where)
        assert wrong(before, model) == [], where
        assert list(tmp_path.iterdir()) == [], where
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, where

    counted = Injector()
    run(counted)
    numbers = [
        number
        for number in counted.firsts_and_lasts()
        if Path(counted.lines[number - 1][0]).name in here
    ]
    tried = numbers if EVERY else numbers[:: len(numbers) // 5]
    for number in tried:
        run(Injector(number))
    record_property("tried", len(tried))
    print(f"\ninterruptions survived: {len(tried)} of {len(numbers)}")  # noqa: T201
