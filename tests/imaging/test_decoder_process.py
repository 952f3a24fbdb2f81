"""The decoder child: what kills it, and that nothing else does."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.resource_tracker
import multiprocessing.spawn
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from cbmir_node.config import ImagingSettings
from cbmir_node.errors import (
    DecoderDiedError,
    DecoderUnavailableError,
    NoPixelsError,
    PixelError,
)
from cbmir_node.imaging.decoder_process import DecoderProcess
from cbmir_node.imaging.network_input import Preprocessing, network_input
from cbmir_node.imaging.pictures import pictures
from tests.imaging.image_objects import LOSSLESS, ramp, write_object

PREPROCESSING = Preprocessing(16, 20, 3, "pad", (127.0,) * 3, (128.0,) * 3)


@pytest.fixture
def decoder() -> Iterator[DecoderProcess]:
    with DecoderProcess(ImagingSettings(decode_timeout_s=30, decode_memory_mib=512)) as process:
        yield process


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write_object(tmp_path / "good.dcm", np.stack([ramp()] * 5), NumberOfFrames=5)


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """A file that is never read to its end: a pipe nobody writes to."""
    path = tmp_path / "endless.dcm"
    os.mkfifo(path)
    return path


def child() -> int:
    """Return the process id of the only decoder child."""
    (process,) = [p for p in multiprocessing.active_children() if p.name == "cbmir-decoder"]
    assert process.pid is not None
    return process.pid


def is_gone(pid: int, within_s: float = 20) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def test_it_answers_what_decoding_here_answers(decoder, good):
    expected = pictures(good, 16)
    found = decoder.decode(good, PREPROCESSING)
    assert [frame.frame_number for frame in found] == [1, 2, 3, 4, 5]
    for frame, picture in zip(found, expected, strict=True):
        assert frame.values.shape == (3, 16, 20)
        assert frame.values.dtype == np.float32
        np.testing.assert_array_equal(frame.values, network_input(picture.pixels, PREPROCESSING))
    for one, other in zip(decoder.pictures(good), expected, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)


def test_the_frame_limit_is_the_settings(good):
    with DecoderProcess(ImagingSettings(frames_per_instance=2)) as decoder:
        assert [frame.frame_number for frame in decoder.decode(good, PREPROCESSING)] == [2, 4]


def test_the_child_is_kept_and_ends_with_the_block(good):
    with DecoderProcess(ImagingSettings()) as decoder:
        decoder.decode(good, PREPROCESSING)
        pid = child()
        decoder.decode(good, PREPROCESSING)
        assert child() == pid
    assert is_gone(pid)


def test_errors_arrive_as_they_were_raised(decoder, good, tmp_path):
    dose = write_object(tmp_path / "d.dcm", ramp(), SOPClassUID="1.2.840.10008.5.1.4.1.1.481.2")
    with pytest.raises(NoPixelsError, match=r"^RT Dose Storage: its pixels are doses, not a pic"):
        decoder.decode(dose, PREPROCESSING)
    pid = child()
    broken = write_object(tmp_path / "b.dcm", ramp(), PixelData=b"\0\0")
    with pytest.raises(PixelError, match=r"^Pixel Data has 2 bytes, 1536 are needed$") as error:
        decoder.decode(broken, PREPROCESSING)
    assert type(error.value) is PixelError
    decoder.decode(good, PREPROCESSING)
    assert child() == pid


def test_a_foreign_exception_becomes_a_short_reason(decoder, tmp_path):
    absent = tmp_path / ("a" * 250)
    with pytest.raises(PixelError, match=r"^FileNotFoundError: ") as error:
        decoder.decode(absent, PREPROCESSING)
    assert len(str(error.value)) == 200


def test_decoding_without_end_is_cut(good, endless):
    with DecoderProcess(ImagingSettings(decode_timeout_s=1)) as decoder:
        decoder.decode(good, PREPROCESSING)
        pid = child()
        with pytest.raises(DecoderDiedError, match=r"^decoding took longer than 1 s$"):
            decoder.decode(endless, PREPROCESSING)
        assert is_gone(pid)
        assert len(decoder.decode(good, PREPROCESSING)) == 5


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_killed_child_is_named_and_replaced(decoder, good, endless, number):
    decoder.decode(good, PREPROCESSING)
    pid = child()
    killer = threading.Timer(0.3, os.kill, (pid, number))
    killer.start()
    with pytest.raises(DecoderDiedError, match=f"ended with signal {number.value}$"):
        decoder.decode(endless, PREPROCESSING)
    killer.join()
    assert len(decoder.decode(good, PREPROCESSING)) == 5
    assert child() != pid


def test_a_child_that_died_between_two_objects(decoder, good):
    decoder.decode(good, PREPROCESSING)
    os.kill(child(), signal.SIGKILL)
    assert is_gone(child())
    with pytest.raises(DecoderDiedError, match="signal 9"):
        decoder.decode(good, PREPROCESSING)
    assert len(decoder.decode(good, PREPROCESSING)) == 5


def test_a_child_that_cannot_start_is_no_error_of_the_object(decoder, good, monkeypatch):
    multiprocessing.resource_tracker.ensure_running()  # is spawned by the same executable
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", b"/bin/false")
    for _ in range(2):
        with pytest.raises(DecoderUnavailableError, match="does not start: it ended with exit cod"):
            decoder.decode(good, PREPROCESSING)
    monkeypatch.undo()
    assert len(decoder.decode(good, PREPROCESSING)) == 5


def test_neither_is_a_lack_of_file_descriptors(decoder, good):
    multiprocessing.resource_tracker.ensure_running()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    for spare in range(4):
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + spare, limits[1]))
        try:
            with pytest.raises(DecoderUnavailableError, match="Too many open files"):
                decoder.decode(good, PREPROCESSING)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(decoder.decode(good, PREPROCESSING)) == 5


def test_memory_is_limited(decoder, good, tmp_path):
    side = 11000  # 121 megapixels: under the size limit, but 242 MB stored and twice that as float
    path = write_object(tmp_path / "big.dcm", ramp(), Rows=side, Columns=side)
    with path.open("r+b") as file:
        position = dcmread(path)["PixelData"].file_tell
        file.seek(position - 4)
        file.write((side * side * 2).to_bytes(4, "little"))
        file.truncate(position + side * side * 2)
    with pytest.raises(DecoderDiedError, match=r"^decoding needed more than 512 MiB$"):
        decoder.decode(path, PREPROCESSING)
    assert len(decoder.decode(good, PREPROCESSING)) == 5


def test_ctrl_c_does_not_reach_the_child(decoder, good):
    decoder.decode(good, PREPROCESSING)
    pid = child()
    os.kill(pid, signal.SIGINT)
    assert len(decoder.decode(good, PREPROCESSING)) == 5
    assert child() == pid


def test_damaged_bytes_end_in_a_picture_or_a_pixel_error(decoder, tmp_path):
    random = np.random.default_rng(3)
    path = tmp_path / "damaged.dcm"
    for syntax, encode in LOSSLESS.items():
        whole = write_object(
            tmp_path / "whole.dcm", ramp(), syntax=syntax, encode=encode, BitsStored=12
        ).read_bytes()
        for _ in range(12):
            damaged = bytearray(whole)
            for position in random.integers(132, len(whole), 4):
                damaged[position] = random.integers(256)
            path.write_bytes(damaged)
            with contextlib.suppress(PixelError):
                assert decoder.pictures(path)


PARENT = """
import multiprocessing, sys, threading
from pathlib import Path
from cbmir_node.config import ImagingSettings
from cbmir_node.imaging.decoder_process import DecoderProcess

if __name__ == "__main__":
    with DecoderProcess(ImagingSettings(decode_timeout_s=2)) as decoder:
        decoder.pictures(Path(sys.argv[1]))
        print(multiprocessing.active_children()[0].pid, flush=True)
        if sys.argv[2] == "decoding":
            decoder.pictures(Path(sys.argv[3]))
        threading.Event().wait(60)
"""


@pytest.mark.parametrize("state", ["idle", "decoding"])
def test_the_child_of_a_killed_parent_ends(good, endless, tmp_path, state):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    command = [sys.executable, str(script), str(good), state, str(endless)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(0.3)  # let it reach the endless file
        parent.kill()
    assert is_gone(pid)
