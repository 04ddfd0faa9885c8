"""MiT with DAFormer's heads and ResNet with DeepLabV2's, on one scale or on HRDA's two.

State-dict keys are those of the released checkpoints, so files are interchangeable. Token grids are NHWC tensors
(B, H, W, C): linear layers and LayerNorm read them directly, and the same memory viewed as NCHW is
`channels_last`, so no layer copies to change the layout. (Those of a ResNet are NHWC views of NCHW memory, and no
layer of its head reads them as rows.)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS_LAST = torch.channels_last
CLASSES = 19
HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)
# arch -> (widths, depths) of the four stages
ARCHS = {
    "mit_b0": ((32, 64, 160, 256), (2, 2, 2, 2)),
    "mit_b1": ((64, 128, 320, 512), (2, 2, 2, 2)),
    "mit_b2": ((64, 128, 320, 512), (3, 4, 6, 3)),
    "mit_b3": ((64, 128, 320, 512), (3, 4, 18, 3)),
    "mit_b4": ((64, 128, 320, 512), (3, 8, 27, 3)),
    "mit_b5": ((64, 128, 320, 512), (3, 6, 40, 3)),
}
# arch -> depths of the four stages
RESNETS = {"resnet50_v1c": (3, 4, 6, 3), "resnet101_v1c": (3, 4, 23, 3)}


def nchw(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def nhwc(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize with half-pixel centers. All factors are integers, so the sizes determine them exactly."""
    if x.shape[2:] == torch.Size(size):
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def up2(x: Tensor) -> Tensor:
    return resize(x, (2 * x.shape[2], 2 * x.shape[3]))


class PatchEmbed(nn.Module):
    """(B, Cin, H, W) -> (B, H/stride, W/stride, Cout)"""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int):
        super().__init__()
        self.proj = nn.Conv2d(cin, cout, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(cout, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(nhwc(self.proj(x)))


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int, reduction: int):
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        if reduction > 1:
            self.sr = nn.Conv2d(dim, dim, reduction, reduction)
            self.norm = nn.LayerNorm(dim, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        d = c // self.heads
        source = x if self.reduction == 1 else self.norm(nhwc(self.sr(nchw(x))))
        q = self.q(x).view(b, h * w, self.heads, d).transpose(1, 2)
        kv = self.kv(source).view(b, -1, 2, self.heads, d)
        k, v = kv[:, :, 0].transpose(1, 2), kv[:, :, 1].transpose(1, 2)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).reshape(b, h, w, c))


