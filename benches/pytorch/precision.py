"""How far PyTorch itself is off at lower precision: errors on the stored cases, for their tolerances.

    python precision.py [--golden tests/golden] --json tests/golden/precision.json

Runs the cases of check.py in TF32 and in bf16 autocast, RUNS times each. What a run's roundings add
up to is chance, so every run draws them anew: each tensor of weights is multiplied by 1 + u NUDGE,
|u| <= 1 random, and every other run computes another equally valid way. A nudge turns few roundings of the
first layers, each of these turns many of the next, and after some layers all are others; what it
does by itself, without rounding, is little beside that: a run in float32 tells how much.

Written for every stored number: the largest and the middle of its errors over the runs, and of a
tensor that is stored whole the largest of any element. An error is rel_l2 of a tensor, the share that
differs of a discrete map, the share that went another way of a parameter in AdamW's first step, the
relative one of a scalar; of what is zero but for round-off the largest. Left out is what the case's
own tolerance covers twice over.

"in the middle" is a number, too: of each run the middle one of the case's tensors, each measured by
its middle error. In the head stands how many numbers of one run of all cases the tests would fail if
their table were made of the others (false alarms).

With a GPU it is the real thing. Without one it is imitated on the CPU. For TF32, operands of matrix
products and of (dense) convolutions are rounded to 10 bits behind the point: that is
torch.backends.cuda.matmul.allow_tf32 and cudnn.allow_tf32 with attention's MATH back end, whose two
products round their operands like any other. For bf16, CPU autocast runs with layer norm in float32,
as CUDA's autocast has it. Pictures are augmented in float32.
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
# The key of a case's median among its numbers, its bound, and the fewest tensors that have one.
MIDDLE, IN_THE_MIDDLE, FEWEST = "in the middle", 1.25, 8


def tf32(x: Tensor) -> Tensor:
    """Rounds to the nearest with 10 mantissa bits, ties away from zero (cvt.rna.tf32.f32)."""
    return ((x.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


class Product(torch.autograd.Function):
    """A bilinear operation with rounded operands, in its gradients as well."""

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
    y = Product.apply(x, weight, LINEAR)
    return y if bias is None else y + bias


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, stride, padding, dilation, groups: int) -> Tensor:
    if groups > 1:
        return CONVOLUTION(x, weight, bias, stride, padding, dilation, groups)
    y = Product.apply(x, weight, lambda x, w: CONVOLUTION(x, w, None, stride, padding, dilation))
    return y if bias is None else y + bias.view(-1, 1, 1)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The library's unfused attention (SDPBackend.MATH)."""
    scale = q.shape[-1] ** -0.25
    scores = Product.apply(q * scale, (k * scale).transpose(-2, -1), torch.matmul)
    return Product.apply(torch.softmax(scores, dim=-1), v, torch.matmul)


def norm_in_float32(x: Tensor, *rest, **more) -> Tensor:
    """Runs layer norm in float32 as CUDA's autocast does; the CPU's has no rule for it."""
    return LAYER_NORM(x.float(), *rest, **more)


def augment_in_float32(*args) -> Tensor:
    """Keeps augmentation in float32: its blur is two matmuls here, but not part of a network."""
    with replaced(torch.backends.cuda.matmul, "allow_tf32", False), autocast(False):
        return AUGMENT(*args)


def autocast(enabled: bool = True):
    """Disables the cache of 16-bit weights, which an update inside autocast would leave stale."""
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


def half_a_turn(key: str) -> float:
    """Half the effect on a teacher parameter of one element's step going the other way; a chain has two averages."""
    averages = 1 if key.startswith("ema_next/") else 2 if "/teacher_param/" in key else 0
    return averages * (1 - Settings.alpha) * Settings.lr * (10 if "head" in key else 1)


def seen_in_statistics(value: Tensor, stats: dict[str, float]) -> float:
    """Returns the smallest rel_l2 of two tensors whose statistics differ by this much."""
    n, l2 = value.numel(), torch.linalg.vector_norm(value, dtype=torch.float64).item()
    mean, sum_abs = value.sum(dtype=torch.float64).item() / n, value.abs().sum(dtype=torch.float64).item()
    std = math.sqrt(max(l2 * l2 / n - mean * mean, 0.0))
    off = max(math.sqrt(n) * abs(mean - stats["mean"]), math.sqrt(n) * abs(std - stats["std"]),
              abs(l2 - stats["l2"]), abs(sum_abs - stats["sum_abs"]) / math.sqrt(n))
    return off / stats["l2"] if stats["l2"] else 0.0


