"""Files that a plateau rule keeps its state in, from one process to another."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras

from tfschedules._support.files import replace_text
from tfschedules._support.paths import local_path
from tfschedules._support.telling import tell
from tfschedules.callbacks.plateau_rule import State

_NAME = "reduce_on_plateau.json"  # in the folder of a backup
_FORMAT = 1


class PlateauFile:
    """The states after each epoch of a training, as JSON."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Nothing is read or written yet.

        Args:
            path: The file.
            settings: What the states are good for: the arguments of the rule.
        """
        self.path, self._settings = path, dict(settings)

    def read(self) -> dict[int, State]:
        """The states by the number of epochs before them; none without a file.

        Raises:
            ValueError: If the file holds none, or those of another rule.
        """
        try:
            text = self.path.read_text("utf-8")
        except FileNotFoundError:
            return {}
        try:
            plain = json.loads(text)
            settings = dict(plain["rule"])
            known = plain["format"] == _FORMAT
            states = {int(n): State.read(s) for n, s in plain["epochs"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._refused("holds no state of a ReduceOnPlateau") from error
        if not known:
            raise self._refused("is of a later version of tfschedules")
        other = [n for n, v in self._settings.items() if settings.get(n) != v]
        if other:
            raise self._refused(
                "was written by a ReduceOnPlateau with other arguments "
                f"({', '.join(other)})"
            )
        return states

    def _refused(self, why: str) -> ValueError:
        return ValueError(
            f"The state file of ReduceOnPlateau {why}: {str(self.path)!r}. Give the "
            "file of this training, or remove it to count epochs anew."
        )

    def write(self, states: Mapping[int, State]) -> None:
        """Write the states; a failure is told of, and training goes on."""
        plain = {
            "format": _FORMAT,
            "rule": self._settings,
            "epochs": {str(n): dataclasses.asdict(s) for n, s in states.items()},
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            replace_text(self.path, json.dumps(plain))
        except OSError as error:
            tell(
                f"ReduceOnPlateau cannot write its state to {str(self.path)!r}: "
                f"{error}. Training goes on; a resumed fit will not know it.",
                stacklevel=5,
            )


def backup_files(callbacks: Iterable[Any], optimizer: str | None) -> list[Path]:
    """Where the state is kept beside the backups of a fit.

    Args:
        callbacks: Those of the fit.
        optimizer: The name of the optimizer, if it is not the compiled one.
    """
    file = _NAME if optimizer is None else _NAME.replace(".", f"_{optimizer}.")
    paths = []
    for each in callbacks:
        if isinstance(each, keras.callbacks.BackupAndRestore):
            try:
                folder = local_path("backup_dir", each.backup_dir)
            except ValueError:
                tell(
                    f"ReduceOnPlateau keeps no state in {each.backup_dir!r}, which is "
                    "no folder of this machine. Give ReduceOnPlateau(state_file=…) to "
                    "resume with it.",
                    stacklevel=4,
                )
            else:
                paths.append(folder / file)
    return paths
