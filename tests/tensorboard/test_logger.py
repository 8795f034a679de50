"""Event files of real fits, read back with TensorBoard and compared to an oracle."""

import time
import warnings

import keras
import numpy as np
import pytest
from event_files import read, runs
from helpers import one_cycle_values
from linear_model import LOSS, X, Y, fit, linear_model, numpy_sweep
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tfschedules as tfs
from tfschedules.drive import innermost


@pytest.mark.parametrize("block", [1, 5, 7])
@pytest.mark.parametrize("validation", [False, True])
def test_every_step_once_with_its_rate_and_its_own_loss(block, validation, tmp_path):
    model = linear_model(steps_per_execution=block)
    cycle = tfs.one_cycle(0.5, 60)
    rates, momenta = (s.values(60) for s in cycle.values())
    expected = numpy_losses(model, *one_cycle_values(0.5, 60))
    began = time.time()
    arguments = {"validation_data": (X[:64], Y[:64])} if validation else {}
    fit(model, tfs.OneCycle(0.5), tfs.TensorBoardLogger(tmp_path), **arguments)
    assert runs(tmp_path) == ["schedules"]
    tags = read(tmp_path / "schedules")
    assert set(tags) == {
        "schedule/learning_rate",
        "schedule/momentum",
        "schedule/loss",
    }
    for steps, _, times in tags.values():
        np.testing.assert_array_equal(steps, np.arange(60))
        assert (np.diff(times) >= 0).all()
        assert began - 1 < times[0] <= times[-1] < time.time() + 1
    np.testing.assert_array_equal(
        tags["schedule/learning_rate"][1], rates.astype("float32")
    )
    np.testing.assert_array_equal(
        tags["schedule/momentum"][1], momenta.astype("float32")
    )
    np.testing.assert_allclose(tags["schedule/loss"][1], expected, rtol=0, atol=1e-5)


def numpy_losses(model, rates, momenta):
    weights, bias = (value.astype("float64") for value in model.get_weights())
    speed_w, speed_b = np.zeros_like(weights), np.zeros_like(bias)
    losses = []
    for i, (rate, momentum) in enumerate(zip(rates, momenta, strict=True)):
        at = 32 * (i % 20)
        x, y = X[at : at + 32], Y[at : at + 32]
        z = x @ weights + bias
        p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        losses.append(-np.log(p[np.arange(32), y]).mean())
        p[np.arange(32), y] -= 1
        speed_w = momentum * speed_w - rate * x.T @ p / 32
        speed_b = momentum * speed_b - rate * p.mean(axis=0)
        weights, bias = weights + speed_w, bias + speed_b
    return losses


def test_more_steps_than_the_ring_holds(tmp_path):
    model = linear_model(keras.optimizers.SGD(0.01, momentum=0.9))
    model.fit(
        X, Y, batch_size=1, epochs=4, shuffle=False, verbose=0,
        callbacks=[tfs.TensorBoardLogger(tmp_path)],
    )  # fmt: skip
    tags = read(tmp_path / "schedules")
    np.testing.assert_array_equal(tags["schedule/loss"][0], np.arange(2560))
    fresh = linear_model()
    expected = numpy_sweep(fresh, np.full(2560, 0.01), batch_size=1)
    np.testing.assert_allclose(tags["schedule/loss"][1], expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(tags["schedule/learning_rate"][1], np.float32(0.01))


def test_rates_that_others_set_are_recorded(tmp_path):
    model = linear_model()
    fit(
        model,
        keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1)),
        tfs.TensorBoardLogger(tmp_path),
    )
    rates = read(tmp_path / "schedules")["schedule/learning_rate"][1]
    expected = np.repeat([0.1, 0.05, 0.1 / 3], 20).astype("float32")
    np.testing.assert_array_equal(rates, expected)


@pytest.mark.tensorflow  # on JAX what a callback assigns in an epoch is lost
def test_rates_set_before_each_batch_are_recorded(tmp_path):
    class Assign(keras.callbacks.Callback):
        step = 0

        def on_train_batch_begin(self, batch, logs=None):
            self.model.optimizer.learning_rate = 0.001 * (self.step + 1)
            self.step += 1

    fit(linear_model(), Assign(), tfs.TensorBoardLogger(tmp_path))
    rates = read(tmp_path / "schedules")["schedule/learning_rate"][1]
    np.testing.assert_allclose(rates, 0.001 * np.arange(1, 61), rtol=1e-6)


