"""Corrects who a study belongs to, and how it is described: merge and re-identification."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pydicom import Dataset
from pydicom.config import RAISE
from pydicom.valuerep import validate_value

from cbmir_node.archive.store import Archive
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.keys import KEY_BY_KEYWORD, KEYS, keys_of
from cbmir_node.catalog.reception.records import attribute_text, patient_identity
from cbmir_node.catalog.retention.modification import (
    RESERVATION_MARGIN_S,
    Change,
    KeptFile,
    NewFile,
    Patient,
    commit_change,
    files_of,
    patient_identified,
    patient_of,
)
from cbmir_node.catalog.retention.selection import SelectedStudy
from cbmir_node.catalog.retention.unused_files import prolong_reservation, reserve_files
from cbmir_node.errors import CatalogError, SelectionError
from cbmir_node.retention.removal import remove_unused_files
from cbmir_node.retention.rewriting import has_values, rewrite

CHANGEABLE: tuple[str, ...] = tuple(
    key.keyword
    for key in KEYS
    if key.level in ("PATIENT", "STUDY") and key.keyword != "StudyInstanceUID"
)
"""Keywords of the attributes that can be changed."""

_IDENTIFYING = ("PatientID", "IssuerOfPatientID")
_RESERVED_S = 3600.0
_FILES_AT_ONCE = 50

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlannedChange:
    """What becomes of one study.

    Attributes
    ----------
    study : SelectedStudy
    change : Change
        Of its rows.
    file_values : dict of str to str
        Keyword to value, of its files.
    merged : bool
        Whether it goes to a patient that is here already.
    """

    study: SelectedStudy
    change: Change
    file_values: dict[str, str]
    merged: bool


def checked_value(keyword: str, text: str) -> str:
    """Return a value as the catalogue writes it.

    Raises
    ------
    SelectionError
        The attribute cannot be changed, or the value breaks its VR.
    """
    if keyword not in CHANGEABLE:
        raise SelectionError(f"{keyword} cannot be changed; choose from: {', '.join(CHANGEABLE)}")
    vr = KEY_BY_KEYWORD[keyword].vr
    try:
        if "\\" in text:
            raise ValueError("several values")
        validate_value(vr, text, RAISE)
    except ValueError as error:
        raise SelectionError(f"{keyword}: {text!r} is no value of VR {vr}: {error}") from error
    dataset = Dataset()
    setattr(dataset, keyword, text)
    return attribute_text(dataset, keyword)


def plan_changes(
    catalog: Catalog,
    studies: Sequence[SelectedStudy],
    values: Mapping[str, str],
    *,
    whole_patient: bool,
) -> list[PlannedChange]:
    """Return what becomes of each study.

    A study whose Patient ID or issuer changes goes to the patient who has them, and its files get
    that patient's name, birth date and sex; where there is no such patient, one is made like the
    old one.

    Parameters
    ----------
    catalog : Catalog
    studies : sequence of SelectedStudy
    values : mapping of str to str
        Keyword to value, from `checked_value`.
    whole_patient : bool
        Whether the studies are all that the patient has, as asked for.

    Raises
    ------
    SelectionError
        The change would describe other studies too.
    """
    return [_plan(catalog, study, values, whole_patient=whole_patient) for study in studies]


def _plan(
    catalog: Catalog, study: SelectedStudy, values: Mapping[str, str], *, whole_patient: bool
) -> PlannedChange:
    of_patient = {key.keyword for key in keys_of("PATIENT")}
    asked = {keyword: text for keyword, text in values.items() if keyword in of_patient}
    of_study = {keyword: text for keyword, text in values.items() if keyword not in of_patient}
    if of_study and whole_patient:
        raise SelectionError(f"{', '.join(of_study)} differ from study to study: name one --study")
    old = patient_of(catalog, study.row)
    if old is None:
        raise SelectionError(f"the study {study.study_instance_uid} is gone")
    identity = _identity({**old.values, **asked}, study)
    if identity == old.identity:
        if asked and old.studies > 1 and not whole_patient:
            raise SelectionError(
                "the patient has other studies: change it with --patient, or name another PatientID"
            )
        patient, merged = {**old.values, **asked}, False
        in_files = asked
    else:
        target = patient_identified(catalog, identity)
        merged = target is not None
        patient = {**old.values, **asked} if target is None else _agreed(target, asked)
        in_files = {
            keyword: text
            for keyword, text in patient.items()
            if text or keyword in asked or keyword in _IDENTIFYING
        }
    change = Change(study.row, identity, patient, of_study)
    return PlannedChange(study, change, {**in_files, **of_study}, merged)


def _identity(patient: Mapping[str, str], study: SelectedStudy) -> str:
    columns = {KEY_BY_KEYWORD[keyword].column: text for keyword, text in patient.items()}
    return patient_identity(
        {"PATIENT": columns, "STUDY": {"study_instance_uid": study.study_instance_uid}}
    )


def _agreed(target: Patient, asked: Mapping[str, str]) -> dict[str, str]:
    """Return the values of the patient that studies go to; the command must not contradict them."""
    for keyword, text in asked.items():
        if target.values[keyword] != text:
            raise SelectionError(
                f"the patient {target.values['PatientID']!r} is here already, with {keyword} "
                f"{target.values[keyword]!r}; leave {keyword} out, or change that patient first"
            )
    return target.values


def modify_study(
    catalog: Catalog,
    archive: Archive,
    planned: PlannedChange,
    on_written: Callable[[int], None] = lambda _: None,
) -> None:
    """Change one study: its files are written anew, then it changes at once, rows and files alike.

    Works beside a running node. Broken off before the commit, the study is as it was.

    Parameters
    ----------
    catalog : Catalog
    archive : Archive
    planned : PlannedChange
    on_written : callable
        Called with the number of objects done since the last call.

    Raises
    ------
    InvalidObjectError, OSError
        A file is damaged or gone: the study is as it was.
    OutOfSpaceError
        There is no room for a second copy of its files, which is needed for a while.
    CatalogError
        The database does not answer.
    """
    writer = _Writer(catalog, archive, planned)
    used: list[NewFile] | None = None
    try:
        while used is None:
            for number in writer.write():
                on_written(number)
            used = commit_change(catalog, planned.change, list(writer.files.values()))
    finally:
        writer.clean_up(used or [])
    _log.info(
        "changed %s of study %s", ", ".join(planned.file_values), planned.study.study_instance_uid
    )


@dataclass
class _Writer:
    """The new files of a study, reserved while no row names them."""

    catalog: Catalog
    archive: Archive
    planned: PlannedChange
    files: dict[tuple[int, str], NewFile] = field(default_factory=dict)
    reserved: list[str] = field(default_factory=list)
    prolonged_at: float = 0.0

    def write(self) -> Iterator[int]:
        """Write what the study has and was not written yet; yield how many files at a time."""
        present = files_of(self.catalog, self.planned.study.row)
        to_do = [f for f in present if f.path and (f.instance, f.path) not in self.files]
        for first in range(0, len(to_do), _FILES_AT_ONCE):
            some = to_do[first : first + _FILES_AT_ONCE]
            self._write(some)
            yield len(some)

    def _write(self, files: Sequence[KeptFile]) -> None:
        study = self.planned.study.study_instance_uid
        targets = {
            file: self.archive.new_path(study, file.sop_instance_uid)
            for file in files
            if not has_values(self.archive, file.path, self.planned.file_values)
        }
        self._reserve(list(targets.values()))
        for file in files:
            new = NewFile(file.instance, file.path, file.path)
            if file in targets:
                stored = rewrite(self.archive, file.path, self.planned.file_values, targets[file])
                new = NewFile(
                    *(file.instance, file.path, stored.path),
                    *(stored.size_bytes, stored.content_sha256),
                )
            self.files[file.instance, file.path] = new

    def _reserve(self, paths: Sequence[str]) -> None:
        now = time.time()
        reserve_files(self.catalog, paths, now + _RESERVED_S)
        if now - self.prolonged_at > _RESERVED_S / 4 - RESERVATION_MARGIN_S:
            prolong_reservation(self.catalog, self.reserved, now + _RESERVED_S)
            self.prolonged_at = now
        self.reserved += paths

    def clean_up(self, used: Sequence[NewFile]) -> None:
        """Remove what was written for nothing, and what the files in use took the place of.

        The catalogue says what that is: a commit may have gone through though its answer was lost.
        """
        useless = sorted(set(self.reserved) - {file.path for file in used})
        with contextlib.suppress(CatalogError):  # a node's duty comes to it later
            prolong_reservation(self.catalog, useless, time.time())
            remove_unused_files(self.catalog, self.archive)
