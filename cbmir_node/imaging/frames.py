"""Which frames of a multi-frame object stand for it."""

from __future__ import annotations


def chosen_frames(number_of_frames: int, cap: int) -> list[int]:
    """Choose at most `cap` frames, evenly spread.

    An object of up to `cap` frames gives all of them. A longer one is cut into `cap` equal parts
    and gives the middle frame of each, so that neither the first and last frames (often empty
    slices, or a clip's fade) nor one end of the object weigh more than the rest.

    Parameters
    ----------
    number_of_frames : int
        Of the object, at least 1.
    cap : int
        Most frames wanted, at least 1.

    Returns
    -------
    list of int
        Frame indices from 0, ascending.
    """
    if number_of_frames <= cap:
        return list(range(number_of_frames))
    return [(2 * part + 1) * number_of_frames // (2 * cap) for part in range(cap)]
