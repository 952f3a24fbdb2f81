"""Jobs for the decoder processes that the requests of the HTTP port share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from cbmir_node.errors import DecoderUnavailableError, NotKeptError, PixelError
from cbmir_node.imaging.decoder_pool import DecoderPool
from cbmir_node.imaging.decoder_process import DecoderProcess

_PATIENCE_S = 30.0

T = TypeVar("T")


def decode_with(decoders: DecoderPool, job: Callable[[DecoderProcess], T]) -> T:
    """Wait for a decoder, though not for ever, and let it do a job.

    Raises
    ------
    NotKeptError
        The file is gone: it was evicted, deleted or forgotten a moment ago.
    PixelError, DecoderUnavailableError
        As the job; also where the file cannot be read, and where nobody had a decoder to lend.
    """
    until = time.monotonic() + _PATIENCE_S
    try:
        with decoders.lend(lambda: time.monotonic() > until) as decoder:
            return job(decoder)
    except FileNotFoundError as error:
        raise NotKeptError("its file is not here any more; search again") from error
    except DecoderUnavailableError:
        raise
    except OSError as error:
        raise PixelError(f"its file cannot be read: {error.strerror}") from error
