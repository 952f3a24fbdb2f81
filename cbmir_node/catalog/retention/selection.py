"""The studies that an administrator's command names, and how much they are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, case, func, select

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.retention.eviction import KEPT
from cbmir_node.errors import SelectionError

_patients, _studies, _series = schema.patients.c, schema.studies.c, schema.series.c
_instances, _forwards = schema.instances.c, schema.forwards.c
_STUDIES_AT_ONCE = 500
_DATE = re.compile(r"\d{8}")


@dataclass(frozen=True)
class SelectedStudy:
    """A study and what it consists of.

    Attributes
    ----------
    row, patient : int
        Row numbers.
    kept_bytes : int
        Of the files that are here.
    """

    row: int
    patient: int
    study_instance_uid: str
    study_date: str
    patient_id: str
    series: int
    instances: int
    kept_bytes: int


def study_named(catalog: Catalog, study_instance_uid: str) -> SelectedStudy:
    """Return the study with a Study Instance UID.

    Raises
    ------
    SelectionError
        There is none.
    """
    found = _selected(catalog, _studies.study_instance_uid == study_instance_uid)
    if not found:
        raise SelectionError(f"there is no study {study_instance_uid} here")
    return found[0]


def studies_of_patient(
    catalog: Catalog, patient_id: str, issuer: str | None = None
) -> list[SelectedStudy]:
    """Return the studies of a patient.

    Parameters
    ----------
    catalog : Catalog
    patient_id : str
        Patient ID, exactly.
    issuer : str, optional
        Issuer of Patient ID; empty for the patient without one.

    Raises
    ------
    SelectionError
        There is no such patient, or several with this ID and no issuer was named.
    """
    which = _patients.patient_id == patient_id
    if issuer is not None:
        which &= _patients.issuer_of_patient_id == issuer
    with catalog.read() as connection:
        query = select(_patients.issuer_of_patient_id).where(which)
        issuers = sorted(set(connection.execute(query).scalars()))
    if not patient_id or not issuers:
        raise SelectionError(f"there is no patient with the Patient ID {patient_id!r} here")
    if len(issuers) > 1:
        names = ", ".join(repr(name) for name in issuers)
        raise SelectionError(
            f"several patients have the Patient ID {patient_id!r}; name its issuer: {names}"
        )
    return _selected(catalog, which)


def studies_before(catalog: Catalog, date: str) -> tuple[list[SelectedStudy], int]:
    """Return the studies with a Study Date before a day, and how many have no date to tell by.

    Parameters
    ----------
    date : str
        VR DA, ``YYYYMMDD``. A study is older only when its own date is written like this.
    """
    with catalog.read() as connection:
        dates = connection.execute(select(_studies.id, _studies.study_date)).all()
    dated = [row for row in dates if _DATE.fullmatch(row.study_date)]
    rows = [row.id for row in dated if row.study_date < date]
    found: list[SelectedStudy] = []
    for first in range(0, len(rows), _STUDIES_AT_ONCE):
        found += _selected(catalog, _studies.id.in_(rows[first : first + _STUDIES_AT_ONCE]))
    return found, len(dates) - len(dated)


def patients_left_empty(catalog: Catalog, studies: Sequence[SelectedStudy]) -> int:
    """Return how many patients have none but these studies."""
    named: dict[int, int] = {}
    for study in studies:
        named[study.patient] = named.get(study.patient, 0) + 1
    patients = sorted(named)
    empty = 0
    with catalog.read() as connection:
        for first in range(0, len(patients), _STUDIES_AT_ONCE):
            some = patients[first : first + _STUDIES_AT_ONCE]
            counts = connection.execute(
                select(_studies.patient, func.count())
                .where(_studies.patient.in_(some))
                .group_by(_studies.patient)
            )
            empty += sum(number == named[patient] for patient, number in counts)
    return empty


def count_not_sent_on(catalog: Catalog, studies: Sequence[SelectedStudy]) -> int:
    """Return how many instances of some studies a destination has not got, for whatever reason."""
    rows = [study.row for study in studies]
    number = 0
    with catalog.read() as connection:
        for first in range(0, len(rows), _STUDIES_AT_ONCE):
            waiting = (
                select(func.count(_forwards.instance.distinct()))
                .join(schema.instances, _instances.id == _forwards.instance)
                .join(schema.series, _series.id == _instances.series)
                .where(_series.study.in_(rows[first : first + _STUDIES_AT_ONCE]))
                .where(_forwards.state != "sent")
            )
            number += connection.execute(waiting).scalar_one()
    return number


def _selected(catalog: Catalog, which: ColumnElement[bool]) -> list[SelectedStudy]:
    query = (
        select(
            _studies.id,
            _studies.patient,
            _studies.study_instance_uid,
            _studies.study_date,
            _patients.patient_id,
            func.count(_series.id.distinct()),
            func.count(_instances.id),
            func.coalesce(func.sum(case((KEPT, _instances.size_bytes), else_=0)), 0),
        )
        .select_from(
            schema.patients.join(schema.studies)
            .outerjoin(schema.series)
            .outerjoin(schema.instances, _instances.series == _series.id)
        )
        .where(which)
        .group_by(_studies.id, _patients.id)
        .order_by(_studies.id)
    )
    with catalog.read() as connection:
        return [SelectedStudy(*row) for row in connection.execute(query)]
