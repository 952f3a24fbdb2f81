"""Warnings and errors of the node and of its worker, kept for an administrator."""

from __future__ import annotations

import json
import logging
import multiprocessing
import struct
import sys
import time
from dataclasses import asdict
from pathlib import Path

from cbmir_node.config import Settings
from cbmir_node.logs import (
    RecentTroubles,
    Trouble,
    TroubleSender,
    _OneLineFormatter,
    received_troubles,
)
from cbmir_node.supervisor import WorkerSupervisor
from tests.objects import make_object
from tests.small_node import keep, open_small_stores

WAIT_S = 60


def test_a_sender_that_dies_within_a_message_keeps_nobody_waiting() -> None:
    reader, writer = multiprocessing.Pipe(duplex=False)
    log = logging.Logger("somewhere")
    log.addHandler(TroubleSender(writer))
    log.warning("first %s", "x" * 10_000)
    whole = json.dumps(asdict(Trouble(0.0, "ERROR", "a", "second"))).encode()
    with open(writer.fileno(), "wb", closefd=False) as pipe:
        pipe.write(struct.pack("!i", len(whole)) + whole[:5])
    writer.close()
    (first,) = received_troubles(reader)
    assert (first.level, first.source, len(first.message)) == ("WARNING", "somewhere", 500)
    assert list(received_troubles(reader)) == []
    reader.close()


def test_a_sender_that_nobody_reads_goes_on() -> None:
    reader, writer = multiprocessing.Pipe(duplex=False)
    reader.close()
    log = logging.Logger("somewhere")
    log.addHandler(TroubleSender(writer))
    log.error("nobody hears")
    writer.close()


def test_the_workers_errors_reach_the_node(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    stores = open_small_stores(settings)
    try:
        keep(stores, tmp_path, make_object())
        stores.active_model_file().write_bytes(b"damaged")
    finally:
        stores.close()
    troubles = RecentTroubles()
    supervisor = WorkerSupervisor(settings, troubles)
    supervisor.start()
    try:
        deadline = time.monotonic() + WAIT_S
        while not troubles.latest():
            assert time.monotonic() < deadline, "the worker's error did not arrive"
            time.sleep(0.05)
    finally:
        supervisor.stop()
    told = troubles.latest()[0]
    assert (told.level, told.source) == ("ERROR", "cbmir_node.worker")
    assert told.message.startswith("model tiny:1: ")


def test_what_strangers_sent_is_one_line_of_the_log() -> None:
    formatter = _OneLineFormatter("%(levelname)s %(message)s")
    try:
        raise ValueError("x\nERROR forged\x1b[2J")
    except ValueError:
        error = sys.exc_info()
    record = logging.LogRecord("a", logging.INFO, "", 0, "from %s", ("b\r\nERROR forged",), error)
    first, *others = formatter.format(record).split("\n")
    assert first == "INFO from b\\r\\nERROR forged"
    assert others
    assert all(line.startswith("  ") and "\x1b" not in line for line in others)
