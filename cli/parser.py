"""Parses arguments for the command line and run.sh; accepts other programs' option names and keeps errors short."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from cli.streams import tell
from cli.synonyms import HABITS, SYNONYMS
from modules.core.errors import LONGEST_QUOTE, OptionsError, quoted

NO_VALUE = 'needs a value; if the value starts with "-", write "=" before it'


class StoreOnce(argparse.Action):
    """Stores a value and rejects a second one, since it is unclear which one is meant."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        if getattr(namespace, self.dest, self.default) is not self.default:
            parser.error(f"{option} is given twice: remove one of them")
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """Reports errors in one line, without the usage text."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)
        for action in (None, "store"):
            self.register("action", action, StoreOnce)

    def given(self, argv: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        """Returns the options' values by name, and all other arguments in order. Raises OptionsError."""
        end = argv.index("--") if "--" in argv else len(argv)
        options = [self._canonical(argument) for argument in argv[:end]]
        for option in options:
            if option.startswith("--") and option.endswith("=--"):  # argparse would report a missing value
                self.error(f"{option.removesuffix('=--')}: -- is not a value")
        namespace, words = self.parse_known_args(options)
        for word in words:
            if is_option(word):
                self.refuse(word)
        return vars(namespace), [*words, *argv[end + 1 :]]

    def names(self) -> set[str]:
        """Returns the names of the options' values."""
        return {action.dest for action in self._option_string_actions.values()}

    def _canonical(self, argument: str) -> str:
        name, equals, value = argument.partition("=")
        wanted = SYNONYMS.get(name, name)
        return f"{wanted}{equals}{value}" if wanted in self._option_string_actions else argument

    def refuse(self, word: str) -> NoReturn:
        """Raises OptionsError for an unknown option, with the most likely alternative."""
        name = word.partition("=")[0]
        self.error(f"{quoted(name)} is not an option: {self.hint(name)}")

    def hint(self, name: str) -> str:
        """Suggests the option that was most likely meant."""
        ours = self._option_string_actions
        known = {option.lstrip("-"): option for option in (*SYNONYMS, *ours) if SYNONYMS.get(option, option) in ours}
        if HABITS.get(name, "").split(" ")[0] in ours:
            return f"it is written {HABITS[name]} here"
        if SYNONYMS.get(name[:2]) in ours:
            return f"write a space after {name[:2]}"
        if near := difflib.get_close_matches(name.lstrip("-")[:LONGEST_QUOTE], known, n=1):
            return f"the nearest is {known[near[0]]}"
        return "check its spelling"

    def print_help(self, file: Any = None) -> None:
        tell(self.format_help().rstrip("\n"))

    def error(self, message: str) -> NoReturn:
        message = message.removeprefix("argument ").replace("expected one argument", NO_VALUE)
        message = message.replace("ignored explicit argument", "takes no value, but was given")
        shortened = re.sub(rf"(['\"])(.{{{LONGEST_QUOTE}}}).*\1", r"\1\2…\1", message, flags=re.DOTALL)
        raise OptionsError(f"{shortened}; see --help.")


def is_option(word: str) -> bool:
    """Tells whether a word looks like an option, unlike a number or a prompt of several words."""
    return bool(re.match(r"-+[^\d\s.-]", word)) and " " not in word.partition("=")[0]
