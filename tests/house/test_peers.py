"""The rules of other finders in the benchmarks, on cases computed by hand."""

import numpy as np
import pytest

from benchmarks import peers

pytestmark = pytest.mark.any_backend

RATES = np.geomspace(1e-7, 10.0, 100)


def test_average_has_no_bias():
    # m = .1, .38 -> .1/.1, (.09 + .2)/.19, (.261 + .3)/.271
    found = peers.averaged(np.array([1.0, 2.0, 3.0]), 0.9)
    np.testing.assert_allclose(found, [1.0, 0.29 / 0.19, 0.561 / 0.271])


def test_lightning_divides_by_one_step_more():
    found = peers.averaged(np.array([1.0, 2.0]), 0.9, late=1)
    np.testing.assert_allclose(found, [0.1 / 0.19, 0.29 / 0.271])


def test_lag_of_torch_lr_finder():
    found = peers.lagging(np.array([1.0, 3.0, 1.0]))
    np.testing.assert_allclose(found, [1.0, 1.1, 1.095])


@pytest.mark.parametrize(
    ("losses", "kept"),
    [
        ([2.0, 1.0, 4.0, 4.1, 9.0], 4),
        ([2.0, 1.0, 4.0], 3),
        ([2.0, np.nan, 1.0], 1),
        ([-1.0, -2.0, -3.0], 1),  # -1 > 4 * -1
    ],
)
def test_the_sweep_ends_above_four_times_the_least(losses, kept):
    assert len(peers.until_diverged(np.array(losses), 4.0)) == kept


def test_fastai_leaves_a_tenth_and_five_out():
    rates, losses = peers.fastai(RATES, np.ones(100))
    np.testing.assert_array_equal(rates, RATES[10:95])
    np.testing.assert_allclose(losses, 1.0)


@pytest.fixture
def raw(monkeypatch):
    """Without smoothing or cuts: the rules alone."""
    monkeypatch.setattr(peers, "fastai", lambda rates, losses: (rates, losses))


@pytest.mark.usefixtures("raw")
def test_fastai_on_bare_curves():
    rates = 10.0 ** np.arange(-7, 3)
    # The longest falling subsequence is 9 8 6 4 3 1, of 6, and ends at 8; it is taken
    # to begin at 2, and 2 + 2 + 1 is 5.
    losses = np.array([5.0, 9.0, 8.0, 6.0, 7.0, 4.0, 3.0, 5.0, 1.0, 6.0])
    assert peers.fastai_valley(rates, losses) == rates[5]
    assert peers.fastai_minimum(rates, losses) == rates[8] / 10.0
    assert peers.fastai_steep(rates, losses) == rates[7]  # 5 to 1


@pytest.mark.usefixtures("raw")
def test_fastai_slide_stops_where_slopes_agree():
    # Slope 0 up to 30, -1 up to 60, +1 from there: 15 steps apart, they differ from the
    # right until both are +1 apart at ... 84 and 99 agree at once.
    losses = np.r_[np.full(30, 30.0), np.arange(30.0, 0.0, -1.0), np.arange(40.0)]
    assert peers.fastai_slide(RATES, losses) == RATES[84]
    # Of a parabola the slopes never agree: the first step.
    assert peers.fastai_slide(RATES, np.arange(100.0) ** 2) == RATES[0]


def test_lightning_is_steepest_in_the_rate(monkeypatch):
    monkeypatch.setattr(peers, "averaged", lambda losses, beta, late: losses)
    # A fall of .1 a step all along is the steeper the lower the rate: the first kept.
    assert peers.lightning(RATES, np.linspace(10.0, 0.1, 100)) == RATES[10]


def test_torch_lr_finder_is_steepest_in_the_step():
    # A step down at 50, smoothed by .05, falls most from 49 to 50: half of it at 49 and
    # at 50, and argmin takes the larger, 50: (.05 + .0475) / 2 to .05 / 2.
    losses = np.r_[np.full(50, 2.0), np.full(50, 1.0)]
    assert peers.torch_lr_finder(RATES, losses) == RATES[50]


@pytest.mark.parametrize("name", peers.PEERS)
@pytest.mark.parametrize("length", [0, 1, 2, 12, 100])
def test_every_rule_answers_to_curves_of_any_length(name, length):
    losses = np.linspace(3.0, 1.0, 100)
    losses[length:] = np.nan
    rate = peers.PEERS[name](RATES, losses)
    assert (rate is None) == (length < 16)
    assert rate is None or RATES[0] / 10 <= rate <= RATES[length - 1]
