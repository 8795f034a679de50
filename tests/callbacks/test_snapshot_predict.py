"""Predictions of snapshots together, with the model of the fit and its own weights."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from helpers import BACKEND, JIT, digits

import tfschedules as tfs

pytestmark = pytest.mark.skipif(BACKEND == "torch", reason="no snapshots on torch")

X, Y = digits(48)


class Scaled(keras.layers.Layer):
    """A layer that nobody has registered: Keras cannot load a model with it."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(
            shape=(shape[-1],), initializer="ones", name="scale"
        )

    def call(self, x: Any) -> Any:
        return x * self.scale


class Network(keras.Model):
    """Nor this one; it has metrics, a second optimizer, and state of each kind."""

    def __init__(self, units: int = 10) -> None:
        super().__init__()
        self.units = units
        self.normalization = keras.layers.Normalization()
        self.normalization.adapt(X)
        self.scaled = Scaled()
        self.batch_normalization = keras.layers.BatchNormalization(momentum=0.8)
        self.dropout = keras.layers.Dropout(0.3, seed=3)
        self.head = keras.layers.Dense(units, activation="softmax")
        self.others = {"spare": [keras.optimizers.Adam(0.1)]}
        self.tracker = keras.metrics.Mean(name="tracker")

    def build(self, shape: Any) -> None:
        for layer in (self.scaled, self.batch_normalization, self.head):
            layer.build(shape)

    def call(self, x: Any, training: bool = False) -> Any:
        x = self.scaled(self.normalization(x))
        x = self.batch_normalization(x, training=training)
        x = self.dropout(x, training=training)
        return self.head(x)

    def get_config(self) -> dict[str, Any]:
        return {"units": self.units}


def fitted(folder: Path, **arguments: Any) -> tuple[keras.Model, Any]:
    """A network of three cycles, and what kept them."""
    keras.utils.set_random_seed(2)
    model = Network(**arguments)
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=JIT,
    )
    model.build((None, 64))
    model.others["spare"][0].build(model.trainable_variables)
    kept = tfs.SnapshotEnsemble(folder)
    callbacks = [tfs.WarmRestarts(0.5, first_cycle=4), kept]
    model.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=callbacks)
    return model, kept


def state(model: keras.Model) -> list[np.ndarray]:
    """All that a model has, with metrics, all optimizers, and cached constants."""
    variables = [
        *model.variables,
        *model.metrics_variables,
        *model.optimizer.variables,
        *model.others["spare"][0].variables,
    ]
    values = [np.array(keras.ops.convert_to_numpy(v)) for v in variables]
    return [*values, np.array(keras.ops.convert_to_numpy(model.normalization.mean))]


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


