"""What the tests of estimators share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# Canned Estimators are made of legacy Keras; read when tf.keras is first used.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    from sessions import v1

    level = v1.logging.get_verbosity()
    v1.logging.set_verbosity(v1.logging.ERROR)
    yield
    v1.logging.set_verbosity(level)
