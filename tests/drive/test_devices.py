"""Two devices make the steps that one makes, are recorded once, and are put back both.

What is compared is made in a process of its own: see `two_devices.py`.
"""

import json
import os
import subprocess
import sys

import pytest
from helpers import BACKEND, SUPPORT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        BACKEND not in ("tensorflow", "jax"),
        reason=f"KERAS_BACKEND={BACKEND}: one device",
    ),
]

SCRIPT = SUPPORT / "two_devices.py"
ROUNDING = 1e-6  # a float32 has 6e-8
STEPS = list(range(22))


def on_two_devices(*parts):
    done = subprocess.run(
        [sys.executable, SCRIPT, *parts],
        env={**os.environ, "KERAS_BACKEND": BACKEND},
        capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_schedules_on_two_devices():
    found = on_two_devices("cycle", "layers")
    for block, cycle in zip((1, 4), found["cycle"], strict=True):
        made = STEPS if block == 1 else [3, 7, 10, 14, 18, 21]
        assert cycle["counts"] == [[step + 1] * 2 for step in made]
        assert cycle["steps"] == [STEPS] * 3  # and not one for each device
        assert max(cycle["rates on devices"], cycle["rates recorded"]) < ROUNDING
        assert cycle["momenta recorded"] < ROUNDING
        assert cycle["losses"] < ROUNDING  # the whole batch's
        assert cycle["weights by hand"] < ROUNDING
        assert cycle["weights on one device"] < ROUNDING
    layers = found["layers"]
    assert layers["same beginning"] == 0
    assert layers["same tags"]
    assert layers["steps"] == [STEPS] * len(layers["steps"])
    assert layers["records"] < ROUNDING
    assert layers["rate of below"] < ROUNDING
    assert layers["weights on one device"] < ROUNDING


def test_range_tests_on_two_devices():
    found = on_two_devices("sweep", "restore")
    for sweep in found["sweep"]:
        assert sweep["losses"] < ROUNDING
        assert sweep["values"] < ROUNDING
        assert sweep["weights"] == 0
    restored = found["restore"]
    assert restored["copies"] == [2]
    # Where the copies are not equal, each has to be put back.
    means = [path for path in restored["drift"] if path.endswith("moving_mean")]
    assert len(means) == (BACKEND == "tensorflow")
    assert restored["not put back"] == []
    assert len(restored["changed by a fit"]) > 20
    assert restored["other than without"] == []
