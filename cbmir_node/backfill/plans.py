"""Decides what to fetch of a study, and whether it came."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from cbmir_node.backfill.pacs import ListedStudy, OtherPacs
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.pulls import (
    StudyHere,
    instances_without_pixels,
    pulled_study,
    record_pulled,
    study_here,
)
from cbmir_node.dicom.client.fetch import Retrieval
from cbmir_node.errors import PeerRefusedError

_INSTANCES_PER_RETRIEVAL = 100
_OTHER_CONTENT = (
    ", or with other content than the node knows them with (archive.duplicates = replace takes "
    "them)"
)


@dataclass(frozen=True)
class Plan:
    """What to fetch of a study.

    Attributes
    ----------
    retrievals : tuple of Retrieval
        Empty when nothing is missing.
    images : int
        How many objects; 0 where the PACS does not count.
    wanted : frozenset of str
        Their SOP Instance UIDs; empty where all of the study is wanted.
    """

    retrievals: tuple[Retrieval, ...] = ()
    images: int = 0
    wanted: frozenset[str] = frozenset()


class Planner(Protocol):
    """What decides."""

    def plan(self, study: ListedStudy) -> Plan:
        """Return what to fetch of a study."""

    def lacking(self, study: ListedStudy, plan: Plan) -> str:
        """Return what has not come of a plan that was carried out; empty when all has."""

    def record(self, study: ListedStudy, problem: str) -> None:
        """Write down how a study ended; `problem` is empty when all of it is here."""


class MissingImages:
    """Fetches what the PACS has and the node has not.

    Parameters
    ----------
    pacs : OtherPacs
    catalog : Catalog
    again : bool
        Look at each study anew, also at those that were fetched before, and fetch what was deleted
        here. What a rejection note named is left out in any case: the node would refuse it.
    keeps_files : bool
        Whether files stay for good, so that `again` brings back one that is not there.
    """

    def __init__(
        self,
        pacs: OtherPacs,
        catalog: Catalog,
        *,
        again: bool = False,
        keeps_files: bool = False,
    ) -> None:
        self._pacs = pacs
        self._catalog = catalog
        self._again = again
        self._needs_files = again and keeps_files

    def plan(self, study: ListedStudy) -> Plan:
        """Compare counts, then series, then instances: as little as tells what is missing."""
        if not self._again and self._was_fetched(study):
            return Plan()
        here = study_here(self._catalog, study.study_instance_uid)
        settled = self._settled(here)
        # what was taken away here may be gone there, too, and another image in its place
        if study.instances and len(self._present(here)) == study.instances:
            return Plan()
        if settled or (self._pacs.needs_sop_classes and not study.sop_classes):
            return self._by_comparison(study, here, settled)
        whole = Retrieval(study.study_instance_uid, sop_classes=study.sop_classes)
        return Plan((whole,), study.instances)

    def lacking(self, study: ListedStudy, plan: Plan) -> str:
        """Count again."""
        here = study_here(self._catalog, study.study_instance_uid)
        settled = self._settled(here)
        if plan.wanted:
            missing = plan.wanted - settled
            if not missing:
                return ""
            came_not = f"{len(missing)} of {len(plan.wanted)} images did not come"
            return came_not + (_OTHER_CONTENT if missing & here.known else "")
        if not settled:
            return "nothing came"
        if len(settled) < study.instances:
            return f"{len(settled)} of {study.instances} images are here"
        return ""

    def record(self, study: ListedStudy, problem: str) -> None:
        """Write it into the catalogue, unless it is there."""
        if problem or not self._was_fetched(study):
            record_pulled(
                self._catalog,
                self._pacs.name,
                study.study_instance_uid,
                "failed" if problem else "fetched",
                instances=study.instances,
                reason=problem,
            )

    def _was_fetched(self, study: ListedStudy) -> bool:
        """Tell whether the study was fetched and has not changed since, here or on the PACS.

        Where the PACS does not count, nobody knows. What a rejection takes away here, a correction
        replaces on the PACS: the count stays the same.
        """
        before = pulled_study(self._catalog, self._pacs.name, study.study_instance_uid)
        return (
            before is not None
            and before.state == "fetched"
            and not before.reduced
            and before.instances == study.instances > 0
        )

    def _present(self, here: StudyHere) -> frozenset[str]:
        """Return what is here as it should be."""
        return here.known - here.without_file if self._needs_files else here.known

    def _settled(self, here: StudyHere) -> frozenset[str]:
        """Return what need not be fetched."""
        settled = self._present(here) | here.rejected
        return settled if self._again else settled | here.deleted

    def _by_comparison(self, study: ListedStudy, here: StudyHere, settled: frozenset[str]) -> Plan:
        uid = study.study_instance_uid
        missing: dict[str, list[str]] = {}
        whole: set[str] = set()
        classes: set[str] = set()
        present = self._present(here)
        all_series = self._pacs.series(uid)
        if not all_series and not settled:
            raise PeerRefusedError(f"{self._pacs.name} lists no series of this study")
        for series in all_series:
            name = series.series_instance_uid
            here_of_it = present.intersection(here.series.get(name, ()))
            if series.instances and series.instances == len(here_of_it):
                continue
            listed = self._pacs.instances(uid, name)
            absent = [one for one in listed if one.sop_instance_uid not in settled]
            if absent:
                missing[name] = [one.sop_instance_uid for one in absent]
                classes |= {one.sop_class_uid for one in absent}
            if len(absent) == len(listed):
                whole.add(name)
        objects = Retrieval(uid, sop_classes=() if "" in classes else tuple(sorted(classes)))
        return _plan(objects, missing, whole, of_study=len(all_series))


class MissingPixels:
    """Fetches again what a model still has to embed and whose pixels are not kept here.

    The catalogue is its own progress: what has been embedded waits no longer.

    Parameters
    ----------
    catalog : Catalog
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def plan(self, study: ListedStudy) -> Plan:
        """Ask the catalogue; the PACS is not asked what it has."""
        uid = study.study_instance_uid
        here = study_here(self._catalog, uid)
        missing: dict[str, list[str]] = {}
        classes, syntaxes = set(), set()
        for one in instances_without_pixels(self._catalog, uid):
            missing.setdefault(one.series_instance_uid, []).append(one.sop_instance_uid)
            classes.add(one.sop_class_uid)
            syntaxes.add(one.transfer_syntax_uid)
        # a whole series would bring back what was deleted of it
        whole = {
            name
            for name, wanted in missing.items()
            if len(wanted) == len(here.series[name]) and not here.deleted | here.rejected
        }
        # encoded otherwise, it would be another content than the node knows
        objects = Retrieval(
            uid, sop_classes=tuple(sorted(classes)), transfer_syntaxes=tuple(sorted(syntaxes))
        )
        return _plan(objects, missing, whole, of_study=len(here.series))

    def lacking(self, study: ListedStudy, plan: Plan) -> str:
        """Ask the catalogue again."""
        waiting = instances_without_pixels(self._catalog, study.study_instance_uid)
        left = plan.wanted & {one.sop_instance_uid for one in waiting}
        if not left:
            return ""
        return f"{len(left)} of {len(plan.wanted)} images did not come{_OTHER_CONTENT}"

    def record(self, study: ListedStudy, problem: str) -> None:
        """Do nothing: the work queue tells."""


def _plan(
    objects: Retrieval, missing: Mapping[str, list[str]], whole: Collection[str], *, of_study: int
) -> Plan:
    """Return the fewest retrievals that bring what is missing, and nothing else.

    Parameters
    ----------
    objects : Retrieval
        The study, and what is known of the objects.
    missing : mapping of str to list of str
        Series Instance UID to SOP Instance UIDs.
    whole : collection of str
        The series of which everything is missing.
    of_study : int
        How many series the study has.
    """
    retrievals: list[Retrieval] = []
    for name, uids in missing.items():
        of_series = replace(objects, series_instance_uid=name)
        if name in whole:
            retrievals.append(of_series)
            continue
        for start in range(0, len(uids), _INSTANCES_PER_RETRIEVAL):
            part = tuple(uids[start : start + _INSTANCES_PER_RETRIEVAL])
            retrievals.append(replace(of_series, sop_instance_uids=part))
    if missing and len(missing) == len(whole) == of_study:
        retrievals = [objects]
    wanted = frozenset().union(*missing.values())
    return Plan(tuple(retrievals), len(wanted), wanted)
