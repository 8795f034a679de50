"""Attention against NumPy in float64 and Keras's own, and in all that trains it."""

import keras
import numpy as np
import pytest
from helpers import JIT, arrays, patches, relative_error
from keras import layers, ops

import tfschedules as tfs
from tfschedules.models import attention

RNG = np.random.default_rng(0)
QUERY, MEMORY = RNG.normal(size=(2, 3, 4)), RNG.normal(size=(2, 5, 4))
MASK = np.array([[True] * 5, [True, False, True, False, False]])


def number(tensor):
    return np.asarray(ops.convert_to_numpy(tensor), np.float64)


def numpy_address(query, memory, sharpness, mask, kind):
    """One query and one row at a time."""
    weights = np.zeros((len(query), query.shape[1], memory.shape[1]))
    for n in range(len(query)):
        for q, k in enumerate(query[n]):
            scores = {}
            for i, row in enumerate(memory[n]):
                score = sum(a * b for a, b in zip(k, row, strict=True))
                if kind == "cosine":
                    score /= np.linalg.norm(k) * np.linalg.norm(row)
                if mask[n, i]:
                    scores[i] = np.exp(sharpness * score)
            for i, score in scores.items():
                weights[n, q, i] = score / sum(scores.values())
    return weights


# Addressing, reading, writing.


@pytest.mark.parametrize("kind", ["cosine", "dot"])
@pytest.mark.parametrize("masked", [False, True])
def test_addresses_equal_numpy(kind, masked):
    mask = MASK if masked else np.ones_like(MASK)
    weights = attention.address(
        QUERY, MEMORY, 3.0, mask=mask if masked else None, kind=kind
    )
    expected = numpy_address(QUERY, MEMORY, 3.0, mask, kind)
    assert relative_error([number(weights)], [expected]) < 1e-6
    assert (number(weights)[expected == 0] == 0).all()
    np.testing.assert_allclose(number(weights).sum(axis=-1), 1, atol=1e-6)


@pytest.mark.parametrize("mask", [None, MASK])
def test_dot_products_are_keras_attention(mask):
    q, m = QUERY.astype("float32"), MEMORY.astype("float32")
    theirs, scores = layers.Attention()(
        [q, m], mask=[None, mask], return_attention_scores=True
    )
    weights = attention.address(q, m, mask=mask, kind="dot")
    assert relative_error([number(weights)], [number(scores)]) < 1e-6
    result = number(attention.read(m, weights))
    assert relative_error([result], [number(theirs)]) < 1e-6


def test_the_limits_of_sharpness_and_nothing_to_read():
    even = number(attention.address(QUERY, MEMORY, 0.0))
    np.testing.assert_allclose(even, 1 / 5, atol=1e-7)
    sharp = number(attention.address(QUERY, MEMORY, 1e5))
    alike = number(attention.similarity(QUERY, MEMORY))
    np.testing.assert_allclose(sharp, np.eye(5)[alike.argmax(axis=-1)], atol=1e-6)
    each = np.array([[[0.0], [1e5], [1.0]]])  # a sharpness for each query
    mixed = number(attention.address(QUERY, MEMORY, each))
    np.testing.assert_allclose(mixed[:, 0], even[:, 0], atol=1e-6)
    np.testing.assert_allclose(mixed[:, 1], sharp[:, 1], atol=1e-6)
    nothing = number(attention.address(QUERY, MEMORY, mask=np.zeros_like(MASK)))
    assert (nothing == 0).all()
    zeros = number(attention.address(np.zeros((1, 2)), np.ones((3, 2)), 7.0))
    np.testing.assert_allclose(zeros, 1 / 3, atol=1e-7)
    short = number(attention.similarity(np.array([[1e-5, 0]]), np.eye(2)))
    np.testing.assert_allclose(short, [[1, 0]], rtol=1e-5)


def test_a_sharp_look_past_the_mask_finds_what_is_there():
    memory = np.array([[-1.0, 0.0], [-1.0, -1.0], [1.0, 0.0]])  # the last is masked
    mask = np.array([True, True, False])
    weights = attention.address(np.array([[1.0, 0.0]]), memory, 1e35, mask=mask)
    np.testing.assert_array_equal(number(weights), [[0, 1, 0]])


