"""Soft attention over a memory, by content, and between two sequences.

A memory is a matrix with a vector in each row. What is looked for, the query, is
compared with every row; a softmax makes weights of the similarities; what is read is
the weighted mean of the rows. Every step of it is differentiable, and so is writing.

The functions follow Graves, Wayne & Danihelka 2014, *Neural Turing Machines*, sections
3.1 (read), 3.2 (write) and 3.3.1 (addressing by content). The layer `Attention` puts
them between two sequences, as Bahdanau, Cho & Bengio 2015 did, with the output of
Luong, Pham & Manning 2015, section 3. `lookup` is a network on top of the LSTM of
`tfschedules.models.lstm`, and `lookup_task` what it is to learn.

Left out: addressing by location, a controller that writes at every step, several heads
in the layer (the functions take any number of queries).
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from tfschedules._support import checks
from tfschedules.models import _watched
from tfschedules.models.lstm import LSTM

_EPSILON = 1e-12  # of a squared length: a vector of zeros is like nothing
# Below every similarity, and finite, so that a row without any memory has no NaN.
_MASKED = float(np.finfo(np.float32).min)


def similarity(query: Any, memory: Any, kind: str = "cosine") -> Any:
    """How alike each query and each row of the memory are.

    "cosine": K(u, v) = u · v / (‖u‖ ‖v‖), NTM's equation 6; "dot": K(u, v) = u · v.

    Args:
        query: `(…, queries, width)`.
        memory: `(…, rows, width)`.
        kind: "cosine" or "dot".

    Returns:
        `(…, queries, rows)`, float32, or float64 if an input is. With "cosine" a vector
        of zeros has 0, and one shorter than 1e-6 is between that and its angle's.

    Raises:
        ValueError: If `kind` is another.

    Example:
        >>> alike = similarity(np.array([[1.0, 0.0]]), np.array([[5.0, 0], [0, 2.0]]))
        >>> ops.convert_to_numpy(alike).tolist()
        [[1.0, 0.0]]
    """
    checks.choice("kind", kind, ["cosine", "dot"])
    query, memory = _at_least_float32(query), _at_least_float32(memory)
    if kind == "cosine":
        query, memory = _unit(query), _unit(memory)
    return ops.matmul(query, ops.swapaxes(memory, -1, -2))


def _at_least_float32(x: Any) -> Any:
    x = ops.convert_to_tensor(x)
    is_precise = keras.backend.standardize_dtype(x.dtype) in ("float32", "float64")
    return x if is_precise else ops.cast(x, "float32")


def _unit(x: Any) -> Any:
    squared = ops.sum(ops.square(x), axis=-1, keepdims=True)
    return x * ops.rsqrt(ops.maximum(squared, ops.cast(_EPSILON, squared.dtype)))


def address(
    query: Any,
    memory: Any,
    sharpness: Any = 1.0,
    *,
    mask: Any = None,
    kind: str = "cosine",
) -> Any:
    """Weights of the rows, by content.

    w_i = exp(β K(k, M_i)) / Σ_j exp(β K(k, M_j)), NTM's equation 5, with the query k,
    the row M_i and the sharpness β: 0 weighs all alike, ∞ takes the most similar, or
    the mean of several that are equally so.

    Args:
        query: `(…, queries, width)`.
        memory: `(…, rows, width)`.
        sharpness: β >= 0, a number or `(…, queries, 1)`; infinity is the
            limit, whose gradients are 0, or infinite where rows tie.
        mask: `(…, rows)`, False where a row is not there.
        kind: The similarity: "cosine" or "dot".

    Returns:
        `(…, queries, rows)`, in float32 also for inputs of half precision. A row that
        is not there has exactly 0; the others sum to 1, if there are any.

    Raises:
        ValueError: If `kind` is another.

    Example:
        >>> memory = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> weights = address(np.array([[1.0, 1.0]]), memory, sharpness=5.0)
        >>> ops.convert_to_numpy(weights).round(3).tolist()
        [[0.5, 0.5]]
    """
    there = True if mask is None else ops.expand_dims(ops.cast(mask, "bool"), -2)
    alike = ops.where(there, similarity(query, memory, kind), _MASKED)
    # A softmax does not change when all scores move. With the best at 0 it stays there
    # whatever β is, so that the largest number does for infinity.
    best = ops.max(alike, axis=-1, keepdims=True, initial=_MASKED)  # also of no rows
    best = ops.stop_gradient(best)
    largest = float(np.finfo(keras.backend.standardize_dtype(alike.dtype)).max)
    scores = ops.minimum(ops.cast(sharpness, alike.dtype), largest) * (alike - best)
    weights = ops.softmax(ops.where(there, scores, _MASKED), axis=-1)
    return ops.where(there, weights, 0.0)


def read(memory: Any, weights: Any) -> Any:
    """The weighted mean of the rows: r = Σ_i w_i M_i, NTM's equation 2.

    Args:
        memory: `(…, rows, width)`.
        weights: `(…, queries, rows)`, from `address`.

    Returns:
        `(…, queries, width)`, in the memory's precision, or in Keras's `floatx` for a
        memory of whole numbers.

    Example:
        >>> memory = np.array([[1.0, 0.0], [0.0, 3.0]])
        >>> ops.convert_to_numpy(read(memory, np.array([[0.5, 0.5]]))).tolist()
        [[0.5, 1.5]]
    """
    memory = _real(memory)
    return ops.matmul(ops.cast(weights, memory.dtype), memory)


def _real(memory: Any) -> Any:
    """The memory, whose precision weights can have: as whole numbers they were 0."""
    memory = ops.convert_to_tensor(memory)
    is_real = keras.backend.is_float_dtype(memory.dtype)
    return memory if is_real else ops.cast(memory, keras.config.floatx())


def write(memory: Any, weights: Any, erase: Any, add: Any) -> Any:
    """The memory after a write: first what is erased, then what is added.

    M_i ← M_i (1 − w_i e) + w_i a, NTM's equations 3 and 4. Several heads erase one
    after the other, and then add, which is the same in any order.

    Args:
        memory: `(…, rows, width)`.
        weights: `(…, heads, rows)`, from `address`.
        erase: e, `(…, heads, width)`, each in 0 … 1.
        add: a, `(…, heads, width)`.

    Returns:
        The new memory, `(…, rows, width)`, in the precision that `read` has; the old
        one is not changed.

    Example:
        >>> memory = np.array([[1.0, 2.0], [3.0, 4.0]])
        >>> at, everything = np.array([[0.0, 1.0]]), np.ones((1, 2))
        >>> new = write(memory, at, erase=everything, add=np.array([[7.0, 8.0]]))
        >>> ops.convert_to_numpy(new).tolist()
        [[1.0, 2.0], [7.0, 8.0]]
    """
    memory = _real(memory)
    weights, erase, add = (
        ops.cast(value, memory.dtype) for value in (weights, erase, add)
    )
    erased = weights[..., :, :, None] * erase[..., :, None, :]
    kept = memory * ops.prod(1 - erased, axis=-3)
    return kept + ops.matmul(ops.swapaxes(weights, -1, -2), add)


@keras.saving.register_keras_serializable("tfschedules")
class Attention(keras.layers.Layer):
    """Attention of one sequence to another.

    At each step of the first, with its vector h and the second sequence's vectors m_i:

        w_i = address(W_q h, W_k m_i, β)      where to look
        r = Σ_i w_i m_i                       what is read there
        output = tanh(W_c [r; h])             Luong et al. 2015, equation 5

    β = exp(`log_sharpness`) is learned, and begins at 10: cosines are in −1 … 1, and
    with β = 1 no row could get more than e² times the weight of another.

    Called with `(queries, memory)`, `(samples, steps, features)` and
    `(samples, rows, other features)`, it gives the output `(samples, steps, units)` and
    the weights `(samples, steps, rows)`, in float32 or float64. Masked rows of the
    memory have the weight 0.

    Args:
        units: The length of queries, keys and the output.
        **arguments: Those of every Keras layer: `name`, `dtype`, `trainable`.

    Raises:
        TypeError: If `units` is not a number.
        ValueError: If `units` is not a whole number > 0.

    Example:
        >>> layer = Attention(8)
        >>> output, weights = layer(np.ones((2, 3, 5)), np.ones((2, 7, 4)))
        >>> tuple(output.shape), tuple(weights.shape)
        ((2, 3, 8), (2, 3, 7))
    """

    def __init__(self, units: int, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.units = checks.whole("units", units)
        self.supports_masking = True  # the output has the mask of the queries

    def build(self, queries_shape: Any, memory_shape: Any) -> None:
        """Make W_q, W_k, W_c and the sharpness."""
        features, width = queries_shape[-1], memory_shape[-1]
        self.query_kernel = self.add_weight((features, self.units), name="query_kernel")
        self.key_kernel = self.add_weight((width, self.units), name="key_kernel")
        self.output_kernel = self.add_weight(
            (width + features, self.units), name="output_kernel"
        )
        self.log_sharpness = self.add_weight(
            (),
            initializer=keras.initializers.Constant(float(np.log(10))),
            name="log_sharpness",
        )

    def call(
        self, queries: Any, memory: Any, memory_mask: Any = None
    ) -> tuple[Any, Any]:
        """Look into the memory at every step of the queries."""
        query = ops.matmul(queries, self.query_kernel)
        key = ops.matmul(memory, self.key_kernel)
        # In float16 its exponential would be infinite from 11.1 on.
        sharpness = ops.exp(ops.cast(self.log_sharpness, "float32"))
        weights = address(query, key, sharpness, mask=memory_mask)
        both = ops.concatenate([read(memory, weights), queries], axis=-1)
        return ops.tanh(ops.matmul(both, self.output_kernel)), weights

    def compute_output_spec(
        self, queries: Any, memory: Any, memory_mask: Any = None
    ) -> tuple[Any, Any]:
        """Shapes and precisions, known before there are numbers."""
        steps, rows = queries.shape[:-1], memory.shape[-2]
        output = keras.KerasTensor((*steps, self.units), self.compute_dtype)
        precision = "float64" if self.compute_dtype == "float64" else "float32"
        return output, keras.KerasTensor((*steps, rows), precision)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


def lookup(
    keys: int,
    values: int,
    *,
    units: int = 32,
    embedding: int = 16,
    attention: bool = True,
    name: str = "lookup",
) -> keras.Model:
    """Reads pairs of a key and a value, and then tells the value of each key asked for.

    One LSTM reads the pairs, a step for each. A second begins from the state in which
    the first ended, and reads the keys that are asked for. With attention the second
    looks back at every step of the first; without, all there is to know has to pass
    through that one state.

    Args:
        keys: How many keys there are, 1 … keys; 0 is padding and is masked.
        values: How many values there are, 0 … values−1.
        units: The length of the LSTMs' outputs, and of the attention's.
        embedding: The length of the vector of a key, and of that of a value.
        attention: Whether the second LSTM looks back at the first.
        name: The model's name.

    Returns:
        A model from three arrays of whole numbers, keys and values `(samples, pairs)`
        and queries `(samples, queries)`, to float32 logits
        `(samples, queries, values)`.

    Raises:
        TypeError: If a number is none.
        ValueError: If one is not a whole number > 0.

    Example:
        >>> model = lookup(keys=8, values=8)
        >>> model.output_shape
        (None, None, 8)
    """
    keys = checks.whole("keys", keys)
    values = checks.whole("values", values)
    embedding = checks.whole("embedding", embedding)
    names = ("keys", "values", "queries")
    inputs = [keras.Input((None,), dtype="int32", name=name) for name in names]
    of_keys = keras.layers.Embedding(
        1 + keys, embedding, mask_zero=True, name="key_embedding"
    )
    of_values = keras.layers.Embedding(values, embedding, name="value_embedding")
    pairs = keras.layers.Concatenate(name="pairs")(
        [of_keys(inputs[0]), of_values(inputs[1])]
    )
    # By hand: a concatenation is masked only where all its parts are.
    there = ops.not_equal(inputs[0], 0)
    reader = LSTM(units, return_sequences=True, return_state=True, name="reader")
    memory, *state = reader(pairs, mask=there)
    x = LSTM(units, return_sequences=True, name="asker")(
        of_keys(inputs[2]), initial_state=state
    )
    if attention:
        x, _ = Attention(units, name="attention")(x, memory)  # masked as pairs are
    # In float32 also under mixed precision: a softmax comes next.
    x = keras.layers.Dense(values, dtype="float32", name="logits")(x)
    return keras.Model(inputs, x, name=name)


def lookup_task(
    samples: int,
    *,
    keys: int = 8,
    values: int = 8,
    pairs: int = 6,
    queries: int = 4,
    seed: int = 0,
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """Data for `lookup`: pairs at random, other pairs in every sample.

    Args:
        samples: How many samples.
        keys: How many keys there are.
        values: How many values there are.
        pairs: How many pairs each sample has; no key comes twice.
        queries: How many of them are asked for, none twice.
        seed: The seed of the draws.

    Returns:
        `(keys, values, queries)` and the answers, the value of each query: whole
        numbers `(samples, pairs)` twice, and `(samples, queries)` twice.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If one is not a whole number > 0, or there are more pairs than keys,
            or more queries than pairs.

    Example:
        >>> (keys, values, queries), answers = lookup_task(100)
        >>> at = keys[0].tolist().index(queries[0, 0])
        >>> bool(answers[0, 0] == values[0, at])
        True
    """
    samples, keys = checks.whole("samples", samples), checks.whole("keys", keys)
    values, pairs = checks.whole("values", values), checks.whole("pairs", pairs)
    queries = checks.whole("queries", queries)
    checks.ordered("pairs", pairs, "keys", keys)
    checks.ordered("queries", queries, "pairs", pairs)
    generator = np.random.default_rng(seed)
    order = generator.permuted(np.tile(np.arange(1, keys + 1), (samples, 1)), axis=1)
    given = order[:, :pairs]
    told = generator.integers(0, values, (samples, pairs))
    at = generator.permuted(np.tile(np.arange(pairs), (samples, 1)), axis=1)
    at = at[:, :queries]
    asked, answers = (np.take_along_axis(array, at, axis=1) for array in (given, told))
    return (given, told, asked), answers


def attention_weights(model: keras.Model, x: Any) -> np.ndarray:
    """Where a model looked, at every step, for a picture.

    Args:
        model: A model with a graph and one `Attention` layer: `lookup`, or your own.
        x: The model's input, as for `predict`.

    Returns:
        float32 `(samples, steps, rows)`. Each step's weights sum to 1, and are 0 where
        the memory is masked.

    Raises:
        ValueError: If the model has no graph, or not one `Attention` layer that is
            called in one place; nested models are not looked into.

    Example:
        >>> model = lookup(keys=8, values=8)
        >>> x, _ = lookup_task(5)
        >>> attention_weights(model, x).shape
        (5, 4, 6)
    """
    found = [layer for layer in model.layers if isinstance(layer, Attention)]
    if len(found) != 1:
        raise ValueError(
            "Argument `model` must have one `Attention` layer; nested models are not "
            f"looked into. Received: a model {model.name!r} with {len(found)}"
        )
    _watched.check_call(model, found[0])
    _, weights = found[0].output
    return np.asarray(keras.Model(model.inputs, weights).predict(x, verbose=0))
