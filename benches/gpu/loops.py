#!/usr/bin/env python3
"""Counts what the assembler makes of the innermost loops of kernels, by kind of instruction.

    python3 benches/gpu/loops.py --nvcc …/bin/nvcc --nvdisasm …/bin/nvdisasm --json benches/results/DATE-loops-sm_90a.json

Each kernel is compiled to PTX and to machine code. A loop of one and a loop of the other are taken for the same if
they make the same accesses to global and shared memory and the same shuffles, with half to twice as much arithmetic
in floats, and if the kernel has as many such loops in PTX as in machine code. Loops that divide integers are left out:
of the two ways that PTX holds, one is executed.
`tests/ptx/counts` checks the weights of `src/run/profile/model/kernels.toml` with the record.
"""

from __future__ import annotations

import argparse
import collections
import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from code import ARCH, ROOT, kind  # noqa: E402  (the neighbor, not the standard library's module)

# The architecture whose PTX the program embeds.
VIRTUAL = "compute_80"
Loop = collections.Counter


def class_of(opcode: str) -> str:
    """Returns the class of a PTX instruction, as ptx/src/class.rs names it."""
    name, *modifiers = opcode.split(".")
    long = any(m in ("s64", "u64", "b64") for m in modifiers)
    single = any(m in ("f32", "bf16", "f16", "bf16x2", "f16x2") for m in modifiers)
    if name in ("ld", "st"):
        space = next((m for m in modifiers if m in ("param", "shared", "local", "global")), "global")
        return "parameter" if space == "param" else f"{space}_{'load' if name == 'ld' else 'store'}"
    if name in ("atom", "red"):
        return "atomic"
    if name in ("bra", "ret", "exit", "call"):
        return "control"
    if name in ("bar", "barrier", "membar", "fence"):
        return "barrier"
    if name in ("shfl", "vote", "match", "redux"):
        return "warp_exchange"
    if name in ("mma", "ldmatrix"):
        return name
    if name == "cp":
        return "async_copy"
    if name in ("setp", "selp"):
        return "long_predicate" if long else "predicate"
    if "pred" in modifiers:
        return "predicate"
    if name in ("mov", "activemask"):
        return "move"
    if name == "cvt":
        return "conversion"
    if single:
        plain = ("add", "sub", "mul", "fma", "min", "max", "neg", "abs")
        return "fp32" if name in plain else "fp32_special"
    if name in ("div", "rem"):
        return "integer_division" if long else "short_division"
    if name in ("mad", "mul") and "wide" not in modifiers:
        return "long_product" if long else "integer"
    return "long_integer" if long and name not in ("mad", "mul", "cvta") else "integer"


def loops(lines: list[str], label: str, instruction: str, of: "callable") -> list[Loop]:
    """Counts the instructions of each innermost loop; `label` and `instruction` are patterns with one group."""
    code: list[tuple[str, str]] = []
    places: dict[str, int] = {}
    found = []
    for line in lines:
        if match := re.match(label, line):
            places[match[1]] = len(code)
        elif match := re.match(instruction, line):
            code.append((match[1], line))
            target = re.search(r"(?:bra|BRA)\b.*?([$.]L\w+)", line)
            if target and target[1] in places:
                found.append((places[target[1]], len(code)))
    inner = [(a, b) for a, b in found if not any((c, d) != (a, b) and a <= c and d <= b for c, d in found)]
    return [Loop(of(opcode) for opcode, _ in code[a:b]) for a, b in inner]


def split(text: str, start: str) -> dict[str, list[str]]:
    kernels: dict[str, list[str]] = {}
    name = None
    for line in text.splitlines():
        line = line.strip()
        if match := re.match(start, line):
            name = match[1]
            kernels[name] = []
        elif name:
            kernels[name].append(line)
    return kernels


def key_of(loop: Loop, machine: bool) -> tuple[int, ...]:
    names = (("load_global", "store_global", "load_shared", "store_shared", "shuffle") if machine
             else ("global_load", "global_store", "shared_load", "shared_store", "warp_exchange"))
    return tuple(loop[name] for name in names)


def pairs(ptx: list[Loop], machine: list[Loop]) -> list[tuple[Loop, Loop]]:
    found = []
    for key in dict.fromkeys(key_of(loop, False) for loop in ptx):
        mine = [loop for loop in ptx if key_of(loop, False) == key]
        theirs = [loop for loop in machine if key_of(loop, True) == key]
        if any(key) and len(mine) == len(theirs):
            found += zip(mine, theirs)
    alike = lambda a, b: a["fp32"] < 4 or a["fp32"] <= 2 * b["float"] <= 4 * a["fp32"]
    return [(a, b) for a, b in found if alike(a, b) and not a["integer_division"] and not a["short_division"]]


def examine(nvcc: str, nvdisasm: str, source: Path, types: str) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        cubin, ptx = Path(folder) / "kernels.cubin", Path(folder) / "kernels.ptx"
        options = [nvcc, "-std=c++17", "-O3", f"-DUDASS_{types}", str(source), "-o"]
        subprocess.run([*options, cubin, "--cubin", f"-arch={ARCH}"], check=True)
        subprocess.run([*options, ptx, "--ptx", f"-arch={VIRTUAL}"], check=True)
        listing = subprocess.run([nvdisasm, "-c", cubin], check=True, capture_output=True, text=True).stdout
        virtual, machine = split(ptx.read_text(), r"\.visible \.entry (\w+)\("), split(listing, r"\.text\.(\w+):")
    rows = []
    for name, lines in virtual.items():
        of_ptx = loops(lines, r"(\$L\w+):", r"(?:@!?%p\d+\s+)?([a-z][\w.:]*)\b.*;$", class_of)
        of_machine = loops(machine[name], r"(\.L\w+):", r"/\*[0-9a-f]+\*/\s+(?:@!?U?P[0-9T]+\s+)?([A-Z][\w.]*)", kind)
        rows += [{"kernel": name, "ptx": dict(a.most_common()), "machine": dict(b.most_common())}
                 for a, b in pairs(of_ptx, of_machine)]
    return rows


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--nvcc", default="nvcc", help="path of nvcc (default: from PATH)")
    p.add_argument("--nvdisasm", default="nvdisasm", help="path of nvdisasm (default: from PATH)")
    p.add_argument("--types", nargs="+", default=["F32", "BF16"], help="element types to compile (default: F32 BF16)")
    p.add_argument("--json", type=Path, required=True, help="path of the record")
    a = p.parse_args()
    jobs = [(a.nvcc, a.nvdisasm, source, types) for types in a.types for source in sorted((ROOT / "kernels").glob("*.cu"))]
    with ThreadPoolExecutor(2) as pool:
        rows = [row for found in pool.map(lambda job: examine(*job), jobs) for row in found]
    git = lambda *words: subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    dirty = "-dirty" if git("status", "--porcelain", "--", "kernels") else ""
    version = subprocess.run([a.nvcc, "--version"], capture_output=True, text=True).stdout.strip().splitlines()[-1]
    about = json.dumps({"what": "loops", "arch": ARCH, "commit": git("rev-parse", "HEAD") + dirty, "nvcc": version})[:-1]
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    a.json.write_text(f'{about}, "loops": [\n{lines}\n]}}\n')
    print(f"{len(rows)} loops")


if __name__ == "__main__":
    main()
