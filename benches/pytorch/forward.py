"""Times SegFormer's inference on one image, in PyTorch or exported to ONNX Runtime.

    python forward.py --arch mit_b0 --channels 256 --runtime torch --json out.json
    python forward.py --arch mit_b5 --channels 768 --runtime onnxruntime      (needs onnx, onnxruntime)
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Callable

import torch
from torch import Tensor, nn

import record
from model import ARCHS, CHANNELS_LAST, ConvBnRelu, DaformerHead, init_weights, make_backbone


class Segformer(nn.Module):
    """MiT with the all-MLP head (Xie et al. 2021, section 3.2): image (B, 3, H, W) -> logits (B, 19, H/4, W/4)."""

    def __init__(self, arch: str, channels: int, layout: torch.memory_format):
        super().__init__()
        self.backbone = make_backbone(arch, drop_path=0.0)
        fuse = ConvBnRelu(4 * channels, channels)
        self.decode_head = DaformerHead(ARCHS[arch][0], channels, fuse, 0.0, layout)

    def forward(self, image: Tensor) -> Tensor:
        return self.decode_head(self.backbone(image))


def in_torch(net: nn.Module, image: Tensor, threads: int) -> Callable[[], object]:
    torch.set_num_threads(threads)

    def run() -> Tensor:
        with torch.inference_mode():
            return net(image)

    return run


def in_onnxruntime(net: nn.Module, image: Tensor, threads: int) -> Callable[[], object]:
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        path = Path(folder) / "segformer.onnx"
        torch.onnx.export(net, (image,), path, input_names=["image"], output_names=["logits"],
                          opset_version=17, dynamo=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        feed = {"image": image.numpy()}
        off = (torch.from_numpy(session.run(None, feed)[0]) - net(image)).norm() / net(image).norm()
    if not off < 1e-3:
        raise SystemExit(f"ONNX Runtime's output differs from PyTorch's by {off:.1e} (relative)")
    return lambda: session.run(None, feed)


RUNTIMES = {"torch": in_torch, "onnxruntime": in_onnxruntime}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--name", help="name of the result in the record (default: that of the network)")
    p.add_argument("--runtime", choices=RUNTIMES, default="torch", help="runtime to time (default: torch)")
    p.add_argument("--arch", choices=ARCHS, default="mit_b0", help="backbone (default: mit_b0)")
    p.add_argument("--channels", type=int, default=256, help="channels of the decoder (default: 256)")
    p.add_argument("--side", type=int, default=512, help="side of the image (default: 512)")
    p.add_argument("--layout", choices=("channels_last", "nchw"), default="channels_last",
                   help="memory format of the decoder (default: channels_last; always nchw for ONNX Runtime)")
    p.add_argument("--threads", type=int, default=2, help="number of threads (default: 2)")
    p.add_argument("--repeats", type=int, default=10, help="number of samples (default: 10)")
    p.add_argument("--warmup", type=int, default=2, help="number of warm-up runs (default: 2)")
    p.add_argument("--json", type=Path, default=None, help="path of the record (default: none is written)")
    a = p.parse_args()
    # The exporter supports only one memory format.
    last = a.layout == "channels_last" and a.runtime == "torch"
    net = Segformer(a.arch, a.channels, CHANNELS_LAST if last else torch.contiguous_format).eval()
    init_weights(net, torch.Generator().manual_seed(0))
    image = torch.randn(1, 3, a.side, a.side, generator=torch.Generator().manual_seed(0))
    total = record.sample(RUNTIMES[a.runtime](net, image, a.threads), a.warmup, a.repeats).summary()
    name = a.name or f"segformer_{a.arch.removeprefix('mit_')}"
    print(f"{name}: median {total['median_s']:.3f} s, min {total['min_s']:.3f} s ({a.runtime}, {a.threads} threads)")
    record.write(a.json, vars(a), [{"name": name, "total": total}])


if __name__ == "__main__":
    main()
