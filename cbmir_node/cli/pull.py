"""``cbmir-node pull``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import date, datetime
from typing import Literal
from urllib.parse import urlsplit

import click

from cbmir_node.backfill.dimse import DimsePacs
from cbmir_node.backfill.exclusive import only_pull
from cbmir_node.backfill.pace import Hours, Pace
from cbmir_node.backfill.pacs import ListedStudy, OtherPacs
from cbmir_node.backfill.patience import PatientPacs
from cbmir_node.backfill.plans import MissingImages, MissingPixels, Planner
from cbmir_node.backfill.pull import Pull
from cbmir_node.backfill.walk import Selection, StudyWalk
from cbmir_node.catalog.pulls import studies_without_pixels
from cbmir_node.cli.addresses import peer_named
from cbmir_node.cli.options import as_json, settings_options
from cbmir_node.cli.pull_folder import filled, looked_into
from cbmir_node.cli.pull_report import StatusLine, preview, summarize
from cbmir_node.cli.ranges import dates
from cbmir_node.config import Settings
from cbmir_node.errors import ConfigurationError, MissingPackageError
from cbmir_node.intake import Intake
from cbmir_node.presence import is_node_running

_INTERRUPTED = 130
_UID = re.compile(r"[0-9.]{1,64}")


def _hours(_context: click.Context, _parameter: click.Parameter, text: str | None) -> Hours | None:
    if text is None:
        return None
    try:
        begin, end = (datetime.strptime(part.strip(), "%H:%M").time() for part in text.split("-"))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a time of day such as 19:00-06:00") from None
    if begin == end:
        raise click.BadParameter(f"{text!r} begins when it ends")
    return Hours(begin, end)


def _uids(
    _context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]
) -> tuple[str, ...]:
    for text in texts:
        if not _UID.fullmatch(text):
            raise click.BadParameter(f"{text!r} is no UID: digits and dots, 64 at most")
    return texts


def _listed(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[str, ...]:
    return tuple(part.strip().upper() for part in text.split(",") if part.strip())


@click.command(short_help="Fill the node from an existing PACS.")
@click.argument("source", metavar="AE@HOST:PORT|URL")
@click.option(
    "--study-date", metavar="FROM-TO", callback=dates, help="Dates YYYYMMDD, either end open."
)
@click.option(
    "--modality",
    "modalities",
    metavar="LIST",
    default="",
    callback=_listed,
    help="Studies that contain one of these, as in CT,MR; they are fetched whole.",
)
@click.option("--patient", metavar="ID", default="", help="Studies of this patient.")
@click.option(
    "--study",
    "studies",
    metavar="UID",
    multiple=True,
    callback=_uids,
    help="This study; repeatable.",
)
@click.option(
    "--undated",
    is_flag=True,
    help="Also studies without a date; the PACS has to list all its studies for that.",
)
@click.option(
    "--by",
    type=click.Choice(["get", "move"]),
    default="get",
    show_default=True,
    help="C-GET, or C-MOVE to the AE title of the running node.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Images per minute, on average.  [default: as fast as they come]",
)
@click.option(
    "--between",
    "hours",
    metavar="HH:MM-HH:MM",
    callback=_hours,
    help="Time of day to fetch in; outside it the command waits.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be fetched; create nothing.")
@click.option(
    "--evicted",
    is_flag=True,
    help="Instead: images that still have to be embedded and whose pixels are not kept.",
)
@click.option(
    "--again",
    is_flag=True,
    help="Compare studies that were fetched before, too, and fetch what was deleted or lost here.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=300,
    show_default=True,
    help="Longest wait for the next answer or image, seconds.",
)
@as_json
@settings_options
def pull(
    settings: Settings,
    source: str,
    study_date: str | None,
    modalities: tuple[str, ...],
    patient: str,
    studies: tuple[str, ...],
    undated: bool,
    by: Literal["get", "move"],
    rate: float | None,
    hours: Hours | None,
    dry_run: bool,
    evicted: bool,
    again: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Fetch what AE@HOST:PORT, a configured peer or a DICOMweb URL has and the node has not.

    Goes through the PACS study by study, the newest first, and skips what the node has and what
    was deleted here. Interrupted, it goes on where it stopped when it is given again. Works beside
    a running node and, by C-GET or DICOMweb, without one. For DICOMweb, DICOMWEB_TOKEN, or
    DICOMWEB_USER and DICOMWEB_PASSWORD, may be set in the environment. Exit code 1 when a study
    failed, or the PACS did not list all.
    """
    selection = Selection(study_date or "", modalities, patient, studies, undated)
    _check(selection, evicted=evicted, again=again)
    status = StatusLine(quiet=as_json)
    with ExitStack() as exits:
        stores, intake = exits.enter_context(looked_into(settings) if dry_run else filled(settings))
        pace = Pace(rate, hours, tell=status.tell)
        pacs = PatientPacs(_pacs(source, settings, intake, by, timeout), pace)
        if not dry_run and not studies:  # single studies are a small matter
            exits.enter_context(only_pull(settings.data_dir, pacs.name))
        if evicted:
            planner: Planner = MissingPixels(stores.catalog)
        else:
            planner = MissingImages(
                pacs, stores.catalog, again=again, keeps_files=not _evicts(settings)
            )
        run = Pull(
            pacs,
            planner,
            stores.archive,
            pace,
            waits_for_room=_makes_room(settings),
            show=status.show,
        )
        todo: Iterable[ListedStudy]
        if evicted:
            todo = map(ListedStudy, studies_without_pixels(stores.catalog))
        else:
            todo = StudyWalk(pacs, selection, date.today(), run.progress.incomplete.append)
        if dry_run:
            preview(run, todo, as_json=as_json)
        else:
            _carry_out(run, todo, status, as_json=as_json)
        if run.progress.failures or run.progress.incomplete:
            click.get_current_context().exit(1)


