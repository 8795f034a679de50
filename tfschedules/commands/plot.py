"""The command `tfschedules plot SCHEDULE …`: one schedule as a picture.

The options are the arguments of the schedule itself, read from its signature and its
docstring. Keras is imported when a schedule is named, and no sooner.
"""

from __future__ import annotations

import argparse
import collections.abc
import dataclasses
import inspect
import io
import math
import os
import re
import sys
import textwrap
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import tfschedules
from tfschedules._support import checks, lazy
from tfschedules._support.axes import DPI, SIZE, STYLE, say
from tfschedules._support.paths import local_path
from tfschedules.commands.command_line import Parser

if TYPE_CHECKING:  # it imports Keras, which takes seconds: where a schedule is chosen
    from tfschedules.schedules import Epochs, Schedule

# What is made of other schedules or of functions cannot be said in options, and a
# length is no schedule.
NOT_OFFERED = {
    "Join",
    "Repeat",
    "ScaleFunction",
    "Schedule",
    "epochs",
    "fit_share",
    "swa",
    "warmup",
}
_FUNCTION_ARGUMENTS = {"scale_fn", "scale_mode"}
_FORMATS = (".png", ".svg", ".pdf")
_MOST_POINTS = 20_000  # more than a picture has columns, few enough to be quick
_CYCLES = 4  # how many are drawn of a schedule that goes on and on


def names() -> dict[str, str]:
    """The public names that can be drawn, by their names on the command line."""
    homes = lazy.homes("tfschedules")
    public = {name for name, home in homes.items() if home == "tfschedules.schedules"}
    return {_snake(name): name for name in sorted(public - NOT_OFFERED)}


def main(arguments: Sequence[str]) -> int:
    """Draw what `arguments`, those after `plot`, say; return the exit status."""
    offered = names()
    parser = Parser(
        prog="tfschedules plot",
        usage="tfschedules plot SCHEDULE [options]",
        description="Draw one schedule as a picture.",
        epilog="tfschedules plot SCHEDULE --help lists its options.",
    )
    parser.add_argument(
        "schedule",
        metavar="SCHEDULE",
        type=_snake,
        choices=list(offered),
        help="one of " + ", ".join(offered),
    )
    name = parser.parse_args(arguments[:1]).schedule
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        function = getattr(tfschedules, offered[name])
        import matplotlib.figure
    except ImportError as error:
        package = (error.name or "a package").partition(".")[0]
        print(
            f"tfschedules plot needs {package}, which is not installed: "
            f"pip install {package}",
            file=sys.stderr,
        )
        return 1
    options = _options(name, function)
    chosen = vars(options.parse_args(arguments[1:]))
    try:
        output = local_path("output", chosen.pop("output"), "file")
    except (TypeError, ValueError) as error:
        options.error(_as_options(str(error), {"output"}))
    if output.suffix.lower() not in _FORMATS:
        options.error(
            f"argument -o/--output: must end in {', '.join(_FORMATS)}, not {output}"
        )
    per_epoch, count = chosen.pop("steps_per_epoch"), chosen.pop("range")
    figure = matplotlib.figure.Figure()
    try:
        given = _in_steps(chosen, per_epoch)
        count = _in_steps({"range": count}, per_epoch)["range"]
        schedules = function(**given)
        call = _call(offered[name], function, given)
        draw(schedules, figure, count, call, label_of(call))
        picture = io.BytesIO()
        figure.savefig(picture, format=output.suffix.lower()[1:], dpi=DPI)
    except (TypeError, ValueError, OverflowError) as error:
        options.error(_as_options(str(error), {*chosen, "steps_per_epoch", "range"}))
    try:
        output.write_bytes(picture.getvalue())
    except OSError as error:
        print(
            f"The picture cannot be written to {output}: {error.strerror}.",
            file=sys.stderr,
        )
        return 1
    print(output)
    return 0


