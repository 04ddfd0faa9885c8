// Labels: a byte a pixel.
#pragma once
#include "dtype.cuh"

// How many values a byte has.
EXPORTED constexpr int64_t LABEL_VALUES = 256;
// The label of pixels without one.
constexpr int64_t IGNORED = 255;
