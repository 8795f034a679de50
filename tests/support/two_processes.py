"""One of two processes that train a model with rates for its layers.

`python two_processes.py RANK ADDRESS FOLDER`, by `test_processes.py`, which makes the
same fit alone.
"""

import os
import sys
from pathlib import Path

import numpy as np
from helpers import arrays, digits


def train(log_dir, part=slice(None), batch_size=32):
    """A rate for each layer, driven decay, and layers that thaw; gives the weights."""
    import keras

    import tfschedules as tfs

    dense, start = keras.layers.Dense, keras.initializers.GlorotUniform
    model = keras.Sequential(
        [
            keras.Input((64,)),
            dense(16, "relu", kernel_initializer=start(1), name="below"),
            dense(10, kernel_initializer=start(2), name="above"),
        ]
    )
    groups = [
        tfs.LayerGroup("below", ["below"], 0.3, weight_decay_multiplier=2.0),
        tfs.LayerGroup("above", ["above"]),
    ]
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.01)
    model.compile(
        tfs.LayerwiseOptimizer(optimizer, groups),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    x, y = digits(320)
    callbacks = [
        tfs.HyperparameterScheduler(
            tfs.Linear(0.02, 0.0, 20), weight_decay=tfs.Linear(0.3, 0.0, 20)
        ),
        tfs.GradualUnfreezing(groups),
        tfs.TensorBoardLogger(log_dir),
    ]
    model.fit(
        x[part], y[part], batch_size=batch_size, epochs=2, shuffle=False, verbose=0,
        callbacks=callbacks,
    )  # fmt: skip
    return arrays(model)


if __name__ == "__main__":
    os.environ["JAX_CPU_COLLECTIVES_IMPLEMENTATION"] = "gloo"
    import keras

    rank, address, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    keras.distribution.initialize(address, 2, rank)
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(auto_shard_dataset=False)
    )
    weights = train(folder / "two", slice(rank, None, 2), 16)
    np.savez(folder / f"process_{rank}.npz", *weights)
