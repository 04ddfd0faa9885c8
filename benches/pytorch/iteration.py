"""One iteration of unsupervised domain adaptation: teacher, mixing, masked consistency, update.

Every random choice comes from a `Draws` object, so that the benchmark is seeded and the check
can inject recorded choices. Images are NCHW float (ImageNet-normalized), labels int64 (B, H, W).
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from model import Hrda, Plain, layout_of

MEAN = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)
STD = torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1)
THINGS = (6, 7, 11, 12, 13, 14, 15, 16, 17, 18)
RARE_CLASSES = (3, 4, 5, 6, 12, 15, 16, 17, 18)


# All methods but source_only adapt to the target; mic and quadmix also mask. dacs, daformer and hrda differ only
# in the network (`detail`) and the feature distance.
METHODS = ("source_only", "dacs", "daformer", "hrda", "mic", "quadmix")
# Intermediate results of QuadMix: the mask of the template's target image, and the background it is pasted onto.
QUAD_PARTS = ("mask", "background_img", "background_label", "background_weight")


@dataclass
class Settings:
    method: str = "quadmix"
    quad_from: int = 6000
    start: int = 4000  # iteration at which the teacher becomes a copy of the student
    threshold: float = 0.968
    confident: float = 0.9
    alpha: float = 0.999
    mask_block: int = 64
    mask_ratio: float = 0.7
    feature_weight: float = 0.005  # 0 disables the ImageNet feature distance
    lr: float = 6e-5
    weight_decay: float = 0.01


@dataclass
class Batch:
    image: Tensor
    label: Tensor
    target: Tensor
    valid: Tensor  # (B, H, W) float: 0 in pseudo-label margins


@dataclass
class Template:
    """The tensors that QuadMix takes from the previous iteration."""

    image: Tensor
    label: Tensor
    target: Tensor
    pseudo: Tensor
    confident: Tensor
    weight: Tensor


class Draws:
    """Seeded random choices, and synthetic images to paste long-tail classes from."""

    def __init__(self, seed: int, crop: int, detail: int):
        self.g = torch.Generator("cpu").manual_seed(seed)
        self.crop, self.detail = crop, detail

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * self.random(()).item()

    def random(self, *shape) -> Tensor:
        """Generates numbers on the CPU, so that they do not depend on the device."""
        return torch.rand(*shape, generator=self.g, device="cpu").to(torch.get_default_device())

    def integer(self, n: int) -> int:
        return int(torch.randint(n, (), generator=self.g, device="cpu"))

    def choice(self, n: int, k: int) -> list[int]:
        return torch.randperm(n, generator=self.g, device="cpu")[:k].tolist()

    def box(self) -> tuple[int, int, int, int]:
        slots = max((self.crop - self.detail + 1) // 8, 1)
        y, x = 8 * self.integer(slots), 8 * self.integer(slots)
        return y, y + self.detail, x, x + self.detail

    def jitter(self, n: int) -> tuple[list[Tensor], list[int]]:
        """Returns factors (brightness, contrast, saturation, hue) for each image, and the order to apply them in."""
        draw = lambda mid: self.random(n) * 0.4 + (mid - 0.2)
        return [draw(1.0), draw(1.0), draw(1.0), draw(0.0)], self.choice(4, 4)

    def sigma(self) -> float:
        return self.uniform(0.15, 1.15)

    def grid(self, shape) -> Tensor:
        return self.random(shape)

    def rare_classes(self) -> list[int]:
        return [RARE_CLASSES[i] for i in self.choice(len(RARE_CLASSES), 2)]

    def rare_crop(self, cls: int) -> tuple[Tensor, Tensor]:
        """Returns an image (3, H, W) and a label (H, W) with a block of the class, as from a loader."""
        image = self.random(3, self.crop, self.crop) - 0.45
        label = torch.full((self.crop, self.crop), 255)
        side = self.crop // 4
        y, x = self.integer(self.crop - side), self.integer(self.crop - side)
        label[y : y + side, x : x + side] = cls
        return image, label


# ---- classes and masks ----------------------------------------------------------------------


def present(label: Tensor) -> list[int]:
    return torch.bincount(label.reshape(-1), minlength=256).nonzero().view(-1).tolist()


def is_any(label: Tensor, classes: list[int]) -> Tensor:
    table = torch.zeros(256, dtype=torch.bool)
    table[classes] = True
    return table[label]


def class_mix_masks(label: Tensor, draws: Draws) -> Tensor:
    """Masks of half (rounded up) of the whole batch's classes, sampled separately for each image."""
    classes = present(label)
    picks = [draws.choice(len(classes), (len(classes) + 1) // 2) for _ in label]
    return torch.stack([is_any(l, [classes[i] for i in p]) for l, p in zip(label, picks)])


def quad_source_masks(label: Tensor, draws: Draws) -> tuple[Tensor, list[list[int]]]:
    """Masks of two classes of each image, and their positions in its list of classes, for `quad_target_masks`."""
    masks, positions = [], []
    for one in label:
        classes = present(one)
        pick = draws.choice(len(classes), min(2, len(classes)))
        masks.append(is_any(one, [classes[i] for i in pick]))
        positions.append(pick)
    return torch.stack(masks), positions


def quad_target_masks(pseudo: Tensor, confident: Tensor, positions, draws: Draws) -> Tensor:
    """Masks of the confident pixels of two classes of each image.

    As in the released code, it excludes classes whose ids equal the *positions* of the source's classes.
    """
    masks = []
    for one, sure, banned in zip(pseudo, confident, positions):
        classes = [c for c in present(one) if c not in banned]
        pick = draws.choice(len(classes), min(2, len(classes))) if classes else []
        masks.append(is_any(one, [classes[i] for i in pick]) & sure)
    return torch.stack(masks)


def block_mask(image: Tensor, settings: Settings, draws: Draws) -> Tensor:
    b, _, h, w = image.shape
    size = settings.mask_block
    grid = draws.grid((b, 1, round(h / size), round(w / size)))
    return F.interpolate((grid > settings.mask_ratio).to(image.dtype), size=(h, w), mode="nearest")


# ---- color and blur -------------------------------------------------------------------------


def rgb_to_hsv(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Converts to HSV, with hue in radians. The first channel wins ties for the maximum."""
    r, g, b = x.unbind(1)
    value = x.amax(1)
    delta = value - x.amin(1)
    saturation = delta / (value + 1e-6)
    span = torch.where(delta == 0, 1.0, delta)
    sector = torch.where(r == value, (g - b) / span,
                         torch.where(g == value, (b - r) / span + 2, (r - g) / span + 4))
    return torch.remainder(sector / 6, 1.0) * (2 * math.pi), saturation, value


def hsv_to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    sector = hue * (6 / (2 * math.pi))
    chroma = value * saturation
    channels = []
    for offset in (5, 3, 1):
        k = torch.remainder(sector + offset, 6.0)
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1))
    return torch.stack(channels, 1)


def color_jitter(image: Tensor, factors: list[Tensor], order: list[int]) -> Tensor:
    brightness, contrast, saturation, hue = factors
    mean, std = MEAN.to(image), STD.to(image)
    per_image = lambda f, dims: f.view(-1, *[1] * dims)
    x = (image * std + mean) / 255
    for op in order:
        if op == 0:
            x = (x + per_image(brightness - 1, 3)).clamp_(0, 1)
        elif op == 1:
            x = (x * per_image(contrast, 3)).clamp_(0, 1)
        else:
            h, s, v = rgb_to_hsv(x)
            if op == 2:
                s = (s * per_image(saturation, 2)).clamp_(0, 1)
            else:
                h = torch.fmod(h + per_image(hue * (2 * math.pi), 2), 2 * math.pi)
            x = hsv_to_rgb(h, s, v)
    return (x * 255 - mean) / std


def blur_kernel(n: int, sigma: float) -> Tensor:
    tenth = math.ceil(0.1 * n)
    size = math.floor(tenth - 0.5 + tenth % 2)
    d = torch.arange(size, dtype=torch.get_default_dtype()) - size // 2
    k = torch.exp(-d.square() / (2 * sigma * sigma))
    return k / k.sum()


def blur_matrix(n: int, sigma: float) -> Tensor:
    """Returns the blur along one axis, including reflect padding, as an n x n matrix."""
    kernel = blur_kernel(n, sigma)
    source = (torch.arange(n).view(-1, 1) + torch.arange(len(kernel)) - len(kernel) // 2).abs()
    source = torch.where(source >= n, 2 * (n - 1) - source, source)
    return torch.zeros(n, n).scatter_add_(1, source, kernel.expand(n, -1).contiguous())


def gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    """Uses two matmuls up to 512 pixels, where they are faster than a convolution, and a convolution beyond."""
    h, w = image.shape[2:]
    if max(h, w) <= 512:
        return blur_matrix(h, sigma) @ (image @ blur_matrix(w, sigma).T)
    ky, kx = blur_kernel(h, sigma), blur_kernel(w, sigma)
    planes = image.reshape(-1, 1, h, w)
    planes = F.pad(planes, (len(kx) // 2,) * 2 + (len(ky) // 2,) * 2, mode="reflect")
    planes = F.conv2d(F.conv2d(planes, kx.view(1, 1, 1, -1)), ky.view(1, 1, -1, 1))
    return planes.view_as(image)


@dataclass
class Switches:
    jitter: bool
    blur: bool

    @classmethod
    def draw(cls, draws: Draws) -> Switches:
        jitter, blur = draws.uniform(), draws.uniform()
        return cls(jitter > 0.2, blur > 0.5)


def augment(image: Tensor, on: Switches, draws: Draws) -> Tensor:
    if on.jitter:
        image = color_jitter(image, *draws.jitter(image.shape[0]))
    if on.blur:
        image = gaussian_blur(image, draws.sigma())
    return image


# ---- the iteration --------------------------------------------------------------------------


def feature_distance(features: Tensor, reference: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the mean L2 distance of features (B, h, w, C) and the mask of the cells that it covers.

    These are the cells of which at least 3/4 belong to a single thing class.
    """
    b, h, w, _ = features.shape
    scale = label.shape[2] // w
    votes = label.clamp_max(19).view(b, h, scale, w, scale).permute(0, 1, 3, 2, 4).reshape(b * h * w, -1)
    counts = torch.zeros(b * h * w, 20).scatter_add_(1, votes, torch.ones(votes.shape))
    share, winner = (counts / scale**2).max(1)
    mask = ((share >= 0.75) & is_any(winner, list(THINGS))).view(b, h, w)
    distance = torch.linalg.vector_norm(features - reference, dim=3)
    return distance[mask].sum() / mask.sum().clamp_min(1), mask


def paste(mask: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(mask.unsqueeze(1) if a.dim() == 4 else mask, a, b)


def parameter_groups(model: torch.nn.Module, s: Settings) -> list[dict]:
    groups = {"head": [], "norm": [], "rest": []}
    for name, p in model.named_parameters():
        groups["head" if "head" in name else "norm" if "norm" in name else "rest"].append(p)
    return [
        {"params": groups["head"], "lr": 10 * s.lr, "weight_decay": s.weight_decay},
        {"params": groups["norm"], "lr": s.lr, "weight_decay": 0.0},
        {"params": groups["rest"], "lr": s.lr, "weight_decay": s.weight_decay},
    ]


@dataclass
class Trainer:
    """The state of a training. `teacher` stays in train mode, so it must be built without dropout and drop-path."""

    student: Hrda | Plain
    teacher: Hrda | Plain | None  # None for source_only
    imagenet: torch.nn.Module | None
    settings: Settings
    bf16: bool = False  # run networks and losses in bf16 autocast
    template: Template | None = None
    losses: dict[str, Tensor] = field(default_factory=dict)
    seen: dict[str, Tensor] = field(default_factory=dict)  # tensors that check.py compares
    seconds: dict[str, float] = field(default_factory=dict)  # time of each phase of the last iteration

    def __post_init__(self):
        groups = parameter_groups(self.student, self.settings)
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8, fused=True)
        if self.teacher is not None:
            self.pairs = [list(self.teacher.parameters()), list(self.student.parameters())]

    def autocast(self):
        return torch.autocast(torch.get_default_device().type, torch.bfloat16, enabled=self.bf16)

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self.clock
        self.clock = now

    @torch.no_grad()
    def update_teacher(self, t: int) -> None:
        if t == self.settings.start:
            torch._foreach_copy_(*self.pairs)
        else:
            alpha = min(1 - 1 / (t + 1), self.settings.alpha)
            torch._foreach_lerp_(*self.pairs, 1 - alpha)

    def supervise(self, name: str, image: Tensor, label: Tensor, weight: Tensor | None,
                  draws: Draws, scale: float = 1.0) -> None:
        """Runs the forward and backward of one training pass; gradients accumulate."""
        self.seen |= {f"{name}/img": image, f"{name}/label": label, f"{name}/weight": weight}
        box = draws.box()
        with self.autocast():
            out = self.student(image, box)
            losses = self.student.losses(out, box, label, weight)
        total = sum(losses) * scale
        self.losses |= {f"{name}.{kind}": loss for kind, loss in zip(("decode", "hr"), losses)}
        if name == "src" and self.imagenet is not None and self.settings.feature_weight > 0:
            with torch.inference_mode(), self.autocast():
                reference = self.imagenet(self.student.context(image))[3]
            distance, self.seen["fdist/mask"] = feature_distance(out[-1], reference, label)
            distance = distance * self.settings.feature_weight
            self.losses["src.feature_distance"] = distance
            total = total + distance
        total.backward()
        self.lap(name)

    def pseudo_labels(self, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the labels, the weight of each pixel, and the mask of confident pixels."""
        with torch.inference_mode(), self.autocast():
            logits = self.teacher.predict(target)["logits"].float()
        with torch.no_grad():
            # max softmax = exp(max - logsumexp), so the full probabilities are never stored
            top, label = logits.max(1)
            probability = torch.exp(top - logits.logsumexp(1))
            weight = (probability >= self.settings.threshold).to(valid.dtype).mean() * valid
            confident = probability >= self.settings.confident
            self.seen |= {"teacher/logits": logits, "teacher/plabel": label, "teacher/max_prob": probability,
                          "teacher/confident": confident}
            return label, weight, confident

    def class_mix(self, batch: Batch, pseudo: Tensor, weight: Tensor, on: Switches, draws: Draws):
        mask = class_mix_masks(batch.label, draws)
        image = paste(mask, batch.image, batch.target)
        image = torch.cat([augment(one, on, draws) for one in image.split(1)])
        label = paste(mask, batch.label, pseudo)
        self.supervise("mix", image, label, torch.where(mask, 1.0, weight), draws)

    def quad_mix(self, batch: Batch, pseudo: Tensor, weight: Tensor, on: Switches, draws: Draws):
        t = self.template
        source, positions = quad_source_masks(t.label, draws)
        rare = draws.rare_classes()
        target = quad_target_masks(t.pseudo, t.confident, positions, draws)
        ones = torch.ones_like(weight)
        mixed = []
        for side, base in (("tss", (batch.image, batch.label, ones)), ("tst", (batch.target, pseudo, weight))):
            background = [paste(source, *pair) for pair in zip((t.image, t.label, ones), base)]
            self.seen |= dict(zip((f"quad/{side}/{part}" for part in QUAD_PARTS), (target, *background)))
            image, label, w = (paste(target, *pair) for pair in zip((t.target, t.pseudo, t.weight), background))
            images = []
            for one, one_label in zip(image.split(1), label):
                for cls in rare:
                    crop, crop_label = draws.rare_crop(cls)
                    where = crop_label == cls
                    one = torch.where(where, crop, one)
                    one_label.masked_fill_(where, cls)
                images.append(augment(one, on, draws))
            mixed.append((torch.cat(images), label, w))
        self.lap("mixing")
        self.supervise("mix_tss", *mixed[0], draws, scale=0.5)
        self.supervise("mix_tst", *mixed[1], draws, scale=0.5)

    def run(self, t: int, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        self.clock, self.seconds = time.perf_counter(), {}
        self.losses, self.seen = {}, {}
        if self.teacher is not None:
            self.update_teacher(t)
            self.lap("ema")
        on = Switches.draw(draws)
        self.supervise("src", batch.image, batch.label, None, draws)
        if self.teacher is not None:
            self.adapt(t, batch, on, draws)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.lap("adamw")
        return {k: v.detach() for k, v in self.losses.items()}

    def adapt(self, t: int, batch: Batch, on: Switches, draws: Draws) -> None:
        """Adapts to the target: mixing with its pseudo-labels, and masked consistency."""
        s = self.settings
        pseudo, weight, confident = self.pseudo_labels(batch.target, batch.valid)
        self.lap("teacher")
        if t >= s.quad_from and self.template is not None:
            self.quad_mix(batch, pseudo, weight, on, draws)
        else:
            self.class_mix(batch, pseudo, weight, on, draws)
        if s.method in ("mic", "quadmix"):
            masked = augment(batch.target, Switches.draw(draws), draws)
            masked = masked * block_mask(masked, s, draws)
            self.supervise("masked", masked, pseudo, weight, draws)
        if s.method == "quadmix":
            self.template = Template(batch.image, batch.label, batch.target, pseudo, confident, weight)


def build(arch: str, channels: int, detail: int, settings: Settings, joint: bool = True, **options) -> Trainer:
    """Builds student, teacher (no dropout) and ImageNet backbone; the caller loads the weights.

    `detail` is the side of HRDA's detail crop; 0 builds single-scale networks.
    """
    def network(**options) -> Hrda | Plain:
        net = Hrda(arch, channels, detail, joint=joint, **options) if detail else Plain(arch, channels, **options)
        return net.to(memory_format=layout_of(arch)).train()

    student, teacher, imagenet = network(**options), None, None
    if settings.method != "source_only":
        teacher = network(**(options | {"dropout": 0.0, "drop_path": 0.0})).requires_grad_(False)
        teacher.load_state_dict(student.state_dict())
    if settings.feature_weight > 0:
        imagenet = copy.deepcopy(student.backbone).eval().requires_grad_(False)
    return Trainer(student, teacher, imagenet, settings)
