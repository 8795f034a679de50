"""The weights of model files in a model, one after the other, and its own again."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from tfschedules.drive.copies import Copies
from tfschedules.drive.state import value_of
from tfschedules.drive.store import InMemory
from tfschedules.drive.tidying import AtTheEnd, do_all

_WEIGHTS = "model.weights.h5"  # the name in a .keras file

Shapes = dict[str, tuple[int, ...]]


class Members:
    """Files that a model of the same architecture was saved to.

    Only the weights are read: optimizers and metrics, of the model and of models in it,
    are left alone.
    """

    def __init__(self, model: keras.Model, files: Sequence[Path]) -> None:
        """Look at all files; nothing is changed yet.

        Raises:
            ValueError: If one is of a model with other weights.
        """
        self._model, self._files = model, files
        self._left_alone, names = _no_weights(model)
        own = self._own_shapes()
        for file in files:
            with zipfile.ZipFile(file) as archive, archive.open(_WEIGHTS) as inside:
                found = _shapes(inside)
            found = {
                path: shape
                for path, shape in found.items()
                if path in own or names.isdisjoint(path.split("/"))
            }
            if found != own:
                raise ValueError(
                    f"The file {file} is of another model than {model.name!r}: "
                    f"{_difference(own, found)}. Remove it, or load each model from "
                    "its file: tfs.SnapshotEnsemble.load(directory)."
                )

    def each(self, use: Callable[[], Any]) -> list[Any]:
        """What `use` returns with the weights of each file in the model.

        The model has its own weights again afterwards, whatever happens.

        Raises:
            ValueError: If layers of the model were adapted to other data since.
        """
        copies = Copies(InMemory())
        copies.take(self._model.variables)
        back = [action for _, action in copies.putting_back()]
        # Done last: this layer computes with constants that are made of its weights.
        back[:0] = [layer.finalize_state for layer in _normalizations(self._model)]
        adapted = self._adapted()
        with AtTheEnd(lambda: do_all(back)), AtTheEnd(lambda: do_all(back)):
            return [self._with(file, use, adapted) for file in self._files]

    def _with(
        self, file: Path, use: Callable[[], Any], adapted: list[np.ndarray]
    ) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            with zipfile.ZipFile(file) as archive:
                weights = archive.extract(_WEIGHTS, folder)
            self._model.load_weights(weights, objects_to_skip=self._left_alone)
        # What is compiled has those constants in it.
        if not all(map(np.array_equal, self._adapted(), adapted)):
            raise ValueError(
                f"A Normalization layer of {self._model.name!r} was adapted to other "
                f"data since {file} was written, and compiled functions keep that. "
                "Load each model from its file: tfs.SnapshotEnsemble.load(directory)."
            )
        return use()

    def _adapted(self) -> list[np.ndarray]:
        """To which data normalizing layers are adapted."""
        layers = _normalizations(self._model)
        return [value_of(weight) for layer in layers for weight in layer.weights]

    def _own_shapes(self) -> Shapes:
        """Those of the file that Keras would write."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, _WEIGHTS)
            keras.saving.save_weights(
                self._model, path, objects_to_skip=self._left_alone
            )
            with path.open("rb") as file:
                return _shapes(file)


def _no_weights(model: keras.Model) -> tuple[list[Any], set[str]]:
    """Optimizers and metrics, and the attributes that a file has them under."""
    found, names = [], {"optimizer"}
    for layer in model._flatten_layers():
        if isinstance(layer, keras.Model):
            found += layer.metrics
            found += [] if layer.optimizer is None else [layer.optimizer]
        for name, value in vars(layer).items():
            inside = [v for v in _within(value) if isinstance(v, _NO_WEIGHTS)]
            if inside:
                found += inside
                names.add(name)
    return found, names


_NO_WEIGHTS = (keras.Optimizer, keras.Metric)


def _within(value: Any) -> Iterable[Any]:
    """A value, or what it holds, also in lists and dicts of these."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [inside for each in value for inside in _within(each)]
    return [value]


def _normalizations(model: keras.Model) -> list[Any]:
    layers = model._flatten_layers()
    return [x for x in layers if isinstance(x, keras.layers.Normalization)]


def _shapes(file: Any) -> Shapes:
    """The shape of every array of a file of weights, by its path."""
    shapes: Shapes = {}

    def note(path: str, value: Any) -> None:
        if isinstance(value, h5py.Dataset):
            shapes[path] = value.shape

    with h5py.File(file, "r") as weights:
        weights.visititems(note)
    return shapes


def _difference(own: Shapes, found: Shapes) -> str:
    """The first of the differences, in words."""
    path = min(path for path in own | found if own.get(path) != found.get(path))
    has, wants = found.get(path), own.get(path)
    if has is None:
        return f"it lacks {path}, of shape {wants}"
    if wants is None:
        return f"it has {path}, of shape {has}, which the model lacks"
    return f"{path} has shape {has} in it, and {wants} in the model"
