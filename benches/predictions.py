#!/usr/bin/env python3
"""What an iteration takes at least on a GPU that is not at hand: bytes and FLOPs over what its data sheet gives.

    cargo build --release && python3 benches/predictions.py --json benches/results/DATE-predictions.json

`udass-raw profile --dry` counts both for every call; nothing runs. Each call is taken to move each of its tensors
once, at the card's memory bandwidth, or to compute at the rate of its tensor cores (in f32: of its other units),
whichever takes longer, with nothing between the calls. No real iteration is as fast.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "target" / "release" / "udass-raw"
# Bytes per second; FLOPs per second of matmuls by precision, without sparsity (NVIDIA's data sheets, SXM).
CARDS = {
    "H100": (3.35e12, {"f32": 67e12, "tf32": 494.5e12, "bf16": 989e12}),
    "H200": (4.8e12, {"f32": 67e12, "tf32": 494.5e12, "bf16": 989e12}),
}
# Preset, method and further overrides, by their name in the tables.
JOINED = ["--set", "network.batch_student_passes=true"]
VARIANTS = {"": [], "joined": JOINED, "joined and recomputed": [*JOINED, "--set", "network.activation_checkpointing=true"]}
ITERATIONS = [*(("gta_vit", "quadmix", variant) for variant in VARIANTS), ("gta_vit", "mic", ""), ("gta_cnn", "quadmix", "")]


def predict(preset: str, method: str, variant: str, precision: str, memory: float, matrix: float) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "profile.json"
        subprocess.run([PROGRAM, "profile", preset, "--method", method, "--set", f"device.precision={precision}", "--dry", *VARIANTS[variant],
                        "--memory-rate", str(memory), "--matrix-rate", str(matrix), "--json", path],
                       cwd=folder, check=True, stdout=subprocess.DEVNULL)
        told = json.loads(path.read_text())
    calls = told.pop("calls")
    told.pop("by_shape"), told.pop("by_layer")
    return told | {"calls": len(calls), "bytes": sum(c["bytes"] for c in calls), "flops": sum(c["flops"] for c in calls)}


def short(x):
    """Rounds numbers to four digits."""
    if isinstance(x, dict):
        return {k: short(v) for k, v in x.items()}
    if isinstance(x, list):
        return [short(v) for v in x]
    return float(f"{x:.4g}") if isinstance(x, float) else x


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--json", type=Path, required=True)
    a = p.parse_args()
    git = lambda *words: subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    dirty = "-dirty" if git("status", "--porcelain", "--", "src", "kernels", "build") else ""
    rows = [{"card": card, "preset": preset, "method": method, "variant": variant, "precision": precision,
             **predict(preset, method, variant, precision, memory, rates[precision])}
            for card, (memory, rates) in CARDS.items() for preset, method, variant in ITERATIONS for precision in rates]
    for r in rows:
        print(f"{r['card']} {r['preset']} {r['method']} {r['variant']} {r['precision']}: at least {1e3 * r['profiled_seconds']:.0f} ms")
    about = json.dumps({"what": "predictions", "commit": git("rev-parse", "HEAD") + dirty})[:-1]
    lines = ",\n".join(json.dumps(short(r), separators=(",", ":")) for r in rows)
    a.json.write_text(f'{about}, "results": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
