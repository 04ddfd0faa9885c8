"""Measures PyTorch's own errors at lower precision on the stored cases; their tolerances are derived from these.

    python precision.py [--golden tests/golden] --json tests/golden/precision.json

Runs the cases of check.py in TF32 and in bf16 autocast, RUNS times each. How the rounding errors of a run add up
is a matter of chance, so every run rounds differently: each tensor of weights is multiplied by 1 + u NUDGE with a
random |u| <= 1, and every other run computes the same results in a different way. A nudge changes few roundings
in the first layers, each of these changes many in the next, and after some layers all of them are different. The
nudge's effect without rounding is small in comparison; a run in float32 measures it.

The table holds, for every stored number, the largest and the median of its errors over the runs and, for a tensor
that is stored whole, the largest error of any element. The error of a tensor is its rel_l2, that of a discrete
map the share of values that differ, that of a parameter after AdamW's first step the share of values that moved
in the wrong direction, and that of a scalar its relative error; for gradients that are zero except for round-off,
it is the largest magnitude. Numbers are omitted if their own tolerance is at least twice their largest error.

The entry "in the middle" is for the median over a case's tensors of the error relative to the tensor's median
error. The head of the table says how many numbers the tests would reject, on average, in one run of all cases if
the other runs made the table (false alarms).

With a GPU, the actual arithmetic is measured. Without one, it is emulated on the CPU. For TF32, the operands of
matmuls and of dense convolutions are rounded to 10 mantissa bits: this corresponds to
torch.backends.cuda.matmul.allow_tf32 and cudnn.allow_tf32 with attention's MATH backend, whose two matmuls round
their operands like any other. For bf16, autocast on the CPU is used with layer norm in float32, as on CUDA.
Images are augmented in float32.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import math
import random
import statistics
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if torch.cuda.is_available():
    torch.set_default_device("cuda")

import check
import formula
import iteration
from check import Golden, is_noise, replaced
from iteration import Settings
from model import CHANNELS_LAST, ConvBnRelu, DaformerHead, SeparableAspp, nchw, resize

PRECISIONS = ("tf32", "bf16")
RUNS = 32
NUDGE = 2.0**-22
# The table's key for the median over a case's tensors of the error relative to each tensor's median error.
MEDIAN_KEY = "in the middle"
# The tests always allow a median up to this one.
MEDIAN_LIMIT = 1.25
# The fewest tensors in a case for which the median is meaningful.
MEDIAN_TENSORS = 8


def tf32(x: Tensor) -> Tensor:
    """Rounds to 10 mantissa bits: to nearest, ties away from zero (cvt.rna.tf32.f32)."""
    return ((x.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


class RoundedBilinear(torch.autograd.Function):
    """A bilinear operation whose operands are rounded to TF32, in the backward pass as well."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, of) -> Tensor:
        ctx.of, operands = of, (tf32(a), tf32(b))
        ctx.save_for_backward(*operands)
        return of(*operands)

    @staticmethod
    def backward(ctx, grad: Tensor):
        with torch.enable_grad():
            operands = [x.detach().requires_grad_() for x in ctx.saved_tensors]
            return *torch.autograd.grad(ctx.of(*operands), operands, tf32(grad)), None


LINEAR, CONVOLUTION, LAYER_NORM, AUGMENT = F.linear, F.conv2d, F.layer_norm, iteration.augment


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    y = RoundedBilinear.apply(x, weight, LINEAR)
    return y if bias is None else y + bias


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, stride, padding, dilation, groups: int) -> Tensor:
    if groups > 1:
        return CONVOLUTION(x, weight, bias, stride, padding, dilation, groups)
    y = RoundedBilinear.apply(x, weight, lambda x, w: CONVOLUTION(x, w, None, stride, padding, dilation))
    return y if bias is None else y + bias.view(-1, 1, 1)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's unfused attention (SDPBackend.MATH), with its matmuls in TF32."""
    scale = q.shape[-1] ** -0.25
    scores = RoundedBilinear.apply(q * scale, (k * scale).transpose(-2, -1), torch.matmul)
    return RoundedBilinear.apply(torch.softmax(scores, dim=-1), v, torch.matmul)


