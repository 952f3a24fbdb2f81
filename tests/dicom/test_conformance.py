"""docs/conformance.md says what the code does; what it claims is tried on a running node."""

from __future__ import annotations

import importlib.util
import re

import pytest
from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VR
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from cbmir_node.answers.private_elements import PRIVATE_CREATOR
from cbmir_node.catalog.keys import LEVELS
from cbmir_node.config import DicomSettings
from cbmir_node.dicom.client.association import Peer
from cbmir_node.dicom.client.association import association as associate
from cbmir_node.dicom.similarity_sop_class import SIMILARITY_FIND
from cbmir_node.dicom.statuses import MEANINGS, Status
from tests.conftest import REPOSITORY
from tests.dicom.conftest import Node
from tests.dicom.peers import EXPLICIT, association
from tests.objects import make_object

_spec = importlib.util.spec_from_file_location(
    "conformance", REPOSITORY / "docs" / "conformance.py"
)
assert _spec is not None
assert _spec.loader is not None
conformance = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(conformance)

PAGE = conformance.PAGE.read_text(encoding="utf-8")
VERIFICATION = "1.2.840.10008.1.1"
PATIENT_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.1.1"
NOT_LISTED = (
    "1.2.840.10008.1.20.1",  # Storage Commitment Push Model
    "1.2.840.10008.3.1.2.3.3",  # Modality Performed Procedure Step
    "1.2.840.10008.5.1.1.9",  # Basic Grayscale Print Management
    "1.2.840.10008.5.1.4.31",  # Modality Worklist – FIND
    "1.2.840.10008.5.1.4.1.2.3.1",  # Patient/Study Only – FIND
    "1.2.840.10008.5.1.4.1.2.4.2",  # Composite Instance Root Retrieve – MOVE
)


def table(name: str) -> list[list[str]]:
    """Return the cells of a table of the page, without its head."""
    found = re.search(rf"<!-- table: {name} -->\n(.*?)<!-- end of table -->", PAGE, re.S)
    assert found, name
    rows = [line.strip("| ").split(" | ") for line in found[1].splitlines()[2:]]
    return [[cell.strip(" `") for cell in row] for row in rows]


def listed(name: str) -> list[str]:
    """Return the column of UIDs of a table."""
    return [cell for row in table(name) for cell in row if re.fullmatch(r"[12](\.\d+){2,}", cell)]


def test_every_table_of_the_page_is_current() -> None:
    assert {*re.findall("<!-- table: (.*) -->", PAGE)} == set(conformance.TABLES)
    current = conformance.conformance_page(PAGE)
    if current == PAGE:
        return
    for name in conformance.OF_PYDICOM:  # a newer pydicom may know more UIDs
        assert set(listed(name)) <= set(re.findall(r"[\d.]{8,}", conformance.TABLES[name]()))
    others = set(conformance.TABLES) - conformance.OF_PYDICOM
    old = [name for name in others if f"{name} -->\n{conformance.TABLES[name]()}" not in PAGE]
    assert not old, f"run: python docs/conformance.py ({', '.join(old)})"


def test_every_status_is_explained() -> None:
    assert {status for table in MEANINGS.values() for status in table} == set(Status)
    for message in MEANINGS:
        assert table(f"statuses-of-{message.lower()}")


def test_private_identifiers() -> None:
    assert f"`{PRIVATE_CREATOR}`" in PAGE
    assert f"`{SIMILARITY_FIND}`" in PAGE


