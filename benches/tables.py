#!/usr/bin/env python3
"""Writes the tables of measurements in README.md and docs from the records in benches/results.

    python3 benches/tables.py            (writes them)
    python3 benches/tables.py --check    (fails where they are not what the records say)

A table stands between `<!-- table KIND RECORD [WORDS] -->` and `<!-- end -->`:

    step RECORD SETTING...      iterations of compare.py: a row for each case of these settings
    methods RECORD SETTING...   the same: a row for each method, columns for each setting
    forward RECORD              networks of compare.py forward: a row for each
    predictions RECORD CARD     what predictions.py wrote for a card
    gpu RECORD+PREDICTIONS PRESET...    iterations of gpu/run: a row for each precision and method
    toy RECORD[+RECORD] PRESET... mIoU of toy_methods.py: a row for each method, columns for each preset, the published
                                mIoU of the method on GTA beside them
    ops RECORD PRESET           operations of compare.py ops: a row for each
    slower RECORD               those of them that are slower than PyTorch's, with the reason that benches/slower.toml gives
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CASES = ROOT / "benches/kernels/cases"
SLOWER = ROOT / "benches/slower.toml"
FILES = [ROOT / "README.md", ROOT / "docs/operations.md"]
# FLOPs per byte from which on it is arithmetic that takes the time.
MANY = 10
TABLE = re.compile(r"(<!-- table (.*?) -->\n).*?(<!-- end -->)", re.DOTALL)
METHODS = ["source_only", "dacs", "daformer", "hrda", "mic", "quadmix"]
# That an iteration learns from: a batch of 2 + 2.
IMAGES = 4
HALVED = ["source_only_halved", "dacs_halved", "daformer_halved"]
NAMES = {"quadmix": "QuadMix", "mic": "MIC", "source_only_time": "`source_only`, as long as QuadMix",
         "supervised_target": "supervised on the target"} | {h: f"`{h[:-7]}`, pictures of half the size" for h in HALVED}


def seconds(s: float) -> str:
    return f"{s:.2f} s" if s < 10 else f"{s:.1f} s"


def grid(heads: list[str], rows: list[list[str]]) -> list[str]:
    return [" | ".join(["", *cells, ""]).strip() for cells in [heads, ["---"] * len(heads), *rows]]


def source(record: dict) -> str:
    """Where the numbers are from; the commit, the machine and the versions."""
    ours, pytorch = record["about"]["ours"], record["about"]["pytorch"]
    version = pytorch["version"].split("+")[0]
    return (f"Medians; commit {ours['commit'][:7]}, {ours['cpu']}, {record['threads']} threads, PyTorch {version}.")


def about(options: dict) -> str:
    arch = options["arch"].replace("mit_", "MiT-").replace("b", "B")
    return f"{arch}, crop {options['crop']}, {options['channels']} channels"


def times(result: dict) -> list[str]:
    return [seconds(result[side]["median"]) for side in ("ours", "pytorch")] \
        + [f"{result['pytorch_over_ours_median']:.2f} ×"]


def step(record: dict, settings: list[str]) -> list[str]:
    rows = []
    for name, result in record["results"].items():
        setting, method = name.split("/")
        if setting in settings:
            rows.append([f"{about(record['options'][name])}: {NAMES[method]}", *times(result)])
    return [*grid(["iteration", "udass-raw", "PyTorch", ""], rows), "", source(record)]


def methods(record: dict, settings: list[str]) -> list[str]:
    heads = ["iteration"] + [head for s in settings for head in (f"`{s}`", "PyTorch", "")]
    rows = [[f"`{m}`"] + [cell for s in settings for cell in times(record["results"][f"{s}/{m}"])] for m in METHODS]
    return [*grid(heads, rows), "", source(record)]


def forward(record: dict, _: list[str]) -> list[str]:
    rows = []
    for name, result in record["results"].items():
        o = record["options"][name]
        cells = [f"SegFormer {o['arch'].removeprefix('mit_').upper()}, {o['side']}²", seconds(result["ours"]["median"])]
        for side in ("pytorch", "onnxruntime"):
            cells += [seconds(result[side]["median"]), f"{result[f'{side}_over_ours_median']:.2f} ×"]
        rows.append(cells)
    heads = ["one picture", "udass-raw", "PyTorch", "", "ONNX Runtime", ""]
    return [*grid(heads, rows), "", source(record)]


def predictions(record: dict, cards: list[str]) -> list[str]:
    rows = []
    of = {(r["preset"], r["method"], r["variant"], r["precision"]): r for r in record["results"] if r["card"] in cards}
    for preset, method, variant in dict.fromkeys(key[:3] for key in of):
        cells = [f"`{preset}`: {NAMES[method]}{variant and ', ' + variant}"]
        for precision in ("f32", "tf32", "bf16"):
            r = of[preset, method, variant, precision]
            cells += [f"{1e3 * r['profiled_seconds']:.0f} ms", f"{r['peak_bytes'] / 2**30:.1f} GiB"]
        rows.append([*cells, f"{r['calls']}"])
    heads = ["iteration, at least", "f32", "", "tf32", "", "bf16", "", "calls (bf16)"]
    return [*grid(heads, rows), "", f"Predicted for {cards[0]}, not measured; commit {record['commit'][:7]}."]


def short(s: float) -> str:
    """Three digits, in milliseconds."""
    return f"{1e3 * s:.{max(0, 2 - math.floor(math.log10(1e3 * s)))}f}"


def measure(record: dict) -> str:
    """CPU seconds of a single thread say more than a clock where others are at work."""
    return "cpu" if record["threads"] == 1 else "median"


def ratio(result: dict, of: str) -> float | None:
    """PyTorch's seconds over ours, as a table shows it; None where PyTorch has no such operation."""
    over = result.get(f"pytorch_over_ours_{of}")
    return None if over is None else round(over, 2)


