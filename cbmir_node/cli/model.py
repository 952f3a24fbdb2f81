"""``cbmir-node model``."""

from __future__ import annotations

from pathlib import Path

import click

from cbmir_node.catalog.models import InstalledModel
from cbmir_node.catalog.statistics import count_not_kept, count_objects, count_states
from cbmir_node.cli.options import as_json, print_json, print_table, settings_options
from cbmir_node.config import SearchSettings, Settings
from cbmir_node.embedding.check import ModelCheck, check_model
from cbmir_node.embedding.contract import Breach, ModelDescription
from cbmir_node.embedding.session import EmbeddingModel
from cbmir_node.errors import ModelError, QueryError
from cbmir_node.presence import is_node_running
from cbmir_node.search.choices import choose
from cbmir_node.search.query import SimilarityQuery
from cbmir_node.stores import Stores, open_stores

_ROLES = {
    "active": "answers queries",
    "next": "takes over when it has caught up",
    "installed": "not in use",
}


@click.group(short_help="Check, list, install and switch models.")
def model() -> None:
    """Check, list, install and switch models."""


@model.command("list", short_help="List the installed models.")
@as_json
@settings_options
def list_models(settings: Settings, as_json: bool) -> None:
    """List the installed models, what each is for now and how far it is.

    The counts are instances: embedded ones can be found, pending ones wait, those without pixels or
    failed never get a vector, those skipped leave it to others of a long series. None of these keep
    a model from taking over but the failed ones whose pixels are not kept here.
    """
    stores = open_stores(settings, create=False)
    try:
        rows = [
            {
                "name": found.name,
                "version": found.version,
                "state": found.state,
                "sha256": found.sha256,
                **count_states(stores.catalog, found.row),
            }
            for found in stores.registry.all()
        ]
        received = count_objects(stores.catalog)["instances"]
    finally:
        stores.close()
    if as_json:
        print_json(rows)
        return
    counts = ("embedded", "pending", "no_pixels", "failed", "skipped")
    print_table(
        ["model", "sha256", *(name.replace("_", " ") for name in counts), "state"],
        [
            [
                f"{row['name']}:{row['version']}",
                str(row["sha256"])[:12],
                *(row[name] for name in counts),
                f"{row['state']}: {_ROLES[str(row['state'])]}",
            ]
            for row in rows
        ],
    )
    click.echo(f"of {received} instances received")


