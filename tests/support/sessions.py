"""Training in sessions, estimators' input, and the same training in NumPy."""

import os

import keras
import numpy as np
import pytest
from event_files import read

import tfschedules as tfs

tf = pytest.importorskip("tensorflow", reason="needs TensorFlow")


v1 = tf.compat.v1


# `.ci/run estimator` asks for these, so that there a missing tf.estimator is an error.
HAS_ESTIMATOR = hasattr(tf, "estimator") and hasattr(tf.estimator, "Estimator")


estimator = pytest.mark.skipif(
    not HAS_ESTIMATOR and "TFSCHEDULES_NEEDS_ESTIMATOR" not in os.environ,
    reason="needs tf.estimator, which TensorFlow has up to 2.15",
)


COUNT, SIZE = 64, 8


_generator = np.random.default_rng(1)


X = _generator.normal(size=(COUNT, 3)).astype("float32")
Y = (X @ [1.0, -2.0, 0.5] + 0.1 * _generator.normal(size=COUNT)).astype("float32")
FIRST = np.array([0.3, 0.1, -0.2], "float32")


# Wraps around within the tests, and has values that float32 must round.
SCHEDULE = tfs.cyclical(0.003, 0.05, step_size=3, window="hann")


def dataset(first_step=0):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(SIZE)
    return data.repeat().skip(first_step)


def next_batch(first_step=0):
    return v1.data.make_one_shot_iterator(dataset(first_step)).get_next()


def fed_batch():
    return v1.placeholder("float32", (SIZE, 3)), v1.placeholder("float32", SIZE)


def feed(data, step):
    return dict(zip(data, batch(step), strict=True))


def batch(step):
    at = step * SIZE % COUNT
    return X[at : at + SIZE].astype("float64"), Y[at : at + SIZE].astype("float64")


def oracle(rates, kind="momentum", first_step=0, weights=FIRST):
    """Losses of each step and the weights after it, of plain NumPy in float64."""
    w, speed, square = np.array(weights, "float64"), np.zeros(3), np.zeros(3)
    losses, course = [], []
    for step, rate in enumerate(rates):
        x, y = batch(first_step + step)
        error = x @ w - y
        losses.append((error**2).mean())
        gradient = 2 * x.T @ error / SIZE
        if kind == "momentum":
            speed = 0.9 * speed + gradient
            w = w - rate * speed
        elif kind == "velocity":  # Keras's momentum has the rate inside
            speed = 0.9 * speed - rate * gradient
            w = w + speed
        elif kind == "plain":
            w = w - rate * gradient
        elif kind == "adagrad":
            square = square + gradient**2
            w = w - rate * gradient / np.sqrt(0.1 + square)
        else:
            speed = 0.9 * speed + 0.1 * gradient
            square = 0.999 * square + 0.001 * gradient**2
            unbiased = np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
            w = w - rate * unbiased * speed / (np.sqrt(square) + 1e-8)
        course.append(w)
    return np.array(losses), np.array(course)


def regression(features, labels):
    """Weights and their loss, which is in the collection of losses."""
    w = v1.get_variable("w", initializer=FIRST)
    return w, v1.losses.mean_squared_error(labels, tf.linalg.matvec(features, w))


def minimized(optimizer, loss, w):
    """The training op of an optimizer of TensorFlow or of Keras."""
    step = v1.train.get_or_create_global_step()
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        return optimizer.minimize(loss, step)
    optimizer.build([w])

    @tf.function  # Keras counts on it to keep reads and assignments in order
    def update(gradient):
        optimizer.apply([gradient], [w])
        return tf.zeros(())

    with tf.control_dependencies([update(*tf.gradients(loss, [w.value]))]):
        return tf.group(step.assign_add(1))


def training_op(make_optimizer, features, labels):
    optimizer = make_optimizer()
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        return minimized(optimizer, regression(features, labels)[1], None)
    w = keras.Variable(FIRST, name="w")
    prediction = tf.linalg.matvec(features, w.value)
    return minimized(optimizer, v1.losses.mean_squared_error(labels, prediction), w)


def train(make_optimizer, hooks, steps, first_step=0, **session):
    """Train in a session until `steps`, or until a hook stops it."""
    with tf.Graph().as_default():
        op = training_op(make_optimizer, *next_batch(first_step))
        hooks = [*hooks, v1.train.StopAtStepHook(last_step=steps)]
        options = {"log_step_count_steps": None} | session
        with v1.train.MonitoredTrainingSession(hooks=hooks, **options) as monitored:
            while not monitored.should_stop():
                monitored.run(op)


class Watch(v1.train.SessionRunHook):
    """Reads weights and count after each run, from outside of all that is tested."""

    def __init__(self):
        self.weights, self.steps = [], []

    def begin(self):
        self.variables = v1.global_variables()
        (self.w,) = [v for v in self.variables if v.name == "w:0"]
        self.step = v1.train.get_global_step()

    def after_create_session(self, session, coord):
        self.at_begin = session.run(self.variables)

    def after_run(self, context, values):
        w, step = context.session.run([self.w, self.step])
        self.weights.append(w)
        self.steps.append(int(step))

    def end(self, session):
        self.at_end = session.run(self.variables)


def momentum():
    return v1.train.MomentumOptimizer(7.0, 0.9)


def recorded(folder):
    tags = read(folder)
    steps, rates, _ = tags["schedule/learning_rate"]
    np.testing.assert_array_equal(steps, tags["schedule/loss"][0])
    return steps, rates.astype("float32"), tags["schedule/loss"][1]


def saved(folder):
    """Every checkpoint that is there: from its step to its weights."""
    paths = v1.train.get_checkpoint_state(str(folder)).all_model_checkpoint_paths
    readers = [tf.train.load_checkpoint(path) for path in paths]
    return {int(r.get_tensor("global_step")): r.get_tensor("w") for r in readers}
