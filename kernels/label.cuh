// Labels: one byte per pixel.
#pragma once
#include "dtype.cuh"

// Number of values of a label byte.
EXPORTED constexpr int64_t LABEL_VALUES = 256;
// Label of unlabeled pixels.
constexpr int64_t IGNORED = 255;
