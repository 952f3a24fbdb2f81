"""The command line: one module per command, no logic of its own."""

from __future__ import annotations

import importlib
import sys

import click

from cbmir_node import __version__
from cbmir_node.errors import CbmirError

_COMMANDS = {
    "serve": "serve:serve",
    "import": "importing:import_command",
    "pull": "pull:pull",
    "query": "query:query",
    "embed": "embed:embed",
    "status": "status:status",
    "reindex": "reindex:reindex",
    "verify": "verify:verify",
    "forward": "forward:forward",
    "delete": "delete:delete",
    "modify": "modify:modify",
    "doctor": "doctor:doctor",
    "access": "access:access",
    "config": "config:config",
    "model": "model:model",
    "db": "database:database",
    "echo": "echo:echo",
    "train": "train:train_command",
    "export": "train:export_command",
    "evaluate": "evaluate:evaluate",
}
"""Command to module and object: a command's libraries are loaded only when it is used."""


class _Commands(click.Group):
    """The commands, in the order of the table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(f"cbmir_node.cli.{module}"), attribute)
        assert isinstance(command, click.Command)  # noqa: S101
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Show errors meant for people as one message, with exit code 1."""
        try:
            return super().invoke(ctx)
        except CbmirError as error:
            message = str(error)
        except BrokenPipeError:
            raise  # click ends quietly when the reader of its output is gone
        except OSError as error:
            cause = error.strerror or str(error)
            message = f"{error.filename}: {cause}" if error.filename else cause
        click.echo(f"Error: {message}", err=True)
        sys.exit(1)


@click.group(
    cls=_Commands, name="cbmir-node", context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="cbmir-node")
def main() -> None:
    """Similar-case search for any PACS: DICOM in, similar studies out."""
