"""The parser of the experiment commands: errors in one line, and a help text that fits a terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from jsonargparse import ActionConfigFile, set_dumper
from lightning.pytorch.cli import LightningArgumentParser

from sparselit.cli.experiment import yaml_text
from sparselit.cli.experiment.translation import translate
from sparselit.errors import SparselitError

set_dumper("yaml", yaml_text.dump)  # the parser's own leaves out quotes that it needs when it reads


class ExperimentParser(LightningArgumentParser):
    """Raises :class:`SparselitError` where Lightning's parser prints its usage and a page of types."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)
        self.help_text: Callable[[], str] | None = None  # ours, for the parsers of the commands

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """Our help where there is one."""
        return self.help_text() if self.help_text else super().format_help(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Translate the message; the command line prints it."""
        if not self.exit_on_error:
            super().error(message, ex)
        command = self.prog.split()[-1] if self.prog else ""
        parsers = [self]
        if self._subcommands_action is not None:
            parsers += self._subcommands_action._name_parser_map.values()
            command = next(iter(getattr(self, "args", None) or [""]), "")
            parsers = [self._subcommands_action._name_parser_map.get(command, self)]
        options = [
            action.dest
            for parser in parsers
            for action in parser._actions
            if not isinstance(action, ActionConfigFile) and action.dest not in ("help", "==SUPPRESS==")
        ]
        raise SparselitError(translate(str(message), command, [*options, "config"])) from ex
