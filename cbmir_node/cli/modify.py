"""``cbmir-node modify``."""

from __future__ import annotations

import click

from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.retention.selection import SelectedStudy, studies_of_patient, study_named
from cbmir_node.cli.options import on_terminal, print_table, settings_options
from cbmir_node.config import Settings
from cbmir_node.retention.modification import (
    PlannedChange,
    checked_value,
    modify_study,
    plan_changes,
)
from cbmir_node.stores import Stores, open_stores


@click.command(short_help="Correct patient and study attributes: merge, re-identification.")
@click.option("--study", metavar="UID", help="The study with this Study Instance UID.")
@click.option("--patient", metavar="ID", help="All studies of the patient with this Patient ID.")
@click.option("--issuer", help="With --patient: Issuer of Patient ID; '' for none.")
@click.option(
    "--set",
    "assignments",
    metavar="KEYWORD=VALUE",
    multiple=True,
    required=True,
    help="New value of an attribute, for example PatientID=4711; may be repeated.",
)
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@settings_options
def modify(
    settings: Settings,
    study: str | None,
    patient: str | None,
    issuer: str | None,
    assignments: tuple[str, ...],
    dry_run: bool,
    yes: bool,
) -> None:
    """Correct who studies belong to and how they are described, in files and catalogue.

    With a PatientID that another patient has, the studies are merged into that patient and take its
    name, birth date and sex. UIDs, pixels and vectors stay. Each study changes at once; an
    interrupted command is given again for the rest. Works beside a running node.
    """
    if (study is None) == (patient is None):
        raise click.UsageError("name one of --study, --patient")
    if issuer is not None and patient is None:
        raise click.UsageError("--issuer goes with --patient")
    values = dict(_assignment(text) for text in assignments)
    stores = open_stores(settings, create=False)
    try:
        studies = _chosen(stores.catalog, study, patient, issuer)
        planned = plan_changes(stores.catalog, studies, values, whole_patient=patient is not None)
        _show(planned)
        if dry_run:
            return
        if not yes and not click.confirm("Change them?"):
            raise click.Abort()
        _carry_out(stores, planned)
    finally:
        stores.close()
    click.echo(f"changed {len(planned)} studies")


def _carry_out(stores: Stores, planned: list[PlannedChange]) -> None:
    instances = sum(one.study.instances for one in planned)
    with click.progressbar(length=instances, label="Changing", **on_terminal()) as bar:
        for one in planned:
            modify_study(stores.catalog, stores.archive, one, bar.update)


def _assignment(text: str) -> tuple[str, str]:
    keyword, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"--set {text!r} is not of the form KEYWORD=VALUE")
    return keyword, checked_value(keyword, value)


def _chosen(
    catalog: Catalog, study: str | None, patient: str | None, issuer: str | None
) -> list[SelectedStudy]:
    if study is not None:
        return [study_named(catalog, study)]
    assert patient is not None  # noqa: S101  one of the two is given
    return studies_of_patient(catalog, patient, issuer)


def _show(planned: list[PlannedChange]) -> None:
    print_table(
        ["StudyInstanceUID", "instances", "becomes"],
        [
            (
                one.study.study_instance_uid,
                one.study.instances,
                ", ".join(f"{keyword}={text}" for keyword, text in one.file_values.items()),
            )
            for one in planned
        ],
    )
    if any(one.merged for one in planned):
        click.echo("a patient with this Patient ID is here: the studies are merged into it")
