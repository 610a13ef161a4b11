"""What cryptsetup tells of a LUKS2 device."""

from __future__ import annotations

import json


def luks_data_offset(metadata: str) -> int:
    """The byte at which the encrypted data begin, by ``cryptsetup luksDump --dump-json-metadata``.

    :class:`ValueError` for other text, and where the data are not one segment to the end of the device.
    """
    try:
        segments = json.loads(metadata)["segments"]
        if len(segments) != 1:
            raise ValueError(f"the device has {len(segments)} encrypted segments, not one")
        (segment,) = segments.values()
        if segment["type"] != "crypt" or segment["size"] != "dynamic":
            raise ValueError(f"the encrypted segment is of type {segment['type']} and size {segment['size']}")
        return int(segment["offset"])
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"this is not the metadata of a LUKS2 device: {error}") from None
