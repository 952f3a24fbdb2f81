"""``cbmir-node reindex``."""

from __future__ import annotations

import time

import click

from cbmir_node.catalog.statistics import (
    count_not_kept,
    count_pending,
    count_requested_again,
    count_states,
)
from cbmir_node.catalog.work.requests import request_again
from cbmir_node.cli.options import on_terminal, settings_options
from cbmir_node.config import Settings
from cbmir_node.stores import Stores, open_stores
from cbmir_node.worker import Worker


@click.command(short_help="Embed again what the archive holds.")
@click.option("--failed", is_flag=True, help="Only what failed or had no pixels.")
@click.option("--pending", is_flag=True, help="Only what still waits: finish the queue.")
@click.option("--restart", is_flag=True, help="Begin again instead of resuming.")
@settings_options
def reindex(settings: Settings, failed: bool, pending: bool, restart: bool) -> None:
    """Embed everything in the archive again with the model in use.

    Old vectors answer queries until new ones replace them. Interrupted, the command goes on where
    it stopped when it is given again; beside a running node both share the work. What arrives
    after the start is left to the node. Which images of a long series are embedded is decided
    anew; what is no longer in the archive keeps its vectors.
    """
    if failed and pending:
        raise click.UsageError("--failed and --pending exclude each other")
    stores = open_stores(settings, create=False)
    try:
        model = stores.registry.active()
        if failed:
            request_again(stores.catalog, model.row, ["failed", "no_pixels"])
        elif not pending:
            waiting = 0 if restart else count_requested_again(stores.catalog, model.row)
            if waiting:
                click.echo(f"resuming: {waiting} instances wait (--restart begins again)")
            else:
                request_again(
                    stores.catalog, model.row, ["failed", "no_pixels", "embedded", "skipped"]
                )
        _work(stores)
        counts = count_states(stores.catalog, model.row)
        gone = count_not_kept(stores.catalog, model.row)
    finally:
        stores.close()
    click.echo(", ".join(f"{number} {state}" for state, number in counts.items()))
    if gone:
        click.echo(
            f"{gone} failed because their pixels are not kept here: 'cbmir-node pull SOURCE "
            "--evicted' fetches them again"
        )


def _work(stores: Stores) -> None:
    """Embed until nothing waits that waits now, whoever does it."""
    model = stores.registry.active()
    begin = time.time()
    total = count_pending(stores.catalog, model.row, begin)
    shown = click.progressbar(length=total, label="Embedding", **on_terminal())
    with Worker(stores) as worker, shown as bar:
        while left := count_pending(stores.catalog, model.row, begin):
            if not worker.work_once(model):
                time.sleep(0.5)  # the rest is in the hands of a running node
            bar.update(max(0, total - left - bar.pos))
        bar.update(total - bar.pos)
