"""Residual networks: against NumPy, the paper's table, and every callback."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
from event_files import read
from helpers import JIT, arrays, digits, one_cycle_values

import tfschedules as tfs
from tfschedules.models.resnet import resnet

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

X, Y = digits()
order = np.random.default_rng(0).permutation(len(X))
X, Y = X[order].reshape(-1, 8, 8, 1), Y[order]


def small(width=4, **arguments):
    """A ResNet-8 for digits, always from one beginning."""
    keras.utils.set_random_seed(0)
    return resnet(8, (8, 8, 1), width=width, **arguments)


def compiled(model, optimizer=None, **arguments):
    optimizer = optimizer or keras.optimizers.SGD(0.05, momentum=0.9)
    arguments = {"metrics": ["accuracy"], "jit_compile": JIT} | arguments
    model.compile(optimizer, LOSS, **arguments)
    return model


# What it computes.


def convolution(x, kernel, stride=1):
    """Cross-correlation with a pixel of zeros around, one position at a time."""
    x = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    height, width = ((size - 3) // stride + 1 for size in x.shape[1:3])
    y = np.zeros((len(x), height, width, kernel.shape[-1]))
    for i in range(height):
        for j in range(width):
            window = x[:, i * stride : i * stride + 3, j * stride : j * stride + 3]
            y[:, i, j] = np.tensordot(window, kernel, 3)
    return y


def forward(x, weights):
    """The logits of a ResNet-8 in float64, `weights` in the order of its layers."""
    weights = iter(weights)

    def normalised(x):
        gamma, beta, mean, variance = (next(weights) for _ in range(4))
        return gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta

    x = np.maximum(normalised(convolution(x, next(weights))), 0)
    for stride in (1, 2, 2):
        f = np.maximum(normalised(convolution(x, next(weights), stride)), 0)
        f = normalised(convolution(f, next(weights)))
        shortcut = np.zeros_like(f)
        for i in range(f.shape[1]):
            for j in range(f.shape[2]):
                shortcut[:, i, j, : x.shape[-1]] = x[:, stride * i, stride * j]
        x = np.maximum(shortcut + f, 0)
    return x.mean(axis=(1, 2)) @ next(weights) + next(weights)


def any_weights(model):
    random = np.random.default_rng(0)
    return [
        random.uniform(0.5, 2, w.shape)
        if w.path.endswith("variance")
        else random.normal(0, 0.5, w.shape)
        for w in model.weights
    ]


@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 6), (4, 11)])
def test_it_is_the_papers_network(height, width):
    model = resnet(8, (height, width, 2), classes=3, width=4)
    weights = any_weights(model)
    model.set_weights(weights)
    x = np.random.default_rng(1).normal(size=(5, height, width, 2))
    expected = forward(x, weights)
    assert expected.std() > 0.3
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=2e-5)
    # One set of weights reads pictures of any size.
    anywhere = resnet(8, (None, None, 2), classes=3, width=4)
    anywhere.set_weights(weights)
    np.testing.assert_allclose(anywhere.predict(x, verbose=0), expected, atol=2e-5)


@pytest.mark.parametrize(
    ("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85)]
)
def test_parameters_are_those_of_the_papers_table(depth, millions):
    """Table 6 of He et al. 2015, and by the sum over layers."""
    n = (depth - 2) // 6
    channels = [16] * (1 + 2 * n) + [32] * 2 * n + [64] * 2 * n
    before = [3, *channels]
    expected = 64 * 10 + 10 + sum(
        9 * a * b + 2 * b for a, b in zip(before, channels, strict=False)
    )  # fmt: skip
    model = resnet(depth)
    assert sum(math.prod(w.shape) for w in model.trainable_weights) == expected
    assert expected / 1e6 == pytest.approx(millions, abs=0.0075)
    kernels = [w for w in model.trainable_weights if w.path.endswith("kernel")]
    assert len(kernels) == depth


def test_kernels_start_as_the_papers_say():
    """He et al. 2015b: √(2 / inputs of a sum); Goyal et al. 2017: 0.01 in the head."""
    keras.utils.set_random_seed(0)
    for weight in resnet(8, (8, 8, 1), width=16).trainable_weights:
        if weight.path.endswith("kernel"):
            he = math.sqrt(2 / math.prod(weight.shape[:-1]))
            expected = 0.01 if weight.path.startswith("head") else he
            assert np.array(weight).std() == pytest.approx(expected, rel=0.15)


def test_keras_own_order_of_axes_changes_nothing():
    logits = [np.array(small()(X[:4]))]
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        logits.append(np.array(small()(X[:4])))
    finally:
        keras.config.set_image_data_format(before)
    np.testing.assert_array_equal(*logits)


def test_an_untrained_block_is_the_identity():
    model = resnet(20, (8, 8, 1), width=4)
    x = np.random.default_rng(0).normal(size=(6, 8, 8, 1))
    stem = np.array(model.get_layer("stem")(x))
    assert stem.min() == 0
    assert stem.std() > 0.1
    for training in (False, True):
        stage = model.get_layer("stage_1")
        np.testing.assert_array_equal(np.array(stage(stem, training=training)), stem)
        after = np.array(model.get_layer("stage_2")(stem, training=training))
        np.testing.assert_array_equal(after[..., :4], stem[:, ::2, ::2])
        assert not after[..., 4:].any()


def test_at_first_a_block_learns_by_its_last_normalisation_alone():
    """F(x) = γ·(…) + β with γ = 0: what is inside gets its gradient times γ."""
    model = compiled(small(), keras.optimizers.SGD(10.0))
    before = [np.array(w) for w in model.trainable_weights]
    model.train_on_batch(X[:32], Y[:32])
    changed = {
        w.path
        for w, old in zip(model.trainable_weights, before, strict=True)
        if not np.array_equal(np.array(w), old)
    }
    in_blocks = {path for path in changed if path.startswith("stage_")}
    assert in_blocks == {
        f"stage_{stage}_block_1_norm_2/{name}"
        for stage in (1, 2, 3)
        for name in ("gamma", "beta")
    }
    assert changed - in_blocks == {
        "stem_conv/kernel", "stem_norm/gamma", "stem_norm/beta",
        "head/kernel", "head/bias",
    }  # fmt: skip
    model.train_on_batch(X[:32], Y[:32])
    for weight, old in zip(model.trainable_weights, before, strict=True):
        assert not np.array_equal(np.array(weight), old), weight.path


# Its parts are named.


def test_stages_are_named_in_every_way():
    model = resnet(14, (8, 8, 1), width=4)
    boundaries = ["stage_1", "stage_2", "stage_3", "head"]
    groups = tfs.discriminative_groups(model, low=0.1, boundaries=boundaries)
    # Convolutions and normalisations: a stem, thrice two blocks of two, and a head.
    assert [len(group.layers) for group in groups] == [2, 8, 8, 8, 1]
    for group, part in zip(groups, ["stem", *boundaries], strict=True):
        assert all(name.startswith(part) for name in group.layer_names)
    decayed = tfs.layer_decay_groups(model, 0.5, boundaries=boundaries)
    assert [group.multiplier for group in decayed] == [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]
    assert len(tfs.layer_decay_groups(model, 0.5)) == 14

    by_path = [tfs.LayerGroup(part, f"^{part}") for part in ["stem", *boundaries]]
    as_objects = [
        tfs.LayerGroup(part, [model.get_layer(part)]) for part in ["stem", *boundaries]
    ]
    for parts in (by_path, as_objects):
        optimizer = tfs.LayerwiseOptimizer(keras.optimizers.SGD(), parts)
        optimizer.build(model.trainable_variables)
        # 9·a·b of a convolution, and 2 for each channel's normalisation.
        assert [row.parameters for row in optimizer.table().rows] == [
            36 + 8, 4 * (144 + 8), 288 + 3 * 576 + 4 * 16, 1152 + 3 * 2304 + 4 * 32,
            170,
        ]  # fmt: skip

    model.get_layer("stage_1").trainable = False
    frozen = {w.path for w in model.weights} - {w.path for w in model.trainable_weights}
    frozen = {path for path in frozen if "moving" not in path}
    assert len(frozen) == 12
    assert all(path.startswith("stage_1_") for path in frozen)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"depth": 18}, ValueError, r"6n \+ 2 .*depth=18\. The nearest is 20\.$"),
        ({"depth": 2}, ValueError, r"with n >= 1.*depth=2\. The nearest is 8\.$"),
        ({"depth": 0}, ValueError, "`depth` must be >= 1"),
        ({"depth": "20"}, TypeError, "`depth` must be a number"),
        ({"classes": 0}, ValueError, "`classes` must be >= 1"),
        ({"width": -16}, ValueError, "`width` must be >= 1"),
        ({"width": 1.5}, ValueError, "`width` must be a whole number"),
        ({"input_shape": (3, 8, 1)}, ValueError, r"`input_shape\[0\]` must be >= 4"),
        ({"input_shape": (8, 3, 1)}, ValueError, r"`input_shape\[1\]`.*image.resize"),
        ({"input_shape": (8, 8)}, ValueError, r"without the batch.*x\[..., None\]"),
        ({"input_shape": (1, 8, 8, 1)}, ValueError, "must be .height, width, channels"),
        ({"input_shape": (8, 8, None)}, TypeError, r"`input_shape\[2\]` must be a num"),
        ({"input_shape": 8}, TypeError, "must be .height, width, channels"),
    ],
)
def test_what_is_refused(arguments, error, match):
    with pytest.raises(error, match=match):
        resnet(**arguments)


# In mixed precision, in blocks of steps, and trained.


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_in_mixed_precision(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = compiled(small(), steps_per_execution=3)
    finally:
        keras.config.set_dtype_policy(before)
    history = model.fit(X[:480], Y[:480], batch_size=32, epochs=2, verbose=0)
    assert history.history["loss"][1] < history.history["loss"][0] < math.log(10)
    assert {w.dtype for w in model.weights} == {"float32"}
    assert keras.backend.standardize_dtype(model(X[:2]).dtype) == "float32"
    half = model.get_layer("stage_3").output
    assert keras.backend.standardize_dtype(half.dtype) == policy.removeprefix("mixed_")


def test_it_learns_digits_with_one_cycle_and_is_logged(tmp_path):
    model = compiled(small(width=8), steps_per_execution=5)
    history = model.fit(
        X[:1297],
        Y[:1297],
        batch_size=32,
        epochs=5,
        verbose=0,
        validation_data=(X[1297:], Y[1297:]),
        callbacks=[tfs.OneCycle(0.4), tfs.TensorBoardLogger(tmp_path)],
    )
    assert history.history["val_accuracy"][-1] > 0.93
    steps, rates, _ = read(tmp_path / "schedules")["schedule/learning_rate"]
    assert len(steps) == 5 * 41
    expected, _ = one_cycle_values(0.4, 205)
    np.testing.assert_allclose(rates, expected, rtol=1e-4)


def test_rates_of_stages_thaw_and_snapshots_after_a_range_test(tmp_path):
    model = small()
    groups = tfs.discriminative_groups(model, low=0.1, boundaries=["stage_3", "head"])
    optimizer = tfs.LayerwiseOptimizer(keras.optimizers.SGD(0.05, 0.9), groups)
    compiled(model, optimizer)

    before = arrays(model)
    settings = {"min_lr": 1e-4, "max_lr": 1.0, "batch_size": 32}
    result = tfs.find_learning_rate(model, X[:256], Y[:256], steps=20, **settings)
    assert len(result.losses) >= 15
    for now, then in zip(arrays(model), before, strict=True):
        np.testing.assert_array_equal(now, then)  # moving statistics, too
    assert int(optimizer.iterations) == 0

    class Watch(keras.callbacks.Callback):
        """Which parts have changed since the epoch before."""

        def on_train_begin(self, logs=None):
            self.last, self.changed = arrays(model), []

        def on_epoch_end(self, epoch, logs=None):
            now = {w.path: np.array(w) for w in self.model.weights}
            self.changed.append(
                {
                    path.split("_block")[0].split("_conv")[0].split("/")[0]
                    for (path, value), old in zip(now.items(), self.last, strict=True)
                    if path.endswith("kernel") and not np.array_equal(value, old)
                }
            )
            self.last = list(now.values())

    watch = Watch()
    model.fit(
        X[:256],
        Y[:256],
        batch_size=32,
        epochs=3,
        verbose=0,
        callbacks=[
            tfs.GradualUnfreezing(groups),
            tfs.WarmRestarts(0.2, first_cycle=12),
            tfs.SnapshotEnsemble(tmp_path),
            watch,
        ],
    )
    head, stage_3, body = {"head"}, {"stage_3"}, {"stem", "stage_1", "stage_2"}
    assert watch.changed == [head, head | stage_3, head | stage_3 | body]
    ensemble = tfs.SnapshotEnsemble.load(tmp_path)  # after 12 steps, and after 24
    assert ensemble.predict(X[:4], verbose=0).shape == (4, 10)
    for now, kept in zip(arrays(model), arrays(ensemble.models[-1]), strict=True):
        np.testing.assert_array_equal(now, kept)
    assert len(ensemble) == 2
