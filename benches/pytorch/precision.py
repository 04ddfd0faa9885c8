"""How far PyTorch itself is off at lower precision: errors on the stored cases, for their tolerances.

    python precision.py [--golden tests/golden] --json tests/golden/precision.json

Runs the cases of check.py in TF32 and in bf16 autocast, and writes for every stored number how far
the result is off: rel_l2 and max_abs (of what is zero but for round-off: its largest), for discrete
maps the share that differs, after AdamW's first step also the share of values that went another
way. The largest of several equally valid ways of computing counts, so that no number is small by
luck. Tests allow at most twice as much.

With a GPU it is the real thing. Without one it is imitated on the CPU: for TF32, operands of matrix
products (attention's too) and of (dense) convolutions are rounded to 10 bits behind the point; for bf16, CPU autocast
runs with layer norm in float32, as CUDA's autocast has it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

if torch.cuda.is_available():
    torch.set_default_device("cuda")

import check
import formula
from check import ARCHS, Golden, is_noise, real
from model import CHANNELS_LAST, ConvBnRelu, DaformerHead, SeparableAspp, nchw, resize
from model import ARCHS as WIDTHS

PRECISIONS = ("tf32", "bf16")
ATEN = torch.ops.aten
# Matrix products by the places of their operands.
OPERANDS = {ATEN.mm.default: (0, 1), ATEN.bmm.default: (0, 1), ATEN.addmm.default: (1, 2), ATEN.baddbmm.default: (1, 2)}


def tf32(x: Tensor) -> Tensor:
    """To the nearest with 10 bits behind the point, away from zero between two (cvt.rna.tf32.f32)."""
    return ((x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32).view(x.shape)


class RoundedOperands(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        args = list(args)
        # Places of convolutions: input, weight; of their backward: gradient, input, weight; groups.
        if func is ATEN.convolution.default and args[8] == 1:
            args[0], args[1] = tf32_like(args[0]), tf32_like(args[1])
        elif func is ATEN.convolution_backward.default and args[9] == 1:
            args[:3] = [tf32_like(x) for x in args[:3]]
        for place in OPERANDS.get(func, ()):
            args[place] = tf32_like(args[place])
        return func(*args, **(kwargs or {}))


def tf32_like(x: Tensor) -> Tensor:
    """Rounded, in the same memory layout."""
    out = torch.empty_like(x)
    return out.copy_(tf32(x))


@contextlib.contextmanager
def replaced(owner, name: str, value):
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def norm_in_float32(x: Tensor, *rest, **more) -> Tensor:
    """As in CUDA's autocast; the CPU's has no rule for it."""
    return LAYER_NORM(x.float(), *rest, **more)


LAYER_NORM = F.layer_norm


def attention_by_products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The library's plain way (SDPBackend.MATH), whose products are seen one by one."""
    scale = q.shape[-1] ** -0.25
    return torch.softmax((q * scale) @ (k * scale).transpose(-2, -1), dim=-1) @ v


@contextlib.contextmanager
def computing(precision: str):
    cuda = torch.cuda.is_available()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    with contextlib.ExitStack() as stack:
        if precision == "tf32" and not cuda:
            # In inference mode a dispatch mode sees linear layers whole, and not their products.
            stack.enter_context(replaced(torch, "inference_mode", torch.no_grad))
            stack.enter_context(RoundedOperands())
            stack.enter_context(replaced(F, "scaled_dot_product_attention", attention_by_products))
        if precision == "bf16":
            stack.enter_context(torch.autocast("cuda" if cuda else "cpu", torch.bfloat16))
            if not cuda:
                stack.enter_context(replaced(F, "layer_norm", norm_in_float32))
        yield


