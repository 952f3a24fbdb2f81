"""What ``cbmir-node pull`` tells while it runs and at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable

import click

from cbmir_node.backfill.pacs import ListedStudy
from cbmir_node.backfill.pull import Progress, Pull
from cbmir_node.cli.options import print_json

_SHOWN_EVERY_S = 0.2


def preview(run: Pull, studies: Iterable[ListedStudy], *, as_json: bool) -> None:
    """Show what would be fetched."""
    shown = []
    for study, plan in run.preview(studies):
        if as_json:
            shown.append(
                {
                    "study": study.study_instance_uid,
                    "study_date": study.study_date,
                    "modalities": study.modalities,
                    "images": plan.images,
                }
            )
            continue
        what = _number_of_images(plan.images) if plan.images else "not counted"
        parts = (study.study_date or "no date ", "/".join(study.modalities))
        click.echo("  ".join(filter(None, (*parts, study.study_instance_uid, what))))
    progress = run.progress
    if as_json:
        counts = {"seen": progress.seen, "present": progress.present}
        print_json({**counts, "fetch": shown, **_not_done(progress)})
    else:
        _show_not_done(progress)


def summarize(progress: Progress, *, as_json: bool) -> None:
    """Show how a pull ended."""
    if as_json:
        counts = {
            name: getattr(progress, name) for name in ("seen", "fetched", "present", "images")
        }
        print_json({**counts, **_not_done(progress)})
    else:
        click.echo(_counts(progress))
        _show_not_done(progress)


def _not_done(progress: Progress) -> dict[str, object]:
    failures = [{"study": uid, "reason": reason} for uid, reason in progress.failures.items()]
    return {"failures": failures, "incomplete": progress.incomplete}


def _show_not_done(progress: Progress) -> None:
    for uid, reason in progress.failures.items():
        click.echo(f"failed {uid}: {reason}", err=True)
    for reason in progress.incomplete:
        click.echo(f"incomplete: {reason}", err=True)


def _counts(progress: Progress) -> str:
    failed = f", {len(progress.failures)} failed" if progress.failures else ""
    incomplete = "; there are more that were not looked at" if progress.incomplete else ""
    return (
        f"studies: {progress.seen} seen, {progress.fetched} fetched "
        f"({_number_of_images(progress.images)}), {progress.present} were here{failed}{incomplete}"
    )


def _number_of_images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


class StatusLine:
    """One line on a terminal that tells how far the pull is.

    Parameters
    ----------
    quiet : bool
        Tell nothing.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._on_terminal = sys.stderr.isatty() and not quiet
        self._shown_at = 0.0

    def show(self, progress: Progress) -> None:
        """Show the progress, a few times a second."""
        now = time.monotonic()
        if not self._on_terminal or now - self._shown_at < _SHOWN_EVERY_S:
            return
        self._shown_at = now
        click.echo(f"\r{progress.study_date}  {_counts(progress)}\x1b[K", err=True, nl=False)

    def tell(self, text: str) -> None:
        """Say something that stays."""
        if not self._quiet:
            self.clear()
            click.echo(text, err=True)

    def clear(self) -> None:
        """Make room for other output."""
        if self._on_terminal:
            click.echo("\r\x1b[K", err=True, nl=False)
