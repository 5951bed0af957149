"""A process's memory, as the kernel accounts it. All numbers are kilobytes of 1,024 bytes."""

import os
import re
from pathlib import Path

ROLLUP = re.compile(r"^(\w+):\s+(\d+) kB", re.MULTILINE)
MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \d+ *(.*)$")


def usage(pid):
    """Rss, Pss, Pss_Anon, Pss_File and so on of one process."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    return {name: int(value) for name, value in ROLLUP.findall(text)}


def total(pids, field="Pss"):
    """One field of several processes together."""
    return sum(usage(pid)[field] for pid in pids)


def forget_peak(pid):
    """From now on `peak` counts anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def peak(pid):
    """The most that was ever resident."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(re.search(r"^VmHWM:\s+(\d+) kB", text, re.MULTILINE).group(1))


def threads(pid):
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def descriptors(pid):
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def by_place(pid):
    """Resident memory by what it was mapped for."""
    places, place, program = {}, None, os.readlink(f"/proc/{pid}/exe")
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as lines:
        for line in lines:
            mapping = MAPPING.match(line)
            if mapping:
                size = int(mapping.group(2), 16) - int(mapping.group(1), 16)
                place = "the program (mapped file)" if mapping.group(4) == program else _place(mapping.group(4), size)
            elif line.startswith("Rss:"):
                places[place] = places.get(place, 0) + int(line.split()[1])
    return {place: size for place, size in places.items() if size}


def _place(name, size):
    if name == "[heap]" or name.startswith("[anon:"):
        return "heap"
    if name.endswith(".cwasm"):
        return "compiled guests (mapped files)"
    if name.startswith("[stack") or name.startswith("[v"):
        return "stack of the first thread"
    if name.startswith("/memfd:") or "wasm" in name:
        return "guests' memory images"
    if name:
        return "libraries and other files"
    return "heap and thread stacks" if size < 256 << 20 else "guests' memory pool"
