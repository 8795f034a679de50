"""Residual networks for small pictures, of any depth 6n + 2.

A block adds to its input what its two convolutions find:

    y = relu(x + F(x)),    F(x) = norm_2(conv_2(relu(norm_1(conv_1(x)))))

(He et al. 2015, "Deep residual learning for image recognition", arXiv 1512.03385,
equation 1). The scale γ of `norm_2` starts at 0 (Goyal et al. 2017, "Accurate, large
minibatch SGD", arXiv 1706.02677, section 5.1). Then F = 0, and as x >= 0 after the
block before, an untrained block is the identity: a new network is as easy to train as
its stem and its head, however deep it is. What is inside F has its gradient times γ: it
stands still at the first update, and moves little while γ is small, as at low rates.

Left out: projection shortcuts (option B of the paper), as on small pictures the paper
takes the identity everywhere; and weight decay (the paper's is 1e-4), which is the
optimizer's: `keras.optimizers.SGD(weight_decay=…)`, and a schedule may drive it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import layers

from tfschedules._support import checks

_SMALLEST = 4  # pixels: two stages halve it


def resnet(
    depth: int = 20,
    input_shape: Sequence[int | None] = (32, 32, 3),
    classes: int = 10,
    width: int = 16,
) -> keras.Model:
    """A residual network for small pictures (He et al. 2015, section 4.2).

    | part | layers | pictures |
    | --- | --- | --- |
    | `stem` | a convolution, 3×3 | H × W × width |
    | `stage_1` | n blocks of two convolutions, 3×3 | H × W × width |
    | `stage_2` | n blocks, the first with stride 2 | H/2 × W/2 × 2·width |
    | `stage_3` | n blocks, the first with stride 2 | H/4 × W/4 × 4·width |
    | `pool` | the mean over the picture | 4·width |
    | `head` | a dense layer | classes |

    That makes 1 + 3·2n + 1 = 6n + 2 layers with kernels. Every convolution has no bias
    and a BatchNormalization after it. The shortcut has no weights, also where the shape
    changes: every second pixel is taken, and zeros are the new channels (option A of
    the paper).

    The stem and the stages are nested models, and their names begin the names of their
    layers, as `stage_1_block_1_conv_1`. So a part can be named in every way that rates
    of layers know: `discriminative_groups(model, low=0.1, boundaries=["stage_1",
    "stage_2", "stage_3", "head"])`, `LayerGroup("stage 1", "^stage_1_", 0.1)` and
    `model.get_layer("stage_1").trainable = False`.

    Kernels start as in He et al. 2015b (`he_normal`), the head's with a deviation of
    0.01 (Goyal et al. 2017, section 5.1): `keras.utils.set_random_seed` makes them
    repeatable. With mixed precision the logits are float32.

    Args:
        depth: How many layers have kernels: 8, 14, 20, 26, 32, …
        input_shape: Height, width and channels, in this order. Height and width are at
            least 4 pixels, or `None` for pictures of any size.
        classes: How many logits.
        width: The channels of the first stage; 16 in the paper.

    Returns:
        A model, not compiled, from pictures `(batch, *input_shape)` to logits
        `(batch, classes)`: losses need `from_logits=True`.

    Raises:
        TypeError: If an argument is no number, or `input_shape` no sequence.
        ValueError: If `depth` is not 6n + 2, a picture too small, or a number not a
            whole one of at least 1.

    Example:
        >>> model = resnet(depth=20)
        >>> model.count_params()  # the paper's 0.27 million, and moving statistics
        271098
        >>> [layer.name for layer in model.layers[1:]]
        ['stem', 'stage_1', 'stage_2', 'stage_3', 'pool', 'head']
        >>> model.output_shape
        (None, 10)
        >>> resnet(depth=8, input_shape=(8, 8, 1)).get_layer("stage_3").output_shape
        (None, 2, 2, 64)
    """
    n = _blocks(depth)
    shape = _shape(input_shape)
    classes = checks.whole("classes", classes)
    width = checks.whole("width", width)

    pictures = keras.Input(shape, name="pictures")
    x = _part("stem", pictures, _stem, width)
    x = _part("stage_1", x, _stage, 1, n, width)
    x = _part("stage_2", x, _stage, 2, n, 2 * width)
    x = _part("stage_3", x, _stage, 3, n, 4 * width)
    x = layers.GlobalAveragePooling2D(data_format="channels_last", name="pool")(x)
    logits = layers.Dense(
        classes,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        dtype="float32",
        name="head",
    )(x)
    return keras.Model(pictures, logits, name=f"resnet_{6 * n + 2}")


def _part(name: str, x: Any, part: Callable[..., Any], *arguments: Any) -> Any:
    """`part(x, *arguments)` as a nested model with a name."""
    inside = keras.Input(x.shape[1:], dtype=x.dtype, name=f"{name}_input")
    return keras.Model(inside, part(inside, *arguments), name=name)(x)


def _stem(x: Any, channels: int) -> Any:
    x = _norm(_conv(x, channels, 1, "stem_conv"), "stem_norm")
    return layers.ReLU(name="stem_relu")(x)


def _stage(x: Any, stage: int, n: int, channels: int) -> Any:
    for block in range(1, n + 1):
        stride = 2 if stage > 1 and block == 1 else 1
        x = _block(x, channels, stride, f"stage_{stage}_block_{block}")
    return x


def _block(x: Any, channels: int, stride: int, name: str) -> Any:
    """A block of two convolutions; one with a stride of 2 makes x as small as F(x)."""
    f = _norm(_conv(x, channels, stride, f"{name}_conv_1"), f"{name}_norm_1")
    f = layers.ReLU(name=f"{name}_relu_1")(f)
    f = _conv(f, channels, 1, f"{name}_conv_2")
    f = _norm(f, f"{name}_norm_2", gamma="zeros")
    if stride > 1:
        more = channels - x.shape[-1]
        x = keras.ops.pad(x[:, ::2, ::2], [(0, 0), (0, 0), (0, 0), (0, more)])
    return layers.ReLU(name=f"{name}_relu_2")(layers.Add(name=f"{name}_add")([x, f]))


def _conv(x: Any, channels: int, stride: int, name: str) -> Any:
    padding = "same"
    if stride > 1:
        # On an even size "same" adds a pixel on the right and below only, and the
        # kernel's middle would be on the pixels that the shortcut leaves out.
        x = layers.ZeroPadding2D(1, "channels_last", name=f"{name}_pad")(x)
        padding = "valid"
    return layers.Conv2D(
        channels,
        3,
        stride,
        padding,
        data_format="channels_last",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)


def _norm(x: Any, name: str, gamma: str = "ones") -> Any:
    # Keras's momentum of 0.99 would keep 60 % of the start after an epoch of 50 steps;
    # 0.9 and 1e-5 are torch's.
    return layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, gamma_initializer=gamma, name=name
    )(x)


def _blocks(depth: int) -> int:
    """The n of depth = 6n + 2."""
    depth = checks.whole("depth", depth)
    n, rest = divmod(depth - 2, 6)
    if n < 1 or rest:
        near = 6 * max(1, round((depth - 2) / 6)) + 2
        raise ValueError(
            "Argument `depth` must be 6n + 2 with n >= 1, as three stages of n blocks "
            "of two convolutions have, besides the stem and the head: 8, 14, 20, 26, … "
            f"Received: depth={depth}. The nearest is {near}."
        )
    return n


def _shape(given: Any) -> tuple[int | None, ...]:
    rule = "Argument `input_shape` must be (height, width, channels), without the batch"
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise TypeError(f"{rule}. Received: input_shape={given!r}")
    if len(given) != 3:
        way_out = (
            "Grey pictures have one channel: x[..., None]." if len(given) == 2 else ""
        )
        raise ValueError(f"{rule}. Received: input_shape={given!r}. {way_out}".strip())
    height, width = (
        size
        if size is None
        else checks.whole(
            f"input_shape[{at}]",
            size,
            at_least=_SMALLEST,
            hint="Two stages halve the picture. Make it larger: keras.ops.image.resize",
        )
        for at, size in enumerate(given[:2])
    )
    return height, width, checks.whole("input_shape[2]", given[2])
