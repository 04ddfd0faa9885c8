"""Both programs in turns on one machine: this project's benches and benches/pytorch.

    python benches/compare.py step --python VENV/bin/python --case toy_vit/quadmix --case toy_cnn/
    python benches/compare.py ops --python VENV/bin/python --preset b0_128
    python benches/compare.py forward --python VENV/bin/python      (ONNX Runtime too)

Each round runs one program and then the other, the first of a round alternating, with the same
sizes and threads; all raw samples of both go into one record, with the ratio of the medians and of
the minima (PyTorch's seconds over ours: above 1, ours is faster).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PRESETS = ("b0_128", "b0_256", "b5_512")


def build(bench: str) -> str:
    """Builds a bench and returns its executable."""
    command = ["cargo", "bench", "--bench", bench, "--no-run", "--message-format=json"]
    lines = subprocess.run(command, cwd=HERE.parent, check=True, stdout=subprocess.PIPE, text=True).stdout
    for line in lines.splitlines():
        message = json.loads(line)
        if message.get("executable") and message.get("target", {}).get("name") == bench:
            return message["executable"]
    sys.exit(f"cargo built no bench `{bench}`")


def cases(binary: str, wanted: list[str] | None) -> dict[str, dict]:
    """What a bench can run of what is wanted, by name: each a whole name, or a part of several."""
    known = json.loads(subprocess.run([binary, "--cases"], check=True, stdout=subprocess.PIPE, text=True).stdout)
    chosen: dict[str, dict] = {}
    for name in wanted or [""]:
        found = {name: known[name]} if name in known else {n: c for n, c in known.items() if name in n}
        if not found:
            sys.exit(f"there is no case `{name}`; the cases are {', '.join(known)}")
        chosen |= found
    return chosen


def flags(options: dict) -> list[str]:
    """A case's options as a command line."""
    out = []
    for name, value in options.items():
        if isinstance(value, bool):
            out.append(f"--{name}" if value else f"--no-{name}")
        else:
            out += [f"--{name}", str(value)]
    return out


