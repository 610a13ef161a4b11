"""A TOML file that a user wrote, with what is wrong with it in a user's words; pure but for reading it."""

from __future__ import annotations

import codecs
import tomllib
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.util.read_file import read_file


def read_toml(path: Path, option: str = "") -> tuple[bytes, dict[str, Any]]:
    """What is in the file ``path``, which ``option`` named, and the table that it is.

    :class:`~harness.errors.UsageError` where it cannot be read, or is none.
    """
    named = f"{option}: {path}" if option else str(path)
    try:
        raw = read_file(path)
        return raw, parsed(raw)
    except OSError as error:
        raise UsageError(f"{named} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"{named} is not valid TOML: {error}") from error


def is_there(path: Path) -> bool:
    """Whether the file ``path`` is there; :class:`~harness.errors.UsageError` where nobody may look."""
    try:
        return path.is_file()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error


def parsed(raw: bytes) -> dict[str, Any]:
    """The table in ``raw``, with or without a byte order mark; ``ValueError`` with the end of a sentence."""
    try:
        return tomllib.loads(raw.removeprefix(codecs.BOM_UTF8).decode())
    except tomllib.TOMLDecodeError:
        raise
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no text in UTF-8 (byte {error.start + 1})") from None
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
    except ValueError:
        raise ValueError("it has a number of thousands of digits") from None
