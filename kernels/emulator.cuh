// The block emulator's side of simt.cuh: every thread of a block is a coroutine, and the crate in
// emulator/ checks its memory accesses. Kernels are built with `-fsanitize=thread`; the calls that
// it inserts before every load and store are implemented by emulator/runtime.cpp.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <utility>

#define DEVICE static inline __attribute__((always_inline, unused))
#define UNWATCHED __attribute__((no_sanitize("thread")))

extern "C" {
// 0: thread index, 1: thread count, 2: block index, 3: block count; constant for a given thread.
int64_t emulator_number(int32_t which) __attribute__((const));
void emulator_barrier();
// Adds one atomically.
void emulator_add_one(int32_t* counter);
// Reports an error unless `p` is a multiple of `bytes`.
void emulator_aligned(const void* p, size_t bytes);
// Returns the block's shared array that is identified by `place`.
void* emulator_shared(const void* place, const char* name, size_t bytes, size_t element);
void* emulator_dynamic_shared();
// Waits for the 32 lanes of the warp; then the `bytes` of lane l are at result + l·bytes, until the
// next exchange.
const void* emulator_exchange(const void* mine, size_t bytes);
void emulator_copy_async(void* to, const void* from, size_t bytes);
void emulator_commit_async();
void emulator_wait_async(int64_t pending);
}

template <auto body, class... A, size_t... I>
UNWATCHED static void emulator_call(void (*)(A...), void** args, std::index_sequence<I...>) {
    body(*static_cast<A*>(args[I])...);
}
template <auto body, class... A>
UNWATCHED static void emulator_run(void (*signature)(A...), void** args) {
    emulator_call<body>(signature, args, std::index_sequence_for<A...>{});
}
#define KERNEL(name, ...)                                                                    \
    static void name##_body(__VA_ARGS__);                                                    \
    extern "C" void SYMBOL(name)(void** args) {       \
        emulator_run<name##_body>(name##_body, args);                                        \
    }                                                                                        \
    static __attribute__((noinline)) void name##_body(__VA_ARGS__)

#define SHARED(type, name, n)                                                  \
    static const char name##_place = 0;                                        \
    type(&name)[n] = *static_cast<type(*)[n]>(emulator_shared(&name##_place, #name, sizeof(type[n]), sizeof(type)))

DEVICE int64_t thread_index() { return emulator_number(0); }
DEVICE int64_t thread_count() { return emulator_number(1); }
DEVICE int64_t block_index() { return emulator_number(2); }
DEVICE int64_t block_count() { return emulator_number(3); }
DEVICE void barrier() { emulator_barrier(); }
DEVICE void* shared_memory() { return emulator_dynamic_shared(); }
