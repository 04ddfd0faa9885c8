#!/usr/bin/env python3
"""Writes the tables of measurements in README.md and docs from the records in benches/results.

    python3 benches/tables.py            (writes them)
    python3 benches/tables.py --check    (exits with an error if a table differs from its record)

A table is between `<!-- table KIND RECORD [WORDS] -->` and `<!-- end -->`, and ends with a link to its records:

    step RECORD SETTING...      iterations from compare.py: one row per case of these settings
    methods RECORD SETTING...   the same with one row per method and columns for each setting
    forward RECORD              inference from compare.py forward: one row per network
    full_size RECORD            iterations from .ci/full_size
    predictions RECORD CARD     expected times and lower bounds from predictions.py for one GPU
    gpu RECORD+PREDICTIONS PRESET...    iterations from gpu/run: one row per precision and method
    toy RECORD[+RECORD] PRESET...       mIoU from toy_methods.py: one row per method, columns for each preset with
                                the mIoU published for the method on GTA
    toy_same_network RECORD PRESET...   mIoU from toy_methods.py for methods that differ only in their training
    ops RECORD PRESET           operations from compare.py ops: one row per operation and size
    slower RECORD               operations that are slower than PyTorch's, with the reasons in benches/slower.toml
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CASES = ROOT / "benches/kernels/cases"
SLOWER = ROOT / "benches/slower.toml"
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# FLOPs per byte above which an operation counts as compute-bound.
MANY = 10
TABLE = re.compile(r"(<!-- table (.*?) -->\n).*?(<!-- end -->)", re.DOTALL)
METHODS = ["source_only", "dacs", "daformer", "hrda", "mic", "quadmix"]
# Images per iteration: a batch of 2 + 2.
IMAGES = 4
HALVED = ["source_only_halved", "dacs_halved", "daformer_halved"]
NAMES = {"quadmix": "QuadMix", "mic": "MIC", "source_only_time": "`source_only`, same CPU time as QuadMix",
         "supervised_source": "supervised on the source", "supervised_target": "supervised on the target",
         "supervised_source_time": "supervised on the source, same CPU time as QuadMix"} | {h: f"`{h[:-7]}`, half-size images" for h in HALVED}
# Names in the tables for the names that variants have in the records.
VARIANTS = {"joined": "batched student passes", "joined and recomputed": "batched student passes, activation checkpointing",
            "without-graph": "no CUDA graph"}


def seconds(s: float) -> str:
    return f"{s:.2f} s" if s < 10 else f"{s:.1f} s"


def grid(heads: list[str], rows: list[list[str]]) -> list[str]:
    return [" | ".join(["", *cells, ""]).strip() for cells in [heads, ["---"] * len(heads), *rows]]


def source(record: dict) -> str:
    """Describes where the numbers come from: the commit, the machine and the versions."""
    ours, pytorch = record["about"]["ours"], record["about"]["pytorch"]
    version = pytorch["version"].split("+")[0]
    text = f"Medians; commit {ours['commit'][:7]}, {ours['cpu']}, {record['threads']} threads, PyTorch {version}."
    if ceiling := ours.get("ceiling"):
        text += (f" The machine's peak rates, measured with ours: {ceiling['flops'] * 1e-9:.0f} GFLOP/s of multiply-adds,"
                 f" {ceiling['bytes'] * 1e-9:.1f} GB/s of a copy.")
    return text


def of_peak(record: dict) -> list[str]:
    """Returns the head of the column of `shares`, which records before 2026-12 do not have."""
    return ["of the peak"] if "ceiling" in record["about"]["ours"] else []


def shares(record: dict, name: str, of: str = "median") -> list[str]:
    """Returns which part of the peak rate of multiply-adds, or of a copy if that takes longer, a case reaches."""
    if not of_peak(record):
        return []
    options, ceiling = record["options"][name], record["about"]["ours"]["ceiling"]
    bound = max(options[k] / ceiling[k] for k in ("flops", "bytes"))
    return [f"{100 * bound / record['results'][name]['ours'][of]:.0f} %"]


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
            rows.append([f"{about(record['options'][name])}: {NAMES[method]}", *times(result), *shares(record, name)])
    heads = ["iteration", "udass-raw", "PyTorch", "speedup", *of_peak(record)]
    return [*grid(heads, rows), "", source(record)]


def methods(record: dict, settings: list[str]) -> list[str]:
    heads = ["iteration"] + [head for s in settings for head in (f"`{s}`", "PyTorch", "speedup")]
    rows = [[f"`{m}`"] + [cell for s in settings for cell in times(record["results"][f"{s}/{m}"])] for m in METHODS]
    return [*grid(heads, rows), "", source(record)]


def forward(record: dict, _: list[str]) -> list[str]:
    rows = []
    for name, result in record["results"].items():
        o = record["options"][name]
        cells = [f"SegFormer {o['arch'].removeprefix('mit_').upper()}, {o['side']}²", seconds(result["ours"]["median"])]
        for side in ("pytorch", "onnxruntime"):
            cells += [seconds(result[side]["median"]), f"{result[f'{side}_over_ours_median']:.2f} ×"]
        rows.append([*cells, *shares(record, name)])
    heads = ["one image", "udass-raw", "PyTorch", "speedup", "ONNX Runtime", "speedup", *of_peak(record)]
    return [*grid(heads, rows), "", source(record)]


def predictions(record: dict, cards: list[str]) -> list[str]:
    rows = []
    of = {(r["preset"], r["method"], r["variant"], r["precision"]): r for r in record["results"] if r["card"] in cards}
    modeled = all("expected_seconds" in r for r in of.values())
    for preset, method, variant in dict.fromkeys(key[:3] for key in of):
        cells = [f"`{preset}`: {NAMES[method]}{variant and ', ' + VARIANTS[variant]}"]
        for precision in ("f32", "tf32", "bf16"):
            r = of[preset, method, variant, precision]
            # Records before the model of a GPU's time have the lower bound alone.
            time = f"{1e3 * r['expected_seconds']:.0f} ms ({1e3 * r['bound_seconds']:.0f})" if modeled else f"{1e3 * r['profiled_seconds']:.0f} ms"
            cells += [time, f"{r['peak_bytes'] / 2**30:.1f} GiB"]
        rows.append([*cells, f"{r['calls']}"])
    heads = ["iteration, expected (at least)" if modeled else "iteration, lower bound", "f32", "memory", "tf32", "memory", "bf16", "memory", "calls (bf16)"]
    return [*grid(heads, rows), "", f"Predicted for {cards[0]}, not measured; commit {record['commit'][:7]}."]


def short(s: float) -> str:
    """Formats seconds as milliseconds with three significant digits."""
    return f"{1e3 * s:.{max(0, 2 - math.floor(math.log10(1e3 * s)))}f}"


def measure(record: dict) -> str:
    """Returns which statistic to show: CPU time for a single thread, because it is more reliable on a busy machine."""
    return "cpu" if record["threads"] == 1 else "median"


def ratio(result: dict, of: str) -> float | None:
    """Returns PyTorch's time over ours, rounded as in a table; None if PyTorch has no such operation."""
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
    """Yields name, options and result of each case whose operation benches/kernels still measures.

    Records are never edited, so they may contain operations that no longer exist; those are skipped.
    """
    known = {word for source in CASES.glob("*.rs") for word in re.findall(r'"(\w+)"', source.read_text())}
    for name, result in record["results"].items():
        options = record["options"][name]
        if options["op"] in known:
            yield name, options, result


