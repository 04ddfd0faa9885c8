// Kernels that use the same primitives as the tensor-core kernels, to test kernels/mma.cuh. One
// warp.
#include "mma.cuh"

// Takes the contents of each lane's registers and returns what they receive.
KERNEL(try_mma_bf16, const uint32_t* a /* 32,4 */, const uint32_t* b /* 32,2 */, float* d /* 32,4 */) {
    const int64_t l = lane_index();
    const uint32_t left[4] = {a[4 * l], a[4 * l + 1], a[4 * l + 2], a[4 * l + 3]}, right[2] = {b[2 * l], b[2 * l + 1]};
    float sum[4] = {d[4 * l], d[4 * l + 1], d[4 * l + 2], d[4 * l + 3]};
    mma_bf16(sum, left, right);
    for (int i = 0; i < 4; ++i) d[4 * l + i] = sum[i];
}
KERNEL(try_mma_f16, const uint32_t* a /* 32,4 */, const uint32_t* b /* 32,2 */, float* d /* 32,4 */) {
    const int64_t l = lane_index();
    const uint32_t left[4] = {a[4 * l], a[4 * l + 1], a[4 * l + 2], a[4 * l + 3]}, right[2] = {b[2 * l], b[2 * l + 1]};
    float sum[4] = {d[4 * l], d[4 * l + 1], d[4 * l + 2], d[4 * l + 3]};
    mma_f16(sum, left, right);
    for (int i = 0; i < 4; ++i) d[4 * l + i] = sum[i];
}
KERNEL(try_mma_tf32, const uint32_t* a /* 32,4 */, const uint32_t* b /* 32,2 */, float* d /* 32,4 */) {
    const int64_t l = lane_index();
    const uint32_t left[4] = {a[4 * l], a[4 * l + 1], a[4 * l + 2], a[4 * l + 3]}, right[2] = {b[2 * l], b[2 * l + 1]};
    float sum[4] = {d[4 * l], d[4 * l + 1], d[4 * l + 2], d[4 * l + 3]};
    mma_tf32(sum, left, right);
    for (int i = 0; i < 4; ++i) d[4 * l + i] = sum[i];
}

// c = a·b for bf16 matrices 16×16 and 16×8 through shared memory: asynchronous copies, matrix loads
// (b is stored by rows and transposed on the way), one MMA.
KERNEL(try_product, const uint16_t* a /* 16,16 */, const uint16_t* b /* 16,8 */, float* c /* 16,8 */) {
    uint16_t* left = static_cast<uint16_t*>(shared_memory());
    uint16_t* right = left + 16 * 16;
    const int64_t l = lane_index();
    copy_async(left + 8 * l, a + 8 * l);
    if (l < 16) copy_async(right + 8 * l, b + 8 * l);
    commit_copies();
    wait_copies<0>();
    barrier();
    // Matrices 0..3 of A: rows 0-7 and 8-15 of the left half, then of the right half.
    uint32_t fragment[4], columns[4];
    load_matrices(fragment, left + (l % 16) * 16 + l / 16 * 8);
    load_matrices_transposed(columns, right + (l % 16) * 8);
    const uint32_t both[2] = {columns[0], columns[1]};
    float sum[4] = {0, 0, 0, 0};
    mma_bf16(sum, fragment, both);
    const int64_t row = l / 4, column = l % 4 * 2;
    for (int i = 0; i < 4; ++i) c[(row + i / 2 * 8) * 8 + column + i % 2] = sum[i];
}

// Sums 32 numbers by warp shuffles, and counts those above zero with a ballot.
KERNEL(try_collectives, const float* x /* 32 */, float* sum /* 32 */, int32_t* above /* 32 */) {
    const int64_t l = lane_index();
    float total = x[l];
    for (int64_t step = 16; step > 0; step /= 2) total += shuffled(total, l ^ step);
    sum[l] = total;
    uint32_t bits = voted(x[l] > 0);
    int32_t count = 0;
    for (; bits; bits &= bits - 1) ++count;
    above[l] = count;
}
