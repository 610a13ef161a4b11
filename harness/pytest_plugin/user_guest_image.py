"""A user's guest image among the options: looked at before anything starts, copied when a run begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.config.run_specs import specs_from_options
from harness.errors import UsageError
from harness.images.user_image import Choices, UserImage, keep, look_at, table
from harness.pytest_plugin.options import IMAGE_OPTIONS, flag
from harness.util.paths import cache_dir


@dataclass(frozen=True)
class ChosenImage:
    """The image that was given, and what was said about its guest."""

    image: UserImage
    chosen: Choices

    def table(self) -> dict[str, Any]:
        """As a lab spec has it, once it is in the cache: seconds for each GiB of the file."""
        return table(self.image, self.chosen, keep(self.image, cache_dir()))


def chosen_image(config: pytest.Config, asked: dict[str, Any]) -> ChosenImage | None:
    """The image that was given, None where none was; ``asked`` is what is asked of the lab.

    :class:`~harness.errors.UsageError` where it cannot be used, or where there is no image to say something about.
    """
    name, firmware, bus, memory, vcpus, seconds = (config.getoption(flag(option)) for option in IMAGE_OPTIONS)
    if name is None:
        given = [option for option in IMAGE_OPTIONS if config.getoption(flag(option)) is not None]
        if given:
            raise UsageError(
                f"{flag(given[0])} is about a guest image of yours: give it with {flag('guest_image')} FILE"
            )
        return None
    found = ChosenImage(look_at(Path(name), flag("guest_image")), Choices(firmware, bus, memory, vcpus, seconds))
    # What is wrong with a number is said now.
    specs_from_options(asked, table(found.image, found.chosen, "0" * 64))
    return found
