"""Times single operations in PyTorch, forward and forward + backward.

    python ops.py --cases cases.json --case gta_vit/       # cases from the output of `kernels --cases`
    python ops.py --cases -                                # reads one case per line and answers each with a line

The cases and their sizes come from benches/kernels; cases without a counterpart in PyTorch are skipped. Where an
operation takes several PyTorch calls, it is the short sequence that a PyTorch user would write. Each case cycles
through as many sets of inputs as it does there; outputs are kept until their inputs are used again.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import math
import sys
from pathlib import Path
from typing import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

import record
from model import CHANNELS_LAST, resize

# The function to time, and one that creates a set of inputs for it.
Op = tuple[Callable[..., object], Callable[[], tuple]]
OPS: dict[str, Callable[..., Op]] = {}
# Minimum duration of a sample.
SAMPLE_SECONDS = 0.02
CLASSES = 19


def op(make: Callable[..., Op]) -> Callable[..., Op]:
    OPS[make.__name__] = make
    return make


def numbers(*shape: int) -> Tensor:
    return torch.rand(shape) * 2 - 1


def leaf(*shape: int) -> Tensor:
    return numbers(*shape).requires_grad_()


def grid(batch: int, side: int, channels: int, learns: bool = True) -> Tensor:
    """A feature map with channels innermost in memory."""
    x = numbers(batch, channels, side, side).contiguous(memory_format=CHANNELS_LAST)
    return x.requires_grad_(learns)


def filters(out: int, channels: int, kernel: int) -> Tensor:
    return numbers(out, channels, kernel, kernel).contiguous(memory_format=CHANNELS_LAST).requires_grad_()


def labels(*shape: int) -> Tensor:
    """Labels in blocks of one class each, some of them unlabeled (255)."""
    *batch, height, width = shape
    block = max(height // 8, 8)
    cells = torch.randint(0, CLASSES + 1, (*batch, math.ceil(height / block), math.ceil(width / block)))
    cells[cells == CLASSES] = 255
    return cells.repeat_interleave(block, -2).repeat_interleave(block, -1)[..., :height, :width].contiguous()


# Layers.

@op
def layernorm(rows: int, channels: int) -> Op:
    return (lambda x, w, b: F.layer_norm(x, (channels,), w, b, 1e-6),
            lambda: (leaf(rows, channels), leaf(channels), leaf(channels)))


@op
def add_layernorm(batch: int, tokens: int, channels: int, rate: float) -> Op:
    def add(x: Tensor, branch: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        scale = x.new_empty(batch, 1, 1).bernoulli_(1 - rate).div_(1 - rate)
        x = torch.addcmul(x, branch, scale)
        return x, F.layer_norm(x, (channels,), w, b, 1e-6)

    whole = (batch, tokens, channels)
    return add, lambda: (leaf(*whole), leaf(*whole), leaf(channels), leaf(channels))


@op
def linear(rows: int, channels: int, out: int, bias: bool) -> Op:
    return F.linear, lambda: (leaf(rows, channels), leaf(out, channels), *([leaf(out)] if bias else []))


@op
def attention(batch: int, heads: int, queries: int, keys: int, head_dim: int) -> Op:
    """Takes inputs in the layout that the linear layers produce, with the heads of a token adjacent in its row."""
    def attend(q: Tensor, kv: Tensor) -> Tensor:
        k, v = kv[:, :, 0].transpose(1, 2), kv[:, :, 1].transpose(1, 2)
        return F.scaled_dot_product_attention(q.transpose(1, 2), k, v).transpose(1, 2)

    return attend, lambda: (leaf(batch, queries, heads, head_dim), leaf(batch, keys, 2, heads, head_dim))


@op
def depthwise3x3(batch: int, side: int, channels: int, dilation: int) -> Op:
    return (lambda x, w: F.conv2d(x, w, None, 1, dilation, dilation, channels),
            lambda: (grid(batch, side, channels), filters(channels, 1, 3)))


@op
def depthwise_gelu(batch: int, side: int, channels: int) -> Op:
    return (lambda x, w, b: F.gelu(F.conv2d(x, w, b, 1, 1, 1, channels)),
            lambda: (grid(batch, side, channels), filters(channels, 1, 3), leaf(channels)))


def conv(batch: int, side: int, channels: int, out: int, kernel: int, stride: int, padding: int, dilation: int,
         bias: bool) -> Op:
    return (lambda x, w, b=None: F.conv2d(x, w, b, stride, padding, dilation),
            lambda: (grid(batch, side, channels, channels != 3), filters(out, channels, kernel),
                     *([leaf(out)] if bias else [])))


OPS |= {name: conv for name in ("patch_embed", "reduction", "conv_strided", "conv3x3")}


def normalized(batch: int, side: int, channels: int, relu: bool, training: bool) -> Op:
    def norm(x: Tensor, w: Tensor, b: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        y = F.batch_norm(x, mean, var, w, b, training)
        return F.relu_(y) if relu else y

    return norm, lambda: (grid(batch, side, channels), leaf(channels), leaf(channels), numbers(channels),
                          torch.ones(channels))


@op
def batchnorm(batch: int, side: int, channels: int) -> Op:
    return normalized(batch, side, channels, False, True)


@op
def batchnorm_relu(batch: int, side: int, channels: int) -> Op:
    return normalized(batch, side, channels, True, True)


@op
def batchnorm_running_relu(batch: int, side: int, channels: int) -> Op:
    return normalized(batch, side, channels, True, False)


@op
def max_pool(batch: int, side: int, channels: int) -> Op:
    return lambda x: F.max_pool2d(x, 3, 2, 1), lambda: (grid(batch, side, channels),)


@op
def add(batch: int, side: int, channels: int) -> Op:
    return torch.add, lambda: (grid(batch, side, channels), grid(batch, side, channels))


@op
def add_relu(batch: int, side: int, channels: int) -> Op:
    return lambda x, y: F.relu_(x + y), lambda: (grid(batch, side, channels), grid(batch, side, channels))


@op
def bilinear(batch: int, side: int, channels: int, to: int) -> Op:
    return lambda x: resize(x, (to, to)), lambda: (grid(batch, side, channels, channels != 3),)


@op
def resize_concat(batch: int, side: int, channels: int) -> Op:
    return (lambda *levels: torch.cat([resize(x, (side, side)) for x in levels], 1),
            lambda: tuple(grid(batch, max(side >> i, 1), channels) for i in range(4)))


@op
def linear_of_resized(batch: int, side: int, channels: int, out: int) -> Op:
    def joined(*maps: Tensor) -> Tensor:
        *levels, weight = maps
        return F.conv2d(torch.cat([resize(x, (side, side)) for x in levels], 1), weight[:, :, None, None])

    return joined, lambda: (*(grid(batch, max(side >> i, 1), channels) for i in range(4)), leaf(out, 4 * channels))


@op
def folded_linear_of_resized(batch: int, side: int, channels: int, widths: list[int], out: int) -> Op:
    def joined(*tensors: Tensor) -> Tensor:
        maps, weight = tensors[:4], tensors[-1]
        pairs = zip(maps, tensors[4:-1:2], tensors[5:-1:2])
        levels = [F.conv2d(x, w[:, :, None, None], b) for x, w, b in pairs]
        return F.conv2d(torch.cat([resize(x, (side, side)) for x in levels], 1), weight[:, :, None, None])

    inner = [lambda w=w: (leaf(channels, w), leaf(channels)) for w in widths]
    return joined, lambda: (*(grid(batch, max(side >> i, 1), w) for i, w in enumerate(widths)),
                            *(t for pair in inner for t in pair()), leaf(out, 4 * channels))


@op
def concat(batch: int, side: int, channels: int, parts: int) -> Op:
    return lambda *maps: torch.cat(maps, 1), lambda: tuple(grid(batch, side, channels) for _ in range(parts))


@op
def dropout2d(batch: int, side: int, channels: int, rate: float) -> Op:
    return lambda x: F.dropout2d(x, rate), lambda: (grid(batch, side, channels),)


# Scales, losses, labels.

@op
def crop(batch: int, side: int, channels: int, to: int) -> Op:
    y, x = side // 4, side // 8
    return (lambda image: image[:, :, y:y + to, x:x + to].clone(),
            lambda: (grid(batch, side, channels, False),))


@op
def crop_labels(batch: int, side: int, channels: int, to: int) -> Op:
    y, x = side // 4, side // 8
    return lambda label: label[:, y:y + to, x:x + to].clone(), lambda: (labels(batch, side, side).byte(),)


def windows(side: int, window: int) -> list[tuple[int, int]]:
    starts = range(0, side - window + 1, window // 2)
    return list(itertools.product(starts, starts))


@op
def window_crops(batch: int, side: int, channels: int, window: int) -> Op:
    places = windows(side, window)
    return (lambda x: torch.cat([x[:, :, i:i + window, j:j + window] for i, j in places]),
            lambda: (grid(batch, side, channels, False),))


@op
def window_average(batch: int, side: int, channels: int, window: int) -> Op:
    places = windows(side, window)

    def average(x: Tensor) -> Tensor:
        total = x.new_zeros(batch, channels, side, side).contiguous(memory_format=CHANNELS_LAST)
        count = x.new_zeros(1, 1, side, side)
        for part, (i, j) in zip(x.split(batch), places):
            total[:, :, i:i + window, j:j + window] += part
            count[:, :, i:i + window, j:j + window] += 1
        return total.div_(count)

    return average, lambda: (grid(len(places) * batch, window, channels, False),)


@op
def hrda_fuse(batch: int, side: int, classes: int, detail: int) -> Op:
    # Detail of the same size as the map covers all of it; smaller detail covers a box.
    y, x = (side // 4, side // 8) if detail < side else (0, 0)

    def fuse(context: Tensor, fine: Tensor, attention: Tensor) -> Tensor:
        attention = attention.sigmoid()
        if detail < side:
            inside = attention.new_zeros(attention.shape[2:])
            inside[y // 2:(y + detail) // 2, x // 2:(x + detail) // 2] = 1
            attention = attention * inside
            fine = F.pad(fine, (x, side - x - detail, y, side - y - detail))
        size = (side, side)
        return resize(attention, size) * fine + resize((1 - attention) * context, size)

    return fuse, lambda: (grid(batch, side // 2, classes), grid(batch, detail, classes), grid(batch, side // 2, classes))


@op
def resized_cross_entropy(batch: int, side: int, classes: int, to: int) -> Op:
    def loss(logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
        return (F.cross_entropy(resize(logits, (to, to)), label, ignore_index=255, reduction="none") * weight).mean()

    return loss, lambda: (grid(batch, side, classes), labels(batch, to, to), torch.rand(batch, to, to))


@op
def pseudo_labels(batch: int, side: int, classes: int, to: int) -> Op:
    def classify(logits: Tensor, valid: Tensor) -> tuple:
        probability, label = torch.max(torch.softmax(resize(logits, (to, to)), 1), 1)
        share = (probability >= 0.968).sum() / probability.numel()
        return label, probability >= 0.9, share * valid

    return classify, lambda: (grid(batch, side, classes, False), torch.ones(batch, to, to))


@op
def predict(height: int, width: int, classes: int, stride: int) -> Op:
    size = (height * stride, width * stride)
    return (lambda logits: resize(logits, size).argmax(1),
            lambda: (numbers(1, classes, height, width).contiguous(memory_format=CHANNELS_LAST),))


@op
def confusion(height: int, width: int, classes: int) -> Op:
    def count(prediction: Tensor, label: Tensor) -> Tensor:
        known = label != 255
        return torch.bincount(label[known] * classes + prediction[known], minlength=classes * classes)

    return count, lambda: (labels(1, height, width).clamp_(max=classes - 1), labels(1, height, width))


@op
def feature_distance(batch: int, side: int, channels: int, picture: int) -> Op:
    scale, things = picture // side, torch.tensor([6, 7, 11, 12, 13, 14, 15, 16, 17, 18])

    def distance(ours: Tensor, theirs: Tensor, label: Tensor) -> Tensor:
        one_hot = F.one_hot(torch.where(label == 255, CLASSES, label), CLASSES + 1).permute(0, 3, 1, 2).float()
        share, small = torch.max(F.avg_pool2d(one_hot, scale), 1)
        mask = torch.isin(torch.where(share < 0.75, 255, small), things)
        return (ours - theirs).norm(dim=1)[mask].mean()

    return distance, lambda: (grid(batch, side, channels), grid(batch, side, channels, False),
                              labels(batch, picture, picture))


# Images and state.

@op
def normalize(batch: int, side: int) -> Op:
    mean, gain = torch.tensor([123.675, 116.28, 103.53]), 1 / torch.tensor([58.395, 57.12, 57.375])
    return (lambda rgb: (rgb.float() - mean) * gain,
            lambda: (torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8),))


@op
def class_mix(batch: int, side: int) -> Op:
    def mix(image: Tensor, label: Tensor, weight: Tensor, under: Tensor, under_label: Tensor,
            under_weight: Tensor) -> tuple:
        masks = []
        for one in label:
            classes = torch.unique(one)
            chosen = classes[torch.randperm(len(classes))[:(len(classes) + 1) // 2]]
            masks.append(torch.isin(one, chosen))
        mask = torch.stack(masks)
        return (torch.where(mask[..., None], image, under), torch.where(mask, label, under_label),
                torch.where(mask, weight, under_weight))

    labeled = lambda: (numbers(batch, side, side, 3), labels(batch, side, side).byte(), torch.rand(batch, side, side))
    return mix, lambda: labeled() + labeled()


@op
def block_mask(batch: int, side: int, cells: int) -> Op:
    def mask(image: Tensor, cells_: Tensor) -> Tensor:
        keep = F.interpolate((cells_ > 0.7).float()[:, None], size=(side, side), mode="nearest")
        return image * keep[:, 0, :, :, None]

    return mask, lambda: (numbers(batch, side, side, 3), torch.rand(batch, cells, cells))


@op
def adamw_ema(parameters: int, tensors: int) -> Op:
    """EMA update of the teacher and AdamW step, on equally large tensors with `parameters` values in total."""
    @torch.no_grad()
    def update(student: list[Tensor], teacher: list[Tensor], optimizer: torch.optim.Optimizer) -> None:
        torch._foreach_lerp_(teacher, student, 0.001)
        optimizer.step()

    def make() -> tuple:
        student = [leaf(max(parameters // tensors, 1)) for _ in range(tensors)]
        teacher = [p.detach().clone() for p in student]
        for p in student:
            p.grad = torch.randn_like(p)
        return student, teacher, torch.optim.AdamW(student, lr=6e-5, weight_decay=0.01, fused=True)

    return update, make


@op
def check_finite(numbers: int) -> Op:
    return lambda x: torch.isfinite(x).all(), lambda: (torch.rand(numbers),)


@op
def keep_template(batch: int, side: int) -> Op:
    def keep(image: Tensor, label: Tensor, kept: Tensor, kept_label: Tensor) -> None:
        kept.copy_(image)
        kept_label.copy_(label)

    one = lambda: (numbers(batch, side, side, 3), labels(batch, side, side).byte())
    return keep, lambda: one() + one()


@op
def fill(batch: int, side: int) -> Op:
    return lambda: torch.ones(batch, side, side, 3), tuple


@op
def add_scaled(batch: int, side: int) -> Op:
    return lambda x, y: y.add_(x, alpha=0.5), lambda: (numbers(batch, side, side, 3), numbers(batch, side, side, 3))


# Running the cases.

def tensors(inputs: object) -> Iterator[Tensor]:
    if isinstance(inputs, Tensor):
        yield inputs
    elif isinstance(inputs, (tuple, list)):
        for one in inputs:
            yield from tensors(one)


def sampled(case: dict, a: argparse.Namespace) -> dict | None:
    """Times a case {op, shape, pass}; returns None if it has no counterpart in PyTorch."""
    if case["op"] not in OPS:
        return None
    run, make = OPS[case["op"]](**case["shape"])
    backward = case["pass"] == "forward_backward"

    def inputs() -> tuple:
        """Creates the op's inputs, and output gradients with the shapes of `outputs`."""
        given = make()
        if backward and not outputs:
            with torch.no_grad():
                outputs.extend(tensors(run(*given)))
        return given, [torch.randn_like(y) for y in outputs]

    outputs: list[Tensor] = []
    sets = [inputs() for _ in range(case["input_sets"])]
    outputs.clear()
    kept: list[object] = [None] * len(sets)
    turn = itertools.cycle(range(len(sets)))

    def work() -> None:
        i = next(turn)
        given, seeds = sets[i]
        kept[i] = None
        with torch.autocast(a.device, torch.bfloat16, enabled=a.bf16):
            if not backward:
                with torch.no_grad():
                    kept[i] = run(*given)
                return
            results = list(tensors(run(*given)))
        kept[i] = results, torch.autograd.grad(results, [x for x in given if x.requires_grad], seeds)

    summary = record.sample(work, max(a.warmup, len(sets)), a.repeats, SAMPLE_SECONDS, a.seconds).summary()
    return {"op": case["op"], "shape": case["shape"], "pass": case["pass"], **summary}


