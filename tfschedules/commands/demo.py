"""The whole job on real data, offline: find a rate, schedule it, watch it.

A small convolutional network learns scikit-learn's bundled digits (1,797 pictures of
8 by 8) four times from the same weights, with four schedules made from one range test.
"""

from __future__ import annotations

import dataclasses
import shlex
import time
from pathlib import Path
from typing import Any

import keras
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import tfschedules as tfs

BATCH_SIZE = 32
GOAL = 0.95


@dataclasses.dataclass
class Run:
    """One training: its schedule, and the validation accuracy after each epoch."""

    name: str
    schedule: tfs.Schedule
    callback: keras.callbacks.Callback
    accuracy: list[float] = dataclasses.field(default_factory=list)
    seconds: float = 0.0


def run(log_dir: str, epochs: int, seed: int) -> int:
    """Do everything, printing as it goes; return an exit status."""
    console = Console()
    folder = Path(log_dir)
    folder.mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    train_x, val_x, train_y, val_y = train_test_split(
        digits.images[..., None].astype("float32") / 16,
        digits.target,
        test_size=500,
        stratify=digits.target,
        random_state=seed,
    )
    steps_per_epoch = -(-len(train_x) // BATCH_SIZE)

    console.rule("1. Find the rate")
    model = network(seed)
    start = model.get_weights()
    result = tfs.find_learning_rate(
        model, train_x, train_y, batch_size=BATCH_SIZE, min_lr=1e-5, log_dir=log_dir
    )
    console.print(str(result), highlight=False)
    result.save(folder / "range_test.json")
    if result.suggestion is None or result.bounds is None:
        console.print("Without a rate there is nothing to schedule. Another --seed?")
        return 1

    console.rule("2. Schedule it")
    runs = schedules(result.suggestion, result.bounds, epochs, steps_per_epoch)
    with Progress(console=console) as progress:
        for this in runs:
            task = progress.add_task(this.name, total=epochs)
            model.set_weights(start)
            model.compile(optimizer(), LOSS, metrics=["accuracy"])
            keras.utils.set_random_seed(seed)
            began = time.perf_counter()
            history = model.fit(
                train_x,
                train_y,
                batch_size=BATCH_SIZE,
                epochs=epochs,
                verbose=0,
                validation_data=(val_x, val_y),
                callbacks=[
                    this.callback,
                    tfs.TensorBoardLogger(folder / this.name.replace(" ", "_")),
                    keras.callbacks.LambdaCallback(
                        on_epoch_end=lambda epoch, logs, task=task: progress.update(
                            task, completed=epoch + 1
                        )
                    ),
                ],
            )
            this.seconds = time.perf_counter() - began
            this.accuracy = history.history["val_accuracy"]
    console.print(table(runs, steps_per_epoch))

    console.rule("3. Watch it")
    picture = folder / "demo.png"
    draw(result, runs, steps_per_epoch).savefig(picture)
    files = f"Pictures and figures: {picture}, {folder / 'range_test.json'}"
    console.print(files, markup=False, highlight=False)
    console.print("Every step, in TensorBoard:")
    console.print(
        f"    tensorboard --logdir {shlex.quote(log_dir)}",
        style="bold",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return 0


LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def optimizer() -> keras.optimizers.Optimizer:
    """SGD with momentum, where rates matter most."""
    return keras.optimizers.SGD(0.01, momentum=0.9)


def network(seed: int) -> keras.Model:
    """A small convolutional network with BatchNorm, compiled."""
    keras.utils.set_random_seed(seed)
    layers: list[Any] = [keras.Input((8, 8, 1))]
    for filters, strides in ((16, 1), (32, 2), (32, 2)):
        layers += [
            keras.layers.Conv2D(filters, 3, strides, "same", use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
        ]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]
    model = keras.Sequential(layers)
    model.compile(optimizer(), LOSS, metrics=["accuracy"])
    return model


def schedules(rate: float, bounds: Any, epochs: int, steps_per_epoch: int) -> list[Run]:
    """Four schedules from one range test, each as long as the training."""
    total = epochs * steps_per_epoch
    # Two cycles; a restart after a third of the steps, into a cycle twice as long.
    half = -(-total // 4)
    cycle = tfs.CyclicalLearningRate(bounds.base_lr, bounds.max_lr, half)
    restarts = tfs.WarmRestarts(rate, first_cycle=-(-total // 3), cycle_mult=2)
    one_cycle = tfs.OneCycle(rate, total)
    constant = tfs.HyperparameterScheduler(tfs.Constant(rate))
    named = {
        "constant": constant,
        "cyclical": cycle,
        "warm restarts": restarts,
        "one cycle": one_cycle,
    }
    return [
        Run(name, callback.schedules["learning_rate"], callback)
        for name, callback in named.items()
    ]


def table(runs: list[Run], steps_per_epoch: int) -> Table:
    """Validation accuracy and the steps to the goal, counted at epochs' ends."""
    result = Table(
        "schedule",
        "rates",
        "validation accuracy",
        f"steps to {GOAL:.0%}",
        "seconds",
    )
    for this in runs:
        rates = this.schedule.values(len(this.accuracy) * steps_per_epoch)
        reached = np.flatnonzero(np.array(this.accuracy) >= GOAL)
        result.add_row(
            this.name,
            f"{rates.min():.2g} … {rates.max():.2g}",
            f"{this.accuracy[-1]:.1%}",
            str((reached[0] + 1) * steps_per_epoch) if len(reached) else "not reached",
            f"{this.seconds:.1f}",
        )
    return result


def draw(result: tfs.RangeTestResult, runs: list[Run], steps_per_epoch: int) -> Figure:
    """The curve, the four schedules, and what became of them."""
    with mpl.rc_context({"font.size": 11, "axes.spines.top": False}):
        figure = Figure(figsize=(13, 3.6), dpi=110, layout="constrained")
        curve, rates, accuracy = figure.subplots(1, 3)
        result.plot(curve)
        curve.set_title("find: the range test")
        for this in runs:
            steps = np.arange(len(this.accuracy) * steps_per_epoch)
            this.schedule.plot(steps, rates).lines[-1].set_label(this.name)
            ends = np.arange(1, len(this.accuracy) + 1) * steps_per_epoch
            accuracy.plot(ends, this.accuracy, ".-", label=this.name)
        rates.set(title="schedule", xlabel="step", ylabel="learning rate")
        rates.set_ylim(0, 1.35 * max(rates.get_ylim()))
        rates.legend(frameon=False, fontsize="small", ncols=2, loc="upper center")
        accuracy.set(title="watch", xlabel="step", ylabel="validation accuracy")
        accuracy.set_ylim(max(0.0, GOAL - 0.15), 1.002)
        accuracy.axhline(GOAL, color="grey", linewidth=0.8, linestyle=":")
        accuracy.legend(frameon=False, fontsize="small", loc="lower right")
    return figure
