"""The Schedules tab of TensorBoard: loss against rate, and any scalar against any.

`tensorboard` imports this module at every start, on machines without Keras or
TensorFlow too, and an error here would end it for all plugins: so nothing is imported
before the loader is asked to load, and the loader never raises.
"""

from __future__ import annotations

import logging
from typing import Any

from tensorboard.plugins import base_plugin

_logger = logging.getLogger(__name__)


class SchedulesLoader(base_plugin.TBLoader):
    """What the entry point `tensorboard_plugins` names."""

    def load(self, context: Any) -> Any:
        """Make the plugin; None, and a line in the log, if that fails."""
        try:
            from tfschedules.tensorboard_plugin.plugin import SchedulesPlugin

            return SchedulesPlugin(context)
        except Exception as error:
            _logger.warning("The Schedules tab of tfschedules is left out: %s", error)
            return None
