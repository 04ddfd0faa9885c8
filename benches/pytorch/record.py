"""Raw samples of the benchmarks, and the records that hold them with the machine and software they were taken on."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import torch


def machine() -> dict:
    cpu = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(l.split(":", 1)[1].strip() for l in lines if l.startswith("model name"))
    except (OSError, StopIteration):
        pass
    gpu = {}
    if torch.cuda.is_available():
        # The TF32 switches define what float32 means in this record.
        gpu = {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda,
               "cudnn": torch.backends.cudnn.version(),
               "matmul_allow_tf32": torch.backends.cuda.matmul.allow_tf32,
               "cudnn_allow_tf32": torch.backends.cudnn.allow_tf32,
               "peak_bytes": torch.cuda.max_memory_allocated()}
    return gpu | {"cpu": cpu, "cores": os.cpu_count(), "isa": torch.backends.cpu.get_cpu_capability(),
            "system": platform.platform(), "python": platform.python_version()}


def commit() -> str | None:
    if "UDASS_COMMIT" in os.environ:
        return os.environ["UDASS_COMMIT"]
    here = Path(__file__).parent
    run = lambda *a: subprocess.run(["git", *a], cwd=here, capture_output=True, text=True)
    try:
        head, changed = run("rev-parse", "HEAD"), run("status", "--porcelain", "--", ".")
    except OSError:
        return None
    if head.returncode != 0:
        return None
    return head.stdout.strip() + ("-dirty" if changed.stdout.strip() else "")


def busy_elsewhere() -> float | None:
    """Returns the CPU seconds that other processes have used since boot; None if the system does not report them."""
    try:
        user, nice, system, _, _, irq, softirq, *_ = map(
            int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])
    except (OSError, ValueError):
        return None
    own = os.times()
    total = (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
    return total - own.user - own.system


def finish() -> None:
    """Waits until the GPU, if there is one, has finished."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@dataclass
class Samples:
    """Per sample: seconds per call, CPU seconds of all threads, and cores that other processes kept busy meanwhile."""

    seconds: list[float]
    cpu: list[float]
    others: list[float | None]
    # Number of calls that a sample averages over.
    calls: int = 1

    def summary(self) -> dict:
        return {"median_s": statistics.median(self.seconds), "min_s": min(self.seconds),
                "samples_s": self.seconds, "cpu_s": self.cpu,
                "cores_busy_elsewhere": self.others, "calls_per_sample": self.calls}


def sample(work: Callable[[], object], warmup: int, repeats: int, least: float = 0.0,
           most: float = math.inf) -> Samples:
    """Takes `repeats` samples of a call, after `warmup` calls that are not counted.

    If a call takes less than `least` seconds, a sample is the mean of as many calls as take that long. The warm-up
    and the sampling each stop early once they have taken `most` seconds, but not before their first call.
    """
    begin = time.perf_counter()
    for i in range(max(warmup, 1)):
        if i > 0 and time.perf_counter() - begin > most:
            break
        start = time.perf_counter()
        work()
        finish()
        last = time.perf_counter() - start
    calls = max(math.ceil(least / last), 1)
    out = Samples([], [], [], calls)
    begin = time.perf_counter()
    for i in range(repeats):
        if i > 0 and time.perf_counter() - begin > most:
            break
        before, cpu, start = busy_elsewhere(), time.process_time(), time.perf_counter()
        for _ in range(calls):
            work()
        finish()
        seconds = time.perf_counter() - start
        out.cpu.append((time.process_time() - cpu) / calls)
        after = busy_elsewhere()
        out.seconds.append(seconds / calls)
        # The system counts in ticks of 10 ms, too coarse for shorter calls.
        known = before is not None and after is not None and seconds > 0.1
        out.others.append(round(max(after - before, 0.0) / seconds, 2) if known else None)
    return out


def about(options: dict) -> dict:
    """Describes the measurement and the machine."""
    return {
        "implementation": "pytorch",
        "version": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": machine(),
        "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "commit": commit(),
        "options": {k: str(v) if isinstance(v, Path) else v for k, v in options.items() if k != "json"},
    }


def write(path: Path | None, options: dict, results: list[dict]) -> None:
    if path is not None:
        path.write_text(json.dumps(about(options) | {"results": results}, indent=1) + "\n")