@pytest.mark.parametrize("kind", ["cosine", "dot"])
def test_an_infinite_sharpness_takes_the_most_similar(kind):
    query = np.array([[1.0, 0.0], [0.0, 0.0]])
    memory = np.array([[-1.0, 0], [2, 0], [0, 3], [2, 0]])
    mask = np.array([True, False, True, True])
    for sharpness in (np.inf, np.array([[np.inf], [np.inf]])):
        weights = attention.address(query, memory, sharpness, kind=kind)
        np.testing.assert_array_equal(
            number(weights), [[0, 0.5, 0, 0.5], [0.25, 0.25, 0.25, 0.25]]
        )
        weights = attention.address(query, memory, sharpness, mask=mask, kind=kind)
        np.testing.assert_allclose(
            number(weights), [[0, 0, 0, 1], [1 / 3, 0, 1 / 3, 1 / 3]], atol=1e-7
        )
    nothing = attention.address(query, memory, np.inf, mask=np.zeros(4, bool))
    assert (number(nothing) == 0).all()
    loss = lambda q, m: ops.sum(attention.address(q, m, np.inf)[..., 0])  # noqa: E731
    for slope in gradient(loss, [query[:1], memory[:3]]):  # flat but where rows tie
        assert (number(slope) == 0).all()


def test_no_rows_and_no_queries():
    for queries, rows in ((3, 0), (0, 5), (0, 0)):
        for mask in (None, MASK[:, :rows]):
            weights = attention.address(QUERY[:, :queries], MEMORY[:, :rows], mask=mask)
            assert weights.shape == (2, queries, rows)
    nothing = attention.read(MEMORY[:, :0], np.zeros((2, 3, 0)))
    np.testing.assert_array_equal(number(nothing), np.zeros((2, 3, 4)))


@pytest.mark.parametrize("precision", ["int32", "bool"])
def test_a_memory_of_whole_numbers_is_read_and_written_as_real_ones(precision):
    memory = ops.convert_to_tensor([[[1, 0], [0, 1]]], precision)
    half = np.array([[[0.5, 0.5]]])
    np.testing.assert_array_equal(number(attention.read(memory, half)), [[[0.5, 0.5]]])
    new = attention.write(memory, half, np.ones((1, 1, 2)), np.full((1, 1, 2), 0.5))
    np.testing.assert_array_equal(number(new), [[[0.75, 0.25], [0.25, 0.75]]])
    assert keras.backend.standardize_dtype(new.dtype) == keras.config.floatx()


# JAX has float64 only where it is told so.
FLOAT64 = pytest.param("float64", marks=pytest.mark.tensorflow)


@pytest.mark.parametrize("precision", ["float16", "bfloat16", FLOAT64, "int32"])
def test_inputs_of_every_precision(precision):
    query, memory = (np.round(4 * value) for value in (QUERY, MEMORY))
    given = [ops.convert_to_tensor(value, precision) for value in (query, memory)]
    sharpness = ops.convert_to_tensor(np.full((2, 3, 1), 3), precision)
    weights = attention.address(*given, sharpness)
    expected = numpy_address(query, memory, 3.0, np.ones_like(MASK), "cosine")
    assert relative_error([number(weights)], [expected]) < 1e-6


def numpy_write(memory, weights, erase, add):
    memory = memory.copy()
    for n in range(len(memory)):
        for i in range(memory.shape[1]):
            for head in range(weights.shape[1]):
                memory[n, i] *= 1 - weights[n, head, i] * erase[n, head]
            for head in range(weights.shape[1]):
                memory[n, i] += weights[n, head, i] * add[n, head]
    return memory


def test_reading_and_writing_equal_numpy():
    weights = RNG.dirichlet(np.ones(5), (2, 3))
    erase, add = RNG.random((2, 3, 4)), RNG.normal(size=(2, 3, 4))
    new = number(attention.write(MEMORY, weights, erase, add))
    assert relative_error([new], [numpy_write(MEMORY, weights, erase, add)]) < 1e-6
    expected = np.einsum("nqi,niw->nqw", weights, MEMORY)
    assert relative_error([number(attention.read(MEMORY, weights))], [expected]) < 1e-6


