"""Range tests whose sweeps an executor makes: as those made here, to the bit."""

import concurrent.futures
import multiprocessing
import pickle

import keras
import numpy as np
import pytest
from helpers import arrays, digits

import tfschedules as tfs
from tfschedules.finding import sweeps

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


@pytest.mark.slow
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


def trained(optimizer: keras.Optimizer) -> keras.Model:
    """With a state that no file of Keras's holds, by a fit."""
    model = network()
    optimizer.exclude_from_weight_decay(var_names=["kernel"])
    model.compile(optimizer, model.loss)
    model.fit(X, Y, batch_size=64, verbose=0)
    return model


@pytest.mark.parametrize("name", ["Nadam", "AdamW"])
def test_what_keras_does_not_save_goes_along(name):
    def swept(executor):
        model = trained(getattr(keras.optimizers, name)(weight_decay=5.0))
        return tfs.find_learning_rate(model, X, Y, executor=executor, **SWEEP).losses

    np.testing.assert_array_equal(swept(AtOnce()), swept(None))


def test_threads_take_turns():
    here = tfs.find_learning_rate(network(), X, Y, repeats=3, **SWEEP)
    model = network()
    state = np.random.get_state()[1].copy()
    with concurrent.futures.ThreadPoolExecutor(3) as executor:
        there = tfs.find_learning_rate(
            model, X, Y, repeats=3, executor=executor, **SWEEP
        )
    np.testing.assert_array_equal(there.sweeps, here.sweeps)
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_a_copy_that_is_not_the_model_is_refused():
    model = trained(keras.optimizers.Adam())
    model.layers[0].trainable = False  # and not compiled anew
    with (
        pytest.warns(UserWarning, match="Skipping variable loading for optimizer"),
        pytest.raises(ValueError, match=r"the model's variables.*Compile the model"),
    ):
        tfs.find_learning_rate(model, X, Y, executor=AtOnce(), **SWEEP)


def test_forked_processes_are_refused(monkeypatch):
    monkeypatch.setattr(sweeps, "_IMPORTED_IN", -1)
    with pytest.raises(RuntimeError, match=r"is a fork of one.*get_context\('spawn'\)"):
        tfs.find_learning_rate(network(), X, Y, executor=AtOnce(), **SWEEP)


@pytest.mark.parametrize("executor", [3, "process", object()])
def test_what_does_not_submit_is_refused(executor, tmp_path):
    arguments = {"executor": executor, "log_dir": tmp_path} | SWEEP
    with pytest.raises(TypeError, match="`executor` must have a method `submit`"):
        tfs.find_learning_rate(network(), X, Y, **arguments)
    with pytest.raises(TypeError, match="`executor` must have a method `submit`"):
        tfs.compare_range_tests(network(), X, Y, momentum=[0.5], **arguments)
    assert [*tmp_path.iterdir()] == []


def test_a_pool_that_breaks_while_it_is_asked_calls_off_what_it_has():
    class Breaking(AtOnce):
        def submit(self, function, *arguments):
            if self.calls:
                raise concurrent.futures.BrokenExecutor("a process has died")
            self.calls.append(concurrent.futures.Future())
            return self.calls[-1]

    executor = Breaking()
    with pytest.raises(concurrent.futures.BrokenExecutor, match="has died"):
        tfs.find_learning_rate(network(), X, Y, repeats=2, executor=executor, **SWEEP)
    assert executor.calls[0].cancelled()


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
