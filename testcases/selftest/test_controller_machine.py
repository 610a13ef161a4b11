"""What the machine of ci/controller-machine is told of this one's way to its registries, and its usage."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
SCRIPT = CHECKOUT / "ci" / "controller-machine"

_spec = importlib.util.spec_from_file_location("controller", CHECKOUT / "ci" / "lib" / "controller.py")
assert _spec and _spec.loader
controller = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(controller)

DUMP = """\
APT "";
Acquire "";
Acquire::Languages "none";
Acquire::http::Proxy "http://proxy.invalid:3128/";
Acquire::https::Verify-Peer "true";
Acquire::http::Proxy-Auto-Detect "";
Acquire::Check-Valid-Until "false";
DPkg::Post-Invoke:: "rm -rf /";
"""


def test_apt_settings_are_those_of_the_way_to_the_archives_only() -> None:
    assert controller.apt_settings(DUMP).splitlines() == [
        'Acquire::http::Proxy "http://proxy.invalid:3128/";',
        'Acquire::https::Verify-Peer "true";',
        'Acquire::Check-Valid-Until "false";',
    ]


def test_pip_settings_leave_out_what_names_folders_here() -> None:
    listed = (
        ":env:.default-timeout='180'\n"
        "global.cert='/etc/ssl/own.pem'\n"
        "global.constraint='/etc/pip/constraints.txt'\n"
        "global.extra-index-url='file:///srv/simple https://index.invalid/simple'\n"
        "global.find-links='/srv/wheels'\n"
    )
    assert controller.pip_settings(listed, bundle=True).splitlines() == [
        "[global]", "timeout = 180", "extra-index-url = https://index.invalid/simple",
        "cert = /etc/ssl/certs/outside.crt",
    ]  # fmt: skip
    assert controller.pip_settings("", bundle=False) == "[global]\n"


def test_certificates_are_those_that_pip_was_told_of(tmp_path: Path) -> None:
    bundle = tmp_path / "own.pem"
    bundle.touch()
    assert controller.certificates(f"global.cert='{bundle}'\n", {}) == bundle
    assert controller.certificates("global.cert='/not/there'\n", {"SSL_CERT_FILE": str(bundle)}) == bundle
    assert controller.certificates("", {}) is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--nonsense"], "'--nonsense' is not an option of it"),
        (["--hours", "soon"], "--hours is a whole number, not 'soon'"),
        (["--processors", "0"], "--processors is a whole number, not '0'"),
        (["--only", "look,guess"], "'guess' is no stage"),
        (["--at"], "--at needs a value"),
    ],
)
def test_script_with_bad_usage_is_one_sentence(arguments: list[str], sentence: str) -> None:
    done = subprocess.run([str(SCRIPT), *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 4
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("stage", ["setup", "quickstart"])
def test_stage_in_which_quickstart_works_is_bounded_and_asks_nobody(stage: str) -> None:
    text = SCRIPT.read_text()
    functions = text[text.index("\nholds() {") : text.index('\nmain "$@"')]
    script = f"""{functions}
say() {{ echo "$@"; }}
there() {{ echo "asked: $(cat)"; echo "there: $1"; }}
THERE=/there PATIENCE=1 MATRIX=smoke SECONDS_THERE=7
stage_{stage}
"""
    done = subprocess.run(
        ["bash", "-c", script], input="somebody", capture_output=True, text=True, timeout=60, check=True
    )
    assert "asked: \nthere: cd '/there' && " in done.stdout and "timeout -s INT 7 ./ci/quickstart --" in done.stdout


def test_helper_with_bad_usage_ends_with_4() -> None:
    argv = [sys.executable, str(CHECKOUT / "ci" / "lib" / "controller.py"), "nonsense"]
    assert subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False).returncode == 4
