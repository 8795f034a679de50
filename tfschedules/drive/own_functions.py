"""Functions of the user's own that are compiled: inside of a step, or beside it.

What a user has compiled is not dropped with a fit. Its trace goes on with what was
borrowed when it was made, also when all is given back. So what is borrowed has to know
whether it is traced for a step, which is dropped, or for such a function. On JAX it
need not inside of a step: `own_steps` keeps those traces apart.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import keras

_HELD = "tfschedules/held"  # a collection of a graph


class StepGraphs:
    """Where the steps of a turn are traced on TensorFlow.

    A model that makes its train function in a way of its own does not tell.
    """

    def __init__(self) -> None:
        """Know none yet."""
        self._graphs: weakref.WeakSet[Any] = weakref.WeakSet()
        self._told = False

    def noting(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """A step that tells where it is traced."""
        if keras.backend.backend() != "tensorflow":
            return step
        self._told = True

        def noting(*arguments: Any) -> Any:
            for graph in _graphs_around():
                self._graphs.add(graph)
                break
            return step(*arguments)

        return noting

    def refuse_own(self, what: str) -> None:
        """Refuse what is traced for a function of the user's own inside of a step.

        Args:
            what: What would stay in it.

        Raises:
            RuntimeError: If it is.
        """
        if self._told and self._is_own():
            raise RuntimeError(_error(what))

    def _is_own(self) -> bool:
        import tensorflow as tf

        own = False
        for graph in _graphs_around():
            if graph in self._graphs:
                break
            # A branch or a loop has a graph of another class.
            own = own or type(graph) is tf.__internal__.FuncGraph
        return own


def refuse_own_step(model: keras.Model, what: str) -> None:
    """Refuse a `train_step` that is a `tf.function`, before anything is changed.

    Raises:
        RuntimeError: If it is one.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if isinstance(model.train_step, tf.types.experimental.PolymorphicFunction):
            raise RuntimeError(_error(what))


def _error(what: str) -> str:
    return (
        f"{what}, and a tf.function of your own is in the training step. It would "
        "keep this when the fit is over. Keras compiles train_step itself: take the "
        "decorator (@tf.function) off train_step, and off what it calls."
    )


def _graphs_around() -> Iterator[Any]:
    """The graphs of functions, branches and loops that are traced, from the inside."""
    import tensorflow as tf

    if tf.inside_function():
        graph = tf.compat.v1.get_default_graph()
        while isinstance(graph, tf.__internal__.FuncGraph):
            yield graph
            graph = graph.outer_graph


def hold(*variables: Any) -> None:
    """Keep variables as long as there is the function that is traced now.

    TensorFlow's functions do not hold the variables that they read.
    """
    for graph in _graphs_around():
        held = graph.get_collection(_HELD)
        for variable in variables:
            if not any(variable is other for other in held):
                graph.add_to_collection(_HELD, variable)


def is_in_function() -> bool:
    """Whether TensorFlow traces a function now."""
    return keras.backend.backend() == "tensorflow" and is_traced(None)


def is_traced(value: Any) -> bool:
    """Whether what is computed now becomes part of a compiled function.

    Args:
        value: A value of now, or several.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return bool(tf.inside_function())
    if backend == "jax":
        import jax

        leaves = jax.tree_util.tree_leaves(value)
        return any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
    return False


def variables_can_be_set(value: Any) -> bool:
    """Whether variables can be read and set now, on TensorFlow by way of `outside`.

    JAX cannot leave a trace, and in a `StatelessScope` nothing reaches the variables.

    Args:
        value: A value of now, or several.
    """
    from keras.src.backend import in_stateless_scope

    jax = keras.backend.backend() == "jax"
    return not in_stateless_scope() and not (jax and is_traced(value))


def outside(action: Callable[[], None]) -> None:
    """Do something outside of what TensorFlow traces."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.init_scope():
            action()
    else:
        action()


def unconverted(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that AutoGraph does not rewrite in a `tf.function` of the user's."""
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    made: Callable[..., Any] = tf.autograph.experimental.do_not_convert(function)
    return made
