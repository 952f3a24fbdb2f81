"""``cbmir-node serve``."""

from __future__ import annotations

import resource
import signal
import threading
from pathlib import Path

import click

from cbmir_node.cli.options import location_options
from cbmir_node.config import load_settings
from cbmir_node.logs import configure_logging
from cbmir_node.node import Node

_MOST_FILES = 65536


@click.command(short_help="Run the node.")
@location_options
@click.option("--dicom-port", type=click.IntRange(0, 65535), help="DICOM port; 0 takes a free one.")
@click.option("--http-port", type=click.IntRange(0, 65535), help="HTTP port; 0 takes a free one.")
@click.option("--ports-file", type=click.Path(path_type=Path), help="Write the ports here as JSON.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Least severe messages shown.",
)
def serve(
    data_dir: Path | None,
    config_file: Path | None,
    dicom_port: int | None,
    http_port: int | None,
    ports_file: Path | None,
    log_level: str | None,
) -> None:
    """Run the node until it is told to stop (Ctrl-C or SIGTERM)."""
    settings = load_settings(
        config_file,
        {
            "data_dir": data_dir,
            "dicom.port": dicom_port,
            "http.port": http_port,
            "log_level": log_level,
        },
    )
    configure_logging(settings.log_level, "node")
    _allow_many_files()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with Node(settings) as node:
        scheme = "https" if settings.http.certificate else "http"
        ports = {"dicom": node.dicom.port, "http": node.http.port}
        click.echo(
            f"cbmir-node ready: DICOM {settings.dicom.ae_title} and "
            f"{settings.dicom.similarity_ae_title} at {settings.dicom.host}:{ports['dicom']}, "
            f"HTTP at {scheme}://{settings.http.host}:{ports['http']}, data in {settings.data_dir}"
        )
        if ports_file is not None:
            partial = ports_file.with_suffix(".part")
            partial.write_text(f'{{"dicom": {ports["dicom"]}, "http": {ports["http"]}}}\n')
            partial.rename(ports_file)
        stop.wait()
        click.echo("stopping")


def _allow_many_files() -> None:
    """Raise the limit of open files: each connection is one, and many systems start with 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
