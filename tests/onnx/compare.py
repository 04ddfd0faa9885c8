"""Checks an exported file: `python tests/onnx/compare.py NAME.onnx`.

ONNX's checker must find no fault in it, and ONNX Runtime must compute, from each NAME.<n>.image.safetensors
beside it, the numbers of NAME.<n>.logits.safetensors. Needs onnx, onnxruntime and numpy.
"""

import json
import struct
import sys
from pathlib import Path

import numpy
import onnx
import onnxruntime

# Largest difference of a logit. Logits have a standard deviation between the two numbers below.
TOLERANCE = 1e-4
SPREAD = (0.05, 20)


def numbers(path, name):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    about = json.loads(data[8 : 8 + length])[name]
    start, end = (8 + length + at for at in about["data_offsets"])
    return numpy.frombuffer(data[start:end], "<f4").reshape(about["shape"])


def main(file):
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    (opset,) = [entry.version for entry in model.opset_import if entry.domain == ""]
    assert opset >= 17, opset
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names), "nodes of one name"
    assert "classes" in {entry.key for entry in model.metadata_props}
    inputs = [value.name for value in model.graph.input]
    outputs = [value.name for value in model.graph.output]
    assert (inputs, outputs) == (["image"], ["logits"]), (inputs, outputs)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    stem = file.removesuffix(".onnx")
    images = sorted(Path(file).parent.glob(f"{Path(stem).name}.*.image.safetensors"))
    assert images, "no images"
    for path in images:
        image = numbers(path, "image").transpose(0, 3, 1, 2)
        ours = numbers(Path(str(path).replace(".image.", ".logits.")), "logits").transpose(0, 3, 1, 2)
        (theirs,) = session.run(["logits"], {"image": numpy.ascontiguousarray(image)})
        assert theirs.shape == ours.shape, (theirs.shape, ours.shape)
        worst, spread = numpy.abs(theirs - ours).max(), ours.std()
        print(f"{Path(stem).name} {image.shape}: {len(names)} nodes, logits ±{spread:.2f}, differ by {worst:.1e}")
        assert SPREAD[0] < spread < SPREAD[1], "logits of this size show nothing"
        assert worst <= TOLERANCE, "they differ"


main(sys.argv[1])
