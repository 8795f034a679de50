"""Groups of layers: total, disjoint, and found whatever the model is called."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from keras import layers

import tfschedules as tfs
from tfschedules.layers.group_table import GroupRow, GroupTable
from tfschedules.layers.groups import (
    NO_DECAY,
    assign,
    is_decayed,
    memberships,
    no_decay_kinds,
    paths_of,
)


def chain(*names, root=None, kind=layers.Dense):
    return keras.Sequential(
        [keras.Input((3,)), *(kind(3, name=name) for name in names)], name=root
    )


def names_in(groups, model):
    """The paths of weights in each group, without the model's name."""
    weights = model.trainable_weights
    found = memberships(groups, weights)
    paths = [w.path for w in weights]
    return [
        [
            "/".join(p.split("/")[-2:])
            for p, f in zip(paths, found, strict=True)
            if n in f
        ]
        for n in range(len(groups))
    ]


class Subclassed(keras.Model):
    """A model with weights of its own and layers in attributes."""

    def __init__(self, name="mine"):
        super().__init__(name=name)
        self.token = self.add_weight(shape=(3,), name="token")
        self.first, self.second = layers.Dense(3, name="f"), layers.Dense(3, name="s")

    def call(self, inputs):
        return self.second(self.first(inputs) + self.token)


def nested():
    """A functional model of two nested ones, whose names are not on the paths."""
    encoder_in, decoder_in = keras.Input((3,)), keras.Input((3,))
    hidden = layers.Dense(3, name="e1")(encoder_in)
    encoder = keras.Model(
        encoder_in, layers.Dense(3, name="e2")(hidden), name="encoder"
    )
    decoder = keras.Model(
        decoder_in, layers.Dense(2, name="d1")(decoder_in), name="decoder"
    )
    inputs = keras.Input((3,))
    return keras.Model(inputs, decoder(encoder(inputs))), encoder, decoder


def test_layers_by_object_name_expression_and_weight():
    model = chain("a", "b", "c", "d")
    groups = [
        tfs.LayerGroup("object", [model.layers[0]]),
        tfs.LayerGroup("name", ["b"]),
        tfs.LayerGroup("expression", "^c/"),
        tfs.LayerGroup("weights", [model.layers[3].kernel, "d/bias"]),
    ]
    assert names_in(groups, model) == [
        [f"{name}/kernel", f"{name}/bias"] for name in "abcd"
    ]
    assert assign(groups, model.trainable_weights) == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("root", ["head", "a", "x", None])
def test_the_roots_name_is_no_part_of_a_path(root):
    model = chain("a", "head", root=root)
    groups = [tfs.LayerGroup("body", "^a/"), tfs.LayerGroup("head", "^head/")]
    assert assign(groups, model.trainable_weights) == [0, 0, 1, 1]
    assert assign([tfs.LayerGroup("h", "head"), groups[0]], model.weights) == [
        1,
        1,
        0,
        0,
    ]


def test_the_root_may_be_called_as_one_of_its_layers():
    model = chain("a", "head", root="head")
    head = tfs.LayerGroup("head", ["head"])
    assert assign([head], model.trainable_weights, total=False) == [None, None, 0, 0]
    assert assign([tfs.LayerGroup("body", ["a"]), head], model.weights) == [0, 0, 1, 1]
    # Where all weights are in one composite layer, its name looks like the root's.
    inputs = keras.Input((3, 4))
    attention = layers.MultiHeadAttention(1, 2, name="attention")
    alone = keras.Model(inputs, attention(inputs, inputs))
    by_name = [tfs.LayerGroup("all", ["attention"])]
    assert set(assign(by_name, alone.trainable_weights)) == {0}


@pytest.mark.parametrize("kind", ["sequential", "subclassed"])
def test_the_root_is_no_part_of_a_path_beside_a_nested_model(kind):
    """A backbone that was built before has paths of its own: `backbone/a/kernel`."""
    backbone, head = chain("a", "b", root="backbone"), layers.Dense(2, name="head")

    class Model(keras.Model):
        def __init__(self):
            super().__init__(name="x")
            self.backbone, self.head = backbone, head

        def call(self, inputs):
            return self.head(self.backbone(inputs))

    model = Model() if kind == "subclassed" else keras.Sequential([backbone, head])
    model(np.ones((1, 3)))
    for groups in (
        [tfs.LayerGroup("body", "^backbone/"), tfs.LayerGroup("head", "^head/")],
        [tfs.LayerGroup("body", "^(a|b)/"), tfs.LayerGroup("head", "^head/")],
        [tfs.LayerGroup("body", [backbone]), tfs.LayerGroup("head", ["head"])],
    ):
        assert assign(groups, model.trainable_weights) == [0, 0, 0, 0, 1, 1]


