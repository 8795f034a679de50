"""Ctrl-C at any statement of a loop of the user's own: all is put back.

Some statements are tried, evenly spaced; all of them where the environment has
TFSCHEDULES_EVERY_STATEMENT=1.
"""

import gc
import signal

import keras
import numpy as np
import pytest
from injector import EVERY, Injector

import tfschedules as tfs

# In which it is decided what is done when.
FILES = {
    "loop_sweep.py", "loop.py", "loop_drive.py", "wheel.py", "tidying.py",
    "sweep_notes.py", "hold.py", "calls.py",
}  # fmt: skip
FEW = 24


@pytest.fixture(autouse=True)
def _ctrl_c():
    """A process that a script starts in the background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Trained:
    """A weight and an optimizer with a history."""

    def __init__(self):
        self.weight = keras.Variable(np.zeros(2, "float32"))
        self.optimizer = keras.optimizers.Adam(0.1)
        self.step()
        self.variables = [self.weight, *self.optimizer.variables]
        self.before = self.values()

    def step(self):
        self.optimizer.apply([keras.ops.ones(2)], [self.weight])

    def values(self):
        return [np.array(keras.ops.convert_to_numpy(v.value)) for v in self.variables]

    def sweep(self):
        sweep = tfs.Sweep(self.optimizer, [self.weight], 1e-3, 1.0, 3)
        for _ in sweep:
            self.step()
            sweep.record(1.0)

    def driven(self):
        momentum = tfs.Constant(0.5)
        with tfs.driven(self.optimizer, tfs.Linear(0.1, 0.0, 2), momentum=momentum):
            self.step()

    def wrong(self, what):
        """What is not as it was, but for what an update of `driven` changes."""
        own = vars(self.optimizer)
        gc.collect()  # the `with` is gone with the exception, and no Ctrl-C comes there
        wrong = [*({"apply", "_tfschedules_hold"} & own.keys())]
        if self.optimizer.beta_1 != 0.9 or type(self.optimizer.beta_1) is not float:
            wrong.append("beta_1")
        for variable, one, other in zip(
            self.variables, self.before, self.values(), strict=True
        ):
            if what == "sweep" or variable is self.optimizer._learning_rate:
                wrong += [variable.path] * (not np.array_equal(one, other))
            variable.assign(one)
        if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            wrong.append("the handler of SIGINT")
        return wrong


@pytest.mark.slow
@pytest.mark.parametrize("what", ["sweep", "driven"])
def test_all_is_put_back(what):
    trained = Trained()
    call = getattr(trained, what)
    call()  # what is done once is done
    trained.wrong(what)
    counter = Injector(how="signal")
    counter.arm()
    call()
    counter.disarm()
    assert trained.wrong(what) == []
    points = [
        number
        for number, (file, _) in enumerate(counter.lines, start=1)
        if file.rpartition("/")[2] in FILES
    ]
    every = 1 if EVERY else max(len(points) // FEW, 1)
    found = {}
    for point in points[::every]:
        injector = Injector(point, how="signal")
        came_out = False
        try:
            injector.arm()
            call()
        except KeyboardInterrupt:
            came_out = True
        finally:
            injector.disarm()
        lost = injector.where and not came_out  # a statement that did not come is none
        wrong = trained.wrong(what) + ["Ctrl-C is lost"] * bool(lost)
        if wrong:
            found[str(injector.where)] = wrong
    assert not found
