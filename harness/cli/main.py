"""The command ``drbd-harness``: its groups of commands, and what each error ends as.

Exit codes: 0 as expected, 1 a finding, 2 inconclusive or machinery, 3 nothing ran, 4 usage.
"""

from __future__ import annotations

import sys
import traceback
from typing import NoReturn

from harness.cli.starting import STEP, loading

with loading():
    import typer

    from harness import __version__
    from harness.cli import (
        baseline,
        bisect,
        claims,
        compare,
        doctor,
        history,
        images,
        inspect,
        inventory,
        lab,
        leftovers,
        merge,
        report,
        runs,
    )
    from harness.errors import HarnessError, OutputError, UsageError
    from harness.util import logs
    from harness.util.logs import one_line
    from harness.util.progress import Progress
    from harness.util.signals import stop_like_ctrl_c
    from harness.util.standard_streams import give_up_output, make_usable

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="Do the two DRBD replicas of a lab still hold the same data, and if not, why?")  # fmt: skip
app.add_typer(images.app, name="images")
app.add_typer(lab.app, name="lab")

# What typer makes of a Ctrl-C inside of a command.
_INTERRUPTED = 130


def main() -> None:
    """Entry point: one sentence and the right exit code for everything that goes wrong on purpose."""
    stop_like_ctrl_c()
    make_usable()
    with logs.with_handler(logs.PROGRESS, Progress()):
        if sys.argv[1:2] == [STEP]:
            bisect.for_git_bisect(_main)
        _main()


def _main() -> None:
    try:
        # Outside its standalone mode the exit code of typer.Exit comes back as the value of the call.
        code = app(standalone_mode=False)
        if code == _INTERRUPTED:
            raise KeyboardInterrupt
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except OutputError as error:
        give_up_output()
        _end(None if error.nobody_reads else str(error), error.exit_code)
    except HarnessError as error:
        _end(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _end("interrupted", HarnessError.exit_code)
    except Exception as wrong:  # noqa: BLE001 - else it would end with 1, which is a finding
        # click's own class of errors is a dependency of typer in some versions and a private part of it in others.
        message = getattr(wrong, "format_message", None)
        if message is not None:
            # Without a command typer prints its help, and has nothing to say.
            _end(
                f"{message() or 'which command is meant?'} (drbd-harness --help lists what there is)",
                UsageError.exit_code,
            )
        if isinstance(wrong, OSError) and wrong.filename is not None:
            _end(f"{wrong.filename}: {wrong.strerror or wrong}", HarnessError.exit_code)
        traceback.print_exc()
        _end("this is a fault of drbd-harness itself, and no answer; please report it", HarnessError.exit_code)


def _end(sentence: str | None, code: int) -> NoReturn:
    """End with what was printed so far, then the sentence, and that exit code."""
    try:
        sys.stdout.flush()
    except OutputError:
        give_up_output()
    if sentence is not None:
        print(f"drbd-harness: {one_line(sentence)}", file=sys.stderr)
    sys.exit(code)


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


# In the order in which --help lists them.
app.command()(doctor.doctor)
app.command()(runs.run)
app.command()(inventory.inventory)
app.command()(inventory.locks)
app.command()(inspect.inspect)
app.command("list")(runs.list_runs)
app.command()(runs.judge)
app.command()(report.report)
app.command()(compare.compare)
app.command()(history.history)
app.command()(baseline.baseline)
app.command()(bisect.bisect)
app.command(STEP)(bisect.bisect_step)
app.command()(claims.claims)
app.command()(merge.merge)
app.command()(leftovers.status)
app.command()(leftovers.clean)


if __name__ == "__main__":
    main()