def _carry_out(
    run: Pull, studies: Iterable[ListedStudy], status: StatusLine, *, as_json: bool
) -> None:
    try:
        run.run(studies)
    except KeyboardInterrupt:
        status.tell("interrupted; the same command goes on where it stopped")
        click.get_current_context().exit(_INTERRUPTED)
    finally:
        status.clear()
        summarize(run.progress, as_json=as_json)


def _makes_room(settings: Settings) -> bool:
    """Tell whether a running node takes pixels away, so that a full disk does not stay full."""
    return _evicts(settings) and is_node_running(settings.data_dir)


def _evicts(settings: Settings) -> bool:
    return settings.retention.retain != "all" or settings.retention.quota_gib > 0


def _check(selection: Selection, *, evicted: bool, again: bool) -> None:
    """Refuse options that say nothing together."""
    conditions = (
        selection.study_date or selection.modalities or selection.patient_id or selection.undated
    )
    if selection.studies and conditions:
        raise click.UsageError("--study names the studies; leave the other conditions out")
    if evicted and (selection.studies or conditions or again):
        raise click.UsageError("--evicted chooses the images itself; leave the conditions out")
    if selection.undated and selection.patient_id:
        raise click.UsageError(
            "--patient without --study-date finds studies without a date, too; leave --undated out"
        )


def _pacs(
    source: str, settings: Settings, intake: Intake, by: Literal["get", "move"], timeout: float
) -> OtherPacs:
    if re.match("https?://", source):
        if by == "move":
            raise click.UsageError("--by move is for AE@HOST:PORT")
        return _dicomweb_pacs(source, intake, timeout)
    peer = peer_named(source, settings)
    if by == "move" and not is_node_running(settings.data_dir):
        raise ConfigurationError(
            f"--by move lets the PACS send to the node, and none runs on {settings.data_dir}: "
            "start it with 'cbmir-node serve', or use --by get"
        )
    return DimsePacs(peer, intake, by=by, ae_title=settings.dicom.ae_title, timeout=timeout)


def _dicomweb_pacs(url: str, intake: Intake, timeout: float) -> OtherPacs:
    if urlsplit(url).username is not None:
        raise click.BadParameter(
            "a password in the URL is seen by everybody here: set DICOMWEB_USER and "
            "DICOMWEB_PASSWORD in the environment"
        )
    try:
        from cbmir_node.backfill.dicomweb import DicomWebPacs  # noqa: PLC0415  (optional package)
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"DICOMweb needs the package {error.name}: pip install 'cbmir-node[dicomweb]'"
        ) from error
    return DicomWebPacs(url, intake, timeout=timeout, environment=os.environ)
