"""Learning-rate craft for Keras 3: find the rate, schedule it, watch it.

The public names are those of `__init__.pyi`. They are loaded when they are first used:
importing ``tfschedules`` imports neither Keras nor TensorFlow.
"""

from tfschedules._support import lazy
from tfschedules.registration import register_with_keras

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy.attach(__name__)

register_with_keras()
