"""LayerwiseOptimizer: exact to the weight, and still one optimizer."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import BACKEND, JIT, arrays, digits, relative_error
from keras import optimizers

import tfschedules as tfs
from tfschedules.drive import innermost

GENERATOR = np.random.default_rng(7)
SHAPES = [(3, 4), (4,), (4, 2), (2,)]
MULTIPLIERS = [0.0, 0.1, 1.0, 3.0]


def network(names="abc", seed=1, model_class=keras.Sequential):
    """A small network on digits, always from the same weights."""
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(12, "relu", name=name) for name in names[:-1]]
    return model_class(
        [keras.Input((64,)), *layers, keras.layers.Dense(10, name=names[-1])]
    )


def by_layer(model, multipliers, **arguments):
    """A group for each layer of a network."""
    return [
        tfs.LayerGroup(layer.name, [layer], multiplier, **arguments)
        for layer, multiplier in zip(model.layers, multipliers, strict=True)
    ]


def compiled(model, optimizer, **arguments):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, **{"jit_compile": JIT, **arguments})
    return model


def train(model, epochs=2, **arguments):
    x, y = digits(160)
    settings = {"batch_size": 16, "shuffle": False, "verbose": 0, **arguments}
    model.fit(x, y, epochs=epochs, **settings)
    return model


def variables():
    """Four variables in a fixed order, and 50 gradients for each."""
    rng = np.random.default_rng(0)
    values = [rng.normal(size=shape).astype("float32") for shape in SHAPES]
    gradients = [
        [rng.normal(size=shape).astype("float32") for shape in SHAPES]
        for _ in range(50)
    ]
    return values, gradients


def applied(optimizer, values, gradients):
    """The values after all updates, made one at a time."""
    weights = [
        keras.Variable(value, name=f"w{i}", dtype="float32")
        for i, value in enumerate(values)
    ]
    optimizer = optimizer(weights)
    optimizer.build(weights)
    for step in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in step], weights)
    return [np.array(w) for w in weights]


def one_group_each(optimizer, **arguments):
    def make(weights):
        groups = [
            tfs.LayerGroup(weight.name, [weight], multiplier, **arguments)
            for weight, multiplier in zip(weights, MULTIPLIERS, strict=True)
        ]
        return tfs.LayerwiseOptimizer(optimizer, groups)

    return make


def stored(value):
    """In float64 from here on, as a float32 weight holds it."""
    return value.astype(np.float32).astype(np.float64)


def sgd_reference(values, gradients, rate=0.01, momentum=0.9):
    for index, multiplier in enumerate(MULTIPLIERS):
        w, speed = values[index].astype(np.float64), 0.0
        for step in gradients:
            speed = momentum * speed - rate * multiplier * step[index]
            w = stored(w + speed)
        yield w


def adamw_reference(values, gradients, rate=0.01, decay=0.1, extra=1.0):
    for index, multiplier in enumerate(MULTIPLIERS):
        w, m, v = values[index].astype(np.float64), 0.0, 0.0
        own = rate * multiplier
        for t, step in enumerate(gradients, 1):
            g = step[index].astype(np.float64)
            w = stored(w - own * decay * extra * w)
            m = 0.9 * m + 0.1 * g
            v = 0.999 * v + 0.001 * g**2
            # In float32, as in Keras: 1 - 0.999**t has lost four of its digits.
            one, step_number = np.float32(1), np.float32(t)
            alpha = own * np.sqrt(one - np.float32(0.999) ** step_number)
            alpha = alpha / (one - np.float32(0.9) ** step_number)
            w = stored(w - alpha * m / (np.sqrt(v) + 1e-7))
        yield w


def lion_reference(values, gradients, rate=0.001, decay=0.1):
    for index, multiplier in enumerate(MULTIPLIERS):
        w, m = values[index].astype(np.float64), 0.0
        own = rate * multiplier
        for step in gradients:
            g = step[index].astype(np.float64)
            w = stored(w - own * decay * w)
            w = stored(w - own * np.sign(0.9 * m + 0.1 * g))
            m = 0.99 * m + 0.01 * g
        yield w


REFERENCES = {
    "SGD": (lambda: optimizers.SGD(0.01, momentum=0.9), sgd_reference),
    "AdamW": (lambda: optimizers.AdamW(0.01, weight_decay=0.1), adamw_reference),
    "Lion": (lambda: optimizers.Lion(0.001, weight_decay=0.1), lion_reference),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_fifty_steps_equal_numpy(name):
    make, reference = REFERENCES[name]
    values, gradients = variables()
    got = applied(one_group_each(make()), values, gradients)
    for index, (actual, expected) in enumerate(
        zip(got, reference(values, gradients), strict=True)
    ):
        if MULTIPLIERS[index] == 0:
            np.testing.assert_array_equal(actual, values[index])
        assert relative_error([actual], [expected]) < 1e-6


def test_a_groups_weight_decay_is_scaled_besides():
    values, gradients = variables()
    wrap = one_group_each(
        optimizers.AdamW(0.01, weight_decay=0.1), weight_decay_multiplier=0.5
    )
    expected = list(adamw_reference(values, gradients, extra=0.5))
    assert relative_error(applied(wrap, values, gradients), expected) < 1e-6


EVERY_OPTIMIZER = {
    "SGD": lambda: optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "RMSprop": lambda: optimizers.RMSprop(0.01, momentum=0.5, centered=True),
    "Adam": lambda: optimizers.Adam(0.01, amsgrad=True),
    "AdamW": lambda: optimizers.AdamW(0.01, weight_decay=0.1),
    "Adadelta": lambda: optimizers.Adadelta(0.1),
    "Adagrad": lambda: optimizers.Adagrad(0.1),
    "Adamax": lambda: optimizers.Adamax(0.01),
    "Adafactor": lambda: optimizers.Adafactor(0.01),
    "Nadam": lambda: optimizers.Nadam(0.01, weight_decay=0.1),
    "Ftrl": lambda: optimizers.Ftrl(0.1),
    "Lion": lambda: optimizers.Lion(0.001, weight_decay=0.1),
    "Lamb": lambda: optimizers.Lamb(0.01, weight_decay=0.1),
    "Muon": lambda: optimizers.Muon(0.01),
    "clipped, accumulated, averaged": lambda: optimizers.Adam(
        0.01,
        weight_decay=0.01,
        global_clipnorm=0.1,
        gradient_accumulation_steps=2,
        use_ema=True,
        ema_overwrite_frequency=3,
    ),
    "a rate compiled in": lambda: optimizers.AdamW(tfs.Cosine(0.01, 0.0, 20)),
}


@pytest.mark.parametrize("name", EVERY_OPTIMIZER)
def test_multipliers_of_one_change_nothing(name):
    if name == "Muon" and not hasattr(optimizers, "Muon"):
        pytest.skip("Muon came with Keras 3.10")
    make = EVERY_OPTIMIZER[name]
    plain = train(compiled(network(), make()))
    model = network()
    wrapped = tfs.LayerwiseOptimizer(make(), by_layer(model, [1.0, 1.0, 1.0]))
    train(compiled(model, wrapped))
    for actual, expected in zip(arrays(model), arrays(plain), strict=True):
        np.testing.assert_array_equal(actual, expected)
    # No variable more, and each with the same value.
    assert len(wrapped.variables) == len(plain.optimizer.variables)
    for ours, theirs in zip(wrapped.variables, plain.optimizer.variables, strict=True):
        np.testing.assert_array_equal(np.array(ours), np.array(theirs))


@pytest.mark.parametrize("name", ["SGD", "Nadam", "Lion", "Adafactor", "Muon"])
def test_a_multiplier_is_the_rate_of_an_optimizer_of_its_own(name):
    if name == "Muon" and not hasattr(optimizers, "Muon"):
        pytest.skip("Muon came with Keras 3.10")
    values, gradients = variables()
    make = EVERY_OPTIMIZER[name]
    got = applied(one_group_each(make()), values, gradients)
    for index in (1, 3):

        def scaled(weights, index=index):
            optimizer = make()
            optimizer.learning_rate = (
                float(optimizer.learning_rate) * MULTIPLIERS[index]
            )
            return optimizer

        alone = applied(scaled, values, gradients)
        np.testing.assert_allclose(got[index], alone[index], rtol=2e-6, atol=1e-7)


def test_the_global_norm_is_that_of_all_groups():
    def wrap(weights):
        groups = [tfs.LayerGroup(w.name, [w]) for w in weights]
        return tfs.LayerwiseOptimizer(optimizers.SGD(1.0, global_clipnorm=1.0), groups)

    gradients = [[np.array([3.0, 0.0], "float32"), np.array([0.0, 4.0], "float32")]]
    first, second = applied(wrap, [np.zeros(2), np.zeros(2)], gradients)
    np.testing.assert_allclose(np.linalg.norm(first), 0.6, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(second), 0.8, rtol=1e-6)


def test_a_multiplier_may_be_a_schedule_of_the_step():
    values, gradients = variables()
    factor = tfs.Linear(0.0, 2.0, steps=40)

    def wrap(weights):
        groups = [
            tfs.LayerGroup("first", [weights[0]], factor),
            tfs.LayerGroup("others", weights[1:]),
        ]
        return tfs.LayerwiseOptimizer(
            optimizers.SGD(0.01, momentum=0.9, weight_decay=0.1), groups
        )

    got = applied(wrap, values, gradients)
    for index, factors in ((0, factor.values(50)), (1, np.ones(50))):
        w, speed = values[index].astype(np.float64), 0.0
        for own, step in zip(0.01 * factors, gradients, strict=True):
            w = w - own * 0.1 * w
            speed = 0.9 * speed - own * step[index]
            w = w + speed
        np.testing.assert_allclose(got[index], w, rtol=2e-6, atol=3e-7)


@pytest.mark.parametrize("block", [1, 4])
def test_a_schedule_as_multiplier_is_exact_inside_blocks(block):
    factors = [tfs.Linear(0.0, 1.0, steps=20), 1.0, tfs.Cosine(2.0, 0.0, steps=20)]
    model = network()
    wrapped = tfs.LayerwiseOptimizer(optimizers.SGD(0.1), by_layer(model, factors))
    train(compiled(model, wrapped, steps_per_execution=block))
    # The same by hand: one optimizer for each layer, its rate set before each step.
    other = network()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    other.compile(optimizers.SGD(1.0), loss, jit_compile=JIT)
    x, y = digits(160)
    for step in range(20):
        batch = slice(step % 10 * 16, step % 10 * 16 + 16)
        before = arrays(other)
        other.train_on_batch(x[batch], y[batch])
        rates = [f if f == 1.0 else f.values([step])[0] for f in factors]
        moved = [
            old + 0.1 * rate * (new - old)
            for old, new, rate in zip(
                before, arrays(other), np.repeat(rates, 2), strict=True
            )
        ]
        other.set_weights(moved)
    assert relative_error(arrays(model), arrays(other)) < 1e-5


def test_no_decay_spares_by_name():
    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Embedding(7, 4),
            keras.layers.LayerNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    everything = [tfs.LayerGroup("all", ".*")]

    def decayed(**arguments):
        optimizer = tfs.LayerwiseOptimizer(
            optimizers.SGD(0.1, weight_decay=0.5), everything, **arguments
        )
        weights = model.trainable_variables
        for weight in weights:
            weight.assign(keras.ops.ones(weight.shape))
        optimizer.build(weights)
        optimizer.apply([keras.ops.zeros(w.shape) for w in weights], weights)
        return {weight.name: bool(np.any(np.array(weight) != 1)) for weight in weights}

    names = {"embeddings", "gamma", "beta", "kernel", "bias"}
    assert {name for name, yes in decayed().items() if yes} == names
    assert {n for n, yes in decayed(no_decay=True).items() if yes} == {"kernel"}
    assert {n for n, yes in decayed(no_decay=["bias"]).items() if yes} == names - {
        "bias"
    }


def test_default_takes_what_is_left():
    model = network()
    groups = [tfs.LayerGroup("head", ["c"], 0.0)]
    compiled(model, tfs.LayerwiseOptimizer(optimizers.SGD(0.1), groups))
    with pytest.raises(ValueError, match=r"In no group: a/kernel, a/bias, b/kernel"):
        train(model)
    before = arrays(model)
    optimizer = tfs.LayerwiseOptimizer(optimizers.SGD(0.1), groups, default=2.0)
    train(compiled(model, optimizer))
    changed = [bool((a != b).any()) for a, b in zip(arrays(model), before, strict=True)]
    assert changed == [True, True, True, True, False, False]
    named = network()
    groups = by_layer(named, [2.0, 2.0, 0.0])
    train(compiled(named, tfs.LayerwiseOptimizer(optimizers.SGD(0.1), groups)))
    for actual, expected in zip(arrays(model), arrays(named), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_learning_rate_reads_and_sets_the_base_rate():
    model = network()
    wrapped = tfs.LayerwiseOptimizer(optimizers.Adam(0.5), by_layer(model, [1, 1, 1]))
    assert float(wrapped.learning_rate) == 0.5
    wrapped.learning_rate = 0.25
    assert float(wrapped.inner_optimizer.learning_rate) == 0.25
    wrapped.weight_decay = 0.125
    assert wrapped.inner_optimizer.weight_decay == 0.125
    assert wrapped.beta_1 == 0.9
    assert not hasattr(wrapped, "no_such_thing")


def test_callbacks_of_keras_work(tmp_path):
    def with_callbacks(optimizer, model):
        compiled(model, optimizer)
        callbacks = [
            keras.callbacks.LearningRateScheduler(lambda epoch, lr: lr * 0.5),
            keras.callbacks.ReduceLROnPlateau(
                monitor="loss", factor=0.1, patience=1, min_delta=1e9
            ),
            keras.callbacks.SwapEMAWeights(),
            keras.callbacks.ModelCheckpoint(tmp_path / "best.keras"),
            keras.callbacks.BackupAndRestore(tmp_path / "backup"),
        ]
        if BACKEND == "tensorflow":
            callbacks.append(keras.callbacks.TensorBoard(tmp_path / "logs"))
        x, y = digits(64)
        train(model, 4, callbacks=callbacks, validation_data=(x, y))
        return model

    def adam():
        return optimizers.Adam(0.02, use_ema=True, ema_momentum=0.9)

    plain = with_callbacks(adam(), network())
    model = network()
    wrapped = tfs.LayerwiseOptimizer(adam(), by_layer(model, [1.0, 1.0, 1.0]))
    with_callbacks(wrapped, model)
    assert plain.history.history == model.history.history
    assert model.history.history["learning_rate"][-1] < 0.002
    for actual, expected in zip(arrays(model), arrays(plain), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_schedules_and_range_test_of_ours_work():
    model = network()
    groups = by_layer(model, [0.0, 0.5, 1.0])
    inner = optimizers.SGD(0.1, momentum=0.9, weight_decay=0.1)
    compiled(model, tfs.LayerwiseOptimizer(inner, groups))
    x, y = digits(160)
    before = arrays(model)
    result = tfs.find_learning_rate(model, x, y, batch_size=16, steps=20, verbose=0)
    assert len(result.losses) > 5
    for actual, expected in zip(arrays(model), before, strict=True):
        np.testing.assert_array_equal(actual, expected)
    train(
        model,
        callbacks=[
            tfs.OneCycle(0.1),
            tfs.HyperparameterScheduler(weight_decay=tfs.Linear(0.0, 0.2, 19)),
        ],
    )
    assert inner.weight_decay == 0.1
    assert "apply" not in vars(inner)
    np.testing.assert_array_equal(arrays(model)[0], before[0])


def test_driven_rate_and_decay_are_multiplied():
    rates, decay = tfs.Cosine(0.2, 0.0, 19), tfs.Linear(0.0, 0.5, 19)

    def sgd():
        return optimizers.SGD(0.1, momentum=0.9, weight_decay=0.1)

    model = network()
    wrapped = tfs.LayerwiseOptimizer(sgd(), by_layer(model, [0.5] * 3))
    compiled(model, wrapped, steps_per_execution=4)
    plain = compiled(network(), sgd())
    for each, factor in ((model, 1.0), (plain, 0.5)):
        driven = {"learning_rate": rates * factor, "weight_decay": decay}
        train(each, callbacks=[tfs.HyperparameterScheduler(**driven)])
    assert relative_error(arrays(model), arrays(plain)) < 1e-6


def test_a_snapshot_ensemble_keeps_models_with_groups(tmp_path):
    model = network()
    compiled(model, adamw(model))
    ensemble = tfs.SnapshotEnsemble(tmp_path)
    train(model, 2, callbacks=[tfs.WarmRestarts(0.05, tfs.epochs(1)), ensemble])
    files = sorted(tmp_path.glob("*.keras"))
    assert len(files) == 2
    loaded = keras.models.load_model(files[0])
    assert [row.group for row in loaded.optimizer.table().rows] == ["a", "b", "c"]
    assert int(np.array(loaded.optimizer.iterations)) == 10


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_a_loss_scale_goes_around(policy):
    keras.mixed_precision.set_dtype_policy(policy)
    try:
        plain, model = network(), network()
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    wrapped = tfs.LayerwiseOptimizer(optimizers.Adam(0.01), by_layer(model, [1, 1, 1]))
    scale = optimizers.LossScaleOptimizer
    if policy == "float32":
        wrapped, inner = scale(wrapped), scale(optimizers.Adam(0.01))
    else:
        inner = optimizers.Adam(0.01)
    train(compiled(model, wrapped))
    train(compiled(plain, inner))
    assert isinstance(model.optimizer, scale)
    assert type(innermost(model.optimizer)) is optimizers.Adam
    for actual, expected in zip(arrays(model), arrays(plain), strict=True):
        np.testing.assert_array_equal(actual, expected)


def goes_on_alike(model, other):
    """Both train on, and end with the same weights and the same state."""
    for each in (model, other):
        train(each, 1)
    for actual, expected in zip(arrays(other), arrays(model), strict=True):
        np.testing.assert_array_equal(actual, expected)
    for ours, theirs in zip(
        other.optimizer.variables, model.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(np.array(ours), np.array(theirs))


def three_groups(model):
    return [
        tfs.LayerGroup("a", [model.layers[0]], 0.1, weight_decay_multiplier=0.5),
        tfs.LayerGroup("b", ["b"], tfs.Linear(0.0, 1.0, steps=30)),
        tfs.LayerGroup("c", "^c/"),
    ]


def adamw(model, **arguments):
    return tfs.LayerwiseOptimizer(
        optimizers.AdamW(0.01, weight_decay=0.1), three_groups(model), **arguments
    )


@pytest.mark.filterwarnings(
    # Of an optimizer that was saved before it was built; of any optimizer.
    "ignore:Skipping variable loading for optimizer:UserWarning"
)
@pytest.mark.parametrize("trained", [True, False])
def test_a_saved_model_goes_on_to_the_bit(tmp_path, trained):
    model = network()
    compiled(model, adamw(model, no_decay=["bias"]))
    if trained:
        train(model, 1)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert loaded.trainable_variables[0].path != model.trainable_variables[0].path
    assert isinstance(loaded.optimizer, tfs.LayerwiseOptimizer)
    assert loaded.optimizer.no_decay == ("bias",)
    goes_on_alike(model, loaded)
    table = loaded.optimizer.table()
    assert [row.group for row in table.rows] == ["a", "b", "c"]
    assert [row.decay for row in table.rows] == [0.05, 0.1, 0.1]


def test_weights_files_fit_the_plain_optimizer_and_back(tmp_path):
    model = network()
    train(compiled(model, adamw(model)), 1)
    model.save_weights(tmp_path / "a.weights.h5")
    plain = compiled(network(seed=2), optimizers.AdamW(0.5, weight_decay=0.1))
    plain.optimizer.build(plain.trainable_variables)
    plain.load_weights(tmp_path / "a.weights.h5")
    plain.save_weights(tmp_path / "b.weights.h5")
    again = network(seed=3)
    compiled(again, adamw(again))
    again.optimizer.build(again.trainable_variables)
    again.load_weights(tmp_path / "b.weights.h5")
    assert float(again.optimizer.learning_rate) == pytest.approx(0.01)
    goes_on_alike(model, again)


@pytest.mark.filterwarnings("ignore:Skipping variable loading:UserWarning")
def test_nested_models_given_as_objects_survive_a_file(tmp_path):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((64,))
    hidden = keras.Sequential(
        [keras.Input((64,)), keras.layers.Dense(8, name="inside")], name="backbone"
    )
    inputs2 = keras.Input((8,))
    head = keras.Model(inputs2, keras.layers.Dense(10, name="out")(inputs2), name="top")
    model = keras.Model(inputs, head(hidden(inputs)))
    groups = [tfs.LayerGroup("body", [hidden], 0.0), tfs.LayerGroup("head", [head])]
    for file, epochs in (("fresh.keras", 0), ("trained.keras", 1)):
        compiled(model, tfs.LayerwiseOptimizer(optimizers.SGD(0.1), groups))
        if epochs:
            train(model, epochs)
        model.save(tmp_path / file)
        loaded = keras.models.load_model(tmp_path / file)
        before = arrays(loaded)
        train(loaded, 1)
        changed = [
            bool((a != b).any()) for a, b in zip(arrays(loaded), before, strict=True)
        ]
        assert changed == [False, False, True, True]


def test_layers_of_one_name_in_two_models_keep_their_groups(tmp_path):
    """By name they could not be told apart: they are found by position."""
    parts = []
    for name, size in (("encoder", 64), ("decoder", 8)):
        inputs = keras.Input((size,))
        outputs = keras.layers.Dense(8 if size == 64 else 10, name="same")(inputs)
        parts.append(keras.Model(inputs, outputs, name=name))
    inputs = keras.Input((64,))
    model = keras.Model(inputs, parts[1](parts[0](inputs)))
    groups = [tfs.LayerGroup("a", [parts[0]], 0.0), tfs.LayerGroup("b", [parts[1]])]
    train(compiled(model, tfs.LayerwiseOptimizer(optimizers.SGD(0.1), groups)), 1)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    goes_on_alike(model, loaded)
    assert [row.parameters for row in loaded.optimizer.table().rows] == [520, 90]


def test_a_config_for_another_model_falls_back_to_names():
    model = network()
    optimizer = adamw(model)
    optimizer.build(model.trainable_variables)
    copy = tfs.LayerwiseOptimizer.from_config(optimizer.get_config())
    sizes = {"b": 5, "a": 6, "c": 10}  # in another order, and of other shapes
    layers = [keras.layers.Dense(size, name=name) for name, size in sizes.items()]
    other = keras.Sequential([keras.Input((64,)), *layers])
    copy.build(other.trainable_variables)
    assert [row.layers for row in copy.table().rows] == [["a"], ["b"], ["/^c//"]]
    assert [row.parameters for row in copy.table().rows] == [36, 325, 70]


def test_a_built_optimizer_keeps_its_state():
    plain = compiled(network(), optimizers.Adam(0.01))
    train(plain, 1)
    model = train(compiled(network(), optimizers.Adam(0.01)), 1)
    wrapped = tfs.LayerwiseOptimizer(model.optimizer, by_layer(model, [1, 1, 1]))
    assert int(np.array(wrapped.iterations)) == 10
    compiled(model, wrapped)
    goes_on_alike(plain, model)


class Signs(keras.optimizers.Optimizer):
    """A user's optimizer, with nothing but an update."""

    def update_step(self, gradient, variable, learning_rate):
        step = keras.ops.sign(gradient) * keras.ops.cast(learning_rate, variable.dtype)
        self.assign_sub(variable, step)


