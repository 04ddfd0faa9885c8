#!/usr/bin/env python3
"""Reports what nvcc generates for each kernel: registers, shared memory, spills, and instruction counts.

    python3 benches/gpu/code.py --nvcc …/bin/nvcc --nvdisasm …/bin/nvdisasm --json benches/results/DATE-code-sm_90a.json

Kernels are only compiled and disassembled, so no GPU is needed. Both tools come with the CUDA toolkit or from
PyPI (nvidia-cuda-nvcc, nvidia-cuda-nvdisasm). Instructions are counted statically: one inside a loop counts once.
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

ROOT = Path(__file__).resolve().parent.parent.parent
ARCH = "sm_90a"
# Registers and maximum threads of an SM of compute capability 9.0, and the usual number of threads per block.
REGISTERS, MOST_THREADS, BLOCK = 65536, 2048, 256

# Opcode categories by prefix; the first match wins.
KINDS = [
    ("matrix", ("HMMA", "HGMMA", "IMMA", "DMMA")),
    ("special", ("MUFU",)),
    ("async_copy", ("LDGSTS", "LDGDEPBAR", "DEPBAR", "UBLKCP", "SYNCS")),
    ("load_global", ("LDG", "LD.")),
    ("store_global", ("STG", "ST.")),
    ("load_shared", ("LDS",)),
    ("store_shared", ("STS",)),
    ("local", ("LDL", "STL")),
    ("constant", ("LDC", "ULDC")),
    ("barrier", ("BAR", "WARPSYNC", "BSSY", "BSYNC", "BREAK", "MEMBAR", "ERRBAR", "CCTL")),
    ("shuffle", ("SHFL", "VOTE", "REDUX", "MATCH")),
    ("conversion", ("F2F", "F2I", "I2F", "I2I", "F2FP", "FRND", "HADD2.F32", "PRMT")),
    ("double", ("DFMA", "DADD", "DMUL", "DSETP")),
    ("float", ("FFMA", "FADD", "FMUL", "FMNMX", "FSEL", "FSETP", "FCHK", "FSET", "HFMA", "HADD", "HMUL")),
    ("control", ("BRA", "EXIT", "RET", "CALL", "NOP", "BRX", "JMP", "YIELD", "BMOV", "NANOSLEEP")),
    ("integer", ("",)),
]


def kind(opcode: str) -> str:
    return next(name for name, starts in KINDS if opcode.startswith(starts))


def resources(log: str) -> dict[str, dict]:
    """Returns the resource usage that ptxas reports for each kernel."""
    kernels: dict[str, dict] = {}
    name = None
    for line in log.splitlines():
        if found := re.search(r"Compiling entry function '(\w+)'", line):
            name = found[1]
            kernels[name] = {}
        elif name and (found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line)):
            kernels[name] |= {"stack_bytes": int(found[1]), "spill_store_bytes": int(found[2]),
                              "spill_load_bytes": int(found[3])}
        elif name and (found := re.search(r"Used (\d+) registers", line)):
            shared = re.search(r"(\d+) bytes smem", line)
            registers = int(found[1])
            # Registers are allocated per warp in units of 256.
            blocks = REGISTERS // (-(-registers * 32 // 256) * 256 * (BLOCK // 32))
            kernels[name] |= {"registers": registers, "static_shared_bytes": int(shared[1]) if shared else 0,
                              "threads_per_sm_by_registers": min(blocks * BLOCK, MOST_THREADS)}
    return kernels


def instructions(listing: str) -> dict[str, dict[str, int]]:
    """Counts the instructions of each category in each kernel."""
    kernels: dict[str, collections.Counter] = {}
    name = None
    for line in listing.splitlines():
        if found := re.match(r"\.text\.(\w+):", line.strip()):
            name = found[1]
            kernels[name] = collections.Counter()
        elif name and (found := re.match(r"\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P[0-9T]+\s+)?([A-Z][\w.]*)", line)):
            kernels[name][kind(found[1])] += 1
    return {name: dict(counts.most_common()) for name, counts in kernels.items()}


def examine(nvcc: str, nvdisasm: str, source: Path, types: str) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernels.cubin"
        built = subprocess.run([nvcc, "-std=c++17", "-O3", "--cubin", f"-arch={ARCH}", "-Xptxas", "-v",
                                f"-DUDASS_{types}", str(source), "-o", str(cubin)], capture_output=True, text=True)
        if built.returncode != 0:
            sys.exit(f"{source}:\n{built.stderr}")
        listing = subprocess.run([nvdisasm, "-c", str(cubin)], check=True, capture_output=True, text=True).stdout
    found, counts = resources(built.stderr + built.stdout), instructions(listing)
    if found.keys() != counts.keys():
        sys.exit(f"{source}: ptxas reports {sorted(found)}, but the disassembly contains {sorted(counts)}")
    return [{"kernel": name, "file": source.name, "types": types, **found[name], "instructions": counts[name]}
            for name in found]


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--nvcc", default="nvcc", help="path of nvcc (default: from PATH)")
    p.add_argument("--nvdisasm", default="nvdisasm", help="path of nvdisasm (default: from PATH)")
    p.add_argument("--types", nargs="+", default=["F32", "BF16"], help="element types to compile (default: F32 BF16)")
    p.add_argument("--json", type=Path, required=True, help="path of the record")
    a = p.parse_args()
    sources = sorted((ROOT / "kernels").glob("*.cu"))
    jobs = [(a.nvcc, a.nvdisasm, source, types) for types in a.types for source in sources]
    with ThreadPoolExecutor(2) as pool:
        kernels = [kernel for found in pool.map(lambda job: examine(*job), jobs) for kernel in found]
    git = lambda *words: subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    dirty = "-dirty" if git("status", "--porcelain", "--", "kernels") else ""
    version = subprocess.run([a.nvcc, "--version"], capture_output=True, text=True).stdout.strip().splitlines()[-1]
    about = json.dumps({"what": "code", "arch": ARCH, "commit": git("rev-parse", "HEAD") + dirty, "nvcc": version})[:-1]
    lines = ",\n".join(json.dumps(kernel, separators=(",", ":")) for kernel in kernels)
    a.json.write_text(f'{about}, "kernels": [\n{lines}\n]}}\n')
    spilling = [k for k in kernels if k["spill_store_bytes"] or k["spill_load_bytes"]]
    print(f"{len(kernels)} kernels; {len(spilling)} spill registers" + "".join(
        f"\n  {k['kernel']} ({k['types']}): {k['spill_store_bytes']} bytes stored, {k['spill_load_bytes']} bytes loaded"
        for k in spilling))
    print("highest register usage:" + "".join(
        f"\n  {k['registers']:4} {k['kernel']} ({k['types']}): up to {k['threads_per_sm_by_registers']} threads per SM"
        for k in sorted(kernels, key=lambda k: -k["registers"])[:10]))


if __name__ == "__main__":
    main()
