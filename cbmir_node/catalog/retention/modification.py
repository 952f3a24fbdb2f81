"""Lets studies have another patient, or other values, in one transaction each."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, delete, exists, func, select, update

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.keys import KEY_BY_KEYWORD, keys_of
from cbmir_node.catalog.locks import Lock, hold
from cbmir_node.catalog.reception.records import age_in_years, value_columns
from cbmir_node.catalog.retention.unused_files import name_unused, take_into_use
from cbmir_node.catalog.upsert import find_or_insert
from cbmir_node.errors import CatalogError

RESERVATION_MARGIN_S = 60.0
"""How long before its end the reservation of a file counts as lost."""

_patients, _studies, _series = schema.patients.c, schema.studies.c, schema.series.c
_instances = schema.instances.c
_NAME_FILE = (
    update(schema.instances)
    .where(_instances.id == bindparam("row"))
    .values(
        path=bindparam("new_path"), size_bytes=bindparam("size"), content_sha256=bindparam("sha256")
    )
)


@dataclass(frozen=True)
class Patient:
    """A patient of the catalogue.

    Attributes
    ----------
    values : dict of str to str
        Keyword of the PATIENT level to value.
    studies : int
        How many the patient has.
    """

    row: int
    identity: str
    values: dict[str, str]
    studies: int


@dataclass(frozen=True)
class KeptFile:
    """An instance and its file; the path is empty where the pixels are not kept."""

    instance: int
    sop_instance_uid: str
    path: str


@dataclass(frozen=True)
class NewFile:
    """A file in an instance's old one's place; with the same path, it stays as it is."""

    instance: int
    old_path: str
    path: str
    size_bytes: int = 0
    content_sha256: str = ""


@dataclass(frozen=True)
class Change:
    """What a study is to be.

    Attributes
    ----------
    study : int
        Row.
    identity : str
        Which patient it has then; see `records.patient_identity`.
    patient, values : mapping of str to str
        Keyword to value: all of the PATIENT level, and those of the STUDY level that change.
    """

    study: int
    identity: str
    patient: Mapping[str, str]
    values: Mapping[str, str]


def patient_of(catalog: Catalog, study: int) -> Patient | None:
    """Return the patient of a study, or None when the study is gone."""
    wanted = select(_studies.patient).where(_studies.id == study).scalar_subquery()
    return _patient(catalog, _patients.id == wanted)


def patient_identified(catalog: Catalog, identity: str) -> Patient | None:
    """Return the patient with an identity, if there is one."""
    return _patient(catalog, _patients.identity == identity)


def _patient(catalog: Catalog, which: ColumnElement[bool]) -> Patient | None:
    studies = (
        select(func.count()).where(_studies.patient == _patients.id).correlate(schema.patients)
    )
    with catalog.read() as connection:
        query = select(schema.patients, studies.scalar_subquery().label("number")).where(which)
        row = connection.execute(query).first()
    if row is None:
        return None
    values = {key.keyword: getattr(row, key.column) for key in keys_of("PATIENT")}
    return Patient(row.id, row.identity, values, row.number)


def files_of(catalog: Catalog, study: int) -> list[KeptFile]:
    """Return all instances of a study with their files."""
    with catalog.read() as connection:
        return _files_of(connection, study)


def _files_of(connection: Connection, study: int) -> list[KeptFile]:
    rows = connection.execute(
        select(_instances.id, _instances.sop_instance_uid, _instances.path)
        .join(schema.series)
        .where(_series.study == study)
        .order_by(_instances.id)
    )
    return [KeptFile(*row) for row in rows]


def commit_change(
    catalog: Catalog, change: Change, files: Sequence[NewFile]
) -> list[NewFile] | None:
    """Let a study be what it is to be, with its new files, in one commit.

    The old files are unused then. Instances without a file change in the catalogue only: what comes
    again for them is compared with nothing, so that an unchanged file is not taken for theirs.

    Returns
    -------
    list of NewFile or None
        The new files that are in use now; None, and nothing was written, when the study has got a
        file meanwhile that none of `files` is for.

    Raises
    ------
    CatalogError
        Writing the files took longer than their reservation lasts.
    """
    by_old_path = {(file.instance, file.old_path): file for file in files}
    with catalog.write() as connection:
        hold(connection, Lock.HIERARCHY)
        present = _files_of(connection, change.study)
        kept = {(file.instance, file.path) for file in present if file.path}
        if kept - by_old_path.keys():
            return None
        changed = [by_old_path[key] for key in kept if by_old_path[key].path != key[1]]
        if not take_into_use(connection, [file.path for file in changed], RESERVATION_MARGIN_S):
            raise CatalogError("writing the study's files took too long; give the command again")
        _change_rows(connection, change)
        _name_files(connection, changed)
        gone = [file.instance for file in present if not file.path]
        for first in range(0, len(gone), 500):
            some = _instances.id.in_(gone[first : first + 500])
            connection.execute(update(schema.instances).where(some).values(content_sha256=""))
    return changed


def _name_files(connection: Connection, files: Sequence[NewFile]) -> None:
    name_unused(connection, [file.old_path for file in files])
    rows = [
        {
            "row": file.instance,
            "new_path": file.path,
            "size": file.size_bytes,
            "sha256": file.content_sha256,
        }
        for file in files
    ]
    if rows:
        connection.execute(_NAME_FILE, rows)


def _change_rows(connection: Connection, change: Change) -> None:
    described = _columns(change.patient)
    before = connection.execute(select(schema.studies).where(_studies.id == change.study)).first()
    if before is None:
        return  # deleted meanwhile
    patient = find_or_insert(connection, schema.patients, {"identity": change.identity}, described)
    if patient == before.patient:
        connection.execute(
            update(schema.patients).where(_patients.id == patient).values(**described)
        )
    study = _columns(change.values)
    now = {**before._asdict(), **study}
    age = age_in_years(now["patient_age"], described["patient_birth_date"], now["study_date"])
    connection.execute(
        update(schema.studies)
        .where(_studies.id == change.study)
        .values(**study, patient=patient, age_years=age, updated_at=time.time())
    )
    empty = ~exists().where(_studies.patient == before.patient)
    connection.execute(delete(schema.patients).where(_patients.id == before.patient, empty))


def _columns(values: Mapping[str, str]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for keyword, text in values.items():
        columns |= value_columns(KEY_BY_KEYWORD[keyword], text)
    return columns