def expected(folder: Path, last: int) -> np.ndarray:
    """The mean of the last members, in NumPy from the files' weights."""
    total, files = 0.0, sorted(folder.glob("*.keras"))[-last:]
    for file in files:
        data = zipfile.ZipFile(file).read("model.weights.h5")
        with h5py.File(io.BytesIO(data)) as weights:

            def of(layer: str, weights: Any = weights) -> list[np.ndarray]:
                arrays = weights[layer]["vars"]
                return [np.float64(arrays[str(i)][()]) for i in range(len(arrays))]

            (scale,), (kernel, bias) = of("layers/scaled"), of("head")
            gamma, beta, mean, variance = of("batch_normalization")
            adapted, spread, _ = of("layers/normalization")
        x = (X - adapted) / np.maximum(np.sqrt(spread), 1e-7) * scale
        x = (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta
        x = x @ kernel + bias
        p = np.exp(x - x.max(axis=1, keepdims=True))
        total = total + p / p.sum(axis=1, keepdims=True)
    return total / len(files)


def test_it_is_the_mean_and_the_model_is_as_it_was(tmp_path: Path) -> None:
    model, kept = fitted(tmp_path)
    # What happens between the fit and the prediction is kept.
    model.head.bias.assign(np.arange(10, dtype="float32"))
    before, own = state(model), model.predict(X, verbose=0)
    for last in (3, 2):
        predicted = kept.predict(X, last=last, verbose=0, batch_size=7)
        assert predicted.dtype == np.float32
        np.testing.assert_allclose(predicted, expected(tmp_path, last), atol=2e-6)
        assert same(state(model), before)
    np.testing.assert_array_equal(model.predict(X, verbose=0), own)
    np.testing.assert_array_equal(
        kept.predict(X, verbose=0), kept.predict(X, 3, verbose=0)
    )
    # And training goes on to the bit as it would have.
    model.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    again, _ = fitted(tmp_path / "again")
    again.head.bias.assign(np.arange(10, dtype="float32"))
    again.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    assert same(state(model), state(again))


def test_a_model_that_was_adapted_since_is_refused(tmp_path: Path) -> None:
    """Keras compiles what this layer was adapted to as constants."""
    model, kept = fitted(tmp_path)
    model.normalization.adapt(3 * X + 1)
    before = state(model)
    with pytest.raises(ValueError, match=r"adapted to other data since.*load\("):
        kept.predict(X, verbose=0)
    assert same(state(model), before)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_the_weights_are_put_back_whatever_happens(error, tmp_path: Path) -> None:
    model, kept = fitted(tmp_path)
    before = state(model)

    class Ends(keras.callbacks.Callback):
        begun = 0

        def on_predict_begin(self, logs: Any = None) -> None:
            assert not same(state(model), before)
            self.begun += 1
            if self.begun == 2:
                raise error("by the test")

    with pytest.raises(error, match="by the test"):
        kept.predict(X, verbose=0, callbacks=[Ends()])
    assert same(state(model), before)


def test_a_file_of_another_model_is_refused_before_anything_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, kept = fitted(tmp_path / "own")
    before = state(model)
    first, *_, last = sorted((tmp_path / "own").glob("*.keras"))
    whole = last.read_bytes()
    predicted: list[Any] = []
    monkeypatch.setattr(model, "predict", lambda *a, **k: predicted.append(a))
    wide, _ = fitted(tmp_path / "wide", units=12)
    more = Network()
    more.more = keras.layers.Dense(3)
    more.build((None, 64))
    more.more.build((None, 10))
    less = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    for other, why in (
        (wide, r"head/vars/0 has shape \(64, 12\) in it, and \(64, 10\) in the model"),
        (
            more,
            r"it has layers/dense_1/vars/0, of shape \(10, 3\), which the model lacks",
        ),
        (less, r"it lacks batch_normalization/vars/0, of shape \(64,\)"),
    ):
        other.save(last)
        with pytest.raises(ValueError, match=f"is of another model than.*{why}.*load"):
            kept.predict(X)
    last.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is damaged"):
        kept.predict(X)
    last.write_bytes(whole)
    with pytest.raises(ValueError, match="at most the number of snapshots, 3 in"):
        kept.predict(X, last=4)
    with pytest.raises(ValueError, match=r"`last` must be >= 1\. Received: last=0"):
        kept.predict(X, last=0)
    with pytest.raises(TypeError, match="can be read once for each of the 3 members"):
        kept.predict(iter([X]))
    for file in (tmp_path / "own").iterdir():
        file.unlink()
    with pytest.raises(FileNotFoundError, match="must be a folder with snapshots"):
        kept.predict(X)
    # Those of another training, of the same model, in the same place.
    shutil.rmtree(tmp_path / "own")
    fitted(tmp_path / "own")
    with pytest.raises(ValueError, match=r"are of another training by now.*load"):
        kept.predict(X)
    assert predicted == []
    assert same(state(model), before)
    assert first.is_file()


def test_it_needs_a_fit_that_is_over(tmp_path: Path) -> None:
    kept = tfs.SnapshotEnsemble(tmp_path)
    with pytest.raises(RuntimeError, match=r"in no fit.*load\(directory\)"):
        kept.predict(X)

    class Predicts(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            with pytest.raises(RuntimeError, match="in a fit that is not over"):
                kept.predict(X)
            raise KeyboardInterrupt("by the test")

    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=JIT)
    callbacks = [tfs.WarmRestarts(0.1, first_cycle=3), kept, Predicts()]
    with pytest.raises(KeyboardInterrupt, match="by the test"):
        model.fit(X, Y, batch_size=8, verbose=0, callbacks=callbacks)
    # Ctrl-C has ended the fit: there are its two snapshots, and the model.
    members = [keras.saving.load_model(f) for f in sorted(tmp_path.glob("*.keras"))]
    mean = np.mean([m.predict(X, verbose=0) for m in members], axis=0)
    np.testing.assert_allclose(kept.predict(X, verbose=0), mean, atol=1e-6)
    with pytest.raises(RuntimeError, match="in no fit"):
        pickle.loads(pickle.dumps(kept)).predict(X)


def test_a_snapshot_has_its_weights_under_the_name_that_is_looked_for(tmp_path) -> None:
    """The format is Keras's; `drive/members.py` leans on it."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert "model.weights.h5" in archive.namelist()
        version = json.loads(archive.read("metadata.json"))["keras_version"]
        assert version == keras.__version__