def test_what_was_written_at_one_place_is_read_there_and_nothing_else_changes():
    place = np.eye(5)[[[1], [3]]]
    add = RNG.normal(size=(2, 1, 4)).astype("float32")
    memory = MEMORY.astype("float32")
    new = ops.convert_to_numpy(attention.write(memory, place, np.ones((2, 1, 4)), add))
    np.testing.assert_array_equal(new[0, 1], add[0, 0])
    np.testing.assert_array_equal(new[0, [0, 2, 3, 4]], memory[0, [0, 2, 3, 4]])
    found = attention.address(add, new, 1e4)
    np.testing.assert_allclose(number(attention.read(new, found)), add, atol=1e-5)


def gradient(function, values):
    """Of a scalar with respect to every array, by the backend."""
    variables = [keras.Variable(value, dtype="float32") for value in values]
    if keras.backend.backend() == "jax":
        import jax

        return jax.grad(lambda v: function(*v))([v.value for v in variables])
    import tensorflow as tf

    with tf.GradientTape() as tape:
        result = function(*[v.value for v in variables])
    return tape.gradient(result, [v.value for v in variables])


def test_gradients_go_through_writing_and_reading():
    """Finite differences of the same in NumPy, in float64."""
    generator = np.random.default_rng(2)
    memory, query, asked, add = (
        generator.normal(size=(1, rows, 3)) for rows in (4, 2, 1, 2)
    )
    erase = generator.random((1, 2, 3))
    aim = generator.normal(size=(1, 1, 3))
    values = [memory, query, asked, add, erase]

    def loss(memory, query, asked, add, erase):
        new = attention.write(memory, attention.address(query, memory, 2.0), erase, add)
        found = attention.read(new, attention.address(asked, new, 2.0))
        return ops.sum(found * ops.cast(aim, found.dtype))

    def in_numpy(memory, query, asked, add, erase):
        everywhere = np.ones((1, 4), bool)
        at = numpy_address(query, memory, 2.0, everywhere, "cosine")
        new = numpy_write(memory, at, erase, add)
        at = numpy_address(asked, new, 2.0, everywhere, "cosine")
        return ((at @ new) * aim).sum()

    expected = []
    for which, value in enumerate(values):
        slope = np.zeros_like(value)
        for index in np.ndindex(value.shape):
            sides = []
            for step in (1e-6, -1e-6):
                moved = [array.copy() for array in values]
                moved[which][index] += step
                sides.append(in_numpy(*moved))
            slope[index] = (sides[0] - sides[1]) / 2e-6
        expected.append(slope)
    for ours, theirs in zip(gradient(loss, values), expected, strict=True):
        assert np.abs(theirs).max() > 1e-3
        assert relative_error([number(ours)], [theirs]) < 1e-5


def test_gradients_of_vectors_of_zeros_are_finite():
    loss = lambda q, m: ops.sum(attention.address(q, m)[..., 0])  # noqa: E731
    for slope in gradient(loss, [np.zeros((1, 2)), np.zeros((3, 2))]):
        assert np.isfinite(number(slope)).all()


# The layer.


def test_the_layer_equals_numpy():
    layer = attention.Attention(6)
    queries, memory = RNG.normal(size=(2, 3, 4)), RNG.normal(size=(2, 5, 7))
    layer.build(queries.shape, memory.shape)
    w_q, w_k, w_c, _ = (RNG.normal(size=w.shape) for w in layer.weights)
    layer.set_weights([w_q, w_k, w_c, np.log(2.5)])
    output, weights = layer(queries, memory, memory_mask=MASK)
    expected = numpy_address(queries @ w_q, memory @ w_k, 2.5, MASK, "cosine")
    both = np.concatenate([expected @ memory, queries], axis=-1)
    assert relative_error([number(weights)], [expected]) < 2e-6
    assert relative_error([number(output)], [np.tanh(both @ w_c)]) < 2e-6


@pytest.mark.tensorflow  # as above
def test_the_layer_in_float64():
    layer = attention.Attention(6, dtype="float64")
    output, weights = layer(QUERY, MEMORY)
    specified = layer.compute_output_spec(
        keras.KerasTensor((2, 3, 4)), keras.KerasTensor((2, 5, 4))
    )
    for tensor, spec in zip((output, weights), specified, strict=True):
        assert keras.backend.standardize_dtype(tensor.dtype) == spec.dtype == "float64"
    np.testing.assert_allclose(number(weights).sum(axis=-1), 1, atol=1e-6)


