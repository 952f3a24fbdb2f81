"""What is negotiated with a peer."""

from __future__ import annotations

import pytest
from pydicom.uid import CTImageStorage

from cbmir_node.dicom.contexts import carries_pixels, service_of
from cbmir_node.dicom.similarity_sop_class import SIMILARITY_FIND
from tests.dicom.conftest import Node
from tests.dicom.peers import EXPLICIT, association

VERIFICATION = "1.2.840.10008.1.1"
PATIENT_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.1.1"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
RETIRED_ULTRASOUND = "1.2.840.10008.5.1.4.1.1.6"
PRIVATE_STORAGE = "1.2.840.113619.4.30"
FUTURE_STORAGE = "1.2.840.10008.5.1.4.1.1.999.1"

EXPLICIT_LE, IMPLICIT_LE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
JPEG_LOSSLESS, JPEG_BASELINE = "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.50"
JPEG_XL, DEFLATED_FRAMES = "1.2.840.10008.1.2.4.112", "1.2.840.10008.1.2.8.1"
JPIP = "1.2.840.10008.1.2.4.94"


@pytest.mark.parametrize(
    "uid",
    [
        CTImageStorage,
        RETIRED_ULTRASOUND,
        PRIVATE_STORAGE,
        FUTURE_STORAGE,
        "1.2.840.10008.5.1.4.1.1.66.4",  # segmentation: stored although not a picture
        "1.2.840.10008.5.1.4.1.1.104.1",  # encapsulated PDF
        "1.2.840.10008.5.1.4.38.1",  # hanging protocol: accepted, and refused with a reason
        "1.2.840.10008.5.1.4.34.7",  # RT beams delivery instruction
        "2.25.1",
    ],
)
def test_storage_sop_classes(uid: str) -> None:
    assert service_of(uid, "main") == "storage"
    assert service_of(uid, "similarity") is None


@pytest.mark.parametrize(
    "uid",
    [
        "1.2.840.10008.1.3.10",  # media storage directory
        "1.2.840.10008.1.20.1",  # storage commitment
        "1.2.840.10008.4.2",  # storage service class
        "1.2.840.10008.3.1.2.3.3",  # MPPS
        "1.2.840.10008.5.1.1.9",  # print
        "1.2.840.10008.5.1.4.31",  # worklist
        "1.2.840.10008.5.1.4.34.6.1",  # UPS push
        "1.2.840.10008.5.1.4.1.2.3.1",  # patient/study only FIND
        "1.2.840.10008.5.1.4.1.2.3.2",  # patient/study only MOVE
        "1.2.840.10008.5.1.4.1.2.4.3",  # composite instance root GET
        "1.2.840.10008.5.1.4.1.1.201.2",  # inventory FIND
        "1.2.840.10008.5.1.4.99",  # of some future standard, and no storage
    ],
)
def test_other_sop_classes_are_refused(uid: str) -> None:
    assert service_of(uid, "main") is None
    assert service_of(uid, "similarity") is None


def test_find_classes_depend_on_the_view() -> None:
    classes = (PATIENT_ROOT_FIND, STUDY_ROOT_FIND, SIMILARITY_FIND)
    assert [service_of(uid, "main") for uid in classes] == ["find", "find", "find"]
    assert [service_of(uid, "similarity") for uid in classes] == [None, "find", "find"]


def test_retrieve_classes_do_not() -> None:
    for root in ("1.2.840.10008.5.1.4.1.2.1", "1.2.840.10008.5.1.4.1.2.2"):
        for view in ("main", "similarity"):
            assert service_of(f"{root}.2", view) == "move"
            assert service_of(f"{root}.3", view) == "get"


@pytest.mark.parametrize("uid", [EXPLICIT_LE, JPEG_XL, DEFLATED_FRAMES, "1.2.840.10008.1.2.4.250"])
def test_transfer_syntaxes_with_pixels_inside(uid: str) -> None:
    assert carries_pixels(uid)


@pytest.mark.parametrize(
    "uid",
    [
        *(f"1.2.840.10008.1.2.4.{number}" for number in (94, 95, 204, 205)),
        "1.2.840.10008.1.2.7.1",
        "1.2.840.10008.1.2.7.4",
        "1.2.840.10008.1.2.6.2",
        "1.2.840.113619.5.2",
        "1.2.840.10008.1.20",
    ],
)
def test_transfer_syntaxes_without(uid: str) -> None:
    assert not carries_pixels(uid)


@pytest.mark.parametrize(
    ("proposed", "chosen"),
    [
        (
            [IMPLICIT_LE, BIG_ENDIAN, DEFLATED, JPEG_BASELINE, JPEG_LOSSLESS, EXPLICIT_LE],
            EXPLICIT_LE,
        ),
        ([IMPLICIT_LE, BIG_ENDIAN, DEFLATED, JPEG_BASELINE, JPEG_LOSSLESS], JPEG_LOSSLESS),
        ([IMPLICIT_LE, BIG_ENDIAN, DEFLATED, JPEG_BASELINE], JPEG_BASELINE),
        ([IMPLICIT_LE, BIG_ENDIAN, DEFLATED], DEFLATED),
        ([IMPLICIT_LE, BIG_ENDIAN], BIG_ENDIAN),
        ([JPIP, IMPLICIT_LE], IMPLICIT_LE),
    ],
)
def test_preferred_transfer_syntax(node: Node, proposed: list[str], chosen: str) -> None:
    with association(node.port, (CTImageStorage, proposed)) as opened:
        (context,) = opened.accepted_contexts
        assert context.transfer_syntax == [chosen]


def test_each_context_of_one_sop_class_is_answered(node: Node) -> None:
    # DCMTK proposes one context for each transfer syntax
    proposals = [(CTImageStorage, [uid]) for uid in (JPEG_XL, IMPLICIT_LE, JPIP, EXPLICIT_LE)]
    with association(node.port, *proposals) as opened:
        accepted = {context.transfer_syntax[0] for context in opened.accepted_contexts}
        results = {
            context.transfer_syntax[0]: context.result for context in opened.rejected_contexts
        }
    assert accepted == {JPEG_XL, IMPLICIT_LE, EXPLICIT_LE}
    assert results[JPIP] == 0x04


def test_unknown_title_is_rejected_for_good(node: Node) -> None:
    with association(node.port, (VERIFICATION, EXPLICIT), called="CBMIR_XYZ") as opened:
        answer = opened.acceptor.primitive
    assert opened.is_rejected
    assert (answer.result, answer.result_source, answer.diagnostic) == (0x01, 0x01, 0x07)
    assert node.server.statistics.associations["rejected"] == 1


def test_nothing_else_is_accepted(node: Node) -> None:
    proposals = [
        (uid, EXPLICIT) for uid in ("1.2.840.10008.5.1.4.1.2.3.2", "1.2.840.10008.5.1.1.9")
    ]
    with association(node.port, (VERIFICATION, EXPLICIT), *proposals) as opened:
        assert [context.abstract_syntax for context in opened.accepted_contexts] == [VERIFICATION]
        assert {context.result for context in opened.rejected_contexts} == {0x03}


def test_both_views_answer_an_echo(node: Node) -> None:
    for title in ("CBMIR", "CBMIR_SIM"):
        with association(node.port, (VERIFICATION, EXPLICIT), called=title) as opened:
            assert opened.send_c_echo().Status == 0
