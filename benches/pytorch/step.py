"""Times training iterations in PyTorch, on the CPU or a GPU.

    python step.py --arch mit_b0 --channels 64 --method quadmix --json out.json
    python step.py --arch resnet50_v1c --method dacs --detail 0
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch

import record
from iteration import METHODS, Batch, Draws, Settings, Trainer, build
from model import ARCHS, CHANNELS_LAST, RESNETS, init_weights


def labels(batch: int, crop: int, block: int, g: torch.Generator) -> torch.Tensor:
    """Labels in blocks of one class each, some of them unlabeled (255), like the regions of real labels."""
    n = -(-crop // block)
    ids = torch.randint(0, 20, (batch, n, n), generator=g, device="cpu")
    ids[ids == 19] = 255
    return ids.repeat_interleave(block, 1).repeat_interleave(block, 2)[:, :crop, :crop].contiguous().to(torch.get_default_device())


def trainer(a: argparse.Namespace) -> Trainer:
    torch.manual_seed(a.seed)  # dropout and drop-path
    weight = 0.005 if a.feature_distance else 0.0
    layout = CHANNELS_LAST if a.head_layout == "channels_last" else torch.contiguous_format
    settings = Settings(a.method, mask_block=a.mask_block, feature_weight=weight)
    t = build(a.arch, a.channels, a.detail, settings, head_layout=layout, joint=not a.no_joint,
              taps=not a.stock_depthwise)
    init_weights(t.student, torch.Generator(torch.get_default_device()).manual_seed(a.seed))
    if t.teacher is not None:
        t.teacher.load_state_dict(t.student.state_dict())
    if t.imagenet is not None:
        t.imagenet.load_state_dict(t.student.backbone.state_dict())
    t.bf16 = a.bf16
    if a.compile:
        networks = [n for n in (t.student, t.teacher) if n is not None]
        heads = [getattr(n.decode_head, part, None) for n in networks for part in ("head", "scale_attention")]
        for module in [n.backbone for n in networks] + [h for h in heads if h is not None] + [t.imagenet]:
            if module is not None:
                module.compile()
    return t


class AlwaysAugmented(Draws):
    """Enables jitter and blur in every iteration, so that all samples measure the same work."""

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        value = super().uniform(low, high)
        return value if (low, high) != (0.0, 1.0) else 1.0


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--name", help="name of the result in the record (default: the method)")
    p.add_argument("--arch", choices=(*ARCHS, *RESNETS), default="mit_b0", help="backbone (default: mit_b0)")
    p.add_argument("--crop", type=int, default=128, help="side of the training crops (default: 128)")
    p.add_argument("--detail", type=int, default=None,
                   help="side of HRDA's detail crop (default: half of --crop); 0 builds single-scale networks")
    p.add_argument("--channels", type=int, default=256, help="channels of a MiT's decoder (default: 256)")
    p.add_argument("--batch", type=int, default=2, help="number of source images, and of target images (default: 2)")
    p.add_argument("--method", choices=METHODS, default="quadmix", help="method to time (default: quadmix)")
    p.add_argument("--threads", type=int, default=2, help="number of threads (default: 2)")
    p.add_argument("--repeats", type=int, default=10, help="number of samples (default: 10)")
    p.add_argument("--warmup", type=int, default=2, help="number of warm-up iterations (default: 2)")
    p.add_argument("--seed", type=int, default=0, help="seed of weights, data and random choices (default: 0)")
    p.add_argument("--mask-block", type=int, default=None,
                   help="side of the masked blocks (default: 64 or a quarter of --crop, whichever is smaller)")
    p.add_argument("--feature-distance", action=argparse.BooleanOptionalAction, default=True,
                   help="compute the ImageNet feature distance")
    p.add_argument("--draw-augment", action="store_true",
                   help="apply jitter and blur at random, as in training, instead of in every iteration")
    p.add_argument("--head-layout", choices=("channels_last", "nchw"), default="channels_last",
                   help="memory format of the decoder (default: channels_last)")
    p.add_argument("--stock-depthwise", action="store_true",
                   help="use nn.Conv2d for the dilated depthwise convolutions")
    p.add_argument("--no-joint", action="store_true", help="run context and detail as two backbone passes")
    p.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="device to run on (default: cpu)")
    p.add_argument("--bf16", action="store_true", help="run networks and losses in bf16 autocast")
    p.add_argument("--tf32", action="store_true", help="allow TF32 in matmuls too (in convolutions, it is allowed by default)")
    p.add_argument("--compile", action="store_true", help="apply torch.compile to backbones and heads")
    p.add_argument("--json", type=Path, default=None, help="path of the record (default: none is written)")
    return p


def main() -> None:
    p = parser()
    a = p.parse_args()
    a.detail = a.crop // 2 if a.detail is None else a.detail
    a.mask_block = a.mask_block or min(64, a.crop // 4)
    if a.crop % 32 or a.detail % 32 or a.detail > a.crop:
        p.error("--crop and --detail must be multiples of 32, and --detail at most --crop")
    torch.set_num_threads(a.threads)
    torch.set_default_device(a.device)
    torch.backends.cudnn.benchmark = a.compile
    torch.backends.cuda.matmul.allow_tf32 = a.tf32
    torch._dynamo.config.cache_size_limit = 64
    g = torch.Generator("cpu").manual_seed(a.seed)
    draw = lambda: torch.randn(a.batch, 3, a.crop, a.crop, generator=g, device="cpu")
    image = lambda: draw().to(a.device)
    block = max(a.crop // 8, 8)
    valid = torch.ones(a.batch, a.crop, a.crop)
    batches = [Batch(image(), labels(a.batch, a.crop, block, g), image(), valid) for _ in range(2)]
    draws = (Draws if a.draw_augment else AlwaysAugmented)(a.seed, a.crop, a.detail)
    t = trainer(a)
    first = t.settings.quad_from
    if a.method == "quadmix":
        t.run(first - 1, batches[1], draws)  # generates the first templates
    phases: dict[str, list[float]] = {}
    iteration = 0

    def work() -> None:
        nonlocal iteration
        t.run(first + iteration, batches[iteration % 2], draws)
        iteration += 1
        for name, seconds in t.seconds.items():
            phases.setdefault(name, []).append(seconds)

    total = record.sample(work, a.warmup, a.repeats).summary()
    parts = {k: {"median_s": statistics.median(v[a.warmup :]), "min_s": min(v[a.warmup :]),
                 "samples_s": v[a.warmup :]} for k, v in phases.items()}
    name = a.name or a.method
    print(f"{name}: median {total['median_s']:.3f} s, min {total['min_s']:.3f} s, "
          f"CPU min {min(total['cpu_s']):.3f} s ({a.threads} threads, torch {torch.__version__})")
    others = [o for o in total["cores_busy_elsewhere"] if o is not None]
    if others and statistics.median(others) > 0.1:
        print(f"  note: other processes kept {statistics.median(others):.1f} cores busy, so these times are too long")
    for part, v in parts.items():
        print(f"  {part:8} median {v['median_s']:.3f} min {v['min_s']:.3f}")
    losses = {k: float(v.detach()) for k, v in t.losses.items()}
    if not all(abs(v) < float("inf") for v in losses.values()):
        raise SystemExit(f"a loss is not finite: {losses}")
    record.write(a.json, vars(a), [{"name": name, "total": total, "parts": parts, "losses": losses}])


if __name__ == "__main__":
    main()
