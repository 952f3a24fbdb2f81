"""The data folder that ``cbmir-node pull`` fills, or only looks into."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from cbmir_node.catalog.database import open_catalog
from cbmir_node.config import Settings
from cbmir_node.errors import NoCatalogError
from cbmir_node.intake import Intake
from cbmir_node.node import open_intake
from cbmir_node.stores import Stores, open_stores


@contextmanager
def filled(settings: Settings) -> Iterator[tuple[Stores, Intake]]:
    """Open the data folder; create what is missing, and say so."""
    if not settings.data_dir.exists():
        click.echo(
            f"making the data folder {settings.data_dir}; --data-dir or data_dir in the "
            "configuration file names another",
            err=True,
        )
    stores = open_stores(settings, create=True)
    stores.archive.sweep()  # a killed pull may have left half an object
    with _with_intake(stores) as opened:
        yield opened


@contextmanager
def looked_into(settings: Settings) -> Iterator[tuple[Stores, Intake]]:
    """Open what is there and create nothing; where nothing is, everything is missing."""
    with ExitStack() as exits:
        try:
            stores = open_stores(settings, create=False)
        except NoCatalogError:
            click.echo(f"nothing is in {settings.data_dir} yet", err=True)
            folder = exits.enter_context(tempfile.TemporaryDirectory())
            empty = Settings(data_dir=Path(folder))
            open_catalog(empty.catalog_url, create=True).close()
            stores = open_stores(empty, create=False)
        yield exits.enter_context(_with_intake(stores))


@contextmanager
def _with_intake(stores: Stores) -> Iterator[tuple[Stores, Intake]]:
    try:
        intake = open_intake(stores)
        try:
            yield stores, intake
        finally:
            intake.close()
    finally:
        stores.close()
