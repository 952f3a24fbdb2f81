"""From file, environment and flags to validated settings, with errors that name the key."""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cbmir_node.config.settings import Settings
from cbmir_node.errors import ConfigurationError

ENVIRONMENT_PREFIX = "CBMIR_"


def load_settings(
    config_file: Path | None = None,
    overrides: dict[str, Any] | None = None,
    environment: dict[str, str] | None = None,
) -> Settings:
    """Build the settings from file, environment and flags.

    Parameters
    ----------
    config_file : Path, optional
        TOML file; ``None`` uses the defaults.
    overrides : dict, optional
        Values from command-line flags by dotted key (``{"dicom.port": 11113}``); ``None`` values
        are ignored.
    environment : dict, optional
        Defaults to the process environment.

    Raises
    ------
    ConfigurationError
        Names each wrong key and what it accepts.
    """
    tree = _read_toml(config_file) if config_file else {}
    variables = os.environ if environment is None else environment
    for name, text in sorted(variables.items()):
        if name.startswith(ENVIRONMENT_PREFIX):
            key = name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            _set(tree, key, text, origin=f"environment variable {name}")
    for key, value in (overrides or {}).items():
        if value is not None:
            _set(tree, key, value, origin=key)
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise ConfigurationError(_explain(error, config_file)) from None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the configuration file {path}: {error.strerror}"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}") from error


def _set(tree: dict[str, Any], key: str, value: Any, origin: str) -> None:
    """Put `value` at the dotted `key`."""
    *sections, last = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise ConfigurationError(f"{origin}: {section!r} is a value, not a section")
    tree[last] = value


def _explain(error: ValidationError, config_file: Path | None) -> str:
    """Turn pydantic's findings into one line per key."""
    lines = []
    for finding in error.errors():
        key = ".".join(str(part) for part in finding["loc"])
        if finding["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key{_suggestion(key)}")
        else:
            lines.append(_finding(key, finding["msg"].removeprefix("Value error, "), finding))
    where = f" in {config_file}" if config_file else ""
    return f"invalid configuration{where}:\n  " + "\n  ".join(lines)


def _finding(key: str, message: str, finding: ErrorDetails) -> str:
    """Return a line for a wrong value; a whole section that is wrong is not repeated."""
    if isinstance(finding["input"], dict):
        return f"{key}: {message}" if key else message
    return f"{key}: {message} (got {finding['input']!r})"


def _suggestion(key: str) -> str:
    close = difflib.get_close_matches(key, [name for name, _ in setting_keys()], n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def setting_keys(section: type[BaseModel] = Settings, prefix: str = "") -> list[tuple[str, Any]]:
    """List every setting as (dotted key, pydantic field), in the order of the tree."""
    keys: list[tuple[str, Any]] = []
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += setting_keys(field.annotation, f"{prefix}{name}.")
        else:
            keys.append((f"{prefix}{name}", field))
    return keys
