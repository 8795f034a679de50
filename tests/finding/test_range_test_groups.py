"""Range tests of one group, with values held, and comparisons of them."""

import functools

import keras
import numpy as np
import pytest
from helpers import in_batches
from swept_softmax import (
    LOSS,
    RATES,
    SWEEP,
    X_VAL,
    Y_VAL,
    X,
    Y,
    assert_untouched,
    batches,
    dense_model,
    softmax,
    state_of,
)

import tfschedules as tfs


def two_layers(block=1):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((64,))
    hidden = keras.layers.Dense(16, "tanh", name="body")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(10, name="head")(hidden))
    groups = [
        tfs.LayerGroup("body", ["body"], multiplier=0.1),
        tfs.LayerGroup("head", ["head"]),
    ]
    sgd = keras.optimizers.SGD(0.05)
    model.compile(tfs.LayerwiseOptimizer(sgd, groups), LOSS, steps_per_execution=block)
    return model


def group_oracle(model, rates_of_body, rates_of_head):
    """Losses of two layers by SGD in float64, each layer with its rates."""
    w1, b1, w2, b2 = (value.astype("float64") for value in model.get_weights())
    batches, losses = in_batches(X, Y, 32), []
    for i, (body, head) in enumerate(zip(rates_of_body, rates_of_head, strict=True)):
        x, y = batches[i % len(batches)]
        h = np.tanh(x.astype("float64") @ w1 + b1)
        p = softmax(h @ w2 + b2)
        losses.append(-np.log(p[np.arange(len(y)), y]).mean())
        p[np.arange(len(y)), y] -= 1
        p /= len(y)
        back = (p @ w2.T) * (1 - h**2)
        w2, b2 = w2 - head * h.T @ p, b2 - head * p.sum(axis=0)
        w1, b1 = w1 - body * x.T @ back, b1 - body * back.sum(axis=0)
    return losses


@pytest.mark.parametrize("block", [1, 4])
def test_one_groups_rate_is_swept_and_the_others_are_still(block):
    model = two_layers(block)
    model.optimizer.build(model.trainable_variables)
    before = state_of(model)
    parts = model.optimizer.table()
    zero = np.zeros(30)
    result = tfs.find_learning_rate(model, X, Y, group="head", **SWEEP)
    assert result.group == "head"
    np.testing.assert_allclose(result.learning_rates, RATES)
    np.testing.assert_allclose(
        result.losses, group_oracle(two_layers(), zero, RATES), rtol=1e-5
    )
    result = tfs.find_learning_rate(model, X, Y, group="body", **SWEEP)
    np.testing.assert_allclose(
        result.losses, group_oracle(two_layers(), RATES, zero), rtol=1e-5
    )
    result = tfs.find_learning_rate(
        model, X, Y, group="head", others="training", **SWEEP
    )
    np.testing.assert_allclose(
        result.losses,
        group_oracle(two_layers(), np.full(30, 0.005), RATES),
        rtol=1e-5,
    )
    assert "for the group 'head'" in str(result)
    assert_untouched(model, before)
    assert str(model.optimizer.table()) == str(parts)


def test_a_groups_sweep_begins_at_any_count():
    model = two_layers()
    model.fit(X, Y, verbose=0, shuffle=False)
    again = two_layers()
    again.set_weights(model.get_weights())
    expected = group_oracle(again, np.zeros(30), RATES)
    result = tfs.find_learning_rate(model, X, Y, group="head", **SWEEP)
    np.testing.assert_allclose(result.losses, expected, rtol=1e-5)


def test_values_are_held_for_the_sweep():
    def model():
        keras.utils.set_random_seed(3)
        model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
        model.compile(keras.optimizers.SGD(0.1, momentum=0.5), LOSS)
        return model

    other = model()
    before = state_of(other)
    held = tfs.find_learning_rate(
        other, X, Y, hyperparameters={"momentum": 0.9}, **SWEEP
    )
    assert other.optimizer.momentum == 0.5
    assert_untouched(other, before)
    compiled = model()
    compiled.optimizer.momentum = 0.9
    expected = tfs.find_learning_rate(compiled, X, Y, **SWEEP)
    np.testing.assert_allclose(held.losses, expected.losses, rtol=1e-5)


