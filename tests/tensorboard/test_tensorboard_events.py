"""Event files, read back with TensorBoard's own readers and its own server."""

from __future__ import annotations

import gc
import io
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from pathlib import Path

import numpy as np
import pytest
from event_files import accumulated, run_python
from hypothesis import given, settings, strategies as st
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.compat.tensorflow_stub import errors
from tensorboard.compat.tensorflow_stub.io import gfile
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import (
    PyRecordReader_New,
    masked_crc32c,
)
from tensorboard.summary.writer.record_writer import RecordWriter

from tfschedules.tensorboard import EventWriter, find_run, last_step, new_run, wire

TAGS = ("schedule/learning_rate", "schedule/momentum", "schedule/loss")
NOW = 1.7e9
STATE, OTHER = "5ca1ab1e" * 4, "f00d" * 8  # fingerprints


def png(width: int = 3, height: int = 2) -> bytes:
    """A black picture, put together from the PNG specification."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress((b"\0" + bytes(width)) * height)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def write(run_dir: Path | str, steps, tags=TAGS, seed: int = 0) -> dict:
    """Write random values at `steps`, and return what was written."""
    steps = np.asarray(steps)
    rng = np.random.default_rng(seed)
    values = {tag: rng.lognormal(size=len(steps)) for tag in tags}
    with EventWriter(run_dir) as writer:
        writer.scalars(steps, NOW + steps * 0.5, values)
    return values


def events(path: Path | str) -> list[event_pb2.Event]:
    """All events of a file, through the reader that verifies every checksum."""
    reader, found = PyRecordReader_New(str(path)), []
    while True:
        try:
            reader.GetNext()
        except errors.OutOfRangeError:
            return found
        found.append(event_pb2.Event.FromString(reader.curr_event))


def steps_of(run_dir: Path | str, tag: str = TAGS[0]) -> list[int]:
    return [point.step for point in accumulated(run_dir).Scalars(tag)]


def outcome(child: subprocess.Popen) -> tuple[int, str]:
    """The exit status of a child, and all it said."""
    out, error = child.communicate(timeout=60)
    return child.returncode, out + error


def found(log_dir: Path | str, step: int, *state: str) -> str:
    """The folder of the run that a training goes on in."""
    return find_run(log_dir, "schedules", step, *state).journal.run_dir


def locked(run_dir: Path | str) -> bool:
    """Whether another process would be kept out of a folder."""
    fcntl = pytest.importorskip("fcntl", reason="no locks there, as documented")
    folder = os.open(run_dir, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(folder)
    return False


# ------------------------------------------------------------------------- bytes


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_records_are_byte_for_byte_those_of_the_protos(data):
    steps = sorted(
        data.draw(
            st.sets(
                st.one_of(
                    st.integers(0, 300),
                    st.integers(0, 2**63 - 1),
                    st.sampled_from(
                        [2 ** (7 * k) + d for k in range(9) for d in (-1, 0)]
                    ),
                ),
                min_size=1,
                max_size=20,
            )
        )
    )
    tags = data.draw(
        st.lists(st.text(max_size=200), min_size=1, max_size=5, unique=True)
    )
    exactly = {"min_size": len(steps), "max_size": len(steps)}
    numbers = st.floats(width=32)
    times = data.draw(st.lists(st.floats(1e-300, 1e300), **exactly))
    values = {tag: data.draw(st.lists(numbers, **exactly)) for tag in tags}

    expected = io.BytesIO()
    for place, step in enumerate(steps):
        event = event_pb2.Event(wall_time=times[place], step=step)
        for tag in tags:
            event.summary.value.add(tag=tag, simple_value=values[tag][place])
        RecordWriter(expected).write(event.SerializeToString())

    made = wire.scalar_records(*wire.checked_series(steps, times, values))
    assert made == expected.getvalue()


@pytest.mark.parametrize("length", [4, 5, 8, 131, 1000])
@pytest.mark.parametrize("count", [1, 511, 512, 513])
def test_checksums_are_tensorboards(length, count):
    messages = np.random.default_rng(length).integers(0, 256, (count, length), np.uint8)
    some = [0, count // 2, count - 1]
    crcs = wire._masked_crcs(messages)
    assert [int(crcs[i]) for i in some] == [
        masked_crc32c(messages[i].tobytes()) for i in some
    ]


# ----------------------------------------------------------------------- scalars


def test_every_step_is_read_back_once_with_all_its_values(tmp_path):
    steps = np.arange(12_345)
    values = write(tmp_path, steps)
    read = accumulated(tmp_path)
    assert set(read.Tags()["scalars"]) == set(TAGS)
    for tag in TAGS:
        points = read.Scalars(tag)
        assert [point.step for point in points] == steps.tolist()
        np.testing.assert_array_equal(
            [point.value for point in points], values[tag].astype(np.float32)
        )
        assert [point.wall_time for point in points] == (NOW + steps * 0.5).tolist()


def test_one_event_a_step_after_the_version(tmp_path):
    with EventWriter(tmp_path) as writer:
        writer.scalars([7, 9], [NOW, NOW + 1], {"a": [1, 2], "b": [3, 4]})
    version, first, second = events(writer.path)
    assert version.file_version == "brain.Event:2"
    assert abs(version.wall_time - time.time()) < 60
    assert (first.step, second.step) == (7, 9)
    assert [(v.tag, v.simple_value) for v in second.summary.value] == [
        ("a", 2),
        ("b", 4),
    ]


def test_a_step_of_four_values_stays_below_200_bytes(tmp_path):
    tags = ["learning_rate", "momentum", "weight_decay", "loss"]
    with EventWriter(tmp_path) as writer:
        empty = Path(writer.path).stat().st_size
        steps = np.arange(10**9, 10**9 + 50)
        writer.scalars(steps, NOW + steps, {f"schedule/{t}": np.ones(50) for t in tags})
        assert (Path(writer.path).stat().st_size - empty) / 50 <= 200


def test_nan_and_infinities_are_kept_and_too_large_becomes_infinite(tmp_path):
    values = [np.nan, np.inf, -np.inf, 1e300, -0.0]
    with EventWriter(tmp_path) as writer:
        writer.scalars(np.arange(5), np.full(5, NOW), {"loss": values})
    read = [point.value for point in accumulated(tmp_path).Scalars("loss")]
    np.testing.assert_array_equal(read, [np.nan, np.inf, -np.inf, np.inf, -0.0])


def test_unicode_and_odd_tags_come_back(tmp_path):
    tags = ("schedule/学習率", 'a "quoted" <b>', "Äé/🙂")
    write(tmp_path, [0, 1], tags)
    assert set(accumulated(tmp_path).Tags()["scalars"]) == set(tags)


def test_blocks_of_any_size_and_changing_tags_go_on(tmp_path):
    with EventWriter(tmp_path) as writer:
        writer.scalars(range(3), [NOW] * 3, {"a": [1, 2, 3]})
        writer.scalars([], [], {"a": []})
        writer.scalars(np.arange(3, 4, dtype=np.uint8), [NOW], {"a": [4], "b": [0]})
        writer.scalars(np.int32([200]), [NOW], {"b": [1]})
    assert steps_of(tmp_path, "a") == [0, 1, 2, 3]
    assert steps_of(tmp_path, "b") == [3, 200]


# ------------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([5, 6], "Received: step 5 after step 5"),
        ([4], "Received: step 4 after step 5"),
        ([6, 8, 7], "Received: step 7 after step 8"),
        ([6, 6], "Received: step 6 after step 6"),
        ([-3, 6], "Received: step -3 after step 5"),
    ],
)
def test_steps_never_go_back(tmp_path, steps, message):
    with EventWriter(tmp_path) as writer:
        writer.scalars([0, 5], [NOW, NOW], {"a": [1, 2]})
        with pytest.raises(ValueError, match=message):
            writer.scalars(steps, [NOW] * len(steps), {"a": np.ones(len(steps))})
        writer.scalars([6], [NOW], {"a": [3]})
    assert steps_of(tmp_path, "a") == [0, 5, 6]


@pytest.mark.parametrize(
    ("steps", "times", "values", "error", "message"),
    [
        ([0.0, 1.0], [1, 2], {"a": [1, 2]}, TypeError, "must be .* integers.*float64"),
        ([True], [1], {"a": [1]}, TypeError, "integers.*bool"),
        ([[0]], [[1]], {"a": [[1]]}, TypeError, r"one-dimensional.*shape \(1, 1\)"),
        ([0, 1], [1], {"a": [1, 2]}, ValueError, r"'wall_times' must .*shape \(1,\)"),
        ([0, 1], [1, 2], {"a": [1]}, ValueError, r"'a' must .*shape \(1,\)"),
        ([0], [np.nan], {"a": [1]}, ValueError, "`wall_times` must be finite.*nan"),
        ([0], [1], {}, ValueError, "`values` must hold at least one tag"),
        ([-1], [1], {"a": [1]}, ValueError, "from 0 on. Received: step -1"),
    ],
)
def test_wrong_series_are_refused_and_write_nothing(
    tmp_path, steps, times, values, error, message
):
    with EventWriter(tmp_path) as writer:
        before = Path(writer.path).read_bytes()
        with pytest.raises(error, match=message):
            writer.scalars(steps, times, values)
        assert Path(writer.path).read_bytes() == before


def test_a_closed_writer_says_so_and_closes_again(tmp_path):
    writer = EventWriter(tmp_path)
    writer.close()
    writer.close()
    writer.flush()
    assert writer.closed
    with pytest.raises(ValueError, match=r"is closed\. Make a new one"):
        writer.scalars([0], [NOW], {"a": [1]})


# --------------------------------------------------------------- image and text


def test_image_and_text_carry_their_plugins(tmp_path):
    picture = png()
    with EventWriter(tmp_path) as writer:
        writer.image("range_test", picture, 3, 2, step=99)
        writer.text("report", "**fünf** `1e-3`", step=99)
    read = accumulated(tmp_path)
    assert set(read.Tags()["tensors"]) == {"range_test", "report"}
    assert set(read.PluginTagToContent("images")) == {"range_test"}
    assert set(read.PluginTagToContent("text")) == {"report"}
    (image,) = read.Tensors("range_test")
    assert image.step == 99
    assert list(image.tensor_proto.string_val) == [b"3", b"2", picture]
    (text,) = read.Tensors("report")
    assert list(text.tensor_proto.string_val) == ["**fünf** `1e-3`".encode()]
    kinds = [
        event.summary.value[0].metadata.data_class for event in events(writer.path)[1:]
    ]
    assert kinds == [
        summary_pb2.DATA_CLASS_BLOB_SEQUENCE,
        summary_pb2.DATA_CLASS_TENSOR,
    ]


def test_images_may_follow_at_the_last_step_but_not_go_back(tmp_path):
    with EventWriter(tmp_path) as writer:
        writer.scalars([0, 5], [NOW, NOW], {"a": [1, 2]})
        writer.image("curve", png(), 3, 2, step=5)
        writer.scalars([6], [NOW], {"a": [3]})
        with pytest.raises(ValueError, match="step 4 after step 5 of 'curve'"):
            writer.image("curve", png(), 3, 2, step=4)
    assert last_step(tmp_path) == 6


def test_wrong_images_are_refused(tmp_path):
    with EventWriter(tmp_path) as writer:
        with pytest.raises(TypeError, match=r"`png` must be bytes.*Received: str"):
            writer.image("curve", "picture.png", 3, 2, step=0)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="must be a PNG picture"):
            writer.image("curve", b"GIF89a", 3, 2, step=0)
        with pytest.raises(ValueError, match="`width` must be >= 1"):
            writer.image("curve", png(), 0, 2, step=0)
        with pytest.raises(ValueError, match="`step` must be >= 0"):
            writer.text("report", "text", step=-1)


# ------------------------------------------------------------------------- files


def test_a_file_in_the_way_is_an_error_at_construction(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OSError, match=r"Cannot write event files .*file.*Give a"):
            EventWriter(place)
    with pytest.raises(OSError, match=r"Cannot write event files to .*file"):
        find_run(tmp_path / "file", "run", 0)
    with pytest.raises(OSError, match=r"Cannot write event files to .*file"):
        new_run(tmp_path / "file", "range_test")


def test_no_path_and_an_unknown_remote_one_are_errors():
    with pytest.raises(TypeError, match="`run_dir` must be the path"):
        EventWriter("")
    with pytest.raises(TypeError, match="`log_dir` must be the path"):
        find_run("", "schedules", 0)
    with pytest.raises(OSError, match=r"nosuchscheme://b/run.*pip install fsspec"):
        EventWriter("nosuchscheme://b/run")


def test_a_disk_full_at_the_start_is_an_error_that_keeps_no_lock(tmp_path, monkeypatch):
    def no_space(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(gfile.GFile, "write", no_space)
        with pytest.raises(
            OSError, match=r"No space left on device\. Give a `log_dir`"
        ):
            EventWriter(tmp_path)
    assert not locked(tmp_path)
    write(tmp_path, [0])


FULL_DISK = """
import resource, signal, sys
import numpy as np
from tfschedules.tensorboard import EventWriter

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = EventWriter(sys.argv[1])
writer.scalars(range(10), [1.7e9] * 10, {"a": np.ones(10)})
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
block = (range(10, 99), [1.7e9] * 89, {"a": np.ones(89)})
try:
    writer.scalars(*block)
