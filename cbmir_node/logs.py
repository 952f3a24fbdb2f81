"""What the node's processes write to their log."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

_LONGEST_MESSAGE = 500
_MOST_TROUBLES = 50
_LARGEST_TROUBLE_BYTES = 1 << 16

_QUIET = ("alembic", "faiss", "multipart", "PIL", "pydicom", "pynetdicom", "uvicorn")
"""Libraries that tell every step; the node tells what an operator needs of it."""


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class _OneLineFormatter(logging.Formatter):
    """Keeps what strangers sent from looking like lines of the log, or steering a terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        return _escaped(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802  logging's name
        # a line within an error's message begins as no record does
        return "\n".join(f"  {_escaped(line)}" for line in super().formatException(ei).split("\n"))


def _escaped(text: str) -> str:
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def configure_logging(level: str, process: str) -> None:
    """Log to standard error, warnings of libraries included.

    Parameters
    ----------
    level : {"debug", "info", "warning", "error"}
        Least severe messages shown; ``debug`` shows the libraries' too.
    process : str
        Names the process in every line.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(
        _OneLineFormatter(f"%(asctime)s %(levelname)-7s {process} %(name)s: %(message)s")
    )
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.captureWarnings(capture=True)
    quiet_libraries(level)


def quiet_libraries(level: str) -> None:
    """Keep libraries that log every step to their errors, unless `level` is ``debug``."""
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.NOTSET if level == "debug" else logging.ERROR)
    if level != "debug":
        # an association that ends otherwise than by release is its normal life, told by the node
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Trouble:
    """A warning or an error that was logged.

    Attributes
    ----------
    time : float
        When it was logged last, seconds since 1970.
    level : str
        ``WARNING``, ``ERROR`` or ``CRITICAL``.
    source : str
        Name of the logger.
    message : str
        Cut off when it is long; of an exception its kind and message, not where it came from.
    times : int
        How often it was logged.
    """

    time: float
    level: str
    source: str
    message: str
    times: int = 1


def _is_told(record: logging.LogRecord) -> bool:
    """Tell an administrator's matter from a library's warning about a file, with its source line.

    There would be one for each odd object that comes in; standard error has them all.
    """
    return record.name != "py.warnings"


class RecentTroubles(logging.Handler):
    """Keeps the last warnings and errors for an administrator to see; safe from many threads.

    The same one again takes no further place, so that one that repeats hides no other.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.addFilter(_is_told)
        self._mine = threading.Lock()
        self._troubles: OrderedDict[tuple[str, str, str], Trouble] = OrderedDict()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what a record tells."""
        try:
            self.add(_trouble(record))
        except Exception:  # as every handler: a record that cannot be written harms nobody else
            self.handleError(record)

    def add(self, trouble: Trouble) -> None:
        """Keep a trouble, perhaps another process'."""
        key = (trouble.level, trouble.source, trouble.message)
        with self._mine:
            known = self._troubles.pop(key, None)
            times = trouble.times + (known.times if known else 0)
            self._troubles[key] = replace(trouble, times=times)
            if len(self._troubles) > _MOST_TROUBLES:
                self._troubles.popitem(last=False)

    def latest(self) -> list[Trouble]:
        """Return them, the latest first."""
        with self._mine:
            return list(reversed(self._troubles.values()))


class TroubleSender(logging.Handler):
    """Sends warnings and errors to the process at the other end of a connection.

    Parameters
    ----------
    connection : Connection
        Somebody reads its other end, or has closed it.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__(logging.WARNING)
        self.addFilter(_is_told)
        self._connection = connection

    def emit(self, record: logging.LogRecord) -> None:
        """Send what a record tells."""
        try:
            self._connection.send_bytes(json.dumps(asdict(_trouble(record))).encode())
        except OSError:  # nobody reads any more; standard error has it
            pass
        except Exception:  # as in `RecentTroubles`
            self.handleError(record)


def received_troubles(connection: Connection) -> Iterator[Trouble]:
    """Yield what a `TroubleSender` has sent so far; nothing once its process has ended.

    A process that dies within a message closes the connection by that, so that nobody waits for
    the rest.
    """
    try:
        while connection.poll():
            yield Trouble(**json.loads(connection.recv_bytes(_LARGEST_TROUBLE_BYTES)))
    except (EOFError, OSError):
        return


@contextlib.contextmanager
def recent_troubles() -> Iterator[RecentTroubles]:
    """Keep this process' warnings and errors while the block runs."""
    kept = RecentTroubles()
    root = logging.getLogger()
    root.addHandler(kept)
    try:
        yield kept
    finally:
        root.removeHandler(kept)


def _trouble(record: logging.LogRecord) -> Trouble:
    message = record.getMessage()
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        message = f"{message}: {type(error).__name__}: {error}"
    return Trouble(record.created, record.levelname, record.name, message[:_LONGEST_MESSAGE])
