"""One event file, written in whole records."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2
from tensorboard.compat.tensorflow_stub.io import gfile
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.text import metadata as text_metadata

from tfschedules._support import checks
from tfschedules.tensorboard import sessions
from tfschedules.tensorboard.extremes import CONTENT, PLUGIN_NAME, Extremes
from tfschedules.tensorboard.runs import file_errors, folder_path, is_local, take
from tfschedules.tensorboard.wire import (
    checked_series,
    event_record,
    numbers_tensor,
    scalar_records,
    strings_tensor,
    version_record,
)

# A file system without append gets the whole file anew at every flush: then files are
# ended at this many bytes.
_LARGEST = 1 << 20
_PNG = b"\x89PNG\r\n\x1a\n"


class EventWriter:
    """Writes one event file into one run folder, in whole records.

    Every call writes to the file at once; on remote file systems without append to a
    temporary file, which `flush` uploads, and a new one is begun now and then. Other
    writers are kept out of the folder until `close` (those of other processes only if
    it is local), because two writers in one run freeze TensorBoard's Python loader.
    Not safe to share between threads.

    Args:
        run_dir: The run's folder, made if it is not there: a path, or a URL.

    Raises:
        OSError: If the folder cannot be made or written to, or another writer, here
            or in another process, has it; later on, from any method, if a write
            fails. The failed call then leaves nothing behind, and the next one may
            succeed.

    Example:
        >>> import tempfile
        >>> from tfschedules.tensorboard import EventWriter, last_step
        >>> folder = tempfile.mkdtemp()
        >>> with EventWriter(folder) as writer:
        ...     writer.scalars([0, 1], [1.7e9, 1.7e9], {"schedule/loss": [2.5, 2.0]})
        >>> last_step(folder)
        1
    """

    def __init__(self, run_dir: str | os.PathLike[str]) -> None:
        run_dir = folder_path("run_dir", run_dir)
        # The file is opened by its name at every write: after an `os.chdir`, too.
        self._run_dir = str(Path(run_dir).absolute()) if is_local(run_dir) else run_dir
        self._last_step = -1
        self._last_steps: dict[str, int] = {}  # of images and texts, by tag
        self._extremes = Extremes()
        self._length = 0
        self._file: Any = None
        with file_errors("write event files to", self._run_dir):
            gfile.makedirs(self._run_dir)
            # Once, at `close`, or when a writer that nobody closed is collected.
            self._taken = take(self._run_dir)
            self._give_back = weakref.finalize(self, self._taken.give_back)
        try:
            self._open()
            self._append(b"")  # what cannot append has to fail now
            self.flush()
        except BaseException:
            self._give_back()
            with contextlib.suppress(OSError):
                self.close()
            raise

    def _open(self) -> None:
        """Begin a file."""
        with file_errors("write event files to", self._run_dir):
            name = _file_name(gfile.listdir(self._run_dir))
            self.path = f"{self._run_dir}/{name}"
            self._file, self._length = gfile.GFile(self.path, "wb"), 0
        self._append(version_record(time.time()))

    def scalars(
        self,
        steps: npt.ArrayLike,
        wall_times: npt.ArrayLike,
        values: Mapping[str, npt.ArrayLike],
    ) -> None:
        """Write one event per step, with all its values.

        Of more steps than TensorBoard keeps, it has the extremes besides, as tensors
        of their own, now and then and at the end.

        Args:
            steps: Integers [n], rising strictly, above the last step written.
            wall_times: When the steps happened, in seconds since 1970 [n].
            values: From each tag to its numbers [n], kept as float32. NaN and
                infinities are written as they are.

        Raises:
            TypeError: If `steps` are not integers.
            ValueError: If `steps` do not rise, shapes differ, or it is closed.
            OSError: If the file cannot be written.
        """
        steps, wall_times, values = checked_series(steps, wall_times, values)
        if not steps.size:
            return
        course = np.concatenate([[self._last_step], steps])
        for place in np.flatnonzero(course[1:] <= course[:-1]):
            raise ValueError(
                "Argument `steps` must rise strictly within a run, from 0 on. "
                f"Received: step {course[place + 1]} after step {course[place]}. Where "
                "the count was reset, write into a new run folder (`find_run`)."
            )
        self._append(scalar_records(steps, wall_times, values))
        self._last_step = int(steps[-1])
        self._extremes.add(steps, values)
        if self._extremes.due:
            self._write_extremes()

    def _write_extremes(self) -> None:
        for tag, table in self._extremes.tables():
            self.table(tag, table, PLUGIN_NAME, CONTENT, self._last_step)

    def restart(self, step: int) -> None:
        """Let TensorBoard hide what the run has had from `step` on until now.

        A run needs one at its beginning, too: TensorBoard takes the first that it meets
        in a run for no restart.

        Raises:
            OSError: If the file cannot be written.
        """
        step = checks.whole("step", step, at_least=0)
        log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._append(event_pb2.Event(wall_time=time.time(), step=step, session_log=log))

    def image(self, tag: str, png: bytes, width: int, height: int, step: int) -> None:
        """Write a picture for the Images tab.

        Args:
            tag: Its name.
            png: The encoded picture.
            width: In pixels.
            height: In pixels.
            step: Not below the last step under this tag.

        Raises:
            TypeError: If `png` is not bytes.
            ValueError: If `png` is not a PNG, sizes are not positive, or `step`
                goes back.
            OSError: If the file cannot be written.
        """
        if not isinstance(png, bytes):
            raise TypeError(
                "Argument `png` must be bytes, as `figure.savefig(buffer, "
                f"format='png')` makes them. Received: {type(png).__name__}."
            )
        if not png.startswith(_PNG):
            raise ValueError(
                f"Argument `png` must be a PNG picture. Received: {png[:8]!r}…"
            )
        sizes = checks.whole("width", width), checks.whole("height", height)
        tensor = strings_tensor([*(b"%d" % size for size in sizes), png], [3])
        metadata = image_metadata.create_summary_metadata(None, None)
        metadata.data_class = summary_pb2.DATA_CLASS_BLOB_SEQUENCE
        self._tensor(tag, tensor, metadata, step)

    def text(self, tag: str, markdown: str, step: int) -> None:
        """Write a text for the Text tab, which renders Markdown.

        Raises:
            ValueError: If `step` goes back under this tag.
            OSError: If the file cannot be written.
        """
        metadata = text_metadata.create_summary_metadata(None, None)
        metadata.data_class = summary_pb2.DATA_CLASS_TENSOR
        self._tensor(tag, strings_tensor([markdown.encode()], []), metadata, step)

    def table(
        self, tag: str, values: npt.ArrayLike, plugin: str, content: bytes, step: int
    ) -> None:
        """Write an array as one event, for a plugin that reads it whole.

        Args:
            tag: Its name.
            values: Numbers of any shape, kept as float64.
            plugin: The name of the plugin that reads it.
            content: What that plugin needs to know besides, in its own format.
            step: Not below the last step under this tag.

        Raises:
            ValueError: If `step` goes back under this tag.
            OSError: If the file cannot be written.
        """
        data = summary_pb2.SummaryMetadata.PluginData(
            plugin_name=plugin, content=content
        )
        metadata = summary_pb2.SummaryMetadata(
            plugin_data=data, data_class=summary_pb2.DATA_CLASS_TENSOR
        )
        self._tensor(tag, numbers_tensor(values), metadata, step)

    def session_start(self, settings: Mapping[str, sessions.Setting]) -> None:
        """Make the run a row of the HParams tab.

        The tab fills the row's metrics with the last values of the run's scalars.

        Args:
            settings: The row's numbers, texts and truth values, by column. Numbers that
                are not finite are left out: the tab cannot be told of them.

        Raises:
            TypeError: If a value is of another type.
            OSError: If the file cannot be written.
        """
        metadata = sessions.start_metadata(settings)
        self._tensor(sessions.START, sessions.NOTHING, metadata, 0)

    def session_end(self) -> None:
        """Note in the row that it has come to a good end, if it has not yet.

        Raises:
            OSError: If the file cannot be written.
        """
        self._tensor(sessions.END, sessions.NOTHING, sessions.end_metadata(), 0)

    def flush(self) -> None:
        """Hand everything written so far to the operating system, or upload it.

        Raises:
            OSError: If that fails.
        """
        if not self.closed:
            with file_errors("write event files to", self._run_dir):
                self._taken.check()
                self._file.flush()
                full = self._length > _LARGEST and not self._file.fs_supports_append
                if full:
                    self._file.write_temp.close()
            if full:
                self._open()

    def close(self) -> None:
        """Flush and end the file. Closing again does nothing."""
        if self.closed:
            return
        try:
            if self._extremes.left:
                self._write_extremes()
        finally:
            file, self._file = self._file, None
            self._give_back()
            with file_errors("write event files to", self._run_dir):
                try:
                    file.close()
                finally:
                    if file.write_temp:  # what could not be uploaded
                        file.write_temp.close()

    @property
    def closed(self) -> bool:
        """Whether the writer was closed."""
        return self._file is None

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _tensor(
        self,
        tag: str,
        tensor: tensor_pb2.TensorProto,
        metadata: summary_pb2.SummaryMetadata,
        step: int,
    ) -> None:
        step = checks.whole("step", step, at_least=0)
        last = self._last_steps.get(tag, 0)
        if step < last:
            raise ValueError(
                f"Argument `step` must not go back under a tag. Received: step {step} "
                f"after step {last} of {tag!r}. Write into a new run folder."
            )
        value = summary_pb2.Summary.Value(tag=tag, metadata=metadata, tensor=tensor)
        summary = summary_pb2.Summary(value=[value])
        self._append(event_pb2.Event(wall_time=time.time(), step=step, summary=summary))
        self._last_steps[tag] = step

    def _append(self, records: bytes | event_pb2.Event) -> None:
        if self.closed:
            raise ValueError(f"The writer of {self.path!r} is closed. Make a new one.")
        if not isinstance(records, bytes):
            records = event_record(records)
        with file_errors("write event files to", self._run_dir):
            # What is written by its name would make the file anew, in another's run.
            self._taken.check(self.path if self._length else None)
            try:
                self._file.write(records)
                self._length += len(records)
            except BaseException:  # half a record would hide all that come after it
                if is_local(self.path):
                    with contextlib.suppress(OSError):
                        os.truncate(self.path, self._length)
                raise


def _file_name(others: list[str]) -> str:
    """A name that sorts behind all others: loaders read files in that order."""
    stamps = [re.match(r"events\.out\.tfevents\.(\d{10})\.", name) for name in others]
    stamp = max([int(time.time()), *(int(found[1]) + 1 for found in stamps if found)])
    return f"events.out.tfevents.{stamp:010d}.{socket.gethostname()}.{os.getpid()}.0.v2"