def draw(
    schedules: Schedule | dict[str, Schedule],
    figure: Any,
    count: int | None = None,
    title: str | None = None,
    label: str = "value",
) -> None:
    """Draw a schedule, or several by name in a panel each, on a matplotlib `Figure`.

    Args:
        schedules: The schedule, or schedules by hyperparameter.
        figure: An empty `Figure`; its size is set.
        count: How many steps are drawn, from 0 on; `steps_of` if not given.
        title: What stands above.
        label: What a schedule by itself is a schedule of.
    """
    import matplotlib as mpl
    from matplotlib import ticker

    panels: dict[str, Any] = {label: schedules}
    if isinstance(schedules, dict):
        panels = schedules
    if count is None:
        count = max(steps_of(schedule) for schedule in panels.values())
    count = checks.whole("range", checks.real("range", count, at_most=2**53))
    points = np.linspace(0, count - 1, min(count, _MOST_POINTS))
    steps = np.unique(points.round().astype(np.int64))
    width, height = SIZE
    figure.set_size_inches(width, height * (1 + 0.6 * (len(panels) - 1)))
    figure.set_layout_engine("constrained")
    with mpl.rc_context(STYLE):
        axes = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
        for ax, (name, schedule) in zip(axes, panels.items(), strict=True):
            schedule.plot(steps, ax=ax)
            ax.set_ylabel(name.replace("_", " "))
            if name == "momentum":  # from 0 on there would be little to see
                ax.set_ylim(auto=True)
                ax.relim()
                ax.autoscale_view()
            ax.xaxis.set_major_locator(
                ticker.MaxNLocator(6, integer=True, steps=[1, 2, 2.5, 5, 10])
            )
            ax.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
            ax.label_outer()
        if title:
            say(figure.suptitle, textwrap.fill(title, 58), fontsize="small")


def label_of(call: str) -> str:
    """What a call makes a schedule of: a recipe's arguments tell."""
    return "learning rate" if "_lr=" in call else "value"


def steps_of(schedule: Schedule) -> int:
    """How many steps show a schedule: up to its end, or a few of its cycles."""
    from tfschedules.schedules import InverseSqrt, Join, PerCycle

    if schedule.length is not None:
        return math.ceil(schedule.length) + 1
    end = 0
    for _ in range(_CYCLES):
        end = schedule.cycles(end).next_end or end
    spans: list[float] = [end] if end else []
    for part in [] if end else _parts(schedule):
        match part:
            case PerCycle(_, int() | float() as steps, growth):
                spans.append(sum(steps * growth**i for i in range(_CYCLES)))
            case InverseSqrt(_, int() | float() as steps):
                spans.append(10 * steps)
            case Join(pieces, (*_, int() | float() as last)) if part.length is None:
                # After its last boundary, as long again as a piece is on average.
                spans.append(last * len(pieces) / (len(pieces) - 1))
            case _ if part.length is not None:
                spans.append(part.length + 1)
    return math.ceil(max(spans, default=100))


def _parts(schedule: Schedule) -> Iterator[Schedule]:
    """A schedule and all that it is made of."""
    yield schedule
    for field in dataclasses.fields(schedule):  # type: ignore[arg-type]
        value = getattr(schedule, field.name)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, tfschedules.Schedule):
                yield from _parts(item)


def _snake(name: str) -> str:
    """The name on the command line: `warm_restarts`, and `inverse_sqrt` for a class."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().replace("-", "_")


def _options(name: str, function: Callable[..., Any]) -> Parser:
    """A parser with an option for each argument of the schedule."""
    documentation = inspect.getdoc(function) or ""
    parser = Parser(
        prog=f"tfschedules plot {name}",
        description=documentation.splitlines()[0].replace("`", ""),
        epilog="LENGTH is in steps, or in epochs as in 2.5epochs.",
        allow_abbrev=False,  # --steps is not short for --steps-per-epoch
    )
    texts = _argument_texts(documentation)
    signature = inspect.signature(function, eval_str=True)
    for parameter in signature.parameters.values():
        if parameter.name not in _FUNCTION_ARGUMENTS:
            _add_option(parser, parameter, texts.get(parameter.name, ""))
    picture = parser.add_argument_group("the picture")
    picture.add_argument(
        "-o",
        "--output",
        default=f"{name}.png",
        metavar="FILE",
        help=f"a file that ends in {', '.join(_FORMATS)}; default: %(default)s",
    )
    range_ = ["--range", *(["--steps"] if "steps" not in signature.parameters else [])]
    picture.add_argument(
        *range_,
        dest="range",
        type=_length,
        metavar="LENGTH",
        help="how much is drawn; default: the whole, or some of its cycles",
    )
    picture.add_argument(
        "--steps-per-epoch",
        type=_number,
        metavar="N",
        help="needed for lengths in epochs",
    )
    return parser


def _argument_texts(documentation: str) -> dict[str, str]:
    """The texts of a docstring's `Args`, by argument."""
    section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)*)", documentation, re.MULTILINE)
    if section is None:
        return {}
    entries = re.split(r"^(\w+): ", textwrap.dedent(section[1]), flags=re.MULTILINE)
    return {
        name: " ".join(text.split()).rstrip(".")
        for name, text in zip(entries[1::2], entries[2::2], strict=True)
    }