class DepthwiseConv(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, 1, 1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        return nhwc(self.dwconv(nchw(x)))


class MixFfn(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.dwconv = DepthwiseConv(4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.dwconv(self.fc1(x))))


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, reduction: int, drop_path: float):
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads, reduction)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MixFfn(dim)

    def residual(self, x: Tensor, branch: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0.0:
            return x + branch
        keep = 1.0 - self.drop_path
        scale = x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(keep).div_(keep)
        return torch.addcmul(x, branch, scale)

    def forward(self, x: Tensor) -> Tensor:
        x = self.residual(x, self.attn(self.norm1(x)))
        return self.residual(x, self.mlp(self.norm2(x)))


class Mit(nn.Module):
    """Image (B, 3, H, W) -> four NHWC feature grids at strides 4, 8, 16, 32."""

    def __init__(self, arch: str, drop_path: float):
        super().__init__()
        widths, depths = ARCHS[arch]
        rates = [drop_path * i / (sum(depths) - 1) for i in range(sum(depths))]
        cin = 3
        for s, (width, depth) in enumerate(zip(widths, depths), start=1):
            embed = PatchEmbed(cin, width, 7 if s == 1 else 3, 4 if s == 1 else 2)
            blocks = [Block(width, HEADS[s - 1], REDUCTIONS[s - 1], rates.pop(0)) for _ in range(depth)]
            setattr(self, f"patch_embed{s}", embed)
            setattr(self, f"block{s}", nn.ModuleList(blocks))
            setattr(self, f"norm{s}", nn.LayerNorm(width, eps=1e-6))
            cin = width

    def forward(self, image: Tensor) -> list[Tensor]:
        x, features = image, []
        for s in range(1, 5):
            grid = getattr(self, f"patch_embed{s}")(x)
            for block in getattr(self, f"block{s}"):
                grid = block(grid)
            features.append(getattr(self, f"norm{s}")(grid))
            x = nchw(features[-1])
        return features


def conv(cin: int, cout: int, kernel: int = 1, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, kernel, stride, dilation * (kernel // 2), dilation, bias=False)


class Bottleneck(nn.Module):
    def __init__(self, cin: int, inner: int, stride: int, dilation: int):
        super().__init__()
        cout = 4 * inner
        self.conv1, self.bn1 = conv(cin, inner), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = conv(inner, inner, 3, stride, dilation), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = conv(inner, cout), nn.BatchNorm2d(cout)
        nn.init.zeros_(self.bn3.weight)  # a block starts as the identity
        self.downsample = None
        if stride != 1 or cin != cout:
            self.downsample = nn.Sequential(conv(cin, cout, 1, stride), nn.BatchNorm2d(cout))

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu_(self.bn1(self.conv1(x)))
        inner = F.relu_(self.bn2(self.conv2(inner)))
        out = self.bn3(self.conv3(inner))
        out += x if self.downsample is None else self.downsample(x)
        return F.relu_(out)


class ResNet(nn.Module):
    """Dilated ResNet v1c: image (B, 3, H, W) -> four NHWC feature grids at strides 4, 8, 8, 8."""

    def __init__(self, arch: str):
        super().__init__()
        stem, cin = [], 3
        for cout, stride in ((32, 2), (32, 1), (64, 1)):
            stem += [conv(cin, cout, 3, stride), nn.BatchNorm2d(cout), nn.ReLU(inplace=True)]
            cin = cout
        self.stem = nn.Sequential(*stem)
        # A stage's first block has half of the stage's dilation.
        for s, (depth, stride, dilation) in enumerate(zip(RESNETS[arch], (1, 2, 1, 1), (1, 1, 2, 4))):
            inner, blocks = 64 << s, []
            for first in [True] + [False] * (depth - 1):
                blocks.append(Bottleneck(cin, inner, stride if first else 1,
                                         max(dilation // 2, 1) if first else dilation))
                cin = 4 * inner
            setattr(self, f"layer{s + 1}", nn.Sequential(*blocks))

    def forward(self, image: Tensor) -> list[Tensor]:
        x, features = F.max_pool2d(self.stem(image), 3, 2, 1), []
        for s in range(1, 5):
            x = getattr(self, f"layer{s}")(x)
            features.append(nhwc(x))
        return features


def make_backbone(arch: str, drop_path: float) -> nn.Module:
    return ResNet(arch) if arch in RESNETS else Mit(arch, drop_path)


def layout_of(arch: str) -> torch.memory_format:
    """Returns the faster memory format for a backbone.

    In NCHW, a ResNet's backward pass took a quarter less time on images of 64 pixels, and the same on 128.
    """
    return torch.contiguous_format if arch in RESNETS else CHANNELS_LAST


class ConvBnRelu(nn.Module):
    def __init__(self, cin: int, cout: int, kernel: int = 1, dilation: int = 1, groups: int = 1):
        super().__init__()
        pad = dilation * (kernel // 2)
        self.conv = nn.Conv2d(cin, cout, kernel, 1, pad, dilation, groups, bias=False)
        self.bn = nn.BatchNorm2d(cout)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(self.bn(self.conv(x)))


def in_grid(n: int, dilation: int):
    """Yields (tap, output range, input range) of the three taps along an axis, clipped to the grid."""
    for tap, shift in enumerate((-dilation, 0, dilation)):
        low, high = max(0, -shift), min(n, n - shift)
        if low < high:
            yield tap, slice(low, high), slice(low + shift, high + shift)


class DepthwiseTaps(torch.autograd.Function):
    """Dilated depthwise 3x3 convolution in NHWC as shifted multiply-adds; the weight is (3, 3, C)."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        out = x * weight[1, 1]
        for i, oy, iy in in_grid(x.shape[1], dilation):
            for j, ox, ix in in_grid(x.shape[2], dilation):
                if (i, j) != (1, 1):
                    out[:, oy, ox].addcmul_(x[:, iy, ix], weight[i, j])
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        dx, dweight = grad * weight[1, 1], torch.zeros_like(weight)
        for i, oy, iy in in_grid(x.shape[1], ctx.dilation):
            for j, ox, ix in in_grid(x.shape[2], ctx.dilation):
                torch.sum(grad[:, oy, ox] * x[:, iy, ix], (0, 1, 2), out=dweight[i, j])
                if (i, j) != (1, 1):
                    dx[:, iy, ix].addcmul_(grad[:, oy, ox], weight[i, j])
        return dx, dweight, None


class DilatedDepthwise(ConvBnRelu):
    """`taps` selects shifted multiply-adds, several times faster than the library's convolution on a CPU."""

    def __init__(self, channels: int, dilation: int, taps: bool):
        super().__init__(channels, channels, 3, dilation, groups=channels)
        self.taps = taps

    def convolved(self, x: Tensor) -> Tensor:
        if self.taps:
            weight = self.conv.weight.squeeze(1).permute(1, 2, 0).contiguous()
            return nchw(DepthwiseTaps.apply(nhwc(x), weight, self.conv.dilation[0]))
        return self.conv(x)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(self.bn(self.convolved(x)))


class SeparableConv(nn.Module):
    def __init__(self, cin: int, cout: int, dilation: int, taps: bool):
        super().__init__()
        self.depthwise_conv = DilatedDepthwise(cin, dilation, taps)
        self.pointwise_conv = ConvBnRelu(cin, cout)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise_conv(self.depthwise_conv(x))


class SeparableAspp(nn.Module):
    def __init__(self, cin: int, cout: int, taps: bool):
        super().__init__()
        branches = [ConvBnRelu(cin, cout)] + [SeparableConv(cin, cout, d, taps) for d in (6, 12, 18)]
        self.aspp_modules = nn.ModuleList(branches)
        self.bottleneck = ConvBnRelu(4 * cout, cout, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.bottleneck(torch.cat([branch(x) for branch in self.aspp_modules], 1))


class Embed(nn.Module):
    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.proj = nn.Linear(cin, cout)


class DaformerHead(nn.Module):
    """Four feature grids -> class scores (B, 19, H/4, W/4).

    `layout` is the memory format of everything after the concatenation.
    """

    stride = 4  # image pixels per cell of the scores

    def __init__(self, widths, channels: int, fuse: nn.Module, dropout: float, layout):
        super().__init__()
        self.layout = layout
        self.embed_layers = nn.ModuleList([Embed(w, channels) for w in widths])
        self.fuse_layer = fuse
        self.dropout = nn.Dropout2d(dropout)
        self.conv_seg = nn.Conv2d(channels, CLASSES, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        size = features[0].shape[1:3]
        levels = [resize(nchw(e.proj(f)), size) for e, f in zip(self.embed_layers, features)]
        x = torch.cat(levels, 1).contiguous(memory_format=self.layout)
        return self.conv_seg(self.dropout(self.fuse_layer(x)))


class Dlv2Head(nn.Module):
    """The last of four feature grids -> class scores (B, 19, H/8, W/8)."""

    stride = 8

    def __init__(self, cin: int = 2048):
        super().__init__()
        branch = lambda d: nn.ModuleDict({"conv": nn.Conv2d(cin, CLASSES, 3, 1, d, d)})
        self.aspp_modules = nn.ModuleList([branch(6), branch(12)])

    def forward(self, features: list[Tensor]) -> Tensor:
        first, second = (branch["conv"](nchw(features[3])) for branch in self.aspp_modules)
        return first + second


def make_head(arch: str, channels: int, dropout: float, layout, taps: bool, attention=False) -> nn.Module:
    """Builds a backbone's head; `attention` selects the simpler form that predicts HRDA's scale attention."""
    if arch in RESNETS:
        return Dlv2Head()
    fuse = ConvBnRelu(4 * channels, channels) if attention else SeparableAspp(4 * channels, channels, taps)
    return DaformerHead(ARCHS[arch][0], channels, fuse, dropout, layout)


class Plain(nn.Module):
    """A single-scale network."""

    def __init__(self, arch="mit_b0", channels=256, dropout=0.1, drop_path=0.1, head_layout=CHANNELS_LAST, taps=True):
        super().__init__()
        self.backbone = make_backbone(arch, drop_path)
        self.decode_head = make_head(arch, channels, dropout, head_layout, taps)

    def context(self, image: Tensor) -> Tensor:
        """Returns the backbone's input for the whole image."""
        return image

    def forward(self, image: Tensor, box=None):
        """Training pass: logits and the last feature grid."""
        features = self.backbone(image)
        return self.decode_head(features), features[3]

    def losses(self, out, box, label: Tensor, weight: Tensor | None) -> tuple[Tensor, ...]:
        return (cross_entropy(out[0], label, weight),)

    def predict(self, image: Tensor) -> dict[str, Tensor]:
        """Whole-image pass (evaluation, teacher)."""
        scores = self(image)[0]
        return {"logits_lowres": scores, "logits": resize(scores, image.shape[2:])}


class HrdaHead(nn.Module):
    def __init__(self, *options):
        super().__init__()
        self.head = make_head(*options)
        self.scale_attention = make_head(*options, attention=True)


class Hrda(nn.Module):
    """Runs context (the whole image at half size) and detail (crops at full resolution) through one network.

    With `joint`, context and detail form one backbone batch if their sizes agree. MiT has no batch norm, so the
    result is the same; a ResNet does, so it always runs two passes, context first. The heads always run in the
    reference's order.
    """

    def __init__(self, arch="mit_b0", channels=256, detail=64, dropout=0.1, drop_path=0.1,
                 head_layout=CHANNELS_LAST, taps=True, joint=True):
        super().__init__()
        self.detail, self.joint = detail, joint and arch not in RESNETS
        self.backbone = make_backbone(arch, drop_path)
        self.decode_head = HrdaHead(arch, channels, dropout, head_layout, taps)
        self.stride = self.decode_head.head.stride

    def context(self, image: Tensor) -> Tensor:
        return resize(image, (image.shape[2] // 2, image.shape[3] // 2))

    def features(self, context: Tensor, details: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        if self.joint and context.shape[2:] == details.shape[2:]:
            sizes = [context.shape[0], details.shape[0]]
            both = [f.split(sizes) for f in self.backbone(torch.cat([context, details]))]
            return [f[0] for f in both], [f[1] for f in both]
        return self.backbone(context), self.backbone(details)

    def forward(self, image: Tensor, box: tuple[int, int, int, int]):
        """Training pass. box = (y1, y2, x1, x2), divisible by 8.

        Returns the fused logits (at the head's stride), the detail logits of the box (same stride), the
        context logits times 1 - attention (at twice the stride), and the last context feature grid.
        """
        y1, y2, x1, x2 = box
        context = self.context(image)
        coarse, fine = self.features(context, image[:, :, y1:y2, x1:x2])
        lr = self.decode_head.head(coarse)
        hr = self.decode_head.head(fine)
        scores = self.decode_head.scale_attention(coarse)
        # Attention applies only inside the box, on the context grid.
        att = torch.sigmoid(scores[cells(box, 2 * self.stride)])
        att = F.pad(att, margins(box, 2 * self.stride, lr.shape))
        lr = lr - att * lr
        fused = up2(lr)
        gate = up2(att)[cells(box, self.stride)]
        fused = fused + F.pad(gate * hr, margins(box, self.stride, fused.shape))
        return fused, hr, lr, coarse[3]

    def losses(self, out, box, label: Tensor, weight: Tensor | None) -> tuple[Tensor, ...]:
        """Returns the cross-entropies (0.9 x fused, 0.1 x detail) of one training pass."""
        y1, y2, x1, x2 = box
        cropped = None if weight is None else weight[:, y1:y2, x1:x2]
        return (0.9 * cross_entropy(out[0], label, weight),
                0.1 * cross_entropy(out[1], label[:, y1:y2, x1:x2], cropped))

    def boxes(self, height: int, width: int) -> list[tuple[int, int, int, int]]:
        size, stride = self.detail, self.detail // 2
        starts = lambda n: [min(i, n - size) for i in range(0, n - size + stride, stride)]
        return [(y, y + size, x, x + size) for y in starts(height) for x in starts(width)]

    def predict(self, image: Tensor) -> dict[str, Tensor]:
        """Whole-image pass (evaluation, teacher): overlapping detail crops, averaged."""
        b, _, height, width = image.shape
        boxes = self.boxes(height, width)
        crops = torch.cat([image[:, :, y1:y2, x1:x2] for y1, y2, x1, x2 in boxes])
        coarse, fine = self.features(self.context(image), crops)
        lr = self.decode_head.head(coarse)
        hr_crops = self.decode_head.head(fine)
        att = torch.sigmoid(self.decode_head.scale_attention(coarse))
        hr = hr_crops.new_zeros(b, CLASSES, height // self.stride, width // self.stride)
        count = hr.new_zeros(1, 1, *hr.shape[2:])
        for crop, box in zip(hr_crops.split(b), boxes):
            hr[cells(box, self.stride)] += crop
            count[cells(box, self.stride)] += 1
        hr /= count
        fused = up2(att) * hr + up2((1 - att) * lr)
        return {"lr_seg": lr, "att": att, "hr_crop_seg": hr_crops, "hr_seg": hr, "fused": fused,
                "logits": resize(fused, (height, width))}


def cells(box, stride: int) -> tuple:
    """Returns the index of a box's content on a grid of this stride."""
    y1, y2, x1, x2 = (v // stride for v in box)
    return ..., slice(y1, y2), slice(x1, x2)


def margins(box, stride: int, shape) -> tuple[int, int, int, int]:
    """Returns the padding (left, right, top, bottom) that puts a box's content back on its grid."""
    y1, y2, x1, x2 = (v // stride for v in box)
    return x1, shape[3] - x2, y1, shape[2] - y2


def cross_entropy(logits: Tensor, label: Tensor, weight: Tensor | None) -> Tensor:
    """Resizes the logits to the label. Pixels labeled 255 contribute zero, but count in the mean.

    Classes are the innermost dimension, because softmax has a faster kernel for that on a CPU.
    """
    logits = resize(logits.contiguous(memory_format=CHANNELS_LAST), label.shape[1:])
    rows, target = nhwc(logits).reshape(-1, CLASSES), label.reshape(-1)
    if weight is None:
        return F.cross_entropy(rows, target, ignore_index=255, reduction="sum") / target.numel()
    each = F.cross_entropy(rows, target, ignore_index=255, reduction="none")
    return torch.dot(each, weight.reshape(-1)) / target.numel()


def init_weights(module: nn.Module, generator: torch.Generator) -> None:
    """Seeded initialization: truncated normal for linear layers, fan-out normal for convolutions."""
    for m in module.modules():
        if isinstance(m, nn.Linear):
            nn.init.trunc_normal_(m.weight, std=0.02, generator=generator)
            nn.init.zeros_(m.bias)
        elif isinstance(m, nn.Conv2d):
            fan_out = m.kernel_size[0] * m.kernel_size[1] * m.out_channels // m.groups
            nn.init.normal_(m.weight, 0.0, (2.0 / fan_out) ** 0.5, generator=generator)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
