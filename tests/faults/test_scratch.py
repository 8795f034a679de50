"""Folders that go with their process, however it ends, and with no other one."""

from __future__ import annotations

import errno
import fcntl
import gc
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from faulty_files import Fault, every_fault
from injector import Injector

from tfschedules._support import scratch
from tfschedules._support.scratch import Scratch

pytestmark = pytest.mark.any_backend

SCRIPT = """
import os, signal, sys, threading, time
from tfschedules._support.scratch import Scratch

def kept(parent=sys.argv[1]):
    made = Scratch(parent)
    (made.path / "0").write_bytes(bytes(100_000))
    return made

def wait():
    print("waits", flush=True)
    time.sleep(60)
"""


class Process:
    """A process that runs a script, with a folder as its argument, until it waits."""

    def __init__(self, script: str, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT + script, str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.lines: list[str] = []
        for line in self.process.stdout:
            self.lines.append(line.strip())
            if line == "waits\n":
                break

    def end(self, number: int | None = None) -> tuple[int, str]:
        """Its status, after a signal or by itself, and what it has complained about."""
        if number is not None:
            self.process.send_signal(number)
        output, errors = self.process.communicate(timeout=60)
        self.lines += output.split()
        return self.process.returncode, errors


def copies(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def elsewhere(monkeypatch, tmp_path_factory) -> None:
    """As if folders were on a file system that other machines have mounted, too."""
    mounts = tmp_path_factory.mktemp("proc") / "mountinfo"
    text = Path("/proc/self/mountinfo").read_text("utf-8")
    kinds = ("ext4", "xfs", "tmpfs", "overlay")
    for kind in kinds:
        text = text.replace(f" - {kind} ", " - nfs4 ")
    mounts.write_text(text, "utf-8")
    monkeypatch.setattr(scratch, "_MOUNTS", mounts)


def dead_one(folder: Path) -> Path:
    """What a process leaves that is killed."""
    process = Process("copy = kept(); wait()", folder)
    assert process.end(signal.SIGKILL)[0] == -signal.SIGKILL
    (left,) = folder.iterdir()
    assert (left / "0").stat().st_size == 100_000
    return left


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_process_as_ever_and_the_folder_too(tmp_path, number) -> None:
    process = Process("copies = kept(), kept(); wait()", tmp_path)
    assert len(copies(tmp_path)) == 2
    status, errors = process.end(number)
    assert (status, errors) == (-number, "")
    assert copies(tmp_path) == []


def test_a_signal_is_not_caught_on_its_way(tmp_path) -> None:
    script = """
copy = kept()
try:
    wait()
except BaseException:
    print("caught", flush=True)
print("goes on", flush=True)
"""
    process = Process(script, tmp_path)
    assert process.end(signal.SIGTERM)[0] == -signal.SIGTERM
    assert process.lines == ["waits"]
    assert copies(tmp_path) == []


def test_a_handler_of_the_users_is_left_alone(tmp_path) -> None:
    script = """
def ends(*of_the_signal): sys.exit(7)
signal.signal(signal.SIGTERM, ends)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
copy = kept()
print(signal.getsignal(signal.SIGTERM) is ends, signal.getsignal(signal.SIGHUP).name)
os.kill(os.getpid(), signal.SIGHUP)
wait()
"""
    process = Process(script, tmp_path)
    assert process.lines == ["True SIG_IGN", "waits"]
    assert process.end(signal.SIGTERM)[0] == 7
    assert copies(tmp_path) == []


def handlers() -> list[Any]:
    return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]


def test_handlers_are_there_as_long_as_a_folder_is(tmp_path) -> None:
    before = handlers()
    assert before == [signal.SIG_DFL, signal.SIG_DFL]
    first, second = Scratch(tmp_path), Scratch(tmp_path)
    assert signal.SIG_DFL not in handlers()
    first.remove()
    assert signal.SIG_DFL not in handlers()
    second.remove()
    assert handlers() == before
    with pytest.raises(FileNotFoundError, match="missing"):
        Scratch(tmp_path / "missing")
    assert handlers() == before


def test_a_handler_that_was_set_since_stays(tmp_path) -> None:
    made, own = Scratch(tmp_path), lambda *of_the_signal: None
    signal.signal(signal.SIGTERM, own)
    try:
        made.remove()
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_a_handler_that_calls_ours_later_ends_the_process(tmp_path) -> None:
    script = """
copy = kept()
ours = signal.getsignal(signal.SIGTERM)
signal.signal(signal.SIGTERM, lambda *arguments: (print("own"), ours(*arguments)))
copy.remove()
wait()
"""
    process = Process(script, tmp_path)
    assert process.end(signal.SIGTERM)[0] == -signal.SIGTERM


def test_another_thread_sets_no_handlers(tmp_path) -> None:
    made: list[Any] = []
    thread = threading.Thread(target=lambda: made.append(Scratch(tmp_path)))
    thread.start()
    thread.join()
    assert handlers() == [signal.SIG_DFL, signal.SIG_DFL]
    made.pop().remove()
    assert copies(tmp_path) == []


@pytest.mark.parametrize(
    ("end", "status"),
    [("", 0), ("sys.exit(3)", 3), ("1 / 0", 1), ("del copy; os._exit(4)", 4)],
)
def test_every_other_end_removes_it(tmp_path, end, status) -> None:
    process = Process(f"copy = kept(); print(copy.path); {end}", tmp_path)
    assert process.end()[0] == status
    assert len(process.lines) == 1
    assert copies(tmp_path) == []


def test_the_next_one_removes_what_a_killed_process_has_left(tmp_path) -> None:
    left = dead_one(tmp_path)
    (tmp_path / "tfschedules-abc").mkdir()  # somebody else's, of a like name
    (tmp_path / "notes").write_text("mine")
    made = Scratch(tmp_path)
    assert not left.exists()
    made.remove()
    assert copies(tmp_path) == ["notes", "tfschedules-abc"]


def test_the_next_one_does_so_where_other_machines_look_too(
    tmp_path, elsewhere
) -> None:
    left = dead_one(tmp_path)
    Scratch(tmp_path).remove()
    assert not left.exists()


def test_a_living_process_keeps_its_own(tmp_path) -> None:
    process = Process("copy = kept(); wait()", tmp_path)
    (other,) = copies(tmp_path)
    first, second = Scratch(tmp_path), Scratch(tmp_path)
    assert copies(tmp_path) == sorted([other, first.path.name, second.path.name])
    first.remove()
    second.remove()
    assert copies(tmp_path) == [other]
    process.end(signal.SIGTERM)
    assert copies(tmp_path) == []


def renamed(left: Path, **parts: str) -> Path:
    """A folder's name with another boot or another mount in it."""
    before = dict(
        zip(["boot", "mount", "token"], left.name.split("-")[1:], strict=True)
    )
    name = "-".join(["tfschedules", *{**before, **parts}.values()])
    return left.rename(left.with_name(name))


@pytest.mark.parametrize("parts", [{"boot": "0" * 32}, {"mount": "1"}])
def test_what_may_be_another_machines_is_left_alone(tmp_path, elsewhere, parts) -> None:
    """No lock is seen there, and for all that is known its maker is alive."""
    left = renamed(dead_one(tmp_path), **parts)
    Scratch(tmp_path).remove()
    assert (left / "0").stat().st_size == 100_000


def test_what_another_boot_has_left_on_a_disk_of_this_machine(
    tmp_path, monkeypatch
) -> None:
    left = renamed(dead_one(tmp_path), boot="0" * 32)
    kind = {"kind": "ext4"}

    def mounts(self: Path, *arguments: Any) -> str:
        device = tmp_path.stat().st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        return f"1 0 {number} / / rw - {kind['kind']} /dev/vda rw\n"

    with monkeypatch.context() as patched:
        patched.setattr(scratch, "_MOUNTS", type("Mounts", (), {"read_text": mounts})())
        kind["kind"] = "nfs4"
        Scratch(tmp_path).remove()
        assert left.exists()
        kind["kind"] = "ext4"
        Scratch(tmp_path).remove()
    assert not left.exists()


def test_a_lock_counts_also_on_a_disk_of_this_machine(tmp_path) -> None:
    process = Process("copy = kept(); wait()", tmp_path)
    (path,) = tmp_path.iterdir()
    other = renamed(path, boot="0" * 32)
    Scratch(tmp_path).remove()
    assert (other / "0").exists()
    process.end(signal.SIGKILL)
    shutil.rmtree(other)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a folder away")
def test_what_another_user_has_left_is_left_alone(tmp_path) -> None:
    left = dead_one(tmp_path)
    os.chown(left, 65534, 65534)
    Scratch(tmp_path).remove()
    assert left.exists()


def test_no_link_is_followed(tmp_path) -> None:
    left = dead_one(tmp_path)
    (tmp_path / "dear").mkdir()
    (tmp_path / "dear" / "0").write_text("mine")
    shutil.rmtree(left)
    left.symlink_to(tmp_path / "dear")
    Scratch(tmp_path).remove()
    assert (tmp_path / "dear" / "0").read_text() == "mine"


def test_where_there_are_no_locks_nobody_takes_it_for_a_dead_ones(
    tmp_path, monkeypatch
) -> None:
    def refuses(*arguments: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", refuses)
        made = Scratch(tmp_path)
        (made.path / "0").write_text("mine")
    # Locks are there again, and this folder has none.
    Scratch(tmp_path).remove()
    assert copies(tmp_path) == [made.path.name]
    made.remove()
    assert copies(tmp_path) == []


@pytest.mark.parametrize("what", ["_BOOT", "fcntl"])
def test_where_the_machine_has_no_name_nothing_is_removed(
    tmp_path, monkeypatch, what
) -> None:
    left = dead_one(tmp_path)
    monkeypatch.setattr(scratch, what, None if what == "fcntl" else Path("/missing"))
    made = Scratch(tmp_path)
    assert left.exists()
    made.remove()
    assert copies(tmp_path) == [left.name]


def test_one_that_is_taken_away_before_it_is_locked_is_made_anew(
    tmp_path, monkeypatch
) -> None:
    """Another process may look just then, and find a folder that nobody has locked."""
    taken: list[Path] = []
    lock = fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        if not taken:
            taken.extend(tmp_path.iterdir())
            taken[0].rmdir()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    made = Scratch(tmp_path)
    (made.path / "0").write_text("mine")
    assert len(taken) == 1
    assert made.path != taken[0]
    assert signal.SIG_DFL not in handlers()
    assert copies(tmp_path) == [made.path.name]
    made.remove()
    assert copies(tmp_path) == []


def test_one_that_another_process_looks_at_is_made_anew(tmp_path, monkeypatch) -> None:
    looking: list[int] = []
    lock = fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        if not looking:  # another one has opened and locked it first
            looking.append(os.open(next(tmp_path.iterdir()), os.O_RDONLY))
            lock(looking[0], fcntl.LOCK_EX)
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    made = Scratch(tmp_path)
    os.close(looking[0])
    assert copies(tmp_path) == [made.path.name]
    made.remove()
    assert copies(tmp_path) == []


FORKS = {
    "it ends": "",
    "it exits": "sys.exit(0)",
    "it forgets": "del copy",
    "it removes": "copy.remove()",
    "it makes its own": "own = kept(); own.remove(); own = kept()",
}


@pytest.mark.parametrize("name", FORKS)
def test_a_forked_process_leaves_its_parents_alone(tmp_path, name) -> None:
    script = f"""
copy = kept()
child = os.fork()
if child == 0:
    {FORKS[name] or "pass"}
    sys.exit(5)  # runs what is registered for the end
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(sorted(os.listdir(sys.argv[1])) == [copy.path.name], (copy.path / "0").exists())
"""
    process = Process(script, tmp_path)
    assert process.end() == (0, "")
    expected = "0" if name == "it exits" else "5"
    assert " ".join(process.lines) == f"{expected} True True"
    assert copies(tmp_path) == []


def test_sigterm_ends_a_forked_process_at_once(tmp_path) -> None:
    """In the middle of a computation, where Python calls no handlers."""
    script = """
copy = kept()
child = os.fork()
if child == 0:
    print(signal.getsignal(signal.SIGTERM).name, flush=True)
    10 ** 10 ** 9  # one operation
os.kill(child, signal.SIGTERM) if time.sleep(0.3) is None else None
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), (copy.path / "0").exists())
"""
    process = Process(script, tmp_path)
    assert process.end() == (0, "")
    assert " ".join(process.lines) == "SIG_DFL -15 True"


def test_a_forked_process_that_lives_on_holds_no_lock(tmp_path) -> None:
    script = """
copy = kept()
child = os.fork()
if child == 0:
    os.close(1)
    os.close(2)
    time.sleep(60)
    os._exit(0)
print(child)
wait()
"""
    process = Process(script, tmp_path)
    process.end(signal.SIGKILL)
    (left,) = tmp_path.iterdir()
    child = int(process.lines[0])
    os.kill(child, 0)  # it lives
    try:
        Scratch(tmp_path).remove()
        assert not left.exists()
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_spawned_process_has_a_folder_of_its_own(tmp_path) -> None:
    mine = Scratch(tmp_path)
    child = multiprocessing.get_context("spawn").Process(
        target=_make_one, args=(str(tmp_path), mine.path.name)
    )
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert copies(tmp_path) == [mine.path.name]
    mine.remove()


def _make_one(folder: str, other: str) -> None:
    made = Scratch(folder)
    assert copies(Path(folder)) == sorted([other, made.path.name])


@pytest.mark.slow
def test_ctrl_c_at_each_statement_leaves_nothing(tmp_path) -> None:
    counted = Injector()
    counted.arm()
    Scratch(tmp_path).remove()
    counted.disarm()
    for number in range(1, counted.seen + 1):
        injector, made = Injector(number), None
        injector.arm()
        try:
            made = Scratch(tmp_path)
            made.remove()
        except KeyboardInterrupt:
            injector.disarm()
            if made is not None:  # as whoever gives things back does it once more
                made.remove()
        injector.disarm()
        del made
        gc.collect()
        assert copies(tmp_path) == [], injector.where
        assert handlers() == [signal.SIG_DFL, signal.SIG_DFL], injector.where
    assert counted.seen > 40


def test_each_fault_while_it_is_made(tmp_path) -> None:
    for fault in every_fault(tmp_path, ["mkdir", "open", "close"]):
        made = None
        with fault:
            try:
                made = Scratch(tmp_path)
                (made.path / "0").write_text("mine")
            except OSError as error:
                assert "by the test" in str(error)  # noqa: PT017
        if made is not None:
            made.remove()
        assert copies(tmp_path) == []
        assert handlers() == [signal.SIG_DFL, signal.SIG_DFL]


def test_what_cannot_be_removed_is_said(tmp_path) -> None:
    made = Scratch(tmp_path)
    (made.path / "0").write_text("mine")
    with (
        Fault(tmp_path, "remove", code=errno.EROFS),
        pytest.warns(UserWarning, match=r"cannot be removed .*Read-only file system"),
    ):
        made.remove()
    assert copies(tmp_path) == [made.path.name]
    Scratch(tmp_path).remove()  # nobody holds it any more
    assert copies(tmp_path) == []


def test_a_folder_that_has_vanished_is_no_fault(tmp_path) -> None:
    made = Scratch(tmp_path)
    shutil.rmtree(made.path)
    made.remove()
    assert handlers() == [signal.SIG_DFL, signal.SIG_DFL]


def test_it_is_found_after_a_change_of_the_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = Scratch(os.curdir)
    monkeypatch.chdir("/")
    (made.path / "0").write_text("mine")
    made.remove()
    assert copies(tmp_path) == []
