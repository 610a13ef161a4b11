"""How the scripts of ``ci/`` end that are modules of this package: with a code and a sentence, never with a traceback
because of who reads them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from harness.errors import HarnessError, OutputError
from harness.util.standard_streams import give_up_output, make_usable


def run_script(name: str, main: Callable[[], int]) -> NoReturn:
    """Run ``main`` and end the process with its code; ``name`` begins the sentence where that cannot be.

    Where nobody reads what is printed, or it cannot be written, it ends with 2 as an interrupted one does.
    """
    make_usable()
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
    sys.exit(code)
