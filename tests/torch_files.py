"""Checks `udass-raw weights` against PyTorch itself: `python tests/torch_files.py PROGRAM [CHECKPOINT]`.

Files that PyTorch writes, in both of its formats, must come back from safetensors and .pth as they
were, by torch.load(weights_only=True); a run's CHECKPOINT must convert to one that loads the same way and
whose optimizer state AdamW accepts. Needs only torch. Not part of `cargo test`: PyTorch takes gigabytes.
"""

import collections
import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

TYPES = {
    "F32": torch.float32, "F64": torch.float64, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}


def run(*arguments):
    subprocess.run([PROGRAM, "weights", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def read_safetensors(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, info in header.items():
        start, end = (8 + length + at for at in info["data_offsets"])
        flat = torch.frombuffer(bytearray(data[start:end]), dtype=torch.uint8) if end > start \
            else torch.empty(0, dtype=torch.uint8)
        tensors[name] = flat.view(TYPES[info["dtype"]]).reshape(info["shape"])
    return tensors


def same(a, b):
    """Returns whether both are bit-identical, including types and containers."""
    if isinstance(a, torch.Tensor):
        a, b = a.detach().contiguous(), b.detach().contiguous()
        bits = lambda t: t.reshape(-1).view(torch.uint8)
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(bits(a), bits(b))
    if isinstance(a, dict):
        return type(a) is type(b) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or a != a and b != b)


def example():
    base = torch.randn(4, 6)
    state = collections.OrderedDict()
    for name, dtype in TYPES.items():
        state[name.lower()] = (torch.randn(3, 5) * 9).to(dtype)
    state.update(
        view=base[1:3], transposed=base.t(), strided=base[:, ::2], tied=base, again=base,
        expanded=torch.ones(1).expand(2, 3), scalar=torch.tensor(7), empty=torch.empty(0, 3),
        parameter=torch.nn.Parameter(torch.randn(2)),
    )
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    meta = {"iter": 4000, "lr": 6e-5, "none": None, "classes": ("road", "sky"), "nested": [[1, 2], {}],
            "flag": True, "negative": -5, "large": 1 << 40, "nan": float("nan")}
    return {"meta": meta, "state_dict": state, "optimizer": optimizer.state_dict()}


def round_trips(folder):
    nested = example()
    bare = nested["state_dict"]
    for name, content in [("nested", nested), ("bare", bare)]:
        for new in [True, False]:
            path, there, back = (folder / f"{name}{end}" for end in [".pth", ".safetensors", "2.pth"])
            torch.save(content, path, _use_new_zipfile_serialization=new)
            run("convert", path, there)
            run("convert", there, back)
            run("verify", back)
            # A parameter is read back as a plain tensor.
            loaded = torch.load(back, weights_only=True)
            assert same(content, loaded), f"{name}, zip {new}"
            tensors = read_safetensors(there)
            assert all(same(value, tensors[key]) for key, value in bare.items())
            print(f"{name}, {'zip' if new else 'older'} format: {len(tensors)} tensors, exact")


def checkpoint(path, folder):
    out = folder / "run.pth"
    run("convert", path, out)
    loaded = torch.load(out, weights_only=True)
    own = read_safetensors(Path(path))
    state = loaded["state_dict"]
    assert set(state) == {k for k in own if k.startswith(("model.", "ema_model."))}
    assert all(same(own[key], value) for key, value in state.items())
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    names = [k for k in state if k.startswith("model.") and not k.endswith(buffers)]
    count = len(loaded["optimizer"]["param_groups"])
    parameters = [torch.nn.Parameter(state[names[i % len(names)]].clone()) for i in range(count)]
    adam = torch.optim.AdamW([{"params": [p]} for p in parameters])
    adam.load_state_dict(loaded["optimizer"])
    for parameter, name in zip(parameters, names):
        name = name.removeprefix("model.")
        for moment in ["exp_avg", "exp_avg_sq"]:
            assert same(adam.state[parameter][moment], own[f"optimizer.{moment}.{name}"]), name
    print(f"{path}: iteration {loaded['meta']['iter']}, {len(state)} tensors, {count} groups, exact")
    again = folder / "run.safetensors"
    run("convert", out, again)
    assert again.read_bytes() == Path(path).read_bytes()
    print("and back to the same bytes")


PROGRAM = str(Path(sys.argv[1]).resolve())
with tempfile.TemporaryDirectory() as name:
    round_trips(Path(name))
    for path in sys.argv[2:]:
        checkpoint(path, Path(name))
