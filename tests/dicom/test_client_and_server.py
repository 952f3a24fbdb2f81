"""Starting and stopping the port, and our own C-ECHO."""

from __future__ import annotations

import socket
import threading

import pytest

from cbmir_node.config import Settings, load_settings
from cbmir_node.dicom.client.association import Peer
from cbmir_node.dicom.client.echo import echo
from cbmir_node.dicom.server import DicomServer
from cbmir_node.errors import ConfigurationError, PeerError
from tests.conftest import needs_program
from tests.dicom.conftest import Node
from tests.dicom.peers import run


def test_echoscu(node: Node) -> None:
    needs_program("echoscu", package="dcmtk")
    for title in ("CBMIR", "CBMIR_SIM"):
        run("echoscu", "-aec", title, "127.0.0.1", str(node.port))
    assert node.server.statistics.associations["accepted"] == 2


def test_echo(node: Node) -> None:
    echo(Peer("CBMIR", "127.0.0.1", node.port), timeout=10)


def test_echo_to_another_title(node: Node) -> None:
    with pytest.raises(PeerError, match="Called AE title not recognised"):
        echo(Peer("NOBODY", "127.0.0.1", node.port), timeout=10)


def test_echo_where_nothing_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(PeerError, match="does not answer"):
            echo(Peer("CBMIR", "127.0.0.1", unused.getsockname()[1]), timeout=2)


def test_echo_to_a_host_without_address() -> None:
    with pytest.raises(PeerError, match="check the host name"):
        echo(Peer("CBMIR", "no-such-host.invalid", 104), timeout=2)


def test_port_in_use(node: Node) -> None:
    settings = Settings(dicom={"port": node.port})
    second = DicomServer(settings, node.intake, node.catalog, node.search)
    with pytest.raises(ConfigurationError, match=r"dicom\.port"):
        second.start()


def test_the_two_titles_must_differ() -> None:
    with pytest.raises(ConfigurationError, match="similarity_ae_title must differ"):
        load_settings(overrides={"dicom.similarity_ae_title": "CBMIR"}, environment={})


def test_stop_leaves_no_thread(node: Node) -> None:
    echo(Peer("CBMIR", "127.0.0.1", node.port))
    port = node.port
    node.server.stop()
    node.server.stop()  # harmless
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if "Acceptor" in name or name == "dicom-listener"]
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))
