"""``cbmir-node config``."""

from __future__ import annotations

import json
from pathlib import Path

import click
from pydantic import BaseModel

from cbmir_node.catalog.database import without_password
from cbmir_node.cli.options import as_json, print_json, settings_options
from cbmir_node.config import Settings, setting_keys

_HIDDEN = "***"


@click.group(short_help="Show and check settings.")
def config() -> None:
    """Show and check settings."""


@config.command(short_help="Show every setting and its value.")
@as_json
@settings_options
def show(settings: Settings, as_json: bool) -> None:
    """Show every setting and the value it has here, as a configuration file.

    The database's password and what is kept of passwords and tokens is hidden.
    """
    settings = _without_secrets(settings)
    if as_json:
        print_json(settings.model_dump(mode="json"))
        return
    section = None
    for key, field in setting_keys():
        *sections, name = key.split(".")
        if sections != section:
            section = sections
            if sections:
                click.echo(f"\n[{'.'.join(sections)}]")
        value: object = settings
        for part in key.split("."):
            value = getattr(value, part)
        line = f"# {name} is not set" if value is None else f"{name} = {_toml(value)}"
        click.echo(f"{line}  # {field.description}")


@config.command(short_help="Check a configuration file.")
@settings_options
def check(settings: Settings) -> None:
    """Check the configuration: exit code 1 and the wrong keys, or 'ok'."""
    click.echo(
        f"ok: data in {settings.data_dir}, catalogue {without_password(settings.catalog_url)}"
    )


def _without_secrets(settings: Settings) -> Settings:
    url, http = settings.catalog.url, settings.http
    hidden = {
        "users": {
            name: user.model_copy(update={"password_hash": _HIDDEN})
            for name, user in http.users.items()
        },
        "tokens": {
            name: token.model_copy(update={"sha256": _HIDDEN})
            for name, token in http.tokens.items()
        },
    }
    update: dict[str, BaseModel] = {"http": http.model_copy(update=hidden)}
    if url is not None:
        update["catalog"] = settings.catalog.model_copy(update={"url": without_password(url)})
    return settings.model_copy(update=update)


def _toml(value: object) -> str:
    """Return a value as TOML writes it on one line."""
    match value:
        case bool():
            return str(value).lower()
        case BaseModel():
            return _toml(value.model_dump())
        case dict():
            pairs = (f"{json.dumps(str(key))} = {_toml(held)}" for key, held in value.items())
            return f"{{ {', '.join(pairs)} }}"
        case tuple() | list():
            return f"[{', '.join(map(_toml, value))}]"
        case str() | Path():
            return json.dumps(str(value))
    return str(value)