def test_paths_lose_the_root_only():
    assert paths_of(chain("a", "b").weights)[::2] == ["a/kernel", "b/kernel"]
    inputs = keras.Input((3,))
    functional = keras.Model(inputs, layers.Dense(2, name="only")(inputs))
    assert paths_of(functional.weights) == ["only/kernel", "only/bias"]
    model, _, _ = nested()
    assert paths_of(model.weights)[::2] == ["e1/kernel", "e2/kernel", "d1/kernel"]
    mine = Subclassed()
    mine(np.ones((1, 3)))
    assert paths_of(mine.weights) == [
        "mine/token", "f/kernel", "f/bias", "s/kernel", "s/bias",
    ]  # fmt: skip


def test_a_nested_model_is_given_as_an_object():
    model, encoder, decoder = nested()
    groups = [tfs.LayerGroup("body", [encoder]), tfs.LayerGroup("head", decoder)]
    assert assign(groups, model.trainable_weights) == [0, 0, 0, 0, 1, 1]
    assert [group.multiplier for group in tfs.discriminative_groups(model, 0.01)] == [
        pytest.approx(m) for m in (0.01, 0.1, 1)
    ]
    two = tfs.discriminative_groups(model, 0.1, boundaries=[decoder])
    assert [group.layer_names for group in two] == [["e1", "e2"], ["d1"]]


def test_a_boundary_may_be_the_name_of_a_nested_model():
    model, _, decoder = nested()
    by_name = tfs.discriminative_groups(model, 0.1, boundaries=["decoder"])
    assert [group.layer_names for group in by_name] == [["e1", "e2"], ["d1"]]
    assert tfs.layer_decay_groups(model, 0.5, boundaries=["decoder"])[1].layers == (
        decoder.layers[1],
    )
    # A model in a model, and one called like a layer inside it.
    inputs = keras.Input((3,))
    outer = keras.Model(inputs, model(inputs), name="outer")
    end = keras.Model(inputs, layers.Dense(2, name="end")(inputs), name="end")
    whole = keras.Sequential([keras.Input((3,)), outer, layers.Dense(3), end])
    groups = tfs.discriminative_groups(whole, 0.1, boundaries=["decoder", "end"])
    assert [len(group.layers) for group in groups] == [2, 2, 1]
    with pytest.raises(ValueError, match="'encoder' at or before the boundary before"):
        tfs.discriminative_groups(model, 0.1, boundaries=["encoder"])
    with pytest.raises(ValueError, match=r"There are: e2, d1, encoder, decoder\.$"):
        tfs.discriminative_groups(model, 0.1, boundaries=["decodr"])
    a, b = (
        keras.Sequential([chain(name, root="x")], name=f"around_{name}")
        for name in "ab"
    )
    twice = keras.Sequential([keras.Input((3,)), layers.Dense(3), a, b])
    with pytest.raises(ValueError, match="'x', which is more than one layer"):
        tfs.discriminative_groups(twice, 0.1, boundaries=["x"])


def test_the_name_of_a_nested_model_is_no_list_of_layers():
    """Its weights do not know it; the error says what to do."""
    model, _, _ = nested()
    with pytest.raises(ValueError, match=r"'encoder'.*nested model is given as an obj"):
        assign([tfs.LayerGroup("body", ["encoder"])], model.trainable_weights)


def test_composite_layers_stay_whole():
    inputs = keras.Input((5, 4))
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="both")(inputs)
    x = layers.MultiHeadAttention(2, 2, name="attention")(x, x)
    x = layers.LayerNormalization(name="norm")(x)
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    groups = tfs.layer_decay_groups(model, 0.5)
    assert [g.layer_names for g in groups] == [
        ["both"],
        ["attention", "norm"],
        ["head"],
    ]
    numbers = assign(groups, model.trainable_weights)
    assert sorted(set(numbers)) == [0, 1, 2]
    assert numbers == sorted(numbers)
    by_name = [
        tfs.LayerGroup("first", ["both", "attention", "norm"]),
        tfs.LayerGroup("last", ["head"]),
    ]
    assert assign(by_name, model.trainable_weights) == [int(n == 2) for n in numbers]