def record(command: list[str], flag: str, threads: int) -> dict:
    """Runs a program that writes a record to the path behind `flag`."""
    variables = ("UDASS_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    environment = os.environ | {name: str(threads) for name in variables}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.json"
        subprocess.run([*command, flag, str(path)], cwd=HERE.parent, check=True, env=environment)
        return json.loads(path.read_text())


def summary(sides: dict[str, dict[str, list]]) -> dict:
    """Samples of both sides, and how they compare."""
    out: dict = {}
    for side, s in sides.items():
        out[side] = {"median": statistics.median(s["seconds"]), "min": min(s["seconds"]),
                     "samples_seconds": s["seconds"], "cores_busy_elsewhere": s["others"]}
    for side in sides.keys() - {"ours"}:
        for of in ("median", "min"):
            out[f"{side}_over_ours_{of}"] = out[side][of] / out["ours"][of]
    return out


def add(to: dict, side: str, seconds: list[float], others: list) -> None:
    s = to.setdefault(side, {"seconds": [], "others": []})
    s["seconds"] += seconds
    s["others"] += others


class Turns:
    """Collects what both programs measured, by case."""

    def __init__(self) -> None:
        self.cases: dict[str, dict] = {}
        self.about: dict[str, dict] = {}
        self.options: dict[str, dict] = {}

    def ours(self, r: dict, key) -> None:
        self.about["ours"] = {k: v for k, v in r.items() if k != "results"}
        for result in r["results"]:
            sides = self.cases.setdefault(key(result), {})
            add(sides, "ours", result["samples_seconds"], result["cores_busy_elsewhere"])

    def pytorch(self, r: dict, results, side: str = "pytorch") -> None:
        self.about[side] = {k: v for k, v in r.items() if k != "results"}
        for key, s in results(r):
            add(self.cases.setdefault(key, {}), side, s["samples_s"], s["cores_busy_elsewhere"])


def step(a: argparse.Namespace, turns: Turns) -> None:
    binary = build("step")
    sampling = ["--samples", str(a.samples), "--warmup", str(a.warmup)]
    turns.options = cases(binary, a.case)
    for name, options in turns.options.items():
        torch = [a.python, str(HERE / "pytorch/step.py"), "--name", name, *flags(options),
                 "--threads", str(a.threads), "--repeats", str(a.samples), "--warmup", str(a.warmup)]
        ours = lambda: turns.ours(
            record([binary, *sampling, "--case", name], "--record", a.threads), lambda r: r["name"])
        theirs = lambda: turns.pytorch(
            record(torch, "--json", a.threads), lambda r: [(x["name"], x["total"]) for x in r["results"]])
        alternate(a.rounds, ours, theirs)


def forward(a: argparse.Namespace, turns: Turns) -> None:
    binary = build("forward")
    sampling = ["--samples", str(a.samples), "--warmup", str(a.warmup)]
    turns.options = cases(binary, a.case)
    for name, options in turns.options.items():
        torch = [a.python, str(HERE / "pytorch/forward.py"), "--name", name, *flags(options),
                 "--threads", str(a.threads), "--repeats", str(a.samples), "--warmup", str(a.warmup)]
        results = lambda r: [(x["name"], x["total"]) for x in r["results"]]
        ours = lambda: turns.ours(
            record([binary, *sampling, "--case", name], "--record", a.threads), lambda r: r["name"])
        pytorch = lambda: turns.pytorch(record(torch, "--json", a.threads), results)
        onnx = lambda: turns.pytorch(
            record([*torch, "--runtime", "onnxruntime"], "--json", a.threads), results, "onnxruntime")
        alternate(a.rounds, ours, pytorch, onnx)


def ops(a: argparse.Namespace, turns: Turns) -> None:
    binary = build("kernels")
    sampling = ["--samples", str(a.samples), "--warmup", str(a.warmup)]
    key = lambda op, shape, which: f"{op} {json.dumps(shape, sort_keys=True)} {which}"

    def of_pytorch(r: dict):
        for x in r["results"]:
            for which in ("forward", "forward_backward"):
                yield key(x["op"], x["shape"], which), x[which]

    for preset in a.preset or PRESETS[:1]:
        torch = [a.python, str(HERE / "pytorch/ops.py"), "--preset", preset, "--threads", str(a.threads),
                 "--repeats", str(a.samples), "--warmup", str(a.warmup)]
        ours = lambda: turns.ours(
            record([binary, *sampling, "--case", preset + "/"], "--record", a.threads),
            lambda r: key(r["op"], r["shape"], r["pass"]))
        alternate(a.rounds, ours, lambda: turns.pytorch(record(torch, "--json", a.threads), of_pytorch))


def alternate(rounds: int, *programs) -> None:
    for turn in range(rounds):
        for program in programs if turn % 2 == 0 else reversed(programs):
            program()


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=("step", "ops", "forward"))
    p.add_argument("--python", default=sys.executable, help="a Python that has torch")
    p.add_argument("--case", action="append", help="of step and forward: a name, or a part of several; default: all")
    p.add_argument("--preset", choices=PRESETS, action="append", help="of ops")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--samples", type=int, default=3, help="in a round")
    p.add_argument("--warmup", type=int, default=1, help="in a round")
    p.add_argument("--json", type=Path, default=None)
    a = p.parse_args()
    turns = Turns()
    {"step": step, "ops": ops, "forward": forward}[a.what](a, turns)
    results = {name: summary(sides) for name, sides in turns.cases.items() if len(sides) > 1}
    for name, r in results.items():
        for side in [side for side in r if isinstance(r[side], dict)]:
            over = f", {r[f'{side}_over_ours_median']:.2f} of ours" if side != "ours" else ""
            print(f"{name}: {side} {r[side]['median'] * 1e3:.2f} ms (min {r[side]['min'] * 1e3:.2f}){over}")
    today = datetime.datetime.now(datetime.timezone.utc).date()
    path = a.json or HERE / "results" / f"{today}-{a.what}-pytorch.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {"what": a.what, "threads": a.threads, "rounds": a.rounds, "about": turns.about,
             "options": turns.options, "results": results}
    path.write_text(json.dumps(whole, indent=1) + "\n")
    print(f"every sample: {path}")


if __name__ == "__main__":
    main()
