"""``cbmir-node model``."""

from __future__ import annotations

from pathlib import Path

import click

from cbmir_node.catalog.statistics import count_states
from cbmir_node.cli.options import as_json, print_json, print_table, settings_options
from cbmir_node.config import Settings
from cbmir_node.embedding.session import EmbeddingModel
from cbmir_node.stores import open_stores


@click.group(short_help="List, install and switch models.")
def model() -> None:
    """List, install and switch models."""


@model.command("list", short_help="List the installed models.")
@as_json
@settings_options
def list_models(settings: Settings, as_json: bool) -> None:
    """List the installed models and which of them is in use."""
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
    finally:
        stores.close()
    if as_json:
        print_json(rows)
    else:
        shown = ("name", "version", "state", "sha256", "embedded", "pending", "failed")
        print_table(
            shown,
            [
                [str(row[column])[:16] if column == "sha256" else row[column] for column in shown]
                for row in rows
            ],
        )


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
    description = network.description
    shown = {
        "name": description.name,
        "version": description.version,
        "state": found.state,
        "sha256": description.sha256,
        "provider": network.provider,
        "vector spaces": ", ".join(f"{n} ({d})" for n, d in description.spaces.items()),
        "code bits": description.code_bits,
        "saliency": description.has_saliency,
        "labels": ", ".join(description.labels),
        "input": description.preprocessing.to_json(),
        "training data": description.training_data,
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
    finally:
        stores.close()
    click.echo(f"installed {found.name}:{found.version} ({found.sha256[:12]})")


@model.command(short_help="Let a model answer queries.")
@click.argument("name")
@settings_options
def use(settings: Settings, name: str) -> None:
    """Let the model NAME answer queries.

    It first embeds everything in the background, while the present model answers; then the node
    switches in one step. NAME may be name:version or the beginning of the file's SHA-256.
    """
    stores = open_stores(settings, create=False)
    try:
        found = stores.registry.find(name)
        state = stores.use(found)
        waiting = count_states(stores.catalog, found.row)["pending"]
    finally:
        stores.close()
    if state == "active":
        click.echo(f"{found.name}:{found.version} answers queries")
    else:
        click.echo(
            f"{found.name}:{found.version} takes over when {waiting} instances are embedded; "
            "a running node does it, 'cbmir-node status' shows how far it is"
        )
