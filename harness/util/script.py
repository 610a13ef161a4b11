"""How the scripts of ``ci/`` end that are modules of this package: with a code and a sentence, never with a traceback
because of who reads them, or of what they were given."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from harness.errors import HarnessError, OutputError, UsageError
from harness.util.logs import one_line
from harness.util.standard_streams import give_up_output, make_usable, usable_columns


class ScriptParser(argparse.ArgumentParser):
    """The options of a script; what is wrong with them is a :class:`~harness.errors.UsageError`.

    argparse's own end would be the code 2, which says that there is no answer.
    """

    def error(self, message: str) -> NoReturn:
        """Raise it."""
        raise UsageError(f"{message} (--help lists what there is)")


def run_script(name: str, main: Callable[[], int]) -> NoReturn:
    """Run ``main`` and end the process with its code; ``name`` begins the sentence where that cannot be.

    Where nobody reads what is printed, or it cannot be written, it ends with 2 as an interrupted one does, or one to
    which the system refuses a file.
    """
    make_usable()
    usable_columns()
    try:
        code = main()
        sys.stdout.flush()
    except OutputError as error:
        give_up_output()
        code = error.exit_code
        if not error.nobody_reads:
            print(f"{name}: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        code = HarnessError.exit_code
        print(f"{name}: interrupted", file=sys.stderr)
    except (HarnessError, OSError) as error:
        code = error.exit_code if isinstance(error, HarnessError) else HarnessError.exit_code
        print(f"{name}: {one_line(said(error))}", file=sys.stderr)
    sys.exit(code)


def said(error: HarnessError | OSError) -> str:
    """The sentence about it; of the system's, without the number that it has there."""
    if isinstance(error, HarnessError):
        return str(error)
    why = error.strerror or str(error)
    return why if error.filename is None else f"{error.filename}: {why}"