def norm_in_float32(x: Tensor, *rest, **more) -> Tensor:
    """Runs layer norm in float32, as autocast does on CUDA; autocast on the CPU has no rule for it."""
    return LAYER_NORM(x.float(), *rest, **more)


def augment_in_float32(*args) -> Tensor:
    """Keeps augmentation in float32: its blur uses matmuls, but is not part of a network."""
    with replaced(torch.backends.cuda.matmul, "allow_tf32", False), autocast(False):
        return AUGMENT(*args)


def autocast(enabled: bool = True):
    """Returns autocast without the cache of 16-bit weights, which would be stale after an update inside autocast."""
    return torch.autocast(torch.get_default_device().type, torch.bfloat16, enabled, cache_enabled=False)


@contextlib.contextmanager
def computing(precision: str):
    cuda = torch.cuda.is_available()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    with contextlib.ExitStack() as stack:
        stack.enter_context(replaced(iteration, "augment", augment_in_float32))
        if precision == "tf32" and not cuda:
            rounding = {"linear": linear, "conv2d": convolution, "scaled_dot_product_attention": attention}
            for name, function in rounding.items():
                stack.enter_context(replaced(F, name, function))
        if precision == "bf16":
            stack.enter_context(autocast())
            stack.enter_context(replaced(iteration.Trainer, "autocast", lambda _: contextlib.nullcontext()))
            if not cuda:
                stack.enter_context(replaced(F, "layer_norm", norm_in_float32))
        yield


def half_of_a_flip(key: str) -> float:
    """Returns half the change of a teacher's parameter if the step of one element flips its sign.

    A chain averages twice.
    """
    averages = 1 if key.startswith("ema_next/") else 2 if "/teacher_param/" in key else 0
    return averages * (1 - Settings.alpha) * Settings.lr * (10 if "head" in key else 1)


def rel_l2_from_statistics(value: Tensor, stats: dict[str, float]) -> float:
    """Returns a lower bound of a tensor's rel_l2 error, from the differences between its statistics and the stored."""
    n, l2 = value.numel(), torch.linalg.vector_norm(value, dtype=torch.float64).item()
    mean, sum_abs = value.sum(dtype=torch.float64).item() / n, value.abs().sum(dtype=torch.float64).item()
    std = math.sqrt(max(l2 * l2 / n - mean * mean, 0.0))
    off = max(math.sqrt(n) * abs(mean - stats["mean"]), math.sqrt(n) * abs(std - stats["std"]),
              abs(l2 - stats["l2"]), abs(sum_abs - stats["sum_abs"]) / math.sqrt(n))
    return off / stats["l2"] if stats["l2"] else 0.0