@pytest.mark.parametrize("kind", ["ours", "keras"])
def test_a_compiled_schedule_is_recorded(kind, tmp_path):
    ours = tfs.Linear(0.1, 0.0, 60)
    schedule = {
        "ours": ours,
        "keras": keras.optimizers.schedules.PolynomialDecay(0.1, 60, 0.0),
    }[kind]
    fit(linear_model(keras.optimizers.SGD(schedule)), tfs.TensorBoardLogger(tmp_path))
    tags = read(tmp_path / "schedules")
    assert "schedule/momentum" not in tags
    np.testing.assert_allclose(
        tags["schedule/learning_rate"][1], ours.values(60), rtol=1e-5
    )


def test_adams_beta_and_weight_decay(tmp_path):
    model = linear_model(keras.optimizers.AdamW(0.01, weight_decay=0.1))
    decay = tfs.Linear(0.1, 0.2, 60)
    fit(
        model,
        tfs.OneCycle(0.01),
        tfs.HyperparameterScheduler(weight_decay=decay, beta_2=tfs.Constant(0.99)),
        tfs.TensorBoardLogger(tmp_path),
    )
    tags = read(tmp_path / "schedules")
    momenta = tfs.one_cycle(0.01, 60)["momentum"].values(60)
    np.testing.assert_array_equal(
        tags["schedule/momentum"][1], momenta.astype("float32")
    )
    np.testing.assert_array_equal(
        tags["schedule/weight_decay"][1], decay.values(60).astype("float32")
    )
    np.testing.assert_array_equal(tags["schedule/beta_2"][1], np.float32(0.99))
    model = linear_model(keras.optimizers.AdamW(0.01, weight_decay=0.1))
    fit(model, tfs.TensorBoardLogger(tmp_path / "constant"))
    tags = read(tmp_path / "constant" / "schedules")
    np.testing.assert_array_equal(tags["schedule/weight_decay"][1], np.float32(0.1))
    np.testing.assert_array_equal(tags["schedule/momentum"][1], np.float32(0.9))


def test_a_second_fit_goes_on_and_a_new_model_begins_a_run(tmp_path):
    model = linear_model()
    logger = tfs.TensorBoardLogger(tmp_path)
    fit(model, logger, epochs=1)
    fit(model, logger, epochs=2)
    assert runs(tmp_path) == ["schedules"]
    steps = read(tmp_path / "schedules")["schedule/loss"][0]
    np.testing.assert_array_equal(steps, np.arange(60))
    fit(linear_model(), logger, epochs=1)
    assert runs(tmp_path) == ["schedules", "schedules_1"]
    steps = read(tmp_path / "schedules_1")["schedule/loss"][0]
    np.testing.assert_array_equal(steps, np.arange(20))


def test_with_accumulation_a_step_is_an_update(tmp_path):
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=4)
    model = linear_model(optimizer)
    rates = tfs.Linear(0.1, 0.5, 15).values(15)
    expected = numpy_sweep(model, rates, accumulate=4)
    fit(
        model,
        tfs.HyperparameterScheduler(tfs.Linear(0.1, 0.5, 15)),
        tfs.TensorBoardLogger(tmp_path),
    )
    tags = read(tmp_path / "schedules")
    np.testing.assert_array_equal(tags["schedule/loss"][0], np.arange(15))
    np.testing.assert_allclose(tags["schedule/loss"][1], expected, rtol=1e-5)


def test_updates_that_a_scaled_loss_skips_are_no_steps(tmp_path):
    inner = keras.optimizers.SGD(0.1, momentum=0.9)
    scaled = keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**127)
    model = linear_model(scaled, loss_weights=100.0)
    rates = tfs.Linear(0.001, 0.005, 60)
    start = linear_model()
    fit(model, tfs.HyperparameterScheduler(rates), tfs.TensorBoardLogger(tmp_path))
    made = int(inner.iterations.numpy())
    assert made < 60  # the first scales overflow
    tags = read(tmp_path / "schedules")
    np.testing.assert_array_equal(tags["schedule/loss"][0], np.arange(made))
    # A hundredfold loss at a hundredth of the rate is the same training.
    skipped = 60 - made
    expected = 100 * numpy_sweep(start, 100 * rates.values(made), first=skipped)
    np.testing.assert_allclose(tags["schedule/loss"][1], expected, rtol=1e-5)