def _add_option(
    parser: argparse.ArgumentParser, parameter: inspect.Parameter, text: str
) -> None:
    from tfschedules.schedules import Epochs

    # argparse fills in %(default)s; texts have formulas, and these may have a %.
    text = text.replace("`tfs.epochs(…)`", "epochs").replace("`", "").replace("%", "%%")
    settings: dict[str, Any] = {"required": True, "help": text}
    if parameter.default is not parameter.empty:
        text = f"{text}; default: %(default)s".removeprefix("; ")
        settings = {"default": parameter.default, "help": text}
    kinds = set(_kinds(parameter.annotation))
    if bool in kinds:
        settings["action"] = argparse.BooleanOptionalAction
    elif str in kinds:
        settings["metavar"] = "NAME"
    else:
        lengths = Epochs in kinds or Any in kinds  # of `Any` sort: boundaries
        settings["type"] = _length if lengths else _number
        settings["metavar"] = "LENGTH" if lengths else "X"
    if collections.abc.Sequence in kinds:
        settings["nargs"] = "+"
    parser.add_argument(_flag(parameter.name), **settings)


def _kinds(annotation: Any) -> Iterable[Any]:
    """The types in an annotation, with those inside."""
    yield typing.get_origin(annotation) or annotation
    for inner in typing.get_args(annotation):
        yield from _kinds(inner)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _number(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, not {text!r}") from None


def _length(text: str) -> float | Epochs:
    from tfschedules.schedules import Epochs

    count = re.fullmatch(r"(.*?) ?epochs?", text)
    try:
        if count:
            return Epochs(float(count[1]))
        steps = _number(text)
        return int(steps) if steps % 1 == 0 else steps
    except (ValueError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(
            f"must be a number of steps, or of epochs as in 2.5epochs, not {text!r}"
        ) from None


def _in_steps(chosen: dict[str, Any], per_epoch: float | None) -> dict[str, Any]:
    """Put steps in place of epochs."""
    from tfschedules.schedules import Epochs

    def in_steps(name: str, value: Any) -> Any:
        if isinstance(value, list):
            return [in_steps(name, item) for item in value]
        if not isinstance(value, Epochs):
            return value
        if per_epoch is None:
            raise ValueError(
                f"argument {_flag(name)}: a length in epochs needs --steps-per-epoch"
            )
        return value.in_steps(checks.real("steps_per_epoch", per_epoch, above=0))

    return {name: in_steps(name, value) for name, value in chosen.items()}


def _call(name: str, function: Callable[..., Any], given: dict[str, Any]) -> str:
    """The call in Python, without the arguments that are as by default."""
    parameters = inspect.signature(function).parameters
    said = (
        f"{key}={value!r}"
        for key, value in given.items()
        if value != parameters[key].default
    )
    return f"{name}({', '.join(said)})"


def _as_options(message: str, arguments: set[str]) -> str:
    """A message about arguments as one about options, in one line."""

    def flag(match: re.Match[str]) -> str:
        return _flag(match[1]) if match[1] in arguments else match[0]

    message = re.sub(r"`(\w+)`", flag, " ".join(message.split()))
    message = message.replace("tfs.epochs(…)", "epochs, as in 2.5epochs")
    return re.sub(r"^Argument ", "argument ", message)
