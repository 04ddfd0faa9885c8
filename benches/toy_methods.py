#!/usr/bin/env python3
"""Trains the methods on the toy world with several seeds, for the tables in docs/methods.md.

    cargo build --release
    python3 benches/toy_methods.py --presets toy_vit toy_cnn --seeds 1 2 3 --bounds toy_vit --halved toy_vit

Trains each preset with all six methods. Presets in --bounds are also trained with supervision alone, with the
settings of `source_only` and with QuadMix's network and sampling: on the source, there also for as much CPU time as
QuadMix took, and on the target. Presets in --halved are also trained with the methods without HRDA on images of half
the size, as in their publications. Writes the validation mIoU of every run to benches/results/; when started again
with the same --out, it continues where it stopped. CPU time includes evaluation. A run computes with one thread,
because threads that wait for each other stay awake for a while, longer on a busy machine; results do not depend on it.
"""
import argparse
import itertools
import json
import pathlib
import platform
import resource
import shutil
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "target" / "release" / "udass-raw"
SOURCE_VAL = ["target.layout=gta", "target.root=data/toy/gta_val", "eval.resize=[256,141]"]
# --method sets the published EMA decay and threshold; short runs need the values of the toy presets.
TOY = ["teacher.ema_decay=0.99", "pseudo_label.threshold=0.9"]
ONE_THREAD = "device.threads=1"
METHODS = ["quadmix", "mic", "hrda", "daformer", "dacs", "source_only"]
HALVED = ["source.resize=[128,70]", "target.resize=[128,64]", "data.crop=64", "rare_class_sampling.min_pixels=30",
          "pseudo_label.margins=[2,15,2,2]", "eval.resize=[128,64]", "eval.window=64", "eval.stride=32"]
# --method source_only would also change the network and the sampling.
SUPERVISED = ["teacher.enabled=false", "mask.enabled=false", "quadmix.enabled=false"]
ON_TARGET = ["source.layout=cityscapes", "source.root=data/toy/cityscapes", "source.resize=[256,128]"]


def settings(values):
    return [word for value in values for word in ("--set", value)]


def train(folder, configured, out, seed, values):
    """Trains, and returns the wall-clock and CPU seconds, including evaluation."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [PROGRAM, "train", *configured, "--out", out, *settings([*TOY, ONE_THREAD, f"seed={seed}", *values])]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": time.monotonic() - start, "cpu_seconds": cpu}


def miou(folder, configured, out, values=()):
    result = folder / "result.json"
    command = [PROGRAM, "eval", *configured, "--checkpoint", out, "--json", result]
    subprocess.run([*command, *settings(values)], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return 100 * json.loads(result.read_text())["mIoU"]


def iterations(folder, out):
    lines = (folder / out / "log.jsonl").read_text().splitlines()
    steps = [step for step in map(json.loads, lines) if step["event"] == "iteration"]
    weights = [step["pseudo_label_weight"] for step in steps if step["pseudo_label_weight"] is not None]
    return len(steps), statistics.mean(weights) if weights else None


def run(folder, preset, method, seed, values=(), name=None):
    """Trains and evaluates one run. `name` is the name of the run if it differs from the method."""
    name, configured = name or method, [preset, "--method", method]
    out = f"runs/{preset}-{name}-{seed}"
    cost = train(folder, configured, out, seed, values)
    count, weight = iterations(folder, out)
    evaluation = [value for value in values if value.startswith("eval.")]
    entry = {"preset": preset, "method": name, "seed": seed, "settings": list(values), **cost,
             "iterations": count, "target_miou": miou(folder, configured, out, evaluation), "mean_pseudo_label_weight": weight}
    if name.startswith(("source_only", "supervised_source")):
        entry["source_miou"] = miou(folder, configured, out, SOURCE_VAL)
    # Saves disk space: the state of a CNN takes 400 MB.
    shutil.rmtree(folder / out)
    print(json.dumps(entry), flush=True)
    return entry


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["toy_vit"], help="presets to train (default: toy_vit)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="seeds to train with (default: 1 2 3)")
    parser.add_argument("--bounds", nargs="*", default=[],
                        help="presets to also train with supervision alone, on the source and on the target")
    parser.add_argument("--halved", nargs="*", default=[],
                        help="presets to also train on half-size images, with the methods without HRDA")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "benches" / "results" / "toy_methods.json",
                        help="path of the record (default: benches/results/toy_methods.json)")
    args = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    record = {"commit": commit, "cpu": cpu, "machine": platform.machine(), "runs": []}
    if args.out.exists():
        record = json.loads(args.out.read_text())
        if record["commit"] != commit:
            parser.error(f"{args.out} contains runs of another commit, {record['commit']}")
    runs = record["runs"]

    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        subprocess.run([PROGRAM, "toy", "data/toy"], cwd=folder, check=True)

        def once(preset, method, seed, values=(), name=None):
            """Runs a configuration unless its result exists, and saves the result before the next run."""
            key = (preset, name or method, seed)
            for entry in runs:
                if (entry["preset"], entry["method"], entry["seed"]) == key:
                    return entry
            runs.append(run(folder, preset, method, seed, values, name))
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(record, indent=1) + "\n")
            return runs[-1]

        for preset, seed in itertools.product(args.presets, args.seeds):
            done = {method: once(preset, method, seed) for method in METHODS}
            if preset in args.halved:
                for method in ("daformer", "dacs", "source_only"):
                    once(preset, method, seed, HALVED, f"{method}_halved")
            if preset not in args.bounds:
                continue
            once(preset, "quadmix", seed, [*SUPERVISED, *ON_TARGET], "supervised_target")
            same_network = once(preset, "quadmix", seed, SUPERVISED, "supervised_source")
            for method, alone, values in [("source_only", done["source_only"], []),
                                          ("quadmix", same_network, SUPERVISED)]:
                longer = int(alone["iterations"] * done["quadmix"]["cpu_seconds"] / alone["cpu_seconds"])
                steps = [f"run.max_iters={longer}", f"run.eval_interval={longer}"]
                once(preset, method, seed, [*values, *steps], f"{alone['method']}_time")
    for name in dict.fromkeys((entry["preset"], entry["method"]) for entry in runs):
        values = [entry["target_miou"] for entry in runs if (entry["preset"], entry["method"]) == name]
        spread = statistics.stdev(values) if len(values) > 1 else 0
        print(f"{name[0]:8} {name[1]:18} {statistics.mean(values):5.1f} ± {spread:.1f}")


if __name__ == "__main__":
    main()
