// Kernels: column_sums_final
// Until: cf74260
// Then: a block takes 8 neighbouring columns, 64 of its threads share the parts of four (kernels/columns.cuh)
// Predicted: on an H100, in a bf16 iteration of gta_vit with QuadMix 4-5 → 1.3 ms for biases (416 launches) and about
//   5 → 1.6 ms for depthwise filters and their biases (464); none for the host
//
// The last step of column sums: a thread adds all parts of a column, in one block for up to 1024
// columns on a GPU, 8192 on the host.
#include "../fewer_blocks.cuh"

// Of a block of elementwise work, as the host cuts it.
constexpr int64_t BLOCK = 8192;

// sums[c] += Σ_p partial[p,c]
KERNEL(column_sums_final, const real* partial /* parts,C */, real* sums /* C */, int64_t parts, int64_t channels) {
    AS_FEWER_BLOCKS((channels + BLOCK - 1) / BLOCK);
    GRID_LOOP(c, channels) {
        real sum = 0;
        for (int64_t p = 0; p < parts; ++p) sum += partial[p * channels + c];
        sums[c] += sum;
    }
}
