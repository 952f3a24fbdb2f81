"""A page of the documentation, followed by a shell command by command."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

COMMAND_TIMEOUT_S = 180
_DONE = "--- the block is done ---"
_FAILED = "--- failed: "


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes
    ----------
    section : str
        The heading above it.
    language : str
        Behind the fence.
    text : str
        Its lines.
    """

    section: str
    language: str
    text: str

    @property
    def file_name(self) -> str | None:
        """The file that the block shows: its first line is a comment that begins with the name."""
        found = re.match(r"(?:#|//|--) ([\w.-]+\.\w+):", self.text)
        return found and found[1]


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a Markdown page, in order."""
    found = []
    section = ""
    for part in re.finditer(r"^## ([^\n]+)$|^```(\w*)\n(.*?)^```$", page, re.M | re.S):
        if part[1]:
            section = part[1]
        else:
            found.append(Block(section, part[2], part[3]))
    return found


class Terminal:
    """One shell session.

    Parameters
    ----------
    folder : Path
        Where it begins.
    programs : Path
        A folder that is searched for programs after all others.
    """

    def __init__(self, folder: Path, programs: Path) -> None:
        path = [part for part in os.environ["PATH"].split(":") if part != str(programs)]
        self._shell = subprocess.Popen(
            ["bash"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, "PATH": ":".join([*path, str(programs)])},
            start_new_session=True,
        )
        self.run(f"set -o pipefail; trap 'echo \"{_FAILED}$BASH_COMMAND\"' ERR")

    def run(self, commands: str) -> str:
        """Run commands and return what they say; none of them may fail."""
        assert self._shell.stdin is not None
        self._shell.stdin.write(f"{commands}\necho\necho '{_DONE}'\n".encode())
        self._shell.stdin.flush()
        said = self._read_until(f"\n{_DONE}\n")
        assert _FAILED not in said, f"{commands}\n{said}"
        return said

    def _read_until(self, mark: str) -> str:
        assert self._shell.stdout is not None
        said = b""
        deadline = time.monotonic() + COMMAND_TIMEOUT_S
        with selectors.DefaultSelector() as selector:
            selector.register(self._shell.stdout, selectors.EVENT_READ)
            while not said.endswith(mark.encode()):
                assert selector.select(deadline - time.monotonic()), f"no end of:\n{said.decode()}"
                part = os.read(self._shell.stdout.fileno(), 65536)
                assert part, f"the shell has ended:\n{said.decode()}"
                said += part
        return said.decode().removesuffix(mark)

    def close(self) -> None:
        """End the shell and what it left running."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.communicate()
