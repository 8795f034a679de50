"""The LSTM against a NumPy loop and Keras's own, and in everything that trains it."""

import keras
import numpy as np
import pytest
from helpers import BACKEND, JIT, arrays, patches, relative_error
from keras import layers

import tfschedules as tfs
from tfschedules.models import lstm

SAMPLES, STEPS, FEATURES, UNITS = 4, 6, 3, 5
X = np.random.default_rng(0).normal(size=(SAMPLES, STEPS, FEATURES)).astype("float32")
MASKS = {
    "none": np.ones((SAMPLES, STEPS), bool),
    "right": np.arange(STEPS) < np.array([[6], [4], [1], [3]]),
    "left": np.arange(STEPS) >= np.array([[0], [2], [5], [3]]),
    "holes": np.random.default_rng(1).random((SAMPLES, STEPS)) < 0.6,
}


def numpy_lstm(x, mask, kernel, recurrent_kernel, bias):
    """One sample at a time, one gate at a time; a masked step is not taken.

    All of i, f, g, o, c, h at every step: `(6, samples, steps, units)`, NaN if masked.
    """
    samples, steps, _ = x.shape
    units = len(recurrent_kernel)
    w, u, b = (
        np.split(np.asarray(value, np.float64), 4, axis=-1)
        for value in (kernel, recurrent_kernel, bias)
    )
    seen = np.full((6, samples, steps, units), np.nan)
    last = np.zeros((samples, units))
    for n in range(samples):
        h, c = np.zeros(units), np.zeros(units)
        for t in range(steps):
            if not mask[n, t]:
                continue
            z = [x[n, t] @ w[k] + h @ u[k] + b[k] for k in range(4)]
            i, f, o = (1 / (1 + np.exp(-z[k])) for k in (0, 1, 3))
            g = np.tanh(z[2])
            c = c * f + i * g
            h = np.tanh(c) * o
            seen[:, n, t] = i, f, g, o, c, h
        last[n] = h
    return seen, last


def weights(features=FEATURES, units=UNITS, seed=2):
    generator = np.random.default_rng(seed)
    shapes = (features, 4 * units), (units, 4 * units), (4 * units,)
    return [generator.normal(0, 0.7, shape).astype("float32") for shape in shapes]


def with_weights(layer, *all_weights):
    layer.build((None, STEPS, FEATURES))
    layer.set_weights([value for values in all_weights for value in values])
    return layer


def number(tensor):
    return keras.ops.convert_to_numpy(tensor)


# The numbers.


@pytest.mark.parametrize("mask", MASKS)
def test_every_step_equals_a_numpy_loop_and_keras(mask):
    seen, last = numpy_lstm(X, MASKS[mask], *weights())
    given = None if mask == "none" else MASKS[mask]
    for make in (lstm.LSTM, layers.LSTM):
        each, h, _ = with_weights(
            make(UNITS, return_sequences=True, return_state=True), weights()
        )(X, mask=given)
        taken = MASKS[mask]
        assert relative_error([number(each)[taken]], [seen[5][taken]]) < 1e-6
        assert relative_error([number(h)], [last]) < 1e-6
        alone = with_weights(make(UNITS), weights())(X, mask=given)
        assert relative_error([number(alone)], [last]) < 1e-6
    held = number(with_weights(lstm.LSTM(UNITS, return_sequences=True), weights())(
        X, mask=given
    ))  # fmt: skip
    theirs = with_weights(layers.LSTM(UNITS, return_sequences=True), weights())
    assert relative_error([held], [number(theirs(X, mask=given))]) < 1e-6


