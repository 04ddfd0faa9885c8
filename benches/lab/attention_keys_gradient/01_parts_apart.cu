// Kernels: attention_keys_gradient
// Until: d072435
// Then: parts are added up in place, several keys at a time: long loops over neighbours
// Predicted: nothing was written down; by bytes it is no gain, as the sums kept in partial[0] are written and read once
//   more for every part
//
// The parts of the keys' and values' gradient, added up: each number by itself, through all parts,
// which lie far apart.
#include "simt.cuh"

constexpr int64_t KEYS = 64;

// dkv = Σ_p partial[p], unpacked: keys, then values.
KERNEL(attention_keys_gradient, const real* partial /* chunks,2,B,heads,tiles,KEYS,width */, T* dkv /* B,M,2C */, int64_t chunks, int64_t batch, int64_t keys, int64_t heads, int64_t size, int64_t width) {
    const int64_t padded = (keys + KEYS - 1) / KEYS * KEYS, part = 2 * batch * heads * padded * width;
    const int64_t rows = batch * keys * 2 * heads;
    for (int64_t r = chunk_begin(rows); r < chunk_end(rows); ++r) {
        const int64_t head = r % heads, which = r / heads % 2, sample_key = r / heads / 2;
        const int64_t b = sample_key / keys, key = sample_key % keys;
        const real* from = partial + (((which * batch + b) * heads + head) * padded + key) * width;
        BLOCK_LOOP(c, size) {
            real sum = 0;
            for (int64_t p = 0; p < chunks; ++p) sum += from[p * part + c];
            dkv[r * size + c] = sum;
        }
    }
}
