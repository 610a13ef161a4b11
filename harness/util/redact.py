"""DRBD's shared secret taken out of what is kept or shown: logs, raw evidence, error messages.

Pure, and by the name of the option: it works on the output of commands that never knew the secret they print, such as
``drbdsetup show``, a resource file, or drbdadm naming the drbdsetup command that failed.
"""

from __future__ import annotations

import re

HIDDEN = "(hidden)"

# In drbd.conf and `drbdsetup show`, in JSON, as an option of a command; with quotes that may be escaped, as in JSON.
_QUOTED = re.compile(r"""(shared-secret(?:\\?["'])?(?:\s|\\[tn]|[=:])+\\?)(["'])(.*?)(\\?\2)""", re.DOTALL)
_BARE = re.compile(r"""(shared-secret(?:=|(?:\s|\\t)+(?=[^\s;]+;)))([^\s;"'\\]+)""")


def redacted(text: str) -> str:
    """``text`` with each value of an option ``shared-secret`` replaced; everything else stays as it is."""
    if "shared-secret" not in text:
        return text
    text = _QUOTED.sub(lambda found: f"{found[1]}{found[2]}{found[3] and HIDDEN}{found[4]}", text)
    return _BARE.sub(lambda found: f"{found[1]}{HIDDEN}", text)
