"""Seconds of single operations, PyTorch on the CPU, forward and forward + backward.

    python ops.py --preset b0_128 --json out.json
    python ops.py --op layernorm --shape '{"rows": 512, "channels": 32}'
    python ops.py --cases cases.json            # [{"op": ..., "shape": {...}}, ...]

Presets are shapes of one student pass at batch 2. The network sees half the crop: 64 pixels for
b0_toy (decoder of 64 channels) and b0_128, 128 for b0_256, 512 for b5_512 (the published 1024).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

import record
from model import ARCHS, CHANNELS_LAST, HEADS, REDUCTIONS, DepthwiseTaps, Hrda, cross_entropy, resize

Pair = tuple[Callable[[], object], Callable[[], object]]


def leaf(*shape: int, layout=None) -> Tensor:
    x = torch.randn(shape)
    return (x if layout is None else x.contiguous(memory_format=layout)).requires_grad_()


def timed(f: Callable[..., Tensor], *inputs: Tensor) -> Pair:
    """Forward alone without a graph, and forward + backward towards every input that wants it."""
    wanted = [x for x in inputs if x.requires_grad]
    with torch.no_grad():
        out = torch.randn_like(f(*inputs))

    def forward():
        with torch.inference_mode():
            f(*inputs)

    return forward, lambda: torch.autograd.grad(f(*inputs), wanted, out)


def layernorm(rows: int, channels: int) -> Pair:
    norm = lambda x, w, b: F.layer_norm(x, (channels,), w, b, 1e-6)
    return timed(norm, leaf(rows, channels), leaf(channels), leaf(channels))


def gelu(rows: int, channels: int) -> Pair:
    return timed(F.gelu, leaf(rows, channels))


def linear(rows: int, channels: int, out: int) -> Pair:
    return timed(F.linear, leaf(rows, channels), leaf(out, channels), leaf(out))


def depthwise3x3(batch: int, side: int, channels: int, dilation: int = 1) -> Pair:
    conv = lambda x, w, b: F.conv2d(x, w, b, 1, dilation, dilation, channels)
    x = leaf(batch, channels, side, side, layout=CHANNELS_LAST)
    return timed(conv, x, leaf(channels, 1, 3, 3, layout=CHANNELS_LAST), leaf(channels))


def depthwise3x3_taps(batch: int, side: int, channels: int, dilation: int) -> Pair:
    """The dilated depthwise as `model.py` computes it by default, on NHWC."""
    conv = lambda x, w: DepthwiseTaps.apply(x, w, dilation)
    return timed(conv, leaf(batch, side, side, channels), leaf(3, 3, channels))


def conv3x3(batch: int, side: int, channels: int, out: int, dilation: int = 1) -> Pair:
    conv = lambda x, w: F.conv2d(x, w, None, 1, dilation, dilation)
    x = leaf(batch, channels, side, side, layout=CHANNELS_LAST)
    return timed(conv, x, leaf(out, channels, 3, 3, layout=CHANNELS_LAST))


def attention(batch: int, heads: int, queries: int, keys: int, head_dim: int) -> Pair:
    """Inputs as the linear layers leave them: heads beside each other in a token's row."""
    def attend(q: Tensor, kv: Tensor) -> Tensor:
        k, v = kv[:, :, 0].transpose(1, 2), kv[:, :, 1].transpose(1, 2)
        return F.scaled_dot_product_attention(q.transpose(1, 2), k, v).transpose(1, 2)

    return timed(attend, leaf(batch, queries, heads, head_dim), leaf(batch, keys, 2, heads, head_dim))


def bilinear(batch: int, side: int, channels: int, factor: int) -> Pair:
    size = (side * factor, side * factor)
    return timed(lambda x: resize(x, size), leaf(batch, channels, side, side, layout=CHANNELS_LAST))


def resized_cross_entropy(batch: int, side: int, factor: int = 4) -> Pair:
    """19 classes, pixel weights, logits at 1/factor of the label's resolution."""
    label = torch.randint(0, 19, (batch, side * factor, side * factor))
    label[:, :: 7, :: 5] = 255
    weight = torch.rand(label.shape)
    logits = leaf(batch, 19, side, side, layout=CHANNELS_LAST)
    return timed(lambda x: cross_entropy(x, label, weight), logits)


def batchnorm_relu(batch: int, side: int, channels: int) -> Pair:
    norm = lambda x, w, b: F.relu_(F.batch_norm(x, None, None, w, b, training=True))
    x = leaf(batch, channels, side, side, layout=CHANNELS_LAST)
    return timed(norm, x, leaf(channels), leaf(channels))


