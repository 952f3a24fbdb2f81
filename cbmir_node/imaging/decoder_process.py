"""Decoding in a child process that may die.

Pixels are hostile input: a codec may crash, allocate without end or never return. So they are
decoded in a child with a memory limit, and the parent kills it when an object takes too long. A
dead child is an error for one object; the next one gets a fresh child. A child that cannot even
start says nothing about the object.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Final, cast

from cbmir_node.config import ImagingSettings
from cbmir_node.errors import DecoderDiedError, DecoderUnavailableError
from cbmir_node.imaging.decoder_child import PROGRESS, Answer, Job, serve
from cbmir_node.imaging.frame_values import FrameValues, frame_values
from cbmir_node.imaging.image_files import secondary_capture
from cbmir_node.imaging.network_frames import (
    NetworkInputFrame,
    network_input_frame,
    network_input_frames,
)
from cbmir_node.imaging.network_input import Preprocessing
from cbmir_node.imaging.pictures import Picture, pictures
from cbmir_node.imaging.rendering import Rendering, render
from cbmir_node.imaging.single_frames import encoded_frame, native_frame
from cbmir_node.imaging.transcoding import transcode

_START_TIMEOUT_S: Final = 120.0
_EXIT_TIMEOUT_S: Final = 10
_POLL_S: Final = 0.2


class DecoderProcess:
    """A decoder that survives its input; use it as a context manager.

    The child is spawned with the first object and kept for the next ones. It ends with the
    ``with`` block, and by itself when its parent disappears. One instance serves one thread, and
    a daemonic `multiprocessing.Process` cannot own one (it may have no children).

    Parameters
    ----------
    settings : ImagingSettings
        ``decode_timeout_s`` per object, of `transcode` per frame; ``decode_memory_mib``, what
        decoding may take on top of the idle child; ``frames_per_instance``.
    """

    def __init__(self, settings: ImagingSettings) -> None:
        self._settings = settings
        self._process: BaseProcess | None = None
        self._connection: Connection[Any, Any] | None = None

    def __enter__(self) -> DecoderProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def decode(
        self, path: Path, preprocessing: Preprocessing, *, thumbnails: bool = False
    ) -> list[NetworkInputFrame]:
        """Decode an object's chosen frames to network inputs.

        Raises
        ------
        NoPixelsError
            The object is no picture.
        DecoderDiedError
            Decoding took too long or too much memory, or ended the child.
        PixelError
            The pixels cannot be decoded.
        DecoderUnavailableError
            No child can be started; the object is not to blame and may be tried later.
        """
        frames_per_instance = self._settings.frames_per_instance
        frames = self._ask(
            network_input_frames, path, frames_per_instance, preprocessing, thumbnails
        )
        return cast(list[NetworkInputFrame], frames)

    def decode_frame(
        self, path: Path, frame_number: int, preprocessing: Preprocessing
    ) -> NetworkInputFrame:
        """Decode one frame to a network input; raises as `decode` and `render`."""
        frame = self._ask(network_input_frame, path, frame_number, preprocessing)
        return cast(NetworkInputFrame, frame)

    def pictures(self, path: Path) -> list[Picture]:
        """Decode an object's chosen frames to display pictures; raises as `decode` does."""
        return cast(list[Picture], self._ask(pictures, path, self._settings.frames_per_instance))

    def transcode(
        self,
        path: Path,
        transfer_syntax: str,
        destination: Path,
        max_bytes: int,
        give_up: Callable[[], bool] = lambda: False,
    ) -> None:
        """Write an object uncompressed, see `transcoding.transcode`; raises as both do.

        Once `give_up` is True the child is killed: a `DecoderDiedError`.
        """
        self._ask(transcode, path, transfer_syntax, destination, max_bytes, give_up=give_up)

    def render(self, path: Path, frame_number: int, rendering: Rendering) -> bytes:
        """Render a frame, see `rendering.render`; raises as that and `decode`."""
        return cast(bytes, self._ask(render, path, frame_number, rendering))

    def values(self, path: Path, frame_number: int, longest_side: int) -> FrameValues:
        """Return a frame's values, see `frame_values.frame_values`; raises as `render`."""
        return cast(FrameValues, self._ask(frame_values, path, frame_number, longest_side))

    def native_frame(self, path: Path, frame_number: int) -> bytes:
        """Return a frame's uncompressed pixels, see `single_frames.native_frame`."""
        return cast(bytes, self._ask(native_frame, path, frame_number))

    def encoded_frame(self, path: Path, frame_number: int) -> bytes:
        """Return a compressed frame as it is, see `single_frames.encoded_frame`."""
        return cast(bytes, self._ask(encoded_frame, path, frame_number))

    def secondary_capture(
        self, picture: Path, modality: str, destination: Path, name: str = ""
    ) -> None:
        """Make a DICOM object of a picture, see `image_files.secondary_capture`; raises as both."""
        self._ask(secondary_capture, picture, modality, destination, name)

    def _ask(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        give_up: Callable[[], bool] = lambda: False,
    ) -> Any:
        connection = self._start()
        job: Job = (function, arguments)
        try:
            connection.send(job)
            error, content = self._answer(connection, give_up)
        except (EOFError, ConnectionError):
            raise self._how_it_ended() from None
        except BaseException:  # timeout, or the caller was interrupted: an answer may still come
            self.close()
            raise
        if error is None:
            return content
        if isinstance(error, DecoderDiedError):  # out of memory: the next one gets a clean heap
            self.close()
        raise error

    def _answer(self, connection: Connection[Any, Any], give_up: Callable[[], bool]) -> Answer:
        """Wait for the answer as long as the child gets on."""
        last_heard = time.monotonic()
        while True:
            left = last_heard + self._settings.decode_timeout_s - time.monotonic()
            if connection.poll(max(0.0, min(left, _POLL_S))):
                heard = connection.recv()
                if heard is not PROGRESS:
                    return cast(Answer, heard)
                last_heard = time.monotonic()
            elif left <= 0:
                raise self._too_long()
            if give_up():
                raise DecoderDiedError("decoding was given up")

    def _start(self) -> Connection[Any, Any]:
        if self._connection is not None:
            return self._connection
        try:
            self._connection = self._spawn()
            if not self._connection.poll(_START_TIMEOUT_S):
                raise _unavailable(f"it is not ready after {_START_TIMEOUT_S:g} s")
            self._connection.recv()
        except (EOFError, ConnectionError):
            raise _unavailable(f"it ended with {_in_words(self._end())}") from None
        except OSError as error:  # no more processes, files or memory
            self.close()
            raise _unavailable(str(error)) from error
        except BaseException:  # timeout, or the caller was interrupted: it may still get ready
            self.close()
            raise
        return self._connection

    def _spawn(self) -> Connection[Any, Any]:
        context = multiprocessing.get_context("spawn")
        connection, child_end = context.Pipe()
        with child_end:  # closed here, so that the child's death is an end of file
            self._process = context.Process(
                target=serve,
                args=(child_end, self._settings.decode_memory_mib, self._settings.decode_timeout_s),
                name="cbmir-decoder",
                daemon=True,
            )
            try:
                self._process.start()
            except BaseException:
                connection.close()
                raise
        return connection

    def _too_long(self) -> DecoderDiedError:
        return DecoderDiedError(f"decoding took longer than {self._settings.decode_timeout_s:g} s")

    def _how_it_ended(self) -> DecoderDiedError:
        code = self._end()
        if code == -signal.SIGALRM:
            return self._too_long()
        return DecoderDiedError(f"the decoder process ended with {_in_words(code)}")

    def _end(self) -> int | None:
        """Return the exit code of a child that closed its pipe, and clear it away."""
        code = None
        if self._process is not None and self._process.pid is not None:
            self._process.join(_EXIT_TIMEOUT_S)
            code = self._process.exitcode
        self.close()
        return code

    def close(self) -> None:
        """End the child; the next object starts another."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None and self._process.pid is not None:
            self._process.kill()  # it has nothing to save
            self._process.join()
            self._process.close()
        self._connection = self._process = None


def _unavailable(reason: str) -> DecoderUnavailableError:
    return DecoderUnavailableError(
        f"the decoder process does not start: {reason}; see what it wrote before, check the free "
        "memory and whether cbmir-node was upgraded meanwhile, and start the node again"
    )


def _in_words(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
