"""Range tests that read validation data, and data of unknown length."""

import keras
import numpy as np
import pytest
from helpers import in_batches
from swept_softmax import (
    RATES,
    SWEEP,
    X_VAL,
    Y_VAL,
    X,
    Y,
    assert_untouched,
    batches,
    dense_model,
    oracle,
    scores,
    state_of,
)

import tfschedules as tfs


@pytest.mark.parametrize("block", [1, 4])
def test_validation_data_are_looked_at_after_every_kth_update(block):
    model = dense_model(metrics=["accuracy"], steps_per_execution=block)
    rows, after = oracle(model)
    before = state_of(model)
    for metric in ("loss", "accuracy"):
        result = tfs.find_learning_rate(
            model, X, Y, metric=metric, validation_data=(X_VAL, Y_VAL),
            validation_every=7, validation_size=1000, **SWEEP,
        )  # fmt: skip
        assert result.metric == f"val_{metric}"
        # The losses of the batches are what they are without validation.
        np.testing.assert_allclose(result.losses, rows[:, 0], rtol=1e-5)
        seen = np.flatnonzero(~np.isnan(result.values))
        np.testing.assert_array_equal(seen, [6, 13, 20, 27, 29])
        expected = [scores(after[i], X_VAL, Y_VAL)[metric == "accuracy"] for i in seen]
        np.testing.assert_allclose(result.values[seen], expected, rtol=1e-4)
    assert_untouched(model, before)


def test_validation_data_are_bounded_and_the_same_in_every_look():
    seen = []
    model = dense_model()
    evaluate = model.evaluate

    def spied(x, y, **arguments):
        seen.append((x, y))
        return evaluate(x, y, **arguments)

    object.__setattr__(model, "evaluate", spied)
    result = tfs.find_learning_rate(
        model, X, Y, validation_data=(X_VAL, Y_VAL), validation_size=50,
        **SWEEP | {"steps": 10},
    )  # fmt: skip
    assert len(seen) == 11  # one before the sweep, whose errors come early
    assert len(seen[0][0]) == 50
    assert all(x is seen[0][0] and y is seen[0][1] for x, y in seen)
    # They are samples, each with its own label.
    places = [np.flatnonzero((X_VAL == row).all(axis=1))[0] for row in seen[0][0]]
    np.testing.assert_array_equal(Y_VAL[places], seen[0][1])
    assert np.isfinite(result.values).all()


def test_validation_data_of_other_kinds():
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 30

        def __getitem__(self, i):
            return X_VAL[32 * i : 32 * i + 32], Y_VAL[32 * i : 32 * i + 32]

    def generator():
        yield from in_batches(X_VAL, Y_VAL, 32)

    first = (X_VAL[:100], Y_VAL[:100])
    looks = {"validation_size": 100, "validation_every": 7, **SWEEP}
    expected = tfs.find_learning_rate(
        dense_model(), X, Y, validation_data=first, **looks
    )
    for data in (Batches(), generator(), generator):
        result = tfs.find_learning_rate(
            dense_model(), X, Y, validation_data=data, **looks
        )
        np.testing.assert_allclose(result.values, expected.values, rtol=1e-6)


def test_validation_data_without_targets():
    class Denoiser(keras.Model):
        def compute_loss(
            self, x=None, y=None, y_pred=None, sample_weight=None, training=True
        ):
            return keras.ops.mean(keras.ops.square(x - y_pred))

    inputs = keras.Input((64,))
    model = Denoiser(inputs, keras.layers.Dense(64)(inputs))
    model.compile("sgd")
    result = tfs.find_learning_rate(
        model, X, validation_data=(x for x, _ in in_batches(X_VAL, Y_VAL, 32)),
        validation_every=7, **SWEEP,
    )  # fmt: skip
    assert np.isfinite(result.values[[6, 13, 20, 27, 29]]).all()


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore:.*input ran out of data")  # as it does with Keras
@pytest.mark.parametrize("form", ["function", "callback"])
def test_data_of_unknown_length_shift_no_rate(form):
    # TensorFlow counts an update at the end of such data that it has not made.
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(32)
    data = data.filter(lambda x, y: True)
    model = dense_model()
    if form == "function":
        result = tfs.find_learning_rate(model, data, **SWEEP)
        np.testing.assert_allclose(result.learning_rates, RATES)
    else:
        test = tfs.RangeTest(1e-3, 3.0, steps=30)
        model.fit(data, epochs=2, shuffle=False, verbose=0, callbacks=[test])
        result = test.result
    # What is beside a rate is the loss that the updates before, at theirs, have led to.
    expected, _ = oracle(dense_model(), result.learning_rates)
    np.testing.assert_allclose(result.losses, expected[:, 0], rtol=1e-5)
    assert result.learning_rates[-1] == pytest.approx(3.0)
    assert result.stop_reason == "finished"


class Called:
    def __call__(self):
        return batches()


def test_what_makes_batches_is_called_again():
    expected = tfs.find_learning_rate(dense_model(), X, Y, **SWEEP)
    result = tfs.find_learning_rate(dense_model(), Called(), **SWEEP)
    np.testing.assert_allclose(result.losses, expected.losses, rtol=1e-6)
    with pytest.raises(TypeError, match=r"gives NoneType\. .*lack a `yield`"):
        tfs.find_learning_rate(dense_model(), lambda: None, **SWEEP)
    with pytest.raises(ValueError, match=r"must hold data.*no batch in it"):
        tfs.find_learning_rate(dense_model(), lambda: iter(()), **SWEEP)
