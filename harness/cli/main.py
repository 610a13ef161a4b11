"""The command ``drbd-harness``: its groups of commands, and what each error ends as.

Exit codes: 0 as expected, 1 a finding, 2 inconclusive or machinery, 3 nothing ran, 4 usage.
"""

from __future__ import annotations

import io
import sys

import typer

from harness import __version__
from harness.cli.processor import known_processor

with known_processor():
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

from harness.errors import HarnessError, UsageError
from harness.util import logs
from harness.util.progress import Progress
from harness.util.signals import stop_like_ctrl_c

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="Do the two DRBD replicas of a lab still hold the same data, and if not, why?")  # fmt: skip
app.add_typer(images.app, name="images")
app.add_typer(lab.app, name="lab")

# What typer makes of a Ctrl-C inside of a command.
_INTERRUPTED = 130


def main() -> None:
    """Entry point: one sentence and the right exit code for everything that goes wrong on purpose."""
    stop_like_ctrl_c()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # In a locale that has not all of what is printed a sign is written as its number; nothing ends by it.
        sys.stdout.reconfigure(errors="backslashreplace")
    with logs.with_handler(logs.PROGRESS, Progress()):
        if sys.argv[1:2] == [bisect.STEP]:
            bisect.for_git_bisect(_main)
        _main()


def _main() -> None:
    try:
        # Outside its standalone mode the exit code of typer.Exit comes back as the value of the call.
        code = app(standalone_mode=False)
        if code == _INTERRUPTED:
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except HarnessError as error:
        print(f"drbd-harness: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        print("drbd-harness: interrupted", file=sys.stderr)
        sys.exit(2)
    except Exception as wrong:
        # click's own class of errors is a dependency of typer in some versions and a private part of it in others.
        message = getattr(wrong, "format_message", None)
        if message is None:
            raise
        print(f"drbd-harness: {message()} (drbd-harness --help lists what there is)", file=sys.stderr)
        sys.exit(UsageError.exit_code)


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
app.command(bisect.STEP)(bisect.bisect_step)
app.command()(claims.claims)
app.command()(merge.merge)
app.command()(leftovers.status)
app.command()(leftovers.clean)


if __name__ == "__main__":
    main()
