"""Records → TensorBoard event files, through TensorBoard's own protos.

`wire` computes and builds the bytes, `sessions` the rows of the HParams tab, `writer`
writes them to one file, and `runs` keeps a folder to one writer at a time. `journal` is
what a run folder says of itself, and `identity` finds by it the run to go on in.

Neither Keras nor TensorFlow is imported: the protos, the plugins' metadata and the
file layer (local, s3, and what fsspec knows) are those of the `tensorboard` package.
"""

from tfschedules.tensorboard.identity import Found, begin_run, discard, find_run
from tfschedules.tensorboard.journal import Journal
from tfschedules.tensorboard.runs import last_step, let_go, make_log_dir, new_run
from tfschedules.tensorboard.sessions import Setting, row_key
from tfschedules.tensorboard.writer import EventWriter

__all__ = [
    "EventWriter",
    "Found",
    "Journal",
    "Setting",
    "begin_run",
    "discard",
    "find_run",
    "last_step",
    "let_go",
    "make_log_dir",
    "new_run",
    "row_key",
]