def answers(a: argparse.Namespace) -> Iterator[dict | None]:
    if a.cases == "-":
        cases = map(json.loads, sys.stdin)
    else:
        known = json.loads(Path(a.cases).read_text())
        cases = [case for name, case in known.items() if not a.case or any(part in name for part in a.case)]
    for case in cases:
        yield sampled(case, a)
        gc.collect()


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cases", required=True,
                   help="file with the output of `kernels --cases`, or - to read one case per line from stdin")
    p.add_argument("--case", action="append",
                   help="run only the cases whose names contain this; may be repeated (default: all)")
    p.add_argument("--threads", type=int, default=2, help="number of threads (default: 2)")
    p.add_argument("--repeats", type=int, default=20, help="number of samples (default: 20)")
    p.add_argument("--warmup", type=int, default=1,
                   help="number of warm-up runs; at least one per set of inputs (default: 1)")
    p.add_argument("--seconds", type=float, default=math.inf,
                   help="stop sampling a case once its samples have taken this many seconds (default: no limit)")
    p.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="device to run on (default: cpu)")
    p.add_argument("--bf16", action="store_true", help="run in bf16 autocast")
    p.add_argument("--json", type=Path, default=None, help="path of the record (default: none is written)")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    torch.set_default_device(a.device)
    torch.manual_seed(0)
    if a.cases == "-":
        # The first line describes the machine; one line per case follows.
        print(json.dumps(record.about(vars(a))), flush=True)
    results = []
    for result in answers(a):
        if a.cases == "-":
            print(json.dumps(result), flush=True)
        elif result is not None:
            results.append(result)
            print(f"{result['op']:22} {result['pass']:16} {result['median_s'] * 1e3:9.3f} ms "
                  f"(min {result['min_s'] * 1e3:9.3f})  {result['shape']}", flush=True)
    record.write(a.json, vars(a), results)


if __name__ == "__main__":
    main()
