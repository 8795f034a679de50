"""The states of a training in a session, and when they are saved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfschedules.drive import InPlace, digest, heads

_V1 = tf.compat.v1


class States:
    """Tells states of a training apart, by the weights that it trains.

    Slots are left out: which variables are an optimizer's, a graph does not say.
    """

    def __init__(self, graph: Any) -> None:
        """Add to a graph that is complete what reads them."""
        weights = graph.get_collection(_V1.GraphKeys.TRAINABLE_VARIABLES)
        self._parts = []
        for weight, head in heads([w for w in weights if w.shape.is_fully_defined()]):
            value = tf.convert_to_tensor(weight)
            self._parts.append(value if head is None else value[head])
        step = _V1.train.get_global_step(graph)
        self._step = None if step is None else tf.convert_to_tensor(step)
        self._places: list[InPlace] = []

    def now(self, session: Any) -> tuple[int, str] | None:
        """The count of steps and the fingerprint; None where nothing is trained.

        Args:
            session: A session without hooks.
        """
        if self._step is None or not self._parts:
            return None
        count, values = session.run((self._step, self._parts))
        return int(count), digest(int(count), values)

    def before_saves(self, graph: Any, action: Callable[[Any], None]) -> None:
        """Call `action` with the session before a saver of the graph saves."""
        self.let_go()
        for saver in dict.fromkeys(graph.get_collection(_V1.GraphKeys.SAVERS)):
            place = InPlace(saver, "save", _announced(saver.save, action))
            self._places.append(place)
            place.take()

    def let_go(self) -> None:
        """Give the savers their own methods back; a second time does nothing."""
        while self._places:
            self._places.pop().give_back()


def _announced(save: Callable[..., Any], action: Callable[[Any], None]) -> Any:
    def announced(sess: Any, *args: Any, **kwargs: Any) -> Any:
        action(sess)
        return save(sess, *args, **kwargs)

    return announced
