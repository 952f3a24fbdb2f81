"""Bytes on a connection, for requests that no client library would send."""

from __future__ import annotations

import re
import socket


def connect(port: int) -> socket.socket:
    """Open a connection that fails rather than waits for ever."""
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def read_all(connection: socket.socket) -> bytes:
    """Read until the other side closes."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass  # what came before counts
    return b"".join(parts)


def read_response(connection: socket.socket) -> bytes:
    """Read one response that tells its length; the connection stays open."""
    answer = b""
    while True:
        answer += connection.recv(65536)
        head, end, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        if end and length and len(body) >= int(length[1]):
            return answer


def talk(port: int, request: bytes) -> bytes:
    """Send bytes and return all that is answered until the node closes the connection."""
    with connect(port) as connection:
        connection.sendall(request)
        return read_all(connection)


def status(answer: bytes) -> int:
    """Return the status of the first response in an answer."""
    return int(answer.split(b" ", 2)[1])
