"""How a program ends that asks one question of this machine: an exit code, and a sentence where it has no answer."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from harness.errors import HarnessError
from harness.util.script import said


def exit_code(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None, asked: Callable[[argparse.Namespace], int]
) -> int:
    """What ``asked`` says of the ``arguments``; 2 with a sentence where it could not be found out, 4 for usage."""
    try:
        return asked(parser.parse_args(arguments))
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return 2
    except (HarnessError, OSError) as error:
        print(f"{parser.prog}: {said(error)}", file=sys.stderr)
        return error.exit_code if isinstance(error, HarnessError) else 2