@pytest.mark.parametrize("title", ["CBMIR", "CBMIR_SIM"])
def test_contexts_that_are_accepted(node: Node, title: str) -> None:
    """What is listed for an application entity is accepted, nothing else is."""
    claimed = {row[1]: row[2] for row in table(f"contexts-of-{title.lower().replace('_', '-')}")}
    everything = {*listed("contexts-of-cbmir"), *listed("contexts-of-cbmir-sim"), *NOT_LISTED}
    options = [SOPClassExtendedNegotiation() for _ in claimed]
    for item, uid in zip(options, claimed, strict=True):
        item.sop_class_uid, item.service_class_application_information = uid, b"\x01" * 8
    with associate(
        Peer(title, "127.0.0.1", node.port),
        [build_context(uid, ExplicitVRLittleEndian) for uid in sorted(everything)],
        calling_ae_title="TESTER",
        timeout=20,
        negotiation=options,
    ) as opened:
        accepted = {str(context.abstract_syntax) for context in opened.accepted_contexts}
        granted = {str(uid): sum(x) for uid, x in opened.acceptor.sop_class_extended.items()}
        acceptor = opened.acceptor
    assert accepted == set(claimed)
    for uid, names in claimed.items():
        assert granted.get(uid, 0) == (0 if names == "none" else names.count(",") + 1)
    identified = dict(table("identification"))
    assert acceptor.implementation_class_uid == identified["Implementation Class UID"]
    assert acceptor.implementation_version_name == identified["Implementation Version Name"]
    assert acceptor.asynchronous_operations == (1, 1)
    assert acceptor.maximum_length == DicomSettings().max_pdu_bytes


def test_transfer_syntaxes_that_are_accepted(node: Node) -> None:
    claimed = listed("transfer-syntaxes")
    others = ["1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.7.1", "1.2.840.113619.5.2"]
    proposals = [(CTImageStorage, [uid]) for uid in (*claimed, *others)]
    with association(node.port, *proposals) as opened:
        accepted = [context.transfer_syntax[0] for context in opened.accepted_contexts]
    assert accepted == claimed


def test_transfer_syntax_is_chosen_by_preference(node: Node) -> None:
    best = {row[0]: row[2] for row in reversed(table("transfer-syntaxes"))}
    for number in sorted(best, reverse=True):
        worse = [best[other] for other in sorted(best, reverse=True) if other >= number]
        with association(node.port, (CTImageStorage, worse)) as opened:
            assert opened.accepted_contexts[0].transfer_syntax == [best[number]]


def test_storage_classes_are_stored_by_cbmir_only(node: Node) -> None:
    claimed = listed("storage-sop-classes")
    assert len(claimed) > 100
    for first in range(0, len(claimed), 128):  # contexts of one association
        proposals = [(uid, EXPLICIT) for uid in claimed[first : first + 128]]
        with association(node.port, *proposals) as opened:
            assert len(opened.accepted_contexts) == len(proposals)
    with association(node.port, (VERIFICATION, EXPLICIT), *proposals, called="CBMIR_SIM") as opened:
        assert [context.abstract_syntax for context in opened.accepted_contexts] == [VERIFICATION]


@pytest.mark.parametrize("level", ["PATIENT", "STUDY", "SERIES", "IMAGE"])
def test_keys_are_supported(node: Node, level: str) -> None:
    """Every key of the table is returned, and none makes an answer say "unsupported"."""
    node.keep(make_object(PatientID="P", StudyInstanceUID="1.2", SeriesInstanceUID="1.2.3"))
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for above, keyword, value in (
        ("STUDY", "PatientID", "P"),
        ("SERIES", "StudyInstanceUID", "1.2"),
        ("IMAGE", "SeriesInstanceUID", "1.2.3"),
    ):
        if LEVELS.index(level) >= LEVELS.index(above):
            setattr(identifier, keyword, value)
    keys = [int(re.sub(r"\W", "", row[1]), 16) for row in table(f"keys-of-{level.lower()}")]
    for (group, *_), tag in zip(table(f"keys-of-{level.lower()}"), keys, strict=True):
        if " > " not in group and tag not in identifier:
            identifier.add(DataElement(tag, dictionary_VR(tag), None))
    with association(node.port, (PATIENT_ROOT_FIND, EXPLICIT)) as opened:
        answers = list(opened.send_c_find(identifier, PATIENT_ROOT_FIND))
    assert [status.Status for status, _ in answers] == [Status.PENDING, Status.SUCCESS]
    assert set(identifier.keys()) <= set(answers[0][1].keys())
