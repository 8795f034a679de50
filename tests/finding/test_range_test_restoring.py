"""After a range test training goes on to the bit as if there had been none."""

import functools
import random
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import BACKEND, JIT, digits

import tfschedules as tfs

X, Y = digits(640)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(optimizer, *, built=True, **arguments):
    """What a fit changes: BatchNorm's statistics, Dropout's seeds, metrics."""
    keras.utils.set_random_seed(3)
    layers = [
        keras.layers.Dense(16, "relu", use_bias=False),  # fewer weights, faster traced
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(10, use_bias=False, dtype="float32"),
    ]
    if built:
        layers.insert(0, keras.Input((64,)))
    model = keras.Sequential(layers)
    arguments = {"jit_compile": JIT, **arguments}
    model.compile(optimizer, LOSS, metrics=["accuracy"], **arguments)
    return model


def everything(model):
    """A test of its own of what to compare: not the package's list of variables."""
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    hidden = [v for v in vars(inner).values() if isinstance(v, keras.Variable)]
    variables = [*model.variables, *model.optimizer.variables, *hidden]
    values = [np.array(keras.ops.convert_to_numpy(v.value)) for v in variables]
    return [
        value.astype("float64") if value.dtype.kind == "V" else value
        for value in values
    ]


def generators():
    return random.random(), np.random.rand(), float(keras.random.uniform(()))


def train_on(model):
    history = model.fit(X, Y, batch_size=32, epochs=2, verbose=0).history
    return everything(model), history, generators()


