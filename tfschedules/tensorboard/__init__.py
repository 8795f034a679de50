"""Watching: what a fit does at each step, as TensorBoard's event files.

`logger` is the callback, `recording` turns steps into values, `fit_settings` says what
the fit was given, `run_files` knows in which folder its records are, and `idle` why
there are none. Below them is what writes, through TensorBoard's own protos:
`wire` computes and builds the bytes, `sessions` the rows of the HParams tab, `writer`
writes them to one file, with the `extremes` of long runs, and `runs` keeps a folder to
one writer at a time. `journal` is what a run folder says of itself, and `identity`
finds by it the run to go on in.

May import `callbacks`, `drive`, `schedules` and `_support`. What writes imports neither
Keras nor TensorFlow: the protos, the plugins' metadata and the file layer (local, s3,
and what fsspec knows) are those of the `tensorboard` package.
"""

from tfschedules._support import lazy

__getattr__, __dir__, __all__ = lazy.attach(__name__)
