"""``cbmir-node forward``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime

import click

from cbmir_node.catalog.forwarding.overview import (
    FORWARD_STATES,
    ForwardedStudy,
    cancel_forwards,
    forward_destinations,
    forwarded_studies,
    retry_forwards,
    send_study,
)
from cbmir_node.catalog.forwarding.queue import ForwardState
from cbmir_node.cli.options import as_json, print_json, print_table, settings_options
from cbmir_node.config import Settings
from cbmir_node.errors import SelectionError
from cbmir_node.stores import Stores, open_stores

_NOT_SENT: tuple[ForwardState, ...] = ("pending", "refused", "given_up")

_states = click.option(
    "--state",
    "states",
    type=click.Choice(FORWARD_STATES),
    multiple=True,
    default=_NOT_SENT,
    show_default=True,
    help="Only objects in this state; may be repeated.",
)
_destination = click.option("--destination", metavar="AE", help="Only objects for this AE title.")


@click.group(short_help="See and change the queue of objects to be sent on.")
def forward() -> None:
    """See and change the queue of received objects that are sent on to other nodes.

    Which these are is a matter of forwarding.rules. Objects are pending, sent, refused by the
    destination for good, or given_up after forwarding.give_up_days.
    """


@forward.command("list", short_help="Show what waits, and why.")
@_states
@_destination
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Lines.")
@as_json
@settings_options
def list_command(
    settings: Settings,
    states: tuple[ForwardState, ...],
    destination: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Show the queue, oldest first: a line per study, destination, state and reason."""
    with _opened(settings, destination) as stores:
        found = forwarded_studies(stores.catalog, states, destination, limit)
    if as_json:
        print_json([asdict(study) for study in found])
    elif found:
        head = [
            "to",
            "state",
            "objects",
            "since",
            "tries",
            "next try",
            "StudyInstanceUID",
            "reason",
        ]
        print_table(head, [_line(study) for study in found])
    else:
        click.echo("nothing is queued")


@forward.command(short_help="Try again at once.")
@_destination
@click.option("--refused", is_flag=True, help="Also what the destination refused.")
@settings_options
def retry(settings: Settings, destination: str | None, refused: bool) -> None:
    """Let a running node try at once what waits or was given up."""
    with _opened(settings, destination) as stores:
        objects = retry_forwards(stores.catalog, destination, refused=refused)
    click.echo(f"{objects} objects are due now")


@forward.command(short_help="Send a study on, also once more.")
@click.option("--destination", metavar="AE", required=True, help="Where to; one of peers.")
@click.option("--study", metavar="UID", required=True, help="StudyInstanceUID.")
@settings_options
def add(settings: Settings, destination: str, study: str) -> None:
    """Queue all kept objects of a study, whatever the rules say, and though they were sent."""
    with _opened(settings, None) as stores:
        queued = send_study(stores.catalog, _known(stores), destination, study)
    before = f"; {queued.waiting} more were queued before" if queued.waiting else ""
    click.echo(f"{queued.new} objects are to be sent to {destination}{before}")


@forward.command(short_help="Take objects out of the queue.")
@click.option("--destination", metavar="AE", required=True, help="Objects for this AE title.")
@click.option("--study", metavar="UID", help="Only those of this study.")
@_states
@settings_options
def cancel(
    settings: Settings, destination: str, study: str | None, states: tuple[ForwardState, ...]
) -> None:
    """Take objects out of the queue; they stay in the archive."""
    with _opened(settings, destination) as stores:
        objects = cancel_forwards(stores.catalog, destination, states, study)
    click.echo(f"{objects} objects are not sent to {destination} any more")


@contextmanager
def _opened(settings: Settings, destination: str | None) -> Iterator[Stores]:
    stores = open_stores(settings, create=False)
    try:
        if destination is not None:
            _must_be_known(stores, destination)
        yield stores
    finally:
        stores.close()


def _known(stores: Stores) -> list[str]:
    return sorted({*stores.settings.peers, *forward_destinations(stores.catalog)})


def _must_be_known(stores: Stores, destination: str) -> None:
    known = _known(stores)
    if destination not in known:
        raise SelectionError(
            f"--destination: {destination} is neither one of [peers] nor in the queue;"
            f" there are {', '.join(known) or 'none'}"
        )


def _line(study: ForwardedStudy) -> list[object]:
    due = "-" if study.due_at is None else _moment(study.due_at)
    return [
        *(study.destination, study.state, study.objects, _moment(study.requested_at)),
        *(study.attempts, due, study.study_instance_uid, study.reason or "-"),
    ]


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
