"""The range test on real fits: true losses, where it stops, what it leaves behind."""

import functools
import re

import keras
import numpy as np
import pytest
from linear_model import LOSS, X, Y, linear_model, numpy_sweep

import tfschedules as tfs
from tfschedules.drive import innermost


def full_model():
    """Everything that training changes: BatchNorm, Dropout's seeds, Adam's slots."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(16, "relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(10),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), LOSS, metrics=["accuracy"])
    return model


def state_of(model):
    # A test of its own of what to compare: not the package's list of variables.
    groups = [model.variables, model.optimizer.variables]
    return [np.array(keras.ops.convert_to_numpy(v.value)) for g in groups for v in g]


def assert_equal(before, after):
    assert len(before) == len(after)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("block", [1, 4, 7])
def test_losses_are_the_batches_own_at_their_own_rates(block):
    model = linear_model(steps_per_execution=block)
    rates = np.geomspace(1e-4, 1.0, 60)
    expected = numpy_sweep(model, rates)
    result = tfs.find_learning_rate(
        model, X, Y, min_lr=1e-4, max_lr=1.0, steps=60, batch_size=32, shuffle=False,
        verbose=0,
    )  # fmt: skip
    assert result.stop_reason == "finished"
    np.testing.assert_allclose(result.learning_rates, rates, rtol=1e-12)
    np.testing.assert_allclose(result.losses, expected, rtol=1e-5)


def test_the_linear_sweep_is_smiths():
    model = linear_model()
    result = tfs.find_learning_rate(
        model, X, Y, min_lr=0.01, max_lr=0.5, steps=25, mode="linear", shuffle=False,
        verbose=0,
    )  # fmt: skip
    np.testing.assert_allclose(result.learning_rates, np.linspace(0.01, 0.5, 25))
    expected = numpy_sweep(model, np.linspace(0.01, 0.5, 25))
    np.testing.assert_allclose(result.losses, expected, rtol=1e-5)


def test_with_gradient_accumulation_a_rate_is_an_update():
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=4)
    model = linear_model(optimizer)
    result = tfs.find_learning_rate(
        model, X, Y, min_lr=1e-3, max_lr=1.0, steps=20, shuffle=False, verbose=0
    )
    expected = numpy_sweep(model, np.geomspace(1e-3, 1.0, 20), accumulate=4)
    np.testing.assert_allclose(result.losses, expected, rtol=1e-5)


def test_sample_weights_count():
    weights = np.random.default_rng(0).uniform(0, 2, len(X)).astype("float32")
    model = linear_model(keras.optimizers.SGD(0.1))
    result = tfs.find_learning_rate(
        model, X, Y, sample_weight=weights, min_lr=1e-12, max_lr=1e-11, steps=20,
        shuffle=False, verbose=0,
    )  # fmt: skip
    z = X @ model.get_weights()[0] + model.get_weights()[1]
    each = np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(Y)), Y]
    expected = (weights * each).reshape(20, 32).mean(axis=1)
    np.testing.assert_allclose(result.losses, expected, rtol=1e-5)


def scripted_model(losses):
    """A model whose loss at batch i is losses[i], whatever its weight does."""
    script = keras.ops.convert_to_tensor(np.array(losses, "float32"))

    def loss(y_true, y_pred):
        index = keras.ops.cast(keras.ops.reshape(y_true, (-1,))[0], "int32")
        return keras.ops.take(script, index) + 0 * keras.ops.sum(y_pred)

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), loss)
    x = np.ones((len(losses), 1), "float32")
    return model, x, np.arange(len(losses))


def sweep_script(losses, **arguments):
    model, x, y = scripted_model(losses)
    return tfs.find_learning_rate(
        model, x, y, steps=len(losses), batch_size=1, shuffle=False, verbose=0,
        **arguments,
    )  # fmt: skip


def test_it_stops_where_the_loss_has_diverged():
    falling = [*np.linspace(2.0, 1.0, 17), 1.0, 1.0, 1.0]
    result = sweep_script([*falling, *np.linspace(1.2, 9, 30)])
    assert result.stop_reason == "diverged"
    # The median of three passes 4.0 one batch after the loss itself does.
    first = next(i for i, loss in enumerate(np.linspace(1.2, 9, 30)) if loss > 4)
    assert len(result.losses) == 20 + first + 2


def test_one_odd_batch_does_not_stop_it():
    losses = [2.0] * 10 + [1.0] * 10 + [50.0] + [1.0] * 10
    assert sweep_script(losses).stop_reason == "finished"


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_noise_is_no_divergence(level):
    # Small batches: squared errors that differ by more than four times the least.
    rng = np.random.default_rng(0)
    losses = rng.chisquare(2, 60) + 0.02 if level else rng.normal(0.0, 1.0, 60)
    assert sweep_script(losses).stop_reason == "finished"
    diverging = [*losses, *(100.0 * np.arange(1, 30))]
    assert sweep_script(diverging).stop_reason == "diverged"


def test_a_negative_loss_is_no_divergence():
    losses = list(np.linspace(1.0, -3.0, 40))
    result = sweep_script(losses)
    assert result.stop_reason == "finished"
    rising = [*np.linspace(-1.0, -3.0, 20), *np.linspace(-2.0, 40.0, 20)]
    assert sweep_script(rising).stop_reason == "diverged"


def test_without_a_stop_factor_it_goes_to_the_end():
    losses = [1.0] * 5 + [1000.0] * 15
    assert sweep_script(losses, stop_factor=None).stop_reason == "finished"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_it_stops_at_a_loss_that_is_not_finite(bad):
    result = sweep_script([2.0, 1.9, 1.8, bad, 1.0, 1.0])
    assert result.stop_reason == "non-finite loss"
    assert len(result.losses) == 4
    np.testing.assert_equal(result.losses[-1], bad)
    assert result.suggestion is None


def test_everything_is_put_back_from_an_optimizer_not_yet_built():
    model = full_model()
    before = state_of(model)
    test = tfs.RangeTest(steps=20)
    model.fit(X, Y, epochs=1, verbose=0, callbacks=[test])
    after = state_of(model)
    assert int(model.optimizer.iterations.numpy()) == 0
    assert float(model.optimizer.learning_rate.numpy()) == np.float32(0.01)
    assert model.stop_training is False
    # Building adds slots of zeros; what was there before is as it was.
    assert_equal(before, after[: len(before)])
    assert all(not slot.any() for slot in after[len(before) :])
    assert len(test.result.losses) == 20


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_it_restores_whatever_happens(error):
    class Raises(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 9:
                raise error("here")

    model = full_model()
    model.optimizer.build(model.trainable_variables)  # or it is traced twice
    model.fit(X, Y, verbose=0)
    before, history = state_of(model), model.history
    with pytest.raises(error, match="here"):
        tfs.find_learning_rate(model, X, Y, callbacks=[Raises()], verbose=0)
    assert_equal(before, state_of(model))
    assert model.history is history
    assert "apply" not in vars(innermost(model.optimizer))
    assert "make_train_function" not in vars(model)


def test_the_callback_restores_when_asked_after_an_exception():
    class Raises(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 9:
                raise RuntimeError("here")

    model = full_model()
    test = tfs.RangeTest(steps=20)
    model.optimizer.build(model.trainable_variables)
    before = state_of(model)
    with pytest.raises(RuntimeError, match="here"):
        model.fit(X, Y, verbose=0, callbacks=[test, Raises()])
    test.restore()
    assert_equal(before, state_of(model))
    assert test.result.stop_reason == "interrupted"
    assert len(test.result.losses) == 10
    test.restore()  # nothing more to do
    assert test.result.stop_reason == "interrupted"


def test_a_fit_that_is_too_short_says_how_many_epochs_it_takes():
    model = linear_model()
    test = tfs.RangeTest(steps=100)
    with pytest.warns(
        UserWarning, match="100 steps long and this fit only 20: it needs epochs=5"
    ):
        model.fit(X, Y, verbose=0, callbacks=[test])
    assert test.result.stop_reason == "out of data"
    assert len(test.result.losses) == 20


def test_a_fit_that_is_too_long_is_ended():
    model = linear_model()
    test = tfs.RangeTest(max_lr=1.0, steps=30)
    history = model.fit(X, Y, epochs=50, verbose=0, callbacks=[test])
    assert len(history.epoch) == 2
    assert len(test.result.losses) == 30


def test_data_of_every_kind():
    def generator():
        for i in range(0, len(X), 32):
            yield X[i : i + 32], Y[i : i + 32]

    class Sequence(keras.utils.PyDataset):
        def __len__(self):
            return 20

        def __getitem__(self, i):
            return X[32 * i : 32 * i + 32], Y[32 * i : 32 * i + 32]

    arrays = tfs.find_learning_rate(
        linear_model(), X, Y, steps=20, shuffle=False, verbose=0
    )
    for data in (generator, functools.partial(generator), Sequence()):
        other = tfs.find_learning_rate(
            linear_model(), data, steps=20, shuffle=False, verbose=0
        )
        np.testing.assert_allclose(other.losses, arrays.losses, rtol=1e-6)
    with pytest.warns(UserWarning, match=r"cannot be rewound.*model, batches\)"):
        once = tfs.find_learning_rate(
            linear_model(), generator(), steps=20, shuffle=False, verbose=0
        )
    np.testing.assert_allclose(once.losses, arrays.losses, rtol=1e-6)
    with pytest.warns(UserWarning, match="cannot be rewound"):
        short = tfs.find_learning_rate(
            linear_model(), generator(), max_lr=1e-3, steps=30, verbose=0
        )
    assert short.stop_reason == "out of data"
    assert len(short.losses) == 20


def test_repeats_take_other_batches_from_the_same_weights():
    model = linear_model()
    before = state_of(model)
    result = tfs.find_learning_rate(model, X, Y, steps=40, repeats=3, verbose=0)
    assert result.sweeps.shape == (3, len(result.losses))
    np.testing.assert_allclose(result.losses, np.nanmean(result.sweeps, axis=0))
    # All begin at the same weights; no two see the same first batch.
    assert len({round(float(loss), 6) for loss in result.sweeps[:, 0]}) == 3
    assert_equal(before, state_of(model)[: len(before)])


def test_an_unbuilt_model_will_do():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Dense(10)])
    model.compile("sgd", LOSS)
    result = tfs.find_learning_rate(model, X, Y, steps=20, verbose=0)
    assert len(result.losses) == 20


def test_validation_losses_are_not_recorded():
    plain, watched = linear_model(), linear_model()
    tests = [tfs.RangeTest(max_lr=1.0, steps=50) for _ in range(2)]
    plain.fit(X, Y, epochs=3, shuffle=False, verbose=0, callbacks=[tests[0]])
    watched.fit(
        X, Y, epochs=3, shuffle=False, verbose=0, callbacks=[tests[1]],
        validation_data=(X[:100], Y[:100]),
    )  # fmt: skip
    np.testing.assert_array_equal(tests[0].result.losses, tests[1].result.losses)


def test_through_a_scaled_loss():
    scaled = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1, momentum=0.9), initial_scale=1024.0
    )
    model = linear_model(scaled)
    rates = np.geomspace(1e-4, 1.0, 40)
    expected = numpy_sweep(model, rates)
    result = tfs.find_learning_rate(
        model, X, Y, min_lr=1e-4, max_lr=1.0, steps=40, shuffle=False, verbose=0
    )
    np.testing.assert_allclose(result.losses, expected, rtol=1e-5)


def test_a_train_step_of_ones_own_reports_its_loss_in_the_logs():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(10)

        def call(self, x):
            return self.dense(x)

        def compute_metrics(self, x, y, y_pred, sample_weight=None):
            return {"loss": self.compute_loss(x=x, y=y, y_pred=y_pred)}

    keras.utils.set_random_seed(3)
    model = Own()
    model.compile(keras.optimizers.SGD(0.1), LOSS)
    result = tfs.find_learning_rate(model, X, Y, steps=10, shuffle=False, verbose=0)
    assert np.isfinite(result.losses).all()


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"min_lr": 0.0}, ValueError, r"`min_lr` must be > 0\. Received: min_lr=0\.0"),
        ({"min_lr": -1.0}, ValueError, "`min_lr` must be > 0"),
        ({"min_lr": "a"}, TypeError, "`min_lr` must be a number.*'a'"),
        ({"max_lr": np.nan}, ValueError, "`max_lr` must be finite"),
        ({"max_lr": np.inf}, ValueError, "`max_lr` must be finite"),
        ({"max_lr": True}, TypeError, "`max_lr` must be a number.*True"),
        ({"min_lr": 1.0, "max_lr": 0.1}, ValueError, "`min_lr` must be < `max_lr`"),
        ({"min_lr": 1.0, "max_lr": 1.0}, ValueError, "`min_lr` must be < `max_lr`"),
        ({"steps": 1}, ValueError, "`steps` must be >= 2.*steps=1"),
        ({"steps": 10.5}, ValueError, "`steps` must be a whole number"),
        ({"mode": "log"}, ValueError, "`mode` must be one of 'exponential', 'linear'"),
        ({"stop_factor": 1.0}, ValueError, "`stop_factor` must be > 1.*None"),
        ({"rule": "best"}, ValueError, "`rule` must be one of .*'minimum'"),
    ],
)
def test_bad_arguments(arguments, error, match):
    with pytest.raises(error, match=match):
        tfs.RangeTest(**arguments)
    model = linear_model()
    before = state_of(model)
    with pytest.raises(error, match=match):
        tfs.find_learning_rate(model, X, Y, verbose=0, **arguments)
    assert_equal(before, state_of(model))


def test_bad_models_and_data(tmp_path):
    model = linear_model()
    before = state_of(model)
    uncompiled = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    with pytest.raises(
        ValueError, match=r"`model` must be compiled.*Call model\.compile"
    ):
        tfs.find_learning_rate(uncompiled, X, Y)
    with pytest.raises(TypeError, match=r"`model` must be a keras\.Model.*NoneType"):
        tfs.find_learning_rate(None, X, Y)
    with pytest.raises(ValueError, match=r"`x` must hold data.*\(0, 64\)"):
        tfs.find_learning_rate(model, X[:0], Y[:0])
    with pytest.raises(ValueError, match="`repeats` must be >= 1"):
        tfs.find_learning_rate(model, X, Y, repeats=0)
    for name in ("epochs", "validation_split"):
        with pytest.raises(ValueError, match=f"`{name}` has no place in a range test"):
            tfs.find_learning_rate(model, X, Y, **{name: 3})
    scheduled = linear_model(keras.optimizers.SGD(tfs.Constant(0.1)))
    with pytest.raises(ValueError, match="learning rate must be a number"):
        tfs.find_learning_rate(scheduled, X, Y, verbose=0)
    in_the_way = tmp_path / "file"
    in_the_way.write_text("x")
    with pytest.raises(OSError, match="file"):
        tfs.find_learning_rate(model, X, Y, verbose=0, log_dir=in_the_way)
    assert_equal(before, state_of(model))


@pytest.mark.tensorflow
def test_an_empty_dataset_is_refused():
    import tensorflow as tf

    model = linear_model()
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(32)
    unknown = data.filter(lambda x, y: False)
    for empty in (data.take(0), unknown):
        before = state_of(model)
        with pytest.raises(ValueError, match="data"):
            tfs.find_learning_rate(model, empty, verbose=0)
        assert_equal(before, state_of(model)[: len(before)])


def test_the_progress_bar_says_what_it_tries(capsys):
    tfs.find_learning_rate(linear_model(), X, Y, steps=20, max_lr=1.0)
    printed = capsys.readouterr().out
    assert "20/20" in printed
    assert "lr: 1.0000" in printed
    # Each line fits into a terminal, and is ended, also where data end before.
    x = X[:100]
    tfs.find_learning_rate(
        linear_model(), x, Y[:100], steps=20, repeats=2, batch_size=32
    )
    batches = ((X[:32], Y[:32]) for _ in range(3))
    with pytest.warns(UserWarning, match="cannot be rewound"):
        tfs.find_learning_rate(linear_model(), batches)
    printed += capsys.readouterr().out
    for line in re.split(r"[\r\n\x08]+", re.sub(r"\x1b\[[0-9;]*m", "", printed)):
        assert len(line.rstrip()) <= 80, line
    assert printed.count("loss 2/2") > 0
    assert " 3/100" in printed
    assert printed.endswith("\n")


def test_callbacks_that_write_weights_at_the_very_end_are_undone():
    model = full_model()
    before = state_of(model)
    best = keras.callbacks.EarlyStopping("loss", patience=5, restore_best_weights=True)
    tfs.find_learning_rate(
        model, X, Y, max_lr=1.0, steps=30, callbacks=[best], verbose=0
    )
    assert_equal(before, state_of(model)[: len(before)])


def test_fewer_batches_in_an_epoch_than_are_accumulated():
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=4)
    model = linear_model(optimizer)
    result = tfs.find_learning_rate(
        model, X[:64], Y[:64], max_lr=1.0, steps=10, verbose=0
    )
    assert result.stop_reason == "finished"


def test_an_endless_generator_with_steps_per_epoch():
    def endless():
        while True:
            yield X[:32], Y[:32]

    with pytest.warns(UserWarning, match="cannot be rewound"):
        result = tfs.find_learning_rate(
            linear_model(), endless(), steps=30, max_lr=1.0, steps_per_epoch=10,
            verbose=0,
        )  # fmt: skip
    assert len(result.losses) == 30
    with pytest.raises(ValueError, match="`repeats` must be 1 with a generator"):
        tfs.find_learning_rate(linear_model(), endless(), repeats=2)


def test_other_optimizers_of_the_model_are_put_back():
    model = linear_model()
    model.other = keras.optimizers.Adam(0.1)
    model.other.build(model.trainable_variables)

    class Other(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.other.iterations.assign(99)

    tfs.find_learning_rate(model, X, Y, callbacks=[Other()], verbose=0)
    assert int(model.other.iterations.numpy()) == 0


def test_a_sweep_that_raises_leaves_no_folder(tmp_path):
    class Raises(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            raise RuntimeError("here")

    with pytest.raises(RuntimeError, match="here"):
        tfs.find_learning_rate(
            linear_model(), X, Y, callbacks=[Raises()], log_dir=tmp_path, verbose=0
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("x", "y", "arguments", "error", "match"),
    [
        ([], [], {}, ValueError, "`x` must hold data"),
        ({}, None, {}, ValueError, "`x` must hold data"),
        (X, Y, {"callbacks": 3}, TypeError, "`callbacks` must be a list.*callbacks=3"),
        (
            X,
            Y,
            {"min_lr": 1.0, "max_lr": np.nextafter(1, 2)},
            ValueError,
            "leave room for as many rates",
        ),
        (X, Y, {"max_lr": 10**400}, ValueError, "`max_lr` must be finite"),
        (X, Y, {"max_rate": 1}, TypeError, "argument `max_rate`.*=1. .* `max_lr`"),
        (X, Y, {"repeat": 3}, TypeError, "argument `repeat`.* mean `repeats`"),
        (X, Y, {"zzz": 3}, TypeError, "has no argument `zzz`.*zzz=3.$"),
        (X, Y, {"batch_size": "32"}, TypeError, "`batch_size` must be a num.*'32'"),
        (X, Y, {"batch_size": 0}, ValueError, "`batch_size` must be >= 1.*=0"),
        (X, Y, {"steps": tfs.epochs(3)}, TypeError, r"`steps`.*epochs\(3.*updates"),
        (X, Y, {"validation_data": X}, TypeError, r"must be \(x, y\).*ndarray"),
        (X, None, {}, ValueError, r"needs targets.*type ndarray.*\(model, x, y\)"),
        ((X, Y), None, {}, ValueError, r"targets.*tuple of 2.*\(model, x, y\)"),
        ([X, Y], None, {}, ValueError, r"targets.*list of 2.*\(model, x, y\)"),
        ({"x": X}, None, {}, ValueError, r"targets.*type dict.*\(model, x, y\)"),
    ],
)
def test_more_bad_input(x, y, arguments, error, match):
    with pytest.raises(error, match=match):
        tfs.find_learning_rate(linear_model(), x, y, verbose=0, **arguments)


class WithoutTargets(keras.Sequential):
    """What it learns is in its input."""

    def compute_loss(self, x=None, y=None, y_pred=None, *args, **kwargs):
        return keras.ops.mean(keras.ops.square(keras.ops.mean(x, 1) - y_pred[:, 0]))


class Small(keras.losses.Loss):
    def __call__(self, y_true, y_pred, sample_weight=None):
        return keras.ops.mean(keras.ops.square(y_pred))


@pytest.mark.parametrize(
    ("kind", "loss"),
    [(WithoutTargets, None), (WithoutTargets, "mse"), (keras.Sequential, Small())],
)
def test_a_model_that_needs_no_targets_has_none(kind, loss):
    model = kind([keras.Input((64,)), keras.layers.Dense(10)])
    model.compile("sgd", loss)
    result = tfs.find_learning_rate(model, X, steps=5, verbose=0)
    assert len(result.losses) == 5


def test_each_of_several_sweeps_needs_targets():
    with pytest.raises(ValueError, match=r"needs targets.*tuple of 2"):
        tfs.compare_range_tests(linear_model(), (X, Y), momentum=[0.8, 0.9])
