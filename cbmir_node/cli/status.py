"""``cbmir-node status``."""

from __future__ import annotations

import click

from cbmir_node.catalog.forwarding.overview import count_forwards
from cbmir_node.catalog.models import InstalledModel
from cbmir_node.catalog.retention.eviction import count_pixels
from cbmir_node.catalog.retention.tombstones import count_tombstones
from cbmir_node.catalog.statistics import count_objects, count_states, failures
from cbmir_node.cli.options import as_json, print_json, print_table, settings_options
from cbmir_node.config import Settings
from cbmir_node.presence import is_node_running
from cbmir_node.stores import Stores, open_stores


@click.command(short_help="Show what the node has received and embedded.")
@click.option("--failures", "show_failures", is_flag=True, help="List what has no vector, and why.")
@as_json
@settings_options
def status(settings: Settings, show_failures: bool, as_json: bool) -> None:
    """Show what was received, embedded, failed; from a running or a stopped node.

    The counts of embedded, pending, no_pixels and failed instances are those of the model in use.
    While another one is about to take over, its own are shown beside its name. Objects are kept
    with their pixels, or not kept: then tags and vectors alone are here. Deleted and rejected ones
    are known by their UIDs only.
    """
    stores = open_stores(settings, create=False)
    try:
        model = stores.registry.active()
        objects = count_objects(stores.catalog)
        waiting = next((m for m in stores.registry.all() if m.state == "next"), None)
        shown = {
            "running": is_node_running(settings.data_dir),
            "model": _title(model),
            "next_model": _title(waiting) if waiting else None,
            "next_states": count_states(stores.catalog, waiting.row) if waiting else None,
            "patients": objects["patients"],
            "studies": objects["studies"],
            "series": objects["series"],
            "received": objects["instances"],
            **count_states(stores.catalog, model.row),
            **_retained(stores),
            **_forwarded(stores),
            "free_mib": stores.archive.free_bytes() >> 20,
        }
        reasons = [
            (uid, _title(asked), state, reason)
            for asked in (model, waiting)
            if show_failures and asked
            for uid, state, reason in failures(stores.catalog, asked.row, 1000)
        ]
    finally:
        stores.close()
    if as_json:
        keys = ("sop_instance_uid", "model", "state", "reason")
        listed = [dict(zip(keys, row, strict=True)) for row in reasons]
        print_json({**shown, **({"failures": listed} if show_failures else {})})
        return
    states = shown.pop("next_states")
    if isinstance(states, dict):
        counts = ", ".join(f"{number} {name}" for name, number in states.items())
        shown["next_model"] = f"{shown['next_model']} ({counts})"
    for name, value in shown.items():
        click.echo(f"{name:<13} {'-' if value is None else value}")
    if reasons:
        click.echo()
        print_table(["SOPInstanceUID", "model", "state", "reason"], reasons)


def _forwarded(stores: Stores) -> dict[str, int]:
    """Return how many objects wait to be sent on, and how many never will be."""
    counts = count_forwards(stores.catalog)
    return {
        "to_send_on": counts["pending"],
        "not_sent_on": counts["refused"] + counts["given_up"],
    }


def _retained(stores: Stores) -> dict[str, int]:
    """Return how many objects have their pixels here, and what was removed on purpose."""
    pixels, gone = count_pixels(stores.catalog), count_tombstones(stores.catalog)
    return {
        "kept": pixels["kept"],
        "kept_mib": pixels["kept_bytes"] >> 20,
        "not_kept": pixels["not_kept"],
        "not_kept_mib": pixels["not_kept_bytes"] >> 20,
        **gone,
    }


def _title(model: InstalledModel) -> str:
    return f"{model.name}:{model.version}"
