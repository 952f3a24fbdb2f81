"""``cbmir-node doctor``."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import click

from cbmir_node import __version__
from cbmir_node.cli.options import as_json, print_json, settings_options
from cbmir_node.config import Settings
from cbmir_node.embedding.providers import CUDA, available_providers
from cbmir_node.errors import CbmirError, NoCatalogError
from cbmir_node.index import gpu_count
from cbmir_node.presence import is_node_running
from cbmir_node.stores import open_stores

_FAISS_PACKAGES = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs")


class _Check(NamedTuple):
    name: str
    verdict: Literal["ok", "note", "fail"]
    detail: str


@click.command(short_help="Check this installation and this machine.")
@as_json
@settings_options
def doctor(settings: Settings, as_json: bool) -> None:
    """Check packages, providers, GPU, ports, disk and data; exit code 1 if something is wrong."""
    checks = [
        _Check("cbmir-node", "ok", f"{__version__}, Python {platform.python_version()}"),
        _onnxruntime(),
        *_faiss(),
        *_ports(settings),
        _disk(settings),
        _data(settings),
    ]
    failed = any(check.verdict == "fail" for check in checks)
    if as_json:
        print_json({"ok": not failed, "checks": [check._asdict() for check in checks]})
    else:
        for check in checks:
            click.echo(f"{check.verdict:<5} {check.name}: {check.detail}")
    if failed:
        click.get_current_context().exit(1)


def _onnxruntime() -> _Check:
    report = available_providers()
    if report.problem:
        return _Check("ONNX Runtime", "fail", report.problem)
    runs = "GPU (CUDA)" if CUDA in report.loaded else "CPU"
    compiled = (
        " (CUDA is compiled in but does not load)"
        if (CUDA in report.compiled and CUDA not in report.loaded)
        else ""
    )
    return _Check("ONNX Runtime", "ok", f"{report.version}, networks run on the {runs}{compiled}")


def _faiss() -> Iterator[_Check]:
    installed = []
    for name in _FAISS_PACKAGES:
        try:
            installed.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    if len(installed) > 1:
        yield _Check(
            "FAISS",
            "fail",
            f"{', '.join(installed)} overwrite each other's files: uninstall them all, then "
            "install one extra, 'cbmir-node[cpu]' or 'cbmir-node[gpu]'",
        )
        return
    try:
        gpus = gpu_count()
    except CbmirError as error:
        yield _Check("FAISS", "fail", str(error))
        return
    where = f"{gpus} GPU" if gpus else "the CPU"
    yield _Check("FAISS", "ok", f"{', '.join(installed)}, searches on {where}")


def _ports(settings: Settings) -> Iterator[_Check]:
    running = is_node_running(settings.data_dir)
    for name, host, port in (
        ("DICOM port", settings.dicom.host, settings.dicom.port),
        ("HTTP port", settings.http.host, settings.http.port),
    ):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if running:
                    yield _Check(name, "ok", f"{host}:{port} is in use; a node runs here")
                else:
                    yield _Check(
                        name, "fail", f"{host}:{port}: {error.strerror}; choose another port"
                    )
            else:
                yield _Check(name, "ok", f"{host}:{port} is free")


def _disk(settings: Settings) -> _Check:
    folder = settings.archive_path
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free >> 20
    reserve = settings.archive.reserve_mib
    if free < reserve:
        return _Check(
            "disk",
            "fail",
            f"{free} MiB free, below archive.reserve_mib = {reserve}: nothing would be stored",
        )
    return _Check("disk", "ok", f"{free} MiB free in {folder}, reserve {reserve} MiB")


def _data(settings: Settings) -> _Check:
    folder: Path = settings.data_dir
    if not folder.exists():
        return _Check("data", "note", f"{folder} does not exist yet; 'serve' creates it")
    try:
        stores = open_stores(settings, create=False)
    except NoCatalogError:
        return _Check("data", "note", f"{folder} holds no catalogue yet; 'serve' creates it")
    except CbmirError as error:
        return _Check("data", "fail", str(error))
    try:
        if not stores.registry.in_use():
            return _Check(
                "data", "note", "no model is in use yet; 'serve' installs the shipped one"
            )
        model = stores.registry.active()
    except CbmirError as error:
        return _Check("data", "fail", str(error))
    finally:
        stores.close()
    return _Check("data", "ok", f"{folder}, model {model.name}:{model.version}")
