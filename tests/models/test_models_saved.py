"""Every network, saved, loads in a process where only the package was imported."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import keras
import numpy as np
from helpers import JIT
from keras import layers

from tfschedules.models import attention, lstm, resnet

STEPS, FEATURES = 6, 3
GENERATOR = np.random.default_rng(0)
PICTURES = GENERATOR.normal(size=(8, 8, 8, 1)).astype("float32")
TOKENS = GENERATOR.integers(1, 7, (8, STEPS)) * (np.arange(STEPS) < 4)
X = GENERATOR.normal(size=(8, STEPS, FEATURES)).astype("float32")
KEYS, _ = attention.lookup_task(8, keys=4, values=3, pairs=3, queries=2)


def with_any_weights(model):
    """Each at random, so that no branch is still at zero."""
    for weight in model.weights:
        weight.assign(GENERATOR.uniform(0.2, 0.8, weight.shape))
    return model


def test_saved_they_load_where_only_the_package_was_imported(tmp_path):
    stacked = layers.RNN([lstm.LSTMCell(2), lstm.LSTMCell(3)])
    models = {
        "resnet": resnet.resnet(8, (8, 8, 1), width=4),
        "lstm": lstm.classifier(7, 2, units=4, layers=2),
        "stacked": keras.Sequential(
            [keras.Input((STEPS, FEATURES)), layers.Bidirectional(stacked)]
        ),
        "attention": attention.lookup(4, 3, units=4, embedding=3),
    }
    models["lstm"].compile("adam", jit_compile=JIT)
    inputs = {"resnet": PICTURES, "lstm": TOKENS, "stacked": X}
    for name, model in models.items():
        with_any_weights(model).save(tmp_path / f"{name}.keras")
    np.savez(tmp_path / "in.npz", *KEYS, **inputs)
    code = """
        import sys
        import keras, numpy as np
        # Of Keras's own layers, it needs no package.
        models = {"resnet": keras.models.load_model("resnet.keras")}
        assert "tfschedules" not in sys.modules
        import tfschedules
        assert "tfschedules.models" not in sys.modules
        for name in ("lstm", "stacked", "attention"):
            models[name] = keras.models.load_model(f"{name}.keras")
        given = np.load("in.npz")
        keys = [given[f"arr_{number}"] for number in range(3)]
        paths = {
            f"{name}_paths": [weight.path for weight in model.weights]
            for name, model in models.items()
        }
        out = {
            name: model(given[name] if name in given.files else keys)
            for name, model in models.items()
        }
        tfm = tfschedules.models
        np.savez(
            "out.npz",
            **paths,
            gates=tfm.lstm.gates(models["lstm"], given["lstm"])["forget"],
            weights=tfm.attention.attention_weights(models["attention"], keys),
            **{name: keras.ops.convert_to_numpy(y) for name, y in out.items()},
        )
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    out = np.load(tmp_path / "out.npz")
    for name, model in models.items():
        expected = keras.ops.convert_to_numpy(model(inputs.get(name, list(KEYS))))
        assert expected.std() > 1e-4
        if name != "stacked":  # Keras builds a list of cells by itself
            paths = [weight.path for weight in model.weights]
            assert out[f"{name}_paths"].tolist() == paths
        np.testing.assert_allclose(out[name], expected, rtol=1e-5, atol=1e-6)
    gates = lstm.gates(models["lstm"], TOKENS)["forget"]
    np.testing.assert_allclose(out["gates"], gates, atol=1e-6)
    weights = attention.attention_weights(models["attention"], KEYS)
    np.testing.assert_allclose(out["weights"], weights, atol=1e-6)


def test_a_clone_is_the_same_network():
    for model, x in (
        (resnet.resnet(8, (8, 8, 1), width=4), PICTURES),
        (lstm.classifier(7, 2, units=4, layers=2), TOKENS),
        (attention.lookup(4, 3, units=4, embedding=3), list(KEYS)),
    ):
        clone = keras.models.clone_model(with_any_weights(model))
        clone.set_weights(model.get_weights())
        assert [w.path for w in clone.weights] == [w.path for w in model.weights]
        ours, theirs = (keras.ops.convert_to_numpy(of(x)) for of in (model, clone))
        np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-6)
