#!/usr/bin/env python3
"""Predicts a lower bound of an iteration's time on GPUs that are not available.

    cargo build --release && python3 benches/predictions.py --json benches/results/DATE-predictions.json

`udass-raw profile --dry` counts the bytes and FLOPs of every call without running anything. A call is assumed to
take the longer of two times: moving each of its tensors once at the GPU's memory bandwidth, or computing at the
peak rate of its tensor cores (in f32, of its CUDA cores). Gaps between calls are ignored. No real iteration is this
fast.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "target" / "release" / "udass-raw"
# Memory bandwidth in bytes/s, and the peak rate of dense matmuls in FLOP/s by precision, from NVIDIA's data
# sheets (SXM).
CARDS = {
    "H100": (3.35e12, {"f32": 67e12, "tf32": 494.5e12, "bf16": 989e12}),
    "H200": (4.8e12, {"f32": 67e12, "tf32": 494.5e12, "bf16": 989e12}),
}
# Variants of an iteration by their name in the tables, with the flags that select them.
JOINED = ["--set", "network.batch_student_passes=true"]
VARIANTS = {"": [], "joined": JOINED, "joined and recomputed": [*JOINED, "--set", "network.activation_checkpointing=true"]}
ITERATIONS = [*(("gta_vit", "quadmix", variant) for variant in VARIANTS), ("gta_vit", "mic", ""), ("gta_cnn", "quadmix", "")]


def predict(preset: str, method: str, variant: str, precision: str, memory: float, matrix: float) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "profile.json"
        subprocess.run([PROGRAM, "profile", preset, "--method", method, "--set", f"device.precision={precision}", "--dry", *VARIANTS[variant],
                        "--memory-rate", str(memory), "--matrix-rate", str(matrix), "--json", path],
                       cwd=folder, check=True, stdout=subprocess.DEVNULL)
        profile = json.loads(path.read_text())
    calls = profile.pop("calls")
    profile.pop("by_shape"), profile.pop("by_layer")
    return profile | {"calls": len(calls), "bytes": sum(c["bytes"] for c in calls), "flops": sum(c["flops"] for c in calls)}


def short(x):
    """Rounds floats to four significant digits."""
    if isinstance(x, dict):
        return {k: short(v) for k, v in x.items()}
    if isinstance(x, list):
        return [short(v) for v in x]
    return float(f"{x:.4g}") if isinstance(x, float) else x


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--json", type=Path, required=True, help="path of the record")
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
