"""What happens inside a layer of a model: the work of `lstm.gates`, step by step."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from tfschedules.drive import calls_in_graphs

SEEN = ("forget", "add", "candidate", "output", "cell", "hidden")


def layer_of(model: keras.Model, layer: int | str, cell: type) -> keras.layers.RNN:
    """The layer of that name or number, of those whose cell is a `cell`."""
    found = [
        candidate
        for candidate in model.layers
        if isinstance(candidate, keras.layers.RNN) and isinstance(candidate.cell, cell)
    ]
    names = [candidate.name for candidate in found]
    if isinstance(layer, str) and layer in names:
        return found[names.index(layer)]
    if isinstance(layer, int) and -len(found) <= layer < len(found):
        return found[layer]
    raise ValueError(
        "Argument `layer` must be one of the model's LSTM layers, by number or name: "
        f"{', '.join(names) or 'there is none'}. Received: layer={layer!r}. Nested "
        "models and wrappers are not looked into, nor is a list of cells in one RNN: "
        "make it several layers of `LSTM`."
    )


def check_call(model: keras.Model, layer: keras.layers.Layer) -> None:
    """Refuse a model without a graph, and a layer that graphs have in several places.

    Each call in a graph has a node, and `layer.input` and `layer.output` are those of
    the first, whichever was meant.
    """
    if not getattr(model, "inputs", None) or not calls_in_graphs(layer):
        raise ValueError(
            "Argument `model` must have a graph: a functional model, or a sequential "
            f"one that is built. Received: {model.name!r}, a {type(model).__name__}. "
            "Begin a sequential model with `keras.Input(shape)`, or build it."
        )
    calls = calls_in_graphs(layer)
    if calls > 1:
        raise ValueError(
            f"The layer {layer.name!r} is called in {calls} places, and shown are "
            "layers that are called in one. Make a model in which it is."
        )


def gates(model: keras.Model, x: Any, rnn: keras.layers.RNN) -> dict[str, np.ndarray]:
    """All that `SEEN` names, at every step of the layer `rnn`; NaN where masked."""
    observer = _Observer(rnn.cell, rnn.go_backwards)
    output = observer(_sequences(model, rnn))
    seen = keras.Model(model.inputs, output).predict(x, verbose=0)
    parts = np.split(np.asarray(seen, np.float32), len(SEEN), axis=-1)
    return dict(zip(SEEN, parts, strict=True))


def _sequences(model: keras.Model, rnn: keras.layers.RNN) -> Any:
    """The tensor that `rnn` reads, if that and zeros are all that it depends on."""
    check_call(model, rnn)
    if rnn.stateful:
        raise ValueError(
            f"The layer {rnn.name!r} is stateful; `gates` shows layers that begin from "
            "zeros. Make the model without `stateful=True` and give it these weights."
        )
    sequences, *given = keras.tree.flatten(rnn.input)  # a mask, or states besides
    if len(given) > 1:
        raise ValueError(
            f"The layer {rnn.name!r} begins from a state that it is given; `gates` "
            "shows layers that begin from zeros."
        )
    return sequences


class _ObservedCell(keras.layers.Layer):
    """An `LSTMCell` whose output is all that happens in it, side by side."""

    def __init__(self, cell: Any) -> None:
        super().__init__(dtype=cell.dtype_policy)
        self.cell = cell
        self.state_size = cell.state_size
        self.output_size = len(SEEN) * cell.units

    def call(self, inputs: Any, states: Any) -> tuple[Any, list[Any]]:
        activations = self.cell.gates(inputs, states[0])
        _, (h, c) = self.cell(inputs, states)
        return ops.concatenate([*activations, c, h], axis=-1), [h, c]


class _Observer(keras.layers.Layer):
    """Runs an `_ObservedCell` over a sequence; NaN where it is masked."""

    def __init__(self, cell: Any, go_backwards: bool) -> None:
        super().__init__(dtype=cell.dtype_policy)
        self.supports_masking = True
        self.rnn = keras.layers.RNN(
            _ObservedCell(cell),
            return_sequences=True,
            go_backwards=go_backwards,
            zero_output_for_mask=True,  # JAX cannot hold an output unlike the state
            dtype=cell.dtype_policy,
        )

    def call(self, inputs: Any, mask: Any = None) -> Any:
        seen = self.rnn(inputs, mask=mask)
        if self.rnn.go_backwards:  # which gives steps in the order they were taken
            seen = ops.flip(seen, axis=1)
        return seen if mask is None else ops.where(mask[..., None], seen, np.nan)
