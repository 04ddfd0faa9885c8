"""The stages of `run` and the commands that they consist of."""

import machine

STAGE_SECONDS = 450
PRECISIONS = ("f32", "tf32", "bf16")
# PyTorch as configured in the reference code (float32, eager), and as fast as it can run.
PYTORCH = {
    "reference": ["--stock-depthwise", "--no-joint", "--head-layout", "nchw"],
    "best": ["--bf16", "--tf32", "--compile", "--stock-depthwise"],
}
# Configuration overrides to benchmark in addition to the preset, by the name used for commands and in tables.
VARIANTS = {"joined": "network.batch_student_passes=true", "without-graph": "device.cuda_graph=false"}
# The stored cases that touch most: a training step, a whole iteration of QuadMix, inference.
IMPORTANT = ("pub_train_mit_b0_w", "pub_uda_quad_aug", "pub_hrda_eval_mit_b0_128x128")
DRY_CASES = ("pub_piece_ce", "pub_backbone_mit_b0_64x64")


class Command:
    """A program to run. `limit` is in seconds. Commands of one `group` must print the same line `bits …`."""

    def __init__(self, name, argv, env=None, limit=STAGE_SECONDS, needs=None, group=None):
        self.name, self.argv, self.env, self.limit = name, argv, env or {}, limit
        self.needs, self.group = needs, group


class Stage:
    """Commands that run one after another, in no more than `seconds` together."""

    def __init__(self, name, commands, seconds=STAGE_SECONDS):
        self.name, self.commands, self.seconds = name, commands, seconds


