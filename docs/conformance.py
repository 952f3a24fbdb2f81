"""Writes the tables of docs/conformance.md from the code; its prose is written by hand.

Run ``python docs/conformance.py`` after a change; a test fails when a table is out of date.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import cast

from fastapi import FastAPI
from pydicom._uid_dict import UID_dictionary
from pydicom.datadict import dictionary_description, dictionary_VR, tag_for_keyword
from pydicom.sr._concepts_dict import concepts
from pydicom.uid import UID

from cbmir_node.answers.private_elements import (
    ANSWERED,
    ANSWERED_WHEN_ASKED,
    ASKED,
    ELEMENTS,
    PRIVATE_GROUP,
    RESERVED,
    PrivateElement,
)
from cbmir_node.archive.incoming import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from cbmir_node.catalog.keys import LEVELS, UNIQUE_KEY, Level
from cbmir_node.catalog.query.hierarchy import matched_keys, supported_keys
from cbmir_node.config import DicomSettings
from cbmir_node.dicom.contexts import (
    Service,
    View,
    accepted_options,
    carries_pixels,
    is_storage,
    preference,
    service_of,
)
from cbmir_node.dicom.similarity_sop_class import SIMILARITY_FIND
from cbmir_node.dicom.statuses import MEANINGS
from cbmir_node.retention.rejection_notes import CAUSE_OF_TITLE
from cbmir_node.web import dicomweb
from cbmir_node.web.dicomweb.resources import ROOT
from cbmir_node.web.services import WebServices

PAGE = Path(__file__).resolve().with_name("conformance.md")
_REGION = re.compile(r"(?<=<!-- table: )([\w-]+)( -->\n).*?(?=<!-- end of table -->)", re.S)

_USED = {
    "1.2.840.10008.1.1": "`echo`",
    "1.2.840.10008.5.1.4.1.2.2.1": "`pull`",
    "1.2.840.10008.5.1.4.1.2.2.2": "`pull`",
    "1.2.840.10008.5.1.4.1.2.2.3": "`pull`",
}
"""SOP classes that the node uses at others, beside those of storage."""

_OPTIONS: Mapping[Service, Sequence[str]] = {
    "find": ("relational queries", "combined date-time", "fuzzy names", "timezone adjustment"),
    "move": ("relational retrieval",),
    "get": ("relational retrieval",),
}
"""What the bytes of SOP Class Extended Negotiation mean (PS3.4 C.5.1.1, C.5.2.1, C.5.3.1)."""

_MATCHING = {
    **dict.fromkeys(("DA", "TM", "DT"), "single value, range"),
    **dict.fromkeys(("AS", "IS", "US"), "single value"),
    "UI": "single value, list of UID",
    "SQ": "sequence",
}
"""Kinds of matching by VR (PS3.4 C.2.2.2), where it is not single value and wildcard."""

_TRANSACTIONS = {
    "Search": ("Search (QIDO-RS)", "`pull`"),
    "Retrieve": ("Retrieve (WADO-RS)", "`pull`"),
    "Store": ("Store (STOW-RS)", "no"),
}
"""Tag of DICOMweb routes to the transaction, and whether the node uses it at others."""


def conformance_page(written: str) -> str:
    """Return the page with its tables written anew."""
    return _REGION.sub(lambda found: f"{found[1]}{found[2]}{TABLES[found[1]]()}", written)


def known_uids(kind: str) -> list[str]:
    """Return the UIDs of a kind that pydicom knows, our own among them."""
    known = [uid for uid, entry in UID_dictionary.items() if entry[1] == kind]
    return [*known, SIMILARITY_FIND] if kind == "SOP Class" else known


def services(view: View) -> dict[str, Service]:
    """Return the SOP classes that a view provides beside storage, each with its service."""
    found = {uid: service_of(uid, view) for uid in known_uids("SOP Class")}
    return {uid: one for uid, one in found.items() if one is not None and one != "storage"}


def negotiated_options(uid: str, view: View) -> list[str]:
    """Return what a view grants of SOP Class Extended Negotiation."""
    names = _OPTIONS.get(services(view)[uid], ())
    granted = accepted_options({UID(uid): b"\x01" * len(names)}, view).get(UID(uid), b"")
    return [name for name, byte in zip(names, granted, strict=False) if byte]


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines)


def _name(uid: str) -> str:
    if uid == SIMILARITY_FIND:
        return "Similarity Information Model – FIND (private)"
    return UID(uid).name


def _services_table() -> str:
    similarity = services("similarity")
    rows = [
        (_name(uid), _USED.get(uid, "no"), "yes", "yes" if uid in similarity else "no")
        for uid in services("main")
    ]
    storage = "Storage SOP classes, [8.6](#86-storage-sop-classes)"
    rows.insert(1, (storage, "C-MOVE, C-GET, forwarding", "yes", "no"))
    return _table(["SOP class", "user (SCU)", "provider (SCP): CBMIR", "… CBMIR_SIM"], rows)


def _dicomweb_table() -> str:
    app = FastAPI()
    app.include_router(dicomweb.router(cast(WebServices, None)))  # nothing is asked of it here
    resources: dict[tuple[str, str], list[str]] = {}
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            named = resources.setdefault((operation["tags"][0], method.upper()), [])
            named.append(f"`{path.removeprefix(ROOT)}`")
    rows = [
        (*_TRANSACTIONS[tag], f"{method} {', '.join(resources[tag, method])}")
        for tag, method in sorted(
            resources, key=lambda one: (list(_TRANSACTIONS).index(one[0]), one)
        )
    ]
    return _table(["transaction", "user agent", "origin server"], rows)


def _contexts_table(view: View) -> str:
    rows = [
        (_name(uid), f"`{uid}`", ", ".join(negotiated_options(uid, view)) or "none")
        for uid in services(view)
    ]
    return _table(["abstract syntax", "UID", "extended negotiation"], rows)


def _transfer_syntaxes_table() -> str:
    accepted = [uid for uid in known_uids("Transfer Syntax") if carries_pixels(uid)]
    rows = [
        (preference(uid) + 1, _name(uid), f"`{uid}`") for uid in sorted(accepted, key=preference)
    ]
    return _table(["preference", "transfer syntax", "UID"], rows)


def _storage_table() -> str:
    rows = [(_name(uid), f"`{uid}`") for uid in known_uids("SOP Class") if is_storage(uid)]
    return _table(["SOP class", "UID"], sorted(rows))


def _keys_table(level: Level) -> str:
    above = LEVELS[: LEVELS.index(level)]
    inherited = {key for higher in above for key in supported_keys(higher)}
    rows = []
    for path in supported_keys(level):
        if path not in inherited:
            rows.append((_attribute(path), *_tag_and_vr(path), _matching_of(path, level)))
    return _table(["attribute", "tag", "VR", "matched by"], rows)


def _attribute(path: str) -> str:
    return " > ".join(dictionary_description(keyword) for keyword in path.split("."))


def _tag_and_vr(path: str) -> tuple[str, str]:
    keyword = path.rpartition(".")[2]
    tag = tag_for_keyword(keyword) or 0
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})", dictionary_VR(keyword)


def _matching_of(path: str, level: Level) -> str:
    vr = _tag_and_vr(path)[1]
    if path not in matched_keys() and vr != "SQ":
        return "returned only"
    kinds = _MATCHING.get(vr, "single value, wildcard")
    return f"{kinds}; unique key" if path == UNIQUE_KEY[level] else kinds


def _statuses_table(message: str) -> str:
    rows = [(f"0x{int(status):04X}", meaning) for status, meaning in MEANINGS[message].items()]
    return _table(["status", "meaning"], rows)


def _private_elements_table() -> str:
    rows = [
        (
            f"({PRIVATE_GROUP:04X},xx{element.offset:02X})",
            *(element.name, element.vr, element.vm, *_use(element)),
        )
        for element in ELEMENTS
    ]
    return _table(["element", "name", "VR", "VM", "in requests", "in answers"], rows)


def _use(element: PrivateElement) -> tuple[str, str]:
    asked = "reserved" if element in RESERVED else "yes" if element in ASKED else ""
    answered = "when asked for" if element in ANSWERED_WHEN_ASKED else "yes"
    return asked, answered if element in (*ANSWERED, *ANSWERED_WHEN_ASKED) else ""


def _local_ae_titles_table() -> str:
    settings = DicomSettings()
    rows = [
        ("CBMIR", "`dicom.ae_title`", settings.ae_title, settings.port),
        ("CBMIR_SIM", "`dicom.similarity_ae_title`", settings.similarity_ae_title, settings.port),
    ]
    return _table(["application entity", "setting", "default AE title", "default port"], rows)


def _identification_table() -> str:
    rows = [
        ("Implementation Class UID", f"`{IMPLEMENTATION_CLASS_UID}`"),
        ("Implementation Version Name", f"`{IMPLEMENTATION_VERSION_NAME}`"),
    ]
    return _table(["", ""], rows)


def _rejection_titles_table() -> str:
    outcomes = {
        "rejected": "removed, and refused when they come again",
        "deleted": "removed; they may come again",
    }
    rows = [
        (code, "DCM", _meaning_of(code), outcomes[cause]) for code, cause in CAUSE_OF_TITLE.items()
    ]
    return _table(["code", "scheme", "meaning", "the objects it names are"], rows)


def _meaning_of(code: str) -> str:
    terms = cast(Mapping[str, Mapping[str, tuple[str, ...]]], concepts["DCM"])
    return next(term[code][0] for term in terms.values() if code in term)


TABLES: Mapping[str, Callable[[], str]] = {
    "services": _services_table,
    "dicomweb": _dicomweb_table,
    "identification": _identification_table,
    "contexts-of-cbmir": partial(_contexts_table, "main"),
    "contexts-of-cbmir-sim": partial(_contexts_table, "similarity"),
    "transfer-syntaxes": _transfer_syntaxes_table,
    **{f"keys-of-{level.lower()}": partial(_keys_table, level) for level in LEVELS},
    **{f"statuses-of-{name.lower()}": partial(_statuses_table, name) for name in MEANINGS},
    "local-ae-titles": _local_ae_titles_table,
    "rejection-titles": _rejection_titles_table,
    "private-elements": _private_elements_table,
    "storage-sop-classes": _storage_table,
}
"""Tables of the page by the name in its markers."""

OF_PYDICOM = frozenset({"transfer-syntaxes", "storage-sop-classes"})
"""Tables that grow with the dictionary of the pydicom that is installed."""

if __name__ == "__main__":
    PAGE.write_text(conformance_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