@model.command(short_help="Check an ONNX file before it is installed.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@as_json
def check(file: Path, as_json: bool) -> None:
    """Tell whether the ONNX FILE can be installed, what it can do, and how to mend what is wrong.

    It is run on synthetic pictures; neither a node nor a data folder is needed. Errors keep it from
    being installed, warnings do not.
    """
    found = check_model(file)
    if as_json:
        print_json(_as_tree(found))
    else:
        _print_check(found)
    if found.errors:
        raise ModelError(f"{file} cannot be installed: {_number(len(found.errors), 'error')}")


def _as_tree(found: ModelCheck) -> dict[str, object]:
    def listed(breaches: tuple[Breach, ...]) -> list[dict[str, str]]:
        return [{"problem": breach.problem, "mend": breach.remedy} for breach in breaches]

    return {
        "installable": not found.errors,
        "errors": listed(found.errors),
        "warnings": listed(found.warnings),
        "model": None if found.description is None else _described(found.description),
        "measured": found.facts,
        "retrieval": found.retrieval,
    }


def _print_check(found: ModelCheck) -> None:
    for kind, breaches in (("error", found.errors), ("warning", found.warnings)):
        for breach in breaches:
            click.echo(f"{kind}: {breach}")
    if found.description is not None:
        _print_pairs("What it says of itself", _described(found.description))
    if found.facts:
        _print_pairs("What it does on synthetic pictures", found.facts)
    if found.retrieval:
        _print_pairs("What it can be asked by", found.retrieval)
        warned = f", with {_number(len(found.warnings), 'warning')}" if found.warnings else ""
        click.echo(f"\nit can be installed{warned}: cbmir-node model install FILE")


def _print_pairs(title: str, pairs: dict[str, object] | dict[str, str]) -> None:
    click.echo(f"\n{title}")
    for key, value in pairs.items():
        click.echo(f"  {key:<20} {value}")


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _described(description: ModelDescription) -> dict[str, object]:
    """Return what a file says of itself, for a person."""
    return {
        "name": description.name,
        "version": description.version,
        "sha256": description.sha256,
        "vector spaces": ", ".join(f"{n} ({d})" for n, d in description.spaces.items()),
        "code bits": description.code_bits,
        "saliency": description.has_saliency,
        "labels": ", ".join(description.labels),
        "input": description.preprocessing.to_json(),
        "training data": description.training_data,
    }


@model.command(short_help="Show what a model is.")
@click.argument("name", required=False)
@as_json
@settings_options
def info(settings: Settings, name: str | None, as_json: bool) -> None:
    """Show what the model NAME is (default: the one in use) and what runs it here."""
    stores = open_stores(settings, create=False)
    try:
        found = stores.registry.find(name) if name else stores.registry.active()
        network = EmbeddingModel.load(stores.models.path(found.sha256), settings.embedding)
    finally:
        stores.close()
    shown = {
        **_described(network.description),
        "state": found.state,
        "provider": network.provider,
    }
    if as_json:
        print_json(shown)
    else:
        for key, value in shown.items():
            click.echo(f"{key:<14} {value}")


@model.command(short_help="Install an ONNX file.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@settings_options
def install(settings: Settings, file: Path) -> None:
    """Check the ONNX FILE against the contract and install it; 'model use' puts it to work."""
    stores = open_stores(settings, create=True)
    try:
        found = stores.install(file)
        twins = [m for m in stores.registry.all() if _title(m) == _title(found) and m != found]
    finally:
        stores.close()
    click.echo(f"installed {_title(found)} ({found.sha256[:12]})")
    if twins:
        click.echo(
            f"another file is installed as {_title(found)} too ({twins[0].sha256[:12]}): answers "
            "do not tell which of them was asked; better give one a version of its own",
            err=True,
        )
    if found.state == "installed":
        name = found.sha256[:12] if twins else _title(found)
        click.echo(f"it is not in use yet: cbmir-node model use {name}")


@model.command(short_help="Let a model answer queries.")
@click.argument("name")
@settings_options
def use(settings: Settings, name: str) -> None:
    """Let the model NAME answer queries.

    It first embeds everything in the background, while the present model answers; then the node
    switches in one step. What has no picture or fails does not hold that up, a model that fails on
    everything never takes over. Naming the present model calls a switch off. NAME may be
    name:version or the beginning of the file's SHA-256.
    """
    stores = open_stores(settings, create=False)
    try:
        found = stores.registry.find(name)
        _must_answer(found, settings.search)
        state = stores.use(found)
        click.echo(_outlook(stores, found, active=state == "active"))
    finally:
        stores.close()


def _must_answer(found: InstalledModel, search: SearchSettings) -> None:
    """Refuse a model that lacks what queries are configured to compare."""
    try:
        choose(SimilarityQuery([]), search, found)
    except QueryError as error:
        raise ModelError(
            f"as [search] is configured, {_title(found)} would answer no query: {error}. Change "
            "[search] first, or use another model"
        ) from error


def _outlook(stores: Stores, found: InstalledModel, *, active: bool) -> str:
    """Say when a model takes over."""
    if active:
        return f"{_title(found)} answers queries"
    waiting = count_states(stores.catalog, found.row)["pending"]
    when = f"when {_number(waiting, 'instance')} are embedded" if waiting else "in a moment"
    if gone := count_not_kept(stores.catalog, found.row):
        when = (
            f"when {_number(gone, 'instance')} whose pixels are not kept here have come again "
            "('cbmir-node pull SOURCE --evicted', or their sender) and all are embedded"
        )
    if not is_node_running(stores.settings.data_dir):
        return (
            f"{_title(found)} takes over {when}, by a running node: no node runs on "
            f"{stores.settings.data_dir} now, start it with 'cbmir-node serve'"
        )
    return f"{_title(found)} takes over {when}; 'cbmir-node status' shows how far it is"


def _title(found: InstalledModel) -> str:
    return f"{found.name}:{found.version}"
