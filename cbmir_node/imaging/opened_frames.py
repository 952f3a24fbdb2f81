"""One frame of an object by its number, and one kind of error for whatever is wrong with it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cbmir_node.errors import PixelError, SelectionError
from cbmir_node.imaging.pixel_source import PixelSource, open_pixels

_LONGEST_REASON: Final = 200


@contextmanager
def damage_as_pixel_error() -> Iterator[None]:
    """Turn what pydicom and the codecs raise on bad input into `PixelError`.

    Errors of the file system remain: the object is not to blame.
    """
    with warnings.catch_warnings():
        # pydicom warns of every irregularity; what matters of them ends in an error here
        warnings.simplefilter("ignore")
        try:
            yield
        except (PixelError, SelectionError, MemoryError):
            raise
        except Exception as error:  # pydicom and the codecs raise almost any class on bad input
            if isinstance(error, OSError) and error.errno is not None:  # those of codecs have none
                raise
            raise as_pixel_error(error) from error


def as_pixel_error(error: Exception) -> PixelError:
    """Return a `PixelError` whose short message names another error."""
    return PixelError(f"{type(error).__name__}: {error}"[:_LONGEST_REASON])


@contextmanager
def open_frame(
    path: Path, frame_number: int, *, pictures_only: bool = True
) -> Iterator[tuple[PixelSource, int]]:
    """Open an object for one of its frames.

    Parameters
    ----------
    path : Path
        A DICOM file.
    frame_number : int
        From 1.
    pictures_only : bool
        See `open_pixels`.

    Yields
    ------
    tuple of (PixelSource, int)
        The object, and the frame's index from 0.

    Raises
    ------
    SelectionError
        There is no such frame.
    PixelError
        As `open_pixels`; also for whatever is raised in the block.
    """
    with damage_as_pixel_error(), open_pixels(path, pictures_only=pictures_only) as source:
        frames = source.image.number_of_frames
        if not 1 <= frame_number <= frames:
            raise SelectionError(f"there is no frame {frame_number}: ask for 1 to {frames}")
        yield source, frame_number - 1
