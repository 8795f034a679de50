"""An Estimator on several machines: a parameter server, a chief and a worker.

    python examples/estimator_parameter_server.py [FOLDER]

starts the three as processes on the loopback address, as a cluster would with
`TF_CONFIG`, waits for them, and prints what each has recorded. Training is
asynchronous: both count one global step, and every rate is the schedule's at the step
that it was used for, whoever made it. Needs `tf.estimator`: TensorFlow 2.15.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS = 600
SECONDS = 150  # for all of it, most of them for three imports of TensorFlow
ROLES = ("ps", "chief", "worker")


def schedule():
    """Restarts every 40 updates of the cluster."""
    import tfschedules as tfs

    return tfs.warm_restarts(0.05, first_cycle=40, min_lr=1e-3)


def train(folder: str) -> None:
    """What each machine runs, as its `TF_CONFIG` says."""
    import numpy as np
    import tensorflow as tf

    from tfschedules import estimator

    x = np.random.default_rng(0).normal(size=(320, 8)).astype("float32")
    y = x.sum(axis=1)

    def input_fn():
        return (
            tf.data.Dataset.from_tensor_slices((x, y)).shuffle(320).batch(32).repeat()
        )

    def model_fn(features, labels, mode):
        kernel = tf.compat.v1.get_variable("kernel", (8,))
        prediction = tf.linalg.matvec(features, kernel)
        loss = tf.compat.v1.losses.mean_squared_error(labels, prediction)
        rate = estimator.learning_rate(schedule())
        optimizer = tf.compat.v1.train.GradientDescentOptimizer(rate)
        op = optimizer.minimize(loss, tf.compat.v1.train.get_global_step())
        return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=op)

    class Together(tf.compat.v1.train.SessionRunHook):
        """Waits for the other one: this is too short a training to leave it to chance.

        A worker that asks the chief too early would ask again after half a minute.
        """

        def after_create_session(self, session, coord):
            Path(folder, f"{role}.ready").touch()
            wait_for("chief", "worker")

        def after_run(self, run_context, run_values):
            time.sleep(0.01)

    def wait_for(*roles):
        while not all(Path(folder, f"{role}.ready").exists() for role in roles):
            time.sleep(0.05)

    role = json.loads(os.environ["TF_CONFIG"])["task"]["type"]
    if role == "worker":
        wait_for("chief")
    # Each machine that trains writes a run of its own: schedules, schedules_1, …
    hooks = [estimator.TensorBoardHook(folder), Together()]
    config = tf.estimator.RunConfig(folder, experimental_max_worker_delay_secs=0)
    tf.estimator.train_and_evaluate(
        tf.estimator.Estimator(model_fn, config=config),
        tf.estimator.TrainSpec(input_fn, max_steps=STEPS, hooks=hooks),
        tf.estimator.EvalSpec(input_fn, steps=1),
    )


def start(folder: str) -> dict[str, subprocess.Popen[bytes]]:
    """The three processes, on free ports of the loopback address."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in ROLES]
    cluster = {
        role: [f"127.0.0.1:{open_socket.getsockname()[1]}"]
        for role, open_socket in zip(ROLES, sockets, strict=True)
    }
    for open_socket in sockets:
        open_socket.close()
    processes = {}
    for role in ROLES:
        task = {"cluster": cluster, "task": {"type": role, "index": 0}}
        environment = os.environ | {"TF_CONFIG": json.dumps(task)}
        processes[role] = subprocess.Popen(
            [sys.executable, __file__, folder],
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=Path(folder, f"{role}.log").open("wb"),
        )
    return processes


def run(folder: str) -> None:
    """Start the cluster, wait for those that train, and end all.

    Raises:
        RuntimeError: If one fails, or they take too long.
    """
    ends_at = time.monotonic() + SECONDS
    processes = start(folder)
    try:
        while any(processes[role].poll() is None for role in ("chief", "worker")):
            for role, process in processes.items():
                if process.poll() not in (None, 0):
                    raise RuntimeError(
                        f"The {role} has failed: see {folder}/{role}.log"
                    )
            if time.monotonic() > ends_at:
                raise RuntimeError(f"It took more than {SECONDS} s: see {folder}/*.log")
            time.sleep(0.2)
    finally:  # a parameter server does not end by itself
        for process in processes.values():
            process.kill()
            process.wait()


def show(folder: str) -> None:
    """Compare what was recorded with the schedule."""
    import numpy as np
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for run_dir in sorted(Path(folder).glob("schedules*")):
        events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0})
        events.Reload()
        points = events.Scalars("schedule/learning_rate")
        steps = np.array([point.step for point in points])
        rates = np.array([point.value for point in points], np.float32)
        wrong = int((rates != schedule().values(steps).astype("float32")).sum())
        print(
            f"{run_dir.name}: {len(steps)} steps, {steps[0]} to {steps[-1]}; "
            f"rates that are not the schedule's: {wrong}"
        )


if __name__ == "__main__":
    if "TF_CONFIG" in os.environ:
        train(sys.argv[1])
    else:
        given = sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()
        Path(given).mkdir(parents=True, exist_ok=True)
        run(given)
        show(given)
