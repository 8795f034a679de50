"""The guide to Estimators runs as written, where there are Estimators."""

import os

import pytest
from pages import ROOT, run

# Canned Estimators are made of legacy Keras; read when tf.keras is first used.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

tf = pytest.importorskip("tensorflow", reason="needs TensorFlow")


@pytest.mark.tensorflow
@pytest.mark.skipif(
    not hasattr(tf, "estimator") and "TFSCHEDULES_NEEDS_ESTIMATOR" not in os.environ,
    reason="needs tf.estimator, which TensorFlow has up to 2.15",
)
def test_the_guide_runs_as_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(ROOT / "docs/estimator.md", "py")
