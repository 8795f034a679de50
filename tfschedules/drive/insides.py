"""What of Keras's insides this package leans on, and a check that it is there.

Not all of it is Keras's public interface. So whoever borrows something of a model asks
first whether Keras has it: an error that names what is missing is better than a
schedule that is not followed. docs/insides.md has the table.
"""

from __future__ import annotations

import dataclasses
import functools

import keras

from tfschedules.drive import frames
from tfschedules.drive.chosen import Chosen


@dataclasses.dataclass(frozen=True)
class Inside:
    """One attribute of Keras.

    Attributes:
        owner: "model", "optimizer" (the innermost one), or the method of Keras whose
            code has to use the name.
        name: The attribute.
        where: The file of this package that uses it, in `drive/`.
        why: What for.
        otherwise: What happens if Keras changes it.
        backends: The backends that have it.
    """

    owner: str
    name: str
    where: str
    why: str
    otherwise: str
    backends: tuple[str, ...] = ("tensorflow", "jax", "torch")


_REFUSED = "refused"
_COMPILED = ("tensorflow", "jax")
_JAX = ("jax",)

INSIDES = [
    Inside(
        "fit", "make_train_function", "turns.py",
        "a fit begins with this call: what a dead one has left is given back",
        _REFUSED,
    ),
    Inside(
        "fit", "train_function", "turns.py",
        "a fit looks it up in each step, and so its steps can be told from others",
        _REFUSED,
    ),
    Inside(
        "train_on_batch", "train_function", "turns.py",
        "the steps of a loop are told from those of a fit", _REFUSED,
    ),
    Inside(
        "model", "train_step", "turns.py",
        "on JAX a step of its own for each fit; where metrics are reset", _REFUSED,
    ),
    Inside(
        "model", "make_test_function", "turns.py",
        "on JAX a test step of its own for each fit", _REFUSED,
    ),
    Inside(
        "model", "_make_function", "turns.py, between.py",
        "a step that is told how many updates others made; stops between two steps",
        _REFUSED, _COMPILED,
    ),
    Inside(
        "model", "_loss_tracker", "losses.py",
        "it is given each batch's own loss", _REFUSED,
    ),
    Inside(
        "model", "test_step", "losses.py",
        "validation gives losses to the same tracker, and these are left out",
        _REFUSED,
    ),
    Inside(
        "model", "_get_metrics_result_or_logs", "between.py",
        "it is called when an epoch's steps are done, before any callback", _REFUSED,
    ),
    Inside(
        "fit", "_get_metrics_result_or_logs", "epoch_logs.py",
        "it makes the logs of an epoch, and the rate is put into them", _REFUSED,
    ),
    Inside(
        "model", "steps_per_execution", "losses.py, between.py",
        "how many batches pass between two calls of Python", _REFUSED,
    ),
    Inside(
        "model", "_initial_epoch", "restored.py",
        "BackupAndRestore sets it: the fit goes on inside a schedule", _REFUSED,
    ),
    Inside(
        "model", "get_state_tree", "between.py",
        "OrbaxCheckpoint saves by it: the state is noted for the records", _REFUSED,
    ),
    Inside(
        "model", "_flatten_layers",
        "state.py, snapshot.py, freezing.py, weights.py, members.py",
        "whether all layers are built; layers with statistics; weights by layer",
        _REFUSED,
    ),
    Inside(
        "model", "_non_trainable_variables", "freezing.py",
        "of a layer: whether it has statistics", _REFUSED,
    ),
    Inside(
        "model", "_compile_metrics", "snapshot.py",
        "a first fit on JAX has to find metrics and losses as they were, not built",
        _REFUSED,
    ),
    Inside("model", "_compile_loss", "snapshot.py", "the same", _REFUSED),
    Inside(
        "fit", "_jax_state", "state.py, between.py",
        "JAX keeps the state outside of the variables during a fit", _REFUSED, _JAX,
    ),
    Inside("fit", "_jax_state_synced", "state.py", "the same", _REFUSED, _JAX),
    Inside("model", "_get_jax_state", "between.py", "the same", _REFUSED, _JAX),
    Inside(
        "model", "jax_state_sync", "between.py, state.py", "the same", _REFUSED, _JAX
    ),
    Inside(
        "optimizer", "apply", "wheel.py",
        "every update goes through it, in each kind of loop", _REFUSED,
    ),
    Inside(
        "optimizer", "_iterations",
        "chosen.py, state.py, split.py, put_back.py, losses.py, step_logs.py, loop.py, "
        "loop_drive.py",
        "the count of batches; `iterations` is that of updates; its `assign` tells of "
        "a rollback", _REFUSED,
    ),
    Inside(
        "optimizer", "save_own_variables", "between.py",
        "whatever saves a model calls it: the state is noted for the records", _REFUSED,
    ),
    Inside(
        "optimizer", "_learning_rate",
        "chosen.py, drive.py, wheel.py, loop.py, loop_drive.py",
        "the variable of the rate, or the schedule it was compiled with", _REFUSED,
    ),
    Inside(
        "optimizer", "gradient_accumulation_steps", "chosen.py, loop.py, loop_drive.py",
        "how many batches make an update", _REFUSED,
    ),
    Inside(
        "optimizer", "update_step", "split.py",
        "where a weight is updated with a rate: layer groups", _REFUSED,
    ),
    Inside(
        "optimizer", "_backend_update_step", "split.py",
        "where all weights are updated: the groups' multipliers are computed once",
        _REFUSED,
    ),
    Inside(
        "optimizer", "_apply_weight_decay", "split.py",
        "where weights decay, with the rate of the optimizer", _REFUSED,
    ),
    Inside(
        "optimizer", "_get_current_learning_rate", "split.py",
        "where the decay takes the rate from", _REFUSED,
    ),
    Inside(
        "optimizer", "_trainable_variables", "freezing.py, split.py, weights.py",
        "the weights that it was built on, in their order", _REFUSED,
    ),
    Inside(
        "optimizer", "_get_variable_index", "freezing.py, split.py, weights.py",
        "the place of a weight among them", _REFUSED,
    ),
    Inside(
        "optimizer", "_var_key", "unsaved.py, weights.py",
        "which weights have no decay, and which it knows", _REFUSED,
    ),
    Inside(
        "optimizer", "_use_weight_decay", "unsaved.py", "the same", _REFUSED
    ),
    Inside(
        "optimizer", "_trainable_variables_indices", "weights.py",
        "whether the optimizer knows a weight", _REFUSED,
    ),
    Inside(
        "optimizer", "finalize_variable_values", "freezing.py",
        "where averages are put into the weights, at the end of a fit", _REFUSED,
    ),
    Inside(
        "optimizer", "stateless_apply", "freezing.py",
        "the update on JAX, which takes all weights or none", _REFUSED, _JAX,
    ),
]  # fmt: skip


def check_insides(chosen: Chosen) -> None:
    """Refuse to go on where Keras lacks something.

    Raises:
        RuntimeError: If it does.
    """
    owners = {"model": chosen.model, "optimizer": chosen.inner}
    for inside in _here():
        owner = owners.get(inside.owner)
        if owner is not None:
            there = hasattr(owner, inside.name)
        else:
            there = inside.name in frames.codes()[inside.owner].co_names
        _require(there, inside)


@functools.cache
def _here() -> list[Inside]:
    return [i for i in INSIDES if keras.backend.backend() in i.backends]


def _require(there: bool, inside: Inside) -> None:
    if not there:
        raise RuntimeError(
            f"tfschedules leans on `{inside.name}` of Keras's {inside.owner} "
            f"({inside.why}), and Keras {keras.__version__} on the backend "
            f"{keras.backend.backend()!r} does not have it. Use a version of Keras "
            "that tfschedules is tested with, or look for a newer tfschedules."
        )
