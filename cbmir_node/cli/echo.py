"""``cbmir-node echo``."""

from __future__ import annotations

import click

from cbmir_node.cli.addresses import peer_named
from cbmir_node.cli.options import settings_options
from cbmir_node.config import Settings
from cbmir_node.dicom.client import echo as client


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
    """Send a C-ECHO to AE@HOST:PORT, or to one of the configured peers by its AE title."""
    peer = peer_named(address, settings)
    client.echo(peer, calling_ae_title=settings.dicom.ae_title, timeout=timeout)
    click.echo(f"{peer} answers")
