"""``cbmir-node db``."""

from __future__ import annotations

import click

from cbmir_node.catalog.database import open_catalog, without_password
from cbmir_node.cli.options import settings_options
from cbmir_node.config import Settings
from cbmir_node.presence import make_data_folder, only_node


@click.group("db", short_help="Keep the catalogue's schema up to date.")
def database() -> None:
    """Keep the catalogue's schema up to date."""


@database.command(short_help="Create or upgrade the schema.")
@settings_options
def upgrade(settings: Settings) -> None:
    """Create the catalogue's schema, or bring it to this program's version.

    No node may run on the data folder meanwhile. 'serve' does the same when it starts.
    """
    make_data_folder(settings.data_dir)
    with only_node(settings.data_dir):  # a running node may be an older one
        open_catalog(settings.catalog_url, create=True).close()
    click.echo(f"the catalogue {without_password(settings.catalog_url)} is up to date")
