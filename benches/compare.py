"""Benchmarks this project and PyTorch (benches/pytorch) against each other on one machine.

    python benches/compare.py step --python VENV/bin/python --case toy_vit/quadmix --case toy_cnn/
    python benches/compare.py ops --python VENV/bin/python --case gta_vit/ --case gta_cnn/
    python benches/compare.py forward --python VENV/bin/python      (also times ONNX Runtime)

Each round runs one case in every program, with the same sizes and threads; the order of the programs is
reversed every other round. The record holds all raw samples and, for each case, the ratios of the medians,
of the minima, and of the minimum CPU times of all threads (PyTorch's time over ours, so that a value above 1
means that ours is faster). Other work on the machine distorts wall times more than CPU times, so both are printed,
and the record says how many cores were busy elsewhere; on a busy machine, compare CPU times with --threads 1.
`ops` also measures operations that have no counterpart in PyTorch.
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
# Cores busy elsewhere, on average, from which wall times are not to be trusted.
BUSY = 0.1


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
    """Returns the bench's cases by name. Each entry of `wanted` is a full case name or a substring of case names."""
    known = json.loads(subprocess.run([binary, "--cases"], check=True, stdout=subprocess.PIPE, text=True).stdout)
    chosen: dict[str, dict] = {}
    for name in wanted or [""]:
        found = {name: known[name]} if name in known else {n: c for n, c in known.items() if name in n}
        if not found:
            sys.exit(f"no case matches `{name}`; the cases are {', '.join(known)}")
        chosen |= found
    return chosen


def flags(options: dict) -> list[str]:
    """Returns a case's options as command-line flags."""
    out = []
    for name, value in options.items():
        if isinstance(value, bool):
            out.append(f"--{name}" if value else f"--no-{name}")
        else:
            out += [f"--{name}", str(value)]
    return out


