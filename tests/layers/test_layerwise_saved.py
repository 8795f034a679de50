"""Optimizers of layers in files, in copies and on replicas."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers import (
    SUPPORT,
    arrays,
)
from layerwise import (
    EVERY,
    FACTORS_OF_LAYERS,
    Halving,
    adam_by_layer,
    by_layer,
    compiled,
    goes_on_alike,
    layerwise,
    network,
    number,
    optimizers,
    same,
    state,
    train,
    variables,
)

import tfschedules as tfs

# 6. Saved and loaded.

WAYS: dict[str, Callable[[Any], list[tfs.LayerGroup]]] = {
    "objects": lambda model: by_layer(model, FACTORS_OF_LAYERS),
    "names": lambda model: [
        tfs.LayerGroup(name, [name], factor, weight_decay_multiplier=0.5)
        for name, factor in zip("abc", FACTORS_OF_LAYERS, strict=True)
    ],
    "expressions": lambda model: [
        tfs.LayerGroup("kernels", "^[ab]/kernel", 0.25),
        tfs.LayerGroup("biases", "bias$", tfs.Linear(0.0, 1.0, 15)),
        tfs.LayerGroup("head", "^c/k"),
    ],
    "weights": lambda model: [
        tfs.LayerGroup("first", model.trainable_variables[:3], 0.25),
        tfs.LayerGroup("others", model.trainable_variables[3:], 2.0),
    ],
}


UNBUILT = pytest.mark.filterwarnings(
    # Keras says so of every optimizer that was saved before it was built.
    "ignore:Skipping variable loading for optimizer:UserWarning"
)


@UNBUILT
@pytest.mark.parametrize("trained", [True, False], ids=["trained", "unbuilt"])
@pytest.mark.parametrize("way", WAYS)
def test_a_loaded_model_goes_on_to_the_bit(
    way: str, trained: bool, tmp_path: Path
) -> None:
    model = network()
    # Without a state to be saved a simple one will do, and is traced in half the time.
    inner = EVERY["AdamW" if trained else "SGD, decay"](0.02)
    wrapped = tfs.LayerwiseOptimizer(inner, WAYS[way](model))
    compiled(model, wrapped)
    if trained:
        train(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert type(loaded.optimizer) is tfs.LayerwiseOptimizer
    paths = [[v.path for v in m.trainable_variables] for m in (model, loaded)]
    assert paths[0] != paths[1]  # the Sequential has another name now
    goes_on_alike(model, loaded)
    rows = [m.optimizer.table().rows for m in (model, loaded)]
    for ours, theirs in zip(*rows, strict=True):
        assert (ours.group, ours.parameters, ours.rate, ours.decay) == (
            theirs.group,
            theirs.parameters,
            theirs.rate,
            theirs.decay,
        )
    if way == "objects":  # and once more, from the loaded one
        loaded.save(tmp_path / "again.keras")
        goes_on_alike(loaded, keras.models.load_model(tmp_path / "again.keras"))


@UNBUILT
@pytest.mark.parametrize("trained", [True, False], ids=["trained", "unbuilt"])
def test_arguments_survive_a_file(trained: bool, tmp_path: Path) -> None:
    model = network()
    groups = [tfs.LayerGroup("first", ["a"], 0.5, weight_decay_multiplier=3.0)]
    wrapped = tfs.LayerwiseOptimizer(
        EVERY["AdamW"](0.02), groups, default=0.125, no_decay=["norm", "bias"], name="x"
    )
    compiled(model, wrapped)
    if trained:
        train(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").optimizer
    assert (loaded.default, loaded.name) == (0.125, "x")
    assert list(loaded.no_decay) == ["norm", "bias"]
    rows = loaded.table().rows
    assert [(row.multiplier, row.undecayed) for row in rows] == [
        ("0.5", 8),
        ("0.125", 18),
    ]
    assert rows[0].decay == pytest.approx(0.3)


def test_weights_files_fit_both_ways(tmp_path: Path) -> None:
    """Of the optimizer alone to the one with groups, and back."""
    plain = network(optimizer=EVERY["AdamW"](0.02))
    train(plain)
    plain.save_weights(tmp_path / "plain.weights.h5")
    wrapped = layerwise(EVERY["AdamW"](0.5))
    wrapped.optimizer.build(wrapped.trainable_variables)
    wrapped.load_weights(tmp_path / "plain.weights.h5")
    assert float(wrapped.optimizer.learning_rate) == pytest.approx(0.02)
    goes_on_alike(plain, wrapped)
    wrapped.save_weights(tmp_path / "wrapped.weights.h5")
    back = network(optimizer=EVERY["AdamW"](0.5))
    back.optimizer.build(back.trainable_variables)
    back.load_weights(tmp_path / "wrapped.weights.h5")
    goes_on_alike(wrapped, back)


def towers(kind: str) -> tuple[Any, Any, Any]:
    """A model of two nested ones, whose layers have the same names."""

    def tower(name: str) -> Any:
        inputs = keras.Input((64,))
        layer = keras.layers.Dense(10, name="inside")
        if kind == "functional":
            return keras.Model(inputs, layer(inputs), name=name)
        return keras.Sequential([inputs, layer], name=name)

    left, right = tower("left"), tower("right")
    inputs = keras.Input((64,))
    both = keras.layers.Add()([left(inputs), right(inputs)])
    keras.utils.set_random_seed(2)
    return keras.Model(inputs, both), left, right


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("kind", ["functional", "sequential"])
def test_nested_models_keep_their_groups(
    kind: str, trained: bool, tmp_path: Path
) -> None:
    model, left, right = towers(kind)
    groups = [tfs.LayerGroup("left", [left], 0.0), tfs.LayerGroup("right", [right])]
    compiled(model, tfs.LayerwiseOptimizer(optimizers.SGD(0.1), groups))
    if trained:
        train(model)
    else:  # by names they cannot be told apart, and there are no positions yet
        with pytest.warns(UserWarning, match="Several layers are called inside"):
            model.save(tmp_path / "unbuilt.keras")
        with pytest.raises(ValueError, match=r"In more than one.*compile=False"):
            keras.models.load_model(tmp_path / "unbuilt.keras")
        model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    before = arrays(loaded)
    train(loaded)
    changed = [(a != b).any() for a, b in zip(arrays(loaded), before, strict=True)]
    assert changed == [False, False, True, True]


@UNBUILT
@pytest.mark.parametrize("trained", [True, False], ids=["trained", "unbuilt"])
@pytest.mark.parametrize("how", ["frozen before", "frozen after"])
def test_a_model_with_frozen_layers_can_be_loaded(
    how: str, trained: bool, tmp_path: Path
) -> None:
    """Keras itself loads all of these with any optimizer of its own."""
    model = network()
    if how == "frozen before":
        model.layers[0].trainable = False
    wrapped = tfs.LayerwiseOptimizer(optimizers.SGD(0.1), by_layer(model))
    compiled(model, wrapped)
    if trained:
        train(model)
    model.layers[0].trainable = False
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    before = arrays(loaded)
    train(loaded)
    changed = [(a != b).any() for a, b in zip(arrays(loaded), before, strict=True)]
    assert changed == [False, False, True, True, True, True]


def test_a_copy_made_of_the_config() -> None:
    model = adam_by_layer()
    train(model)
    config = json.loads(json.dumps(keras.optimizers.serialize(model.optimizer)))
    other = network()
    other.set_weights(model.get_weights())
    compiled(other, keras.optimizers.deserialize(config))
    other.optimizer.build(other.trainable_variables)
    other.optimizer.set_weights(state(model.optimizer))
    goes_on_alike(model, other)
    # The optimizer inside is another one, and so are its groups.
    assert other.optimizer.inner_optimizer is not model.optimizer.inner_optimizer
    again = tfs.LayerwiseOptimizer.from_config(other.optimizer.get_config())
    again.build(network().trainable_variables)
    assert [row.parameters for row in again.table().rows] == [520, 72, 90]


def test_a_config_goes_to_layers_by_name_in_another_order() -> None:
    def two(names: str) -> Any:
        layers = [keras.layers.Dense(4, name=name) for name in names]
        return keras.Sequential([keras.Input((4,)), *layers])

    groups = [tfs.LayerGroup("A", ["a"], 0.0), tfs.LayerGroup("B", ["b"], 1.0)]
    wrapped = tfs.LayerwiseOptimizer(optimizers.SGD(1.0), groups)
    wrapped.build(two("ab").trainable_variables)
    other = two("ba")
    again = tfs.LayerwiseOptimizer.from_config(wrapped.get_config())
    before = arrays(other)
    again.apply(
        [keras.ops.ones(weight.shape) for weight in other.trainable_variables],
        other.trainable_variables,
    )
    changed = [(a != b).any() for a, b in zip(arrays(other), before, strict=True)]
    assert changed == [True, True, False, False]


def test_a_deep_copy_of_an_unbuilt_optimizer() -> None:
    """Built ones lose their state, as all of Keras do."""
    inner = optimizers.SGD(0.5, momentum=0.9)
    wrapped = tfs.LayerwiseOptimizer(inner, [tfs.LayerGroup("all", ".", 2.0)])
    other = copy.deepcopy(wrapped)
    assert other.inner_optimizer is not inner
    weights = variables([np.zeros(1)])
    other.apply([keras.ops.ones(1)], weights)
    assert number(weights[0])[0] == -1.0
    assert not wrapped.built


def test_a_clone_is_compiled_from_the_compile_config() -> None:
    model = adam_by_layer()
    train(model)
    clone = keras.models.clone_model(model)
    clone.compile_from_config(model.get_compile_config())
    clone.set_weights(model.get_weights())
    clone.optimizer.build(clone.trainable_variables)
    clone.optimizer.set_weights(state(model.optimizer))
    goes_on_alike(model, clone)


def test_a_users_optimizer_is_loaded_with_custom_objects(tmp_path: Path) -> None:
    model = layerwise(Halving(0.5), FACTORS_OF_LAYERS)
    train(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(
        tmp_path / "model.keras", custom_objects={"Halving": Halving}
    )
    assert isinstance(loaded.optimizer.inner_optimizer, Halving)
    goes_on_alike(model, loaded)


@pytest.mark.tensorflow
@pytest.mark.parametrize("before", [True, False], ids=["built", "deferred"])
def test_a_checkpoint_of_tensorflow(before: bool, tmp_path: Path) -> None:
    import tensorflow as tf

    model = adam_by_layer()
    train(model)
    saved = tf.train.Checkpoint(optimizer=model.optimizer)
    path = saved.save(str(tmp_path / "checkpoint"))
    other = adam_by_layer()
    other.set_weights(model.get_weights())
    if before:
        other.optimizer.build(other.trainable_variables)
    restored = tf.train.Checkpoint(optimizer=other.optimizer).restore(path)
    if before:
        restored.assert_consumed()
    else:
        other.optimizer.build(other.trainable_variables)
    same(state(other.optimizer), state(model.optimizer))
    goes_on_alike(model, other)


_REPLICAS = """
import sys
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)
sys.path.insert(0, sys.argv[1])
from helpers import arrays, digits, in_batches, relative_error
from layerwise import *

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
x, y = digits(120)
with strategy.scope():
    model = regression(
        optimizers.SGD(0.1, momentum=0.9, weight_decay=0.5),
        [0.25, tfs.Linear(0.0, 2.0, 4)],
    )
model.fit(x, y, batch_size=20, shuffle=False, verbose=0)
by_hand = [0.25, np.interp(np.arange(6), [0, 4], [0, 2])]
update = momentum_update(by_hand, 0.1, decays=0.5)
expected = softmax_loop(in_batches(x, y, 20), update)
error = relative_error(arrays(model), expected)
assert strategy.num_replicas_in_sync == 2
sys.exit(0 if error < 1e-6 else f"relative error {error}")
"""


@pytest.mark.tensorflow
def test_two_replicas_equal_a_numpy_loop() -> None:
    command = [sys.executable, "-c", _REPLICAS, str(SUPPORT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