class Errors(Golden):
    """Keeps how far results are off instead of judging them."""

    def start(self) -> None:
        self.errors: dict[str, dict[str, list]] = {}

    def keep(self, key: str, *error: float) -> None:
        self.checks += 1
        kept = self.errors.setdefault(self.case["name"], {}).setdefault(key, [0.0] * len(error))
        if any(e != e for e in error):
            raise RuntimeError(f"{self.case['name']} {key}: {error}")
        kept[:] = map(max, zip(kept, error))

    def close(self) -> None:
        print(f"{self.case['name']}: {len(self.errors[self.case['name']])} numbers", flush=True)

    def report(self, key: str, ratio: float, text: str) -> None:
        if math.isinf(ratio):
            raise RuntimeError(f"{self.case['name']} {key}: {text}")

    def flat(self, key: str, value: Tensor) -> tuple[Tensor, Tensor]:
        entry = self.case["tensors"][key]
        flat = value.detach().contiguous().reshape(-1).double()
        if entry["storage"] == "strided":
            flat = flat[:: entry["stride"]][: entry["count"]]
        return flat, self.stored[key].reshape(-1).double()

    def tensor(self, key: str, value: Tensor) -> None:
        entry = self.case["tensors"][key]
        flat, want = self.flat(key, value)
        if isinstance(entry["tol"], str):
            return self.keep(key, (flat != want).double().mean().item())
        off = flat - want
        if is_noise(entry):
            return self.keep(key, 0.0, flat.abs().max().item())
        # A sample may miss what is large: its fair share of the whole is what it is measured by.
        share = math.sqrt(flat.numel() / value.numel())
        size = max(want.norm().item(), share * entry.get("stats", {}).get("l2", 0.0))
        self.keep(key, off.norm().item() / size if size else 0.0, off.abs().max().item())

    def scalar(self, key: str, value: float) -> None:
        want = self.case["scalars"][key]["value"]
        self.keep(key, abs(float(value) - want) / abs(want) if want else abs(float(value)))

    def stepped(self, name: str, value: Tensor, rate: float) -> Tensor:
        key = f"param_after/{name}"
        flat, want = self.flat(key, value)
        off = (flat - want).abs()
        near = (off <= 0.02 * rate).double()
        self.keep(key, off.norm().item() / want.norm().item(), off.max().item(), 1 - near.mean().item())
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
    """The feature distance, its inputs as a network leaves them."""
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


RUNS = (*(c for c in check.CHECKS if c[1] is not check.check_method), ("pub_head_daformer_", run_head),
        ("pub_head_segformer_", run_head), ("pub_hrda_slide_", run_slide), ("pub_piece_feat_dist", run_features),
        ("pub_piece_resize", run_resize))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--golden", type=Path, default=Path("tests/golden"))
    p.add_argument("--case", default="", help="a part of the names of those to run (default: all)")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--precision", choices=PRECISIONS, action="append", help="default: both")
    p.add_argument("--json", type=Path, help="where it exists, what is not run again stays as it is")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    g = Errors(a.golden)
    ways = [{"head_layout": CHANNELS_LAST, "joint": True, "taps": False},
            {"head_layout": torch.contiguous_format, "joint": False, "taps": False}]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "imitated on the CPU"
    out = json.loads(a.json.read_text()) if a.json and a.json.exists() else {}
    out |= {"pytorch": torch.__version__, "device": device}
    for precision in a.precision or PRECISIONS:
        g.start()
        for prefix, run in RUNS:
            for name in g.cases:
                if name.startswith(prefix) and a.case in name:
                    for options in ways:
                        with computing(precision):
                            run(g, name, options)
        kept = out.setdefault(precision, {})
        kept |= {
            case: {key: [float(f"{e:.3g}") for e in error] for key, error in errors.items()}
            for case, errors in g.errors.items()}
    if a.json:
        # A line for each case.
        lines = [json.dumps({k: out[k] for k in ("pytorch", "device")})[1:-1]]
        for precision in PRECISIONS:
            rows = ",\n".join(f"{json.dumps(c)}: {json.dumps(e, separators=(',', ':'))}"
                              for c, e in sorted(out[precision].items()))
            lines.append(f'"{precision}": {{\n{rows}\n}}')
        a.json.write_text("{" + ",\n".join(lines) + "}\n")


if __name__ == "__main__":
    main()
