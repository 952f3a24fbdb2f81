"""``cbmir-node verify``."""

from __future__ import annotations

import click

from cbmir_node.catalog.retention.eviction import count_pixels
from cbmir_node.catalog.retention.tombstones import count_tombstones
from cbmir_node.catalog.statistics import count_objects
from cbmir_node.cli.options import as_json, on_terminal, print_json, settings_options
from cbmir_node.config import Settings
from cbmir_node.stores import open_stores
from cbmir_node.verification import Verification


@click.command(short_help="Check that archive, catalogue, vectors and index agree.")
@click.option("--deep", is_flag=True, help="Read every file and compare its digest.")
@click.option("--repair", is_flag=True, help="Mend what can be mended.")
@as_json
@settings_options
def verify(settings: Settings, deep: bool, repair: bool, as_json: bool) -> None:
    """Check that archive, catalogue, vectors and index agree.

    Exit code 1 and a list where they do not. Beside a running node, files younger than a minute
    are left to it. Pixels that are not kept on purpose, and objects that were deleted or rejected,
    are counted and no disagreement.
    """
    stores = open_stores(settings, create=False)
    try:
        verification = Verification(stores)
        number = count_objects(stores.catalog)["instances"]
        with click.progressbar(
            length=number, label="Verifying", **on_terminal(quiet=as_json)
        ) as bar:
            findings = verification.findings(deep=deep, on_checked=bar.update)
        mended = verification.repair(findings) if repair else []
        left = [finding for finding in findings if finding not in mended]
        pixels, gone = count_pixels(stores.catalog), count_tombstones(stores.catalog)
    finally:
        stores.close()
    if as_json:
        print_json(
            {
                "agree": not left,
                "kept": pixels["kept"],
                "not_kept": pixels["not_kept"],
                "deleted": gone["deleted"],
                "rejected": gone["rejected"],
                "findings": [
                    {"kind": f.kind, "subject": f.subject, "mended": f in mended} for f in findings
                ],
            }
        )
    else:
        for finding in findings:
            state = "mended: " if finding in mended else ""
            click.echo(f"{state}{finding.kind}: {finding.subject} ({finding.remedy})")
        click.echo(
            f"{pixels['kept']} objects with their pixels, {pixels['not_kept']} without; "
            f"{gone['deleted']} deleted, {gone['rejected']} rejected"
        )
        click.echo(f"{len(findings)} disagreements, {len(mended)} mended")
    if left:
        click.get_current_context().exit(1)
