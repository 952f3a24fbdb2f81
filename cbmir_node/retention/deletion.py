"""Deletes studies on an administrator's word."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from cbmir_node.archive.store import Archive
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.retention.selection import (
    SelectedStudy,
    count_not_sent_on,
    patients_left_empty,
)
from cbmir_node.catalog.retention.tombstones import bury_studies
from cbmir_node.retention.removal import remove_buried_objects

_OBJECTS_AT_ONCE = 5000
_STUDIES_AT_ONCE = 500

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Extent:
    """How much a deletion takes away.

    Attributes
    ----------
    patients : int
        That have no other study.
    kept_bytes : int
        Of the files that are here.
    not_sent_on : int
        Instances that a rule of ``[forwarding]`` passes on and that a destination has not got.
    """

    patients: int
    studies: int
    series: int
    instances: int
    kept_bytes: int
    not_sent_on: int


def extent(catalog: Catalog, studies: Sequence[SelectedStudy]) -> Extent:
    """Return how much these studies are."""
    return Extent(
        patients_left_empty(catalog, studies),
        len(studies),
        sum(study.series for study in studies),
        sum(study.instances for study in studies),
        sum(study.kept_bytes for study in studies),
        count_not_sent_on(catalog, studies),
    )


def delete_studies(
    catalog: Catalog,
    archive: Archive,
    studies: Sequence[SelectedStudy],
    on_removed: Callable[[int], None] = lambda _: None,
) -> int:
    """Delete what some studies have at this moment; what arrives for them later stays.

    First all of it is marked, each study in one commit, then removed in small steps. Once marked it
    goes even if this process does not live to do it: a running node, its next start, or
    ``verify --repair`` goes on.

    Parameters
    ----------
    catalog : Catalog
    archive : Archive
    studies : sequence of SelectedStudy
    on_removed : callable
        Called with the number of objects removed since the last call.

    Returns
    -------
    int
        How many objects were marked.
    """
    marked = 0
    for group in _groups(studies):
        marked += bury_studies(catalog, [study.row for study in group], "delete")
    for batch in remove_buried_objects(catalog, archive):
        on_removed(batch.instances)
    _log.info("deleted %d objects of %d studies", marked, len(studies))
    return marked


def _groups(studies: Sequence[SelectedStudy]) -> Iterator[list[SelectedStudy]]:
    """Gather studies until their objects are as many as a short transaction can mark."""
    group: list[SelectedStudy] = []
    number = 0
    for study in studies:
        if group and (
            number + study.instances > _OBJECTS_AT_ONCE or len(group) == _STUDIES_AT_ONCE
        ):
            yield group
            group, number = [], 0
        group.append(study)
        number += study.instances
    if group:
        yield group