except OSError as error:
    assert "Cannot write event files" in str(error), error
else:
    sys.exit("no error")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
writer.scalars(*block)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX")
def test_a_full_disk_leaves_no_half_record_and_writing_may_go_on(tmp_path):
    assert outcome(run_python(FULL_DISK, tmp_path)) == (0, "")
    assert steps_of(tmp_path, "a") == [*range(99)]


KILLED = """
import os, sys
import numpy as np
from tfschedules.tensorboard import EventWriter

writer = EventWriter(sys.argv[1])
for block in range(5):
    steps = np.arange(100 * block, 100 * block + 100)
    writer.scalars(steps, 1.7e9 + steps, {"a": steps * 1.0})
    writer.flush()
os._exit(9)
"""


def test_a_killed_process_has_written_all_it_flushed(tmp_path):
    assert outcome(run_python(KILLED, tmp_path)) == (9, "")
    assert steps_of(tmp_path, "a") == [*range(500)]
    assert last_step(tmp_path) == 499


@pytest.mark.parametrize("lost", [1, 4, 20, 60])
def test_a_truncated_file_loads_and_the_next_fit_goes_on(tmp_path, lost):
    run_dir = tmp_path / "schedules"
    write(run_dir, range(100))
    (path,) = run_dir.iterdir()
    path.write_bytes(path.read_bytes()[:-lost])
    assert steps_of(run_dir) == [*range(99)]
    assert last_step(run_dir) == 98
    write(run_dir, range(99, 150))
    assert steps_of(run_dir) == [*range(150)]


