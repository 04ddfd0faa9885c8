"""Checks that the PyTorch baseline computes the same numbers as the stored cases.

    python check.py [--golden tests/golden]

Weights and inputs come from formula.py, random choices from the cases' records.

Every case runs in float32 and in float64. In float64, every value must be within its stored tolerance. Gradients
of badly conditioned cases are the exception: their stored values were computed in float32, so it is enough if
float32 meets the tolerance. In float32, which is what the benchmarks time, gradients and everything that depends
on them may differ by 1e-2 (relative L2) or by their own tolerance if it is larger: a ReLU's input that is zero
up to round-off can have either sign, and one flipped pixel shows in every layer below it.

Exits with status 1 if any value is out of tolerance.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

import formula
import model
from iteration import Batch, Draws, Settings, Switches, Template, Trainer, build
from model import CHANNELS_LAST, Dlv2Head, Hrda, Plain, layout_of, make_backbone

# Names of the ResNets in the stored cases.
ARCHS = {"r50": "resnet50_v1c", "r101": "resnet101_v1c"}


def is_noise(entry: dict) -> bool:
    """Returns whether a gradient is zero except for round-off (such as a bias just before batch norm)."""
    return "mathematically zero" in str(entry.get("note", "")) + str(entry.get("tol", ""))


def follows_gradients(key: str) -> bool:
    """Returns whether a result is or depends on a gradient: norms, updates, later iterations of a chain."""
    return key.startswith(("grad/", "ema_next/", "it1/", "it2/")) or "grad_norm" in key


def here(tensor: Tensor) -> Tensor:
    return tensor.to(torch.get_default_device())


def real(array: np.ndarray) -> Tensor:
    return here(torch.from_numpy(array).to(torch.get_default_dtype()))


@contextlib.contextmanager
def replaced(owner, name: str, value):
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def accuracies():
    """Collects the accuracy that the released code logs with each loss, in percent of pixels."""
    seen, loss = [], model.cross_entropy

    def seeing(logits: Tensor, label: Tensor, weight: Tensor | None) -> Tensor:
        right = model.resize(logits, label.shape[1:]).argmax(1) == label
        seen.append(100 * right.double().mean().item())
        return loss(logits, label, weight)

    with replaced(model, "cross_entropy", seeing):
        yield seen


class Golden:
    def __init__(self, folder: Path):
        self.folder = folder
        self.cases = {c["name"]: c for c in json.loads((folder / "cases.json").read_text())}
        self.failures = self.checks = 0
        # Gradients that were within their own tolerance in float32.
        self.met: set[tuple[str, str]] = set()
        self.worst = 0.0

    def open(self, name: str):
        self.case = self.cases[name]
        self.stored = {k: here(v) for k, v in load_file(self.folder / self.case["file"]).items()}
        self.first, self.worst = self.checks, 0.0
        return self.case

    def close(self) -> None:
        dtype = str(torch.get_default_dtype()).removeprefix("torch.")
        print(f"{self.case['name']} {dtype}: {self.checks - self.first} values compared, "
              f"largest error is {self.worst:.2f} times its tolerance")

    def fill(self, module: torch.nn.Module, prefix: str = "", scale: dict | None = None) -> None:
        state = module.state_dict()
        for key, tensor in state.items():
            if key.endswith("num_batches_tracked"):
                continue
            value = here(torch.from_numpy(formula.weight(prefix + key, tuple(tensor.shape))))
            for part, factor in (scale or {}).items():
                value = value * np.float32(factor) if part in key else value
            tensor.copy_(value)

    def image(self, key: str, shape) -> Tensor:
        return real(formula.image(f"input/{self.case['name']}/{key}", shape))

    def report(self, key: str, ratio: float, text: str) -> None:
        self.checks += 1
        self.worst = max(self.worst, ratio) if ratio == ratio else float("inf")
        if not ratio <= 1.0:  # also true for NaN
            self.failures += 1
            print(f"  FAIL {self.case['name']} {key}: {text}")

    def tensor(self, key: str, value: Tensor) -> None:
        entry = self.case["tensors"][key]
        flat = value.detach().clone().contiguous().reshape(-1).double()
        if entry["storage"] == "strided":
            flat = flat[:: entry["stride"]][: entry["count"]]
        want, tol = self.stored[key].reshape(-1).double(), entry["tol"]
        if list(value.shape) != list(entry["shape"]) or flat.shape != want.shape:
            return self.report(key, float("inf"), f"shape {list(value.shape)}, stored {entry['shape']}")
        if isinstance(tol, str):  # discrete maps
            agree = (flat == want).double().mean().item()
            ok = agree == 1.0 if tol == "exact" else agree >= 0.999
            return self.report(key, 0.0 if ok else 2.0, f"agreement {agree:.5f}, expected {tol}")
        difference = flat - want
        zero = is_noise(entry)
        worst = (flat if zero else difference).abs().max().item()
        rel = (difference.norm() / want.norm()).item() if "rel_l2" in tol and not zero else 0.0

        def of(tol: dict) -> float:
            ratio = max(worst / tol["max_abs"], rel / tol.get("rel_l2", 1.0))
            return ratio if rel == rel else rel

        ratio = of(tol)
        if follows_gradients(key) and not zero and "rel_l2" in tol:
            place = (self.case["name"], key)
            if torch.get_default_dtype() == torch.float32:
                if ratio <= 1.0:
                    self.met.add(place)
                tol = {"rel_l2": max(1e-2, tol["rel_l2"]), "max_abs": float("inf")}
                ratio = of(tol)
            elif ratio > 1.0 and place in self.met:
                print(f"  {place[0]} {key}: {ratio:.2f} times its tolerance in float64, but within it in float32")
                return
        self.report(key, ratio, f"error is {ratio:.2f} times the tolerance {tol}")

    def stepped(self, name: str, value: Tensor, rate: float) -> Tensor:
        """Checks a parameter after AdamW's first step; returns 1 for each value that is close, otherwise 0."""
        key = f"param_after/{name}"
        entry = self.case["tensors"][key]
        value = value.detach().contiguous().reshape(-1)
        if entry["storage"] == "strided":
            value = value[:: entry["stride"]][: entry["count"]]
        # Adam's first step is lr x sign(gradient), and the sign of a gradient that is only round-off is arbitrary.
        if is_noise(self.case["tensors"][f"grad/{name}"]):
            return value[:0].double()
        off = (value.float() - self.stored[key].reshape(-1)).abs()
        if name.endswith("attn.kv.bias"):  # softmax cancels the key bias: that half is noise too
            off = off[off.numel() // 2 :]
        near = (off <= 0.02 * rate).double()
        single = torch.get_default_dtype() == torch.float32
        ok = (single or near.mean() >= 0.98) and off.max() <= entry["tol"]["max_abs"]
        self.report(key, 0.0 if ok else 2.0, f"{near.mean():.4f} of the values are close, "
                    f"largest difference {off.max():.2e}, tolerance {entry['tol']}")
        return near

    def scalar(self, key: str, value: float) -> None:
        entry = self.case["scalars"][key]
        tol = entry["tol_rel"]
        if follows_gradients(key) and torch.get_default_dtype() == torch.float32:
            tol = max(1e-2, tol)
        ratio = abs(float(value) - entry["value"]) / (abs(entry["value"]) * tol)
        self.report(key, ratio, f"{float(value)!r}, stored {entry['value']!r}")


def gradients(g: Golden, grads: dict[str, Tensor]) -> None:
    for name, grad in grads.items():
        if f"grad/{name}" in g.case["tensors"]:
            g.tensor(f"grad/{name}", grad)


def buffers(g: Golden, model: torch.nn.Module, prefix: str) -> None:
    for name, value in model.named_buffers():
        if prefix + name in g.case["tensors"]:
            g.tensor(prefix + name, value)


def check_backbone(g: Golden, name: str, _: dict) -> None:
    config = g.open(name)["config"]
    arch = ARCHS.get(config["backbone"], config["backbone"])
    net = make_backbone(arch, drop_path=0.0).eval()
    g.fill(net, "backbone.")
    net.to(memory_format=layout_of(arch))
    with torch.inference_mode():
        features = net(g.image("img", (config["batch"], 3, config["H"], config["W"])))
    for i, f in enumerate(features):
        g.tensor(f"feat{i}", f.permute(0, 3, 1, 2))
    g.close()


def check_dlv2(g: Golden, name: str, _: dict) -> None:
    shape = g.open(name)["config"]["feat_shapes"][3]
    net = Dlv2Head(shape[1]).eval()
    g.fill(net, "decode_head.")
    with torch.inference_mode():
        g.tensor("logits", net([g.image("feat3", shape).permute(0, 2, 3, 1)] * 4))
    g.close()


def network(g: Golden, **options) -> Hrda | Plain:
    c = g.case["config"]
    options |= {"arch": ARCHS.get(c["arch"], c["arch"]), "dropout": 0.0, "drop_path": 0.0}
    if "hr_crop" in c:
        net = Hrda(detail=c["hr_crop"][0], **options)
    else:
        options.pop("joint")
        net = Plain(**options)
    g.fill(net, scale=c.get("weight_scale"))
    return net.to(memory_format=layout_of(options["arch"]))


def predict(g: Golden, net: Hrda | Plain, image: Tensor) -> None:
    with torch.inference_mode():
        out = net.eval().predict(image)
    probs = out["logits"].softmax(1)
    (max_prob, argmax), context = probs.max(1), net.context(image)
    out |= {"lr_img": context, "probs": probs, "max_prob": max_prob, "argmax": argmax}
    for key in out.keys() & g.case["tensors"].keys():
        g.tensor(key, out[key])


def check_eval(g: Golden, name: str, options: dict) -> None:
    c = g.open(name)["config"]
    net = network(g, **options)
    predict(g, net, g.image("img", (c["batch"], 3, c["H"], c["W"])))
    g.tensor("boxes", torch.tensor(net.boxes(c["H"], c["W"])))
    g.close()


def check_train(g: Golden, name: str, options: dict) -> None:
    """Checks a training pass; for single-scale networks, an evaluation pass first."""
    c = g.open(name)["config"]
    net, b, h, w = network(g, **options), c["batch"], c["H"], c["W"]
    image = g.image("img", (b, 3, h, w))
    if isinstance(net, Plain):
        predict(g, net, image)
    label = here(torch.from_numpy(formula.label(f"input/{name}/label", b, h, w)))
    weight = real(formula.unit(f"input/{name}/seg_weight", (b, h, w))) if c.get("seg_weight") else None
    box = c.get("crop_box_y1y2x1x2")
    out = net.train()(image, box)
    with accuracies() as accuracy:
        losses = net.losses(out, box, label, weight)
    sum(losses).backward()
    g.tensor("label", label)
    for key, value in zip(("fused_seg", "hr_seg", "lr_seg"), out):
        if f"logits/{key}" in g.case["tensors"]:
            g.tensor(f"logits/{key}", value)
    for kind, value, share in zip(KINDS.values(), losses, accuracy):
        g.scalar(f"{kind}.loss_seg", value.item())
        g.scalar(f"{kind}.acc_seg", share)
    g.scalar("loss", sum(losses).item())
    grads = {n: p.grad for n, p in net.named_parameters()}
    if "grad_norm_total" in g.case["scalars"]:
        g.scalar("grad_norm_total", torch.stack([v.double().norm() for v in grads.values()]).norm())
    gradients(g, grads)
    buffers(g, net, "bn/")
    g.close()


class Recorded(Draws):
    """Replays the random choices of a case. A choice of a different kind than the recorded one is an error."""

    def __init__(self, g: Golden, draws: list):
        self.g, self.c = g, g.case["config"]
        self.left = list(draws)

    def take(self, kind: str):
        draw = self.left.pop(0)
        if draw["kind"] != kind:
            raise RuntimeError(f"{self.g.case['name']}: expected {kind}, but {draw['kind']} was recorded")
        return draw["value"]

    def close(self) -> None:
        self.g.report("draws", 0.0 if not self.left else 2.0, f"{len(self.left)} recorded choices were not used")

    def uniform(self, low=0.0, high=1.0):
        return self.take("random.uniform")

    def box(self):
        return tuple(self.take("hr_crop_box"))

    def choice(self, n, k):
        recorded = self.left[0]["args"]
        if recorded != [n, k]:
            raise RuntimeError(f"{self.g.case['name']}: requested [{n}, {k}], but {recorded} was recorded")
        return self.take("np.random.choice")

    def sigma(self):
        return self.take("np.random.uniform(sigma)")

    def grid(self, shape):
        return torch.tensor(self.take("torch.rand(mask grid)")).view(shape)

    def jitter(self, n):
        d = self.take("ColorJitter")
        names = ("brightness", "contrast", "saturation", "hue")
        return [torch.tensor(d[f"{k}_factor"]) for k in names], d["order"]

    def rare_classes(self):
        return self.take("random.sample")

    def rare_crop(self, cls):
        from PIL import Image

        (file,) = self.take("random.sample")
        x, y = self.take("random.randint"), self.take("random.randint")
        size = tuple(self.c["rand_mixer"]["resize_wh"])
        ch, cw = self.c["rand_mixer"]["crop"]
        area = (slice(y, y + ch), slice(x, x + cw))
        rgb = Image.fromarray(self.g.stored[f"src/{file}/rgb"].cpu().numpy()).resize(size, Image.BILINEAR)
        raw = Image.fromarray(self.g.stored[f"src/{file}/rawlabel"].cpu().numpy()).resize(size, Image.NEAREST)
        # As in the released code: subtracts the mean in RGB order from BGR, and divides by 255.
        bgr = np.asarray(rgb)[area][..., ::-1].astype(np.float32) - np.float32([123.675, 116.28, 103.53])
        table = np.full(256, 255)
        for k, v in self.g.cases["pub_piece_rare_paste"]["config"]["raw_to_train"].items():
            table[int(k)] = v
        image = torch.from_numpy(np.ascontiguousarray((bgr / np.float32(255)).transpose(2, 0, 1)))
        return here(image), here(torch.from_numpy(table[np.asarray(raw)[area]]))


# Names of a pass's losses in the stored cases, in order.
KINDS = {"decode": "decode", "hr": "decode.hr"}


def trainer_of(g: Golden, options: dict, method: str = "quadmix") -> Trainer:
    c = g.case["config"]
    s = Settings(method, mask_block=c["mask_block"], mask_ratio=c["uda"]["mask_generator"]["mask_ratio"])
    trainer = build(c["arch"], 256, c["hr_crop"][0], s, **options, dropout=0.0, drop_path=0.0)
    g.fill(trainer.student, "", c["weight_scale"])
    if trainer.teacher is not None:
        g.fill(trainer.teacher, "ema_model.", c["weight_scale"])
    g.fill(trainer.imagenet, "imnet_model.backbone.")
    return trainer


def start(g: Golden, options: dict, method: str = "quadmix") -> tuple[Trainer, Batch]:
    """Returns a trainer in the state at the start of a case's iteration, and the batch."""
    c, trainer = g.case["config"], trainer_of(g, options, method)
    shape = (c["batch"], 3, c["size"], c["size"])
    kept = lambda key: g.stored[f"in/{key}"]
    batch = Batch(g.image("img", shape), kept("label").long(), g.image("target_img", shape),
                  kept("valid_pseudo_mask").to(torch.get_default_dtype()))
    if c["local_iter"] >= trainer.settings.quad_from:
        trainer.template = Template(
            g.image("tmpl_img", shape), kept("tmpl_label").long(), g.image("tmpl_target_img", shape),
            kept("tmpl_plabel").long(), kept("tmpl_confident").bool(), real(kept("tmpl_pseudo_weight").numpy()))
    return trainer, batch


def run(g: Golden, trainer: Trainer, t: int, batch: Batch, draws: Recorded, at: str = "") -> dict[str, Tensor]:
    """Runs iteration t, compares its losses and accuracies with the log, and returns the losses."""
    with accuracies() as accuracy:
        losses = trainer.run(t, batch, draws)
    for key, value in losses.items():
        if key == "src.feature_distance":
            g.scalar(f"{at}log/src.loss_imnet_feat_dist", value)
        else:
            g.scalar(f"{at}{logged(key)}.loss_seg", value)
            g.scalar(f"{at}{logged(key)}.acc_seg", accuracy.pop(0))
    return losses


def compare_run(g: Golden, losses: dict[str, Tensor], seen: dict[str, Tensor]) -> None:
    totals: dict[str, Tensor] = {}  # the total loss that each of the reference's backward passes starts from
    for key, value in losses.items():
        part = key if key == "src.feature_distance" else key.partition(".")[0]
        totals[part] = totals.get(part, 0) + value * (0.5 if part.startswith("mix_") else 1)
    for k, total in enumerate(totals.values()):
        g.scalar(f"backward{k}/loss", total)
    for key, value in seen.items():
        if key.startswith("quad/"):
            _, side, part = key.split("/")
            for i, one in enumerate(value):
                g.tensor(f"quad/{side}{i}/{part}", one[None, None] if part == "mask" else one)
        elif key in g.case["tensors"] and value is not None:
            g.tensor(key, value.unsqueeze(1) if key == "fdist/mask" else value)


def logged(key: str) -> str:
    """Translates a trainer's loss name (`masked.hr`) to that in a case's log, where the source pass has no prefix."""
    part, _, kind = key.partition(".")
    return f"log/{KINDS[kind]}" if part == "src" else f"log/{part}.{KINDS[kind]}"


def check_method(g: Golden, name: str, options: dict) -> None:
    """Checks that methods that omit parts of an iteration run only the others, with the stored results."""
    for method, parts in (("source_only", {"src"}), ("hrda", {"src", "mix"}), ("mic", {"src", "mix", "masked"})):
        c = g.open(name)["config"]
        trainer, batch = start(g, options, method)
        losses = run(g, trainer, c["local_iter"], batch, Recorded(g, c["draws"]))
        ran = {key.partition(".")[0] for key in losses}
        g.report(method, 0.0 if ran == parts else 2.0, f"ran {ran}, expected {parts}")
        compare_run(g, losses, trainer.seen)
    g.close()


def watched(trainer: Trainer) -> dict[str, Tensor]:
    """Returns a dict that every optimizer step fills with the student's gradients."""
    grads: dict[str, Tensor] = {}
    named = list(trainer.student.named_parameters())
    trainer.optimizer.register_step_pre_hook(lambda *_: grads.update((n, p.grad.clone()) for n, p in named))
    return grads


def norms(values, names: list[str]) -> Tensor:
    values = dict(values)
    return torch.stack([values[n].detach().double().norm() for n in names])


def check_iteration(g: Golden, name: str, options: dict) -> None:
    c = g.open(name)["config"]
    trainer, batch = start(g, options)
    s, grads = trainer.settings, watched(trainer)
    draws = Recorded(g, c["draws"])
    losses = run(g, trainer, c["local_iter"], batch, draws)
    draws.close()
    compare_run(g, losses, trainer.seen)
    left = trainer.template
    for key, value in (("confident", left.confident), ("pseudo_label", left.pseudo), ("pseudo_weight", left.weight)):
        g.tensor(f"state/{key}_tmpl", value)
    gradients(g, grads)
    norm = norms(grads, list(grads)).norm()
    g.scalar(f"backward{4 if 'mix_tss.decode' in losses else 3}/total_grad_norm_so_far", norm)
    buffers(g, trainer.student, "bn/model.")
    buffers(g, trainer.teacher, "bn/ema_model.")
    # In float32, the ReLU flips that are allowed for gradients also affect updates. Single parameters may have
    # many wrong values then, so the share is taken over all parameters.
    shares = [g.stepped(n, p, s.lr * (10 if "head" in n else 1)) for n, p in trainer.student.named_parameters()]
    near = torch.cat(shares).mean().item()
    g.report("param_after", 0.0 if near >= 0.98 else 2.0, f"{near:.4f} of all values are close")
    trainer.update_teacher(c["local_iter"] + 1)
    for n, p in trainer.teacher.named_parameters():
        g.tensor(f"ema_next/{n}", p)
    g.close()


def check_chain(g: Golden, name: str, options: dict) -> None:
    """Runs consecutive iterations, each on the state that the previous one left."""
    c = g.open(name)["config"]
    trainer, order = trainer_of(g, options), c["param_order"]
    student, teacher, grads = trainer.student, trainer.teacher, watched(trainer)
    shape = (c["batch"], 3, c["size"], c["size"])
    for i, (t, (lr, head_lr)) in enumerate(zip(c["local_iters"], c["lr_and_head_lr"])):
        at = f"it{i}/"
        for group, rate in zip(trainer.optimizer.param_groups, (head_lr, lr, lr)):
            group["lr"] = rate
        valid = g.stored[f"{at}valid"].to(torch.get_default_dtype())
        batch = Batch(g.image(f"img{i}", shape), g.stored[f"{at}label"].long(), g.image(f"target_img{i}", shape), valid)
        draws = Recorded(g, c["draws"][i])
        run(g, trainer, t, batch, draws, at)
        draws.close()
        share = (trainer.seen["teacher/max_prob"] >= trainer.settings.threshold).double().mean()
        g.scalar(f"{at}pseudo_weight_value", share)
        g.tensor(f"{at}teacher_plabel", trainer.seen["teacher/plabel"])
        g.tensor(f"{at}teacher_logits", trainer.seen["teacher/logits"])
        g.tensor(f"{at}grad_l2", norms(grads, order))
        g.tensor(f"{at}student_param_l2", norms(student.named_parameters(), order))
        g.tensor(f"{at}teacher_param_l2", norms(teacher.named_parameters(), order))
    for of, net in (("student", student), ("teacher", teacher)):
        for n, p in net.named_parameters():
            g.tensor(f"{at}{of}_param/{n}", p)
        buffers(g, net, f"{at}{of}_bn/")
    g.close()


# The checks of the stored cases, by the prefix of their names.
CHECKS = (("pub_backbone_", check_backbone), ("pub_head_dlv2_", check_dlv2), ("pub_hrda_eval_", check_eval),
          ("pub_plain_", check_train), ("pub_train_", check_train), ("pub_uda_mic_", check_iteration),
          ("pub_uda_quad_", check_iteration), ("pub_uda_chain", check_chain), ("pub_uda_mic_off", check_method))


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--golden", type=Path, default=Path("tests/golden"), help="folder of the stored cases")
    p.add_argument("--case", help="run only the cases whose names contain this (default: all)")
    p.add_argument("--threads", type=int, default=2, help="number of threads (default: 2)")
    p.add_argument("--head-layout", choices=("channels_last", "nchw"), default="channels_last",
                   help="memory format of the decoder (default: channels_last)")
    p.add_argument("--stock-depthwise", action="store_true",
                   help="use nn.Conv2d for the dilated depthwise convolutions")
    p.add_argument("--no-joint", action="store_true", help="run context and detail as two backbone passes")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    layout = CHANNELS_LAST if a.head_layout == "channels_last" else torch.contiguous_format
    options = {"head_layout": layout, "joint": not a.no_joint, "taps": not a.stock_depthwise}
    g = Golden(a.golden)
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        for prefix, check in CHECKS:
            for name in g.cases:
                if name.startswith(prefix) and (a.case is None or a.case in name):
                    check(g, name, options)
    print(f"{g.checks} values compared, {g.failures} out of tolerance")
    return 1 if g.failures else 0


if __name__ == "__main__":
    sys.exit(main())
