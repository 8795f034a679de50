"""Two processes train one model: a range test, then a one-cycle fit, on JAX.

Run without arguments, it starts both on this machine, with JAX's CPU collectives:

    KERAS_BACKEND=jax python examples/jax_two_processes.py

On several machines start it once on each, with the address of the first:

    python examples/jax_two_processes.py --rank 0 --address 10.0.0.1:1234
    python examples/jax_two_processes.py --rank 1 --address 10.0.0.1:1234

Every process has the whole program and its part of each batch. What it prints is the
same in both; what is written for TensorBoard, the first one writes.
"""

import argparse
import faulthandler
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROCESSES = 2
GLOBAL_BATCH = 32
SECONDS = 240  # a process that waits for a dead one would wait for ever


def train(rank, address, folder):
    """One of the processes."""
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ["JAX_CPU_COLLECTIVES_IMPLEMENTATION"] = "gloo"
    import keras
    import numpy as np
    from sklearn.datasets import load_digits

    import tfschedules as tfs

    keras.utils.set_random_seed(0)  # the same in all processes
    keras.distribution.initialize(address, PROCESSES, rank)
    # Arrays are not sharded by Keras: each process brings its part of every batch.
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(auto_shard_dataset=False)
    )
    digits = load_digits()
    x = (digits.data[:1600] / 16).astype("float32")[rank::PROCESSES]
    y = digits.target[:1600][rank::PROCESSES]

    model = keras.Sequential(
        [keras.Input((64,)), keras.layers.Dense(10, kernel_initializer="zeros")]
    )
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    fit = {"batch_size": GLOBAL_BATCH // PROCESSES, "shuffle": False, "verbose": 0}
    found = tfs.find_learning_rate(
        model, x, y, min_lr=1e-3, max_lr=100.0, log_dir=folder / "logs", **fit
    )
    restored = all((weight == 0).all() for weight in model.get_weights())

    class Rates(keras.callbacks.Callback):
        """The rate as this process has it after every step."""

        def __init__(self):
            super().__init__()
            self.rates = []

        def on_train_batch_end(self, batch, logs=None):
            self.rates.append(float(np.asarray(self.model.optimizer.learning_rate)))

    rates = Rates()
    history = model.fit(
        x, y, epochs=2,
        callbacks=[tfs.OneCycle(0.2), tfs.TensorBoardLogger(folder / "logs"), rates],
        **fit,
    ).history  # fmt: skip
    print(
        f"process {rank} of {keras.distribution.distribution().num_processes}: "
        f"suggested {found.suggestion:.3g}, restored: {restored}; "
        f"rates from {rates.rates[0]:.3g} by {max(rates.rates):.3g} "
        f"to {rates.rates[-1]:.3g}; accuracy {history['accuracy'][-1]:.3f}",
        flush=True,
    )
    report = {
        "learning_rates": found.learning_rates.tolist(),
        "losses": found.losses.tolist(),
        "suggestion": found.suggestion,
        "restored": restored,
        "rates": rates.rates,
        "weights": [weight.tolist() for weight in model.get_weights()],
    }
    (folder / f"process_{rank}.json").write_text(json.dumps(report), "utf-8")


def start_all(folder):
    """Start the processes, wait for them, and end what is left of them."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"  # free a moment later
    command = [sys.executable, __file__, "--address", address, "--folder", folder]
    processes = [
        subprocess.Popen([*command, "--rank", str(rank)]) for rank in range(PROCESSES)
    ]
    try:
        while any(process.poll() is None for process in processes):
            if any(process.poll() for process in processes):
                break  # one has failed, and the others would wait for it
            time.sleep(0.1)
    finally:
        for process in processes:
            process.kill()
    return max(abs(process.wait()) for process in processes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rank", type=int)
    parser.add_argument("--address")
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args()
    place = arguments.folder or Path(tempfile.mkdtemp(prefix="two-processes-"))
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    if arguments.rank is None:
        status = start_all(place)
        print(f"tensorboard --logdir {place / 'logs'}")
        sys.exit(status)
    train(arguments.rank, arguments.address, place)