class Errors(Golden):
    """Records the errors of results instead of judging them.

    What is counted (pixels, steps that went another way) is at least half of one: none in all runs is
    not never, and twice that is one.
    """

    def start(self, precision: str) -> None:
        self.precision = precision
        # By case and number: each run's errors, and the bounds that the case allows in float32.
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
        """Records one or several errors, and the bounds that the case itself allows."""
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
        # A sample may miss the large elements, so it is measured by its proportional share of the whole norm.
        share = math.sqrt(flat.numel() / value.numel())
        size = max(want.norm().item(), share * entry.get("stats", {}).get("l2", 0.0))
        error, element = off.norm().item() / size if size else 0.0, off.abs().max().item()
        if entry["storage"] != "whole":
            error = max(error, seen_in_statistics(value, entry["stats"]))
        turn = half_a_turn(key)
        if turn:  # in addition to what the case allows anyway
            error, element = max(error, turn / size + tol["rel_l2"] / 2), max(element, turn + tol["max_abs"] / 2)
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
    """Checks the feature distance, with inputs in the layout of a network."""
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


# Equivalent ways to compute the same result.
WAYS = ({"head_layout": CHANNELS_LAST, "joint": True, "taps": False},
        {"head_layout": torch.contiguous_format, "joint": False, "taps": False})


def sample(g: Errors, precision: str, runs: int, part: str) -> None:
    """Returns the errors of several runs of the cases whose name contains the part."""
    g.start(precision)
    for prefix, run in PARTS:
        for name in (n for n in g.cases if n.startswith(prefix) and part in n):
            for number in range(runs):
                g.sample(run, name, WAYS[number % len(WAYS)].copy(), number)
            print(f"{precision} {name}: {len(g.errors[name])} numbers, {runs} runs", flush=True)


def rows(g: Errors) -> dict[str, dict[str, list[float]]]:
    """Returns the entry that is written for each number."""
    out: dict[str, dict[str, list[float]]] = {}
    for case, by_key in g.errors.items():
        out[case] = kept = {}
        for key, runs in by_key.items():
            each = list(zip(*runs))
            largest = [max(errors) for errors in each]
            if any(2 * most > own for most, own in zip(largest, g.own[case][key])):
                # Counts of single steps have no median.
                kept[key] = [largest[0], 0.0 if half_a_turn(key) else statistics.median(each[0])]
                if g.cases[case]["tensors"].get(key, {}).get("storage") == "whole":
                    kept[key] += largest[1:]
        in_the_middle = middles(g, case, kept)
        if in_the_middle:
            kept[MIDDLE] = [max(in_the_middle), statistics.median(in_the_middle)]
        out[case] = {key: [float(f"{e:.3g}") for e in row] for key, row in kept.items()}
    return out


def in_l2(g: Errors, case: str, key: str) -> bool:
    """Returns whether a number is a tensor with an error in l2."""
    return "rel_l2" in (g.cases[case]["tensors"].get(key, {}).get("tol") or ())


def middles(g: Errors, case: str, kept: dict[str, list[float]]) -> list[float]:
    """Returns each run's median over the tensors, each relative to its median error; none if there are too few."""
    relative = [[run[0] / row[1] for run in g.errors[case][key]]
                for key, row in kept.items() if in_l2(g, case, key) and row[1] > 0]
    return [statistics.median(run) for run in zip(*relative)] if len(relative) >= FEWEST else []


def judged(g: Errors, table: dict[str, dict[str, list[float]]]) -> dict[str, float]:
    """Returns how many numbers of a run the table made of the others is expected to fail, and of how many."""
    alarms = 0.0
    for case, kept in table.items():
        for key, row in kept.items():
            if key == MIDDLE:
                columns = [(middles(g, case, kept), IN_THE_MIDDLE)]
            else:
                columns = [(errors, own / 2) for errors, own in zip(zip(*g.errors[case][key]), g.own[case][key])]
            for errors, least in columns[: len(row) - 1]:
                second, first = sorted(errors)[-2:]
                alarms += (first > (1 if key == MIDDLE else 2) * max(second, least)) / len(errors)
    return {"numbers": sum(map(len, table.values())), "false_alarms": round(alarms, 2)}


def write(path: Path, head: dict, tables: dict) -> None:
    """Writes one line per case."""
    lines = [json.dumps(head)[1:-1]]
    for precision, table in tables.items():
        each = ",\n".join(f"{json.dumps(c)}: {json.dumps(e, separators=(',', ':'))}"
                          for c, e in sorted(table.items()) if e)
        lines.append(f'"{precision}": {{\n{each}\n}}')
    path.write_text("{" + ",\n".join(lines) + "}\n")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--golden", type=Path, default=Path("tests/golden"))
    p.add_argument("--case", default="", help="a part of the names of those to run (default: all)")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--runs", type=int, default=RUNS)
    p.add_argument("--json", type=Path)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "imitated on the CPU"
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
        print(precision, head[f"judged_{precision}"], "; the nudge alone, of the middle error: "
              f"{shares[len(shares) // 2]:.4f} in the middle, {shares[len(shares) * 9 // 10]:.4f} at nine tenths")
    if a.json:
        write(a.json, head, tables)


if __name__ == "__main__":
    main()
