"""What a schedule and its records cost a training step, beside what others cost.

Each variant trains the same network on the same data, in turns (A B C A B C …), so that
the machine's noise meets all of them. A step's time is an epoch's over its steps, after
a first epoch that compiles. Printed are medians of the ratios to the bare fit of the
same round, and, in brackets, the quartiles.

The first network is chosen among small ones for a bare step of some 0.4 ms on this
machine, the least that its overhead allows; the second takes some milliseconds.

    python -m benchmarks.step_overhead [--rounds 15] [--backend tensorflow|jax]
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--epochs", type=int, default=4, help="measured, in a fit")
    parser.add_argument("--backend", default="tensorflow")
    parser.add_argument(
        "--step", type=float, default=0.4, help="of the first network, in ms"
    )
    arguments = parser.parse_args()
    os.environ["KERAS_BACKEND"] = arguments.backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    import keras
    import numpy as np

    import tfschedules as tfs

    rng = np.random.default_rng(0)
    folder = tempfile.mkdtemp()

    class EpochTimes(keras.callbacks.Callback):
        """Times epochs from outside the steps."""

        def on_train_begin(self, logs=None):
            self.seconds = []

        def on_epoch_begin(self, epoch, logs=None):
            self._began = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            self.seconds.append(time.perf_counter() - self._began)

    class AssignRate(keras.callbacks.Callback):
        """What users write today: a rate assigned from Python."""

        def __init__(self):
            super().__init__()
            self._rates = tfs.Cosine(0.01, 0.0, 10**5).values(10**5)
            self._step = 0

        def on_train_batch_begin(self, batch, logs=None):
            self.model.optimizer.learning_rate = float(self._rates[self._step])
            self._step += 1

    class AssignAndSummarise(AssignRate):
        """The same, with two summaries a step."""

        def on_train_begin(self, logs=None):
            import tensorflow as tf

            self._writer = tf.summary.create_file_writer(tempfile.mkdtemp(dir=folder))

        def on_train_batch_end(self, batch, logs=None):
            import tensorflow as tf

            with self._writer.as_default(step=self._step):
                tf.summary.scalar("lr", self._rates[self._step - 1])
                tf.summary.scalar("loss", logs["loss"])

    schedule = tfs.Cosine(0.01, 0.0, 10**5)

    def ours() -> keras.callbacks.Callback:
        return tfs.HyperparameterScheduler(schedule)

    def logger() -> keras.callbacks.Callback:
        return tfs.TensorBoardLogger(tempfile.mkdtemp(dir=folder))

    def keras_tensorboard() -> keras.callbacks.Callback:
        return keras.callbacks.TensorBoard(
            tempfile.mkdtemp(dir=folder), update_freq="batch", write_graph=False
        )

    variants: dict[str, Callable[[], list[keras.callbacks.Callback]]] = {
        "bare fit": list,
        "schedule": lambda: [ours()],
        "schedule, every step logged": lambda: [ours(), logger()],
        "only logged": lambda: [logger()],
        "Python assigns the rate": lambda: [AssignRate()],
        "Python assigns, tf.summary": lambda: [AssignAndSummarise()],
        "Keras TensorBoard each batch": lambda: [keras_tensorboard()],
    }
    if arguments.backend != "tensorflow":
        del variants["Python assigns, tf.summary"]
        del variants["Keras TensorBoard each batch"]

    def network(
        layers: int, units: int, batch: int, steps: int
    ) -> Callable[[list[keras.callbacks.Callback]], float]:
        """What fits it and measures the seconds of a step."""
        x = rng.normal(size=(batch * steps, 64)).astype("float32")
        y = rng.integers(0, 10, batch * steps)
        hidden = [keras.layers.Dense(units, "relu") for _ in range(layers)]
        model = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)

        def step_time(callbacks: list[keras.callbacks.Callback]) -> float:
            clock = EpochTimes()
            model.fit(
                x,
                y,
                batch_size=batch,
                epochs=1 + arguments.epochs,
                verbose=0,
                callbacks=[clock, *callbacks],
            )
            return float(np.median(clock.seconds[1:])) / steps

        return step_time

    small = [(0, 0, 32), (1, 64, 32), (2, 64, 32)]
    small += [(2, 128, 64), (2, 192, 96), (2, 256, 96)]
    small = [(*size, 400) for size in small]  # steps
    bare_times = {size: min(network(*size)([]) for _ in range(2)) for size in small}
    chosen = min(small, key=lambda size: abs(bare_times[size] - arguments.step / 1e3))
    for layers, units, batch, steps in (chosen, (2, 512, 256, 120)):
        step_time = network(layers, units, batch, steps)
        step_time([])
        times: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(arguments.rounds):
            for name, make in variants.items():
                times[name].append(step_time(make()))
        bare = np.array(times["bare fit"])
        print(
            f"\n{arguments.backend}, {layers} hidden layers of {units}, batches of "
            f"{batch}: "
            f"a bare step takes {np.median(bare) * 1e3:.2f} ms"
        )
        for name, seconds in times.items():
            ratio = np.array(seconds) / bare
            low, middle, high = np.quantile(ratio, [0.25, 0.5, 0.75])
            print(f"  {name:30s} {middle:6.3f}   [{low:.3f}, {high:.3f}]", flush=True)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