def rate(seconds: float, o: dict) -> str:
    per_second = lambda n: n / seconds * 1e-9
    return f"{per_second(o['flops']):.0f} GFLOP/s" if o["flops"] > MANY * o["bytes"] else f"{per_second(o['bytes']):.1f} GB/s"


def sizes(o: dict) -> str:
    usual = {"stride": 1, "dilation": 1}
    shown = {k: v for k, v in o["shape"].items() if not isinstance(v, bool) and usual.get(k) != v}
    return ", ".join(f"{key} {value}" for key, value in shown.items())


def operations(record: dict) -> Iterator[tuple[str, dict, dict]]:
    """Name, options and result of each case whose operation benches/kernels still measures. A record stays as it was
    written; an operation that the program no longer has is in no table."""
    known = {word for source in CASES.glob("*.rs") for word in re.findall(r'"(\w+)"', source.read_text())}
    for name, result in record["results"].items():
        options = record["options"][name]
        if options["op"] in known:
            yield name, options, result


def ops(record: dict, presets: list[str]) -> list[str]:
    """A row for each size, both passes beside each other."""
    rows: dict[tuple[str, str], dict[str, list[str]]] = {}
    for _, o, result in operations(record):
        if o["preset"] in presets:
            of = measure(record)
            over, ours = ratio(result, of), result["ours"][of]
            cells = [short(ours), short(result["pytorch"][of]) if over else "", f"{over:.2f} ×" if over else "", rate(ours, o)]
            rows.setdefault((f"`{o['op']}`", sizes(o)), {})[o["pass"]] = cells
    heads = ["", "", "forward, ms", "PyTorch", "", "", "with backward, ms", "PyTorch", "", ""]
    missing = [""] * 4
    table = [[*key, *of.get("forward", missing), *of.get("forward_backward", missing)] for key, of in rows.items()]
    said = source(record) if measure(record) == "median" else source(record).replace("Medians", "Least CPU seconds")
    return [*grid(heads, table), "", *([record["note"], ""] if record.get("note") else []), said]


def slower(record: dict, _: list[str]) -> list[str]:
    """Fails where an operation that is slower than PyTorch's has no reason."""
    reasons = tomllib.loads(SLOWER.read_text())["reason"]
    rows, unknown = [], []
    for name, o, result in operations(record):
        over = ratio(result, measure(record))
        if over is None or over >= 1.0:
            continue
        found = [r for r in reasons if r["op"] == o["op"] and r.get("case", "") in name]
        if not found:
            unknown.append(f"  {name}: {over:.2f} ×")
            continue
        rows.append([f"`{o['preset']}`", f"`{o['op']}`, {sizes(o)}, {o['pass'].replace('_', ' + ')}", f"{over:.2f} ×", found[0]["why"]])
    if unknown:
        sys.exit("\n".join([f"{SLOWER.relative_to(ROOT)} has no reason for", *unknown]))
    return grid(["", "operation", "PyTorch's time over ours", "reason"], rows) if rows else ["None is."]


