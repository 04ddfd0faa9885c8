// Warp operations beyond warp.cuh: small matmuls on the tensor cores, and asynchronous copies to
// shared memory that overlap arithmetic. They exist on the GPU and in the block emulator, where all
// lanes meet in an exchange and each computes the hardware's result. A block of the serial CPU
// build has no warps, so a kernel that uses these also has a portable body.
//
// Fragments have the layout of the PTX ISA ("Matrix fragments for mma.m16n8k16 / m16n8k8"). With
// group = l / 4 and pair = l % 4, the registers of lane l hold these elements:
//   A 16×16, 16 bits   registers 0..3: rows group, group + 8, group, group + 8; columns 2·pair and
//                      2·pair + 1, plus 8 from register 2 on
//   B 16×8, 16 bits    registers 0..1: rows 2·pair and 2·pair + 1, plus 8 in register 1;
//                      column group
//   A 16×8, tf32       registers 0..3: rows as above; column pair, from register 2 on pair + 4
//   B 8×8, tf32        registers 0..1: row pair, pair + 4; column group
//   C, D 16×8, f32     0..3: rows group (0, 1) and group + 8 (2, 3); columns 2·pair, 2·pair + 1
#pragma once
#include "simt.cuh"

#if defined(UDASS_THREADS) && !defined(UDASS_F64)
#define UDASS_WARPS

// Packs two 16-bit numbers into one register, the first in the low half.
DEVICE uint32_t two_halves(uint16_t low, uint16_t high) { return low | static_cast<uint32_t>(high) << 16; }

#if defined(__CUDACC__)

#define UDASS_MMA16(name, type)                                                                               \
    DEVICE void name(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {                         \
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type ".f32 "                           \
                     "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                                  \
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                         \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                     \
    }
// d += a·b, 16×16 by 16×8.
UDASS_MMA16(mma_bf16, "bf16")
UDASS_MMA16(mma_f16, "f16")

// d += a·b, 16×8 by 8×8; the lowest 13 bits of the operands are ignored.
DEVICE void mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

DEVICE uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

// Loads four 8×8 matrices of 16-bit numbers from shared memory; lane l points to row l % 8 of
// matrix l / 8. Register m receives row `group`, columns 2·pair and 2·pair + 1 of matrix m; if
// transposed, column `group` of rows 2·pair and 2·pair + 1. `further` is a byte offset, which
// becomes part of the instruction if it is a constant.
DEVICE void load_matrices(uint32_t (&r)[4], const void* row, int64_t further = 0) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row) + static_cast<uint32_t>(further)) : "memory");
}
DEVICE void load_matrices_transposed(uint32_t (&r)[4], const void* row, int64_t further = 0) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row) + static_cast<uint32_t>(further)) : "memory");
}

// Starts copying 16 bytes to shared memory; the copy is complete after the wait for its group.
DEVICE void copy_async(void* to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from) : "memory");
}
// The same for 4 bytes.
DEVICE void copy_word_async(void* to, const void* from) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(to)), "l"(from) : "memory");
}
// Ends a group of this thread's copies.
DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits for all but the last `pending` groups of this thread; other threads see the data only after
// a barrier.
template <int pending>
DEVICE void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

#else  // block emulator

struct Operands {
    uint32_t a[4], b[2];
};

