"""What every test needs before Keras, TensorFlow or matplotlib is imported."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# The networks of the tests are small: more threads only wait for one another.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "2")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "2")
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("MPLBACKEND", "agg")
# A third of the time on JAX. `.ci/run` has them on where steps are compared with NumPy.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import gc
import importlib.util
import logging
from collections.abc import Iterator
from typing import Any

import pytest

# What tests import, and scripts for processes of their own.
collect_ignore = ["support"]
collect_ignore_glob = ["*/conftest.py"]  # no doctests, and one module's name for all

_ON_TENSORFLOW = (
    os.environ["KERAS_BACKEND"] == "tensorflow"
    and importlib.util.find_spec("tensorflow") is not None
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip TensorFlow's own tests where another backend is used or it is missing."""
    if _ON_TENSORFLOW:
        return
    backend = os.environ["KERAS_BACKEND"]
    skip = pytest.mark.skip(reason=f"needs TensorFlow; KERAS_BACKEND={backend}")
    for item in items:
        if item.get_closest_marker("tensorflow"):
            item.add_marker(skip)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: tests wait for servers and for processes."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_finish() -> None:
    """Spare the garbage collector what stays until the end anyway.

    TensorFlow's modules and thousands of collected tests are a million objects; tracing
    makes cycles enough to have them all looked through again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


class _Kept(logging.Handler):
    """Keeps messages."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "tfschedules":  # others under it are logs of their own
            self.messages.append(record.getMessage())


@pytest.fixture(autouse=True)
def told() -> Iterator[list[str]]:
    """What was told where warnings are errors: nothing, or the test clears the list.

    Such a warning ends no training, and so no test. Here it does.
    """
    kept, log = _Kept(), logging.getLogger("tfschedules")
    log.addHandler(kept)
    yield kept.messages
    log.removeHandler(kept)
    assert kept.messages == []


@pytest.fixture(scope="session", autouse=True)
def _compiled_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let XLA compile the same step of another model once: the most of the time on JAX.

    In a folder of this process: JAX does not write whole files at once, and tests kill
    their children.
    """
    if os.environ["KERAS_BACKEND"] != "jax":
        return
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    folder = str(tmp_path_factory.mktemp("compiled"))
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    compilation_cache.reset_cache()  # what is imported may have compiled already


@pytest.fixture(scope="session", autouse=True)
def _data_are_not_tuned() -> Iterator[None]:
    """Leave out the thread with which tf.data tunes each pipeline.

    It sleeps, and an iterator that is thrown away waits for it: a tenth of a second to
    a third for each fit, in which the garbage collector stands still.
    """
    if not _ON_TENSORFLOW:
        yield
        return
    import tensorflow as tf

    plain = tf.data.Dataset.__iter__
    options = tf.data.Options()
    options.autotune.enabled = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            tf.data.Dataset, "__iter__", lambda data: plain(data.with_options(options))
        )
        yield


@pytest.fixture(scope="session")
def tensorboards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The TensorBoard servers of all tests, ended with them."""
    from tensorboard_server import Servers

    servers = Servers(tmp_path_factory.mktemp("tensorboards"))
    yield servers
    servers.stop()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The browser of all tests; without one they are skipped."""
    from schedules_page import Page

    page = Page(tmp_path_factory.mktemp("downloads"))
    yield page
    page.quit()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """The browser; at the end nothing may have gone wrong in its console."""
    yield chromium
    assert chromium.console() == []
