"""What tc and dmsetup say of the delays that are on."""

from __future__ import annotations

import re

_UNITS = {"s": 1000.0, "ms": 1.0, "us": 0.001}


def netem_delay_ms(qdiscs: str) -> int:
    """The delay of the netem queue in the output of ``tc qdisc show dev X``, in ms; 0 without one.

    Newer versions of tc write ``20ms``, older ones ``20.0ms``.
    """
    found = re.search(r"\bnetem\b.*?\bdelay ([0-9.]+)(s|ms|us)\b", qdiscs)
    return round(float(found[1]) * _UNITS[found[2]]) if found else 0


def dm_write_delay_ms(table: str) -> int:
    """The write delay in the output of ``dmsetup table X``, in ms; 0 for any target but delay.

    A delay target is ``start length delay dev offset read_ms [dev offset write_ms [dev offset flush_ms]]``.
    """
    for line in table.splitlines():
        words = line.split()
        if len(words) >= 6 and words[2] == "delay":
            return int(words[8] if len(words) >= 9 else words[5])
    return 0
