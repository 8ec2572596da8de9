"""What a compiled program sends between devices, read from its text."""

import collections
import math
import re
from collections.abc import Mapping

_BYTES = {
    "pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4,
    "u32": 4, "f64": 8, "s64": 8, "u64": 8,
}  # fmt: skip
_KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_OPERATION = re.compile(
    rf"= (?P<type>.+?) (?P<kind>{'|'.join(_KINDS)})(?P<start>-start)?\((?P<rest>.*)"
)
_COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) \(.*\{$")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|branch_computations)=\{?((?:%[\w.\-]+(?:, )?)+)"
)
_NAME = re.compile(r"%([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


def received_bytes(program: str) -> dict[str, float]:
    """Bytes that one device receives from others in one call, by kind of collective.

    A group of ``g`` devices that gathers ``b`` bytes in all receives ``b (g - 1) / g`` on each;
    scattering the sum of ``b`` bytes takes as many, and reducing ``b`` bytes on all twice as many.
    Those are the least that there can be, and what a ring takes.

    Args:
        program: optimized HLO, ``compiled.as_text()``.

    Returns:
        Bytes per kind, those inside a loop times the number of its rounds.

    Raises:
        ValueError: if a collective lies in a loop whose number of rounds the compiler does not
            know, or the text has a form that is not known here.
    """
    bodies, entry = _computations(program)
    total: dict[str, float] = collections.defaultdict(float)
    for name, times in _calls(bodies, entry).items():
        for line in bodies[name]:
            if found := _OPERATION.search(line):
                if math.isnan(times):
                    raise ValueError(f"a loop of unknown length holds {line.strip()[:200]}")
                total[found["kind"]] += times * _received(found["kind"], found)
    return dict(total)


def _computations(program: str) -> tuple[dict[str, list[str]], str]:
    bodies: dict[str, list[str]] = {}
    name = entry = ""
    for line in program.splitlines():
        if start := _COMPUTATION.match(line):
            name = start["name"]
            bodies[name] = []
            entry = name if start["entry"] else entry
        elif name:
            bodies[name].append(line)
    if not entry:
        raise ValueError("this is no HLO program: it has no ENTRY computation")
    return bodies, entry


def _calls(bodies: Mapping[str, list[str]], entry: str) -> dict[str, float]:
    """How often each computation that is reached runs; NaN where nobody knows."""
    times: dict[str, float] = collections.defaultdict(float)

    def visit(name: str, count: float) -> None:
        times[name] += count
        for line in bodies[name]:
            rounds = 1.0
            if " while(" in line:
                trips = _TRIPS.search(line)
                rounds = float(trips[1]) if trips else math.nan
            for called in _CALLED.findall(line):
                for other in _NAME.findall(called):
                    visit(other, count * rounds)

    visit(entry, 1.0)
    return dict(times)


def _received(kind: str, found: re.Match[str]) -> float:
    group = _group_size(kind, found["rest"])
    size = _size(found["type"], last=bool(found["start"]) and kind == "all-gather")
    if kind == "collective-permute":
        return size / 2 if found["start"] else size  # a start gives its operand back too
    if kind == "reduce-scatter":
        size *= group  # the result is one part
    return (2 if kind == "all-reduce" else 1) * size * (group - 1) / group


def _size(shapes: str, *, last: bool) -> float:
    sizes = [
        _BYTES[dtype] * math.prod(int(side) for side in sides.split(",") if side)
        for dtype, sides in _ARRAY.findall(shapes)
        if dtype in _BYTES
    ]
    return sum(sizes[len(sizes) // 2 :]) if last else sum(sizes)


def _group_size(kind: str, rest: str) -> int:
    """Devices of a group, which HLO writes in one of four ways."""
    if kind == "collective-permute":
        return 2
    if lists := re.search(r"replica_groups=\{\{([\d,]*)\}", rest):
        return len(lists[1].split(","))
    if iota := re.search(r"replica_groups=\[(\d+),(\d+)\]<=", rest):
        return int(iota[2])
    if mesh := re.search(r"replica_groups=mesh\[(.*?)\].*? \{(.*?)\}", rest):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", mesh[2]))
    raise ValueError(f"no groups of devices are known in {rest[:200]!r}")
