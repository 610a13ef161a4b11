"""Layers between DRBD's device and the filesystem, by the names that a matrix gives them."""

from collections.abc import Mapping

from harness.filesystems.layers.base import Inner, Layer, Place
from harness.filesystems.layers.crypt import Crypt, CryptNode
from harness.filesystems.layers.crypt_qemu import CryptQemu
from harness.filesystems.layers.image_file import Qcow2OnExt4, Qcow2OnXfs, RawOnExt4, RawOnXfs
from harness.filesystems.layers.lvm import Lvm
from harness.filesystems.layers.partitioned import Partitioned
from harness.filesystems.layers.unlayered import Unlayered
from harness.model import Cell, Layout

_ALL: tuple[type[Layer], ...] = (
    Unlayered, Partitioned, Lvm, Crypt, CryptNode, CryptQemu, RawOnXfs, RawOnExt4, Qcow2OnXfs, Qcow2OnExt4,
)  # fmt: skip
LAYERS: Mapping[Layout, type[Layer]] = {one.layout: one for one in _ALL}


def layer_of(cell: Cell) -> Layer:
    """The layer of ``cell``, another object for each."""
    return LAYERS[cell.layout](cell.filesystem)


__all__ = ["LAYERS", "Inner", "Layer", "Place", "layer_of"]