def adamw_ema(parameters: int, tensors: int = 100) -> Pair:
    """(teacher update alone, teacher update + AdamW step); `parameters` values in all."""
    each = max(parameters // tensors, 1)
    student = [leaf(each) for _ in range(tensors)]
    teacher = [p.detach().clone() for p in student]
    for p in student:
        p.grad = torch.randn_like(p)
    optimizer = torch.optim.AdamW(student, lr=6e-5, weight_decay=0.01, fused=True)

    @torch.no_grad()
    def ema() -> None:
        torch._foreach_lerp_(teacher, student, 0.001)

    def both() -> None:
        ema()
        optimizer.step()

    return ema, both


OPS = {f.__name__: f for f in (
    layernorm, gelu, linear, depthwise3x3, depthwise3x3_taps, attention, conv3x3, bilinear, resized_cross_entropy,
    batchnorm_relu, adamw_ema)}
# preset -> (arch, side of the network's input, decoder channels)
PRESETS = {"b0_toy": ("mit_b0", 64, 64), "b0_128": ("mit_b0", 64, 256),
           "b0_256": ("mit_b0", 128, 256), "b5_512": ("mit_b5", 512, 256)}


def preset(name: str, batch: int = 2) -> list[tuple[str, dict]]:
    arch, side, channels = PRESETS[name]
    cases: list[tuple[str, dict]] = []
    add = lambda op, **shape: cases.append((op, shape))
    for s, width in enumerate(ARCHS[arch][0]):
        grid = side // (4 << s)
        tokens, keys, hidden = grid * grid, (grid // REDUCTIONS[s]) ** 2, 4 * width
        add("layernorm", rows=batch * tokens, channels=width)
        add("linear", rows=batch * tokens, channels=width, out=hidden)
        add("depthwise3x3", batch=batch, side=grid, channels=hidden)
        add("gelu", rows=batch * tokens, channels=hidden)
        add("attention", batch=batch, heads=HEADS[s], queries=tokens, keys=max(keys, 1),
            head_dim=width // HEADS[s])
    quarter = side // 4
    add("bilinear", batch=batch, side=max(quarter // 8, 1), channels=channels, factor=8)
    add("bilinear", batch=batch, side=quarter // 2, channels=channels, factor=2)
    for d in (6, 12, 18):
        add("depthwise3x3", batch=batch, side=quarter, channels=4 * channels, dilation=d)
        add("depthwise3x3_taps", batch=batch, side=quarter, channels=4 * channels, dilation=d)
    add("batchnorm_relu", batch=batch, side=quarter, channels=4 * channels)
    add("batchnorm_relu", batch=batch, side=quarter, channels=channels)
    add("linear", rows=batch * quarter**2, channels=4 * channels, out=channels)
    add("conv3x3", batch=batch, side=quarter, channels=4 * channels, out=channels)
    add("resized_cross_entropy", batch=batch, side=2 * quarter)
    with torch.device("meta"):
        student = Hrda(arch, channels, side)
    add("adamw_ema", parameters=sum(p.numel() for p in student.parameters()))
    return cases


def in_autocast(work: Callable[[], object], a: argparse.Namespace) -> None:
    with torch.autocast(a.device, torch.bfloat16, enabled=a.bf16):
        work()


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--preset", choices=PRESETS, action="append", default=[])
    p.add_argument("--op", choices=OPS)
    p.add_argument("--shape", type=json.loads, help="JSON object of the op's arguments")
    p.add_argument("--cases", type=Path, help="JSON list of {op, shape}")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--repeats", type=int, default=20)
    p.add_argument("--warmup", type=int, default=3)
    p.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    p.add_argument("--bf16", action="store_true", help="in autocast")
    p.add_argument("--json", type=Path, default=None)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    torch.set_default_device(a.device)
    torch.manual_seed(0)
    cases = [c for name in a.preset for c in preset(name)]
    if a.cases:
        cases += [(c["op"], c["shape"]) for c in json.loads(a.cases.read_text())]
    if a.op:
        if a.shape is None:
            p.error("--op needs --shape")
        cases.append((a.op, a.shape))
    if not cases:
        p.error("nothing to run: give --preset, --op with --shape, or --cases")
    results = []
    for op, shape in cases:
        try:
            with torch.autocast(a.device, torch.bfloat16, enabled=a.bf16):
                forward, backward = OPS[op](**shape)
        except (KeyError, TypeError) as e:
            p.error(f"{op} {shape}: {e}")
        cast = lambda work: lambda: in_autocast(work, a)
        forward, backward = cast(forward), cast(backward)
        f, fb = (record.sample(w, a.warmup, a.repeats).summary() for w in (forward, backward))
        results.append({"op": op, "shape": shape, "forward": f, "forward_backward": fb})
        print(f"{op:22} forward {f['median_s'] * 1e3:9.3f} ms (min {f['min_s'] * 1e3:9.3f})  "
              f"+ backward {fb['median_s'] * 1e3:9.3f} ms (min {fb['min_s'] * 1e3:9.3f})  {shape}",
              flush=True)
    record.write(a.json, vars(a), results)


if __name__ == "__main__":
    main()
