"""Lists the studies of another PACS, newest first, in windows that it answers completely."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta

from cbmir_node.backfill.pacs import Answer, ListedStudy, OtherPacs, StudyQuery, read_date
from cbmir_node.errors import PeerRefusedError

_DAY = timedelta(days=1)
_EARLIEST = date(1900, 1, 1)
_FUTURE = timedelta(days=366)
_LAST_MINUTE = 24 * 60 - 1
# No PACS limits its answers to fewer than this: less is complete, whatever it says
_SURELY_COMPLETE = 10
# A window with fewer studies than this is followed by a longer one, with more by a shorter one
_FEW, _MANY = 50, 200


@dataclass(frozen=True)
class Selection:
    """Which studies to walk through.

    Attributes
    ----------
    study_date : str
        ``YYYYMMDD``, or ``FROM-TO`` with either end open; empty for any date.
    modalities : tuple of str
        Studies that contain one of them; empty for all.
    patient_id : str
    studies : tuple of str
        Study Instance UIDs; the other conditions do not apply then.
    undated : bool
        Also those without a date. No range of dates finds them: the PACS has to list all studies.
    """

    study_date: str = ""
    modalities: tuple[str, ...] = ()
    patient_id: str = ""
    studies: tuple[str, ...] = ()
    undated: bool = False


@dataclass(frozen=True)
class Window:
    """A span of days, or of minutes within a day, both ends included.

    Attributes
    ----------
    open_first, open_last : bool
        Whether the days before or after belong to it, too.
    """

    first: date
    last: date
    open_first: bool = False
    open_last: bool = False
    first_minute: int = 0
    last_minute: int = _LAST_MINUTE

    def study_date(self) -> str:
        """Return the days as a matching key's value."""
        first = "" if self.open_first else f"{self.first:%Y%m%d}"
        last = "" if self.open_last else f"{self.last:%Y%m%d}"
        if first == last:
            return first  # one day, or any
        return f"{first}-{last}"

    def study_time(self) -> str:
        """Return the minutes as a matching key's value; empty for the whole day."""
        if (self.first_minute, self.last_minute) == (0, _LAST_MINUTE):
            return ""
        first, last = (divmod(minute, 60) for minute in (self.first_minute, self.last_minute))
        return f"{first[0]:02}{first[1]:02}00-{last[0]:02}{last[1]:02}59.999999"

    def halves(self) -> tuple[Window, Window] | None:
        """Return the later and the earlier half; None for a minute."""
        if self.first < self.last:
            middle = self.first + (self.last - self.first) // 2
            return (
                replace(self, first=middle + _DAY, open_first=False),
                replace(self, last=middle, open_last=False),
            )
        if self.open_first or self.open_last or self.first_minute == self.last_minute:
            return None
        minute = (self.first_minute + self.last_minute) // 2
        return replace(self, first_minute=minute + 1), replace(self, last_minute=minute)

    def contains(self, study: ListedStudy) -> bool:
        """Tell whether a study's date and time fit; what it has not cannot be judged."""
        day = read_date(study.study_date)
        if day is not None and not (
            (self.open_first or day >= self.first) and (self.open_last or day <= self.last)
        ):
            return False
        hours, minutes = study.study_time[:2], study.study_time[2:4] or "0"
        if not self.study_time() or not (hours.isdecimal() and minutes.isdecimal()):
            return True
        return self.first_minute <= 60 * int(hours) + int(minutes) <= self.last_minute