def test_sweeps_are_compared_over_weight_decay():
    model = dense_model()
    model.compile(keras.optimizers.AdamW(weight_decay=0.01), LOSS)
    before = state_of(model)
    values = [0.0, 0.01, 30.0]
    compared = tfs.compare_range_tests(model, X, Y, weight_decay=values, **SWEEP)
    assert list(compared.results) == values
    assert compared.over == "weight_decay"
    curves = [result.losses for result in compared.results.values()]
    # The same batches from the same weights: only the decay differs.
    assert curves[0][0] == curves[1][0] == curves[2][0]
    assert not np.allclose(curves[0][:20], curves[2][:20])
    expected = tfs.find_learning_rate(model, X, Y, **SWEEP)
    np.testing.assert_allclose(curves[1], expected.losses, rtol=1e-5)
    assert model.optimizer.weight_decay == 0.01
    assert_untouched(model, before)
    lines = str(compared).splitlines()
    assert len(lines) == 5
    assert lines[0].split()[:2] == ["weight_decay", "suggestion"]
    lowest = min(values, key=lambda v: compared.results[v].smoothed_losses.min())
    assert compared.best == lowest
    ax = compared.plot()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "weight_decay 0", "weight_decay 0.01", "weight_decay 30"
    ]  # fmt: skip
    assert "data:image/png" in compared._repr_html_()


def test_sweeps_are_compared_over_groups():
    model = two_layers()
    compared = tfs.compare_range_tests(model, X, Y, groups=["body", "head"], **SWEEP)
    assert compared.best is None
    for name in ("body", "head"):
        alone = tfs.find_learning_rate(model, X, Y, group=name, **SWEEP)
        np.testing.assert_array_equal(compared.results[name].losses, alone.losses)


def test_after_a_test_that_failed_in_its_first_step_others_succeed():
    model = dense_model(metrics=["accuracy"])
    with pytest.raises(ValueError, match="must report 'f1'"):
        tfs.find_learning_rate(model, X, Y, metric="f1", **SWEEP)
    for arguments in ({}, {"metric": "accuracy"}, {"validation_data": VAL}):
        result = tfs.find_learning_rate(model, X, Y, **arguments, **SWEEP)
        assert len(result.losses) == len(result.learning_rates) > 0


VAL = (X_VAL, Y_VAL)


