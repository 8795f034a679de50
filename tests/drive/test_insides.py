"""What the package leans on in Keras, is there, and is asked for."""

from __future__ import annotations

from typing import Any

import keras
import pytest
from helpers import BACKEND, patches
from pages import ROOT
from unit_steps import rates_written, unit_model, units

import tfschedules as tfs
from tfschedules.drive import Chosen, frames
from tfschedules.drive.insides import INSIDES, check_insides


def row(inside: Any) -> str:
    backends = {("jax",): ", JAX", ("tensorflow", "jax"): ", not torch"}
    where = f"`{inside.owner}`{backends.get(inside.backends, '')}"
    cells = [where, f"`{inside.name}`", inside.where, inside.why, inside.otherwise]
    return f"| {' | '.join(cells)} |"


def test_the_page_has_the_table() -> None:
    lines = (ROOT / "docs" / "insides.md").read_text("utf-8").splitlines()
    table = [line for line in lines if line.startswith("| `")]
    assert table == [row(inside) for inside in INSIDES]


def test_this_keras_has_all_of_it() -> None:
    check_insides(Chosen.compiled(unit_model()))


@pytest.mark.parametrize(
    "inside", [i for i in INSIDES if BACKEND in i.backends], ids=lambda i: i.name
)
def test_what_is_missing_is_named_and_nothing_has_changed(inside, monkeypatch) -> None:
    model = unit_model()
    x, y = units()
    if inside.owner in ("fit", "train_on_batch"):

        class Other:
            co_names = tuple(
                name
                for name in frames.codes()[inside.owner].co_names
                if name != inside.name
            )

        codes = {**frames.codes(), inside.owner: Other}
        monkeypatch.setattr(frames, "codes", lambda: codes)
    else:
        owner = model if inside.owner == "model" else model.optimizer
        own = type(owner)

        class Lacks(own):
            def __getattribute__(self, name: str) -> Any:
                if name == inside.name and asking:
                    raise AttributeError(name)
                return super().__getattribute__(name)

        object.__setattr__(owner, "__class__", Lacks)
    asking = []
    callback = tfs.OneCycle(0.1, total_steps=4)
    callback.set_model(model)
    asking.append(True)
    with pytest.raises(RuntimeError, match=f"leans on `{inside.name}` of Keras"):
        check_insides(Chosen.compiled(model))
    with pytest.raises(RuntimeError, match=f"leans on `{inside.name}` of Keras"):
        callback.on_train_begin()
    asking.clear()
    monkeypatch.undo()
    assert patches(model) == []
    model.fit(x[:2], y[:2], batch_size=1, shuffle=False, verbose=0)
    assert rates_written(model)[:2] == pytest.approx([0.1, 0.1])


def test_a_fit_of_a_subclass_is_found_and_one_without_keras_is_a_loop() -> None:
    class Calls(keras.Model):
        def fit(self, *args: Any, **kwargs: Any) -> Any:
            return super().fit(*args, **kwargs)

    class Own(keras.Model):
        def fit(self, x: Any, y: Any, callbacks: Any) -> None:
            known = keras.callbacks.CallbackList(
                callbacks, model=self, epochs=1, steps=len(x)
            )
            known.on_train_begin()
            known.on_epoch_begin(0)
            for i in range(len(x)):
                known.on_train_batch_begin(i)
                self.train_on_batch(x[i : i + 1], y[i : i + 1])
            known.on_epoch_end(0)
            known.on_train_end()

    x, y = units()
    schedule = tfs.Linear(0.4, 0.0, 4)
    for kind, arguments in (
        (Calls, {"batch_size": 1, "shuffle": False, "verbose": 0}),
        (Own, {}),
    ):
        plain = unit_model()
        model = kind(plain.input, plain.output)
        model.compile(keras.optimizers.SGD(0.1), loss=plain.loss)
        callback = tfs.HyperparameterScheduler(learning_rate=schedule)
        model.fit(x[:4], y[:4], callbacks=[callback], **arguments)
        written = rates_written(model)[:4]
        assert written == pytest.approx([0.4, 0.3, 0.2, 0.1], rel=1e-5)
        assert patches(model) == []