class Errors(Golden):
    """Records the errors of results instead of comparing them with tolerances.

    Errors that are counts (of pixels, or of steps with the opposite sign) are recorded as at least one half. The
    tests allow twice the error, so they tolerate a single one even if it occurred in none of the runs.
    """

    def start(self, precision: str) -> None:
        self.precision = precision
        # By case and number: the errors of each run, and the tolerances of the case in float32.
        self.errors: dict[str, dict[str, list[tuple[float, ...]]]] = {}
        self.own: dict[str, dict[str, tuple[float, ...]]] = {}

    def sample(self, run, name: str, options: dict, number: int) -> None:
        self.random = random.Random(number)
        with computing(self.precision):
            run(self, name, options)

    def fill(self, module: nn.Module, prefix: str = "", scale: dict | None = None) -> None:
        super().fill(module, prefix, scale)
        for key, value in module.state_dict().items():
            if not key.endswith("num_batches_tracked"):
                value.mul_(1 + NUDGE * self.random.uniform(-1, 1))

    def keep(self, key: str, *errors: tuple[float, float]) -> None:
        """Records the errors of a number, each with the tolerance of the case."""
        self.checks += 1
        if any(math.isnan(e) for e, _ in errors):
            raise RuntimeError(f"{self.case['name']} {key}: {errors}")
        case = self.case["name"]
        kept, self.own.setdefault(case, {})[key] = zip(*errors)
        self.errors.setdefault(case, {}).setdefault(key, []).append(kept)

    def close(self) -> None:
        pass

    def report(self, key: str, ratio: float, text: str) -> None:
        if math.isinf(ratio):
            raise RuntimeError(f"{self.case['name']} {key}: {text}")

    def flat(self, key: str, value: Tensor) -> tuple[Tensor, Tensor]:
        entry = self.case["tensors"][key]
        flat = value.detach().contiguous().reshape(-1)
        if entry["storage"] == "strided":
            flat = flat[:: entry["stride"]][: entry["count"]]
        return flat.double(), self.stored[key].reshape(-1).double()

    def tensor(self, key: str, value: Tensor) -> None:
        entry = self.case["tensors"][key]
        flat, want = self.flat(key, value)
        tol = entry["tol"]
        if isinstance(tol, str):
            own = 0.0 if tol == "exact" else 1 - float(tol.split()[2])  # agreement >= share
            return self.keep(key, ((flat != want).double().mean().item(), own))
        off = flat - want
        if is_noise(entry):
            return self.keep(key, (flat.abs().max().item(), tol["max_abs"]))
        if "rel_l2" not in tol:
            return self.keep(key, (off.abs().max().item(), tol["max_abs"]))
        # A strided sample may miss the large elements, so its norm is at least its proportional share of the whole.
        share = math.sqrt(flat.numel() / value.numel())
        size = max(want.norm().item(), share * entry.get("stats", {}).get("l2", 0.0))
        error, element = off.norm().item() / size if size else 0.0, off.abs().max().item()
        if entry["storage"] != "whole":
            error = max(error, rel_l2_from_statistics(value, entry["stats"]))
        flip = half_of_a_flip(key)
        if flip:  # in addition to the case's own tolerance
            error, element = max(error, flip / size + tol["rel_l2"] / 2), max(element, flip + tol["max_abs"] / 2)
        self.keep(key, (error, tol["rel_l2"]), (element, tol["max_abs"]))

    def scalar(self, key: str, value: float) -> None:
        entry, c = self.case["scalars"][key], self.case["config"]
        want = entry["value"]
        error = abs(float(value) - want)
        if key.endswith("acc_seg"):  # in percent of pixels
            side = c.get("size")
            height, width = c["hr_crop"] if ".hr." in key else (c.get("H", side), c.get("W", side))
            error = max(error, 0.5 * 100 / (c["batch"] * height * width))
        self.keep(key, (error / abs(want) if want else error, entry["tol_rel"]))

    def stepped(self, name: str, value: Tensor, rate: float) -> Tensor:
        key = f"param_after/{name}"
        flat, want = self.flat(key, value)
        off = (flat - want).abs()
        near = (off <= 0.02 * rate).double()
        self.keep(key, (max(1 - near.mean().item(), 0.5 / near.numel()), 0.02))
        return near


class SegformerHead(nn.Module):
    def __init__(self, widths, channels: int):
        super().__init__()
        self.linear_c = nn.ModuleList([nn.ModuleDict({"proj": nn.Linear(w, channels)}) for w in widths])
        self.linear_fuse = ConvBnRelu(4 * channels, channels)
        self.linear_pred = nn.Conv2d(channels, 19, 1)

    def forward(self, features):
        size = features[0].shape[1:3]
        levels = [resize(nchw(c["proj"](f)), size) for c, f in zip(self.linear_c, features)]
        return self.linear_pred(self.linear_fuse(torch.cat(levels, 1)))


def run_head(g: Errors, name: str, options: dict) -> None:
    c = g.open(name)["config"]
    widths = [shape[1] for shape in c["feat_shapes"]]
    if c["head"] == "segformer":
        head = SegformerHead(widths, 768)
    else:
        head = DaformerHead(widths, 256, SeparableAspp(1024, 256, options["taps"]), 0.0, options["head_layout"])
    g.fill(head.eval(), "decode_head.")
    maps = [g.image(f"feat{i}", shape).permute(0, 2, 3, 1) for i, shape in enumerate(c["feat_shapes"])]
    with torch.inference_mode():
        g.tensor("logits", head(maps))
    g.close()