def test_a_models_own_weights_are_in_the_first_group():
    model = Subclassed()
    model(np.ones((1, 3)))
    groups = tfs.discriminative_groups(model, 0.5, n_groups=2)
    assert [g.layer_names for g in groups] == [["token", "f"], ["s"]]
    assert assign(groups, model.trainable_weights) == [0, 0, 0, 1, 1]


def test_a_shared_layer_is_in_one_group():
    shared = layers.Dense(3, name="shared")
    inputs = keras.Input((3,))
    inside = keras.Model(inputs, shared(inputs), name="inside")
    outer = keras.Input((3,))
    model = keras.Model(outer, layers.Dense(2, name="head")(inside(shared(outer))))
    groups = tfs.layer_decay_groups(model, 0.5)
    assert [g.layer_names for g in groups] == [["shared"], ["head"]]


class Tied(layers.Layer):
    """Logits by the embeddings of another layer, and biases of its own."""

    def __init__(self, embedding, bias=True, **arguments):
        super().__init__(**arguments)
        self.embedding, self.with_bias = embedding, bias

    def build(self, shape):
        if self.with_bias:
            self.bias = self.add_weight(shape=(7,), name="bias")

    def call(self, inputs):
        logits = keras.ops.matmul(
            inputs, keras.ops.transpose(self.embedding.embeddings)
        )
        return logits + self.bias if self.with_bias else logits


@pytest.mark.parametrize("bias", [True, False])
def test_a_tied_weight_is_with_its_first_layer(bias):
    inputs = keras.Input((5,), dtype="int32")
    embedding = layers.Embedding(7, 4, name="embedding")
    hidden = layers.Dense(4, name="hidden")(embedding(inputs))
    tied = Tied(embedding, bias, name="tied")
    model = keras.Model(inputs, tied(hidden))
    weights = model.trainable_weights
    expected = {"embeddings": 0, "kernel": 1, "hidden/bias": 1, "tied/bias": 2}
    for groups in (
        tfs.layer_decay_groups(model, 0.5),
        tfs.discriminative_groups(model, 0.1, n_groups=2 + bias),
    ):
        assert len(groups) == 2 + bias
        for weight, number in zip(weights, assign(groups, weights), strict=True):
            ends = [n for end, n in expected.items() if weight.path.endswith(end)]
            assert ends == [number]
    if bias:
        body, head = tfs.discriminative_groups(model, 0.1, boundaries=["tied"])
        assert (body.layer_names, head.layer_names) == (
            ["embedding", "hidden"],
            ["bias"],
        )


def test_multipliers_are_geometric():
    model = chain(*"abcdef")
    groups = tfs.discriminative_groups(model, 1e-3, 2.0, n_groups=6)
    np.testing.assert_allclose(
        [g.multiplier for g in groups], np.geomspace(1e-3, 2.0, 6), rtol=1e-12
    )
    assert [g.name for g in groups] == [f"group_{i}" for i in range(1, 7)]
    assert tfs.discriminative_groups(model, 0.1, n_groups=1)[0].multiplier == 1.0
    decayed = tfs.layer_decay_groups(model, 0.75)
    np.testing.assert_allclose(
        [g.multiplier for g in decayed], 0.75 ** np.arange(5, -1, -1.0)
    )
    blocks = tfs.layer_decay_groups(model, 0.5, boundaries=["c", model.layers[4]])
    assert [(g.name, g.multiplier) for g in blocks] == [
        ("a", 0.25),
        ("c", 0.5),
        ("e", 1.0),
    ]


def test_even_by_parameters():
    model = keras.Sequential(
        [keras.Input((4,)), *(layers.Dense(n, name=f"d{n}") for n in (2, 3, 5, 40, 41))]
    )

    def parts(by, n):
        groups = tfs.discriminative_groups(model, 0.1, n_groups=n, by=by)
        return [g.layer_names for g in groups]

    assert parts("layers", 2) == [["d2", "d3"], ["d5", "d40", "d41"]]
    # 10, 9, 20, 240, 1681 parameters
    assert parts("parameters", 2) == [["d2", "d3", "d5", "d40"], ["d41"]]
    assert parts("parameters", 5) == [["d2"], ["d3"], ["d5"], ["d40"], ["d41"]]