def test_an_optimizer_of_the_users_own():
    values, gradients = variables()
    got = applied(one_group_each(Signs(0.25)), values, gradients)
    for index, multiplier in enumerate(MULTIPLIERS):
        signs = sum(np.sign(step[index]) for step in gradients)
        np.testing.assert_allclose(
            got[index], values[index] - 0.25 * multiplier * signs, rtol=1e-5, atol=1e-5
        )


def test_run_eagerly_and_train_on_batch():
    x, y = digits(32)
    results = []
    for eagerly in (False, True):
        model = network()
        wrapped = tfs.LayerwiseOptimizer(
            optimizers.AdamW(0.01, weight_decay=0.1),
            by_layer(model, [tfs.Linear(0.0, 1.0, 5), 0.5, 2.0]),
        )
        compiled(model, wrapped, run_eagerly=eagerly, jit_compile=False)
        for _ in range(4):
            model.train_on_batch(x, y)
        results.append(arrays(model))
    assert relative_error(*results) < 1e-5


@pytest.mark.tensorflow
def test_sparse_gradients_have_their_groups_rate():
    import tensorflow as tf

    table = keras.Variable(np.ones((4, 2)), name="table")
    other = keras.Variable(np.ones(2), name="other")
    wrapped = tfs.LayerwiseOptimizer(
        optimizers.SGD(1.0),
        [tfs.LayerGroup("t", [table], 0.5), tfs.LayerGroup("o", [other])],
    )
    gradient = tf.IndexedSlices(tf.ones((1, 2)), tf.constant([2]), (4, 2))
    wrapped.apply([gradient, tf.ones(2)], [table, other])
    np.testing.assert_array_equal(np.array(table)[:, 0], [1, 1, 0.5, 1])
    np.testing.assert_array_equal(np.array(other), [0, 0])


