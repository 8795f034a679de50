"""The table of the groups, and bad input, which changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from helpers import (
    arrays,
    relative_error,
)
from layerwise import (
    EVERY,
    FACTORS,
    adam_by_layer,
    by_layer,
    compiled,
    goes_on_alike,
    network,
    one_each,
    optimizers,
    problem,
    same,
    sgd,
    state,
    step_by_step,
    train,
    variables,
)

import tfschedules as tfs

# 7. The table.


def test_the_table_says_how_it_is_now(capsys: pytest.CaptureFixture[str]) -> None:
    model = network()
    groups = [
        tfs.LayerGroup("<low>", [model.layers[0]], 0.5, weight_decay_multiplier=0.5),
        tfs.LayerGroup("middle", "^b/", tfs.Linear(0.0, 1.0, 12)),
        tfs.LayerGroup("head", ["c"], 3.0),
    ]
    wrapped = tfs.LayerwiseOptimizer(
        optimizers.AdamW(0.02, weight_decay=0.1, gradient_accumulation_steps=2),
        groups,
        no_decay=["bias"],
    )
    train(compiled(model, wrapped))  # six batches, three updates
    wrapped.learning_rate = 0.04
    model.layers[2].bias.trainable = False
    capsys.readouterr()
    assert wrapped.describe() is None  # a notebook would show it once more
    table = wrapped.table()
    assert capsys.readouterr().out == f"{table}\n"
    rows = table.rows
    assert [row.group for row in rows] == ["<low>", "middle", "head"]
    assert [list(row.layers) for row in rows] == [["a"], ["/^b//"], ["c"]]
    assert [row.parameters for row in rows] == [520, 72, 90]
    assert [row.undecayed for row in rows] == [8, 8, 10]
    np.testing.assert_allclose(
        [row.rate for row in rows], [0.02, 0.04 * 3 / 12, 0.12], rtol=1e-6
    )
    np.testing.assert_allclose([row.decay for row in rows], [0.05, 0.1, 0.1])
    assert [row.frozen for row in rows] == ["no", "no", "partly"]
    html = wrapped._repr_html_()
    assert html == table._repr_html_()
    assert "&lt;low&gt;" in html
    assert "<low>" not in html
    assert html.count("<tr>") == 4


def test_the_table_before_the_first_step(capsys: pytest.CaptureFixture[str]) -> None:
    model = network()
    groups = [
        tfs.LayerGroup("objects", [model.layers[0]], 0.5, weight_decay_multiplier=0.5),
        tfs.LayerGroup("expression", "^b/", tfs.Linear(0.25, 1.0, 12)),
    ]

    def unbuilt(groups: Any, **arguments: Any) -> Any:
        inner = optimizers.AdamW(0.02, weight_decay=0.1)
        return tfs.LayerwiseOptimizer(inner, groups, no_decay=["bias"], **arguments)

    wrapped = unbuilt(groups, default=2.0)
    table = wrapped.table()
    found = [
        (row.group, row.parameters, row.undecayed, row.frozen) for row in table.rows
    ]
    assert found == [
        ("objects", 520, 8, "no"),
        ("expression", None, 0, "?"),
        ("(default)", None, 0, "?"),
    ]
    np.testing.assert_allclose(
        [(row.rate, row.decay) for row in table.rows],
        [(0.01, 0.05), (0.005, 0.1), (0.04, 0.1)],
        rtol=1e-6,
    )
    assert not wrapped.built  # to look changes nothing
    wrapped.describe()
    shown = capsys.readouterr().out
    assert shown == f"{table}\n"
    assert "not built" in shown
    assert shown.count("objects") == 1
    assert "not built" in wrapped._repr_html_()
    assert repr(table) == "<GroupTable: 3 groups, unknown parameters>"

    whole = unbuilt(tfs.discriminative_groups(model, low=0.1, n_groups=2))
    before = whole.table()
    assert "not built" not in str(before)
    whole.build(model.trainable_variables)
    assert before == whole.table()

    lazy = keras.layers.Dense(4)  # not built, and no part of the model yet
    assert unbuilt([tfs.LayerGroup("lazy", [lazy])]).table().rows[0].parameters is None


# 8. Bad input: refused with the way out, and nothing has changed.


def untouched(optimizer: Any) -> dict[str, Any]:
    """What of an optimizer a refused wrapper could have changed."""
    return {
        name: value
        for name, value in vars(optimizer).items()
        if not name.startswith("_self_") and name != "build"  # which still divides
    }


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"optimizer": "sgd"}, TypeError, r"must be a Keras optimizer.*'sgd'"),
        ({"optimizer": optimizers.SGD}, TypeError, "must be a Keras optimizer"),
        ({"groups": []}, ValueError, "at least one LayerGroup"),
        ({"groups": "all"}, TypeError, "LayerGroup"),
        ({"groups": {"a": 0.1}}, TypeError, "LayerGroup"),
        ({"groups": [("a", ["a"])]}, TypeError, "LayerGroup"),
        ({"groups": tfs.LayerGroup("a", ".")}, TypeError, "must be a list"),
        (
            {"groups": [tfs.LayerGroup("a", "^a"), tfs.LayerGroup("a", "^b")]},
            ValueError,
            "name 'a' twice",
        ),
        ({"default": -0.5}, ValueError, "`default` must be >= 0"),
        ({"default": float("nan")}, ValueError, "`default` must be finite"),
        ({"default": float("inf")}, ValueError, "`default` must be finite"),
        ({"default": "1"}, TypeError, "`default` must be a number"),
        ({"default": True}, TypeError, "`default` must be a number"),
        ({"no_decay": "bias"}, TypeError, "`no_decay` must be True, False, or a list"),
        ({"no_decay": ["bias", "kernel"]}, ValueError, "`no_decay` must be one of"),
        (
            {"groups": [tfs.LayerGroup("a", ".", tfs.Linear(0, 1, tfs.epochs(2)))]},
            ValueError,
            "lengths in epochs",
        ),
        (
            {"groups": [tfs.LayerGroup("a", ".", tfs.Linear(-1.0, 1.0, 10))]},
            ValueError,
            "of the group 'a' must be finite and >= 0.*which is -1 at step 0",
        ),
        (
            {"groups": [tfs.LayerGroup("a", ".", tfs.Linear(1.0, -1.0, 10**8))]},
            ValueError,
            "must be finite and >= 0 at every step.*at step 67108864",
        ),
        (
            {"groups": [tfs.LayerGroup("a", ".", lambda step: step * float("nan"))]},
            ValueError,
            "must be finite and >= 0.*which is nan at step 0",
        ),
        (
            {"groups": [tfs.LayerGroup("(default)", "^a")], "default": 1.0},
            ValueError,
            r"The name '\(default\)' is that of the weights in no group",
        ),
        (
            {"groups": [tfs.LayerGroup(n, f"^{n}", 0.0) for n in "ab"]},
            ValueError,
            r"Every multiplier is 0, which freezes everything.*2 group\(s\), default=N",
        ),
        (
            {"groups": [tfs.LayerGroup("a", "^a", 0)], "default": 0.0},
            ValueError,
            "Every multiplier is 0, which freezes everything",
        ),
    ],
)
def test_bad_arguments_are_refused_at_once(
    arguments: dict[str, Any], error: type[Exception], match: str
) -> None:
    inner = optimizers.SGD(0.1, momentum=0.9)
    before = untouched(inner)
    given = {"optimizer": inner, "groups": [tfs.LayerGroup("all", ".")], **arguments}
    with pytest.raises(error, match=match):
        tfs.LayerwiseOptimizer(**given)
    assert untouched(inner) == before


@pytest.mark.parametrize("argument", ["multiplier", "weight_decay_multiplier"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), -float("inf")])
def test_bad_multipliers_are_refused(argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"`{argument}` must be .*{value}"):
        tfs.LayerGroup("a", ["a"], **{argument: value})


def test_wrappers_belong_outside() -> None:
    groups = [tfs.LayerGroup("all", ".")]
    inner = optimizers.SGD(0.1)
    wrapped = tfs.LayerwiseOptimizer(inner, groups)
    with pytest.raises(ValueError, match="goes inside the LossScaleOptimizer"):
        tfs.LayerwiseOptimizer(optimizers.LossScaleOptimizer(inner), groups)
    with pytest.raises(ValueError, match="wraps others"):
        tfs.LayerwiseOptimizer(wrapped, groups)
    wrapped.build(variables([np.zeros(1)]))
    with pytest.raises(ValueError, match="in a LayerwiseOptimizer already"):
        tfs.LayerwiseOptimizer(inner, groups)


@pytest.mark.parametrize("built", [False, True], ids=["new", "built"])
@pytest.mark.parametrize(
    ("make", "match"),
    [
        (
            lambda model: by_layer(model)[:2],
            r"In no group: c/kernel, c/bias.*default=1",
        ),
        (
            lambda model: [*by_layer(model), tfs.LayerGroup("more", "kernel")],
            r"In more than one: a/kernel \(in 'a' and 'more'\), b/kernel",
        ),
        (
            lambda model: [*by_layer(model), tfs.LayerGroup("x", ["c"])],
            r"In more than one: c/kernel \(in 'c' and 'x'\), c/bias",
        ),
        (
            lambda model: [tfs.LayerGroup("a", ["a"]), tfs.LayerGroup("k", "kernel")],
            r"In no group: b/bias, c/bias\. In more than one: a/kernel \(in 'a' and",
        ),
        (
            lambda model: [tfs.LayerGroup("x", ["a", "hidden"])],
            r"The layer 'hidden' of the group 'x' is unknown.*There are: a, b, c",
        ),
        (
            lambda model: [tfs.LayerGroup("x", ["a"]), tfs.LayerGroup("y", "^z")],
            r"The group 'y' is empty.*'\^z' matches none of a/kernel",
        ),
        (
            lambda model: [
                *by_layer(model),
                tfs.LayerGroup("f", [keras.layers.ReLU()]),
            ],
            "'f'",
        ),
        (
            lambda model: by_layer(network()),
            "The layer 'a' of the group 'a' is not in the model that is trained",
        ),
        (
            lambda model: [
                *by_layer(model),
                tfs.LayerGroup("n", [keras.layers.Dense(3, name="new")]),
            ],
            "The layer 'new' of the group 'n' is not built",
        ),
    ],
)
def test_groups_that_do_not_fit_are_refused_before_anything_changes(
    make: Callable[[Any], list[tfs.LayerGroup]], match: str, built: bool
) -> None:
    model = network()
    inner = EVERY["AdamW"](0.02)
    if built:
        inner.build(model.trainable_variables)
    before = untouched(inner), state(inner), arrays(model)
    groups = make(model)

    def use() -> None:
        tfs.LayerwiseOptimizer(inner, groups).build(model.trainable_variables)

    with pytest.raises(ValueError, match=match):
        use()
    after = untouched(inner), state(inner), arrays(model)
    assert after[0] == before[0]
    same(after[1], before[1])
    same(after[2], before[2])
    # Both can still be used, together with groups that fit.
    wrapped = tfs.LayerwiseOptimizer(inner, by_layer(model, [0.0, 1.0, 1.0]))
    weights = model.trainable_variables
    wrapped.apply([keras.ops.ones(weight.shape) for weight in weights], weights)
    changed = [(a != b).any() for a, b in zip(arrays(model), before[2], strict=True)]
    assert changed == [False, False, True, True, True, True]


def test_a_fit_with_groups_that_do_not_fit_changes_nothing() -> None:
    model = network()
    wrong = tfs.LayerwiseOptimizer(EVERY["AdamW"](0.02), by_layer(model)[:2])
    before = arrays(model)
    with pytest.raises(ValueError, match="In no group: c/kernel, c/bias"):
        train(compiled(model, wrong), build=False)
    assert not wrong.built
    assert len(wrong.variables) == 2
    same(arrays(model), before)
    plain = network(optimizer=EVERY["AdamW"](0.02))
    goes_on_alike(plain, compiled(model, EVERY["AdamW"](0.02)))


def test_a_group_of_layers_that_never_have_a_gradient_is_empty() -> None:
    # A Dropout holds its random state, which is not trainable, but not frozen either.
    model = network()
    groups = [*by_layer(model), tfs.LayerGroup("none", [keras.layers.Dropout(0.5)])]
    wrapped = tfs.LayerwiseOptimizer(optimizers.SGD(0.1), groups)
    with pytest.raises(ValueError, match="'none'"):
        wrapped.build(model.trainable_variables)


def test_default_does_not_excuse_a_weight_in_two_groups() -> None:
    model = network()
    groups = [*by_layer(model), tfs.LayerGroup("more", "^a/kernel")]
    wrapped = tfs.LayerwiseOptimizer(optimizers.SGD(0.1), groups, default=1.0)
    with pytest.raises(ValueError, match=r"In more than one: a/kernel \(in 'a' and"):
        wrapped.build(model.trainable_variables)
    assert not wrapped.built


def test_weights_it_was_not_built_on_are_refused() -> None:
    """As by any optimizer of Keras."""
    model = adam_by_layer()
    train(model)
    other = network()
    zeros = [keras.ops.zeros(weight.shape) for weight in other.trainable_variables]
    before = state(model.optimizer)
    with pytest.raises(ValueError, match="Unknown variable"):
        model.optimizer.apply(zeros, other.trainable_variables)
    same(state(model.optimizer), before)


def test_torch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(NotImplementedError, match="the TensorFlow or the JAX backend"):
        tfs.LayerwiseOptimizer(optimizers.SGD(0.1), [tfs.LayerGroup("all", ".")])


def test_an_update_that_fails_leaves_nothing_behind() -> None:
    """An error of the user's inside a step: the next one is right."""

    class Failing(optimizers.SGD):
        def update_step(self, *arguments: Any) -> None:
            if self.fail:
                raise RuntimeError("of the user's")
            super().update_step(*arguments)

    values, gradients = problem()
    weights = variables(values)
    inner = Failing(0.01)
    inner.fail = False
    wrapped = tfs.LayerwiseOptimizer(inner, one_each(weights, FACTORS))
    step_by_step(wrapped, weights, gradients[:2])
    names = set(vars(inner))
    inner.fail = True
    with pytest.raises(RuntimeError, match="of the user's"):
        step_by_step(wrapped, weights, gradients[2:3])
    inner.fail = False
    assert set(vars(inner)) == names
    seen = step_by_step(wrapped, weights, gradients[2:4])
    for i, factor in enumerate(FACTORS):
        expected = sgd(values[i], gradients[:4, i], 0.01 * factor, momentum=0.0)
        assert relative_error([seen[-1, i]], [expected[-1]]) < 1e-6


def test_a_loaded_group_that_finds_nothing_does_not_fall_to_the_default_unseen() -> (
    None
):
    groups = [tfs.LayerGroup("a", ["a"], 0.0)]
    wrapped = tfs.LayerwiseOptimizer(optimizers.SGD(1.0), groups, default=1.0)
    copy = tfs.LayerwiseOptimizer.from_config(wrapped.get_config())
    other = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="x")])
    with pytest.warns(UserWarning, match="loaded groups a have no trainable weights"):
        copy.build(other.trainable_variables)