@pytest.mark.parametrize(
    "arguments",
    [
        {"go_backwards": True, "return_sequences": True},
        {"unroll": True},
        {"zero_output_for_mask": True, "return_sequences": True},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_arguments_of_keras_mean_the_same(arguments):
    ours, theirs = (
        number(
            with_weights(make(UNITS, **arguments), weights())(X, mask=MASKS["holes"])
        )
        for make in (lstm.LSTM, layers.LSTM)
    )
    assert relative_error([ours], [theirs]) < 1e-6


def test_stacked_cells_are_layers_one_on_the_other():
    first, second = weights(), weights(UNITS, 4, seed=3)
    cells = layers.RNN([lstm.LSTMCell(UNITS), lstm.LSTMCell(4)])
    stacked = number(with_weights(cells, first, second)(X))
    seen, _ = numpy_lstm(X, MASKS["none"], *first)
    _, last = numpy_lstm(seen[5], MASKS["none"], *second)
    assert relative_error([stacked], [last]) < 1e-6


def test_both_directions():
    bidirectional = layers.Bidirectional(lstm.LSTM(UNITS))
    forward, backward = weights(), weights(seed=3)
    result = number(with_weights(bidirectional, forward, backward)(X))
    expected = [
        numpy_lstm(x, MASKS["none"], *w)[1]
        for x, w in ((X, forward), (X[:, ::-1], backward))
    ]
    assert relative_error([result], [np.concatenate(expected, axis=-1)]) < 1e-6


def test_gradients_are_those_of_keras():
    """One step of SGD at the rate 1: the weights differ by the gradients."""
    stepped = []
    y = np.random.default_rng(3).normal(size=(SAMPLES, UNITS)).astype("float32")
    for make in (lstm.LSTM, layers.LSTM):
        model = keras.Sequential(
            [keras.Input((STEPS, FEATURES)), layers.Masking(), make(UNITS)]
        )
        model.set_weights(weights())
        model.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=JIT)
        model.fit(X * MASKS["right"][..., None], y, verbose=0)
        stepped.append([b - a for a, b in zip(weights(), arrays(model), strict=True)])
    assert relative_error(*stepped) < 1e-5  # a difference of nearly equal numbers
    assert all(np.abs(gradient).max() > 1e-3 for gradient in stepped[0])


def test_it_begins_as_keras_does():
    for forget in (True, False):
        pair = []
        for make in (lstm.LSTM, layers.LSTM):
            keras.utils.set_random_seed(1)
            layer = make(UNITS, unit_forget_bias=forget)
            layer.build((None, STEPS, FEATURES))
            pair.append(layer.get_weights())
        for ours, theirs in zip(*pair, strict=True):
            assert ours.shape == theirs.shape
            assert ours.std() == pytest.approx(theirs.std(), rel=0.3)
        np.testing.assert_array_equal(pair[0][2], pair[1][2])
        np.testing.assert_allclose(pair[0][1] @ pair[0][1].T, np.eye(UNITS), atol=1e-5)


def test_paths_of_weights_are_those_of_keras_whatever_was_made_before():
    paths = []
    for make in (lstm.LSTM, lstm.LSTM, layers.LSTM):
        layer = make(UNITS, name="reader")
        layer.build((None, STEPS, FEATURES))
        paths.append([weight.path for weight in layer.weights])
    assert paths[0] == paths[1] == paths[2]


# The gates.


def test_gates_are_those_of_a_numpy_loop():
    tokens = np.array([[0, 0, 3, 1, 4], [1, 5, 2, 0, 0]])
    model = lstm.classifier(7, 2, units=4, layers=2, embedding=3)
    for weight in model.weights:
        weight.assign(np.random.default_rng(4).normal(0, 0.7, weight.shape))
    table, first, second = arrays(model)[0], arrays(model)[1:4], arrays(model)[4:7]
    lower, _ = numpy_lstm(table[tokens], tokens > 0, *first)
    upper, last = numpy_lstm(lower[5], tokens > 0, *second)
    for layer, expected in ((0, lower), ("lstm_2", upper)):
        seen = lstm.gates(model, tokens, layer=layer)
        for name, index in zip(
            ["add", "forget", "candidate", "output", "cell", "hidden"],
            range(6),
            strict=True,
        ):
            np.testing.assert_allclose(seen[name], expected[index], atol=2e-6)
    kernel, bias = arrays(model)[7:]
    np.testing.assert_allclose(model(tokens), last @ kernel + bias, atol=1e-5)


def test_gates_of_a_layer_that_goes_backwards_are_in_the_inputs_order():
    model = keras.Sequential(
        [
            keras.Input((STEPS, FEATURES)),
            layers.Masking(),
            lstm.LSTM(UNITS, go_backwards=True),
        ]
    )
    model.set_weights(weights())
    mask = MASKS["right"]
    seen = lstm.gates(model, X * mask[..., None])
    expected, _ = numpy_lstm(X[:, ::-1], mask[:, ::-1], *weights())
    np.testing.assert_allclose(seen["forget"], expected[1][:, ::-1], atol=2e-6)


def test_gates_of_what_has_none():
    plain = keras.Sequential([keras.Input((STEPS, FEATURES)), layers.LSTM(UNITS)])
    wrapped = keras.Sequential(
        [keras.Input((STEPS, FEATURES)), layers.Bidirectional(lstm.LSTM(UNITS))]
    )
    for model in (plain, wrapped):
        with pytest.raises(
            ValueError, match=r"there is none.*layer=0.*wrappers are not looked into"
        ):
            lstm.gates(model, X)
    with pytest.raises(ValueError, match=r"lstm_1\. Received: layer=1"):
        lstm.gates(lstm.classifier(5, 2, units=2), [[1]], layer=1)
    sequences, state = keras.Input((STEPS, FEATURES)), keras.Input((UNITS,))
    begun = lstm.LSTM(UNITS, name="begun")(sequences, initial_state=[state, state])
    with pytest.raises(ValueError, match=r"'begun' begins from a state"):
        lstm.gates(keras.Model([sequences, state], begun), [X, X[:, 0]])


# Characters.

TEXT = "the gate forgets and the gate adds; " * 12


def characters(length=12):
    """Windows of the text and, for each character, the one after it."""
    alphabet = sorted(set(TEXT))
    ids = np.array([alphabet.index(character) for character in TEXT])
    starts = np.arange(0, len(ids) - length - 1, 5)
    windows = np.stack([ids[start : start + length + 1] for start in starts])
    return windows[:, :-1], windows[:, 1:], alphabet


def compiled(model, optimizer=None, **arguments):
    keras.utils.set_random_seed(0)
    model.compile(
        optimizer or keras.optimizers.Adam(0.02),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **{"jit_compile": JIT, **arguments},
    )
    return model


def test_it_learns_a_text_and_writes_it():
    keras.utils.set_random_seed(0)
    x, y, alphabet = characters()
    model = compiled(lstm.next_character(len(alphabet), units=32, embedding=8))
    model.fit(x, y, epochs=25, verbose=0, callbacks=[tfs.OneCycle(0.05)])
    start = [alphabet.index(character) for character in "the gate f"]
    written = lstm.sample(model, start, 26, temperature=0)
    assert "".join(alphabet[i] for i in written) == "orgets and the gate adds; "


def test_sample_takes_the_likeliest_of_the_whole_model_and_draws_from_its_softmax():
    keras.utils.set_random_seed(3)
    model = lstm.next_character(6, units=4, layers=2)
    for weight in model.weights:
        weight.assign(np.random.default_rng(4).normal(0, 1.5, weight.shape))
    ids = [2, 5]
    for _ in range(5):  # all of it again for each character
        ids.append(int(np.argmax(number(model(np.array([ids])))[0, -1])))
    assert lstm.sample(model, [2, 5], 5, temperature=0).tolist() == ids[2:]

    logits = number(model(np.array([[2, 5]])))[0, -1].astype(np.float64)
    drawn = [
        lstm.sample(model, [2, 5], 1, temperature=0.5, seed=seed)[0]
        for seed in range(150)
    ]
    shares = np.bincount(drawn, minlength=6) / 150
    expected = np.exp(logits / 0.5) / np.exp(logits / 0.5).sum()
    assert np.abs(shares - expected).max() < 0.12
    assert 0.2 < expected.max() < 0.9
    once, again, other = (lstm.sample(model, [1], 20, seed=seed) for seed in (7, 7, 8))
    assert once.tolist() == again.tolist() != other.tolist()


@pytest.mark.parametrize(
    ("start", "arguments", "message"),
    [
        ([], {}, r"`start` must be a list of at least one"),
        ([0.5], {}, r"`start` must be a list of at least one"),
        ([6], {}, r"numbers in 0 … 5.*6 … 6"),
        ([0], {"temperature": -1}, r"`temperature` must be >= 0.*-1"),
        ([0], {"length": 0}, r"`length` must be >= 1.*length=0"),
    ],
)
def test_what_sample_refuses(start, arguments, message):
    model = lstm.next_character(6, units=2)
    with pytest.raises(ValueError, match=message):
        lstm.sample(model, start, **{"length": 3, **arguments})
    with pytest.raises(ValueError, match=r"one of `next_character`.*\(None, 2\)"):
        lstm.sample(lstm.classifier(6, 2, units=2), [0], 3)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"`units` must be >= 1\. Received: units=0"):
        lstm.LSTM(0)
    with pytest.raises(TypeError, match="`units` must be a number"):
        lstm.LSTMCell("many")
    with pytest.raises(ValueError, match="`classes` must be >= 1"):
        lstm.classifier(5, 0)
    with pytest.raises(ValueError, match="`layers` must be a whole number"):
        lstm.next_character(5, layers=1.5)


