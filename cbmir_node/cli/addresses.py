"""Other DICOM nodes, as the command line names them."""

from __future__ import annotations

import re

import click

from cbmir_node.config import Settings
from cbmir_node.dicom.client.association import Peer

_ADDRESS = re.compile(r"(?P<ae>[^@]{1,16})@(?P<host>.+):(?P<port>\d{1,5})")


def peer_named(text: str, settings: Settings) -> Peer:
    """Return the node behind ``AE@HOST:PORT``, or behind the AE title of a configured peer.

    Raises
    ------
    click.BadParameter
        It is neither.
    """
    known = settings.peers.get(text)
    if known is not None:
        return Peer(text, known.host, known.port)
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise click.BadParameter(
            f"{text!r} is not of the form AE@HOST:PORT, and not the AE title of one of peers"
        )
    if not 0 < int(found["port"]) < 65536:
        raise click.BadParameter(f"{found['port']} is no TCP port; they go from 1 to 65535")
    return Peer(found["ae"], found["host"].strip("[]"), int(found["port"]))
