"""The metric that a plateau rule looks at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfschedules._support import checks
from tfschedules._support.telling import tell
from tfschedules.drive import grows

_MODES = {"auto": None, "min": False, "max": True}


class Metric:
    """A metric of an epoch's logs, and which way is better."""

    def __init__(self, name: Any, mode: Any) -> None:
        """Check the arguments `monitor` and `mode`."""
        self.name = checks.text("monitor", name, "the name of a metric")
        self._grows = _MODES[checks.choice("mode", mode, list(_MODES))]

    def value(self, logs: Mapping[str, Any], *, known: bool) -> float | None:
        """The metric; `None` where there was no validation.

        Args:
            logs: Those of the epoch.
            known: Whether an epoch before had it.

        Raises:
            ValueError: If there is no such metric, or it is no number.
        """
        if self.name in logs:
            number = checks.as_real(logs[self.name])
            if number is None:
                raise ValueError(
                    f"The metric {self.name!r} must be a number for "
                    f"ReduceOnPlateau. Received: {checks.shown(logs[self.name])}"
                )
            return float(number)
        names = ", ".join(map(repr, logs)) or "none"
        validated = any(name.startswith("val_") for name in logs)
        if not self.name.startswith("val_") or validated:
            raise ValueError(
                f"ReduceOnPlateau finds no metric {self.name!r} in the logs of the "
                f"epoch. There are: {names}. Give monitor= one of these."
            )
        if not known:
            tell(
                f"ReduceOnPlateau finds no {self.name!r}: this epoch had no "
                f"validation, and is left out. There are: {names}. Give "
                "validation_data= to fit, or monitor= one of these.",
                stacklevel=5,
            )
        return None

    def is_growing(self, model: Any) -> bool:
        """Whether the metric grows where training goes well.

        Raises:
            ValueError: If nobody tells.
        """
        if self._grows is not None:
            return self._grows
        try:
            return grows(model, self.name)
        except ValueError:
            raise ValueError(
                f"The metric {self.name!r} does not say whether it grows or falls "
                'where training goes well. Give mode="max" or mode="min". '
                'Received: mode="auto"'
            ) from None
