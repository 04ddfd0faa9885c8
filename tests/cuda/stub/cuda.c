// A driver that runs nothing: it keeps books about contexts, memory, launches and captures, and its
// memory is the host's. A launch can be told to fail as a kernel's fault does: the launch itself
// succeeds, and everything after it returns the error.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { OUT_OF_MEMORY = 2, INVALID_IMAGE = 200, INVALID_CONTEXT = 201, ILLEGAL_ADDRESS = 700 };
enum { MULTIPROCESSORS = 16, MAJOR = 75 };
enum { GPUS = 2 };

static _Thread_local void* contexts[16];
static _Thread_local int depth;
static int retained, launches, fails_at, broken, capturing;
static size_t memory = 1ull << 30, used;
static size_t sizes[1 << 16];
static void* addresses[1 << 16];
static int allocations;

// What a test asks for and sets.
void* stub_context(void) { return depth > 0 ? contexts[depth - 1] : 0; }
int stub_depth(void) { return depth; }
int stub_retained(void) { return retained; }
void stub_memory(size_t bytes) { memory = bytes; }
void stub_fails_after(int more) { fails_at = launches + more; }
void stub_capturing(int on) { capturing = on; }

static int status(void) {
    if (depth == 0) return INVALID_CONTEXT;
    return broken ? ILLEGAL_ADDRESS : 0;
}

int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int* version) { *version = 13000; return 0; }
int cuDeviceGetCount(int* count) { *count = GPUS; return 0; }
int cuDeviceGet(int* device, int index) { *device = index; return 0; }
int cuDeviceGetName(char* name, int length, int device) {
    strncpy(name, device ? "second stub" : "first stub", length);
    return 0;
}
int cuDeviceGetAttribute(int* value, int attribute, int device) {
    *value = attribute == MULTIPROCESSORS ? 4 : attribute == MAJOR ? 9 : 0;
    return 0;
}
int cuDevicePrimaryCtxRetain(void** context, int device) {
    retained++;
    *context = (void*)(intptr_t)(0x1000 + device);
    return 0;
}
int cuCtxPushCurrent_v2(void* context) { contexts[depth++] = context; return 0; }
int cuCtxPopCurrent_v2(void** context) {
    if (depth == 0) return INVALID_CONTEXT;
    *context = contexts[--depth];
    return 0;
}
int cuCtxGetDevice(int* device) { *device = 0; return status(); }

int cuGetErrorName(int error, const char** name) {
    *name = error == ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR_OF_THE_STUB";
    return 0;
}
int cuGetErrorString(int error, const char** text) { *text = "an error of the stub"; return 0; }

int cuMemGetInfo_v2(size_t* free, size_t* total) {
    *free = memory - used;
    *total = memory;
    return status();
}
int cuMemAlloc_v2(uint64_t* address, size_t bytes) {
    if (status()) return status();
    if (bytes > memory - used) return OUT_OF_MEMORY;
    addresses[allocations] = aligned_alloc(256, (bytes + 255) / 256 * 256);
    sizes[allocations] = bytes;
    *address = (uint64_t)addresses[allocations++];
    used += bytes;
    return 0;
}
int cuMemFree_v2(uint64_t address) {
    for (int i = 0; i < allocations; i++) {
        if ((uint64_t)addresses[i] == address && sizes[i]) {
            used -= sizes[i];
            sizes[i] = 0;
            free(addresses[i]);
        }
    }
    return status();
}
int cuMemHostAlloc(void** address, size_t bytes, unsigned flags) {
    *address = malloc(bytes);
    return status();
}
int cuMemFreeHost(void* address) { free(address); return status(); }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void* stream) {
    memcpy((void*)to, from, bytes);
    return status();
}
int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void* stream) {
    memcpy(to, (void*)from, bytes);
    return status();
}
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void* stream) {
    memcpy((void*)to, (void*)from, bytes);
    return status();
}
int cuMemsetD8Async(uint64_t address, unsigned char value, size_t bytes, void* stream) {
    memset((void*)address, value, bytes);
    return status();
}

int cuModuleLoadData(void** module, const void* image) {
    if ((uintptr_t)image % 8) return INVALID_IMAGE;
    *module = (void*)image;
    return status();
}
int cuModuleUnload(void* module) { return status(); }
int cuModuleGetFunction(void** function, void* module, const char* name) {
    *function = module;
    return status();
}
int cuFuncSetAttribute(void* function, int attribute, int value) { return status(); }
int cuLaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned ty,
                   unsigned tz, unsigned shared, void* stream, void** arguments, void** extra) {
    if (status()) return status();
    if (++launches == fails_at) {
        broken = 1;
        const char* blocking = getenv("CUDA_LAUNCH_BLOCKING");
        return blocking && *blocking == '1' ? ILLEGAL_ADDRESS : 0;
    }
    return 0;
}

int cuStreamCreate(void** stream, unsigned flags) { *stream = malloc(1); return status(); }
int cuStreamDestroy_v2(void* stream) { free(stream); return status(); }
int cuStreamSynchronize(void* stream) { return status(); }
int cuStreamWaitEvent(void* stream, void* event, unsigned flags) { return status(); }
int cuStreamIsCapturing(void* stream, int* state) { *state = capturing; return status(); }
int cuStreamBeginCapture_v2(void* stream, int mode) { capturing = 1; return status(); }
int cuStreamEndCapture(void* stream, void** graph) {
    capturing = 0;
    *graph = malloc(1);
    return status();
}
int cuThreadExchangeStreamCaptureMode(int* mode) { return status(); }
int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long flags) {
    *executable = malloc(1);
    return status();
}
int cuGraphLaunch(void* executable, void* stream) { return status(); }
int cuGraphExecDestroy(void* executable) { free(executable); return status(); }
int cuGraphDestroy(void* graph) { free(graph); return status(); }
int cuEventCreate(void** event, unsigned flags) { *event = malloc(1); return status(); }
int cuEventDestroy_v2(void* event) { free(event); return status(); }
int cuEventRecord(void* event, void* stream) { return status(); }
int cuEventQuery(void* event) { return status(); }
int cuEventSynchronize(void* event) { return status(); }
int cuEventElapsedTime_v2(float* milliseconds, void* from, void* to) {
    *milliseconds = 1;
    return status();
}