def ops(record: dict, presets: list[str]) -> list[str]:
    """Returns one row per size, with columns for both passes."""
    rows: dict[tuple[str, str], dict[str, list[str]]] = {}
    for _, o, result in operations(record):
        if o["preset"] in presets:
            of = measure(record)
            over, ours = ratio(result, of), result["ours"][of]
            cells = [short(ours), short(result["pytorch"][of]) if over else "", f"{over:.2f} ×" if over else "", rate(ours, o)]
            rows.setdefault((f"`{o['op']}`", sizes(o)), {})[o["pass"]] = cells
    heads = ["operation", "size", "forward, ms", "PyTorch", "speedup", "rate", "with backward, ms", "PyTorch", "speedup", "rate"]
    missing = [""] * 4
    table = [[*key, *of.get("forward", missing), *of.get("forward_backward", missing)] for key, of in rows.items()]
    origin = source(record) if measure(record) == "median" else source(record).replace("Medians", "Minimum CPU times")
    return [*grid(heads, table), "", *([record["note"], ""] if record.get("note") else []), origin]


def slower(record: dict, _: list[str]) -> list[str]:
    """Exits with an error if no reason is given for an operation that is slower than PyTorch's."""
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
        sys.exit("\n".join([f"{SLOWER.relative_to(ROOT)} gives no reason for these operations:", *unknown]))
    return grid(["network", "operation", "speedup", "reason"], rows) if rows else ["There are none."]


def gpu(record: dict, settings: list[str]) -> list[str]:
    """Tabulates iterations that gpu/run measured.

    The lower bounds are the FLOPs over the GPU's matmul rate and the bytes over its copy rate, both measured in the
    same run. The FLOPs and bytes come from the second record, which predictions.py wrote.
    """
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
            rows.append([f"`{setting}`: {NAMES[method]}, {precision}{variant and ', ' + VARIANTS[variant]}", f"{1e3 * s:.1f} ms", f"{IMAGES / s:.1f}",
                         f"{ours['peak_bytes'] / 2**30:.1f} GiB", " and ".join(f"{1e3 * l:.1f}" for l in least) + " ms" if least else "",
                         f"{1e3 * over:.1f} ms ({side.removeprefix('pytorch-')})" if over else "", f"{over / s:.2f} ×" if over else ""])
    heads = ["iteration", "udass-raw", "images/s", "peak memory", "lower bound, by FLOPs and by bytes", "PyTorch", "speedup"]
    card = record["card"] or {"name": "no GPU", "driver_version": "none"}
    return [*grid(heads, rows), "", f"Medians; commit {record['commit'][:7]}, {card['name']}, driver {card['driver_version']}. `reference`: single "
            "precision, eager, convolutions in TF32; `best`: bf16 autocast, compiled, fused AdamW, scaled-dot-product attention."]