def run_slide(g: Errors, name: str, options: dict) -> None:
    c = g.open(name)["config"]
    net = check.network(g, **options).eval()
    (b, h, w), (ch, cw), (sh, sw) = (c["batch"], c["H"], c["W"]), c["test_crop"], c["stride"]
    image = g.image("img", (b, 3, h, w))
    total, count = torch.zeros(b, 19, h, w), torch.zeros(1, 1, h, w)
    starts = lambda n, size, step: [min(i, n - size) for i in range(0, n - size + step, step)]
    with torch.inference_mode():
        for y in starts(h, ch, sh):
            for x in starts(w, cw, sw):
                total[:, :, y : y + ch, x : x + cw] += net.predict(image[:, :, y : y + ch, x : x + cw])["logits"]
                count[:, :, y : y + ch, x : x + cw] += 1
        logits = total / count
        rescaled = F.interpolate(logits, size=tuple(c["rescale_to"]), mode="bilinear", align_corners=False)
    g.tensor("logits", logits)
    g.tensor("probs", rescaled.softmax(1))
    g.tensor("pred", rescaled.argmax(1))
    g.close()


def run_features(g: Errors, name: str, _: dict) -> None:
    """Runs the feature distance on inputs of the type that a network's features have."""
    c = g.open(name)["config"]
    shape = (c["B"], c["C"], c["H"], c["W"])
    stored = lambda x: x.bfloat16() if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda") else x
    f1, f2 = (stored(g.image(key, shape)) for key in ("f1", "f2"))
    f1.requires_grad_()
    distance = torch.linalg.vector_norm((f1 - f2).float(), dim=1)[g.stored["mask"][:, 0] == 1].mean()
    distance.backward()
    g.scalar("dist", distance.item())
    g.tensor("grad_f1", f1.grad)
    g.close()


def run_resize(g: Errors, name: str, _: dict) -> None:
    bf16 = torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")
    stored = lambda x: x.bfloat16() if bf16 else x
    for key, c in g.open(name)["config"].items():
        if key.isdigit():
            x = stored(g.image(f"x{key}", c["src"])).requires_grad_()
            factor = c["scale_factor"]
            how = {"scale_factor": factor} if factor else {"size": tuple(c["dst"])}
            y = F.interpolate(x, mode="bilinear", align_corners=False, **how)
            y.backward(stored(g.image(f"g{key}", tuple(y.shape))))
            g.tensor(f"{key}/out", y)
            g.tensor(f"{key}/grad", x.grad)
    g.close()


PARTS = (*(c for c in check.CHECKS if c[1] is not check.check_method), ("pub_head_daformer_", run_head),
         ("pub_head_segformer_", run_head), ("pub_hrda_slide_", run_slide), ("pub_piece_feat_dist", run_features),
         ("pub_piece_resize", run_resize))


# Options that compute the same results in different ways.
EQUIVALENT_OPTIONS = ({"head_layout": CHANNELS_LAST, "joint": True, "taps": False},
                      {"head_layout": torch.contiguous_format, "joint": False, "taps": False})


def sample(g: Errors, precision: str, runs: int, part: str) -> None:
    """Records the errors of several runs of the cases whose names contain `part`."""
    g.start(precision)
    for prefix, run in PARTS:
        for name in (n for n in g.cases if n.startswith(prefix) and part in n):
            for number in range(runs):
                g.sample(run, name, EQUIVALENT_OPTIONS[number % len(EQUIVALENT_OPTIONS)].copy(), number)
            print(f"{precision} {name}: {len(g.errors[name])} numbers, {runs} runs", flush=True)