def environment(threads: int) -> dict[str, str]:
    variables = ("UDASS_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    return os.environ | {name: str(threads) for name in variables}


def record(command: list[str], flag: str, threads: int) -> dict:
    """Runs a program that writes its record to the path given with `flag`, and returns the record."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.json"
        subprocess.run([*command, flag, str(path)], cwd=HERE.parent, check=True, env=environment(threads))
        return json.loads(path.read_text())


def summary(sides: dict[str, dict[str, list]]) -> dict:
    """Returns the samples and statistics of each program, and the ratios to ours."""
    out: dict = {}
    for side, s in sides.items():
        out[side] = {"median": statistics.median(s["seconds"]), "min": min(s["seconds"]),
                     "samples_seconds": s["seconds"], "cpu_seconds": s["cpu"], "cores_busy_elsewhere": s["others"]}
        if None not in s["cpu"]:
            out[side]["cpu"] = min(s["cpu"])
    for side in sides.keys() - {"ours"}:
        for of in ("median", "min", "cpu") if "cpu" in out["ours"] else ("median", "min"):
            out[f"{side}_over_ours_{of}"] = out[side][of] / out["ours"][of]
    return out


def add(to: dict, side: str, seconds: list[float], cpu: list, others: list) -> None:
    s = to.setdefault(side, {"seconds": [], "cpu": [], "others": []})
    s["seconds"] += seconds
    s["cpu"] += cpu
    s["others"] += others


def busy(results: dict) -> float:
    """Returns the number of cores that other processes kept busy, on average over all samples."""
    sides = [side for result in results.values() for side in result.values() if isinstance(side, dict)]
    cores = [x for side in sides for x in side["cores_busy_elsewhere"] if x is not None]
    return statistics.fmean(cores) if cores else 0.0


def line(name: str, side: str, result: dict) -> str:
    """Describes a program's times for a case."""
    r = result[side]
    text = f"{name}: {side} {r['median'] * 1e3:.2f} ms (min {r['min'] * 1e3:.2f}"
    text += f", CPU {r['cpu'] * 1e3:.2f})" if "cpu" in r else ")"
    if side != "ours":
        text += f", {result[f'{side}_over_ours_median']:.2f} × ours"
        if f"{side}_over_ours_cpu" in result:
            text += f", {result[f'{side}_over_ours_cpu']:.2f} × by CPU time"
    return text


class Turns:
    """Collects the measurements of both programs by case."""

    def __init__(self) -> None:
        self.cases: dict[str, dict] = {}
        self.about: dict[str, dict] = {}
        self.options: dict[str, dict] = {}

    def ours(self, r: dict, key) -> None:
        self.about["ours"] = {k: v for k, v in r.items() if k != "results"}
        for result in r["results"]:
            sides = self.cases.setdefault(key(result), {})
            add(sides, "ours", result["samples_seconds"], result["cpu_seconds"], result["cores_busy_elsewhere"])
            self.options[key(result)] |= {k: result[k] for k in ("bytes", "flops")}

    def pytorch(self, r: dict, results, side: str = "pytorch") -> None:
        self.about[side] = {k: v for k, v in r.items() if k != "results"}
        for key, s in results(r):
            add(self.cases.setdefault(key, {}), side, s["samples_s"], s["cpu_s"], s["cores_busy_elsewhere"])


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
    chosen = cases(binary, a.case or [f"{preset}/" for preset in ("gta_vit", "gta_cnn")])
    limits = ["--warmup", str(a.warmup), "--seconds", str(a.seconds)]
    ops_py = [a.python, str(HERE / "pytorch/ops.py"), "--cases", "-", "--threads", str(a.threads),
              "--repeats", str(a.samples), *limits]
    # One PyTorch process runs all cases. It reads a case from stdin, answers with a line, and frees the
    # memory of the case before it reads the next one.
    with subprocess.Popen(ops_py, cwd=HERE.parent, env=environment(a.threads), text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as torch:
        turns.about["pytorch"] = json.loads(torch.stdout.readline())
        turns.options = {name: dict(case) for name, case in chosen.items()}
        for name, case in chosen.items():
            def ours() -> None:
                command = [binary, "--samples", str(a.samples), *limits, "--case", name]
                turns.ours(record(command, "--record", a.threads), lambda r: r["name"])

            def theirs() -> None:
                print(json.dumps(case), file=torch.stdin, flush=True)
                line = torch.stdout.readline()
                if not line:
                    sys.exit(f"benches/pytorch/ops.py failed on {name}")
                if answer := json.loads(line):
                    add(turns.cases.setdefault(name, {}), "pytorch", answer["samples_s"], answer["cpu_s"],
                        answer["cores_busy_elsewhere"])

            alternate(a.rounds, ours, theirs)
        torch.stdin.close()


def alternate(rounds: int, *programs) -> None:
    for turn in range(rounds):
        for program in programs if turn % 2 == 0 else reversed(programs):
            program()


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=("step", "ops", "forward"),
                   help="benchmark training iterations, single operations or inference")
    p.add_argument("--python", default=sys.executable, help="path of a Python interpreter with PyTorch installed")
    p.add_argument("--case", action="append", help="run only this case, or the cases whose names contain this; "
                   "may be repeated (default: all cases; for ops: gta_vit/ and gta_cnn/)")
    p.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of each program (default: all cores)")
    p.add_argument("--rounds", type=int, default=3, help="number of times that each program runs each case")
    p.add_argument("--samples", type=int, default=3, help="samples per round")
    p.add_argument("--warmup", type=int, default=1, help="warm-up runs per round")
    p.add_argument("--seconds", type=float, default=2.0,
                   help="ops only: stop sampling a case once a round has taken this many seconds")
    p.add_argument("--note", help="text to store in the record, such as what else was running on the machine")
    p.add_argument("--json", type=Path, default=None,
                   help="path of the record (default: benches/results/DATE-WHAT-pytorch.json)")
    a = p.parse_args()
    turns = Turns()
    {"step": step, "ops": ops, "forward": forward}[a.what](a, turns)
    results = {name: summary(sides) for name, sides in turns.cases.items() if len(sides) > 1 or a.what == "ops"}
    for name, r in results.items():
        for side in [side for side in r if isinstance(r[side], dict)]:
            print(line(name, side, r))
    elsewhere = busy(results)
    if elsewhere > BUSY:
        print(f"The machine was busy: other processes used {elsewhere:.2f} cores on average.")
    today = datetime.datetime.now(datetime.timezone.utc).date()
    path = a.json or HERE / "results" / f"{today}-{a.what}-pytorch.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {"what": a.what, "threads": a.threads, "rounds": a.rounds, "note": a.note,
             "cores_busy_elsewhere": elsewhere, "about": turns.about,
             "options": turns.options, "results": results}
    path.write_text(json.dumps(whole, indent=1) + "\n")
    print(f"record with all samples: {path}")


if __name__ == "__main__":
    main()
