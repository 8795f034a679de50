"""The journal of a run folder, beside its event files: `tfschedules.run`."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

from tensorboard.compat.tensorflow_stub.io import gfile

from tfschedules._support import journal
from tfschedules.tensorboard.runs import file_errors, is_local

NAME = "tfschedules.run"  # of the file


def journal_with(run_dir: str, step: int, state: str) -> Journal | None:
    """The journal of a run that was in a state; `None` where it was not, or is unread.

    Args:
        run_dir: The run's folder.
        step: After how many steps it was in it.
        state: The state's fingerprint.
    """
    try:
        with gfile.GFile(f"{run_dir}/{NAME}", "rb") as file:
            known = journal.state_line(step, state) in file.read()
        return Journal(run_dir) if known else None
    except Exception:  # there is none, or it cannot be read: S3 has classes of its own
        return None


class Journal(journal.Journal):
    """The journal of one run; see `_support/journal.py`.

    Attributes:
        run_dir: The run's folder: a path, or a URL.
    """

    def __init__(self, run_dir: str) -> None:
        """Read it, where there is one.

        Raises:
            OSError: If it is there and cannot be read.
        """
        self.run_dir = run_dir
        self._path = f"{run_dir}/{NAME}"
        super().__init__()

    def _mark(self) -> Hashable:
        if not is_local(self.run_dir):
            return None  # TensorBoard's file layer knows sizes only
        with file_errors("read the journal of the run", self.run_dir):
            return journal.mark_of(Path(self._path))

    def _read(self) -> bytes:
        with file_errors("read the journal of the run", self.run_dir):
            if not gfile.exists(self._path):
                return b""
            with gfile.GFile(self._path, "rb") as file:
                data: bytes = file.read()
        return data

    def _append(self, line: bytes) -> None:
        with file_errors("write the journal of the run", self.run_dir):
            if is_local(self.run_dir):
                journal.append_line(Path(self._path), line, self._head)
                return
            files = gfile.get_filesystem(self._path)
            if hasattr(files, "append") and self._size > 0:
                files.append(self._path, line, binary_mode=True)
            else:  # one that cannot append gets all of it anew
                before = self._read() if self._size > 0 else b""
                files.write(self._path.encode(), before + line, binary_mode=True)
