// Kernels: batchnorm_statistics, batchnorm_gradient_final
// Until: 7e9a1b1
// Then: a block takes 8 neighbouring channels, its threads share the parts and add up in registers
//   (kernels/columns.cuh)
// Predicted: on an H100, 35-45 → 0.6 ms of a bf16 iteration of gta_vit with QuadMix, both kernels in 153 launches;
//   none for the host
//
// Batch norm's parts merged as kernels/batchnorm.cu describes it. A thread walks all parts of its
// channel, with a sum in memory that it reads and writes for each of them, in a block for every 64.
#include "../fewer_blocks.cuh"

constexpr int64_t CHANNELS = 64;  // of a block

// Rows of part p, where parts are chunks of a grid of `parts` blocks.
DEVICE int64_t rows_of_part(int64_t p, int64_t parts, int64_t rows) {
    const int64_t chunk = (rows + parts - 1) / parts;
    const int64_t left = rows - p * chunk;
    return held_to(left, 0, chunk);
}

// Merges the parts, and moves the running statistics towards the batch's by `momentum`; the running
// variance is the unbiased one. A block takes some of the channels.
KERNEL(batchnorm_statistics, const real* means /* parts,C */, const real* deviations /* parts,C */, real* mean /* C */, real* inv_std /* C */, real* running_mean /* C */, real* running_var /* C */, real* OPTIONAL tracked /* 1 */, int64_t parts, int64_t rows, int64_t channels, real momentum, real eps) {
    AS_FEWER_BLOCKS((channels + CHANNELS - 1) / CHANNELS);
    const int64_t first = chunk_begin(channels);
    const int64_t count = chunk_end(channels) - first;
    // Relative to the first part's mean, for the same reason.
    BLOCK_LOOP(j, count) mean[first + j] = inv_std[first + j] = 0;
    for (int64_t p = 0; p < parts; ++p) {
        const real weight = static_cast<real>(rows_of_part(p, parts, rows)) / static_cast<real>(rows);
        const real* part = means + p * channels + first;
        BLOCK_LOOP(j, count) mean[first + j] += weight * (part[j] - means[first + j]);
    }
    BLOCK_LOOP(j, count) mean[first + j] += means[first + j];
    for (int64_t p = 0; p < parts; ++p) {
        const real n = static_cast<real>(rows_of_part(p, parts, rows));
        const real* part = means + p * channels + first;
        const real* squares = deviations + p * channels + first;
        BLOCK_LOOP(j, count) {
            const real d = part[j] - mean[first + j];
            inv_std[first + j] += squares[j] + n * d * d;
        }
    }
    BLOCK_LOOP(j, count) {
        const int64_t c = first + j;
        const real sum = inv_std[c];
        inv_std[c] = 1 / sqrt_of(sum / static_cast<real>(rows) + eps);
        running_mean[c] += momentum * (mean[c] - running_mean[c]);
        running_var[c] += momentum * (sum / static_cast<real>(rows - 1) - running_var[c]);
    }
    if (tracked != nullptr && block_index() == 0 && thread_index() == 0) tracked[0] += 1;
}

// Sums over the parts; adds them to the gradients of bias and weight. A block takes some channels.
KERNEL(batchnorm_gradient_final, const real* sums /* parts,C */, const real* products /* parts,C */, real* sum /* C */, real* product /* C */, real* OPTIONAL dweight /* C */, real* OPTIONAL dbias /* C */, int64_t parts, int64_t channels) {
    AS_FEWER_BLOCKS((channels + CHANNELS - 1) / CHANNELS);
    const int64_t first = chunk_begin(channels);
    const int64_t count = chunk_end(channels) - first;
    BLOCK_LOOP(j, count) sum[first + j] = product[first + j] = 0;
    for (int64_t p = 0; p < parts; ++p) {
        const int64_t from = p * channels + first;
        BLOCK_LOOP(j, count) {
            sum[first + j] += sums[from + j];
            product[first + j] += products[from + j];
        }
    }
    if (dweight != nullptr) BLOCK_LOOP(j, count) dweight[first + j] += product[first + j];
    if (dbias != nullptr) BLOCK_LOOP(j, count) dbias[first + j] += sum[first + j];
}
