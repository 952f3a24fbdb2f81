"""``cbmir-node delete``."""

from __future__ import annotations

import dataclasses
import sys
from datetime import date

import click

from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.retention.selection import (
    SelectedStudy,
    studies_before,
    studies_of_patient,
    study_named,
)
from cbmir_node.cli.options import as_json, on_terminal, print_json, print_table, settings_options
from cbmir_node.config import Settings
from cbmir_node.retention.deletion import Extent, delete_studies, extent
from cbmir_node.stores import open_stores

_STUDIES_SHOWN = 20


def _date(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str | None:
    if text is None:
        return None
    try:
        return f"{date.fromisoformat(text):%Y%m%d}"
    except ValueError:
        raise click.BadParameter(f"{text!r} is no date; write YYYYMMDD") from None


@click.command(short_help="Delete studies: objects, tags and vectors.")
@click.option("--study", metavar="UID", help="The study with this Study Instance UID.")
@click.option("--patient", metavar="ID", help="All studies of the patient with this Patient ID.")
@click.option("--issuer", help="With --patient: Issuer of Patient ID; '' for none.")
@click.option(
    "--before",
    metavar="YYYYMMDD",
    callback=_date,
    help="Studies with an older Study Date. Those without a date stay.",
)
@click.option("--dry-run", is_flag=True, help="Only show what would go.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
@settings_options
def delete(
    settings: Settings,
    study: str | None,
    patient: str | None,
    issuer: str | None,
    before: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete studies: their objects, tags and vectors.

    Works beside a running node and disturbs neither receivers nor queries. What arrives for a study
    after the command was given stays, and what somebody sends again is stored again. Interrupted,
    a running node finishes it, or the next start, or 'verify --repair'.
    """
    if [study, patient, before].count(None) != 2:
        raise click.UsageError("name one of --study, --patient, --before")
    if issuer is not None and patient is None:
        raise click.UsageError("--issuer goes with --patient")
    if as_json and not (yes or dry_run):
        raise click.UsageError("--json needs --yes or --dry-run: there is nobody to ask")
    stores = open_stores(settings, create=False)
    try:
        catalog = stores.catalog
        studies, undated = _chosen(catalog, study, patient, issuer, before)
        amount = extent(catalog, studies)
        if not as_json:
            _show(studies, amount, undated)
        if not (yes or dry_run or not studies or _agrees()):
            raise click.Abort()
        deleted = 0
        if studies and not dry_run:
            with click.progressbar(
                length=amount.instances, label="Deleting", **on_terminal(quiet=as_json)
            ) as bar:
                deleted = delete_studies(catalog, stores.archive, studies, bar.update)
    finally:
        stores.close()
    if as_json:
        uids = [chosen.study_instance_uid for chosen in studies]
        selected = {**dataclasses.asdict(amount), "study_instance_uids": uids}
        print_json({"selected": selected, "without_date": undated, "deleted_instances": deleted})
    elif studies and not dry_run:
        click.echo(f"deleted {deleted} instances")


def _agrees() -> bool:
    try:
        return click.confirm("Delete them for good?")
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise click.UsageError("there is nobody to ask: give --yes") from None


def _chosen(
    catalog: Catalog,
    study: str | None,
    patient: str | None,
    issuer: str | None,
    before: str | None,
) -> tuple[list[SelectedStudy], int]:
    """Return the studies, and how many could not be chosen for want of a date."""
    if study is not None:
        return [study_named(catalog, study)], 0
    if patient is not None:
        return studies_of_patient(catalog, patient, issuer), 0
    assert before is not None  # noqa: S101  one of the three is given
    return studies_before(catalog, before)


def _show(studies: list[SelectedStudy], amount: Extent, undated: int) -> None:
    shown = studies[:_STUDIES_SHOWN]
    if shown:
        print_table(
            ["StudyInstanceUID", "StudyDate", "PatientID", "instances"],
            [(s.study_instance_uid, s.study_date, s.patient_id, s.instances) for s in shown],
        )
    if len(studies) > len(shown):
        click.echo(f"… and {len(studies) - len(shown)} more")
    click.echo(
        f"{amount.patients} patients, {amount.studies} studies, {amount.series} series, "
        f"{amount.instances} instances, {amount.kept_bytes} bytes of files"
    )
    if amount.not_sent_on:
        click.echo(
            f"{amount.not_sent_on} of them were not sent on yet ('cbmir-node forward list'), and "
            "will not be"
        )
    if undated:
        click.echo(f"{undated} studies have no Study Date to tell by; they stay")