def test_last_step_of_nothing_and_of_garbage(tmp_path):
    assert last_step(tmp_path / "nowhere") is None
    assert last_step(tmp_path) is None
    (tmp_path / "events.out.tfevents.0000000001.host").write_bytes(b"")
    (tmp_path / "events.out.tfevents.0000000002.host").write_bytes(b"\xff" * 500)
    frame = struct.pack("<QI", 3, 0) + b"\xff\xff\xff" + bytes(4)
    (tmp_path / "events.out.tfevents.0000000003.host").write_bytes(frame)
    (tmp_path / "notes.txt").write_text("not events")
    EventWriter(tmp_path).close()
    assert last_step(tmp_path) is None
    write(tmp_path, [3, 700])
    assert last_step(tmp_path) == 700


def test_a_new_file_sorts_behind_those_that_are_there(tmp_path):
    future = tmp_path / "events.out.tfevents.4000000000.elsewhere.1.0.v2"
    future.write_bytes(b"")
    with EventWriter(tmp_path) as first:
        pass
    with EventWriter(tmp_path) as second:
        assert future.name < Path(first.path).name < Path(second.path).name


# ------------------------------------------------------------------- run folders


def test_new_run_takes_the_first_free_name(tmp_path):
    (tmp_path / "range_test_1").write_text("a file")
    names = [Path(new_run(tmp_path / "", "range_test")).name for _ in range(3)]
    assert names == ["range_test", "range_test_2", "range_test_3"]


