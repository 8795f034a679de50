"""Records → TensorBoard event files, through TensorBoard's own protos.

`wire` computes and builds the bytes, `sessions` the rows of the HParams tab, `writer`
writes them to one file, and `runs` chooses the folder and keeps it to one writer at a
time.

Neither Keras nor TensorFlow is imported: the protos, the plugins' metadata and the
file layer (local, s3, and what fsspec knows) are those of the `tensorboard` package.
"""

from tfschedules.tensorboard.runs import last_step, make_log_dir, new_run, next_run
from tfschedules.tensorboard.sessions import Setting, session_run
from tfschedules.tensorboard.writer import EventWriter

__all__ = [
    "EventWriter",
    "Setting",
    "last_step",
    "make_log_dir",
    "new_run",
    "next_run",
    "session_run",
]