def test_a_sharpness_that_float16_does_not_hold():
    layer = attention.Attention(4, dtype="mixed_float16")
    layer(QUERY, MEMORY)

    def loss(log_sharpness):
        with keras.StatelessScope([(layer.log_sharpness, log_sharpness)]):
            _, weights = layer(QUERY, MEMORY)
        return ops.sum(weights[..., 0])

    (slope,) = gradient(loss, [12.0])  # e¹² = 162755, float16 ends at 65504
    assert np.isfinite(number(slope))


# The task.


@pytest.mark.parametrize("pairs", [1, 5])
def test_the_task_is_a_dictionary(pairs):
    queries = min(pairs, 3)
    task = {"keys": 6, "values": 4, "pairs": pairs, "queries": queries}
    (keys, values, asked), answers = attention.lookup_task(50, seed=3, **task)
    assert keys.shape == values.shape == (50, pairs)
    assert asked.shape == answers.shape == (50, queries)
    for n in range(50):
        book = dict(zip(keys[n].tolist(), values[n].tolist(), strict=True))
        assert len(book) == pairs
        assert len(set(asked[n].tolist())) == queries
        assert [book[key] for key in asked[n].tolist()] == answers[n].tolist()
    assert set(np.unique(keys)) == {1, 2, 3, 4, 5, 6}
    assert set(np.unique(values)) == {0, 1, 2, 3}
    (again, *_), _ = attention.lookup_task(50, seed=3, **task)
    (other, *_), _ = attention.lookup_task(50, seed=4, **task)
    assert (again == keys).all()
    assert (other != keys).any()


def compiled(model, optimizer=None, **arguments):
    model.compile(
        optimizer or keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **{"jit_compile": JIT, **arguments},
    )
    return model


@pytest.mark.slow
def test_it_learns_what_a_plain_lstm_of_its_size_does_not():
    train, test = (attention.lookup_task(3072, seed=seed) for seed in (0, 1))
    accuracy, sizes = {}, {}
    for looks, units in ((True, 32), (False, 38)):
        keras.utils.set_random_seed(0)
        model = attention.lookup(8, 8, units=units, attention=looks)
        compiled(model).fit(
            *train, batch_size=64, epochs=3, verbose=0, callbacks=[tfs.OneCycle(0.02)]
        )
        _, accuracy[looks] = model.evaluate(*test, batch_size=512, verbose=0)
        sizes[looks] = model.count_params()
        if looks:
            (keys, _, asked), _ = test
            weights = attention.attention_weights(model, test[0])
            right = asked[..., None] == keys[:, None]
            # It looks at the pair that was asked for, and hardly elsewhere.
            assert weights[right].mean() > 0.8
    assert sizes[True] < sizes[False] < 1.05 * sizes[True]
    assert accuracy[True] > 0.95
    assert accuracy[False] < 0.55


# Everything that trains, saves and watches.

X, Y = attention.lookup_task(24, keys=4, values=3, pairs=3, queries=2)
PADDED = (X[0] * np.array([1, 1, 0]), X[1], X[2])


def small(seed=1, **arguments):
    keras.utils.set_random_seed(seed)
    return attention.lookup(4, 3, **{"units": 4, "embedding": 3, **arguments})


def test_weights_of_the_model_sum_to_one_and_padding_has_none():
    model = small()
    weights = attention.attention_weights(model, PADDED)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)
    assert (weights[..., 2] == 0).all()
    assert (weights[..., :2] > 0).all()
    shorter = (X[0][:, :2], X[1][:, :2], X[2])  # as if the padding were not there
    np.testing.assert_allclose(
        number(model(list(PADDED))), number(model(list(shorter))), atol=1e-5
    )


def test_padded_queries_have_no_part_in_the_loss():
    model = compiled(small())
    keys, values, asked = X
    padded = [keys, values, asked * np.array([1, 0])]
    others = (Y + np.array([0, 1])) % 3  # another answer where nothing is asked
    one, other = (model.compute_loss(y=y, y_pred=model(padded)) for y in (Y, others))
    assert number(one) == number(other) > 0


def test_mixed_precision():
    policy = "mixed_bfloat16"  # the other one: the residual network's
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = compiled(small(), steps_per_execution=2)
        history = model.fit(PADDED, Y, batch_size=4, epochs=2, verbose=0).history
    finally:
        keras.config.set_dtype_policy(before)
    layer = model.get_layer("attention")
    output, weights = layer(np.ones((1, 2, 4)), np.ones((1, 3, 4)))
    assert keras.backend.standardize_dtype(output.dtype) == policy[6:]
    assert keras.backend.standardize_dtype(weights.dtype) == "float32"
    assert np.isfinite(history["loss"]).all()
    assert all(np.isfinite(value).all() for value in arrays(model))
    seen = attention.attention_weights(model, PADDED)
    np.testing.assert_allclose(seen.sum(axis=-1), 1, atol=1e-6)
    assert (seen[..., 2] == 0).all()
    assert model.output.dtype == "float32"


