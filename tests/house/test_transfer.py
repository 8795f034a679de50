"""The transfer example of the benchmarks, in small: every way of it learns."""

import numpy as np
import pytest

from benchmarks import transfer

# Of five digits that the network has never seen; guessing gives 0.2.
REACHED = {
    "one rate for all": (0.01, 0.5),
    "one rate, one-cycle": (0.01, 0.5),
    "head only": (0.1, 0.5),
    "discriminative": (0.03, 0.5),
    "gradual, discriminative, one-cycle": (0.03, 0.5),
}


@pytest.fixture(scope="module")
def weights():
    return transfer.pretrained(epochs=4)


def test_the_table_has_every_way():
    assert REACHED.keys() == transfer.WAYS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", REACHED)
def test_a_pretrained_network_learns_other_digits(weights, name):
    rate, reached = REACHED[name]
    way = transfer.WAYS[name]
    assert transfer.accuracy(way, weights, rate, 1, per_class=20, epochs=8) > reached


def test_training_the_head_alone_leaves_the_rest_as_it_was(weights):
    model = transfer.resnet()
    model.set_weights(weights)
    x, y = transfer.data(5)
    way = transfer.WAYS["head only"]
    model, callbacks = way(model, transfer.groups_of(model), 0.1, 1)
    model.fit(x[:200], y[:200], 50, 1, callbacks=callbacks, verbose=0)
    changed = [
        not np.array_equal(new, old)
        for new, old in zip(model.get_weights(), weights, strict=True)
    ]
    assert changed == [False] * (len(changed) - 2) + [True, True]
