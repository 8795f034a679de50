"""What snapshots predict together, and what `SnapshotEnsemble` refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers import (
    JIT,
    arrays,
    digits,
    softmax_regression,
)
from snapshot_networks import (
    X,
    Y,
    fit,
    identical,
    kept,
    layers,
    network,
    optimizers,
    restarts,
)

import tfschedules as tfs


def test_an_ensemble_predicts_the_mean(tmp_path: Path) -> None:
    model = softmax_regression(optimizers.SGD(0.5))
    fit(model, restarts(first_cycle=6), tfs.SnapshotEnsemble(tmp_path))
    ensemble = tfs.SnapshotEnsemble.load(tmp_path)
    members = kept(tmp_path)
    assert len(ensemble) == len(list(ensemble)) == len(ensemble.models) == 3
    expected = np.mean(
        [
            X.astype(np.float64) @ np.float64(kernel) + np.float64(bias)
            for kernel, bias in (members[step].get_weights() for step in (6, 12, 18))
        ],
        axis=0,
    )
    predicted = ensemble.predict(X, verbose=0, batch_size=7)
    assert predicted.dtype == np.float32
    np.testing.assert_allclose(predicted, expected, rtol=1e-5, atol=1e-5)
    last = tfs.SnapshotEnsemble.load(str(tmp_path), last=2)
    identical(arrays(last.models[0]), arrays(members[12]))
    identical(arrays(last.models[1]), arrays(members[18]))
    (compiled,) = tfs.SnapshotEnsemble.load(tmp_path, last=1, compile=True)
    assert isinstance(compiled.optimizer, optimizers.SGD)
    with pytest.raises(TypeError, match=r"`x` must be data that can be read once for"):
        ensemble.predict(iter([X]))


def test_several_outputs(tmp_path: Path) -> None:
    inputs = keras.Input((64,))
    outputs = {
        "digit": layers.Dense(10, activation="softmax", name="digit")(inputs),
        "parity": layers.Dense(1, name="parity")(inputs),
    }
    model = keras.Model(inputs, outputs)
    losses = {"digit": "sparse_categorical_crossentropy", "parity": "mse"}
    model.compile(optimizers.SGD(0.1), losses, jit_compile=JIT)
    model.fit(
        X,
        {"digit": Y, "parity": (Y % 2).astype("float32")[:, None]},
        batch_size=8,
        verbose=0,
        callbacks=[restarts(first_cycle=3), tfs.SnapshotEnsemble(tmp_path)],
    )
    ensemble = tfs.SnapshotEnsemble.load(tmp_path)
    predicted = ensemble.predict(X, verbose=0)
    each = [member.predict(X, verbose=0) for member in ensemble.models]
    for name in outputs:
        mean = (each[0][name].astype(np.float64) + each[1][name]) / 2
        np.testing.assert_allclose(predicted[name], mean, rtol=1e-6)
    np.testing.assert_allclose(predicted["digit"].sum(axis=1), 1, rtol=1e-5)


def test_on_digits_the_ensemble_is_as_good_as_its_mean_member(tmp_path: Path) -> None:
    """By cross-entropy this holds for any members (Jensen); by accuracy, here."""
    x, y = digits()
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(32, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(
        optimizers.SGD(0.1), "sparse_categorical_crossentropy", jit_compile=JIT
    )
    model.fit(
        x[:1200],
        y[:1200],
        batch_size=32,
        epochs=12,
        verbose=0,
        callbacks=[
            tfs.WarmRestarts(0.5, tfs.epochs(3)),
            tfs.SnapshotEnsemble(tmp_path),
        ],
    )
    ensemble = tfs.SnapshotEnsemble.load(tmp_path)
    assert len(ensemble) == 4
    together = ensemble.predict(x[1200:], verbose=0)
    each = [member.predict(x[1200:], verbose=0) for member in ensemble]

    def accuracy(p: np.ndarray) -> float:
        return float((p.argmax(axis=1) == y[1200:]).mean())

    def cross_entropy(p: np.ndarray) -> float:
        return float(-np.log(p[np.arange(597), y[1200:]] + 1e-9).mean())

    assert accuracy(together) > 0.88
    assert accuracy(together) >= np.mean([accuracy(p) for p in each]) - 0.003
    assert cross_entropy(together) <= np.mean([cross_entropy(p) for p in each])


# Refusals.


def test_refuses_a_rate_without_cycles(tmp_path: Path) -> None:
    message = r"this one has no cycles.*tfs\.WarmRestarts.*Received: "
    cosine = tfs.Cosine(0.1, 0.0, 18)
    cases: list[tuple[Any, list[Any], str]] = [
        (0.1, [], "a fixed rate"),
        (0.1, [tfs.OneCycle(0.1)], "Join"),
        (0.1, [tfs.HyperparameterScheduler(cosine)], "Cosine"),
        (cosine, [], "Cosine"),
        (optimizers.schedules.CosineDecayRestarts(0.1, 4), [], "CosineDecayRestarts"),
    ]
    for rate, callbacks, received in cases:
        model = network(optimizers.SGD(rate))
        before = arrays(model)
        with pytest.raises(ValueError, match=f"{message}.*{received}"):
            fit(model, tfs.SnapshotEnsemble(tmp_path / "new"), *callbacks)
        identical(arrays(model), before)
        assert "_make_function" not in vars(model)
        assert not (tmp_path / "new").exists()


def test_refuses_a_train_function_of_the_models_own(tmp_path: Path) -> None:
    class Own(keras.Model):
        def make_train_function(self, force: bool = False) -> None:
            super().make_train_function(force)
            function = self.train_function
            self.train_function = lambda *arguments: function(*arguments)

    model = softmax_regression(optimizers.SGD(0.1), Own)
    with pytest.raises(ValueError, match=r"`make_train_function` of its own.*Own"):
        fit(model, restarts(), tfs.SnapshotEnsemble(tmp_path))
    assert "_make_function" not in vars(model)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: tfs.SnapshotEnsemble(3), TypeError, "`directory` must be the path"),
        (lambda: tfs.SnapshotEnsemble(""), TypeError, "`directory` must be the path"),
        (
            lambda: tfs.SnapshotEnsemble("a", 0),
            ValueError,
            "`max_to_keep` must be >= 1",
        ),
        (lambda: tfs.SnapshotEnsemble("a", "2"), TypeError, "`max_to_keep` must be a"),
        (
            lambda: tfs.SnapshotEnsemble("a", overwrite=1),
            TypeError,
            "`overwrite` must be True or False. Received: overwrite=1",
        ),
        (lambda: tfs.SnapshotEnsemble.load(None), TypeError, "`directory` must be the"),
    ],
)
def test_refuses_bad_arguments(
    make: Callable[[], Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        make()


def test_refuses_to_load_what_is_not_there_or_damaged(tmp_path: Path) -> None:
    load = tfs.SnapshotEnsemble.load
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(FileNotFoundError, match=r"must be a folder with snapshots"):
            load(folder)
    model = softmax_regression(optimizers.SGD(0.1))
    fit(model, restarts(), tfs.SnapshotEnsemble(tmp_path), epochs=2)
    with pytest.raises(ValueError, match=r"`last` must be at most .*, 3 in .*last=4"):
        load(tmp_path, last=4)
    with pytest.raises(ValueError, match=r"`last` must be >= 1"):
        load(tmp_path, last=0)
    file = tmp_path / "cycle_0002_step_000000008.keras"
    whole = file.read_bytes()
    middle = whole.index(b"kernel") if b"kernel" in whole else len(whole) // 2
    for damaged in (
        b"",
        whole[: len(whole) // 2],
        whole[:middle] + b"\xff\x00\xff" + whole[middle + 3 :],
    ):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"cycle_0002.* is damaged.*Remove it"):
            load(tmp_path)
        assert len(load(tmp_path, last=1)) == 1