def stages(here, work, dry, python, sanitizer):
    """Returns every stage, and the stages of `most` in their order."""
    device, torch_device = ("host", "cpu") if dry else ("cuda", "cuda")
    setting = "toy_vit" if dry else "gta_vit"
    at = lambda p, **more: {"UDASS_DEVICE": device, "UDASS_PRECISION": p} | more
    binary = lambda name: str(here / "bin" / name)
    record = lambda name: str(work / f"{name}.record.json")
    cases = machine.output(binary("golden"), "--list").split("\n")
    cases = [line.removesuffix(": test") for line in cases if line.endswith(": test")]

    def info():
        return Command("info", [binary("udass-raw"), "info"], limit=30)

    # One process a case: after the fault of a kernel, nothing else can run in its process.
    def golden(p, names):
        return [Command(f"golden-{p}-{name}", [binary("golden"), "--exact", name], at(p), 120) for name in names]

    def ops(p):
        return Command(f"ops-{p}", [binary("precisions"), "--test-threads", "1"], at(p), 150)

    def step(p, method, variant="", samples=10):
        env = at(p) | ({"UDASS_SET": VARIANTS[variant]} if variant else {})
        name = f"step-{method}-{p}" + (variant and f"-{variant}")
        argv = [binary("step"), "--bench", "--samples", str(1 if dry else samples), "--warmup", "1" if dry else "3",
                "--case", f"{setting}/{method}"]
        return Command(name, argv, env | {"UDASS_RECORD": record(name)}, 120)

    # Two processes, each of which trains with and without a graph, must end in the same bits.
    def same_bits(p):
        env = at(p, UDASS_SAME_BITS=setting)
        return [Command(f"same-bits-{p}-{i}", [binary("same_bits"), "--nocapture"], env, 90, group=f"same-bits-{p}")
                for i in (1, 2)]

    def pytorch(how, method, samples=10):
        sizes = ["--arch", "mit_b0", "--channels", "64"] if dry else ["--arch", "mit_b5", "--crop", "1024"]
        flags = [flag for flag in PYTORCH[how] if not (dry and flag == "--compile")]
        name = f"pytorch-{how}-{method}"
        argv = [python, str(here / "pytorch/step.py"), "--name", name, "--device", torch_device, "--method", method,
                *sizes, *flags, "--repeats", "1" if dry else str(samples), "--warmup", "1" if dry else "3",
                "--json", record(name)]
        return Command(name, argv, limit=400, needs="torch")

    def rates(p):
        name = f"rates-{p}"
        argv = [binary("kernels"), "--bench", "--samples", "3" if dry else "20", "--warmup", "3", "--case", "rate/"]
        return Command(name, argv, at(p, UDASS_RECORD=record(name)), 120)

    # The operations of both networks; pytorch_ops reads their sizes from the output of list_of_ops.
    wanted = ["b0_128/layernorm"] if dry else ["gta_vit/", "gta_cnn/"]

    def kernels(p, preset):
        name = f"kernels-{preset.split('/')[0]}-{p}"
        argv = [binary("kernels"), "--bench", "--samples", "1" if dry else "10", "--warmup", "1" if dry else "3",
                "--seconds", "1", "--case", preset]
        return Command(name, argv, at(p, UDASS_RECORD=record(name)), 220)

    def list_of_ops():
        return Command("kernels-cases", [binary("kernels"), "--bench", "--cases"], at("f32"), 60)

    def pytorch_ops(bf16):
        name = "pytorch-ops-" + ("bf16" if bf16 else "f32")
        chosen = [argument for preset in wanted for argument in ("--case", preset)]
        argv = [python, str(here / "pytorch/ops.py"), "--device", torch_device, *chosen, *(["--bf16"] if bf16 else []),
                "--cases", str(work / "kernels-cases.log"), "--repeats", "2" if dry else "10", "--warmup", "3",
                "--seconds", "1", "--json", record(name)]
        return Command(name, argv, limit=400, needs="torch")

    # UDASS_SEPARATE_TENSORS: in an allocation for many tensors, the sanitizer would miss accesses beyond the end of
    # a tensor. A CUDA graph would keep the memory of an iteration, and hides which launch is at fault.
    def sanitize(tool, p, name, argv):
        argv = [sanitizer, "--tool", tool, "--error-exitcode", "9", "--target-processes", "all",
                *machine.sanitizer_options(sanitizer, tool), *argv]
        return Command(f"{tool}-{p}-{name}", argv, at(p, UDASS_SEPARATE_TENSORS="1"), 220, needs="compute-sanitizer")

    def sanitize_ops(tool, p):
        return sanitize(tool, p, "ops", [binary("precisions"), "--test-threads", "1"])

    def sanitize_case(tool, p, case):
        return sanitize(tool, p, case, [binary("golden"), "--exact", case])

    important = DRY_CASES if dry else IMPORTANT
    every = [Stage("info", [info()])]
    every += [Stage(f"tests-{p}", [ops(p), *golden(p, DRY_CASES if dry else cases)]) for p in PRECISIONS]
    every += [Stage("sanitize" + (f"-{p}" if p != "bf16" else ""), [
        sanitize_case("memcheck", p, important[0]), sanitize_ops("memcheck", p), sanitize_ops("racecheck", p),
        sanitize_ops("synccheck", p)]) for p in ("bf16", "f32")]
    every.append(Stage("rates", [rates(p) for p in PRECISIONS]))
    every += [Stage(f"step-{p}", [*(step(p, m) for m in ("mic", "quadmix")), *(step(p, "quadmix", v) for v in VARIANTS)])
              for p in PRECISIONS]
    every += [Stage(f"same-bits-{p}", same_bits(p)) for p in PRECISIONS]
    every += [Stage(f"ops-{p}", [kernels(p, preset) for preset in wanted]) for p in PRECISIONS]
    every += [Stage("pytorch-reference", [pytorch("reference", m) for m in ("mic", "quadmix")]),
              Stage("pytorch-best", [pytorch("best", "quadmix")]),
              Stage("pytorch-best-mic", [pytorch("best", "mic")]),
              Stage("pytorch-ops", [list_of_ops(), pytorch_ops(False)]),
              Stage("pytorch-ops-bf16", [list_of_ops(), pytorch_ops(True)]),
              Stage("pytorch-precision", [Command(
                  "pytorch-precision",
                  [python, str(here / "pytorch/precision.py"), "--golden", str(here / "golden"),
                   *(["--case", "mit_b0_64", "--runs", "2"] if dry else ["--runs", "8"]),
                   "--json", str(work / "precision.json")], needs="torch")])]
    # What tells most comes first: a machine may be taken away at any time.
    most = [Stage("info", [info()], 30),
            Stage("cases-bf16", golden("bf16", important), 90),
            Stage("cases-f32", golden("f32", important), 90),
            Stage("iteration-bf16", [step("bf16", "quadmix", samples=5), step("bf16", "quadmix", "without-graph", 3)], 120),
            Stage("iteration-pytorch", [pytorch("reference", "quadmix", samples=3)], 120),
            Stage("iteration-f32", [step("f32", "quadmix", samples=3), rates("bf16")], 90),
            Stage("ops", [ops("bf16"), ops("f32")], 120),
            Stage("iteration-joined", [step("bf16", "quadmix", "joined", samples=5)], 60),
            Stage("same-bits", same_bits("f32" if dry else "bf16"), 90),
            Stage("memcheck", [sanitize_case("memcheck", "bf16", important[0])], 60)]
    return every, most
