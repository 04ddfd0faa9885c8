#!/usr/bin/env python3
"""Predicts an iteration's time on GPUs that are not available.

    cargo build --release && python3 benches/predictions.py --json benches/results/DATE-predictions.json

`udass-raw profile --dry --device-model` counts what every call moves and executes, without running anything, and says
how long that takes: at least (each tensor moved once at the GPU's memory bandwidth, or the FLOPs at the peak rate of
its tensor cores, in f32 of its CUDA cores), and as expected of this implementation. docs/profiling.md has the model.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "target" / "release" / "udass-raw"
# GPUs, as src/run/profile/model/machines.toml names them.
CARDS = ["h100", "h200"]
PRECISIONS = ["f32", "tf32", "bf16"]
# Variants of an iteration by their name in the tables, with the flags that select them.
JOINED = ["--set", "network.batch_student_passes=true"]
VARIANTS = {"": [], "joined": JOINED, "joined and recomputed": [*JOINED, "--set", "network.activation_checkpointing=true"]}
ITERATIONS = [*(("gta_vit", "quadmix", variant) for variant in VARIANTS), ("gta_vit", "mic", ""), ("gta_cnn", "quadmix", "")]


def predict(program: Path, preset: str, method: str, variant: str, precision: str, card: str) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "profile.json"
        subprocess.run([program, "profile", preset, "--method", method, "--set", f"device.precision={precision}", *VARIANTS[variant],
                        "--dry", "--device-model", card, "--json", path],
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
    p.add_argument("--cards", nargs="+", default=CARDS, help="GPUs (default: %(default)s)")
    p.add_argument("--program", type=Path, default=PROGRAM, help="path of udass-raw (default: %(default)s)")
    a = p.parse_args()
    git = lambda *words: subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    dirty = "-dirty" if git("status", "--porcelain", "--", "src", "kernels", "build") else ""
    rows = [{"card": card.upper(), "preset": preset, "method": method, "variant": variant, "precision": precision,
             **predict(a.program.resolve(), preset, method, variant, precision, card)}
            for card in a.cards for preset, method, variant in ITERATIONS for precision in PRECISIONS]
    for r in rows:
        print(f"{r['card']} {r['preset']} {r['method']} {r['variant']} {r['precision']}: {1e3 * r['expected_seconds']:.0f} ms expected, "
              f"at least {1e3 * r['bound_seconds']:.0f} ms")
    about = json.dumps({"what": "predictions", "commit": git("rev-parse", "HEAD") + dirty})[:-1]
    lines = ",\n".join(json.dumps(short(r), separators=(",", ":")) for r in rows)
    a.json.write_text(f'{about}, "results": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