def assert_same(expected, actual):
    for a, b in zip(expected[0], actual[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert expected[1:] == actual[1:]


def adam(**arguments):
    return keras.optimizers.Adam(0.01, **arguments)


OPTIMIZERS = {
    "adam": adam,
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "nadam": lambda: keras.optimizers.Nadam(0.01),
    "averages": lambda: adam(use_ema=True, ema_overwrite_frequency=7),
    "accumulating": lambda: adam(gradient_accumulation_steps=3),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(
        adam(), initial_scale=64.0, dynamic_growth_steps=5
    ),
    "decay": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1, global_clipnorm=1),
}


def build(model):
    """TensorFlow traces a step twice where it has to build the optimizer, too."""
    model.optimizer.build(model.trainable_variables)


def prepared(name="adam", *, trained=True, block=1):
    """A network, trained for an epoch if so wanted."""
    model = network(OPTIMIZERS[name](), steps_per_execution=block)
    if trained:
        build(model)
        model.fit(X, Y, batch_size=32, verbose=0)
    return model


@functools.cache
def undisturbed(name="adam", *, trained=True, block=1):
    """What training gives without a range test: computed once, compared with often."""
    return train_on(prepared(name, trained=trained, block=block))


def swept(model, form, tmp_path, **arguments):
    """Run a range test in one of its forms."""
    sweep = {"max_lr": 1.0, "steps": 30, **arguments}
    if form == "function":
        tfs.find_learning_rate(model, X, Y, verbose=0, **sweep)
    elif form == "disk":
        tfs.find_learning_rate(model, X, Y, verbose=0, snapshot_dir=tmp_path, **sweep)
        assert list(tmp_path.iterdir()) == []
    else:
        state = np.random.get_state(), random.getstate()
        model.fit(X, Y, epochs=2, verbose=0, callbacks=[tfs.RangeTest(**sweep)])
        # Keras draws the order of the samples before callbacks are asked.
        np.random.set_state(state[0])
        random.setstate(state[1])


# Plain Keras fails in the second fit with averages of weights on JAX.
@pytest.mark.parametrize(
    ("name", "trained_before"),
    [
        ("adam", False),
        ("adam", True),
        ("momentum", True),
        ("nadam", False),
        ("averages", False),
        ("accumulating", True),
        ("scaled", True),
        ("decay", False),
    ],
)
def test_with_every_kind_of_optimizer(name, trained_before, tmp_path):
    expected = undisturbed(name, trained=trained_before)
    model = prepared(name, trained=trained_before)
    swept(model, "disk" if trained_before else "function", tmp_path)
    assert_same(expected, train_on(model))


# On disk: every kind of optimizer above that has been trained before.
@pytest.mark.parametrize(
    ("form", "block"), [("callback", 1), ("callback", 4), ("function", 4)]
)
def test_in_every_form(form, block, tmp_path):
    expected = undisturbed(block=block)
    model = prepared(block=block)
    swept(model, form, tmp_path)
    assert_same(expected, train_on(model))


@pytest.mark.parametrize(
    "arguments",
    [
        {"metric": "accuracy"},
        {"validation_data": (X[:100], Y[:100]), "validation_every": 6},
        {"hyperparameters": {"weight_decay": 0.5}},
        {"repeats": 2},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_with_every_reading(arguments, tmp_path):
    expected = undisturbed("decay", trained=False)
    model = prepared("decay", trained=False)
    swept(model, "function", tmp_path, **arguments)
    assert_same(expected, train_on(model))


@pytest.mark.parametrize(
    ("policy", "form"), [("mixed_float16", "function"), ("mixed_bfloat16", "disk")]
)
def test_in_mixed_precision(policy, form, tmp_path):
    def run(form):
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy)
        try:
            model = network(adam())
        finally:
            keras.config.set_dtype_policy(before)
        if form is not None:
            swept(model, form, tmp_path)
        return train_on(model)

    assert_same(run(None), run(form))


def test_what_frozen_weights_have_missed():
    """Adam corrects averages by it, and the sweep makes batches of its own."""

    def run(sweeps):
        model = network(adam())
        groups = tfs.discriminative_groups(model, 0.1, n_groups=2)
        if sweeps:
            callbacks = [tfs.GradualUnfreezing(groups), tfs.RangeTest(max_lr=1.0)]
            generators = np.random.get_state(), random.getstate()
            model.fit(X, Y, epochs=5, verbose=0, callbacks=callbacks)
            np.random.set_state(generators[0])
            random.setstate(generators[1])
        unfreezing = tfs.GradualUnfreezing(groups)
        model.fit(X, Y, epochs=2, verbose=0, shuffle=False, callbacks=[unfreezing])
        return [np.array(value) for value in model.get_weights()]

    for a, b in zip(run(False), run(True), strict=True):
        np.testing.assert_array_equal(a, b)


def test_with_weights_in_brain_floats_on_disk(tmp_path):
    def run(form):
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy("bfloat16")
        try:
            model = network(keras.optimizers.SGD(0.1))
        finally:
            keras.config.set_dtype_policy(before)
        build(model)
        if form is not None:
            swept(model, form, tmp_path)
        return train_on(model)

    assert_same(run(None), run("disk"))


def test_a_model_that_was_not_built():
    def run(sweeps):
        model = network(adam(), built=False)
        if sweeps:
            tfs.find_learning_rate(model, X, Y, steps=20, max_lr=1.0, verbose=0)
        return train_on(model)

    assert_same(run(False), run(True))


@pytest.mark.tensorflow
@pytest.mark.parametrize("trained_before", [False, True])
def test_what_tensorflow_knows_and_keras_does_not_list(trained_before):
    import tensorflow as tf

    class Noisy(keras.layers.Layer):
        """Random operations that remember where they are; a generator; a counter."""

        def __init__(self):
            super().__init__()
            self.generator = tf.random.Generator.from_seed(1)
            self.calls = tf.Variable(0)

        def call(self, x):
            self.calls.assign_add(1)
            noise = tf.random.normal(tf.shape(x)) + self.generator.normal(tf.shape(x))
            return x + 0.1 * noise

    def run(sweeps):
        keras.utils.set_random_seed(3)
        noisy, memory = Noisy(), keras.layers.SimpleRNN(8, stateful=True)
        model = keras.Sequential(
            [
                keras.Input((64,), batch_size=32),
                noisy,
                keras.layers.Reshape((8, 8)),
                memory,
                keras.layers.Dense(10),
            ]
        )
        model.compile(adam(), LOSS)
        if trained_before:
            build(model)
            model.fit(X, Y, batch_size=32, verbose=0)
        if sweeps:
            tfs.find_learning_rate(model, X, Y, steps=20, max_lr=1.0, verbose=0)
        after = train_on(model)
        return [*after[0], noisy.calls.numpy(), np.array(memory.states[0])], *after[1:]

    assert_same(run(False), run(True))


@pytest.mark.tensorflow
@pytest.mark.parametrize("trained_before", [False, True])
def test_a_model_of_models_with_optimizers_of_its_own(trained_before):
    import tensorflow as tf

    class Pair(keras.Model):
        """As the GANs of guides: no `call`, no loss, an optimizer to each model."""

        def __init__(self):
            super().__init__()
            layers = keras.Input((64,)), keras.layers.Dense(10)
            self.first = keras.Sequential(layers)
            self.others = [keras.Sequential([layers[0], keras.layers.Dense(10)])]
            self.optimizers = {"others": [keras.optimizers.Adagrad(0.1)]}

        def train_step(self, data):
            x, y = data
            logs = {}
            optimizers = [self.optimizer, *self.optimizers["others"]]
            models = [self.first, *self.others]
            for model, optimizer in zip(models, optimizers, strict=True):
                with tf.GradientTape() as tape:
                    logs["loss"] = LOSS(y, model(x, training=True))
                weights = model.trainable_variables
                optimizer.apply(tape.gradient(logs["loss"], weights), weights)
            return logs

    def run(sweeps):
        keras.utils.set_random_seed(3)
        model = Pair()
        model.compile(adam())
        if trained_before:
            model.fit(X, Y, verbose=0)
        if sweeps:
            tfs.find_learning_rate(model, X, Y, steps=20, max_lr=1.0, verbose=0)
        # The first optimizer is built on all weights in a sweep: it has more slots.
        after = train_on(model)[1:]
        (other,) = model.optimizers["others"]
        state = [*model.variables, *other.variables, model.optimizer.iterations]
        return [keras.ops.convert_to_numpy(value) for value in state], *after

    assert_same(run(False), run(True))


def test_it_does_not_run_inside_a_fit_of_the_same_model():
    class Within(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            with pytest.raises(ValueError, match=r"cannot run inside another.*between"):
                tfs.find_learning_rate(self.model, X, Y, verbose=0)

    expected = undisturbed()
    model = prepared(trained=False)
    model.fit(X, Y, batch_size=32, verbose=0, callbacks=[Within()])
    assert_same(expected, train_on(model))


def test_metrics_and_the_history_are_as_they_were():
    model = prepared()
    history, metrics = model.history, model.get_metrics_result()
    metrics = {name: float(value) for name, value in metrics.items()}
    tfs.find_learning_rate(model, X, Y, steps=20, max_lr=1.0, verbose=0)
    assert model.history is history
    after = {k: float(v) for k, v in model.get_metrics_result().items()}
    assert after == metrics
    assert model.stop_training is False


class Errors(keras.callbacks.Callback):
    """Raises where it is told to."""

    def __init__(self, where, error):
        super().__init__()
        self.where, self.error = where, error

    def _raise(self, where):
        if where == self.where:
            raise self.error("here")

    def on_train_begin(self, logs=None):
        self._raise("train begin")

    def on_epoch_begin(self, epoch, logs=None):
        self._raise("epoch begin")

    def on_train_batch_begin(self, batch, logs=None):
        self._raise(f"batch {batch} begins")

    def on_train_batch_end(self, batch, logs=None):
        self._raise(f"batch {batch} ends")

    def on_epoch_end(self, epoch, logs=None):
        self._raise("epoch end")

    def on_train_end(self, logs=None):
        self._raise("train end")


PLACES = [
    *("train begin", "epoch begin", "batch 0 begins", "batch 9 ends"),
    *("epoch end", "train end"),
]


@pytest.mark.parametrize(
    ("where", "error"),
    list(zip(PLACES, 3 * [KeyboardInterrupt, MemoryError], strict=True)),
)
def test_whatever_a_callback_raises(where, error):
    expected = undisturbed()
    model = prepared()
    with pytest.raises(error, match="here"):
        tfs.find_learning_rate(
            model, X, Y, steps=30, max_lr=1.0, verbose=0,
            callbacks=[Errors(where, error)],
        )  # fmt: skip
    assert_same(expected, train_on(model))


@pytest.mark.parametrize("where", PLACES)
def test_the_callback_puts_back_when_asked_after_an_error(where):
    model = prepared()
    before = everything(model)
    test = tfs.RangeTest(max_lr=1.0, steps=30)
    with pytest.raises(RuntimeError, match="here"):
        model.fit(
            X, Y, epochs=2, verbose=0, callbacks=[test, Errors(where, RuntimeError)]
        )
    test.restore()
    for a, b in zip(before, everything(model), strict=True):
        np.testing.assert_array_equal(a, b)
    assert test.result is not None
    model.fit(X, Y, verbose=0)  # and it trains


class Bomb(keras.layers.Layer):
    """Raises inside the compiled step, the `at`th time it is called."""

    def __init__(self, at):
        super().__init__()
        self.at, self.calls, self.armed = at, 0, False

    def tick(self, x):
        self.calls += self.armed
        if self.armed and self.calls == self.at:
            raise MemoryError("the device is out of memory")
        return np.asarray(x)

    def call(self, x):
        if BACKEND == "jax":
            import jax

            shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
            still = jax.lax.stop_gradient(x)
            return x + 0 * jax.pure_callback(self.tick, shape, still)
        import tensorflow as tf

        same = tf.py_function(self.tick, [tf.stop_gradient(x)], x.dtype)
        return x + 0 * tf.ensure_shape(same, x.shape)


@pytest.mark.parametrize("block", [1, 4])
def test_an_error_in_the_middle_of_a_step(block):
    def run(sweeps):
        bomb = Bomb(at=11)
        keras.utils.set_random_seed(3)
        inputs = keras.Input((64,))
        hidden = bomb(keras.layers.Dense(16, "relu")(inputs))
        hidden = keras.layers.BatchNormalization()(hidden)
        model = keras.Model(inputs, keras.layers.Dense(10)(hidden))
        model.compile(
            adam(), LOSS, metrics=["accuracy"], jit_compile=JIT,
            steps_per_execution=block,
        )  # fmt: skip
        build(model)
        model.fit(X, Y, batch_size=32, verbose=0)
        if sweeps:
            bomb.armed = True
            with pytest.raises(Exception, match="out of memory"):
                tfs.find_learning_rate(model, X, Y, steps=30, max_lr=1.0, verbose=0)
            bomb.armed = False
        return train_on(model)

    assert_same(run(False), run(True))


def test_data_that_fail():
    class Fails(keras.utils.PyDataset):
        def __len__(self):
            return 20

        def __getitem__(self, i):
            if i == 9:
                raise MemoryError("no memory for a batch")
            return X[32 * i : 32 * i + 32], Y[32 * i : 32 * i + 32]

    expected = undisturbed()
    model = prepared()
    with pytest.raises(Exception, match="no memory for a batch"):
        tfs.find_learning_rate(model, Fails(), shuffle=False, verbose=0)
    assert_same(expected, train_on(model))


CTRL_C = """
import os, signal, sys, threading
import keras, numpy as np
import tfschedules as tfs
# A process that a script starts in the background ignores it otherwise.
signal.signal(signal.SIGINT, signal.default_int_handler)
keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(640, 8)).astype("float32")
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
model.compile("adam", "mse")
before = [np.array(w) for w in model.get_weights()]

class Presses(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 5:
            os.kill(os.getpid(), signal.SIGINT)

try:
    tfs.find_learning_rate(model, x, x.sum(1), verbose=0, callbacks=[Presses()])
except KeyboardInterrupt:
    same = all((a == b).all() for a, b in zip(before, model.get_weights()))
    rate = keras.ops.convert_to_numpy(model.optimizer.learning_rate)
    print("interrupted", same, float(rate))
"""


def test_ctrl_c_in_a_process_of_its_own():
    done = subprocess.run(
        [sys.executable, "-c", CTRL_C], capture_output=True, text=True, timeout=300
    )
    assert done.stdout.split()[:2] == ["interrupted", "True"], done.stderr[-2000:]
    assert float(done.stdout.split()[2]) == pytest.approx(1e-3)
