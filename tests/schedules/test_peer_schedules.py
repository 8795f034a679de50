"""What users of torch, timm and Keras have: the same numbers, in a line or two.

Numbers of torch 2.13 and timm 1.0.31 were recorded; Keras's own schedule is asked here.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import keras
import numpy as np
import pytest
from helpers import (
    arrays,
    digits,
    in_batches,
    patches,
    relative_error,
    sgd_loop,
    softmax_regression,
)

import tfschedules as tfs

RATES = "learning_rate"


def numbers(text: str) -> list[float]:
    return [float(number) for number in text.split()]


def in_graph(schedule: Any, steps: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(schedule(np.asarray(steps)))


# torch ------------------------------------------------------------------------

# CyclicLR(optimizer, 0.01, 0.1, step_size_up=20, step_size_down=10, gamma=0.99)
CYCLIC_STEPS = [0, 1, 9, 10, 19, 20, 25, 29, 30, 45, 59, 60, 99]
CYCLIC = {
    "triangular": (
        "0.01 0.0145 0.0505 0.055 0.0955 0.1 0.055 0.019 0.01 0.0775 0.019 0.01 0.0505",
        "0.9 0.895 0.855 0.85 0.805 0.8 0.85 0.89 0.9 0.825 0.89 0.9 0.855",
    ),
    "triangular2": (
        "0.01 0.0145 0.0505 0.055 0.0955 0.1 0.055 0.019 0.01 0.04375 0.0145 0.01 "
        "0.0150625",
        "0.9 0.895 0.855 0.85 0.805 0.8 0.85 0.89 0.9 0.8625 0.895 0.9 0.894375",
    ),
    "exp_range": (
        "0.01 0.014455 0.046997449 0.050697193 0.080637417 0.083611624 0.045001961 "
        "0.016724549 0.01 0.05294252 0.014974151 0.01 0.02497405",
        "0.9 0.89505 0.85889172 0.8547809 0.82151398 0.81820931 0.86110893 0.89252828 "
        "0.9 0.85228609 0.89447317 0.9 0.88336217",
    ),
}


@pytest.mark.parametrize("mode", CYCLIC)
def test_cycles_of_two_lengths_and_their_momentum(mode: str) -> None:
    rates, momenta = map(numbers, CYCLIC[mode])
    gamma = 0.99 if mode == "exp_range" else 1.0
    callback = tfs.CyclicalLearningRate(
        0.01, 0.1, 20, mode, gamma, step_size_down=10, cycle_momentum=True
    )
    found = callback.schedules
    np.testing.assert_allclose(found[RATES].values(CYCLIC_STEPS), rates, rtol=1e-7)
    np.testing.assert_allclose(found["momentum"].values(CYCLIC_STEPS), momenta, 1e-7)
    np.testing.assert_allclose(in_graph(found[RATES], CYCLIC_STEPS), rates, 2e-6)
    np.testing.assert_allclose(in_graph(found["momentum"], CYCLIC_STEPS), momenta, 2e-6)
    in_a_line = 0.9 - tfs.cyclical(0.0, 0.1, 20, mode, gamma, step_size_down=10)
    np.testing.assert_allclose(in_a_line.values(CYCLIC_STEPS), momenta, rtol=1e-7)


@pytest.mark.filterwarnings("ignore:The schedule of ")
def test_momentum_is_cycled_in_a_fit() -> None:
    x, y = digits(48)
    model = softmax_regression(keras.optimizers.SGD(0.1, momentum=0.9))
    callback = tfs.CyclicalLearningRate(
        0.1, 0.5, 4, step_size_down=2, cycle_momentum=True, base_momentum=0.5
    )
    model.fit(
        x, y, batch_size=8, epochs=2, shuffle=False, verbose=0, callbacks=[callback]
    )
    up = np.array([0, 0.25, 0.5, 0.75, 1, 0.5] * 2)
    expected = sgd_loop(in_batches(x, y, 8) * 2, 0.1 + 0.4 * up, 0.9 - 0.4 * up)
    assert relative_error(arrays(model), expected) < 2e-6
    assert patches(model) == []
    assert model.optimizer.momentum == 0.9


@pytest.mark.filterwarnings("ignore:The schedule of ")
def test_momentum_is_cycled_where_there_is_one() -> None:
    x, y = digits(48)
    cycle = tfs.CyclicalLearningRate(0.1, 0.5, 4, cycle_momentum=True)
    model = softmax_regression(keras.optimizers.SGD(0.1))
    with pytest.raises(ValueError, match=r"momentum=0\.0.*SGD\(momentum=0\.9\)"):
        model.fit(x, y, verbose=0, callbacks=[cycle])
    assert patches(model) == []
    model = softmax_regression(keras.optimizers.Adam(0.1))
    model.fit(x, y, verbose=0, callbacks=[cycle])  # beta_1
    assert cycle.schedules["momentum"].values([0, 4, 8]).round(9).tolist() == [
        0.9,
        0.8,
        0.9,
    ]


@pytest.mark.parametrize(
    ("named", "rule"),
    [
        ({"max_momentum": 1.0}, "`max_momentum` must be < 1"),
        ({"base_momentum": 0.95}, "`base_momentum` must be <= `max_momentum`"),
        ({"base_momentum": -0.1}, "`base_momentum` must be >= 0"),
        ({"cycle_momentum": 1}, "`cycle_momentum` must be True or False"),
        ({"step_size_down": 0}, "`step_size_down` must be >= 1"),
        ({"step_size_down": 2.5}, "`step_size_down` must be a whole.*epochs"),
    ],
)
def test_a_cycle_refuses(named: dict[str, Any], rule: str) -> None:
    with pytest.raises((TypeError, ValueError), match=rule):
        tfs.CyclicalLearningRate(0.1, 0.5, 4, **named)


def test_equal_ways_are_one_way() -> None:
    for mode in ("triangular", "triangular2", "exp_range"):
        for window in ("triangular", "welch", "hann"):
            one = tfs.cyclical(0.1, 0.5, 7, mode, 0.9, window=window)
            two = tfs.cyclical(0.1, 0.5, 7, mode, 0.9, None, "cycle", window, 7)
            assert one == two


def test_a_parabola_of_two_lengths_has_its_two_halves() -> None:
    arch = tfs.cyclical(0.0, 1.0, 8, window="welch", step_size_down=4).values(13)
    x = np.r_[np.arange(8) / 8 - 1, np.arange(5) / 4]
    np.testing.assert_allclose(arch, 1 - x**2, atol=1e-15)


# SWALR(optimizer, swa_lr=0.05, anneal_epochs=10, anneal_strategy=…), stepped in place
# of a CosineAnnealingLR(optimizer, 100) from update 60 on.
SWA_STEPS = [0, 30, 59, 60, 61, 62, 65, 70, 71, 99]
SWA = {
    "cosine": "0.1 0.0793893 0.0360504 0.0345492 0.0349273 0.0360246 0.0422746 0.05 "
    "0.05 0.05",
    "linear": "0.1 0.0793893 0.0360504 0.0345492 0.0360942 0.0376393 0.0422746 0.05 "
    "0.05 0.05",
}


@pytest.mark.parametrize("anneal", SWA)
def test_the_rate_of_averaged_weights(anneal: str) -> None:
    cosine = tfs.Cosine(0.1, 0.0, 100)
    schedule = tfs.swa(cosine, 60, swa_lr=0.05, anneal_steps=10, anneal=anneal)
    expected = numbers(SWA[anneal])
    np.testing.assert_allclose(schedule.values(SWA_STEPS), expected, rtol=1e-5)
    np.testing.assert_allclose(in_graph(schedule, SWA_STEPS), expected, rtol=1e-5)
    assert schedule.length is None  # a fit that goes on with it is no mistake


def test_swa_refuses() -> None:
    cosine = tfs.Cosine(0.1, 0.0, 100)
    for named, rule in (
        ({"swa_start": 0}, "`swa_start` must be >= 1"),
        ({"swa_lr": -0.1}, "`swa_lr` must be >= 0"),
        ({"anneal_steps": 2.5}, "`anneal_steps` must be a whole number"),
        ({"anneal": "cos"}, "`anneal` must be one of 'cosine', 'linear'"),
        ({"schedule": 0.1}, "`schedule` must be a tfschedules.Schedule"),
    ):
        good = {"schedule": cosine, "swa_start": 60, "swa_lr": 0.1, "anneal_steps": 9}
        with pytest.raises((TypeError, ValueError), match=rule):
            tfs.swa(**good | named)
    wild = tfs.ScaleFunction(lambda step: 1.0 / (step - 7.0))
    with (
        np.errstate(divide="ignore"),
        pytest.raises(ValueError, match="must be finite at step 7"),
    ):
        tfs.swa(wild, 7, 0.1, 9)


# timm -------------------------------------------------------------------------

TIMM_STEPS = [0, 1, 19, 20, 30, 59, 60, 99]
_COSINE = tfs.Cosine(0.1, 0.001, 100)
_WAVES = tfs.Repeat(tfs.Cosine(0.1, 0.0, 20), 20, 2) * tfs.PerCycle(0.5, 20, 2)
_FLOOR = tfs.Repeat(tfs.Cosine(0.0, 0.001, 20), 20, 2)
TIMM = {  # lr=0.1, t_initial=100, lr_min=0.001, t_in_epochs=False
    "CosineLRScheduler": (
        _COSINE,
        "0.1 0.099976 0.09144 0.090546 0.079595 0.03669 0.035204 0.0010244",
    ),
    "CosineLRScheduler, k_decay=1.5": (
        tfs.Cosine(0.1, 0.001, 100, k_decay=1.5),
        "0.1 0.1 0.098334 0.098059 0.09355 0.057754 0.055969 0.0010547",
    ),
    "CosineLRScheduler, warmup_t=20": (
        tfs.warmup(_COSINE, 20, start=1e-4, overlap=True),
        "0.0001 0.005095 0.095005 0.090546 0.079595 0.03669 0.035204 0.0010244",
    ),
    "CosineLRScheduler, warmup_t=20, warmup_prefix=True": (
        tfs.warmup(_COSINE, 20, start=1e-4),
        "0.0001 0.005095 0.095005 0.1 0.097577 0.067268 0.065796 0.011387",
    ),
    "CosineLRScheduler, t_initial=20, cycle_mul=2, cycle_decay=0.5, cycle_limit=3": (
        tfs.Join([_WAVES + _FLOOR, tfs.Constant(0.001)], [140]),
        "0.1 0.099391 0.0016094 0.05 0.042824 0.0010755 0.025 0.013471",
    ),
    "PolyLRScheduler, power=2": (
        tfs.Polynomial(0.1, 0.001, 100, power=2),
        "0.1 0.09803 0.065954 0.06436 0.04951 0.017642 0.01684 0.0010099",
    ),
    "PolyLRScheduler, power=2, k_decay=1.5": (
        tfs.Polynomial(0.1, 0.001, 100, power=2, k_decay=1.5),
        "0.1 0.099802 0.084281 0.083082 0.070138 0.030601 0.029362 0.0010222",
    ),
    "StepLRScheduler, decay_t=30, warmup_t=5, warmup_prefix=True": (  # by default
        tfs.warmup(tfs.PerCycle(0.1, 30) * 0.1, 5, start=1e-4),
        "0.0001 0.02008 0.1 0.1 0.1 0.01 0.01 0.0001",
    ),
}


@pytest.mark.parametrize("name", TIMM)
def test_timms_schedulers(name: str) -> None:
    schedule, recorded = TIMM[name]
    expected = numbers(recorded)
    found = schedule.values(TIMM_STEPS)
    np.testing.assert_allclose(found, expected, rtol=5e-5)
    np.testing.assert_allclose(in_graph(schedule, TIMM_STEPS), found, rtol=5e-6)


def test_an_overlapping_warmup_goes_on_where_the_schedule_is() -> None:
    for schedule in (_COSINE, tfs.warm_restarts(0.1, 30, cycle_mult=2), _COSINE * 2):
        steps = np.arange(20, 300)
        late = tfs.warmup(schedule, 20, overlap=True)
        np.testing.assert_allclose(late.values(steps), schedule.values(steps), 1e-13)
        rise = np.arange(20) / 20 * schedule.values(1)[0]
        np.testing.assert_allclose(late.values(20), rise)
        assert late.length == schedule.length
    for short in (tfs.Linear(0.1, 0.0, 5), tfs.Linear(0.1, 0.0, 19.5)):
        late = tfs.warmup(short, 20, overlap=True)
        assert late.values(23)[18:].round(6).tolist() == [0.09, 0.095, 0.0, 0.0, 0.0]
        assert late.length == 20
    assert tfs.warmup(_COSINE, 20, overlap=False) == tfs.warmup(_COSINE, 20)
    with pytest.raises(TypeError, match="`overlap` must be True or False"):
        tfs.warmup(_COSINE, 20, overlap="yes")  # type: ignore[arg-type]


# Keras ------------------------------------------------------------------------


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("length", [1, 2, 30])
def test_a_polynomial_that_cycles(length: int, power: float) -> None:
    theirs = keras.optimizers.schedules.PolynomialDecay(
        0.1, length, 0.01, power=power, cycle=True
    )
    ours = tfs.polynomial_restarts(0.1, length, 0.01, power)
    steps = np.arange(200)
    expected = [float(keras.ops.convert_to_numpy(theirs(step))) for step in steps]
    # Keras computes 1 - t/T in float32, which cancels near the end; a root shows it.
    np.testing.assert_allclose(ours.values(steps), expected, rtol=1e-5, atol=3e-5)
    np.testing.assert_allclose(in_graph(ours, steps), ours.values(steps), rtol=2e-6)


def test_a_polynomial_that_cycles_at_any_age() -> None:
    ours = tfs.polynomial_restarts(0.1, 30, 0.01, 2.0)
    steps = [30 * 10**7 - 1, 30 * 10**7, 30 * 10**7 + 1, 30 * 10**7 + 17]
    expected = []
    for step in steps:
        end = -(-step // 30) * 30
        expected.append(0.01 + 0.09 * float(1 - Fraction(step, end)) ** 2)
    np.testing.assert_allclose(ours.values(steps), expected, rtol=1e-12)
    np.testing.assert_allclose(in_graph(ours, steps), expected, rtol=2e-6)


def test_a_polynomial_that_cycles_refuses() -> None:
    for named, rule in (
        ({"max_lr": 0}, "`max_lr` must be > 0"),
        ({"min_lr": 0.2}, "`min_lr` must be <= `max_lr`"),
        ({"steps": 2.5}, "`steps` must be a whole number.*epochs"),
        ({"power": 0}, "`power` must be > 0"),
        ({"power": 101}, "`power` must be <= 100"),
    ):
        with pytest.raises(ValueError, match=rule):
            tfs.polynomial_restarts(**{"max_lr": 0.1, "steps": 9} | named)


# Powers of a cosine -----------------------------------------------------------


@pytest.mark.parametrize("exponent", [0.01, 0.5, 1.0, 2.0, 7.3, 100.0])
@pytest.mark.parametrize("k_decay", [0.01, 0.5, 1.0, 2.0, 7.3, 100.0])
def test_powers_of_a_cosine(exponent: float, k_decay: float) -> None:
    ramp = tfs.Cosine(0.3, 0.001, 97, exponent, k_decay)
    steps = np.arange(120)
    wave = 0.5 * (1 + np.cos(np.pi * np.minimum(steps / 97, 1) ** k_decay))
    expected = 0.001 + 0.299 * wave**exponent
    # 1 + cos cancels near the end, and a root shows it; there the values fall.
    np.testing.assert_allclose(ramp.values(steps), expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(in_graph(ramp, steps), ramp.values(steps), rtol=3e-5)
    assert (np.diff(ramp.values(steps)) <= 0).all()
    assert ramp.values([0, 97, 10**9]).tolist() == [0.3, 0.001, 0.001]


@pytest.mark.parametrize("name", ["exponent", "k_decay"])
@pytest.mark.parametrize("value", [0, -1, 0.009, 101, float("nan")])
def test_powers_out_of_range(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        tfs.Cosine(0.1, 0.0, 10, **{name: value})
    if name == "k_decay":
        with pytest.raises(ValueError, match=f"`{name}` must be"):
            tfs.Polynomial(0.1, 0.0, 10, 2, k_decay=value)


def test_powers_are_shown_where_they_are_given() -> None:
    assert repr(tfs.Cosine(0.1, 0.0, 10)) == "Cosine(start=0.1, end=0.0, steps=10)"
    shown = repr(tfs.Cosine(0.1, 0.0, 10, k_decay=2))
    assert shown == "Cosine(start=0.1, end=0.0, steps=10, k_decay=2.0)"
    shown = repr(tfs.Polynomial(0.1, 0.0, 10, 2))
    assert shown == "Polynomial(start=0.1, end=0.0, steps=10, power=2.0)"


def test_files_without_powers_are_loaded() -> None:
    old = {"start": 0.1, "end": 0.0, "steps": 10}
    assert tfs.Cosine.from_config(old) == tfs.Cosine(0.1, 0.0, 10)
    old["power"] = 2.0
    assert tfs.Polynomial.from_config(old) == tfs.Polynomial(0.1, 0.0, 10, 2.0)