def test_a_range_test_puts_it_back_to_the_bit():
    model = compiled(small())
    model.fit(X, Y, batch_size=8, verbose=0)
    before = [*arrays(model), *(np.array(v.value) for v in model.optimizer.variables)]
    result = tfs.find_learning_rate(model, X, Y, batch_size=8, steps=6, verbose=0)
    assert len(result.losses) == 6
    after = [*arrays(model), *(np.array(v.value) for v in model.optimizer.variables)]
    assert all((a == b).all() for a, b in zip(before, after, strict=True))
    assert patches(model) == []


class Trained(keras.callbacks.Callback):
    """Which layers each epoch has changed."""

    def on_train_begin(self, logs=None):
        self.last, self.layers = arrays(self.model), []

    def on_epoch_end(self, epoch, logs=None):
        now = arrays(self.model)
        holders = [layer.name for layer in self.model.layers for _ in layer.weights]
        changed = zip(holders, self.last, now, strict=True)
        self.layers.append({name for name, a, b in changed if (a != b).any()})
        self.last = now


def test_rates_for_layers_unfreezing_snapshots_and_the_log(tmp_path):
    model = small()
    groups = tfs.discriminative_groups(model, low=0.1, boundaries=["asker", "logits"])
    optimizer = tfs.LayerwiseOptimizer(keras.optimizers.SGD(0.5), groups)
    compiled(model, optimizer)
    trained = Trained()
    model.fit(
        X,
        Y,
        batch_size=8,
        epochs=3,
        verbose=0,
        callbacks=[
            tfs.WarmRestarts(0.5, first_cycle=tfs.epochs(1)),
            tfs.GradualUnfreezing(groups),
            tfs.TensorBoardLogger(tmp_path / "log"),
            tfs.SnapshotEnsemble(tmp_path / "snapshots"),
            trained,
        ],
    )
    upper = {"asker", "attention", "logits"}
    lower = {"key_embedding", "value_embedding", "reader"}
    assert trained.layers == [{"logits"}, upper, upper | lower]
    assert len(list((tmp_path / "log").glob("**/events*"))) == 1
    snapshots = list(tfs.SnapshotEnsemble.load(tmp_path / "snapshots"))
    assert len(snapshots) == 3
    np.testing.assert_array_equal(
        number(snapshots[-1](list(X))), number(model(list(X)))
    )


# What is refused.


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: attention.similarity(QUERY, MEMORY, "near"), "`kind`.*'near'"),
        (lambda: attention.Attention(0), "`units` must be >= 1"),
        (lambda: attention.lookup(0, 3), "`keys` must be >= 1"),
        (lambda: attention.lookup_task(3, keys=2), "`pairs` must be <= `keys`"),
        (lambda: attention.lookup_task(3, pairs=2), "`queries` must be <= `pairs`"),
        (
            lambda: attention.attention_weights(small(attention=False), X),
            "one `Attention` layer.*'lookup' with 0",
        ),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_weights_say_what_graph_they_need():
    shared = attention.Attention(4, name="shared")
    queries, memory = keras.Input((3, 4)), keras.Input((5, 4))
    first, _ = shared(queries, memory)
    second, _ = shared(first, memory)
    twice = keras.Model([queries, memory], second)
    with pytest.raises(ValueError, match="'shared' is called in 2 places"):
        attention.attention_weights(twice, [QUERY, MEMORY])

    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.attention = attention.Attention(4)

        def call(self, x):
            return self.attention(*x)[0]

    called = Subclassed()
    called([QUERY, MEMORY])
    with pytest.raises(ValueError, match="`model` must have a graph"):
        attention.attention_weights(called, [QUERY, MEMORY])
    inner = small()
    outer = keras.Model(inner.inputs, small()(inner.inputs), name="outer")
    with pytest.raises(ValueError, match=r"nested models are not .*'outer' with 0"):
        attention.attention_weights(outer, list(X))
