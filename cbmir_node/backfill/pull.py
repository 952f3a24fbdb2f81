"""Goes through the studies of another PACS and fetches what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from cbmir_node.archive.store import Archive
from cbmir_node.backfill.pace import Pace
from cbmir_node.backfill.pacs import ListedStudy, OtherPacs
from cbmir_node.backfill.plans import Plan, Planner
from cbmir_node.dicom.client.fetch import Retrieval, Retrieved
from cbmir_node.errors import OutOfSpaceError, PeerRefusedError, PeerUnreachableError

_ATTEMPTS = 3
_UNREACHABLE_IN_A_ROW = 2
_LONGEST_REST_S = 5.0  # a peer that waits for a C-STORE response gives up after a while
_LOOK_FOR_ROOM_S = 10.0
_PATIENCE_FOR_ROOM_S = 3600.0


@dataclass
class Progress:
    """How far a pull is.

    Attributes
    ----------
    seen, fetched, present : int
        Studies that were looked at, were fetched, had nothing missing.
    images : int
        Images that came.
    failures : dict of str to str
        Study Instance UID to reason.
    incomplete : list of str
        Why there are studies that were asked for and not even looked at.
    study_date : str
        Of the study that is being looked at.
    """

    seen: int = 0
    fetched: int = 0
    present: int = 0
    images: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    incomplete: list[str] = field(default_factory=list)
    study_date: str = ""


class Pull:
    """One run through a PACS.

    Parameters
    ----------
    pacs : OtherPacs
        Where images come from.
    planner : Planner
        Decides what to fetch.
    archive : Archive
        Where they go; asked for room.
    pace : Pace
        When and how fast.
    waits_for_room : bool
        Whether something makes room while the disk is full, so that waiting helps.
    pause_s : float
        Pause before failed studies are tried again; longer the second time.
    show : callable
        Called with the progress whenever it changes.

    Attributes
    ----------
    progress : Progress
    """

    def __init__(
        self,
        pacs: OtherPacs,
        planner: Planner,
        archive: Archive,
        pace: Pace,
        *,
        waits_for_room: bool = False,
        pause_s: float = 30.0,
        show: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self.progress = Progress()
        self._pacs = pacs
        self._planner = planner
        self._archive = archive
        self._pace = pace
        self._waits_for_room = waits_for_room
        self._pause_s = pause_s
        self._show = show
        self._failed: dict[str, ListedStudy] = {}
        self._unreachable = 0

    def run(self, studies: Iterable[ListedStudy]) -> None:
        """Fetch what is missing; studies that fail are tried again at the end.

        Raises
        ------
        PeerUnreachableError, PeerRefusedError
            The PACS does not answer any more, or not to this kind of request.
        OutOfSpaceError
            The disk reserve is reached and nothing makes room.
        """
        for study in self._in_hours(studies):
            self.progress.seen += 1
            self._take(study)
        for attempt in range(1, _ATTEMPTS):
            if not self._failed:
                return
            self._unreachable = 0
            again = list(self._failed.values())
            self._pace.pause(self._pause_s * attempt, f"{len(again)} studies are tried again")
            for study in self._in_hours(again):
                self._take(study)

    def preview(self, studies: Iterable[ListedStudy]) -> Iterator[tuple[ListedStudy, Plan]]:
        """Iterate over the studies of which something would be fetched, and what; fetch nothing."""
        for study in self._in_hours(studies):
            self.progress.seen += 1
            try:
                plan = self._planner.plan(study)
            except PeerRefusedError as error:
                self.progress.failures[study.study_instance_uid] = str(error)
                continue
            if plan.retrievals:
                yield study, plan
            else:
                self.progress.present += 1

    def _in_hours(self, studies: Iterable[ListedStudy]) -> Iterator[ListedStudy]:
        """Iterate; before each step, which may ask the PACS, wait until it may be asked."""
        remaining = iter(studies)
        while True:
            self._pace.wait_for_hours()
            study = next(remaining, None)
            if study is None:
                return
            self.progress.study_date = study.study_date
            yield study

    def _take(self, study: ListedStudy) -> None:
        """Fetch what is missing of a study, and note how that ended."""
        uid = study.study_instance_uid
        try:
            problem = self._bring(study)
            self._unreachable = 0
        except PeerUnreachableError as error:
            # is it this study that the PACS does not survive, or is the PACS gone?
            self._unreachable += 1
            if self._unreachable == _UNREACHABLE_IN_A_ROW:
                raise
            problem = str(error)
        if problem:
            self._failed[uid] = study
            self.progress.failures[uid] = problem
        else:
            self._failed.pop(uid, None)
            self.progress.failures.pop(uid, None)
        self._planner.record(study, problem)
        self._show(self.progress)

    def _bring(self, study: ListedStudy) -> str:
        """Plan and fetch; return what went wrong."""
        try:
            plan = self._planner.plan(study)
        except PeerRefusedError as error:
            return str(error)
        if not plan.retrievals:
            self.progress.present += 1
            return ""
        problem = self._fetch(study, plan)
        if not problem:
            self.progress.fetched += 1
        return problem

    def _fetch(self, study: ListedStudy, plan: Plan) -> str:
        """Carry out a plan; return what went wrong."""
        problems = [self._retrieve(one).problem for one in plan.retrievals]
        self._pace.rest()
        problem = next(filter(None, problems), "")
        lacking = self._planner.lacking(study, plan)
        if plan.images and not lacking:
            return ""  # all are here, whatever the PACS says
        return ": ".join(filter(None, (lacking, problem)))

    def _retrieve(self, retrieval: Retrieval) -> Retrieved:
        while True:
            self._wait_for_room()
            try:
                done = self._pacs.fetch(retrieval, self._on_image)
            except OutOfSpaceError:
                continue
            if not done.problem or self._archive.has_room():
                return done

    def _on_image(self) -> None:
        self.progress.images += 1
        self._show(self.progress)
        self._pace.count_image()
        self._pace.rest(_LONGEST_REST_S)

    def _wait_for_room(self) -> None:
        if self._archive.has_room():
            return
        if not self._waits_for_room or not self._pace.wait_until(
            self._archive.has_room,
            "the disk reserve is reached; waiting for room",
            look_s=_LOOK_FOR_ROOM_S,
            longest_s=_PATIENCE_FOR_ROOM_S,
        ):
            raise OutOfSpaceError(
                "the disk reserve is reached: free space or lower archive.reserve_mib, then give "
                "the same command again; it goes on where it stopped"
            )
