// A cuDNN without any engine.

#include <stdint.h>
#include <stdlib.h>

enum { NOT_SUPPORTED = 3000 };

size_t cudnnGetVersion(void) { return 91900; }
int cudnnCreate(void** handle) { *handle = malloc(1); return 0; }
int cudnnDestroy(void* handle) { free(handle); return 0; }
int cudnnSetStream(void* handle, void* stream) { return 0; }
int cudnnBackendCreateDescriptor(int kind, void** descriptor) { return NOT_SUPPORTED; }
int cudnnBackendDestroyDescriptor(void* descriptor) { return 0; }
int cudnnBackendSetAttribute(void* to, int name, int type, int64_t count, const void* values) {
    return NOT_SUPPORTED;
}
int cudnnBackendGetAttribute(void* of, int name, int type, int64_t most, int64_t* count, void* values) {
    return NOT_SUPPORTED;
}
int cudnnBackendFinalize(void* descriptor) { return NOT_SUPPORTED; }
int cudnnBackendExecute(void* handle, void* plan, void* pack) { return NOT_SUPPORTED; }
