"""Kills training processes with SIGKILL at random steps, resumes them, and compares.

A child process trains a small network on scikit-learn's digits beside Keras's
`BackupAndRestore` and writes down, after each step, the optimizer's count and the rate
that was used. It is killed at a random moment, begun again, perhaps killed again, and
compared with a child that nobody disturbs. At every count the rate must be the same, to
the bit. With backups at the ends of epochs the final weights must be, too; with backups
inside epochs Keras begins the interrupted epoch anew, and more updates are made.

    python -m benchmarks.kill_and_resume [--kills 20] [--seed 0] [--case NAME]
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time

EPOCHS, STEPS = 4, 12  # in a fit, in an epoch
TOTAL = EPOCHS * STEPS
# name: after how many steps Keras makes a backup; "epoch": at the end of each
CASES: dict[str, int | str] = {
    "one_cycle": "epoch",
    "restarts, momentum, epochs": "epoch",
    "one_cycle, mid-epoch": 5,
    "restarts, mid-epoch": 7,
}


def child(case: str, folder: str) -> None:
    """Train, or go on training; print "count rate" after every step."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import numpy as np
    from sklearn.datasets import load_digits

    import tfschedules as tfs

    class Tell(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            optimizer = self.model.optimizer
            rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
            print(int(optimizer.iterations), rate.hex(), flush=True)
            time.sleep(0.002)  # a real step takes longer, too

    data = load_digits()
    x, y = (data.data[: 8 * STEPS] / 16).astype("float32"), data.target[: 8 * STEPS]
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((64,)), keras.layers.Dense(16, "tanh"), keras.layers.Dense(10)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    kind = keras.optimizers.Adam if "mid-epoch" in case else keras.optimizers.SGD
    arguments = {} if "mid-epoch" in case else {"momentum": 0.9}
    model.compile(kind(0.01, **arguments), loss)
    if case.startswith("one_cycle"):
        callback = tfs.OneCycle(
            0.1, None if case == "one_cycle" else tfs.epochs(EPOCHS)
        )
    else:
        length = tfs.epochs(1.5) if "epochs" in case else 10
        callback = tfs.HyperparameterScheduler(
            tfs.warm_restarts(0.1, length, 0.001, cycle_mult=1.5, peak_decay=0.9),
            momentum=tfs.Linear(0.95, 0.8, tfs.epochs(EPOCHS)),
        )
    backup = keras.callbacks.BackupAndRestore(
        os.path.join(folder, "backup"),  # noqa: PTH118
        save_freq=CASES[case],
        double_checkpoint=True,  # a kill may come while it writes
    )
    model.fit(
        x, y, batch_size=8, epochs=EPOCHS, shuffle=False, verbose=0,
        callbacks=[callback, backup, Tell()],
    )  # fmt: skip
    values = [np.asarray(w) for w in [*model.get_weights(), *model.optimizer.variables]]
    digest = hashlib.sha256(b"".join(value.tobytes() for value in values))
    print("weights", digest.hexdigest(), flush=True)


@dataclasses.dataclass
class Run:
    """What a child has told: (count, rate) after each step, and its weights' digest."""

    steps: list[tuple[int, str]]
    weights: str | None
    errors: str


def run(case: str, folder: str, kill_at: int | None = None, delay: float = 0.0) -> Run:
    """Run a child to its end, or kill it `delay` seconds after its step `kill_at`."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, __file__, "--child", case, "--folder", folder],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert process.stdout is not None
        timer = threading.Timer(120, process.kill)
        timer.start()
        steps: list[tuple[int, str]] = []
        weights = None
        try:
            for line in process.stdout:
                first, second = line.split()
                if first == "weights":
                    weights = second
                    continue
                steps.append((int(first), second))
                if len(steps) == kill_at:
                    time.sleep(delay)
                    process.send_signal(signal.SIGKILL)
        finally:
            timer.cancel()
            process.kill()
            process.wait()
            process.stdout.close()
        errors.seek(0)
        return Run(steps, weights, errors.read())


def verdict(case: str, runs: list[Run], whole: Run) -> tuple[str, int]:
    """What is wrong with killed and resumed `runs`, if anything, and their updates."""
    rates = dict(whole.steps)
    if whole.weights is None or len(rates) != TOTAL:
        return "the undisturbed run failed: " + whole.errors[-500:], 0
    if runs[-1].weights is None:
        return "the last run did not finish: " + runs[-1].errors[-500:], 0
    updates = runs[-1].steps[-1][0]
    before = 0
    for i, one in enumerate(runs):
        counts = [count for count, _ in one.steps]
        if not counts:
            continue
        if counts != list(range(counts[0], counts[0] + len(counts))):
            return f"run {i}: the count jumps", updates
        if i and counts[0] - 1 > before:
            return f"run {i}: begins after what has been done", updates
        before = max(before, counts[-1] + 1)
        for count, rate in one.steps:
            # More updates than planned: what is past the end is compared in the tests.
            if count in rates and rate != rates[count]:
                wrong = float.fromhex(rate), float.fromhex(rates[count])
                return f"run {i}, count {count}: rate %.6g, not %.6g" % wrong, updates
    if CASES[case] == "epoch":
        if updates != TOTAL:
            return f"{updates} updates, not {TOTAL}", updates
        if runs[-1].weights != whole.weights:
            return "the weights differ", updates
    return "", updates


def main() -> None:
    """Kill and resume, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.folder)
        return
    chance, cases = random.Random(arguments.seed), arguments.case or list(CASES)
    wholes: dict[str, Run] = {}
    killed = failed = rounds = 0
    print(f"{'case':28s} {'killed at counts':20s} {'updates':>7s}  verdict")
    while killed < arguments.kills:
        case = cases[rounds % len(cases)]
        rounds += 1
        runs: list[Run] = []
        with tempfile.TemporaryDirectory() as folder:
            if case not in wholes:
                wholes[case] = run(case, folder + "/whole")
            for _ in range(min(chance.choice([1, 1, 2]), arguments.kills - killed)):
                at, delay = chance.randint(1, TOTAL - 10), chance.uniform(0, 0.004)
                one = run(case, folder, at, delay)
                runs.append(one)
                killed += one.weights is None
            runs.append(run(case, folder))
        wrong, updates = verdict(case, runs, wholes[case])
        failed += bool(wrong)
        at = ", ".join(str(one.steps[-1][0]) for one in runs[:-1] if one.steps)
        print(f"{case:28s} {at:20s} {updates:7d}  {wrong or 'identical'}", flush=True)
    print(f"{killed} kills in {rounds} runs, {failed} of them wrong")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