@functools.cache
def trained_model():
    """One for all that is refused: each test sees that it leaves it as it was."""
    model = dense_model(metrics=["accuracy"])
    model.fit(X, Y, verbose=0)
    return model


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"metric": "f1"}, ValueError, "must report 'f1'.*logs with .*accuracy"),
        ({"metric": 3}, TypeError, "`metric` must be a name.*metric=3"),
        ({"metric": ""}, ValueError, "`metric` must be a name"),
        ({"group": "head"}, ValueError, r"SGD without groups.*Layerwise"),
        ({"group": 1}, TypeError, "`group` must be a name"),
        ({"others": "frozen"}, ValueError, "`others` must be one of 'still'"),
        ({"hyperparameters": 3}, TypeError, "`hyperparameters` must be a dict"),
        (
            {"hyperparameters": {"learning_rate": 1}},
            ValueError,
            "must not hold the learning rate",
        ),
        ({"hyperparameters": {"momentum": "a"}}, TypeError, "momentum.*must be a num"),
        ({"hyperparameters": {"rho": 0.9}}, ValueError, "no hyperparameter 'rho'"),
        ({"validation_data": 3}, TypeError, "`validation_data` must be .*int"),
        ({"validation_data": (X,)}, TypeError, "must be .*tuple of 1"),
        ({"validation_data": (X, Y[:3])}, ValueError, r"lengths \[3, 640\]"),
        ({"validation_data": zip(X, Y, strict=True)}, ValueError, "must be batched"),
        ({"higher_is_better": "no"}, TypeError, "must be True or False.*'no'"),
        ({"validation_data": (X[:0], Y[:0])}, ValueError, "must hold samples"),
        ({"validation_data": []}, TypeError, "list of 0"),
        ({"validation_data": iter(())}, ValueError, "must hold data"),
        ({"validation_data": VAL, "validation_size": 0}, ValueError, "validation_size"),
        ({"validation_data": VAL, "validation_every": 0}, ValueError, "validation_ev"),
        ({"validation_data": VAL, "metric": "f1"}, ValueError, "model evaluates"),
        ({"snapshot_dir": "/nowhere/at/all"}, OSError, "nowhere"),
    ],
)  # fmt: skip
def test_bad_input_leaves_nothing_behind(arguments, error, match):
    model = trained_model()
    before = state_of(model)
    with pytest.raises(error, match=match):
        tfs.find_learning_rate(model, X, Y, **arguments, **SWEEP)
    assert_untouched(model, before)
    assert "train_step" not in vars(model)
    assert "make_train_function" not in vars(model)


def test_an_unknown_group_lists_those_there_are():
    with pytest.raises(ValueError, match=r"group='tail'.*There are: 'body', 'head'"):
        tfs.find_learning_rate(two_layers(), X, Y, group="tail", **SWEEP)
    frozen = two_layers()
    frozen.optimizer.learning_rate = 0.0
    with pytest.raises(ValueError, match="optimizer's own must be > 0"):
        tfs.find_learning_rate(frozen, X, Y, group="head", **SWEEP)


def test_a_metric_of_unknown_direction_has_to_be_told():
    def spread(y_true, y_pred):
        return keras.ops.std(y_pred, axis=-1)

    with pytest.raises(ValueError, match=r"does not say whether.*higher_is_better"):
        tfs.find_learning_rate(
            dense_model(metrics=[spread]), X, Y, metric="spread", **SWEEP
        )
    result = tfs.find_learning_rate(
        dense_model(metrics=[spread]), X, Y, metric="spread", higher_is_better=True,
        **SWEEP,
    )  # fmt: skip
    assert result.higher_is_better


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({}, ValueError, "exactly one of.*none of them"),
        ({"momentum": [0.9], "weight_decay": [0.1]}, ValueError, "exactly one"),
        ({"weight_decay": []}, ValueError, r"each once.*\[\]"),
        ({"weight_decay": [1, 1]}, ValueError, "each once"),
        ({"weight_decay": [[1]]}, TypeError, "`weight_decay` must be a number"),
        ({"groups": [["head"]]}, TypeError, "`groups` must be a list of names"),
        ({"groups": ["a"], "group": "a"}, ValueError, "`groups` or `group`, not both"),
        ({"weight_decay": [1], "hyperparameters": 3}, TypeError, "must be a dict"),
        ({"weight_decay": 0.1}, TypeError, "`weight_decay` must be a list.*0.1"),
        ({"groups": "head"}, TypeError, "`groups` must be a list.*'head'"),
        ({"momentum": ["x"]}, TypeError, "`momentum` must be a number"),
        ({"momentum": [0.9]}, ValueError, "SGD was compiled with momentum=0"),
    ],
)
def test_bad_comparisons(arguments, error, match):
    with pytest.raises(error, match=match):
        tfs.compare_range_tests(dense_model(), X, Y, **arguments, **SWEEP)


def test_a_generator_is_not_compared_with_what_is_left_of_it():
    with pytest.raises(ValueError, match=r"cannot be rewound.*not batches\(\)"):
        tfs.compare_range_tests(
            dense_model(), batches(), weight_decay=[0.1, 0.2], **SWEEP
        )
