"""The text of a TOML file that a user wrote, with what is wrong with it in a user's words; pure."""

from __future__ import annotations

import codecs
import tomllib
from typing import Any


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
