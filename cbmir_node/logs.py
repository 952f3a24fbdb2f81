"""What the node's processes write to their log."""

from __future__ import annotations

import logging

_QUIET = ("alembic", "faiss", "multipart", "PIL", "pydicom", "pynetdicom", "uvicorn")
"""Libraries that tell every step; the node tells what an operator needs of it."""


def configure_logging(level: str, process: str) -> None:
    """Log to standard error, warnings of libraries included.

    Parameters
    ----------
    level : {"debug", "info", "warning", "error"}
        Least severe messages shown; ``debug`` shows the libraries' too.
    process : str
        Names the process in every line.
    """
    logging.basicConfig(
        level=level.upper(),
        format=f"%(asctime)s %(levelname)-7s {process} %(name)s: %(message)s",
    )
    logging.captureWarnings(capture=True)
    quiet_libraries(level)


def quiet_libraries(level: str) -> None:
    """Keep libraries that log every step to their errors, unless `level` is ``debug``."""
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.NOTSET if level == "debug" else logging.ERROR)
    if level != "debug":
        # an association that ends otherwise than by release is its normal life, told by the node
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
