"""The curve of a sweep whose descent and explosion are known."""

from __future__ import annotations

import numpy as np

RATES = np.geomspace(1e-6, 10.0, 100)
CENTRE, EDGE = 1e-2, 0.5


def curve(rates=RATES, noise=0.0, seed=0, centre=CENTRE, edge=EDGE):
    """From 2.3 to 0.3, half way at `centre`; explodes above `edge`."""
    descent = 2.3 - 2.0 / (1.0 + (centre / rates) ** 2)
    explosion = np.where(rates > edge, (rates / edge) ** 3 - 1.0, 0.0)
    noisy = np.random.default_rng(seed).normal(0.0, noise, len(rates))
    return descent + explosion + noisy


def sweeps(count, noise, seed=0):
    """So many sweeps of one curve, each with noise of its own."""
    return np.stack([curve(noise=noise, seed=100 * seed + i) for i in range(count)])