# Everything that trains, saves and watches.

TOKENS = np.random.default_rng(5).integers(1, 7, (24, 8)) * (
    np.arange(8) < np.random.default_rng(6).integers(2, 9, (24, 1))
)
LABELS = (TOKENS == 3).any(axis=1).astype("int32")


def small(seed=1, **arguments):
    keras.utils.set_random_seed(seed)
    return lstm.classifier(7, 2, **{"units": 4, "layers": 2, **arguments})


def test_mixed_precision():
    policy = "mixed_float16"  # the other one: the residual network's
    given = lstm.LSTM(4, dtype=policy)
    assert given.compute_dtype == given.cell.compute_dtype == "float16"
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = compiled(small(layers=1), steps_per_execution=2)
        assert model.layers[2].cell.compute_dtype == policy.removeprefix("mixed_")
        losses = model.fit(
            TOKENS, LABELS, batch_size=4, epochs=3, verbose=0
        ).history["loss"]  # fmt: skip
    finally:
        keras.config.set_dtype_policy(before)
    assert model.predict(TOKENS, verbose=0).dtype == np.float32
    assert np.isfinite(losses).all()
    assert all(np.isfinite(value).all() for value in arrays(model))
    seen = lstm.gates(model, TOKENS)
    assert all(
        np.isfinite(values[TOKENS > 0]).all() and np.isnan(values[TOKENS == 0]).all()
        for values in seen.values()
    )


