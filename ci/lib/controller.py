"""For ci/controller-machine: the images that it boots and takes along, and how it reaches this machine's registries.

What this machine knows of proxies, mirrors and certificates is asked of apt and pip when it runs; none of it is stored.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from harness.errors import HarnessError
from harness.images import DEFAULT_SUITE, ensure, ensure_all
from harness.util import logs
from harness.util.paths import cache_dir
from harness.util.progress import Progress

# What apt is told about the way to its archives, and nothing that runs a program.
_APT = re.compile(r'^Acquire::(?:https?|ftp|ForceIPv4|Check-Valid-Until|Check-Date)[^"]* "[^"]+";$', re.IGNORECASE)
_PIP = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "default-timeout", "retries")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")
_CERTIFICATES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
#: Where the machine finds the certificates that this one trusts.
_BUNDLE_THERE = "/etc/ssl/certs/outside.crt"


def main(arguments: list[str]) -> int:
    """``images``: prints the folders of controller, node and guest, and the kernel's arguments; ``settings FOLDER``;
    ``port``: prints a free one.
    """
    try:
        match arguments:
            case ["images"]:
                with logs.with_handler(logs.PROGRESS, Progress()):
                    controller = ensure("controller", DEFAULT_SUITE, cache_dir())
                    lab = ensure_all([("node", DEFAULT_SUITE), ("guest", DEFAULT_SUITE)], cache_dir())
                print(*(image.directory for image in (controller, *lab)), sep="\n")
                print(shell_arguments(controller.directory))
            case ["settings", folder]:
                write_settings(Path(folder))
            case ["port"]:
                with socket.socket() as taken:
                    taken.bind(("127.0.0.1", 0))
                    print(taken.getsockname()[1])
            case _:
                print("usage: controller.py images | settings FOLDER | port", file=sys.stderr)
                return 4
    except HarnessError as error:
        print(f"ci/controller-machine: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def shell_arguments(image: Path) -> str:
    """The kernel's command line that the image wants."""
    return " ".join(json.loads((image / "manifest.json").read_text(encoding="utf-8"))["kernel_args"])


def write_settings(folder: Path) -> None:
    """``apt.conf``, ``pip.conf``, ``environment`` and ``ca.crt``, as far as this machine has anything to say."""
    (folder / "apt.conf").write_text(apt_settings(_output("apt-config", "dump")), encoding="utf-8")
    pip = _output(sys.executable, "-m", "pip", "config", "list")
    bundle = certificates(pip, os.environ)
    if bundle:
        shutil.copyfile(bundle, folder / "ca.crt")
    (folder / "pip.conf").write_text(pip_settings(pip, bundle=bundle is not None), encoding="utf-8")
    proxies = {name: os.environ.get(name) or os.environ.get(name.upper(), "") for name in _PROXIES}
    named = {name: value for name, value in proxies.items() if value}
    if mirror := os.environ.get("DRBD_HARNESS_MIRROR"):
        named["DRBD_HARNESS_MIRROR"] = mirror
    lines = "".join(f'{name}="{value}"\n' for name, value in named.items())
    (folder / "environment").write_text(lines, encoding="utf-8")


def apt_settings(dump: str) -> str:
    """The lines of ``apt-config dump`` that say how archives are reached."""
    return "".join(f"{line}\n" for line in dump.splitlines() if _APT.match(line))


def pip_settings(listed: str, *, bundle: bool) -> str:
    """A ``pip.conf`` of what ``pip config list`` printed, without what names a folder of this machine."""
    found: dict[str, str] = {}
    for key, value in _options(listed):
        words = [word for word in value.split() if not word.startswith(("/", "file:"))]
        if key in _PIP and words:
            found[key.replace("default-timeout", "timeout")] = " ".join(words)
    if bundle:
        found["cert"] = _BUNDLE_THERE
    return "[global]\n" + "".join(f"{key} = {value}\n" for key, value in found.items())


def certificates(listed: str, environment: Mapping[str, str]) -> Path | None:
    """The file of the certificates that pip trusts here, where it was told of one."""
    named = [value for key, value in _options(listed) if key == "cert"]
    named += [environment[name] for name in _CERTIFICATES if environment.get(name)]
    return next((Path(one) for one in named if Path(one).is_file()), None)


def _options(listed: str) -> list[tuple[str, str]]:
    """Each option of ``pip config list`` (``global.index-url='...'``) without its section."""
    found = re.findall(r"^[^=\s]*\.([\w-]+)='(.*)'$", listed, re.MULTILINE)
    return [(key, value.replace("\\n", " ")) for key, value in found]


def _output(*argv: str) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