def rows(g: Errors) -> dict[str, dict[str, list[float]]]:
    """Returns the numbers to write, by case."""
    out: dict[str, dict[str, list[float]]] = {}
    for case, by_key in g.errors.items():
        out[case] = kept = {}
        for key, runs in by_key.items():
            each = list(zip(*runs))
            largest = [max(errors) for errors in each]
            if any(2 * most > own for most, own in zip(largest, g.own[case][key])):
                # An error from the flip of a single step has no useful median.
                kept[key] = [largest[0], 0.0 if half_of_a_flip(key) else statistics.median(each[0])]
                if g.cases[case]["tensors"].get(key, {}).get("storage") == "whole":
                    kept[key] += largest[1:]
        medians = case_medians(g, case, kept)
        if medians:
            kept[MEDIAN_KEY] = [max(medians), statistics.median(medians)]
        out[case] = {key: [float(f"{e:.3g}") for e in row] for key, row in kept.items()}
    return out


def in_l2(g: Errors, case: str, key: str) -> bool:
    """Returns whether a number is a tensor whose error is a rel_l2."""
    return "rel_l2" in (g.cases[case]["tensors"].get(key, {}).get("tol") or ())


def case_medians(g: Errors, case: str, kept: dict[str, list[float]]) -> list[float]:
    """Returns each run's median over the case's tensors of the error relative to the tensor's median error.

    The list is empty if there are too few tensors.
    """
    relative = [[run[0] / row[1] for run in g.errors[case][key]]
                for key, row in kept.items() if in_l2(g, case, key) and row[1] > 0]
    return [statistics.median(run) for run in zip(*relative)] if len(relative) >= MEDIAN_TENSORS else []


def judged(g: Errors, table: dict[str, dict[str, list[float]]]) -> dict[str, float]:
    """Returns the number of entries, and how many of a run's are expected to fail if the other runs make the table."""
    alarms = 0.0
    for case, kept in table.items():
        for key, row in kept.items():
            if key == MEDIAN_KEY:
                columns = [(case_medians(g, case, kept), MEDIAN_LIMIT)]
            else:
                columns = [(errors, own / 2) for errors, own in zip(zip(*g.errors[case][key]), g.own[case][key])]
            for errors, least in columns[: len(row) - 1]:
                second, first = sorted(errors)[-2:]
                alarms += (first > (1 if key == MEDIAN_KEY else 2) * max(second, least)) / len(errors)
    return {"numbers": sum(map(len, table.values())), "false_alarms": round(alarms, 2)}


def write(path: Path, head: dict, tables: dict) -> None:
    """Writes the tables with one line per case."""
    lines = [json.dumps(head)[1:-1]]
    for precision, table in tables.items():
        each = ",\n".join(f"{json.dumps(c)}: {json.dumps(e, separators=(',', ':'))}"
                          for c, e in sorted(table.items()) if e)
        lines.append(f'"{precision}": {{\n{each}\n}}')
    path.write_text("{" + ",\n".join(lines) + "}\n")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--golden", type=Path, default=Path("tests/golden"), help="folder of the stored cases")
    p.add_argument("--case", default="", help="run only the cases whose names contain this (default: all)")
    p.add_argument("--threads", type=int, default=2, help="number of threads (default: 2)")
    p.add_argument("--runs", type=int, default=RUNS, help="number of runs of each case (default: %(default)s)")
    p.add_argument("--json", type=Path, help="path of the table (default: none is written)")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "emulated on the CPU"
    head = {"pytorch": torch.__version__, "device": device, "runs": a.runs, "nudge": NUDGE}
    formula.weight = functools.cache(formula.weight)
    g = Errors(a.golden)
    sample(g, "f32", 1, a.case)
    alone, tables = g.errors, {}
    for precision in PRECISIONS:
        sample(g, precision, a.runs, a.case)
        tables[precision] = table = rows(g)
        head[f"judged_{precision}"] = judged(g, table)
        shares = sorted(alone[case][key][0][0] / row[1] for case, kept in table.items()
                        for key, row in kept.items() if in_l2(g, case, key) and row[1] > 0)
        print(precision, head[f"judged_{precision}"], "; error of the nudge alone relative to the median error: "
              f"median {shares[len(shares) // 2]:.4f}, 90th percentile {shares[len(shares) * 9 // 10]:.4f}")
    if a.json:
        write(a.json, head, tables)


if __name__ == "__main__":
    main()
