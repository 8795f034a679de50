"""A parser of command lines that tells which name is probably meant."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from tfschedules._support.arguments import did_you_mean


class Parser(argparse.ArgumentParser):
    """`argparse`'s own, with "Did you mean …?" for options, commands and choices."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        """Refuse an unknown option first: what it leaves out would be missed later."""
        for text in args or ():
            if text == "--" or (not text.startswith("-") and self._subparsers):
                break  # what follows is for the command
            option = text.partition("=")[0]
            if option.startswith("--") and not self._knows(option):
                offered = [name for name in self._options() if name[:2] == "--"]
                self.error(
                    f"unrecognized option: {option}."
                    + (did_you_mean(option, offered, "{}"))
                    + f" There are: {', '.join(offered)}"
                )
        return super().parse_known_args(args, namespace)

    def _options(self) -> list[str]:
        return [name for action in self._actions for name in action.option_strings]

    def _knows(self, option: str) -> bool:
        """Whether it is an option, or the beginning of one where that will do."""
        names = self._options()
        shortened = self.allow_abbrev and any(n.startswith(option) for n in names)
        return option in names or shortened

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            choices = [*map(str, action.choices or ())]
            meant = did_you_mean(str(value), choices, "{}")
            raise argparse.ArgumentError(action, error.message + meant) from None
