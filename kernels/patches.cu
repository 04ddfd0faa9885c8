// im2col and col2im: the inputs of each output of a convolution as a row of a matrix.
//   patches[(b,ho,wo), (r,s,c)] = x[b, ho·stride - padding + r·dilation, wo·… + s·dilation, c]
// with zeros outside the image. The convolution is then a matmul with the filters, and the gradient
// of x is the matmul's gradient passed through `patches_scatter`, which is written as a gather:
// every input pixel sums the patch elements that come from it, in the order of the taps.
#include "simt.cuh"

// im2col. With dilation 1, the kernel_width taps of a filter row are adjacent in memory and form
// one run of kernel_width·channels elements. Otherwise, each tap is a run of its own.
KERNEL(patches_gather,
       const T* x /* batch,height,width,channels */,
       T* patches /* batch,out_height,out_width,kernel_height,kernel_width,channels */,
       int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t out_height,
       int64_t out_width, int64_t kernel_height, int64_t kernel_width, int64_t stride,
       int64_t padding, int64_t dilation) {
    const int64_t runs = dilation == 1 ? 1 : kernel_width;
    const int64_t run = kernel_width / runs * channels;
    const int64_t pixels = batch * out_height * out_width;
    int64_t p = chunk_begin(pixels);
    int64_t wo = p % out_width;
    int64_t ho = p / out_width % out_height;
    int64_t b = p / out_width / out_height;
    for (; p < chunk_end(pixels); ++p) {
        T* out = patches + p * kernel_height * kernel_width * channels;
        for (int64_t r = 0; r < kernel_height; ++r) {
            const int64_t h = ho * stride - padding + r * dilation;
            const bool inside = h >= 0 && h < height;
            for (int64_t g = 0; g < runs; ++g, out += run) {
                const int64_t w = wo * stride - padding + g * dilation;
                // The elements [left, right) of the run are inside the image.
                int64_t left = most_of(-w, 0) * channels;
                int64_t right = held_to((width - w) * channels, 0, run);
                if (!inside || left > right) left = right = run;
                const T* row = x + ((b * height + h) * width + w) * channels;
                if (left == 0 && right == run) {
                    BLOCK_LOOP(i, run) out[i] = row[i];
                } else {
                    BLOCK_LOOP(i, run) {
                        const bool here = i >= left && i < right;
                        out[i] = here ? real(row[i]) : real(0);
                    }
                }
            }
        }
        if (++wo == out_width) {
            wo = 0;
            if (++ho == out_height) {
                ho = 0;
                ++b;
            }
        }
    }
}

// The outputs [first, last] whose taps may include position `i`.
struct Reach {
    int64_t first, last;
};
DEVICE Reach reach_of(int64_t i, int64_t taps, int64_t stride, int64_t padding, int64_t dilation, int64_t outputs) {
    const int64_t last = i + padding, first = last - (taps - 1) * dilation;
    return {first <= 0 ? 0 : (first + stride - 1) / stride, least_of(last / stride, outputs - 1)};
}

// Returns the tap that reads `offset` pixels after an output's first one, or -1 if none does.
DEVICE int64_t tap_at(int64_t offset, int64_t dilation) {
    if (dilation == 1) return offset;
    return offset % dilation == 0 ? offset / dilation : -1;
}

// col2im: dx (+)= the sum of the patch elements that come from each input. Shared memory holds one
// sum per channel.
KERNEL(patches_scatter,
       const T* patches /* batch,out_height,out_width,kernel_height,kernel_width,channels */,
       T* dx /* batch,height,width,channels */,
       bool accumulate, int64_t batch, int64_t height, int64_t width, int64_t channels,
       int64_t out_height, int64_t out_width, int64_t kernel_height, int64_t kernel_width,
       int64_t stride, int64_t padding, int64_t dilation) {
    // A thread reads and writes only the sums of its own channels, so no barrier is needed.
    real* sums = static_cast<real*>(shared_memory());
    const int64_t pixels = batch * height * width;
    int64_t p = chunk_begin(pixels);
    int64_t w = p % width;
    int64_t h = p / width % height;
    int64_t b = p / width / height;
    for (; p < chunk_end(pixels); ++p) {
        T* out = dx + p * channels;
        if (accumulate) {
            BLOCK_LOOP(c, channels) sums[c] = out[c];
        } else {
            BLOCK_LOOP(c, channels) sums[c] = 0;
        }
        const Reach rows = reach_of(h, kernel_height, stride, padding, dilation, out_height);
        const Reach columns = reach_of(w, kernel_width, stride, padding, dilation, out_width);
        for (int64_t ho = rows.last; ho >= rows.first; --ho) {
            const int64_t r = tap_at(h + padding - ho * stride, dilation);
            if (r < 0) continue;
            for (int64_t wo = columns.last; wo >= columns.first; --wo) {
                const int64_t s = tap_at(w + padding - wo * stride, dilation);
                if (s < 0) continue;
                const int64_t row = (b * out_height + ho) * out_width + wo;
                const T* from = patches + ((row * kernel_height + r) * kernel_width + s) * channels;
                BLOCK_LOOP(c, channels) sums[c] += real(from[c]);
            }
        }
        BLOCK_LOOP(c, channels) out[c] = sums[c];
        if (++w == width) {
            w = 0;
            if (++h == height) {
                h = 0;
                ++b;
            }
        }
    }
}