HOLDER = """
import sys
from tfschedules.tensorboard import EventWriter, find_run

sys.stdin.readline()
run_dir = find_run(sys.argv[1], "schedules", 0).journal.run_dir
print(run_dir, flush=True)
sys.stdin.readline()
writer = EventWriter(run_dir)
print("open", flush=True)
sys.stdin.readline()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there, as documented")
def test_processes_do_not_share_a_run(tmp_path):
    children = [run_python(HOLDER, tmp_path) for _ in range(4)]
    try:
        for child in children:  # all at once
            child.stdin.write("go\n")
            child.stdin.flush()
        runs = {child: child.stdout.readline().strip() for child in children}
        expected = [str(tmp_path / f"schedules{end}") for end in ("", "_1", "_2", "_3")]
        assert sorted(runs.values()) == expected
        assert found(tmp_path, 0) == str(tmp_path / "schedules_4")

        (holder,) = [child for child in children if runs[child] == expected[0]]
        holder.stdin.write("open\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(BlockingIOError, match="another process writes there"):
            EventWriter(expected[0])
        holder.kill()  # a killed process leaves no lock behind
        holder.wait(30)
        assert not locked(expected[0])
    finally:
        for child in children:
            child.kill()
            child.communicate(timeout=30)


def test_a_process_has_one_writer_in_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_dir = tmp_path / "run"
    with EventWriter(run_dir) as writer:
        writer.scalars([0], [NOW], {"a": [0]})
        for path in (run_dir, "run", "run/", run_dir / ".." / "run"):
            message = r"Cannot write .*run': another writer of this process .*Close it"
            with pytest.raises(BlockingIOError, match=message):
                EventWriter(path)
        writer.scalars([1], [NOW], {"a": [1]})  # it goes on, and keeps others out
        assert locked(run_dir)
    assert len(list(run_dir.iterdir())) == 1
    with EventWriter("run") as writer:
        writer.scalars([2], [NOW], {"a": [2]})
    assert steps_of(run_dir, "a") == [0, 1, 2]


def test_a_writer_stays_in_its_folder(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with EventWriter("run") as writer:
        monkeypatch.chdir("elsewhere")
        writer.scalars([0], [NOW], {"a": [0]})
    assert steps_of(tmp_path / "run", "a") == [0]
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_folder_made_anew_is_another_run(tmp_path):
    run_dir = found(tmp_path, 0)
    with EventWriter(run_dir):
        shutil.rmtree(run_dir)
        assert found(tmp_path, 0) == run_dir
        write(run_dir, [0])


def test_a_writer_that_nobody_closed_gives_its_run_back(tmp_path):
    first = EventWriter(tmp_path)
    first.scalars([0], [NOW], {"a": [0]})
    assert locked(tmp_path)
    del first
    gc.collect()
    assert not locked(tmp_path)
    second = EventWriter(tmp_path)
    second.close()
    with EventWriter(tmp_path) as third:
        third.scalars([1], [NOW], {"a": [1]})
        second.close()
        del second  # gives back once: not what the third has
        gc.collect()
        assert locked(tmp_path)
        with pytest.raises(BlockingIOError, match="another writer of this process"):
            EventWriter(tmp_path)
    assert not locked(tmp_path)
    assert steps_of(tmp_path, "a") == [0, 1]


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
        if event.HasField("summary")
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


# -------------------------------------------------------------------- the package

ALONE = """
import sys
from tfschedules.tensorboard import EventWriter, find_run, last_step, new_run

