"""Two processes on the loopback address train one model, and one of them records it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import (
    BACKEND,
    digits,
    in_batches,
    one_cycle_values,
    relative_error,
    sgd_loop,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

EXAMPLE = Path(__file__).parents[1] / "examples" / "jax_two_processes.py"


@pytest.mark.slow
@pytest.mark.skipif(
    BACKEND != "jax",
    reason=f"KERAS_BACKEND={BACKEND}: Keras has several processes on JAX only",
)
def test_two_processes_on_jax(tmp_path):
    # A session of its own: whatever it starts is ended with it.
    started = subprocess.Popen(
        [sys.executable, EXAMPLE, "--folder", tmp_path],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        output, errors = started.communicate(timeout=300)
    finally:
        # SIGKILL: JAX's coordinator waits for its peers on SIGTERM.
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)
    assert started.returncode == 0, errors[-3000:]
    assert output.count("restored: True") == 2
    first, second = (
        json.loads((tmp_path / f"process_{rank}.json").read_text("utf-8"))
        for rank in (0, 1)
    )
    assert first == second  # to the bit

    batches = in_batches(*digits(1600), 32)
    rates, momenta = one_cycle_values(0.2, 100)
    np.testing.assert_allclose(first["rates"], rates, rtol=1e-5, atol=1e-9)
    losses, weights = by_hand(2 * batches, rates, momenta)
    assert relative_error([np.array(w) for w in first["weights"]], weights) < 2e-6
    swept = len(first["losses"])
    expected, _ = by_hand(
        (2 * batches)[:swept], first["learning_rates"], np.full(swept, 0.9)
    )
    calm = swept // 2  # from some rate on rounding grows
    np.testing.assert_allclose(first["losses"][:calm], expected[:calm], rtol=1e-5)
    assert 0.01 < first["suggestion"] < 10

    logs = tmp_path / "logs"
    assert sorted(path.name for path in logs.iterdir()) == ["range_test", "schedules"]
    for run in logs.iterdir():
        assert len(list(run.glob("*tfevents*"))) == 1
    events = EventAccumulator(str(logs / "schedules"), size_guidance={"scalars": 0})
    events.Reload()
    assert [e.step for e in events.Scalars("schedule/loss")] == list(range(100))
    recorded = [e.value for e in events.Scalars("schedule/loss")]
    np.testing.assert_allclose(recorded, losses, rtol=1e-5)


def by_hand(batches, rates, momenta):
    """The loss of each whole batch before its update, and the weights at the end."""
    weights = [np.zeros((64, 10)), np.zeros(10)]
    velocity = [np.zeros_like(w) for w in weights]
    losses = []
    for step, (x, y) in enumerate(batches):
        logits = x @ weights[0] + weights[1]
        own = logits[np.arange(len(y)), y]
        losses.append(np.mean(np.log(np.exp(logits).sum(axis=1)) - own))
        weights = sgd_loop(
            [(x, y)], rates[step : step + 1], momenta[step : step + 1],
            weights=weights, velocity=velocity,
        )  # fmt: skip
    return losses, weights