def published(network: str) -> dict[str, float]:
    """Returns the published mIoU on GTA -> Cityscapes by method."""
    table = next((ROOT / "src/run").glob("**/published/gta_cityscapes.toml"))
    rows = tomllib.loads(table.read_text())["rows"]
    return {row["method"]: row["means"][0] for row in rows if row["network"] == network and "method" in row}


def runs_of(record: dict, method: str, key: str, preset: str) -> list[float]:
    return [r[key] for r in record["runs"] if (r["preset"], r["method"]) == (preset, method) and r.get(key) is not None]


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""


def seeds(record: dict) -> str:
    runs = record["runs"]
    commits = " and ".join(dict.fromkeys(r["commit"][:7] for r in runs))
    return f"Mean ± standard deviation over {len({r['seed'] for r in runs})} seeds; commit {commits}, {record['cpu']}."


def toy(record: dict, presets: list[str]) -> list[str]:
    rows = []
    for method in [*HALVED, *METHODS, "source_only_time", "supervised_target"]:
        cells = [NAMES[method] if method not in METHODS else f"`{method}`"]
        for preset in presets:
            of = lambda key, m=method: runs_of(record, m, key, preset)
            # The published number goes in the row of the run at the published image size.
            runs_as_published = not of("target_miou", f"{method}_halved") and of("target_miou")
            iou = runs_as_published and published(preset.removeprefix("toy_")).get(method.removesuffix("_halved"))
            cells += [spread(of(key)) for key in ("target_miou", "source_miou")] + [f"{iou:.1f}" if iou else ""]
        rows += [cells] if any(cells[1:]) else []
    heads = ["mIoU"] + [head for p in presets for head in (f"`{p}`", "on the source domain", "published")]
    weights = [w for p in presets for w in runs_of(record, "quadmix", "mean_pseudo_label_weight", p)]
    note = f"The mean weight of QuadMix's pseudo-labels was {min(weights):.2f} to {max(weights):.2f}."
    return [*grid(heads, rows), "", f"{seeds(record)} {note}"]


def toy_same_network(record: dict, presets: list[str]) -> list[str]:
    methods = ["supervised_source", "supervised_source_time", "mic", "quadmix", "supervised_target"]
    rows = [[NAMES[m], *(spread(runs_of(record, m, key, p)) for p in presets for key in ("target_miou", "source_miou"))] for m in methods]
    heads = ["mIoU"] + [head for p in presets for head in (f"`{p}`", "on the source domain")]
    return [*grid(heads, rows), "", seeds(record)]


def full_size(record: dict, _: list[str]) -> list[str]:
    rows = [[NAMES[method], f"{s} s"] for method, s in record["iteration_seconds"].items()]
    note = f"Peak resident memory {record['peak_resident_gib']:.1f} GiB; one iteration each; commit {record['commit'][:7]}, {record['cpu']}."
    return [*grid(["iteration of `gta_vit`", "udass-raw"], rows), "", note]


KINDS = {"step": step, "methods": methods, "forward": forward, "full_size": full_size, "predictions": predictions, "toy": toy,
         "toy_same_network": toy_same_network, "ops": ops, "slower": slower, "gpu": gpu}


def rendered(match: re.Match, folder: Path) -> str:
    """Returns a table with its comments. Links are relative to `folder`, which contains the file."""
    kind, paths, *words = match[2].split()
    paths = paths.split("+")
    records = [json.loads((ROOT / path).read_text()) for path in paths]
    record = records[0]
    if kind == "gpu":
        record["more"] = records[1:]
    if kind.startswith("toy"):
        record["runs"] = [{"commit": r["commit"], **run} for r in records for run in r["runs"]]
    links = ", ".join(f"[{Path(path).stem}]({os.path.relpath(ROOT / path, folder)})" for path in paths)
    *lines, last = KINDS[kind](record, words)
    last = [last, "", f"Record: {links}."] if last.startswith("|") else [f"{last} Record: {links}."]
    return match[1] + "\n".join(["", *lines, *last, ""]) + "\n" + match[3]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true",
                        help="write nothing; exit with an error if a table differs from its record")
    check = parser.parse_args().check
    for file in FILES:
        text = file.read_text()
        now = TABLE.sub(lambda match: rendered(match, file.parent), text)
        if not check:
            file.write_text(now)
        elif now != text:
            sys.exit(f"{file.relative_to(ROOT)}: a table differs from its record; run benches/tables.py")


if __name__ == "__main__":
    main()
