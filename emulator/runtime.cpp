// The functions that kernels built for the block emulator call: the hooks that `-fsanitize=thread`
// inserts before every load and store, and those of kernels/emulator.cuh. All are implemented by
// emulator/src/hooks.rs; this file, built without the sanitizer, only adds the caller's address.
#include <stddef.h>
#include <stdint.h>

enum Kind : int32_t { READ = 0, WRITE = 1, ATOMIC = 2 };

// Mirrors `Hooks` of emulator/src/hooks.rs.
struct Hooks {
    void (*access)(uintptr_t address, size_t bytes, int32_t kind, uintptr_t from);
    void (*aligned)(uintptr_t address, size_t bytes, uintptr_t from);
    void (*beyond)(uintptr_t index, uintptr_t from);
    void (*barrier)(uintptr_t from);
    void* (*shared)(const void* place, const char* name, size_t bytes, size_t element, uintptr_t from);
    void* (*dynamic_shared)();
    int64_t (*number)(int32_t which);
    const void* (*exchange)(const void* mine, size_t bytes, uintptr_t from);
    void (*copy_async)(uintptr_t to, uintptr_t source, size_t bytes, uintptr_t from);
    void (*commit_async)();
    void (*wait_async)(int64_t pending);
};
static Hooks hooks;

#define EXPORT extern "C"
#define FROM reinterpret_cast<uintptr_t>(__builtin_return_address(0))

EXPORT void emulator_install(const Hooks* given) { hooks = *given; }

// Address range of this library, which contains the constants that kernels may read.
extern "C" const char __ehdr_start __attribute__((visibility("hidden")));
extern "C" const char _end __attribute__((visibility("hidden")));
EXPORT void emulator_bounds(uintptr_t* begin, uintptr_t* end) {
    *begin = reinterpret_cast<uintptr_t>(&__ehdr_start);
    *end = reinterpret_cast<uintptr_t>(&_end);
}

extern "C" {
int64_t emulator_number(int32_t which) { return hooks.number(which); }
void emulator_barrier() { hooks.barrier(FROM); }
void emulator_add_one(int32_t* counter) {
    hooks.access(reinterpret_cast<uintptr_t>(counter), sizeof *counter, ATOMIC, FROM);
    ++*counter;
}
void emulator_aligned(const void* p, size_t n) { hooks.aligned(reinterpret_cast<uintptr_t>(p), n, FROM); }
void* emulator_dynamic_shared() { return hooks.dynamic_shared(); }
void* emulator_shared(const void* place, const char* name, size_t bytes, size_t element) {
    return hooks.shared(place, name, bytes, element, FROM);
}
const void* emulator_exchange(const void* mine, size_t bytes) { return hooks.exchange(mine, bytes, FROM); }
void emulator_copy_async(void* to, const void* source, size_t bytes) {
    hooks.copy_async(reinterpret_cast<uintptr_t>(to), reinterpret_cast<uintptr_t>(source), bytes, FROM);
}
void emulator_commit_async() { hooks.commit_async(); }
void emulator_wait_async(int64_t pending) { hooks.wait_async(pending); }

#define SIZED(n)                                                                              \
    void __tsan_read##n(void* p) { hooks.access(reinterpret_cast<uintptr_t>(p), n, READ, FROM); }   \
    void __tsan_write##n(void* p) { hooks.access(reinterpret_cast<uintptr_t>(p), n, WRITE, FROM); }
SIZED(1) SIZED(2) SIZED(4) SIZED(8) SIZED(16)
#define UNALIGNED(n)                                                                                    \
    void __tsan_unaligned_read##n(void* p) { hooks.access(reinterpret_cast<uintptr_t>(p), n, READ, FROM); }   \
    void __tsan_unaligned_write##n(void* p) { hooks.access(reinterpret_cast<uintptr_t>(p), n, WRITE, FROM); }
UNALIGNED(2) UNALIGNED(4) UNALIGNED(8) UNALIGNED(16)
void __tsan_read_range(void* p, size_t n) { hooks.access(reinterpret_cast<uintptr_t>(p), n, READ, FROM); }
void __tsan_write_range(void* p, size_t n) { hooks.access(reinterpret_cast<uintptr_t>(p), n, WRITE, FROM); }
// Index checks of arrays declared in the source. They include a thread's local arrays, which the
// checks of addresses do not cover.
void __ubsan_handle_out_of_bounds(void*, uintptr_t index) { hooks.beyond(index, FROM); }
void __tsan_vptr_update(void**, void*) {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
}
