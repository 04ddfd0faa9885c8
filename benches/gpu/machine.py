"""What the machine has: its GPU, NVIDIA's libraries, compute-sanitizer, and a Python interpreter with PyTorch."""

import glob
import os
import shutil
import subprocess
import time

# Properties that nvidia-smi is asked for, once a second in one process.
PROPERTIES = ("name,driver_version,compute_cap,clocks.sm,clocks.mem,clocks.max.sm,temperature.gpu,power.draw,"
              "memory.used,memory.total").split(",")
# Words in the names of the libraries' kernels, and of none of ours.
LIBRARY_KERNELS = ("cutlass", "xmma", "gemm", "cudnn", "cublas", "splitK", "nvjet", "implicit", "conv")


def output(*argv, limit=30):
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=limit)
        return done.stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


class Card:
    """The state of the first GPU, which one nvidia-smi writes to a file as long as the stages run."""

    def __init__(self, log):
        self.log, self.process = log, None
        if shutil.which("nvidia-smi"):
            argv = ["nvidia-smi", "--id=0", f"--query-gpu={','.join(PROPERTIES)}", "--format=csv,noheader", "--loop=1"]
            self.process = subprocess.Popen(argv, stdout=log.open("w"), stderr=subprocess.DEVNULL)
            time.sleep(1.5)

    def lines(self):
        if self.process is None:
            return []
        rows = [line.split(", ") for line in self.log.read_text(errors="replace").splitlines()]
        return [dict(zip(PROPERTIES, row)) for row in rows if len(row) == len(PROPERTIES)]

    def now(self):
        lines = self.lines()
        return lines[-1] if lines else None

    def close(self):
        if self.process is not None:
            self.process.terminate()
            self.process.wait()


def find_python(named):
    """Returns an interpreter that has PyTorch, without importing it, which takes seconds."""
    code = "import importlib.util as u, sys; sys.stdout.write('yes' if u.find_spec('torch') else '')"
    for python in filter(None, [named, os.environ.get("PYTHON"), "python3", "python", *glob.glob("/opt/*/bin/python3")]):
        if shutil.which(python) and output(python, "-c", code):
            return shutil.which(python)
    return None


def find_sanitizer():
    return shutil.which("compute-sanitizer") or next(iter(glob.glob("/usr/local/cuda*/bin/compute-sanitizer")), None)


def sanitizer_options(sanitizer, tool):
    """Returns the options with which the sanitizer leaves a gap after each allocation, so that neighbors do not hide
    an overrun, and skips the libraries' kernels, as far as this version has them."""
    text = output(sanitizer, "--help") if sanitizer else ""
    options = ["--padding", "1024"] if "--padding" in text and tool == "memcheck" else []
    exclude = next((name for name in ("--kernel-name-exclude", "--kernel-regex-exclude") if name in text), None)
    if exclude:
        options += [exclude, ",".join(f"kns={name}" for name in LIBRARY_KERNELS)]
    return options


def library_folders(python):
    """Returns the folders of NVIDIA's libraries: first those of the Python environment, so that PyTorch and
    udass-raw use the same versions, then those of CUDA toolkits."""
    places = []
    code = "import sys; print('\\n'.join(p for p in sys.path if p.endswith('-packages')))"
    for packages in output(python or "python3", "-c", code).split("\n"):
        places += glob.glob(f"{packages}/nvidia/*/lib") if packages else []
    places += [*glob.glob("/usr/local/cuda*/lib64"), *glob.glob("/usr/local/cuda*/targets/*/lib")]
    wanted = ("libcublasLt.so*", "libcudnn.so*", "libnvrtc.so*")
    return [p for p in places if any(glob.glob(f"{p}/{name}") for name in wanted)]
