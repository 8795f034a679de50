"""The command line: `tfschedules demo` and `tfschedules plot`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from tfschedules import __version__
from tfschedules._support.paths import local_path
from tfschedules.commands import plot
from tfschedules.commands.command_line import Parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    parser = Parser(
        prog="tfschedules",
        description="Find a learning rate, schedule it, and watch it.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser(
        "demo",
        help="the whole job on real data, offline, in about a minute",
        description="Range test, four schedules compared, TensorBoard: on scikit-"
        "learn's bundled digits, with a small convolutional network.",
    )
    demo.add_argument("--log-dir", default="logs", help="default: %(default)s")
    demo.add_argument("--epochs", type=int, default=10, help="default: %(default)s")
    demo.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    commands.add_parser(
        "plot",
        help="a picture of one schedule",
        add_help=False,  # it has options of its own for each schedule
    )
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["plot"]:
        return plot.main(arguments[1:])
    chosen = parser.parse_args(arguments)
    if chosen.epochs < 2:
        parser.error(f"argument --epochs: must be at least 2, not {chosen.epochs}")
    if not 0 <= chosen.seed < 2**32:
        parser.error(f"argument --seed: must be in [0, 2**32), not {chosen.seed}")
    try:
        log_dir = str(local_path("log_dir", chosen.log_dir))
    except (TypeError, ValueError) as error:
        parser.error(str(error).replace("Argument `log_dir`", "argument --log-dir"))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        from tfschedules.commands.demo import run
    except ImportError as error:
        print(
            f"The demo needs {error.name}, which is not installed: "
            'pip install "tfschedules[demo]"',
            file=sys.stderr,
        )
        return 1
    try:
        return run(log_dir, chosen.epochs, chosen.seed)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