MATH float bits_of_bf16(uint32_t half) { return float_of_bits(static_cast<int32_t>(half << 16)); }
MATH float bits_of_tf32(uint32_t word) { return float_of_bits(static_cast<int32_t>(word & 0xFFFFE000u)); }
MATH float bits_of_f16(uint32_t half) {
    const int32_t sign = static_cast<int32_t>((half & 0x8000u) << 16);
    const int32_t exponent = (half >> 10) & 31, fraction = half & 1023;
    if (exponent == 31) return float_of_bits(sign | 0x7F800000 | fraction << 13);
    if (exponent == 0) return (sign ? -1.0f : 1.0f) * static_cast<float>(fraction) * (1.0f / 16777216.0f);
    return float_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

// The row-major matrices whose elements the lanes' registers hold in the layouts above.
struct Fragments {
    float a[16][16], b[16][8];
};
template <class F>
UNWATCHED static Fragments gathered16(const Operands* lanes, F number) {
    Fragments m;
    for (int l = 0; l < WARP; ++l) {
        const int group = l / 4, pair = l % 4;
        for (int i = 0; i < 8; ++i)
            m.a[group + (i / 2 % 2) * 8][2 * pair + i % 2 + i / 4 * 8] = number(lanes[l].a[i / 2] >> i % 2 * 16 & 0xFFFF);
        for (int i = 0; i < 4; ++i)
            m.b[2 * pair + i % 2 + i / 2 * 8][group] = number(lanes[l].b[i / 2] >> i % 2 * 16 & 0xFFFF);
    }
    return m;
}
UNWATCHED static Fragments gathered_tf32(const Operands* lanes) {
    Fragments m;
    for (int l = 0; l < WARP; ++l) {
        const int group = l / 4, pair = l % 4;
        for (int i = 0; i < 4; ++i) m.a[group + i % 2 * 8][pair + i / 2 * 4] = bits_of_tf32(lanes[l].a[i]);
        for (int i = 0; i < 2; ++i) m.b[pair + i * 4][group] = bits_of_tf32(lanes[l].b[i]);
    }
    return m;
}
// This lane's part of the result. The hardware's order of additions is unspecified; here it is
// fixed.
UNWATCHED static void multiplied(float (&d)[4], const Fragments& m, int depth) {
    const int64_t group = lane_index() / 4, pair = lane_index() % 4;
    for (int i = 0; i < 4; ++i) {
        float sum = d[i];
        for (int k = 0; k < depth; ++k) sum += m.a[group + i / 2 * 8][k] * m.b[k][2 * pair + i % 2];
        d[i] = sum;
    }
}
DEVICE Operands operands(const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    return {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
}
DEVICE void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    multiplied(d, gathered16(exchanged(operands(a, b)), [](uint32_t h) { return bits_of_bf16(h); }), 16);
}
DEVICE void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    multiplied(d, gathered16(exchanged(operands(a, b)), [](uint32_t h) { return bits_of_f16(h); }), 16);
}
DEVICE void mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    multiplied(d, gathered_tf32(exchanged(operands(a, b))), 8);
}

// A row of a matrix in shared memory, read by the lane that points to it.
struct MatrixRow {
    uint16_t at[8];
};
DEVICE MatrixRow row_at(const void* row, int64_t further) {
    const char* at = static_cast<const char*>(row) + further;
    emulator_aligned(at, sizeof(MatrixRow));
    return *reinterpret_cast<const MatrixRow*>(at);
}
UNWATCHED static void picked(uint32_t (&r)[4], const MatrixRow* rows, bool transposed) {
    const int64_t group = lane_index() / 4, pair = lane_index() % 4;
    for (int m = 0; m < 4; ++m) {
        const MatrixRow* matrix = rows + 8 * m;
        r[m] = transposed ? two_halves(matrix[2 * pair].at[group], matrix[2 * pair + 1].at[group])
                          : two_halves(matrix[group].at[2 * pair], matrix[group].at[2 * pair + 1]);
    }
}
DEVICE void load_matrices(uint32_t (&r)[4], const void* row, int64_t further = 0) {
    picked(r, exchanged(row_at(row, further)), false);
}
DEVICE void load_matrices_transposed(uint32_t (&r)[4], const void* row, int64_t further = 0) {
    picked(r, exchanged(row_at(row, further)), true);
}

DEVICE void copy_async(void* to, const void* from) { emulator_copy_async(to, from, 16); }
DEVICE void copy_word_async(void* to, const void* from) { emulator_copy_async(to, from, 4); }
DEVICE void commit_copies() { emulator_commit_async(); }
template <int pending>
DEVICE void wait_copies() {
    emulator_wait_async(pending);
}

#endif
#endif