def gpu(record: dict, settings: list[str]) -> list[str]:
    """Iterations that gpu/run measured. `least`: FLOPs over the card's rate of products and bytes over its rate of copies, both
    from the same run; how many they are, predictions.py counted (the second record)."""
    commands, counted = record["commands"], record["more"][0]["results"]
    result = lambda name: commands.get(name, {}).get("record", {}).get("results", [None])[0]
    rows = []
    for setting, method, precision in [(s, m, p) for s in settings for m in ("quadmix", "mic") for p in ("f32", "tf32", "bf16")]:
        rates = {r["op"]: r for r in commands.get(f"rates-{precision}", {}).get("record", {}).get("results", [])}
        of = next(r for r in counted if (r["preset"], r["method"], r["precision"]) == (setting, method, precision))
        least = [of[what] / (rates[op][what] / rates[op]["median"]) for what, op in (("flops", "product"), ("bytes", "copy")) if op in rates]
        side = "pytorch-best" if precision == "bf16" else "pytorch-reference"
        theirs = result(f"{side}-{method}")
        for variant in ("", "joined", "without-graph"):
            ours = result(f"step-{method}-{precision}" + (variant and f"-{variant}"))
            if ours is None:
                continue
            s = ours["median"]
            over = theirs["total"]["median_s"] if theirs else None
            rows.append([f"`{setting}`: {NAMES[method]}, {precision}{variant and ', ' + variant.replace('-', ' ')}", f"{1e3 * s:.1f} ms", f"{IMAGES / s:.1f}",
                         f"{ours['peak_bytes'] / 2**30:.1f} GiB", " and ".join(f"{1e3 * l:.1f}" for l in least) + " ms" if least else "",
                         f"{1e3 * over:.1f} ms ({side.removeprefix('pytorch-')})" if over else "", f"{over / s:.2f} ×" if over else ""])
    heads = ["iteration", "udass-raw", "images/s", "peak", "least, by FLOPs and by bytes", "PyTorch", ""]
    card = record["card"] or {"name": "no card", "driver_version": "none"}
    return [*grid(heads, rows), "", f"Medians; commit {record['commit'][:7]}, {card['name']}, driver {card['driver_version']}. `reference`: single "
            "precision, eager, convolutions in TF32; `best`: bf16 autocast, compiled, fused AdamW, scaled-dot-product attention."]


def published(network: str) -> dict[str, float]:
    """Published mIoU by method, on GTA -> Cityscapes."""
    rows = tomllib.loads((ROOT / "src/run/published/gta_cityscapes.toml").read_text())["rows"]
    return {row["method"]: row["means"][0] for row in rows if row["network"] == network and "method" in row}


def toy(record: dict, presets: list[str]) -> list[str]:
    runs = record["runs"]

    def of(preset: str, method: str, key: str) -> list[float]:
        return [r[key] for r in runs if (r["preset"], r["method"]) == (preset, method) and r.get(key) is not None]

    def spread(values: list[float]) -> str:
        return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""

    rows = []
    for method in [*HALVED, *METHODS, "source_only_time", "supervised_target"]:
        cells = [NAMES[method] if method not in METHODS else f"`{method}`"]
        for preset in presets:
            # Where a method ran as it is published, the number stands there.
            runs_as_published = not of(preset, f"{method}_halved", "target_miou") and of(preset, method, "target_miou")
            iou = runs_as_published and published(preset.removeprefix("toy_")).get(method.removesuffix("_halved"))
            cells += [spread(of(preset, method, key)) for key in ("target_miou", "source_miou")] + [f"{iou:.1f}" if iou else ""]
        rows += [cells] if any(cells[1:]) else []
    heads = ["mIoU"] + [head for p in presets for head in (f"`{p}`", "on the source", "published")]
    seeds = len({r["seed"] for r in runs})
    weights = [w for p in presets for w in of(p, "quadmix", "mean_pseudo_label_weight")]
    commits = " and ".join(dict.fromkeys(r["commit"][:7] for r in runs))
    about = (f"Mean ± standard deviation over {seeds} seeds; commit {commits}. "
             f"The mean weight of QuadMix's pseudo-labels was {min(weights):.2f} to {max(weights):.2f}.")
    return [*grid(heads, rows), "", about]


KINDS = {"step": step, "methods": methods, "forward": forward, "predictions": predictions, "toy": toy, "ops": ops, "slower": slower, "gpu": gpu}


def rendered(match: re.Match) -> str:
    kind, paths, *words = match[2].split()
    records = [json.loads((ROOT / path).read_text()) for path in paths.split("+")]
    record = records[0]
    if kind == "gpu":
        record["more"] = records[1:]
    if kind == "toy":
        record["runs"] = [{"commit": r["commit"], **run} for r in records for run in r["runs"]]
    return match[1] + "\n".join(["", *KINDS[kind](record, words), ""]) + "\n" + match[3]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    for file in FILES:
        text = file.read_text()
        now = TABLE.sub(rendered, text)
        if not check:
            file.write_text(now)
        elif now != text:
            sys.exit(f"{file.relative_to(ROOT)}: a table is not what its record says; run benches/tables.py")


if __name__ == "__main__":
    main()
