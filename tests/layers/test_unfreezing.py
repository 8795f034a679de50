"""GradualUnfreezing: who is trained when, what stays, and that nothing is left."""

import functools

import keras
import numpy as np
import pytest
from helpers import BACKEND, JIT, arrays, digits, patches, relative_error
from keras import layers, optimizers

import tfschedules as tfs
from tfschedules.drive import innermost

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(seed=1):
    """Three dense layers, the first with BatchNormalization."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(8, name="a"),
            layers.BatchNormalization(momentum=0.9, name="norm"),
            layers.ReLU(),
            layers.Dense(8, "relu", name="b"),
            layers.Dense(10, name="c"),
        ]
    )


def groups_of(model):
    return [
        tfs.LayerGroup("first", ["a", "norm"]),
        tfs.LayerGroup("second", [model.get_layer("b")]),
        tfs.LayerGroup("head", "^c/"),
    ]


def compiled(model, optimizer, layerwise=False, *, build=True, **arguments):
    """TensorFlow traces a step twice where a fit has to build the optimizer."""
    if layerwise:
        optimizer = tfs.LayerwiseOptimizer(optimizer, groups_of(model))
    model.compile(optimizer, LOSS, **{"jit_compile": JIT, **arguments})
    if build:
        model.optimizer.build(model.trainable_variables)
    return model


def fit(model, epochs, callbacks=(), count=80, **arguments):
    x, y = digits(count)
    settings = {"batch_size": 16, "shuffle": False, "verbose": 0, **arguments}
    model.fit(x, y, epochs=epochs, callbacks=list(callbacks), **settings)
    return model


class Watch(keras.callbacks.Callback):
    """Notes weights and optimizer state at the end of every epoch."""

    def on_train_begin(self, logs=None):
        self.weights, self.state = [arrays(self.model)], []
        self.frozen = []

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(arrays(self.model))
        self.state.append([np.array(v.value) for v in self.model.optimizer.variables])

    def changed(self, epoch):
        """The names of the layers that have changed in this epoch."""
        pairs = zip(self.weights[epoch], self.weights[epoch + 1], strict=True)
        names = [w.path.split("/")[-2] for w in self.model.weights]
        return {
            name for name, (a, b) in zip(names, pairs, strict=True) if (a != b).any()
        }


# Every pair of values; optimizers are built by the fit in half of them.
@pytest.mark.parametrize(
    ("layerwise", "block", "each"),
    [(False, 1, 1), (False, 3, 2), (True, 1, 2), (True, 3, 1)],
)
def test_one_group_more_every_so_many_epochs(layerwise, block, each):
    model = compiled(
        network(),
        optimizers.Adam(0.01),
        layerwise,
        build=each == 2,
        steps_per_execution=block,
    )
    watch = Watch()
    unfreezing = tfs.GradualUnfreezing(groups_of(model), epochs_per_group=each)
    fit(model, 4 * each, [unfreezing, watch])
    expected = [{"c"}, {"b", "c"}, *[{"a", "norm", "b", "c"}] * 2]
    assert [watch.changed(e) for e in range(4 * each)] == [
        layers_changed for layers_changed in expected for _ in range(each)
    ]
    # The slots of what is frozen are still as they were made.
    slots = [np.abs(v).max() for v in watch.state[0] if v.shape == (64, 8)]
    assert slots == [0, 0]
    assert unfreezing.frozen_groups == []
    assert all(w.trainable for w in model.weights if "moving" not in w.path)


def test_a_fit_of_one_group_is_a_fit():
    plain, model = (compiled(network(), optimizers.Adam(0.01)) for _ in range(2))
    fit(plain, 2)
    fit(model, 2, [tfs.GradualUnfreezing([tfs.LayerGroup("all", ".*")])])
    for actual, expected in zip(arrays(model), arrays(plain), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_what_is_trained_is_trained_as_in_a_network_of_its_own():
    model = compiled(network(), optimizers.SGD(0.1, momentum=0.9))
    start = arrays(model)
    fit(model, 2, [tfs.GradualUnfreezing(groups_of(model))])
    # By hand: the first epoch trains the head on what the rest gives in inference.
    other = network()
    other.set_weights(start)
    x, y = digits(80)
    body = keras.Model(other.inputs, other.layers[-2].output)
    features = body.predict(x, verbose=0)
    head = keras.Sequential([keras.Input((8,)), layers.Dense(10)])
    head.set_weights(start[-2:])
    head.compile(optimizers.SGD(0.1, momentum=0.9), LOSS, jit_compile=JIT)
    head.fit(features, y, batch_size=16, epochs=1, shuffle=False, verbose=0)
    again = compiled(network(), optimizers.SGD(0.1, momentum=0.9))
    fit(again, 1, [tfs.GradualUnfreezing(groups_of(again))])
    assert relative_error(arrays(again)[-2:], arrays(head)) < 1e-6
    for actual, expected in zip(arrays(again)[:-2], start[:-2], strict=True):
        np.testing.assert_array_equal(actual, expected)
    # The second goes on with two layers, of which one has momentum already.
    two = keras.Sequential(
        [keras.Input((8,)), layers.Dense(8, "relu"), layers.Dense(10)]
    )
    two.set_weights([*start[-4:-2], *arrays(head)])
    two.compile(optimizers.SGD(0.1, momentum=0.9), LOSS, jit_compile=JIT)
    two.optimizer.build(two.trainable_variables)
    slots = two.optimizer.variables[-2:], head.optimizer.variables[-2:]
    for slot, theirs in zip(*slots, strict=True):
        slot.assign(theirs)
    body = keras.Model(other.inputs, other.layers[2].output)
    features = body.predict(x, verbose=0)
    two.fit(features, y, batch_size=16, epochs=1, shuffle=False, verbose=0)
    assert relative_error(arrays(model)[-4:], arrays(two)) < 1e-5


class FirstSteps(keras.callbacks.Callback):
    """How far each weight goes in the first step of every epoch, over the rate."""

    def on_train_begin(self, logs=None):
        self.steps = []

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 0:
            self.before = arrays(self.model)

    def on_train_batch_end(self, batch, logs=None):
        if batch == 0:
            rate = float(self.model.optimizer.learning_rate)
            pairs = zip(self.before, arrays(self.model), strict=True)
            self.steps.append([np.abs(a - b).max() / rate for a, b in pairs])


def test_a_late_weight_does_not_jump_under_adam():
    model = compiled(network(), optimizers.Adam(1e-3))
    steps = FirstSteps()
    unfreezing = tfs.GradualUnfreezing(groups_of(model), epochs_per_group=2)
    fit(model, 5, [unfreezing, steps], count=1600)
    second, first = steps.steps[2][6], steps.steps[4][0]
    np.testing.assert_allclose([second, first], 1.0, rtol=1e-2)
    # By the common count of updates, 200 and 400, it would have been longer.
    jump = 0.1 / np.sqrt(0.001 / (1 - 0.999 ** np.array([201, 401])))
    assert (jump > 1.3).all()
    np.testing.assert_array_less([second, first], jump - 0.2)


def test_a_late_weight_is_corrected_by_its_own_updates():
    """Adam in NumPy on recorded gradients, counting from when the weight joined."""
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(30, 2, 3)).astype("float32")
    late, early = (keras.Variable(np.zeros(3), name=name) for name in ("late", "early"))
    optimizer = optimizers.AdamW(0.01, weight_decay=0.1)
    optimizer.build([late, early])
    from tfschedules.drive import Split

    for step in range(30):
        if step == 20:
            Split.of(optimizer).missed = {0: 20}
        those = [late, early] if step >= 20 else [early]
        grads = list(gradients[step][-len(those) :])
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in grads], those)
    for variable, own in ((late, gradients[20:, 0]), (early, gradients[:, 1])):
        w, m, v = np.zeros(3), 0.0, 0.0
        for t, g in enumerate(own.astype(np.float64), 1):
            w = w - 0.01 * 0.1 * w
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            w = w - 0.01 * (m / (1 - 0.9**t)) / np.sqrt(v / (1 - 0.999**t))
        assert relative_error([np.array(variable)], [w]) < 2e-4
    assert int(np.array(optimizer.iterations)) == 30


def test_missed_updates_are_kept_and_added_up(tmp_path):
    model = compiled(network(), optimizers.Adam(0.01), layerwise=True)
    fit(model, 2, [tfs.GradualUnfreezing(groups_of(model))])
    missed = model.optimizer.get_config()["saved"]["missed"]
    assert missed == [10, 10, 10, 10, 5, 5, 0, 0]  # a, norm: the whole fit
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        fit(each, 1)
        assert each.optimizer.get_config()["saved"]["missed"] == missed
    for actual, expected in zip(arrays(loaded), arrays(model), strict=True):
        np.testing.assert_array_equal(actual, expected)
    fit(model, 1, [tfs.GradualUnfreezing(groups_of(model))])
    again = model.optimizer.get_config()["saved"]["missed"]
    assert again == [15, 15, 15, 15, 10, 10, 0, 0]


@pytest.mark.parametrize("layerwise", [False, True])
def test_an_earlier_state_has_not_missed_what_came_later(tmp_path, layerwise):
    """It goes on as in a model that has never been further."""
    model = compiled(network(), optimizers.Adam(0.01), layerwise)
    keep = keras.callbacks.ModelCheckpoint(
        tmp_path / "{epoch}.weights.h5", save_weights_only=True
    )
    fit(model, 3, [tfs.GradualUnfreezing(groups_of(model)), keep])
    other = compiled(network(), optimizers.Adam(0.01), layerwise)
    fit(other, 1, [tfs.GradualUnfreezing(groups_of(other))])
    model.load_weights(tmp_path / "1.weights.h5")
    for each in (model, other):
        fit(each, 2)
    for actual, expected in zip(arrays(model), arrays(other), strict=True):
        assert np.isfinite(actual).all()
        np.testing.assert_array_equal(actual, expected)


def test_a_count_that_was_set_back_by_hand_gives_numbers():
    model = compiled(network(), optimizers.Adam(0.01))
    fit(model, 2, [tfs.GradualUnfreezing(groups_of(model))])
    model.optimizer.iterations.assign(0)
    before = arrays(model)
    fit(model, 1)
    for new, old in zip(arrays(model), before, strict=True):
        assert np.abs(new - old).max() < 1  # and not NaN


@pytest.mark.parametrize("trained", [False, True])
def test_the_heads_rate_can_be_looked_for(trained):
    """A range test with frozen groups leaves the optimizer as it was, to the bit."""
    model, other = (compiled(network(), optimizers.Adam(0.01)) for _ in range(2))
    for each in (model, other):
        if trained:
            fit(each, 2, [tfs.GradualUnfreezing(groups_of(each))])
        each.optimizer.build(each.trainable_variables)
    x, y = digits(80)
    watch = Watch()
    unfreezing = tfs.GradualUnfreezing(groups_of(model), epochs_per_group=2)
    result = tfs.find_learning_rate(
        model, x, y, steps=12, batch_size=16, max_lr=0.1, verbose=0, stop_factor=None,
        callbacks=[unfreezing, watch],
    )  # fmt: skip
    assert len(result.losses) == 12
    assert [watch.changed(e) for e in range(2)] == [{"c"}] * 2
    for each in (model, other):
        fit(each, 2)
    for actual, expected in zip(arrays(model), arrays(other), strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("policy", ["frozen", "updating"])
def test_statistics_of_frozen_layers_follow_the_policy(policy):
    model = compiled(network(), optimizers.SGD(0.1))
    watch = Watch()
    unfreezing = tfs.GradualUnfreezing(groups_of(model), batch_norm=policy)
    fit(model, 3, [unfreezing, watch])
    moving = [i for i, w in enumerate(model.weights) if "moving" in w.path]
    gamma = next(i for i, w in enumerate(model.weights) if "gamma" in w.path)
    for epoch in (0, 1, 2):
        before, after = watch.weights[epoch : epoch + 2]
        moved = [bool((before[i] != after[i]).any()) for i in moving]
        assert moved == [policy == "updating" or epoch == 2] * 2
        assert (before[gamma] != after[gamma]).any() == (epoch == 2)


def test_statistics_without_weights_belong_to_their_group():
    keras.utils.set_random_seed(1)
    bare = layers.BatchNormalization(center=False, scale=False, name="bare")
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(8, name="a"),
            bare,
            layers.Dense(10, name="c"),
        ]
    )
    model.compile(optimizers.SGD(0.1), LOSS, jit_compile=JIT)
    for given in ([model.layers[0], bare], "^(a|bare)/"):
        unfreezing = tfs.GradualUnfreezing(
            [tfs.LayerGroup("body", given), tfs.LayerGroup("head", ["c"])]
        )
        before = np.array(bare.moving_mean)
        fit(model, 1, [unfreezing])
        np.testing.assert_array_equal(np.array(bare.moving_mean), before)
        fit(model, 1)
        assert (np.array(bare.moving_mean) != before).any()


@pytest.mark.parametrize("layerwise", [False, True])
def test_with_everything_at_once(layerwise):
    """Mixed precision, accumulation, clipping, a schedule, and blocks of steps."""
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        model = network()
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    adam = optimizers.Adam(0.01, global_clipnorm=1.0, gradient_accumulation_steps=2)
    compiled(model, adam, layerwise, steps_per_execution=2)
    watch = Watch()
    callbacks = [
        tfs.GradualUnfreezing(groups_of(model)),
        tfs.OneCycle(0.02),
        watch,
    ]
    fit(model, 3, callbacks, count=96)
    assert isinstance(model.optimizer, optimizers.LossScaleOptimizer)
    assert [watch.changed(e) for e in range(3)] == [
        {"c"},
        {"b", "c"},
        {"a", "norm", "b", "c"},
    ]
    assert int(np.array(innermost(model.optimizer)._iterations.value)) == 18
    assert patches(model) == []


@pytest.mark.parametrize("epochs", [1, 3])
def test_averages_are_put_into_their_own_weights(epochs):
    """Keras pairs all averages with the weights that are trainable at the end."""
    adam = optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5)
    model = compiled(network(), adam)
    start = arrays(model)
    watch = Watch()
    fit(model, epochs, [tfs.GradualUnfreezing(groups_of(model)), watch])
    trained = [w for w in model.weights if "moving" not in w.path]
    averages = adam._model_variables_moving_average
    for weight, average in zip(trained, averages, strict=True):
        np.testing.assert_array_equal(np.array(weight), np.array(average))
    if epochs == 1:
        for actual, expected in zip(arrays(model)[:-2], start[:-2], strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-6)
    else:  # not the last step's, but near it
        for actual, last in zip(arrays(model), watch.weights[-1], strict=True):
            assert np.abs(actual - last).max() < 0.03


def graph_size(model):
    """The number of products in a compiled step."""
    x, y = digits(16)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        # Without the update: one that another function would keep is refused.
        @tf.function
        def step(x, y):
            with tf.GradientTape() as tape:
                loss = model.compute_loss(x, y, model(x, training=True))
            return tape.gradient(loss, model.trainable_variables)

        graph = step.get_concrete_function(tf.constant(x), tf.constant(y)).graph
        needed = tf.compat.v1.graph_util.extract_sub_graph(
            graph.as_graph_def(), [output.op.name for output in graph.outputs]
        )
        return sum(node.op == "MatMul" for node in needed.node)
    import jax

    state = model._get_jax_state(
        trainable_variables=True,
        non_trainable_variables=True,
        optimizer_variables=True,
        metrics_variables=True,
    )
    step = jax.jit(lambda state: model.train_step(state, (x, y)))
    return step.lower(state).compile().as_text().count(" dot(")


class GraphSizes(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.sizes = []

    def on_epoch_begin(self, epoch, logs=None):
        self.sizes.append(graph_size(self.model))


def test_what_is_frozen_costs_no_backward_pass():
    model = compiled(network(), optimizers.SGD(0.1))
    sizes = GraphSizes()
    fit(model, 3, [tfs.GradualUnfreezing(groups_of(model)), sizes])
    # Three products forward; backward one for each kernel and each layer's input.
    assert sizes.sizes == [4, 6, 8]


class Stop(Exception):
    """Not an error of ours."""


class Interrupt(keras.callbacks.Callback):
    def __init__(self, epoch, batch=0):
        super().__init__()
        self.at = (epoch, batch)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise Stop("now")


def test_an_interrupted_fit_leaves_nothing_to_the_next():
    model = compiled(network(), optimizers.SGD(0.1))
    norm = model.get_layer("norm")
    with pytest.raises(Stop, match="now"):
        fit(model, 3, [tfs.GradualUnfreezing(groups_of(model)), Interrupt(1)])
    assert not norm.gamma.trainable
    watch = Watch()
    fit(model, 1, [watch])
    assert watch.changed(0) == {"a", "norm", "b", "c"}
    assert "call" not in vars(norm)
    assert patches(model) == []
    assert "finalize_variable_values" not in vars(model.optimizer)


def test_a_new_optimizer_after_an_interrupted_fit_finds_all_weights():
    model = compiled(network(), optimizers.SGD(0.1))
    with pytest.raises(Stop, match="now"):
        fit(model, 3, [tfs.GradualUnfreezing(groups_of(model)), Interrupt(0, 2)])
    compiled(model, optimizers.Adam(0.01), build=False)
    assert all(w.trainable for w in model.weights if "moving" not in w.path)
    assert patches(model) == []
    model.optimizer.build(model.trainable_variables)  # as JAX and replicas do
    watch = Watch()
    fit(model, 1, [watch])
    assert watch.changed(0) == {"a", "norm", "b", "c"}


@functools.cache
def uninterrupted(layerwise):
    """The weights after a fit of five epochs, once for each kind."""
    whole = compiled(network(), optimizers.Adam(0.01), layerwise)
    groups = groups_of(whole)
    fit(whole, 5, [tfs.GradualUnfreezing(groups), tfs.OneCycle(0.02, 25)])
    return arrays(whole)


# With groups in the optimizer, two of the moments: what it counts is the same at all.
@pytest.mark.parametrize(
    ("stop", "layerwise"),
    [
        *[(stop, False) for stop in [(1, 0), (2, 0), (3, 0), (1, 3)]],
        *[(stop, True) for stop in [(2, 0), (1, 3)]],
    ],
)
def test_a_resumed_fit_goes_on_to_the_bit(tmp_path, stop, layerwise):
    def run(model, *more):
        callbacks = [
            keras.callbacks.BackupAndRestore(
                tmp_path / "backup", save_freq="epoch" if stop[1] == 0 else 1
            ),
            tfs.GradualUnfreezing(groups_of(model)),
            tfs.OneCycle(0.02, total_steps=25),
            *more,
        ]
        return fit(model, 5, callbacks)

    def adam():
        return compiled(network(), optimizers.Adam(0.01), layerwise)

    interrupted = adam()
    with pytest.raises(Stop, match="now"):
        run(interrupted, Interrupt(*stop))
    resumed = run(adam())
    if stop[1] == 0:
        for actual, expected in zip(
            arrays(resumed), uninterrupted(layerwise), strict=True
        ):
            np.testing.assert_array_equal(actual, expected)
    else:  # the interrupted epoch is begun anew, after three of its five steps
        assert int(np.array(resumed.optimizer.iterations)) == 28


def test_a_checkpoint_written_meanwhile_loads_whole(tmp_path):
    model = compiled(network(), optimizers.Adam(0.01))
    keep = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    fit(model, 2, [tfs.GradualUnfreezing(groups_of(model)), keep])
    loaded = keras.models.load_model(tmp_path / "1.keras")
    assert len(loaded.trainable_variables) == 8
    assert all(layer.trainable for layer in loaded.layers)
    assert int(np.array(loaded.optimizer.iterations)) == 5
    # It goes on at its second epoch like the fit that was not interrupted.
    fit(loaded, 2, [tfs.GradualUnfreezing(groups_of(loaded))], initial_epoch=1)
    for actual, expected in zip(arrays(loaded), arrays(model), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_what_the_user_has_frozen_stays_so():
    model = network()
    model.get_layer("a").trainable = False
    model.get_layer("b").bias.trainable = False
    compiled(model, optimizers.SGD(0.1))
    groups = [tfs.LayerGroup("body", ["norm", "b"]), tfs.LayerGroup("head", ["c"])]
    before = arrays(model)
    fit(model, 2, [tfs.GradualUnfreezing(groups)])
    changed = {
        w.path.split("/", 1)[1]
        for w, old, new in zip(model.weights, before, arrays(model), strict=True)
        if (old != new).any()
    }
    assert {"a/kernel", "a/bias", "b/bias"}.isdisjoint(changed)
    assert {"b/kernel", "norm/gamma", "c/kernel"} <= changed
    assert not model.get_layer("a").kernel.trainable
    assert not model.get_layer("b").bias.trainable


def test_a_regular_expression_may_part_a_kernel_from_its_bias():
    model = compiled(network(), optimizers.SGD(0.1))
    groups = [
        tfs.LayerGroup("others", "kernel|gamma|beta"),
        tfs.LayerGroup("biases", "bias$"),
    ]
    before = arrays(model)
    fit(model, 1, [tfs.GradualUnfreezing(groups)])
    names = [w.name for w in model.weights]
    for name, old, new in zip(names, before, arrays(model), strict=True):
        if "moving" not in name:
            assert (old != new).any() == (name == "bias")


def test_bad_input_is_refused_before_anything_changes():
    model = compiled(network(), optimizers.SGD(0.1))
    good = groups_of(model)
    with pytest.raises(ValueError, match="`epochs_per_group` must be >= 1"):
        tfs.GradualUnfreezing(good, epochs_per_group=0)
    with pytest.raises(ValueError, match="`batch_norm` must be one of 'frozen', 'upd"):
        tfs.GradualUnfreezing(good, batch_norm="thawed")
    with pytest.raises(ValueError, match="at least one LayerGroup"):
        tfs.GradualUnfreezing([])
    before = arrays(model)
    for groups, match in [
        (good[:2], "In no group: c/kernel, c/bias"),
        ([*good, tfs.LayerGroup("again", "^b/")], "b/kernel .in 'second' and 'again'"),
        (groups_of(network()), "is not in the model that is trained"),
        ([tfs.LayerGroup("x", ["d"]), *good], "'d' of the group 'x' is unknown"),
        ([tfs.LayerGroup("x", "^moving"), *good], "'x' is empty"),
    ]:
        with pytest.raises(ValueError, match=match):
            fit(model, 1, [tfs.GradualUnfreezing(groups)])
        for actual, expected in zip(arrays(model), before, strict=True):
            np.testing.assert_array_equal(actual, expected)
        assert all(w.trainable for w in model.weights if "moving" not in w.path)
        assert patches(model) == []

    two = [tfs.GradualUnfreezing(good) for _ in range(2)]
    with pytest.raises(ValueError, match="A fit has one GradualUnfreezing"):
        fit(model, 1, two)
    fit(model, 1)
    assert patches(model) == []
    assert "finalize_variable_values" not in vars(model.optimizer)

    model.get_layer("c").trainable = False
    head = [*good[:2], tfs.LayerGroup("head", [model.get_layer("c")])]
    with pytest.raises(ValueError, match="All weights of the group 'head' are frozen"):
        fit(model, 1, [tfs.GradualUnfreezing(head)])

    model.trainable = False
    before = arrays(model)
    with pytest.raises(ValueError, match="no trainable weights: everything is frozen"):
        fit(model, 1, [tfs.GradualUnfreezing(good)])
    for actual, expected in zip(arrays(model), before, strict=True):
        np.testing.assert_array_equal(actual, expected)

    unbuilt = keras.Sequential([layers.Dense(8, name="a"), layers.Dense(10, name="c")])
    groups = [tfs.LayerGroup(name, [name]) for name in "ac"]
    callback = tfs.GradualUnfreezing(groups)
    callback.set_model(compiled(unbuilt, optimizers.SGD(0.1), build=False))
    with pytest.raises(ValueError, match="is not built, and GradualUnfreezing"):
        callback.on_train_begin()

    model = network()
    model.get_layer("a").trainable = False
    compiled(model, optimizers.SGD(0.1))
    model.get_layer("a").trainable = True
    with pytest.raises(ValueError, match="built while some weights were frozen"):
        fit(model, 1, [tfs.GradualUnfreezing(groups_of(model))])