def test_blocks_of_steps_and_a_one_cycle_change_nothing():
    weights_after = []
    for block in (1, 3):
        model = small(layers=1)
        compiled(model, keras.optimizers.SGD(0.1), steps_per_execution=block)
        model.fit(
            TOKENS, LABELS, batch_size=4, shuffle=False, verbose=0, epochs=2,
            callbacks=[tfs.OneCycle(0.3)],
        )  # fmt: skip
        weights_after.append(arrays(model))
    for one, other in zip(*weights_after, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_a_range_test_puts_it_back_to_the_bit():
    model = compiled(small(layers=1))
    model.fit(TOKENS, LABELS, batch_size=8, verbose=0)
    before = [*arrays(model), *(np.array(v.value) for v in model.optimizer.variables)]
    result = tfs.find_learning_rate(
        model, TOKENS, LABELS, batch_size=8, steps=8, verbose=0
    )
    assert len(result.losses) == 8
    after = [*arrays(model), *(np.array(v.value) for v in model.optimizer.variables)]
    assert all((a == b).all() for a, b in zip(before, after, strict=True))
    assert patches(model) == []


class Moved(keras.callbacks.Callback):
    """Which weights each epoch has changed, by the layers' names."""

    def on_train_begin(self, logs=None):
        self.last, self.layers = arrays(self.model), []

    def on_epoch_end(self, epoch, logs=None):
        now = arrays(self.model)
        holders = [layer.name for layer in self.model.layers for _ in layer.weights]
        self.layers.append(
            {
                name
                for name, a, b in zip(holders, self.last, now, strict=True)
                if (a != b).any()
            }
        )
        self.last = now


def test_rates_for_layers_unfreezing_snapshots_and_the_log(tmp_path):
    model = small()
    groups = tfs.discriminative_groups(model, low=0.1, n_groups=4)
    optimizer = tfs.LayerwiseOptimizer(keras.optimizers.SGD(0.1), groups)
    optimizer.build(model.trainable_variables)
    assert [row.parameters for row in optimizer.table().rows] == [
        7 * 4,
        4 * 4 * (4 + 4 + 1),
        4 * 4 * (4 + 4 + 1),
        4 * 2 + 2,
    ]
    compiled(model, optimizer)
    moved = Moved()
    model.fit(
        TOKENS,
        LABELS,
        batch_size=8,
        epochs=4,
        verbose=0,
        callbacks=[
            tfs.WarmRestarts(0.1, first_cycle=tfs.epochs(2)),
            tfs.GradualUnfreezing(groups),
            tfs.TensorBoardLogger(tmp_path / "log"),
            tfs.SnapshotEnsemble(tmp_path / "snapshots"),
            moved,
        ],
    )
    names = ["embedding", "lstm_1", "lstm_2", "logits"]
    assert moved.layers == [set(names[-count:]) for count in (1, 2, 3, 4)]
    assert len(list((tmp_path / "log").glob("**/events*"))) == 1
    first, last = tfs.SnapshotEnsemble.load(tmp_path / "snapshots")
    np.testing.assert_array_equal(number(last(TOKENS)), number(model(TOKENS)))
    assert (number(first(TOKENS)) != number(model(TOKENS))).any()


@pytest.mark.skipif(BACKEND != "tensorflow", reason="compares with XLA")
@pytest.mark.tensorflow
def test_compiled_with_xla_it_is_the_same():
    model = small()
    plain = number(model(TOKENS))
    model.compile(jit_compile=True)
    np.testing.assert_allclose(model.predict(TOKENS, verbose=0), plain, atol=1e-5)


def test_a_model_of_one_layer_writes_no_text():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="`model` must be one of `next_character`"):
        lstm.sample(model, [1], 1)


