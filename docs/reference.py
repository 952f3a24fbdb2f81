"""Writes the pages that the code itself knows best: docs/cli.md and docs/configuration.md.

Run ``python docs/reference.py`` after a change; a test fails when they are out of date.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
from pydantic_core import PydanticUndefined

from cbmir_node.cli import main
from cbmir_node.config import Settings, setting_keys

DOCS = Path(__file__).resolve().parent
_WIDTH = 100


def cli_page() -> str:
    """Return the command-line reference: the help of every command."""
    parts = [
        "# Command line",
        "Written by `python docs/reference.py` from the commands' own help.",
        "Exit codes: 0 done, 1 failed (the message says what to do), 2 wrong usage.",
    ]
    for path, command in _commands(main, ("cbmir-node",)):
        context = click.Context(
            command,
            info_name=" ".join(path),
            terminal_width=_WIDTH,
            max_content_width=_WIDTH,
            **main.context_settings,  # which commands inherit
        )
        parts.append(f"## {' '.join(path)}\n\n```text\n{command.get_help(context)}\n```")
    return "\n\n".join(parts) + "\n"


def _commands(
    command: click.Command, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                yield from _commands(inner, (*path, name))


def configuration_page() -> str:
    """Return the table of all settings."""
    lines = [
        "# Configuration",
        "",
        "Written by `python docs/reference.py` from `cbmir_node/config.py`.",
        "",
        "Settings come, later ones winning, from the defaults below, a TOML file (`--config`,",
        "see `conf/cbmir-node.toml`), environment variables (`CBMIR_DICOM__PORT=11113`; a list as",
        "`CBMIR_SEARCH__SAME_TAGS=Modality,PatientSex`) and command-line flags. A key that is not",
        "listed is an error that names it;",
        "`cbmir-node config check` tells before a start, `config show` what is in force.",
        "",
        "| key | default | meaning |",
        "| --- | --- | --- |",
    ]
    for key, field in setting_keys(Settings):
        unset = field.default in (None, "", (), PydanticUndefined)
        default = "" if unset else f"`{str(field.default).replace('None', '')}`"
        lines.append(f"| `{key}` | {default} | {field.description} |")
    return "\n".join(lines) + "\n"


PAGES = {"cli.md": cli_page, "configuration.md": configuration_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
