"""`fine_tune`: its rates, who is trained, and what it refuses."""

import keras
import numpy as np
import pytest
from helpers import JIT, arrays, digits, one_cycle_values
from keras import optimizers

import tfschedules as tfs


class Watch(keras.callbacks.Callback):
    """Notes the rate and momentum of each step, and weights after each epoch."""

    def on_train_begin(self, logs=None):
        self.rates, self.weights = [], [arrays(self.model)]

    def on_train_batch_end(self, batch, logs=None):
        self.rates.append(float(self.model.optimizer.learning_rate))

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(arrays(self.model))

    def changed(self, epoch):
        pairs = zip(self.weights[epoch], self.weights[epoch + 1], strict=True)
        return [bool((a != b).any()) for a, b in pairs]


def network(optimizer, layerwise=True):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            *(keras.layers.Dense(8, "relu", name=name) for name in "ab"),
            keras.layers.Dense(10, name="c"),
        ]
    )
    if layerwise:
        groups = [
            tfs.LayerGroup("a", ["a"], 0.0),
            tfs.LayerGroup("b", ["b"], 0.5),
            tfs.LayerGroup("c", ["c"]),
        ]
        optimizer = tfs.LayerwiseOptimizer(optimizer, groups)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=JIT)
    return model


def rates_of(head_steps, steps, base_lr):
    """Two one-cycles in a row, as torch writes them."""
    peak, last = 0.99 * head_steps - 1, head_steps - 1

    def between(start, end, share):
        return end + (start - end) / 2 * (1 + np.cos(np.pi * share))

    def cycle(peak, last, top, low, end):
        return [
            between(low, top, step / peak)
            if step <= peak
            else between(top, end, (step - peak) / (last - peak))
            for step in range(last + 1)
        ]

    first = cycle(peak, last, base_lr, base_lr / 25, base_lr / 25e4)
    base_lr = base_lr / 2
    second = cycle(0.3 * steps - 1, steps - 1, base_lr, base_lr / 5, base_lr / 5e4)
    return np.array([*first, *second])


@pytest.mark.parametrize("layerwise", [True, False])
def test_the_head_first_and_then_everything(layerwise):
    model = network(optimizers.SGD(0.5, momentum=0.9), layerwise)
    x, y = digits(100)
    watch = Watch()
    history = tfs.fine_tune(
        model, (x, y), 2, 2, 0.1, batch_size=10, callbacks=[watch], verbose=0
    )
    assert len(history.history["loss"]) == 4
    np.testing.assert_allclose(watch.rates, rates_of(20, 20, 0.1), rtol=1e-5)
    head, everything = [False] * 4 + [True] * 2, [not layerwise] * 2 + [True] * 4
    assert [watch.changed(e) for e in range(4)] == [head, head, everything, everything]
    assert all(w.trainable for w in model.weights)


def test_without_a_frozen_phase_it_is_a_one_cycle():
    model = network(optimizers.Adam(0.5), layerwise=False)
    x, y = digits(100)
    watch = Watch()
    tfs.fine_tune(
        model, (x, y), 2, 0, 0.2, div_factor=25.0, batch_size=10, callbacks=[watch],
        verbose=0,
    )  # fmt: skip
    np.testing.assert_allclose(watch.rates, one_cycle_values(0.1, 20)[0], rtol=1e-5)


def test_groups_of_ones_own_and_an_optimizer_without_momentum():
    model = network(optimizers.Adagrad(0.5), layerwise=False)
    groups = [tfs.LayerGroup("body", ["a"]), tfs.LayerGroup("head", "^(b|c)/")]
    data = tuple(digits(40))
    watch = Watch()
    tfs.fine_tune(
        model, data, 1, groups=groups, callbacks=[watch], validation_data=data,
        verbose=0,
    )  # fmt: skip
    assert watch.changed(0) == [False] * 2 + [True] * 4
    assert "val_loss" in model.history.history


def test_a_loss_scale_and_a_dataset():
    model = network(optimizers.Adam())
    scaled = optimizers.LossScaleOptimizer(model.optimizer)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(scaled, loss, jit_compile=JIT)
    x, y = digits(40)

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            return x[i * 10 : i * 10 + 10], y[i * 10 : i * 10 + 10]

    watch = Watch()
    tfs.fine_tune(model, Batches(), 1, callbacks=[watch], verbose=0)
    assert watch.changed(0) == [False] * 4 + [True] * 2
    assert watch.changed(1) == [False] * 2 + [True] * 4


def test_what_the_default_takes_is_not_the_head():
    model = network(optimizers.Adam(), layerwise=False)
    head = [tfs.LayerGroup("head", ["c"])]
    wrapped = tfs.LayerwiseOptimizer(optimizers.Adam(), head, default=0.1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(wrapped, loss, jit_compile=JIT)
    watch = Watch()
    tfs.fine_tune(model, tuple(digits(40)), 1, callbacks=[watch], verbose=0)
    assert watch.changed(0) == [False] * 4 + [True] * 2
    assert watch.changed(1) == [True] * 6


def test_bad_input_is_refused_before_anything_changes():
    x, y = digits(40)
    model = network(optimizers.Adam())
    before = arrays(model)
    for arguments, match in [
        ({"epochs": 0}, "`epochs` must be >= 1"),
        ({"freeze_epochs": -1}, "`freeze_epochs` must be >= 0"),
        ({"base_lr": 0}, "`base_lr` must be > 0"),
        ({"batch_norm": "no"}, "`batch_norm` must be one of"),
        ({"y": y}, "`y` has no place in fine_tune"),
        ({"initial_epoch": 1}, "`initial_epoch` has no place in fine_tune"),
        ({"groups": [tfs.LayerGroup("all", ".")]}, "a group besides the head"),
        (
            {"groups": [tfs.LayerGroup("x", "^a"), tfs.LayerGroup("y", ".")]},
            "In more than one: a/kernel .in 'x' and 'y'",
        ),
        (
            {"groups": [tfs.LayerGroup("x", [network("sgd", False).layers[0]])]},
            "is not in the model that is trained",
        ),
    ]:
        with pytest.raises(ValueError, match=match):
            tfs.fine_tune(model, (x, y), **{"epochs": 1, "verbose": 0, **arguments})
    for actual, expected in zip(arrays(model), before, strict=True):
        np.testing.assert_array_equal(actual, expected)
    with pytest.raises(TypeError, match=r"must be a keras\.Model"):
        tfs.fine_tune("model", (x, y), 1)
    with pytest.raises(TypeError, match=r"`epochs` .*Data are one argument: \(x, y\)"):
        tfs.fine_tune(model, x, y)
    with pytest.raises(ValueError, match=r"needs targets.*fine_tune\(model, \(x, y\)"):
        tfs.fine_tune(model, x, 1)
    with pytest.raises(ValueError, match="must be compiled"):
        tfs.fine_tune(keras.Sequential([keras.Input((1,))]), (x, y), 1)