@pytest.mark.tensorflow
def test_a_checkpoint_of_tensorflow_has_the_state(tmp_path):
    import tensorflow as tf

    model = network()
    train(compiled(model, adamw(model)), 1)
    checkpoint = tf.train.Checkpoint(optimizer=model.optimizer)
    path = checkpoint.save(str(tmp_path / "checkpoint"))
    other = network()
    other.set_weights(model.get_weights())
    compiled(other, adamw(other))
    other.optimizer.build(other.trainable_variables)
    tf.train.Checkpoint(optimizer=other.optimizer).restore(path).assert_consumed()
    goes_on_alike(model, other)


@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")
def test_a_group_without_gradients_is_no_error():
    values, gradients = variables()

    def wrap(weights):
        groups = [tfs.LayerGroup(w.name, [w]) for w in weights]
        return tfs.LayerwiseOptimizer(optimizers.SGD(0.1), groups)

    weights = [keras.Variable(value, name=f"w{i}") for i, value in enumerate(values)]
    optimizer = wrap(weights)
    optimizer.build(weights)
    optimizer.apply([gradients[0][0], None, None, gradients[0][3]], weights)
    changed = [
        bool((np.array(w) != v).any()) for w, v in zip(weights, values, strict=True)
    ]
    assert changed == [True, False, False, True]


