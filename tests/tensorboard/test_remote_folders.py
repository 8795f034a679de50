"""Event files in folders that TensorBoard's own file layer reaches."""

from __future__ import annotations

import numpy as np
import pytest
from tensorboard.compat.tensorflow_stub.io import gfile
from written_events import NOW, found

from tfschedules.tensorboard import EventWriter, find_run, last_step, new_run, wire

pytestmark = pytest.mark.any_backend

STATE, OTHER = "5ca1ab1e" * 4, "f00d" * 8  # fingerprints


class Bucket:
    """A remote file system without append, as TensorBoard has for S3."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.full = False

    def exists(self, name):
        return self.isdir(name) or name in self.files

    def stat(self, name):
        return gfile.StatData(len(self.files[name]))

    def isdir(self, name):
        return any(file.startswith(name + "/") for file in self.files)

    def makedirs(self, name):
        self.files.setdefault(name + "/", b"")

    def listdir(self, name):
        paths = [file for file in self.files if file.startswith(name + "/")]
        return [path[len(name) + 1 :] for path in paths if not path.endswith("/")]

    def write(self, name, content, binary_mode=False):
        if self.full:
            raise RuntimeError("quota exceeded")  # of a class of its own, as boto's
        self.files[name.decode()] = content

    def read(self, name, binary_mode=False, size=None, continue_from=None):
        return self.files[name.decode()], None


def test_remote_folders_go_through_tensorboards_file_layer(monkeypatch):
    bucket = Bucket()
    monkeypatch.setitem(gfile._REGISTERED_FILESYSTEMS, "fake", bucket)
    journal = find_run("fake://logs/", "schedules", 0).journal
    run_dir = journal.run_dir
    assert run_dir == "fake://logs/schedules"
    journal.begin(0)
    with EventWriter(run_dir) as writer:
        writer.scalars([0, 1], [NOW, NOW], {"a": [1, 2]})
        writer.flush()
        assert last_step(run_dir) == 1
        with pytest.raises(BlockingIOError, match="another writer of this process"):
            EventWriter(run_dir + "/")
        journal.note_state(2, STATE)
        assert found("fake://logs", 2, STATE) == "fake://logs/schedules_1"
        writer.scalars([2], [NOW], {"a": [3]})
    assert last_step(run_dir) == 2
    journal.note_state(3, OTHER)
    assert find_run("fake://logs", "schedules", 2, STATE).undone == 3
    journal.end(3)
    assert found("fake://logs", 3, OTHER) == run_dir
    assert found("fake://logs", 2, STATE) == "fake://logs/schedules_1"
    assert new_run("fake://logs", "range_test") == "fake://logs/range_test"
    assert new_run("fake://logs", "range_test") == "fake://logs/range_test_1"
    bucket.full = True
    with pytest.raises(OSError, match="fake://logs/more': quota exceeded"):
        EventWriter("fake://logs/more")


def test_a_long_run_is_not_uploaded_again_and_again(monkeypatch):
    bucket, uploaded = Bucket(), []
    write = bucket.write
    bucket.write = lambda name, content, mode: (
        uploaded.append(len(content)),
        write(name, content, mode),
    )
    monkeypatch.setitem(gfile._REGISTERED_FILESYSTEMS, "fake", bucket)
    with EventWriter("fake://logs") as writer:
        for begin in range(0, 120_000, 1000):
            steps = np.arange(begin, begin + 1000)
            writer.scalars(steps, NOW + steps, {"a": steps})
            writer.flush()
    files = {name: data for name, data in bucket.files.items() if data}
    size = sum(map(len, files.values()))
    assert size > 4e6
    assert sum(uploaded) < 20 * size  # without an end of files it is 60
    found = [
        event.step
        for name in sorted(files)
        for event in wire.whole_events(files[name])
        if [value.tag for value in event.summary.value] == ["a"]  # and no extremes
    ]
    assert found == [*range(120_000)]
    assert last_step("fake://logs") == 119_999


def test_a_file_system_that_fails_at_appending_is_an_error_at_once(monkeypatch):
    class Frozen(Bucket):
        def append(self, *_):
            raise NotImplementedError("objects cannot be changed")

    monkeypatch.setitem(gfile._REGISTERED_FILESYSTEMS, "fake", Frozen())
    with pytest.raises(OSError, match="fake://logs': objects cannot be changed"):
        EventWriter("fake://logs")
