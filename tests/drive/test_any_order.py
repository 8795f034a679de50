"""Whatever came before, each update has its rate: see `any_order`."""

from __future__ import annotations

import os

import pytest
from any_order import AnyOrder
from helpers import BACKEND
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

_MORE = os.environ.get("TFSCHEDULES_ANY_ORDER_EXAMPLES")
# About a minute: TensorFlow takes longer to trace than JAX.
_EXAMPLES = 24 if BACKEND == "jax" else 20


@pytest.mark.slow
@pytest.mark.skipif(BACKEND == "torch", reason="there are no groups on torch")
@pytest.mark.filterwarnings("ignore:The schedule of .* reaches its end at step")
def test_any_order_of_uses_gives_every_update_its_rate() -> None:
    """TFSCHEDULES_ANY_ORDER_EXAMPLES=1000 looks further, in another way each time."""
    run_state_machine_as_test(
        AnyOrder,
        settings=settings(
            max_examples=int(_MORE or _EXAMPLES),
            derandomize=_MORE is None,
            database=None,
            deadline=None,
            stateful_step_count=15,
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        ),
    )
