"""Where packages come from: apt's sources and preferences for an image's suite and others beside it.

The mirrors are those that the image was made from, which stand in its own list of sources.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.config.recipe import ImageError

COMPONENT_SOURCES = {
    "kernel": ("linux", "linux-signed-amd64"),
    "drbd_utils": ("drbd-utils",),
    "qemu": ("qemu",),
    "libvirt": ("libvirt",),
}
"""The source packages whose binary packages a component is."""

# Releases that have updates and a security archive of their own.
_RELEASED = ("bullseye", "bookworm", "trixie")
# libvirt's drivers are packages of their own from here on.
_ONE_LIBVIRT = ("bullseye", "bookworm")
_WINS = 1001
_ASIDE = 100


@dataclass(frozen=True)
class Mirrors:
    """The archive's URI, that of the security archive (empty for none), and the components."""

    main: str
    security: str
    components: str

    @classmethod
    def of(cls, sources_list: str) -> Mirrors:
        """From the lines of an image's ``sources.list``; :class:`ImageError` where there is none."""
        found = [line.split() for line in sources_list.splitlines() if line.startswith("deb ")]
        # deb [options] URI SUITE COMPONENT...
        lines = [[word for word in words[1:] if not word.startswith("[") and not word.endswith("]")] for words in found]
        lines = [words for words in lines if len(words) > 2]
        if not lines:
            raise ImageError("the image names no mirror of Debian in its /etc/apt/sources.list")
        security = next((words[0] for words in lines if words[1].endswith("-security")), "")
        return cls(lines[0][0], security, " ".join(lines[0][2:]))

    def lines(self, suites: Iterable[str], keyring: str) -> str:
        """The ``sources.list`` for ``suites``, those of backports with the release below them."""
        names: dict[str, None] = {}
        for suite in suites:
            names.update(dict.fromkeys([suite.removesuffix("-backports"), suite]))
        options = f"[signed-by={keyring}]" if keyring else ""
        made = []
        for name in names:
            made.append(f"deb {options} {self.main} {name} {self.components}")
            if name in _RELEASED and self.security:
                made.append(f"deb {options} {self.main} {name}-updates {self.components}")
                made.append(f"deb {options} {self.security} {name}-security {self.components}")
        return "".join(f"{line}\n" for line in made)


def preferences(suite: str, wanted: Mapping[str, str], *, alone: bool) -> str:
    """apt's preferences for an image of ``suite`` with components (key of the stack to suite) of other suites.

    ``alone``: nothing else comes from these suites, unless nothing of the image's own could be installed instead;
    otherwise what the components need may come from them too.
    """
    stanzas = [
        (f"src:{source}", f"n=/^{other}(-updates|-security)?$/", _WINS)
        for component, other in wanted.items()
        for source in COMPONENT_SOURCES[component]
    ]
    others = sorted(set(wanted.values()) - {suite})
    for other in others:
        parents = {other, other.removesuffix("-backports")} - {suite}
        stanzas += [("*", f"n=/^{name}(-updates|-security)?$/", _ASIDE if alone else 990) for name in sorted(parents)]
    return "\n".join(
        f"Package: {package}\nPin: release {pin}\nPin-Priority: {rank}\n" for package, pin, rank in stanzas
    )


def packages_of(component: str, suite: str, recipe_packages: Iterable[str]) -> list[str]:
    """The packages that ``component`` is in ``suite``; ``recipe_packages`` are those of the image's recipe."""
    if component == "kernel":
        return [name for name in recipe_packages if name.startswith("linux-image-")]
    if component == "libvirt":
        split = [] if suite in _ONE_LIBVIRT else ["libvirt-daemon-driver-qemu", "libvirt-daemon-driver-secret"]
        whole = ["libvirt-daemon-system"] if suite in _ONE_LIBVIRT else ["libvirt-daemon"]
        return [*whole, *split, "libvirt-clients"]
    return {"drbd_utils": ["drbd-utils"], "qemu": ["qemu-system-x86", "qemu-utils"]}[component]
