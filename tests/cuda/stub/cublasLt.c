// A cuBLASLt that proposes one algorithm for every matmul and computes nothing. It notes whether it
// was asked for algorithms with an epilogue before the address of the bias was set.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifndef VERSION
#define VERSION 130100
#endif

enum { EPILOGUE = 7, BIAS_POINTER = 8, NO_EPILOGUE = 1 };

struct Description {
    uint32_t epilogue;
    uint64_t bias;
};

static int asked_without_bias, asked_with_epilogue;
int stub_asked_without_bias(void) { return asked_without_bias; }
int stub_asked_with_epilogue(void) { return asked_with_epilogue; }

size_t cublasLtGetVersion(void) { return VERSION; }
int cublasLtCreate(void** handle) { *handle = malloc(1); return 0; }
int cublasLtDestroy(void* handle) { free(handle); return 0; }
int cublasLtMatmulDescCreate(void** description, int compute, int scale) {
    *description = calloc(1, sizeof(struct Description));
    ((struct Description*)*description)->epilogue = NO_EPILOGUE;
    return 0;
}
int cublasLtMatmulDescDestroy(void* description) { free(description); return 0; }
int cublasLtMatmulDescSetAttribute(struct Description* to, int attribute, const void* value,
                                   size_t bytes) {
    if (attribute == EPILOGUE) to->epilogue = *(const uint32_t*)value;
    if (attribute == BIAS_POINTER) to->bias = *(const uint64_t*)value;
    return 0;
}
int cublasLtMatrixLayoutCreate(void** layout, int type, uint64_t rows, uint64_t cols, int64_t pitch) {
    *layout = malloc(1);
    return 0;
}
int cublasLtMatrixLayoutDestroy(void* layout) { free(layout); return 0; }
int cublasLtMatmulPreferenceCreate(void** preference) { *preference = malloc(1); return 0; }
int cublasLtMatmulPreferenceDestroy(void* preference) { free(preference); return 0; }
int cublasLtMatmulPreferenceSetAttribute(void* to, int attribute, const void* value, size_t bytes) {
    return 0;
}
int cublasLtMatmulAlgoGetHeuristic(void* handle, struct Description* operation, void* a, void* b,
                                   void* c, void* d, void* preference, int most, void* results,
                                   int* count) {
    asked_with_epilogue += operation->epilogue != NO_EPILOGUE;
    asked_without_bias += operation->epilogue != NO_EPILOGUE && !operation->bias;
    memset(results, 0, 96);
    *count = 1;
    return 0;
}
int cublasLtMatmulAlgoConfigGetAttribute(const void* algorithm, int attribute, void* value,
                                         size_t bytes, size_t* written) {
    memset(value, 0, bytes);
    return 0;
}
int cublasLtMatmul(void* handle, void* operation, const void* alpha, const void* a, void* layout_a,
                   const void* b, void* layout_b, const void* beta, const void* c, void* layout_c,
                   void* d, void* layout_d, const void* algorithm, void* workspace, size_t bytes,
                   void* stream) {
    return 0;
}
