"""The loop with DCMTK: storescu, then movescu with storescp, or getscu."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from tests.dicom.asking import IMPLICIT, JPEG_2000, JPEG_LOSSLESS, STUDY, TITLES, compressed, image
from tests.dicom.conftest import Node
from tests.dicom.peers import EXPLICIT, findscu, run
from tests.dicom.receivers import data_set, storescp
from tests.imaging.image_objects import ramp
from tests.objects import write


def dcmtk(program: str, node: Node, called: str, *options: str) -> str:
    keys = [part for key, value in STUDY.items() for part in ("-k", f"{key}={value}")]
    return run(
        *(program, "-S", "-aec", called, *options, *keys),
        *("127.0.0.1", str(node.port)),
    )


@contextmanager
def loop(
    start_node: Callable[..., Node], folder: Path, *options: str
) -> Iterator[tuple[Node, dict[str, Path]]]:
    """Start storescp, a node that knows it, and send three objects with storescu."""
    with storescp(folder / "received", *options) as peer:
        node = start_node(
            sections={"peers": {peer.ae_title: {"host": peer.host, "port": peer.port}}}
        )
        plain = write(image("1.1.1"), folder / "plain.dcm")
        jpeg = compressed(folder, "1.2.1.9.1", JPEG_LOSSLESS)
        j2k = compressed(folder, "1.2.1.9.2", JPEG_2000)
        to_node = ("-aec", "CBMIR", "127.0.0.1", str(node.port))
        run("storescu", "-xs", *to_node, plain, jpeg)
        run("storescu", "-xv", *to_node, j2k)
        yield node, {"1.2.1.1.1": plain, "1.2.1.9.1": jpeg, "1.2.1.9.2": j2k}


def by_uid(folder: Path) -> dict[str, Path]:
    return {str(dcmread(path).SOPInstanceUID): path for path in folder.iterdir()}


def assert_same_pictures(
    received: Mapping[str, Path], sent: Mapping[str, Path], syntax: str
) -> None:
    """Check that all came in `syntax`, pixel by pixel as they were sent."""
    assert received.keys() == sent.keys()
    for uid, path in received.items():
        found = dcmread(path)
        assert found.file_meta.TransferSyntaxUID == syntax
        expected = dcmread(sent[uid]).pixel_array if uid == "1.2.1.1.1" else ramp()
        np.testing.assert_array_equal(found.pixel_array, expected)


@pytest.mark.parametrize("called", TITLES)
def test_the_loop_brings_back_what_was_sent(
    start_node: Callable[..., Node], tmp_path: Path, called: str
) -> None:
    with loop(start_node, tmp_path, "+xa") as (node, sent):
        keys = ("QueryRetrieveLevel=SERIES", "StudyInstanceUID=1.2.1", "SeriesInstanceUID")
        found = findscu(node.port, tmp_path / "found", *keys, called=called)
        assert {answer.SeriesInstanceUID for answer in found} == {"1.2.1.1", "1.2.1.9"}
        dcmtk("movescu", node, called, "-aem", "STORESCP")
    received = by_uid(tmp_path / "received")
    assert received.keys() == sent.keys()
    for uid, path in received.items():
        assert data_set(path) == data_set(sent[uid])


def test_a_receiver_of_the_default_transfer_syntax_alone(
    start_node: Callable[..., Node], tmp_path: Path
) -> None:
    with loop(start_node, tmp_path, "+xi") as (node, sent):
        assert "Success" in dcmtk("movescu", node, "CBMIR", "-v", "-aem", "STORESCP")
    assert_same_pictures(by_uid(tmp_path / "received"), sent, IMPLICIT)


@pytest.mark.parametrize("called", TITLES)
def test_getscu_gets_everything_uncompressed(
    start_node: Callable[..., Node], tmp_path: Path, called: str
) -> None:
    folder = tmp_path / "got"
    folder.mkdir()
    with loop(start_node, tmp_path) as (node, sent):
        said = dcmtk("getscu", node, called, "-v", "-od", str(folder))
    assert "Completed Suboperations : 3" in said
    assert_same_pictures(by_uid(folder), sent, EXPLICIT[0])


@pytest.mark.parametrize("option", ["--abort-after", "--abort-during"])
def test_a_receiver_that_aborts_every_time(
    start_node: Callable[..., Node], tmp_path: Path, option: str
) -> None:
    with loop(start_node, tmp_path, "+xa", option) as (node, _):
        command = ("movescu", "-S", "-v", "-aec", "CBMIR", "-aem", "STORESCP")
        said = run(
            *(*command, "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=1.2.1"),
            *("127.0.0.1", str(node.port)),
            check=False,
        )
        assert "Failed" in said or "Refused" in said
        assert node.server.statistics.retrievals == {("move", 0xA702): 1}
