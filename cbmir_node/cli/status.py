"""``cbmir-node status``."""

from __future__ import annotations

import click

from cbmir_node.catalog.statistics import count_objects, count_states, failures
from cbmir_node.cli.options import as_json, print_json, print_table, settings_options
from cbmir_node.config import Settings
from cbmir_node.node import is_node_running
from cbmir_node.stores import open_stores


@click.command(short_help="Show what the node has received and embedded.")
@click.option("--failures", "show_failures", is_flag=True, help="List what has no vector, and why.")
@as_json
@settings_options
def status(settings: Settings, show_failures: bool, as_json: bool) -> None:
    """Show what was received, embedded, failed; from a running or a stopped node."""
    stores = open_stores(settings, create=False)
    try:
        model = stores.registry.active()
        objects = count_objects(stores.catalog)
        states = count_states(stores.catalog, model.row)
        waiting = next((m for m in stores.registry.all() if m.state == "next"), None)
        reasons = failures(stores.catalog, model.row, 1000) if show_failures else []
        shown = {
            "running": is_node_running(settings.data_dir),
            "model": f"{model.name}:{model.version}",
            "next_model": f"{waiting.name}:{waiting.version}" if waiting else None,
            "patients": objects["patients"],
            "studies": objects["studies"],
            "series": objects["series"],
            "received": objects["instances"],
            **states,
            "free_mib": stores.archive.free_bytes() >> 20,
        }
    finally:
        stores.close()
    if as_json:
        listed = [{"sop_instance_uid": u, "state": s, "reason": r} for u, s, r in reasons]
        print_json({**shown, **({"failures": listed} if show_failures else {})})
        return
    for name, value in shown.items():
        click.echo(f"{name:<12} {'-' if value is None else value}")
    if reasons:
        click.echo()
        print_table(["SOPInstanceUID", "state", "reason"], reasons)
