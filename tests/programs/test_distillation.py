"""Distillation: a small student learns from a teacher that is trained already."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from helpers import JIT, arrays, digits
from keras import layers, ops
from probe import Probe, Watch

import tfschedules as tfs

BATCH, EPOCHS, WARMUP = 32, 4, 10
X, Y = digits(640)
UPDATES = EPOCHS * len(X) // BATCH


def network(*units: int) -> keras.Model:
    hidden = [layers.Dense(n, activation="relu") for n in units]
    return keras.Sequential([keras.Input((64,)), *hidden, layers.Dense(10)])


class Distiller(keras.Model):
    """The student's own loss, and how far it is from the softened teacher."""

    def __init__(self, student: keras.Model, teacher: keras.Model) -> None:
        super().__init__()
        self.student, self.teacher, self.probe = student, teacher, Probe()
        self.teacher.trainable = False

    def compile(
        self, alpha: float = 0.1, temperature: float = 3.0, **others: Any
    ) -> None:
        super().compile(**others)
        self.alpha, self.temperature = alpha, temperature

    def call(self, x: Any) -> Any:
        return self.student(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, **_) -> Any:
        soft = ops.softmax(self.teacher(x, training=False) / self.temperature)
        own = ops.softmax(y_pred / self.temperature)
        distance = ops.mean(keras.losses.kl_divergence(soft, own)) * self.temperature**2
        with_labels = super().compute_loss(x=x, y=y, y_pred=y_pred)
        together = self.alpha * with_labels + (1 - self.alpha) * distance
        return together + self.probe.loss()


def train() -> tuple[Distiller, Watch, Any]:
    """Train the teacher, then the student.

    What tfschedules changes in the program: the teacher's callback, and the student's
    rate, which is a schedule in the optimizer.
    """
    labels = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    arguments = {"loss": labels, "metrics": ["accuracy"], "jit_compile": JIT}
    teacher = network(64)
    teacher.compile("adam", **arguments)
    teacher.fit(
        X,
        Y,
        epochs=2,
        verbose=0,
        callbacks=[tfs.OneCycle(0.02)],  # changed
    )
    schedule = tfs.warmup(tfs.Cosine(0.3, 0.0, UPDATES - WARMUP), WARMUP)  # changed
    distiller = Distiller(network(16), teacher)
    distiller.compile(optimizer=keras.optimizers.SGD(schedule), **arguments)
    watch = Watch(distiller.probe)
    distiller.fit(X, Y, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=[watch])
    return distiller, watch, distiller.evaluate(X, Y, verbose=0, return_dict=True)


def test_distillation() -> None:
    keras.utils.set_random_seed(4)
    distiller, watch, metrics = train()
    k = np.arange(UPDATES)
    falling = 0.15 * (1 + np.cos(np.pi * (k - WARMUP) / (UPDATES - WARMUP)))
    rates = np.where(k < WARMUP, 0.3 * k / WARMUP, falling)
    np.testing.assert_allclose(watch.rates, rates, rtol=1e-5, atol=1e-6)
    assert metrics["accuracy"] > 0.6
    # The optimizer is the student's alone, and the teacher has stayed what it was.
    trained = distiller.optimizer.variables[0]
    assert int(keras.ops.convert_to_numpy(trained)) == UPDATES
    assert len(distiller.trainable_variables) == len(arrays(distiller.student)) + 1


def test_a_student_is_found_a_rate_and_the_teacher_is_left_alone() -> None:
    """Changed: the line that finds the rate, and restarts that follow it."""
    keras.utils.set_random_seed(4)
    teacher = network(32)
    distiller = Distiller(network(16), teacher)
    labels = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(optimizer="sgd", loss=labels, jit_compile=JIT)
    before = arrays(teacher)
    found = tfs.find_learning_rate(distiller, X, Y, batch_size=BATCH, verbose=0)
    assert 1e-3 < found.suggestion < 10
    restarts = tfs.WarmRestarts(found.suggestion, first_cycle=tfs.epochs(0.5))
    watch = Watch(distiller.probe)
    begin = distiller.probe.read()
    assert begin == 0.0  # the range test has put it back
    callbacks = [restarts, watch]
    distiller.fit(X, Y, batch_size=BATCH, epochs=2, verbose=0, callbacks=callbacks)
    t = np.arange(2 * len(X) // BATCH) % 10 / 10
    rates = found.suggestion * 0.5 * (1 + np.cos(np.pi * t))
    np.testing.assert_allclose(watch.rates, rates, rtol=1e-5, atol=1e-6)
    for one, other in zip(arrays(teacher), before, strict=True):
        np.testing.assert_array_equal(one, other)