run_dir = find_run(sys.argv[1], "schedules", 0).journal.run_dir
with EventWriter(run_dir) as writer:
    writer.scalars([0], [1.7e9], {"a": [1.0]})
    writer.text("report", "text", 0)
    writer.image("curve", bytes.fromhex(sys.argv[2]), 3, 2, 0)
assert last_step(new_run(sys.argv[1], "schedules")) is None
print(sorted({"tensorflow", "keras", "jax", "torch"} & {*sys.modules}))
"""


def test_neither_keras_nor_tensorflow_is_imported(tmp_path):
    assert outcome(run_python(ALONE, tmp_path, png().hex())) == (0, "[]\n")


# --------------------------------------------------------------------- the server


def fetch(port: int, route: str, **query: str) -> bytes:
    """Get a route of the server on the loopback address, without any proxy."""
    url = f"http://127.0.0.1:{port}/{route}?{urllib.parse.urlencode(query)}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as answer:
        return answer.read()


def wait_for_tags(port: int, expected: dict[str, set], server, seconds: float) -> None:
    """Poll until every plugin lists the runs expected of it."""
    deadline, found = time.monotonic() + seconds, {}
    while time.monotonic() < deadline and server.poll() is None:
        try:
            for plugin in expected:
                found[plugin] = set(
                    json.loads(fetch(port, f"data/plugin/{plugin}/tags"))
                )
        except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
            found["error"] = error
        if all(found.get(plugin) == runs for plugin, runs in expected.items()):
            return
        time.sleep(0.3)
    pytest.fail(f"TensorBoard shows {found}, not {expected}, within {seconds} s")


def post(port: int, route: str, **body) -> dict:
    """Ask a route of the server that wants a body."""
    url, data = f"http://127.0.0.1:{port}/{route}", json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        return json.loads(answer.read())


def rows_of(port: int) -> dict[str, dict]:
    """The rows of the HParams tab, as it asks for them."""
    everything = ["UNKNOWN", "SUCCESS", "FAILURE", "RUNNING"]
    answer = post(
        port,
        "data/plugin/hparams/session_groups",
        experimentName="",
        allowedStatuses=[f"STATUS_{status}" for status in everything],
        colParams=[
            {"hparam": "max_lr", "filterInterval": {"minValue": 0.2, "maxValue": 9}}
        ],
        startIndex=0,
        sliceSize=100,
        aggregationType="AGGREGATION_AVG",
    )
    return {group["name"]: group for group in answer["sessionGroups"]}


@pytest.fixture(scope="module")
def logs_of_fits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of real fits: beside Keras's own logger, and one that diverges."""
    import keras
    from helpers import BACKEND, digits, softmax_regression

    import tfschedules as tfs

    folder = tmp_path_factory.mktemp("logs")
    x, y = digits(640)
    model = softmax_regression(keras.optimizers.SGD(0.1, momentum=0.9))
    # Keras's own fails on JAX, without TensorFlow.
    board = keras.callbacks.TensorBoard(folder, update_freq="batch", write_graph=False)
    boards = [board] if BACKEND == "tensorflow" else []
    for rate, data in ((0.5, x), (0.1, x), (0.3, np.full_like(x, np.nan))):
        if rate == 0.3:
            model = softmax_regression(keras.optimizers.SGD(0.1, momentum=0.9))
            boards = []
        callbacks = [tfs.OneCycle(rate), *boards, tfs.TensorBoardLogger(folder)]
        model.fit(data, y, batch_size=64, epochs=2, verbose=0, callbacks=callbacks)
    return folder


