"""What a rate for each layer costs, beside the plain optimizer and beside many.

Each variant trains the same network on the same data, in turns (A B C A B C …), so that
the machine's noise meets all of them. Printed are medians of the ratios to the plain
optimizer of the same round, and, in brackets, the quartiles.

- the step: an epoch's time over its steps, after a first epoch that compiles;
- the first step, with all its tracing, of a fresh model that is compiled anew;
- the step with all but the head frozen, beside the full step.

    python -m benchmarks.layerwise [--rounds 15] [--backend tensorflow|jax]
"""

from __future__ import annotations

import argparse
import os
import time


def main() -> None:
    """Measure and print three tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--traces", type=int, default=7, help="rounds of first steps")
    parser.add_argument("--steps", type=int, default=60, help="in a measured epoch")
    parser.add_argument("--backend", default="tensorflow")
    arguments = parser.parse_args()
    os.environ["KERAS_BACKEND"] = arguments.backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    import keras
    import numpy as np

    import tfschedules as tfs

    rng = np.random.default_rng(0)
    batch = 64
    x = rng.normal(size=(batch * arguments.steps, 64)).astype("float32")
    y = rng.integers(0, 10, len(x))

    def network(depth, width):
        layers = [keras.layers.Dense(width, "relu") for _ in range(depth - 1)]
        return keras.Sequential([keras.Input((64,)), *layers, keras.layers.Dense(10)])

    def compiled(model, optimizer):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss)
        return model

    def plain(model):
        return compiled(model, keras.optimizers.Adam(1e-4))

    def grouped(count):
        def make(model):
            groups = tfs.discriminative_groups(model, 0.1, n_groups=count)
            adam = keras.optimizers.Adam(1e-4)
            return compiled(model, tfs.LayerwiseOptimizer(adam, groups))

        return make

    def many(count):
        def make(model):
            weights = model.trainable_variables
            adams = [keras.optimizers.Adam(1e-4 * 0.8**i) for i in range(count)]
            place = {w.path: i * count // len(weights) for i, w in enumerate(weights)}
            choose = keras.optimizers.MultiOptimizer(lambda w: adams[place[w.path]])
            return compiled(model, choose)

        return make

    def epoch(model, callbacks=()):
        began = time.perf_counter()
        model.fit(x, y, batch, verbose=0, shuffle=False, callbacks=list(callbacks))
        return (time.perf_counter() - began) / arguments.steps

    def ratios(times):
        """Medians of the ratios to the first variant, with quartiles."""
        first = np.array(next(iter(times.values())))
        print(f"{'':34}{'median':>10}{'ratio':>8}")
        for name, seconds in times.items():
            low, middle, high = np.percentile(np.array(seconds) / first, [25, 50, 75])
            print(
                f"{name:34}{1e3 * np.median(seconds):7.2f} ms{middle:8.3f}"
                f"  [{low:.3f}, {high:.3f}]"
            )

    def steps(title, depth, width, variants):
        print(f"\n{title}: {depth} dense layers of {width}, {arguments.backend}")
        models = {name: make(network(depth, width)) for name, make in variants.items()}
        times = {name: [] for name in models}
        for model in models.values():
            epoch(model)
        for _ in range(arguments.rounds):
            for name, model in models.items():
                times[name].append(epoch(model))
        ratios(times)

    def traces(depth, width, variants):
        print(f"\nThe first step: {depth} dense layers of {width}, {arguments.backend}")
        times = {name: [] for name in variants}
        for _ in range(arguments.traces):
            for name, make in variants.items():
                model = make(network(depth, width))
                began = time.perf_counter()
                model.train_on_batch(x[:batch], y[:batch])
                times[name].append(time.perf_counter() - began)
        ratios(times)

    class EpochTimes(keras.callbacks.Callback):
        """Times the second epoch of each two: the first traces."""

        def on_train_begin(self, logs=None):
            self.seconds = {}

        def on_epoch_begin(self, number, logs=None):
            self._began = time.perf_counter()

        def on_epoch_end(self, number, logs=None):
            self.seconds[number] = (time.perf_counter() - self._began) / arguments.steps

    def frozen(depth, width):
        print(f"\nFrozen: {depth} dense layers of {width}, {arguments.backend}")
        times = {"everything trained": [], "all but the head frozen": []}
        for _ in range(arguments.rounds // 2 + 1):
            model = network(depth, width)
            boundary = [model.layers[-1]]
            groups = tfs.discriminative_groups(model, 0.1, boundaries=boundary)
            plain(model)
            clock = EpochTimes()
            unfreezing = tfs.GradualUnfreezing(groups, epochs_per_group=2)
            callbacks = [unfreezing, clock]
            model.fit(x, y, batch, 4, verbose=0, callbacks=callbacks, shuffle=False)
            times["everything trained"].append(clock.seconds[3])
            times["all but the head frozen"].append(clock.seconds[1])
        ratios(times)

    twelve = {"plain Adam": plain, "LayerwiseOptimizer, 12 groups": grouped(12)}
    if hasattr(keras.optimizers, "MultiOptimizer"):
        twelve["MultiOptimizer, 12 Adams"] = many(12)
    steps("The step", 24, 256, twelve)
    traces(24, 256, twelve)
    scaling = {
        "LayerwiseOptimizer, 1 group": grouped(1),
        "LayerwiseOptimizer, 200 groups": grouped(200),
        "plain Adam": plain,
    }
    steps("From 1 to 200 groups", 200, 32, scaling)
    frozen(24, 256)


if __name__ == "__main__":
    main()