def test_an_interrupted_fit_keeps_what_it_has(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt("here")

    model = linear_model()
    logger = tfs.TensorBoardLogger(tmp_path)
    with pytest.raises(KeyboardInterrupt, match="here"):
        fit(model, logger, Stop())
    steps = read(tmp_path / "schedules")["schedule/loss"][0]
    np.testing.assert_array_equal(steps, np.arange(40))
    fit(model, logger, epochs=1)  # goes on in the same run
    steps = read(tmp_path / "schedules")["schedule/loss"][0]
    np.testing.assert_array_equal(steps, np.arange(60))
    assert "make_train_function" not in vars(model)
    assert type(model._loss_tracker) is keras.metrics.Mean


def test_it_does_not_change_the_training(tmp_path):
    def train(*callbacks):
        model = linear_model()
        history = fit(
            model, *callbacks, shuffle=True, validation_data=(X[:64], Y[:64])
        ).history
        scores = model.evaluate(X[:100], Y[:100], verbose=0)
        return model.get_weights(), history, scores

    plain, logged = train(), train(tfs.TensorBoardLogger(tmp_path))
    for a, b in zip(plain[0], logged[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert plain[1:] == logged[1:]


def test_beside_a_range_test_its_result_is_written(tmp_path):
    model = linear_model()
    test = tfs.RangeTest(max_lr=1.0, steps=30)
    fit(model, tfs.TensorBoardLogger(tmp_path), test)
    assert runs(tmp_path) == ["range_test"]
    result = tfs.find_learning_rate(model, X, Y, log_dir=tmp_path, verbose=0)
    assert runs(tmp_path) == ["range_test", "range_test_1"]
    for run, expected in (("range_test", test.result), ("range_test_1", result)):
        tags = read(tmp_path / run)
        assert set(tags) == {
            "range_test/loss",
            "range_test/smoothed_loss",
            "range_test/learning_rate",
        }
        steps, losses, _ = tags["range_test/loss"]
        np.testing.assert_array_equal(steps, np.arange(len(expected.losses)))
        np.testing.assert_array_equal(losses, expected.losses.astype("float32"))
        np.testing.assert_array_equal(
            tags["range_test/learning_rate"][1],
            expected.learning_rates.astype("float32"),
        )
        accumulator = EventAccumulator(str(tmp_path / run))
        accumulator.Reload()
        by_plugin = accumulator.summary_metadata
        assert by_plugin["range_test/curve"].plugin_data.plugin_name == "images"
        assert by_plugin["range_test/report"].plugin_data.plugin_name == "text"
        (text,) = accumulator.Tensors("range_test/report")
        report = text.tensor_proto.string_val[0].decode()
        assert f"max_lr={expected.suggestion:.3g}" in report


def test_a_disk_that_fails_later_does_not_stop_the_training(tmp_path, monkeypatch):
    from tfschedules.tensorboard import EventWriter

    calls = []
    original = EventWriter.scalars

    def fails(self, steps, *args):
        calls.append(steps)
        if steps[0] >= 20:
            raise OSError(28, "No space left on device")
        return original(self, steps, *args)

    monkeypatch.setattr(EventWriter, "scalars", fails)
    model = linear_model()
    with pytest.warns(UserWarning, match="no longer records to .*No space left"):
        history = fit(model, tfs.TensorBoardLogger(tmp_path))
    assert len(history.epoch) == 3
    assert [calls[0][0], calls[-1][0]] == [0, 20]
    assert sum(steps[0] >= 20 for steps in calls) == 1
    steps = read(tmp_path / "schedules")["schedule/loss"][0]
    np.testing.assert_array_equal(steps, np.arange(20))


def test_bad_folders(tmp_path):
    for bad in (None, 3, b"", ""):
        with pytest.raises(TypeError, match="`log_dir` must be the path of a folder"):
            tfs.TensorBoardLogger(bad)
    in_the_way = tmp_path / "file"
    in_the_way.write_text("x")
    model = linear_model()
    before = model.get_weights()
    with pytest.raises(OSError, match="file"):
        fit(model, tfs.TensorBoardLogger(in_the_way))
    np.testing.assert_array_equal(before[0], model.get_weights()[0])
    fit(model, epochs=1)
    assert "make_train_function" not in vars(model)
    assert "apply" not in vars(innermost(model.optimizer))


def test_evaluating_with_the_logger_alone_does_nothing(tmp_path):
    model = linear_model()
    model.evaluate(X, Y, verbose=0, callbacks=[tfs.TensorBoardLogger(tmp_path)])
    assert runs(tmp_path) == []


@pytest.mark.tensorflow
def test_beside_keras_tensorboard_neither_harms_the_other(tmp_path):
    keras_board = keras.callbacks.TensorBoard(tmp_path, update_freq="batch")
    fit(linear_model(), keras_board, tfs.TensorBoardLogger(tmp_path))
    assert runs(tmp_path) == ["schedules", "train"]
    steps = read(tmp_path / "schedules")["schedule/loss"][0]
    np.testing.assert_array_equal(steps, np.arange(60))


def test_several_outputs(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((64,))
    outputs = [keras.layers.Dense(10, name=name)(inputs) for name in "ab"]
    model = keras.Model(inputs, outputs)
    model.compile("sgd", [LOSS, LOSS], loss_weights=[1.0, 0.5])
    expected = model.evaluate(X[:32], [Y[:32], Y[:32]], verbose=0)[0]
    model.fit(
        X, [Y, Y], batch_size=32, shuffle=False, verbose=0,
        callbacks=[tfs.TensorBoardLogger(tmp_path)],
    )  # fmt: skip
    losses = read(tmp_path / "schedules")["schedule/loss"][1]
    assert losses[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("before", [False, True])
def test_an_evaluation_in_the_middle_of_an_epoch_is_not_recorded(before, tmp_path):
    class Evaluate(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch % 7 == 3:
                if keras.backend.backend() == "jax":
                    self.model.jax_state_sync()
                self.model.evaluate(100 * X[:64], Y[:64], verbose=0)

    model = linear_model()
    expected = numpy_sweep(model, np.full(60, 0.1))
    if before:  # with a batch of another shape, for which it is traced anew
        model.evaluate(X[:8], Y[:8], verbose=0)
    tested = model.test_function
    fit(model, Evaluate(), tfs.TensorBoardLogger(tmp_path))
    assert model.test_function is tested
    losses = read(tmp_path / "schedules")["schedule/loss"]
    np.testing.assert_array_equal(losses[0], np.arange(60))
    np.testing.assert_allclose(losses[1], expected, rtol=1e-5)
    assert "test_step" not in vars(model)


@pytest.mark.parametrize("first", [True, False])
def test_a_model_put_back_inside_a_fit_begins_a_run(first, tmp_path):
    class Rollback(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            path = str(tmp_path / "at_20.weights.h5")
            if epoch == 1:
                self.model.save_weights(path)
            if epoch == 2:
                self.model.load_weights(path)

    logger = tfs.TensorBoardLogger(tmp_path / "logs")
    callbacks = [Rollback(), logger] if first else [logger, Rollback()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(linear_model(), *callbacks)
    assert runs(tmp_path / "logs") == ["schedules", "schedules_1"]
    steps = read(tmp_path / "logs" / "schedules")["schedule/loss"][0]
    np.testing.assert_array_equal(steps, np.arange(40))
    steps = read(tmp_path / "logs" / "schedules_1")["schedule/loss"][0]
    np.testing.assert_array_equal(steps, np.arange(20, 40))


@pytest.mark.parametrize("driven", [True, False])
@pytest.mark.parametrize("scaled", [True, False])
def test_every_groups_rate_of_every_step(tmp_path, driven, scaled):
    model = linear_model(steps_per_execution=5)
    factor = tfs.Linear(0.0, 1.0, steps=50)
    groups = [
        tfs.LayerGroup("all kernels", "kernel", factor),
        tfs.LayerGroup("biases", "bias", 0.25),
    ]
    optimizer = tfs.LayerwiseOptimizer(keras.optimizers.SGD(0.1), groups)
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, LOSS, steps_per_execution=5)
    rates = tfs.Cosine(0.1, 0.0, 59)
    callbacks = [tfs.HyperparameterScheduler(rates)] if driven else []
    fit(model, *callbacks, tfs.TensorBoardLogger(tmp_path))
    tags = read(tmp_path / "schedules")
    base = rates.values(60) if driven else np.full(60, 0.1)
    for tag, expected in {
        "schedule/learning_rate": base,
        "schedule/learning_rate/all kernels": base * factor.values(60),
        "schedule/learning_rate/biases": base * 0.25,
    }.items():
        np.testing.assert_array_equal(tags[tag][0], np.arange(60))
        np.testing.assert_allclose(tags[tag][1], expected, rtol=1e-6, atol=1e-9)