class StudyWalk:
    """Iterates over the studies of a PACS.

    A PACS limits its answers, and not all say so. A window whose answer is limited is halved, down
    to a minute. So is one with as many answers as ever proved complete, or more: when its halves
    bring nothing new, fewer than that are trusted from then on.

    Parameters
    ----------
    pacs : OtherPacs
        Asked for studies, and for their series where it does not tell modalities.
    selection : Selection
        Which studies.
    today : date
        Where a walk without an end begins.
    tell : callable
        Told why studies may be left out.
    """

    def __init__(
        self,
        pacs: OtherPacs,
        selection: Selection,
        today: date,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._pacs = pacs
        self._selection = selection
        self._today = today
        self._trusted = _SURELY_COMPLETE
        self._modality_is_a_key = True
        self._tell = tell
        self._told: set[str] = set()
        self._window_told = False

    def __iter__(self) -> Iterator[ListedStudy]:
        wanted = set(self._selection.modalities)
        return (study for study in self._listed() if not wanted or self._contains(study, wanted))

    def _listed(self) -> Iterator[ListedStudy]:
        selection = self._selection
        if selection.studies:
            for uid in selection.studies:
                found = self._pacs.studies(StudyQuery(study_instance_uid=uid)).studies
                if not found:
                    self._incomplete(f"{self._pacs.name} has no study {uid}")
                yield from found[:1]
        elif selection.patient_id:
            yield from self._of_patient()
        else:
            yield from self._by_date()
            if selection.undated:
                yield from self._undated()

    def _contains(self, study: ListedStudy, wanted: set[str]) -> bool:
        """Tell whether a study has a wanted modality; not every PACS matches or returns them."""
        modalities = set(study.modalities) or {
            series.modality for series in self._pacs.series(study.study_instance_uid)
        }
        return bool(modalities & wanted)

    def _of_patient(self) -> Iterator[ListedStudy]:
        """List a patient's studies by one query: they are few."""
        query = StudyQuery(
            study_date=self._selection.study_date, patient_id=self._selection.patient_id
        )
        answer = self._search(query)
        if answer.limited:
            self._incomplete("the PACS does not list all studies of the patient")
        yield from _newest_first(answer.studies)

    def _by_date(self) -> Iterator[ListedStudy]:
        """Go back in time, in longer windows where there is little."""
        first, last, open_first, open_last = self._bounds()
        start = max(first, min(self._today, last)) if open_last else last
        window = Window(start, last, open_first and start == first, open_last)
        days = 1
        while True:
            found = self._in_window(window)
            yield from found
            if len(found) < _FEW:
                days *= 2
            elif len(found) > _MANY:
                days = max(1, days // 2)
            last = window.first - _DAY
            if last < first:
                return
            begin = last - min(timedelta(days=days - 1), last - first)
            window = Window(begin, last, open_first and begin == first)

    def _bounds(self) -> tuple[date, date, bool, bool]:
        """Return first and last day, and whether what lies beyond belongs to the walk."""
        first_text, dash, last_text = self._selection.study_date.partition("-")
        first, last = read_date(first_text), read_date(last_text if dash else first_text)
        earliest = first or min(_EARLIEST, last or _EARLIEST)
        latest = last or max(self._today + _FUTURE, earliest)
        return earliest, latest, first is None, last is None

    def _in_window(self, window: Window) -> list[ListedStudy]:
        found: dict[str, ListedStudy] = {}
        for modality in self._modalities():
            found |= self._complete(window, modality)
        return _newest_first(found.values())

    def _modalities(self) -> tuple[str, ...]:
        """Return the values of ModalitiesInStudy to ask for: it takes one at a time."""
        if not self._modality_is_a_key:
            return ("",)
        return self._selection.modalities or ("",)

    def _ask(self, window: Window, modality: str) -> Answer:
        query = StudyQuery(window.study_date(), window.study_time(), modality)
        try:
            return self._search(query)
        except PeerRefusedError:
            if window.first == window.last:
                raise
            # "unable to process" is how some say that there would be too many
            return Answer([], limited=True)

    def _search(self, query: StudyQuery) -> Answer:
        """Ask; where a modality is refused as a key, ask without and never try it again."""
        if not self._modality_is_a_key:
            query = replace(query, modality="")
        try:
            return self._answer(query)
        except PeerRefusedError:
            if not query.modality:
                raise
            answer = self._answer(replace(query, modality=""))
            self._modality_is_a_key = False
            return answer

    def _answer(self, query: StudyQuery) -> Answer:
        answer = self._pacs.studies(query)
        if answer.unreadable:
            self._incomplete("the PACS lists studies in a way that cannot be read")
        return answer

    def _complete(self, window: Window, modality: str) -> dict[str, ListedStudy]:
        """Return all studies of a window."""
        answer = self._ask(window, modality)
        inside = [study for study in answer.studies if window.contains(study)]
        found = {study.study_instance_uid: study for study in inside}
        if not answer.limited and len(found) < self._trusted:
            return found
        halves = window.halves()
        if halves is None or len(inside) < len(answer.studies):  # it narrows no further
            if answer.limited:
                self._incomplete_window(window)
            return found
        parts: dict[str, ListedStudy] = {}
        for half in halves:
            parts |= self._complete(half, modality)
        if not answer.limited and parts.keys() <= found.keys():
            self._trusted = max(self._trusted, len(found))
        return found | parts

    def _incomplete_window(self, window: Window) -> None:
        """Tell it of the first window only: there may be thousands."""
        if not self._window_told:
            self._window_told = True
            when = f"{window.study_date()} {window.study_time()}".rstrip()
            self._incomplete(
                f"the PACS limits its answers and does not list all studies of {when}; more may be "
                "missing"
            )

    def _incomplete(self, reason: str) -> None:
        if reason not in self._told:
            self._told.add(reason)
            self._tell(reason)

    def _undated(self) -> Iterator[ListedStudy]:
        """List the studies without a date, which no range of dates finds."""
        found: dict[str, ListedStudy] = {}
        for modality in self._modalities():
            try:
                answer = self._search(StudyQuery(modality=modality, undated=True))
            except PeerRefusedError as error:
                self._incomplete(f"studies without a date cannot be listed: {error}")
                return
            if answer.limited:
                self._incomplete(
                    "not all studies without a date are listed: name them by --study or --patient"
                )
            found |= {study.study_instance_uid: study for study in answer.studies}
        yield from found.values()


def _newest_first(studies: Iterable[ListedStudy]) -> list[ListedStudy]:
    return sorted(studies, key=lambda study: (study.study_date, study.study_time), reverse=True)
