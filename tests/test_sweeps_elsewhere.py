"""Range tests whose sweeps an executor makes: as those made here, to the bit."""

import concurrent.futures
import multiprocessing
import pickle

import keras
import numpy as np
import pytest
from helpers import arrays, digits

import tfschedules as tfs

X, Y = digits(256)
SWEEP = {"steps": 12, "min_lr": 1e-3, "max_lr": 1.0, "batch_size": 32, "verbose": 0}


def network(rate: float = 0.5) -> keras.Model:
    """With a generator of its own, and one that draws from the global one."""
    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(16, "relu"),
            keras.layers.Dropout(rate, seed=3),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(weight_decay=0.1), loss)
    return model


class AtOnce:
    """Not an Executor, but as one: makes the call when it is asked for."""

    def __init__(self):
        self.calls = []

    def submit(self, function, *arguments):
        self.calls.append((function, arguments))
        future = concurrent.futures.Future()
        again = pickle.loads(pickle.dumps((function, arguments)))
        try:
            future.set_result(again[0](*again[1]))
        except Exception as error:
            future.set_exception(error)
        return future


def test_a_pool_of_processes_makes_the_sweeps_that_would_be_made_here(tmp_path):
    here = tfs.find_learning_rate(network(), X, Y, repeats=3, **SWEEP)
    model = network()
    before = arrays(model)
    state = np.random.get_state()[1].copy()
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, context) as executor:
        there = tfs.find_learning_rate(
            model, X, Y, repeats=3, executor=executor, log_dir=tmp_path, **SWEEP
        )
    np.testing.assert_array_equal(there.sweeps, here.sweeps)
    assert here.sweeps.shape == (3, 12)
    assert len(np.unique(here.sweeps[:, 0])) == 3
    assert str(there) == str(here)
    for now, then in zip(arrays(model), before, strict=True):
        np.testing.assert_array_equal(now, then)
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    assert model.optimizer.iterations == 0
    assert [path.name for path in tmp_path.iterdir()] == ["range_test"]


def test_whatever_submits_and_every_value_of_a_comparison(monkeypatch):
    here = tfs.compare_range_tests(
        network(), X, Y, weight_decay=[0.0, 1.0], repeats=2, **SWEEP
    )
    model, executor = network(), AtOnce()
    monkeypatch.setattr(model, "fit", None)  # the one that is here is not trained
    there = tfs.compare_range_tests(
        model, X, Y, weight_decay=[0.0, 1.0], repeats=2, executor=executor, **SWEEP
    )
    assert [number for _, (_, number) in executor.calls] == [0, 1, 0, 1]
    for key in (0.0, 1.0):
        np.testing.assert_array_equal(
            there.results[key].sweeps, here.results[key].sweeps
        )
    assert (there.results[0.0].losses != there.results[1.0].losses).any()


def test_a_model_without_weights_gets_them_here():
    model = keras.Sequential([keras.layers.Dense(10)])
    model.compile("sgd", network().loss)
    there = tfs.find_learning_rate(
        model, X, Y, executor=AtOnce(), shuffle=False, **SWEEP
    )
    here = tfs.find_learning_rate(model, X, Y, shuffle=False, **SWEEP)
    assert len(there.losses) == 12
    np.testing.assert_allclose(there.losses, here.losses, rtol=1e-6)


@pytest.mark.parametrize("executor", [3, "process", object()])
def test_what_does_not_submit_is_refused(executor):
    with pytest.raises(TypeError, match="`executor` must have a method `submit`"):
        tfs.find_learning_rate(network(), X, Y, executor=executor, **SWEEP)


def test_what_cannot_be_sent_is_named_before_anything_is_submitted():
    executor = AtOnce()
    callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: None)
    with pytest.raises(TypeError, match=r"`pickle` must take.*Received: callbacks"):
        tfs.find_learning_rate(
            network(), X, Y, executor=executor, callbacks=[callback], **SWEEP
        )
    assert executor.calls == []


def test_an_error_there_comes_here_and_calls_off_the_others(tmp_path):
    class Failing(AtOnce):
        def submit(self, function, *arguments):
            self.calls.append(concurrent.futures.Future())
            if len(self.calls) == 1:
                self.calls[0].set_exception(MemoryError("in the worker"))
            return self.calls[-1]

    executor = Failing()
    model = network()
    with pytest.raises(MemoryError, match="in the worker"):
        tfs.find_learning_rate(
            model, X, Y, repeats=3, executor=executor, log_dir=tmp_path, **SWEEP
        )
    assert [call.cancelled() for call in executor.calls] == [False, True, True]
    assert [*tmp_path.iterdir()] == []


def test_workers_on_another_backend_say_so(monkeypatch):
    executor = AtOnce()
    tfs.find_learning_rate(network(), X, Y, executor=executor, **SWEEP)
    function, (job, number) = executor.calls[0]
    monkeypatch.setattr(keras.backend, "backend", lambda: "numpy")
    with pytest.raises(RuntimeError, match="Set KERAS_BACKEND="):
        function(job, number)