def test_sample_reads_a_sequential_model_as_the_functional_one():
    model = lstm.next_character(6, units=3)
    chain = keras.Sequential([keras.Input((None,), dtype="int32"), *model.layers[1:]])
    written = [lstm.sample(which, [2], 6, seed=1).tolist() for which in (model, chain)]
    assert written[0] == written[1]
    unbuilt = keras.Sequential([layers.Embedding(6, 3), lstm.LSTM(3)])
    with pytest.raises(ValueError, match=r"one of `next_character`.*of shape None"):
        lstm.sample(unbuilt, [2], 1)
    with pytest.raises(
        ValueError, match=r"`start` must be a list.*\[\[1, 2\], \[3\]\]"
    ):
        lstm.sample(model, [[1, 2], [3]], 1)


@pytest.mark.parametrize("temperature", [0, 0.5])
def test_sample_says_that_logits_are_not_finite(temperature):
    model = lstm.next_character(6, units=3)
    bias = model.get_layer("logits").bias
    for value, message in ((np.nan, "1 NaN of 6"), (np.inf, "0 NaN.*largest inf")):
        bias.assign([0, value, 0, 0, 0, 0])
        with pytest.raises(ValueError, match=f"logits of `model`.*{message}"):
            lstm.sample(model, [2], 1, temperature=temperature)
    bias.assign([-np.inf, 0, 0, 0, 0, -np.inf])  # characters that are forbidden
    written = lstm.sample(model, [2], 30, temperature=temperature)
    assert set(written.tolist()) <= {1, 2, 3, 4}


def test_gates_say_what_graph_they_need():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.lstm = lstm.LSTM(UNITS)

        def call(self, x):
            return self.lstm(x)

    called = Subclassed()
    called(X)
    for model in (keras.Sequential([lstm.LSTM(UNITS)]), Subclassed(), called):
        with pytest.raises(ValueError, match="`model` must have a graph"):
            lstm.gates(model, X)
    late = keras.Sequential([lstm.LSTM(UNITS)])
    late(X)
    late(X[:, :3])
    assert lstm.gates(late, X)["cell"].shape == (SAMPLES, STEPS, UNITS)

    shared = lstm.LSTM(UNITS, name="shared")
    inputs = [keras.Input((STEPS, FEATURES)) for _ in range(2)]
    both = keras.Model(inputs, layers.add([shared(x) for x in inputs]))
    with pytest.raises(ValueError, match="'shared' is called in 2 places"):
        lstm.gates(both, [X, X])

    stateful = keras.Sequential(
        [
            keras.Input(batch_shape=(SAMPLES, STEPS, FEATURES)),
            lstm.LSTM(UNITS, stateful=True, name="kept"),
        ]
    )
    with pytest.raises(ValueError, match="'kept' is stateful"):
        lstm.gates(stateful, X)
