"""``cbmir-node access``: the lines of the configuration that let people and programs in."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import click

from cbmir_node.web.access.passwords import hash_password
from cbmir_node.web.access.tokens import new_token, token_sha256

_SHORTEST_PASSWORD = 10

_rights = click.option(
    "--right",
    "rights",
    type=click.Choice(["read", "store", "administer"]),
    multiple=True,
    default=["read"],
    show_default=True,
    help="What they may do; several times for several.",
)


def _named(function: Callable[..., None]) -> Callable[..., Any]:
    return click.argument("name")(_rights(function))


@click.group(short_help="Make users and tokens for the HTTP port.")
def access() -> None:
    """Make users and tokens for the HTTP port.

    What is printed goes into the configuration file; the node reads it when it starts.
    """


@access.command(short_help="Make a person's login.")
@_named
def user(name: str, rights: tuple[str, ...]) -> None:
    """Print the lines of the configuration by which NAME can log in.

    The password is asked for twice, or is the first line of standard input.
    """
    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if len(password) < _SHORTEST_PASSWORD:
        raise click.UsageError(f"a password has {_SHORTEST_PASSWORD} characters or more")
    _print_lines("users", name, "password_hash", hash_password(password), rights)


@access.command(short_help="Make a program's token.")
@_named
def token(name: str, rights: tuple[str, ...]) -> None:
    """Print the lines of the configuration that let a program in, and its token.

    The token is shown this once; the configuration holds only its hash.
    """
    made = new_token()
    click.echo(f"Authorization: Bearer {made}", err=True)
    _print_lines("tokens", name, "sha256", token_sha256(made), rights)


def _print_lines(section: str, name: str, key: str, value: str, rights: tuple[str, ...]) -> None:
    click.echo(f"[http.{section}.{json.dumps(name, ensure_ascii=False)}]")
    click.echo(f"{key} = {json.dumps(value)}")
    click.echo(f"rights = {json.dumps(list(dict.fromkeys(rights)))}")
