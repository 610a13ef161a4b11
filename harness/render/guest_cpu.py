"""The processor of a guest on two machines that are somebody's, as libvirt describes one."""

from __future__ import annotations

from lxml import etree

#: Where QEMU emulates: known to each of them, and movable between any two.  The feature that is left out was emulated
#: by QEMU 7.2 so that kernels died of it.
EMULATED = (
    "<cpu mode='custom' match='exact' check='none'><model fallback='forbid'>qemu64</model>"
    "<feature policy='disable' name='cx16'/></cpu>"
)


def host_model(capabilities: str) -> str:
    """The processor that libvirt would give a guest, from its domain capabilities; empty where it has none."""
    found = etree.fromstring(capabilities.encode()).find("cpu/mode[@name='host-model'][@supported='yes']")
    if found is None or found.find("model") is None:
        return ""
    found.tag = "cpu"
    for name in list(found.attrib):
        del found.attrib[name]
    for one in found.iter():
        # How it is laid out says nothing.
        one.tail = None
        one.text = one.text.strip() if one.text else None
    text: str = etree.tostring(found, encoding="unicode")
    return text


def processor(domain_xml: str) -> str:
    """What processor a guest has, in words, from the live description of its domain; empty where it does not say."""
    cpu = etree.fromstring(domain_xml.encode()).find("cpu")
    if cpu is None:
        return ""
    model = str(cpu.findtext("model") or cpu.get("mode") or "")
    left_out = [one.get("name", "") for one in cpu.findall("feature") if one.get("policy") in ("disable", "forbid")]
    return f"{model}, without {', '.join(left_out)}" if left_out else model
