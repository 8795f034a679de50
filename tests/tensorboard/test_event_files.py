"""Files and folders of runs: what is in the way, disks that fill, kills, locks."""

from __future__ import annotations

import gc
import os
import shutil
import struct
import sys
from pathlib import Path

import pytest
from event_files import run_python
from tensorboard.compat.tensorflow_stub.io import gfile
from written_events import NOW, found, outcome, steps_of, write

from tfschedules.tensorboard import EventWriter, find_run, last_step, new_run

pytestmark = pytest.mark.any_backend


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