@settings(max_examples=25, deadline=None)
@given(
    widths=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    norms=st.lists(st.booleans(), min_size=8, max_size=8),
    count=st.integers(1, 8),
    by=st.sampled_from(["layers", "parameters"]),
)
def test_every_weight_is_in_one_group_and_biases_beside_kernels(
    widths, norms, count, by
):
    parts = [keras.Input((2,))]
    for width, norm in zip(widths, norms, strict=False):
        parts.append(layers.Dense(width))
        if norm:
            parts.append(layers.BatchNormalization())
    model = keras.Sequential(parts)
    count = min(count, len(widths))
    groups = tfs.discriminative_groups(model, 0.1, n_groups=count, by=by)
    assert len(groups) == count
    for made in (groups, tfs.layer_decay_groups(model, 0.9)):
        numbers = assign(made, model.trainable_weights)
        assert numbers == sorted(numbers)  # from input to output
        assert set(numbers) == set(range(len(made)))
        of_layer = {}
        for weight, number in zip(model.trainable_weights, numbers, strict=True):
            of_layer.setdefault(weight.path.split("/")[-2], set()).add(number)
        assert all(len(found) == 1 for found in of_layer.values())
    if by == "layers":
        sizes = [sum("dense" in n for n in g.layer_names) for g in groups]
        assert max(sizes) - min(sizes) <= 1


def test_errors_list_both_sides():
    model = chain("a", "b", "c")
    weights = model.trainable_weights
    groups = [tfs.LayerGroup("one", ["a"]), tfs.LayerGroup("two", "kernel")]
    with pytest.raises(
        ValueError,
        match=r"In no group: b/bias, c/bias\. In more than one: a/kernel \(in 'one'",
    ):
        assign(groups, weights)
    assert assign(groups[:1], weights, total=False) == [0, 0, None, None, None, None]
    for layer, match in [
        ("aa", "'aa' of the group 'x' is unknown.*Did you mean 'a'"),
        (chain("a").layers[0], "'a' of the group 'x' is not in the model"),
        (layers.Dense(2, name="new"), "'new' of the group 'x' is not built"),
    ]:
        with pytest.raises(ValueError, match=match):
            assign([tfs.LayerGroup("x", [layer])], weights)
    with pytest.raises(ValueError, match="no trainable weights: everything is frozen"):
        assign(groups, [])
    with pytest.raises(ValueError, match=r"There are: a, b, c\.$"):
        assign([tfs.LayerGroup("x", ["zzz"])], weights)
    for layer in ("^z", [layers.ReLU()]):
        with pytest.raises(ValueError, match="The group 'x' is empty"):
            assign([tfs.LayerGroup("x", layer), tfs.LayerGroup("y", ".")], weights)


def test_a_layer_twice_is_refused_at_once():
    model = chain("a", "b")
    layer = model.layers[0]
    for groups, match in [
        ([tfs.LayerGroup("x", [layer]), tfs.LayerGroup("x", ["b"])], "name 'x' twice"),
        ([tfs.LayerGroup("x", [layer]), tfs.LayerGroup("y", layer)], "layer 'a' twice"),
    ]:
        with pytest.raises(ValueError, match=match):
            tfs.GradualUnfreezing(groups)


def test_a_frozen_layer_may_be_in_a_group_as_an_object():
    model = chain("a", "b")
    model.layers[0].trainable = False
    groups = [tfs.LayerGroup("x", [model.layers[0]]), tfs.LayerGroup("y", ["b"])]
    assert assign(groups, model.trainable_weights) == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((1, ["a"]), TypeError, "`name` must be a string"),
        ((" ", ["a"]), ValueError, "`name` must be .* not empty"),
        (("g", []), ValueError, "`layers` of the group 'g' must hold a layer"),
        (
            ("g", ""),
            ValueError,
            "`layers` of the group 'g' must not be an empty",
        ),
        (("g", "("), ValueError, "this one is broken"),
        (("g", 3), TypeError, "must be a list of layers"),
        (("g", [3]), TypeError, "must be layers or their names"),
        (("g", [layers.Dense]), TypeError, "must be layers or their names"),
        (("g", ["a"], -0.1), ValueError, "`multiplier` must be >= 0"),
        (("g", ["a"], float("nan")), ValueError, "`multiplier` must be finite"),
        (("g", ["a"], "high"), TypeError, "`multiplier` must be a number"),
        (("g", ["a"], 1, float("inf")), ValueError, "`weight_decay_multiplier` must"),
    ],
)
def test_bad_groups_are_refused(arguments, error, match):
    with pytest.raises(error, match=match):
        tfs.LayerGroup(*arguments)


