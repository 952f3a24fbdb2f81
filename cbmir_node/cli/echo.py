"""``cbmir-node echo``."""

from __future__ import annotations

import re

import click

from cbmir_node.cli.options import settings_options
from cbmir_node.config import Settings
from cbmir_node.dicom import client


@click.command(short_help="Ask a DICOM node whether it answers.")
@click.argument("address", metavar="AE@HOST:PORT")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=10,
    show_default=True,
    help="Seconds to wait.",
)
@settings_options
def echo(settings: Settings, address: str, timeout: float) -> None:
    """Send a C-ECHO to AE@HOST:PORT."""
    found = re.fullmatch(r"(?P<ae>[^@]{1,16})@(?P<host>.+):(?P<port>\d{1,5})", address)
    if found is None:
        raise click.BadParameter(f"{address!r} is not of the form AE@HOST:PORT")
    if not 0 < int(found["port"]) < 65536:
        raise click.BadParameter(f"{found['port']} is no TCP port; they go from 1 to 65535")
    client.echo(
        found["ae"],
        found["host"].strip("[]"),
        int(found["port"]),
        calling_ae_title=settings.dicom.ae_title,
        timeout=timeout,
    )
    click.echo(f"{address} answers")
