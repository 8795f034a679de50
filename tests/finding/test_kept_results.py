"""A sweep that was made is not lost: not by its log, a picture or a later sweep."""

from __future__ import annotations

import concurrent.futures
import re

import keras
import numpy as np
import pytest
from helpers import Interrupt, arrays, digits, softmax_regression
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tfschedules as tfs
from tfschedules.finding import pictures, reports
from tfschedules.tensorboard import EventWriter

X, Y = digits(256)
SWEEP = {"min_lr": 1e-3, "max_lr": 1.0, "steps": 8, "verbose": 0, "shuffle": False}


def network(**arguments):
    return softmax_regression(keras.optimizers.SGD(0.1, momentum=0.5), **arguments)


def tags(run):
    """What a run holds, by kind of data."""
    found = EventAccumulator(str(run))
    found.Reload()
    return {*found.Tags()["scalars"], *found.Tags()["tensors"]}


def full(*arguments, **named):
    raise OSError(28, "No space left on device")


WRITES = ["__init__", "scalars", "table", "text", "image", "close"]


@pytest.mark.parametrize("write", WRITES)
def test_a_full_disk_at_the_end_is_a_warning_and_the_result_is_returned(
    tmp_path, monkeypatch, write
):
    class Full(EventWriter):
        pass

    monkeypatch.setattr(Full, write, full, raising=False)
    monkeypatch.setattr(reports, "EventWriter", Full)
    model = network()
    before = arrays(model)
    whole = tfs.find_learning_rate(network(), X, Y, **SWEEP)
    why = r"result is kept, but its log in .*range_test'.*OSError:.*No space left"
    with pytest.warns(UserWarning, match=why):
        result = tfs.find_learning_rate(model, X, Y, log_dir=tmp_path, **SWEEP)
    np.testing.assert_array_equal(result.losses, whole.losses)
    for now, then in zip(arrays(model), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_a_callback_and_each_of_a_comparison_keep_theirs(tmp_path, monkeypatch):
    monkeypatch.setattr(EventWriter, "scalars", full)
    test = tfs.RangeTest(1e-3, 1.0, 8, log_dir=tmp_path / "a")
    model = network()
    with pytest.warns(UserWarning, match="No space left"):
        model.fit(X, Y, callbacks=[test], verbose=0)
    assert len(test.result.losses) == 8
    with pytest.warns(UserWarning, match="No space left") as said:
        compared = tfs.compare_range_tests(
            model, X, Y, momentum=[0.1, 0.9], log_dir=tmp_path / "b", **SWEEP
        )
    assert [*compared.results] == [0.1, 0.9]
    # Each is about its own run; torch has warnings of its own, too.
    texts = [str(one.message) for one in said if one.category is UserWarning]
    assert ["range_test'" in text for text in texts] == [True, False]
    assert "range_test_1'" in texts[1]


def test_a_picture_that_fails_leaves_the_rest_of_the_log(tmp_path, monkeypatch):
    def fails(result):
        raise RuntimeError("a font is missing")

    monkeypatch.setattr(pictures, "range_test_png", fails)
    why = "log in .*range_test' has no picture.*RuntimeError: a font is missing"
    with pytest.warns(UserWarning, match=why):
        result = tfs.find_learning_rate(network(), X, Y, log_dir=tmp_path, **SWEEP)
    assert len(result.losses) == 8
    found = tags(tmp_path / "range_test")
    assert found >= {"range_test/loss", "range_test/result", "range_test/report"}
    assert "range_test/curve" not in found


@pytest.mark.parametrize("name", ["learning_rate", "result", "report", "curve"])
def test_a_metric_with_the_name_of_a_tag_has_a_tag_of_its_own(tmp_path, name):
    rates, losses = np.geomspace(1e-4, 1, 20), np.linspace(2, 1, 20)
    result = tfs.RangeTestResult.from_sweep(
        rates, losses, steps=20, metric=name, values=losses**2
    )
    reports.write_range_test(result, str(tmp_path))
    found = EventAccumulator(str(tmp_path))
    found.Reload()
    tags = found.Tags()["scalars"]
    ours = ("learning_rate", "loss", "smoothed_loss")
    assert {*tags} == {
        f"range_test/{tag}" for tag in (*ours, f"metric {name}", f"smoothed_{name}")
    }
    for tag, values in (("learning_rate", rates), (f"metric {name}", losses**2)):
        written = [event.value for event in found.Scalars(f"range_test/{tag}")]
        np.testing.assert_allclose(written, values, rtol=1e-6)
    others = {"range_test/result", "range_test/report", "range_test/curve"}
    assert {*found.Tags()["tensors"]} == others


@pytest.mark.parametrize("name", ["cost_$_per_$x", "_100%"])
def test_a_metric_may_have_any_name(tmp_path, name):
    metric = keras.metrics.SparseCategoricalAccuracy(name=name)
    model = network(metrics=[metric])
    # A warning would be an error here.
    result = tfs.find_learning_rate(model, X, Y, metric=name, log_dir=tmp_path, **SWEEP)
    assert result.metric == name
    assert {f"range_test/{name}", "range_test/curve"} <= tags(tmp_path / "range_test")
    assert "<img" in result._repr_html_()


class AtOnce:
    """An executor that makes each sweep when it is asked to, but for one."""

    def __init__(self, but: int) -> None:
        self.left = but

    def submit(self, function, *arguments):
        future = concurrent.futures.Future()
        self.left -= 1
        if self.left == 0:
            future.set_exception(MemoryError("by the test"))
        else:
            future.set_result(function(*arguments))
        return future


def test_what_an_executor_has_swept_is_handed_over_whichever_failed():
    arguments = {"momentum": [0.1, 0.5, 0.9], "repeats": 2} | SWEEP
    whole = tfs.compare_range_tests(network(), X, Y, **arguments)
    with pytest.raises(MemoryError, match="by the test") as stopped:
        tfs.compare_range_tests(network(), X, Y, executor=AtOnce(but=3), **arguments)
    kept = stopped.value.comparison.results
    assert [*kept] == [0.1, 0.9]  # the third sweep is the first of 0.5
    for key, result in kept.items():
        np.testing.assert_allclose(result.losses, whole.results[key].losses)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_comparison_hands_over_what_was_swept(kind):
    class Fails(Interrupt):
        def on_train_batch_end(self, batch, logs=None):
            try:
                super().on_train_batch_end(batch, logs)
            except KeyboardInterrupt as error:
                raise kind("by the test") from error

    model = network()
    before = arrays(model)
    whole = tfs.compare_range_tests(model, X, Y, momentum=[0.1, 0.5, 0.9], **SWEEP)
    with pytest.raises(kind, match="by the test") as stopped:
        tfs.compare_range_tests(
            model, X, Y, momentum=[0.1, 0.5, 0.9], callbacks=[Fails(8 + 8 + 3)], **SWEEP
        )
    kept = stopped.value.comparison
    assert [*kept.results] == [0.1, 0.5]
    for key, result in kept.results.items():
        np.testing.assert_array_equal(result.losses, whole.results[key].losses)
    assert re.match("momentum +suggestion", str(kept))
    for now, then in zip(arrays(model), before, strict=True):
        np.testing.assert_array_equal(now, then)
