"""``cbmir-node import``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from cbmir_node.catalog.reception.registration import StoreOutcome
from cbmir_node.cli.options import as_json, dicom_files, on_terminal, print_json, settings_options
from cbmir_node.config import Settings
from cbmir_node.errors import CbmirError, NotAnObjectError
from cbmir_node.intake import Intake
from cbmir_node.node import open_intake
from cbmir_node.stores import open_stores

_PARALLEL = 4
_FILES_NAMED = 3
"""Skipped files that are named for each reason; ``--json`` names all."""

Outcome = tuple[Path, str, str]
"""File, outcome and the reason where it was not taken in."""


@click.command("import", short_help="Take DICOM files into the archive.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@as_json
@settings_options
def import_command(settings: Settings, paths: tuple[Path, ...], as_json: bool) -> None:
    """Take DICOM files and folders of them into the archive, as safely as C-STORE does.

    Files that are not DICOM, and media directories, are skipped and counted by reason. Works beside
    a running node; without one the next 'serve' or 'reindex' embeds what was imported. Exit code 1
    when a DICOM object was refused.
    """
    files = dicom_files(paths)
    stores = open_stores(settings, create=True)
    try:
        stores.archive.sweep()  # a killed import may have left half an object
        intake = open_intake(stores)
        try:
            outcomes = _import_all(intake, files, quiet=as_json)
        finally:
            intake.close()
    finally:
        stores.close()
    counts = Counter(outcome for _, outcome, _ in outcomes)
    skipped, refused = _reasons(outcomes, "skipped"), _reasons(outcomes, "refused")
    if as_json:
        names = [*(outcome.value for outcome in StoreOutcome), "skipped", "refused"]
        print_json(
            {**{name: counts[name] for name in names}, "refusals": refused, "skips": skipped}
        )
    else:
        click.echo(", ".join(f"{number} {name}" for name, number in sorted(counts.items())))
        _show_skipped(skipped)
        for item in refused:
            click.echo(f"refused {item['file']}: {item['reason']}", err=True)
    if refused:
        click.get_current_context().exit(1)


def _reasons(outcomes: list[Outcome], wanted: str) -> list[dict[str, str]]:
    return [
        {"file": str(path), "reason": reason}
        for path, outcome, reason in outcomes
        if outcome == wanted
    ]


def _show_skipped(skipped: list[dict[str, str]]) -> None:
    """Tell how many files were skipped for each reason, and name the first of them."""
    files: dict[str, list[str]] = {}
    for item in skipped:
        files.setdefault(item["reason"], []).append(item["file"])
    for reason, names in files.items():
        more = ", …" if len(names) > _FILES_NAMED else ""
        named = ", ".join(names[:_FILES_NAMED])
        click.echo(f"skipped {len(names)} ({reason}): {named}{more}", err=True)


def _import_all(intake: Intake, files: list[Path], *, quiet: bool) -> list[Outcome]:
    def one(path: Path) -> Outcome:
        return path, *_import_file(intake, path)

    with ThreadPoolExecutor(_PARALLEL) as pool:
        results: Iterator[Outcome] = pool.map(one, files)
        with click.progressbar(
            results, length=len(files), label="Importing", **on_terminal(quiet=quiet)
        ) as bar:
            return list(bar)


def _import_file(intake: Intake, path: Path) -> tuple[str, str]:
    try:
        receipt = intake.accept_file(path)
    except NotAnObjectError as error:
        return "skipped", str(error)
    except CbmirError as error:
        return "refused", str(error)
    except OSError as error:
        return "refused", f"cannot be read: {error.strerror}"
    return receipt.outcome.value, ""
