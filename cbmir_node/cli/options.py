"""Options that several commands share."""

from __future__ import annotations

import functools
import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from cbmir_node.config import load_settings
from cbmir_node.logs import quiet_libraries

Function = TypeVar("Function", bound=Callable[..., Any])

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


def location_options(function: Function) -> Function:
    """Add ``--data-dir`` and ``--config``, as ``data_dir`` and ``config_file``."""
    data_dir = click.option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder of everything the node keeps.  [default: the user's data folder]",
    )
    config_file = click.option(
        "--config",
        "config_file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Configuration file (TOML).",
    )
    return data_dir(config_file(function))


def settings_options(function: Function) -> Function:
    """Add ``--data-dir`` and ``--config``; the command gets the settings they lead to."""

    @location_options
    @functools.wraps(function)
    def with_settings(data_dir: Path | None, config_file: Path | None, **options: Any) -> Any:
        settings = load_settings(config_file, {"data_dir": data_dir})
        logging.basicConfig(level="WARNING", format="%(levelname)s: %(message)s")
        quiet_libraries("warning")
        return function(settings=settings, **options)

    return with_settings  # type: ignore[return-value]  # click's decorators keep the signature


def on_terminal(*, quiet: bool = False) -> dict[str, Any]:
    """Return options of ``click.progressbar``: on standard error, and only where a person looks."""
    return {"file": sys.stderr, "hidden": quiet or not sys.stderr.isatty()}


def print_json(value: object) -> None:
    """Print a value as indented JSON."""
    click.echo(json.dumps(value, indent=2, default=str))


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their column names, as wide as their content."""
    texts = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[column]) for row in texts) for column in range(len(head))]
    for row in texts:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


def dicom_files(paths: Sequence[Path]) -> list[Path]:
    """List the files under the paths, in a stable order, hidden ones left out."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(
                inner
                for inner in path.rglob("*")
                if inner.is_file()
                and not any(part.startswith(".") for part in inner.relative_to(path).parts)
            )
        else:
            found.append(path)
    return found
