"""A long short-term memory, its gates written out.

Hochreiter & Schmidhuber 1997, *Long Short-Term Memory*, with the forget gate of Gers,
Schmidhuber & Cummins 2000, *Learning to Forget*. The state c passes two gates on its
way from one step to the next: the forget gate multiplies it, and the add gate adds to
it. Nothing else touches it, which is why gradients last over many steps.

`LSTMCell` has the weights of `keras.layers.LSTM` in its order, and its numbers.
`classifier` and `next_character` are small networks on top of it; `gates` shows what
the gates did; `sample` writes a text.

Left out: dropout between steps, peepholes, other activations, and cuDNN's kernels. For
those use `keras.layers.LSTM`; weights go over with `set_weights`, both ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfschedules._support import checks
from tfschedules.models import _watched


@keras.saving.register_keras_serializable("tfschedules")
class LSTMCell(keras.layers.Layer):
    """One step of an LSTM, for `keras.layers.RNN`.

    With the input x, the output h and the state c of the step before, and σ the
    logistic function:

        i = σ(W_i x + U_i h + b_i)            add gate ("input gate" in the paper)
        f = σ(W_f x + U_f h + b_f)            forget gate
        g = tanh(W_g x + U_g h + b_g)         candidate
        o = σ(W_o x + U_o h + b_o)            output gate
        c ← f · c + i · g
        h ← o · tanh(c)

    The weights are `kernel (features, 4 units)`, `recurrent_kernel (units, 4 units)`
    and `bias (4 units)`, each with i, f, g, o side by side.

    Args:
        units: The length of h and of c.
        unit_forget_bias: Whether b_f begins at 1, so that an untrained cell keeps most
            of its state (Gers et al. 2000; Jozefowicz et al. 2015, section 3.2).
        **arguments: Those of every Keras layer: `name`, `dtype`, `trainable`.

    Raises:
        TypeError: If `units` is not a number.
        ValueError: If `units` is not a whole number > 0.

    Example:
        >>> import keras
        >>> cells = [LSTMCell(8), LSTMCell(8)]
        >>> stacked = keras.layers.RNN(cells, return_sequences=True)
        >>> stacked(keras.ops.ones((2, 5, 3))).shape == (2, 5, 8)
        True
    """

    def __init__(
        self, units: int, unit_forget_bias: bool = True, **arguments: Any
    ) -> None:
        super().__init__(**arguments)
        self.units = checks.whole("units", units)
        self.unit_forget_bias = bool(unit_forget_bias)
        self.state_size = [self.units, self.units]  # h and c
        self.output_size = self.units

    def build(self, input_shape: Any) -> None:
        """Make the weights, with the initial values of `keras.layers.LSTM`."""
        features, units = input_shape[-1], self.units
        self.kernel = self.add_weight(
            (features, 4 * units), initializer="glorot_uniform", name="kernel"
        )
        self.recurrent_kernel = self.add_weight(
            (units, 4 * units), initializer="orthogonal", name="recurrent_kernel"
        )
        self.bias = self.add_weight(
            (4 * units,), initializer=self._initial_bias, name="bias"
        )

    def _initial_bias(self, shape: Any, dtype: Any = None) -> Any:
        bias = np.zeros(shape)
        if self.unit_forget_bias:
            bias[self.units : 2 * self.units] = 1
        return ops.convert_to_tensor(bias, dtype)

    def gates(self, x: Any, h: Any) -> tuple[Any, Any, Any, Any]:
        """The forget gate, the add gate, the candidate and the output gate.

        Args:
            x: This step's input, `(samples, features)`.
            h: The output of the step before, `(samples, units)`.

        Returns:
            f, i, g and o, each `(samples, units)`.
        """
        z = ops.matmul(x, self.kernel) + ops.matmul(h, self.recurrent_kernel)
        z_add, z_forget, z_candidate, z_output = ops.split(z + self.bias, 4, axis=-1)
        forget = ops.sigmoid(z_forget)
        add = ops.sigmoid(z_add)
        candidate = ops.tanh(z_candidate)
        output = ops.sigmoid(z_output)
        return forget, add, candidate, output

    def call(self, inputs: Any, states: Any) -> tuple[Any, list[Any]]:
        """One step: from x and the states h, c to h and the new states."""
        h, c = states
        forget, add, candidate, output = self.gates(inputs, h)
        c = forget * c + add * candidate
        h = output * ops.tanh(c)
        return h, [h, c]

    def get_build_config(self) -> None:
        """Nothing: the layer that holds the cell builds it.

        A cell that Keras built by itself, while it loads a model, would lose the
        layer's name from its weights' paths, by which groups of layers find them.
        """

    def get_config(self) -> dict[str, Any]:
        own = {"units": self.units, "unit_forget_bias": self.unit_forget_bias}
        return {**super().get_config(), **own}


def LSTM(
    units: int,
    *,
    unit_forget_bias: bool = True,
    dtype: Any = None,
    **arguments: Any,
) -> keras.layers.RNN:
    """An LSTM over a sequence: `keras.layers.RNN` with an `LSTMCell`.

    Args:
        units: The length of the output and of the state.
        unit_forget_bias: Whether the forget gate's bias begins at 1.
        dtype: The precision of layer and cell; `None` is Keras's policy.
        **arguments: Those of `keras.layers.RNN`: `return_sequences`, `return_state`,
            `go_backwards`, `stateful`, `unroll`, `zero_output_for_mask`, `name`.

    Returns:
        A layer from `(samples, steps, features)` to `(samples, units)`, or to
        `(samples, steps, units)` with `return_sequences=True`. Where a mask says that
        a step is padding, the state stays as it was.

    Raises:
        TypeError: If `units` is not a number.
        ValueError: If `units` is not a whole number > 0.

    Example:
        >>> import keras
        >>> ours, keras_own = LSTM(4), keras.layers.LSTM(4)
        >>> x = keras.random.normal((2, 7, 3))
        >>> expected = keras_own(x)
        >>> ours.build(x.shape)
        >>> ours.set_weights(keras_own.get_weights())
        >>> bool(keras.ops.max(keras.ops.abs(ours(x) - expected)) < 1e-6)
        True
    """
    # A counted name would make the weights' paths depend on what was made before.
    cell = LSTMCell(units, unit_forget_bias, dtype=dtype, name="lstm_cell")
    return keras.layers.RNN(cell, dtype=dtype, **arguments)


def classifier(
    vocabulary: int,
    classes: int,
    *,
    units: int = 64,
    layers: int = 1,
    embedding: int | None = None,
    name: str = "lstm_classifier",
) -> keras.Model:
    """A classifier of sequences: embedding, LSTM layers, logits.

    Args:
        vocabulary: How many tokens there are, the padding counted.
        classes: How many classes there are.
        units: The length of each LSTM layer's output.
        layers: How many LSTM layers, one on the other.
        embedding: The length of a token's vector; `units` if it is left out.
        name: The model's name.

    Returns:
        A model from whole numbers `(samples, steps)`, 0 … vocabulary−1, to float32
        logits `(samples, classes)`. Steps with token 0 are padding, left or right:
        they are masked.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If one is not a whole number > 0.

    Example:
        >>> model = classifier(vocabulary=30, classes=2, units=8, layers=2)
        >>> [layer.name for layer in model.layers]
        ['tokens', 'embedding', 'lstm_1', 'lstm_2', 'logits']
    """
    outputs = checks.whole("classes", classes)
    return _network(vocabulary, outputs, units, layers, embedding, name, each=False)


def next_character(
    vocabulary: int,
    *,
    units: int = 128,
    layers: int = 1,
    embedding: int | None = None,
    name: str = "next_character",
) -> keras.Model:
    """A model of text: at every step the logits of the character that comes next.

    As in Graves 2013, *Generating Sequences With Recurrent Neural Networks*, section 3,
    without its connections that skip layers.

    Args:
        vocabulary: How many characters there are.
        units: The length of each LSTM layer's output.
        layers: How many LSTM layers, one on the other.
        embedding: The length of a character's vector; `units` if it is left out.
        name: The model's name.

    Returns:
        A model from whole numbers `(samples, steps)`, 0 … vocabulary−1, to float32
        logits `(samples, steps, vocabulary)`. Nothing is masked.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If one is not a whole number > 0.

    Example:
        >>> model = next_character(30, units=8)
        >>> model.output_shape
        (None, None, 30)
    """
    outputs = checks.whole("vocabulary", vocabulary)
    return _network(vocabulary, outputs, units, layers, embedding, name, each=True)


def _network(
    vocabulary: int,
    outputs: int,
    units: int,
    layers: int,
    embedding: int | None,
    name: str,
    *,
    each: bool,
) -> keras.Model:
    """Embedding, LSTM layers, logits: `each` step's and unmasked, or the last one's."""
    vocabulary = checks.whole("vocabulary", vocabulary)
    layers = checks.whole("layers", layers)
    length = checks.whole("embedding", units if embedding is None else embedding)
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(
        vocabulary, length, mask_zero=not each, name="embedding"
    )(tokens)
    for number in range(1, layers + 1):
        sequences = each or number < layers
        x = LSTM(units, return_sequences=sequences, name=f"lstm_{number}")(x)
    # In float32 also under mixed precision: a softmax comes next.
    x = keras.layers.Dense(outputs, dtype="float32", name="logits")(x)
    return keras.Model(tokens, x, name=name)


def sample(
    model: keras.Model,
    start: Sequence[int] | np.ndarray,
    length: int,
    *,
    temperature: float = 1.0,
    seed: int = 0,
) -> np.ndarray:
    """Characters that a `next_character` model writes after a beginning.

    Each is drawn with the probabilities softmax(logits / temperature), and is the
    model's next input. The states go from step to step, so that the time grows with
    the length, and not with its square.

    Args:
        model: A model of `next_character`.
        start: The characters to begin with, at least one.
        length: How many to add.
        temperature: Below 1 the likely ones become more likely; 0 takes the likeliest.
        seed: The seed of the draws.

    Returns:
        The characters added, whole numbers `(length,)`.

    Raises:
        TypeError: If a number is none.
        ValueError: If `start` is empty or a number is out of its range; if the model
            is no chain of layers; if its logits are NaN or infinite.

    Example:
        >>> model = next_character(30, units=8)
        >>> sample(model, [3, 1], length=5).shape
        (5,)
    """
    length = checks.whole("length", length)
    temperature = checks.real("temperature", temperature, at_least=0)
    inputs = keras.layers.InputLayer
    chain = [layer for layer in model.layers if not isinstance(layer, inputs)]
    vocabulary = getattr(chain[0], "input_dim", None) if chain else None
    shape = getattr(model, "output_shape", None)  # without a graph there is none
    if vocabulary is None or shape != (None, None, vocabulary):
        raise ValueError(
            "Argument `model` must be one of `next_character`. "
            f"Received: {model.name!r} with outputs of shape {shape}"
        )
    try:
        characters = np.asarray(start)
    except ValueError:  # rows of different lengths
        characters = np.empty((0, 0))
    if characters.ndim != 1 or not characters.size or characters.dtype.kind not in "iu":
        raise ValueError(
            "Argument `start` must be a list of at least one whole number. "
            f"Received: start={start!r}"
        )
    if characters.min() < 0 or characters.max() >= vocabulary:
        raise ValueError(
            f"Argument `start` must have numbers in 0 … {vocabulary - 1}, the model's "
            f"vocabulary. Received: {characters.min()} … {characters.max()}"
        )
    generator = np.random.default_rng(seed)
    states = {
        layer.name: layer.get_initial_state(batch_size=1)
        for layer in chain
        if isinstance(layer, keras.layers.RNN)
    }

    def logits_after(character: int) -> np.ndarray:
        x = ops.convert_to_tensor([character], "int32")
        for layer in chain:
            if layer.name in states:
                x, states[layer.name] = layer.cell(x, states[layer.name])
            else:
                x = layer(x)
        return np.asarray(ops.convert_to_numpy(x)[0], np.float64)

    *before, last = characters.tolist()
    for character in before:
        logits_after(character)
    written: list[int] = []
    for _ in range(length):
        last = _draw(logits_after(last), temperature, generator)
        written.append(last)
    return np.array(written)


def _draw(
    logits: np.ndarray, temperature: float, generator: np.random.Generator
) -> int:
    if not np.isfinite(logits.max()):  # NaN, if there is one
        raise ValueError(
            "The logits of `model` must be finite to draw from. Received: "
            f"{np.isnan(logits).sum()} NaN of {len(logits)}, the largest "
            f"{logits.max()}. Has its training diverged? Look at its weights."
        )
    if temperature == 0:
        return int(logits.argmax())
    probabilities = np.exp((logits - logits.max()) / temperature)
    return int(generator.choice(len(logits), p=probabilities / probabilities.sum()))


def gates(model: keras.Model, x: Any, *, layer: int | str = 0) -> dict[str, np.ndarray]:
    """What the gates of one LSTM layer did at every step, for a plot.

    Args:
        model: A model with a graph (functional or sequential), in which the LSTM layer
            begins from zeros: `classifier`, `next_character`, or one of your own with
            layers of `LSTM`.
        x: The model's input, as for `predict`.
        layer: Which LSTM layer: its name, or its number from input to output.

    Returns:
        "forget", "add", "candidate", "output": the gates f, i, g, o; "cell" and
        "hidden": the state c and the output h after the step. Each is float32
        `(samples, steps, units)`, in the order of the input's steps, NaN where a step
        is masked.

    Raises:
        ValueError: If there is no such layer; if the model has no graph; if the layer
            is stateful, begins from a given state, or is called in several places.

    Example:
        >>> model = classifier(vocabulary=30, classes=2, units=8)
        >>> seen = gates(model, np.array([[3, 1, 4, 0]]))
        >>> seen["forget"].shape, np.isnan(seen["forget"][0, :, 0]).tolist()
        ((1, 4, 8), [False, False, False, True])
    """
    rnn = _watched.layer_of(model, layer, LSTMCell)
    return _watched.gates(model, x, rnn)
