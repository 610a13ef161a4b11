"""No layer: the filesystem is made on the device itself."""

from __future__ import annotations

from harness.filesystems.layers.base import Layer
from harness.model import Layout


class Unlayered(Layer):
    """The filesystem sees the device."""

    layout = Layout.RAW
