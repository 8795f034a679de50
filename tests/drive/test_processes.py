"""Two processes on the loopback address train one model, and one of them records it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers import (
    BACKEND,
    ROOT,
    SUPPORT,
    digits,
    in_batches,
    one_cycle_values,
    relative_error,
    sgd_loop,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from two_processes import train

EXAMPLE = ROOT / "examples" / "jax_two_processes.py"


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        BACKEND != "jax",
        reason=f"KERAS_BACKEND={BACKEND}: Keras has several processes on JAX only",
    ),
]


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
    recorded = read(logs)
    assert recorded["schedule/loss"][0] == list(range(100))
    np.testing.assert_allclose(recorded["schedule/loss"][1], losses, rtol=1e-5)


def test_rates_for_layers_and_unfreezing_in_two_processes(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"  # free a moment later
    command = [sys.executable, SUPPORT / "two_processes.py"]
    processes = [
        subprocess.Popen([*command, rank, address, tmp_path]) for rank in ("0", "1")
    ]
    try:
        alone = train(tmp_path / "one")
        ends_at = time.monotonic() + 240
        status = [p.wait(max(ends_at - time.monotonic(), 0)) for p in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert status == [0, 0]
    first, second = (
        [*np.load(tmp_path / f"process_{rank}.npz").values()] for rank in (0, 1)
    )
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    assert relative_error(first, alone) < 1e-6
    of_two, of_one = read(tmp_path / "two"), read(tmp_path / "one")
    assert of_two.keys() == of_one.keys()
    for tag, (steps, values) in of_two.items():
        assert steps == list(range(20))
        np.testing.assert_allclose(values, of_one[tag][1], rtol=1e-5)
    np.testing.assert_allclose(
        of_two["schedule/learning_rate/below"][1],
        0.3 * np.linspace(0.02, 0, 21)[:-1],
        rtol=1e-5,
    )


def read(log_dir):
    """Steps and values of every tag of the run that a fit has written."""
    events = EventAccumulator(str(log_dir / "schedules"), size_guidance={"scalars": 0})
    events.Reload()
    found = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    return {
        tag: ([event.step for event in those], [event.value for event in those])
        for tag, those in found.items()
    }


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
