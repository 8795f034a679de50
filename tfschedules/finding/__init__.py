"""Range tests: which learning rate a model can take.

`find` has the functions of the public interface and `range_test` the callback; both
make sweeps (`sweeps`, of data from `sources` and `held_out`) until the loss has
diverged (`divergence`). Loops of the user's own are swept by `loop_sweep`, or by
`functional` if they go from state to state. What comes out is a `result`, or a
`comparison` of several. `suggestions` reads a rate off it, `pictures` draws it,
`record_files` keeps it in a file, and `reports` writes it for TensorBoard in the form
of `event_record`.

May import `tensorboard`, `callbacks`, `drive`, `schedules` and `_support`. Results,
pictures and suggestions know no Keras.
"""

from tfschedules._support import lazy

__getattr__, __dir__, __all__ = lazy.attach(__name__)
