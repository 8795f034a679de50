"""What a range test costs, beside as many bare training steps, and what it holds.

Time: `find_learning_rate` with 100 steps on a fresh model, its tracing included, and a
bare `fit` of 100 steps on an equally fresh one, in turns (A B B A …); printed are
medians, and the median and quartiles of the ratios of each round. Memory: what the
snapshot takes, at its peak too, over the size of weights and slots, as tracemalloc
sees it.

    python -m benchmarks.range_test_cost [--rounds 9] [--backend tensorflow|jax]
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
import tracemalloc


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--backend", default="tensorflow")
    arguments = parser.parse_args()
    os.environ["KERAS_BACKEND"] = arguments.backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    import keras
    import numpy as np

    import tfschedules as tfs
    from tfschedules.drive import Snapshot

    rng = np.random.default_rng(0)
    x = rng.normal(size=(64 * arguments.steps, 28, 28, 1)).astype("float32")
    y = rng.integers(0, 10, len(x))

    def dense() -> list:
        layers = keras.layers
        return [layers.Flatten(), layers.Dense(64, "relu")]

    def convolutions() -> list:
        layers = keras.layers
        body = []
        for filters in (16, 32, 32):
            body += [layers.Conv2D(filters, 3, 2, padding="same")]
            body += [layers.BatchNormalization(), layers.ReLU()]
        return [*body, layers.GlobalAveragePooling2D()]

    def fresh(body) -> keras.Model:
        first, last = keras.Input((28, 28, 1)), keras.layers.Dense(10)
        model = keras.Sequential([first, *body(), last])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(), loss)
        return model

    def bare(model: keras.Model) -> None:
        model.fit(x, y, batch_size=64, verbose=0)

    def sweep(model: keras.Model) -> None:
        result = tfs.find_learning_rate(
            model, x, y, stop_factor=None, steps=arguments.steps, batch_size=64,
            verbose=0,
        )  # fmt: skip
        assert len(result.losses) == arguments.steps, result

    def timed(run, body) -> float:
        model = fresh(body)
        gc.collect()
        began = time.perf_counter()
        run(model)
        return time.perf_counter() - began

    print(f"{arguments.steps} steps, tracing included, {arguments.backend}")
    print(f"{'':16}{'bare fit':>10}{'range test':>12}{'ratio':>8}")
    for body in (dense, convolutions):
        timed(bare, body), timed(sweep, body)  # the first of a process is slower
        pairs = []
        for number in range(arguments.rounds):
            order = [bare, sweep] if number % 2 else [sweep, bare]
            times = {run: timed(run, body) for run in order}
            pairs.append([times[bare], times[sweep]])
        pairs = np.array(pairs)
        low, middle, high = np.percentile(pairs[:, 1] / pairs[:, 0], [25, 50, 75])
        seconds = np.median(pairs, axis=0)
        print(
            f"{body.__name__:16}{seconds[0]:8.2f} s{seconds[1]:10.2f} s{middle:8.2f}"
            f"  [{low:.2f}, {high:.2f}]"
        )

    layers = [keras.Input((1024,)), *(keras.layers.Dense(1024) for _ in range(8))]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.Adam(), "mse")
    model.optimizer.build(model.trainable_variables)
    state = [*model.variables, *model.optimizer.variables]
    size = sum(np.prod(v.shape, dtype=int) * 4 for v in state)
    tracemalloc.start()
    print(f"\nWeights and slots: {size / 2**20:.0f} MiB; of that a snapshot takes")
    for where, folder in (("in memory", None), ("on disk", tempfile.gettempdir())):
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        snapshot = Snapshot(model, folder)
        held, peak = tracemalloc.get_traced_memory()
        held, peak = (held - before) / size, (peak - before) / size
        print(f"{where:16}{held:.3f}, {peak:.3f} at its peak")
        del snapshot


if __name__ == "__main__":
    main()
