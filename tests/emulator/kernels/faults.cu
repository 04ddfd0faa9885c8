// Kernels with one fault each, which the block emulator must report.
#include "mma.cuh"
#include "pack.cuh"

KERNEL(no_fault, const float* x /* n */, float* y /* n */, int64_t n) {
    SHARED(float, turned, 1024);
    turned[thread_index()] = x[thread_index()];
    barrier();
    y[thread_index()] = turned[thread_count() - 1 - thread_index()];
}
KERNEL(missing_barrier, const float* x /* n */, float* y /* n */, int64_t n) {
    SHARED(float, turned, 1024);
    turned[thread_index()] = x[thread_index()];
    y[thread_index()] = turned[thread_count() - 1 - thread_index()];
}
KERNEL(barrier_for_some, const float* x /* n */, float* y /* n */, int64_t n) {
    if (thread_index() != 5) barrier();
    y[thread_index()] = x[thread_index()];
}
KERNEL(two_barriers, const float* x /* n */, float* y /* n */, int64_t n) {
    if (thread_index() < 5) {
        barrier();
        y[thread_index()] = 0;
    } else {
        barrier();
        y[thread_index()] = x[thread_index()];
    }
}
KERNEL(unwritten, const float* x /* n */, float* y /* n */, int64_t n) {
    SHARED(float, some, 1024);
    if (thread_index() > 0) some[thread_index()] = x[thread_index()];
    barrier();
    y[thread_index()] = some[thread_index()];
}
KERNEL(past_the_end, const float* x /* n */, float* y /* n */, int64_t n) {
    y[thread_index()] = x[thread_index() + 1];
}
KERNEL(before_the_start, const float* x /* n */, float* y /* n */, int64_t n) {
    y[thread_index() - 1] = x[thread_index()];
}
KERNEL(past_shared, const float* x /* n */, float* y /* n */, int64_t n) {
    SHARED(float, few, 31);
    few[thread_index()] = x[thread_index()];
    barrier();
    y[thread_index()] = few[thread_index()];
}
KERNEL(past_dynamic_shared, const float* x /* n */, float* y /* n */, int64_t n) {
    static_cast<float*>(shared_memory())[thread_index()] = x[thread_index()];
    y[thread_index()] = 0;
}
KERNEL(null_pointer, const float* OPTIONAL x /* n */, float* y /* n */, int64_t n) {
    y[thread_index()] = x[thread_index()];
}
KERNEL(past_its_own_array, const float* x /* n */, float* y /* n */, int64_t n) {
    float own[4] = {0, 1, 2, 3};
    for (int64_t i = 0; i <= n / 16; ++i) own[i] += x[i];
    y[thread_index()] = own[n % 4];
}
KERNEL(writes_an_input, const float* x /* n */, float* y /* n */, int64_t n) {
    const_cast<float*>(x)[thread_index()] = 0;
    y[thread_index()] = 0;
}
KERNEL(same_output, const float* x /* n */, float* y /* n */, int64_t n) {
    y[0] = x[thread_index()];
}
KERNEL(reads_a_neighbors_output, const float* x /* n */, float* y /* n */, int64_t n) {
    const float before = y[(thread_index() + 1) % thread_count()];
    y[thread_index()] = before + x[thread_index()];
}
KERNEL(blocks_share_an_output, const float* x /* n */, float* y /* n */, int64_t n) {
    y[thread_index()] = x[thread_index()] + block_index();
}
KERNEL(reads_another_blocks_output, const float* x /* n */, float* y /* n */, int64_t n) {
    const int64_t half = thread_count() / 2;
    if (thread_index() < half) y[block_index() * half + thread_index()] = y[thread_index()] + 1;
}
KERNEL(misaligned_pack, const float* x /* n */, float* y /* n */, int64_t n) {
    BLOCK_LOOP(k, 1) store(y + 4, load_pack(x + 1));
}
KERNEL(endless, const float* x /* n */, float* y /* n */, int64_t n) {
    while (x[thread_index()] < 2) y[thread_index()] = 0;
}
KERNEL(wrong_sum, const float* x /* n */, float* y /* n */, int64_t n) {
    y[thread_index()] = thread_count() == 1 ? x[thread_index()] : 2 * x[thread_index()];
}

#if defined(UDASS_THREADS)  // faults that need more than one thread
KERNEL(lanes_stay_away, const float* x /* n */, float* y /* n */, int64_t n) {
    if (thread_index() % 32 < 7) y[thread_index()] = shuffled(x[thread_index()], 0);
}
KERNEL(reads_before_the_wait, const float* x /* n */, float* y /* n */, int64_t n) {
    float* copy = static_cast<float*>(shared_memory());
    BLOCK_LOOP(k, 1) {
        copy_async(copy, x);
        commit_copies();
        y[0] = copy[0];
    }
}
KERNEL(waits_for_too_little, const float* x /* n */, float* y /* n */, int64_t n) {
    float* copy = static_cast<float*>(shared_memory());
    BLOCK_LOOP(k, 1) {
        copy_async(copy, x);
        commit_copies();
        copy_async(copy + 4, x + 4);
        commit_copies();
        wait_copies<1>();
        y[0] = copy[0];
        y[1] = copy[4];
    }
}
KERNEL(copy_without_barrier, const float* x /* n */, float* y /* n */, int64_t n) {
    float* copy = static_cast<float*>(shared_memory());
    if (thread_index() == 0) copy_async(copy, x);
    commit_copies();
    wait_copies<0>();
    y[thread_index()] = copy[thread_index() % 4];
}
#endif