def test_bad_arguments_by_depth_are_refused():
    model = chain("a", "b")
    unbuilt = keras.Sequential([layers.Dense(2)])
    for call, error, match in [
        (
            lambda: tfs.discriminative_groups("m", 0.1),
            TypeError,
            "must be a Keras model",
        ),
        (lambda: tfs.discriminative_groups(unbuilt, 0.1), ValueError, "not built yet"),
        (
            lambda: tfs.discriminative_groups(model, 0.0),
            ValueError,
            "`low` must be > 0",
        ),
        (lambda: tfs.discriminative_groups(model, 2.0), ValueError, "`low` must be <="),
        (
            lambda: tfs.discriminative_groups(model, 0.1, n_groups=3),
            ValueError,
            r"`n_groups` must be .*n_groups=3\. Give n_groups=2 or less",
        ),
        (
            lambda: tfs.discriminative_groups(model, 0.1, boundaries=["z"]),
            ValueError,
            "has 'z', which is no layer",
        ),
        (
            lambda: tfs.discriminative_groups(model, 0.1, boundaries=["a"]),
            ValueError,
            "must go from the input to the output",
        ),
        (
            lambda: tfs.discriminative_groups(model, 0.1, boundaries="b"),
            TypeError,
            "`boundaries` must be a list",
        ),
        (
            lambda: tfs.discriminative_groups(model, 0.1, 1, 3, boundaries=["b"]),
            ValueError,
            "`n_groups` must be left out, or as .*: 2. Received: n_groups=3",
        ),
        (
            lambda: tfs.discriminative_groups(model, 0.1, n_groups=2, by="size"),
            ValueError,
            "`by` must be one of",
        ),
        (
            lambda: tfs.layer_decay_groups(model, 1.5),
            ValueError,
            "`decay` must be <= 1",
        ),
        (lambda: tfs.layer_decay_groups(model, 0), ValueError, "`decay` must be > 0"),
    ]:
        with pytest.raises(error, match=match):
            call()


def test_no_decay_goes_by_names():
    assert no_decay_kinds(True) == ("bias", "norm", "embedding")
    assert no_decay_kinds(False) == no_decay_kinds([]) == ()
    with pytest.raises(TypeError, match="`no_decay` must be True, False, or a list"):
        no_decay_kinds("bias")

    class Weight:
        def __init__(self, name):
            self.name = name

    spared = {
        name: [kind for kind in NO_DECAY if not is_decayed(Weight(name), [kind])]
        for name in ("bias", "attention_bias", "kernel", "gamma", "beta", "scale",
                     "embeddings", "position_embedding", "recurrent_kernel", "biased")
    }  # fmt: skip
    assert {name: kinds for name, kinds in spared.items() if kinds} == {
        "bias": ["bias"],
        "attention_bias": ["bias"],
        "gamma": ["norm"],
        "beta": ["norm"],
        "scale": ["norm"],
        "embeddings": ["embedding"],
        "position_embedding": ["embedding"],
    }


def test_a_table_as_text_and_for_notebooks():
    long = [f"layer_{i}" for i in range(12)]
    table = GroupTable(
        (
            GroupRow("<b>", ["x&y"], 12345, "0.1", 1e-4, None, None, 0, "no"),
            GroupRow("long", long, 7, "1", 1e-3, 0.85, 0.01, 3, "yes"),
        )
    )
    text = str(table).splitlines()
    assert len({len(text[1]), *(len(line.ljust(len(text[1]))) for line in text)}) == 1
    assert "12,345" in text[2]
    assert "layer_0 … layer_11 (12)" in text[3]
    assert "0.85  0.01 (3 exempt)" in text[3]
    assert "&lt;b&gt;" in table._repr_html_()
    assert "x&amp;y" in table._repr_html_()
    assert repr(table) == "<GroupTable: 2 groups, 12,352 parameters>"