@pytest.mark.parametrize("load_fast", ["auto", "false"])
def test_tensorboard_shows_scalars_image_text_and_rows(
    tmp_path, load_fast, logs_of_fits
):
    shutil.copytree(logs_of_fits, tmp_path / "fits")
    run_dir = found(tmp_path, 0)
    with EventWriter(run_dir) as writer:
        steps = np.arange(100)
        writer.scalars(steps, NOW + steps, {"rate": steps / 8, "loss": np.sqrt(steps)})
        writer.image("curve", png(), 3, 2, step=0)  # behind the scalars
        writer.text("report", "a **bold** word", step=0)
    path = Path(writer.path)
    path.write_bytes(path.read_bytes() + path.read_bytes()[-100:-30])  # killed here
    with EventWriter(run_dir) as writer:
        steps = np.arange(100, 200)
        writer.scalars(steps, NOW + steps, {"rate": steps / 8, "loss": np.sqrt(steps)})

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (tmp_path / "server.log").open("w")
    arguments = ["--logdir", str(tmp_path), "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tensorboard.main",
            *arguments,
            f"--load_fast={load_fast}",
        ],
        stdout=log,
        stderr=log,
    )
    try:
        runs = {"schedules"}
        of_fits = {f"fits/schedules{end}" for end in ("", "/fit_2", "_1")}
        if (tmp_path / "fits" / "train").exists():
            of_fits |= {"fits/train"}
        expected = {"scalars": runs | of_fits, "images": runs, "text": runs}
        wait_for_tags(port, expected, server, seconds=60)
        deadline = time.monotonic() + 20
        while True:
            route = {"run": "schedules", "tag": "loss"}
            points = json.loads(fetch(port, "data/plugin/scalars/scalars", **route))
            if len(points) == 200 or time.monotonic() > deadline:
                break
            time.sleep(0.3)
        assert [point[1] for point in points] == [*range(200)]
        assert [point[0] for point in points] == [NOW + step for step in range(200)]
        np.testing.assert_allclose(
            [point[2] for point in points], np.sqrt(np.arange(200)), rtol=1e-6
        )
        route = {"run": "schedules", "tag": "curve", "sample": "0"}
        (image,) = json.loads(fetch(port, "data/plugin/images/images", **route))
        assert image["step"] == 0
        query = dict(urllib.parse.parse_qsl(image["query"]))
        assert fetch(port, "data/plugin/images/individualImage", **query) == png()
        route = {"run": "schedules", "tag": "report"}
        (text,) = json.loads(fetch(port, "data/plugin/text/text", **route))
        assert "<strong>bold</strong>" in text["text"]

        def points_of(run, tag):
            route = {"run": f"fits/{run}", "tag": tag}
            return json.loads(fetch(port, "data/plugin/scalars/scalars", **route))

        losses = points_of("schedules", "schedule/loss")
        assert [point[1] for point in losses] == [*range(40)]
        if "fits/train" in of_fits:  # Keras counts a second fit from 0 again
            assert len(points_of("train", "batch_loss")) >= 20
        rows = rows_of(port)
        assert {name: row["hparams"]["max_lr"] for name, row in rows.items()} == {
            "fits/schedules": 0.5,
            "fits/schedules_1": 0.3,  # not 0.1: the tab has filtered the rows
        }
        for name, row in rows.items():
            assert row["hparams"]["schedule"] == "OneCycle"
            assert row["sessions"][0]["status"] == "STATUS_SUCCESS"
            shown = {v["name"]["tag"]: v["value"] for v in row["metricValues"]}
            last = losses[-1][2] if name == "fits/schedules" else "NaN"
            assert shown["schedule/loss"] == last
    except BaseException:
        sys.stderr.write((tmp_path / "server.log").read_text())
        raise
    finally:
        server.kill()
        server.wait(30)
        log.close()
