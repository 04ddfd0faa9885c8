"""Weights and inputs of the stored cases, generated from their names; tests/support/formula.rs in NumPy."""

from __future__ import annotations

import math

import numpy as np


def fnv1a(name: str) -> int:
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = (h ^ byte) * 0x100000001B3 % 2**64
    return h


def bits(name: str, n: int) -> np.ndarray:
    """Generates n 64-bit numbers with SplitMix64, seeded with the name's hash."""
    z = np.uint64(fnv1a(name)) + np.arange(n, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniform(name: str, n: int) -> np.ndarray:
    """Numbers in [-1, 1), exact in float32."""
    return (bits(name, n) >> np.uint64(40)) / 2.0**23 - 1


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Generates a parameter or buffer from its state-dict key; computes in float64 and rounds once."""
    u = uniform(name, math.prod(shape))
    if len(shape) > 1:
        value = u * math.sqrt(3 / math.prod(shape[1:]))
    else:
        of_kind = {"weight": 1 + 0.1 * u, "bias": 0.05 * u, "running_mean": 0.1 * u, "running_var": 1 + 0.5 * abs(u)}
        value = of_kind[name.rsplit(".", 1)[-1]]
    return value.astype(np.float32).reshape(shape)


def image(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return (2 * uniform(name, math.prod(shape))).astype(np.float32).reshape(shape)


def unit(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in [0, 1)."""
    return ((uniform(name, math.prod(shape)) + 1) / 2).astype(np.float32).reshape(shape)


def label(name: str, batch: int, height: int, width: int, block: int = 16) -> np.ndarray:
    """Labels in blocks, each of one of 19 classes; every eleventh block is unlabeled (255)."""
    rows, columns = -(-height // block), -(-width // block)
    ids = (bits(name, batch * rows * columns) % np.uint64(19)).astype(np.int64)
    ids[10::11] = 255
    ids = ids.reshape(batch, rows, columns).repeat(block, 1).repeat(block, 2)
    return np.ascontiguousarray(ids[:, :height, :width])
