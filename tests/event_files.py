"""Reads a run's event files by TensorBoard's own reader: `python tests/event_files.py PROGRAM`.

A run is killed some iterations after a checkpoint, resumed, and stopped and resumed once more. Every number
of log.jsonl must then be in its event files, once, and the images must be those of the iterations that count.
Needs only tensorboard. `.ci/run tensorboard` runs it.
"""

import io
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

ITERATIONS = 12
# A small network on small crops; all stages, and pseudo-labels that count although it is untrained.
SETTINGS = """
    data.crop=64 data.batch=2 network.channels=16 network.hrda.detail_crop=32 mask.block=8 quadmix.start=3
    pseudo_label.threshold=0.055 pseudo_label.confident=0.055 rare_class_sampling.min_pixels=2
    quadmix.min_pixels=0 run.checkpoint_interval=4 run.eval_interval=4 run.image_interval=2 run.keep_best=false
    eval.resize=[128,64] eval.window=64 eval.stride=64 target.resize=[128,64] source.resize=[128,70]
""".split()


def train(folder, *more):
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    command = [PROGRAM, "train", "toy_vit", *settings, *more]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)


def finish(process):
    _, told = process.communicate()
    assert process.returncode == 0, told.decode()
    return told.decode()


def lines(run, event):
    text = (run / "log.jsonl").read_text() if (run / "log.jsonl").exists() else ""
    whole = [json.loads(line) for line in text.splitlines(True) if line.endswith("\n")]
    return [line for line in whole if line["event"] == event]


def interrupted(folder):
    """Trains, and returns the run's folder: killed between two checkpoints, stopped, and finished."""
    run = folder / "runs" / "toy_vit"
    process = train(folder)
    # After the checkpoint of iteration 4, whose evaluation is in the log, and before that of 8.
    while len(lines(run, "iteration")) < 6:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 6 <= len(lines(run, "iteration")) < 8, "killed too late"
    finish(train(folder, "--max-iters", "8", "--resume"))
    finish(train(folder, "--max-iters", str(ITERATIONS), "--resume"))
    return run


def close(a, b):
    return numpy.float32(a) == numpy.float32(b)


def compare(run):
    events = sorted(run.glob("events.out.tfevents.*"))
    assert len(events) == 3, events
    raw = Counter()
    for file in events:
        for event in EventFileLoader(str(file)).Load():
            raw.update((value.tag, event.step) for value in event.summary.value)
    assert any(count > 1 for count in raw.values()), "no step ran twice, so nothing was tested"

    reader = EventAccumulator(str(run), size_guidance={"scalars": 0, "images": 0, "histograms": 0, "tensors": 0})
    reader.Reload()
    tags = reader.Tags()
    scalars = {tag: [(s.step, s.value) for s in reader.Scalars(tag)] for tag in tags["scalars"]}
    checked = 0

    def check(tag, expected):
        nonlocal checked
        found = scalars[tag]
        assert [step for step, _ in found] == [step for step, _ in expected], (tag, found, expected)
        assert all(close(a, b) for (_, a), (_, b) in zip(found, expected)), (tag, found, expected)
        checked += len(expected)

    training = lines(run, "iteration")
    assert [line["iteration"] for line in training] == list(range(ITERATIONS))
    names = {name for line in training for name in line["losses"]}
    assert {"decode.loss_seg", "mix.decode.loss_seg", "mix_tss.decode.loss_seg", "masked.decode.loss_seg"} <= names
    for name in names:
        losses = [(line["iteration"] + 1, line["losses"][name]) for line in training if name in line["losses"]]
        check(f"loss/{name}", losses)
    of_each = lambda value: [(line["iteration"] + 1, value(line)) for line in training]
    check("learning_rate/base", of_each(lambda line: line["lr"]))
    check("learning_rate/head", of_each(lambda line: 10 * line["lr"]))
    check("pseudo_label/confident_share", of_each(lambda line: line["pseudo_label_weight"]))
    check("speed/images_per_second", of_each(lambda line: line["images_per_second"]))
    check("memory/peak_device_bytes", of_each(lambda line: line["peak_device_bytes"]))
    assert [step for step, _ in scalars["loss/total"]] == list(range(1, ITERATIONS + 1))

    evaluations = lines(run, "evaluation")
    assert [line["iteration"] for line in evaluations] == [4, 8, 12]
    for name in ["mIoU", "mIoU16", "mIoU13", "aAcc"]:
        check(f"validation/{name}", [(line["iteration"], line[name]) for line in evaluations])
    road = [(line["iteration"], line["IoU"][0]) for line in evaluations]
    check("IoU/road", road)
    assert sum(tag.startswith("IoU/") for tag in scalars) > 10

    # Of iteration 1, and every second one; QuadMix starts at iteration 3, counted from 0.
    steps = [1, *range(2, ITERATIONS + 1, 2)]
    images = {tag: reader.Images(tag) for tag in tags["images"]}
    expected = {name: steps for name in ["source", "target", "masked"]}
    expected["mixed"] = [1, 2]
    expected["mixed_source"] = expected["mixed_target"] = steps[2:]
    assert {tag: [image.step for image in shown] for tag, shown in images.items()} == {
        f"images/{name}": steps for name, steps in expected.items()
    }
    for tag, shown in images.items():
        for image in shown:
            picture = Image.open(io.BytesIO(image.encoded_image_string))
            panels = 3 if tag == "images/target" else 2
            assert picture.size == (image.width, image.height) == (64 * panels, 128), (tag, picture.size)
            pixels = numpy.asarray(picture)
            assert pixels[:, :64].std() > 5, f"{tag} shows nothing"
            assert len(numpy.unique(pixels[:, 64:128].reshape(-1, 3), axis=0)) > 1, f"{tag} has one label"
    histograms = reader.Histograms("pseudo_label/confidence")
    assert [histogram.step for histogram in histograms] == steps
    for histogram in histograms:
        value = histogram.histogram_value
        assert value.num == sum(value.bucket) == 2 * 64 * 64 and 0 < value.min < value.max <= 1, value
        limits = list(value.bucket_limit)
        assert limits == sorted(limits) and value.bucket[0] > 0 and value.bucket[-1] > 0
        assert limits[0] - 0.02 <= value.min <= limits[0] and limits[-1] - 0.02 <= value.max <= limits[-1]
        assert value.min <= value.sum / value.num <= value.max
    print(f"{len(events)} files, {checked} numbers, {sum(map(len, images.values()))} images: as in the log")


def switched_off(folder):
    told = finish(train(folder, "--max-iters", "1", "--set", "run.tensorboard=false", "--out", "runs/off"))
    assert not list((folder / "runs/off").glob("*tfevents*")), told


PROGRAM = str(Path(sys.argv[1]).resolve())
with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    compare(interrupted(folder))
    switched_off(folder)