def test_the_table(capsys):
    model = network()
    wrapped = adamw(model, no_decay=True)
    with pytest.raises(ValueError, match="The optimizer is not built"):
        wrapped.describe()
    assert "not built" in wrapped._repr_html_()
    wrapped.build(model.trainable_variables)
    table = wrapped.describe()
    printed = capsys.readouterr().out
    assert printed == f"{table}\n"
    lines = printed.splitlines()
    assert lines[0].split("  ")[0] == "group"
    assert lines[2].split() == "a a 780 0.1 0.001 0.05 (12 exempt) no".split()
    assert lines[3].split() == "b b 156 Linear 0 0.1 (12 exempt) no".split()
    assert lines[4].split() == "c /^c// 130 1 0.01 0.1 (10 exempt) no".split()
    assert wrapped._repr_html_().count("<tr>") == 4
    model.layers[0].trainable = False
    model.layers[1].bias.trainable = False
    assert [row.frozen for row in wrapped.table().rows] == ["yes", "partly", "no"]


def test_bad_input_is_refused_before_anything_changes():
    model = network()
    groups = by_layer(model, [1, 1, 1])
    adam = optimizers.Adam()
    for wrong, error, match in [
        ("adam", TypeError, "must be a Keras optimizer"),
        (optimizers.LossScaleOptimizer(adam), ValueError, "goes inside the LossScale"),
        (tfs.LayerwiseOptimizer(adam, groups), ValueError, "wraps others"),
    ]:
        with pytest.raises(error, match=match):
            tfs.LayerwiseOptimizer(wrong, groups)
    with pytest.raises(TypeError, match="must be a list of LayerGroup"):
        tfs.LayerwiseOptimizer(adam, groups[0])
    with pytest.raises(TypeError, match="must be a list of LayerGroup"):
        tfs.LayerwiseOptimizer(adam, [0.1, 1.0])
    with pytest.raises(ValueError, match="at least one LayerGroup"):
        tfs.LayerwiseOptimizer(adam, [])
    with pytest.raises(ValueError, match="`default` must be >= 0"):
        tfs.LayerwiseOptimizer(adam, groups, default=-1)
    with pytest.raises(ValueError, match="`no_decay` must be one of 'bias', 'norm'"):
        tfs.LayerwiseOptimizer(adam, groups, no_decay=["biases"])
    late = tfs.LayerGroup("a", ["a"], tfs.Linear(0, 1, tfs.epochs(1)))
    with pytest.raises(ValueError, match="lengths in epochs, and an optimizer counts"):
        tfs.LayerwiseOptimizer(adam, [late], default=1.0)
    if hasattr(optimizers, "MultiOptimizer"):
        many = optimizers.MultiOptimizer(lambda variable: adam)
        with pytest.raises(ValueError, match="wraps others"):
            tfs.LayerwiseOptimizer(many, groups)

    before = arrays(model)
    other = network(names="abd")
    for wrong, match in [
        ([tfs.LayerGroup("x", ["a", "bb"])], r"'bb' of the group 'x' is unknown.*'b'"),
        (by_layer(other, [1, 1, 1]), "is not in the model that is trained"),
        (
            [tfs.LayerGroup("all", "."), *groups],
            r"In more than one: a/kernel \(in 'all'",
        ),
        (
            [tfs.LayerGroup("none", "^z"), *groups],
            r"'none' is empty.*matches none of a/",
        ),
        (
            [tfs.LayerGroup("new", [keras.layers.Dense(3, name="new")]), *groups],
            "'new' of the group 'new' is not built",
        ),
    ]:
        optimizer = tfs.LayerwiseOptimizer(optimizers.Adam(), wrong)
        with pytest.raises(ValueError, match=match):
            train(compiled(model, optimizer), 1)
        assert not optimizer.built
        for actual, expected in zip(arrays(model), before, strict=True):
            np.testing.assert_array_equal(actual, expected)


def test_an_optimizer_is_divided_once():
    model = network()
    adam = optimizers.Adam()
    groups = by_layer(model, [1, 1, 1])
    tfs.LayerwiseOptimizer(adam, groups).build(model.trainable_variables)
    with pytest.raises(ValueError, match="in a LayerwiseOptimizer already"):
        tfs.LayerwiseOptimizer(adam, groups)


_REPLICAS = """
import contextlib, sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
)
sys.path.insert(0, sys.argv[1])
from test_optimizers import *

def trained(scope):
    with scope:
        model = network()
        groups = by_layer(model, [0.1, tfs.Linear(0.0, 1.0, 10), 2.0])
        adam = optimizers.AdamW(0.01, weight_decay=0.1)
        compiled(model, tfs.LayerwiseOptimizer(adam, groups))
    train(model, 2, callbacks=[tfs.GradualUnfreezing(groups)])
    return arrays(model)

replicas = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
error = relative_error(trained(replicas.scope()), trained(contextlib.nullcontext()))
sys.exit(0 if error < 1e-6 else f"relative error {error}")
"""


@pytest.mark.tensorflow
def test_two_replicas_are_as_one():
    """Each puts its rate for weight decay in place, in turns."""
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", _REPLICAS, here]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
