// Mixing of images across domains: which classes a label holds, which of them are chosen, and the
// pasting of their pixels (ClassMix, Olsson et al. 2021; QuadMix, Zhang et al. 2025, section 3).
//
// Choices are made by one block from uniform numbers drawn beforehand: among n candidates in
// ascending order the j-th pick is number ⌊u_j · (n - j)⌋ of those not yet picked. `values`: the first
// value that is no candidate. 256 has unlabelled pixels, 255, count as a class, as in the released code.
#include "simt.cuh"

constexpr int64_t VALUES = 256;

// present[part, v] = 1 where the part's pixels hold value v; parts of an image follow each other.
// One block a part.
KERNEL(label_presence, const uint8_t* label /* images,pixels */, uint8_t* present /* images,parts,256 */, int64_t parts, int64_t pixels) {
    const int64_t image = block_index() / parts, part = block_index() % parts;
    const int64_t length = (pixels + parts - 1) / parts, begin = part * length;
    const int64_t end = least_of(begin + length, pixels);
    const uint8_t* in = label + image * pixels;
    BLOCK_LOOP(v, VALUES) {
        uint8_t found = 0;
        for (int64_t i = begin; i < end; ++i) found |= in[i] == static_cast<uint8_t>(v);
        present[block_index() * VALUES + v] = found;
    }
}

// Ascending values below `values` that any of `rows` rows of `present` holds and `excluded` does not (up
// to two values; negative: none). Returns how many.
DEVICE int64_t list_values(const uint8_t* present, int64_t rows, const int32_t* excluded, int64_t values, int32_t* list) {
    int64_t count = 0;
    for (int32_t v = 0; v < values; ++v) {
        bool found = false;
        for (int64_t r = 0; r < rows; ++r) found = found || present[r * VALUES + v] != 0;
        const bool out = excluded != nullptr && (v == excluded[0] || v == excluded[1]);
        if (found && !out) list[count++] = v;
    }
    return count;
}

// Takes number ⌊u · n⌋ out of a list of n.
DEVICE int32_t take_one(int32_t* list, int64_t n, real u) {
    const int64_t at = least_of(static_cast<int64_t>(u * n), n - 1);
    const int32_t taken = list[at];
    for (int64_t i = at; i + 1 < n; ++i) list[i] = list[i + 1];
    return taken;
}

// ClassMix: half of the values of the whole batch, rounded up, drawn for each image; one block.
KERNEL(choose_half, const uint8_t* present /* B·parts,256 */, const real* uniforms /* B,most */, uint8_t* table /* B,256 */, int64_t values, int64_t batch, int64_t parts, int64_t most) {
    BLOCK_LOOP(i, batch * VALUES) table[i] = 0;
    barrier();
    BLOCK_LOOP(b, batch) {
        int32_t list[VALUES];
        const int64_t n = list_values(present, batch * parts, nullptr, values, list);
        for (int64_t j = 0; j < (n + 1) / 2; ++j)
            table[b * VALUES + take_one(list, n - j, uniforms[b * most + j])] = 1;
    }
}

// QuadMix: two values of each image's own label, or all where there are fewer. `avoid` names two
// values not to choose. `chosen` gets what a second choice should avoid: the positions of the chosen
// among the candidates where `positions` is set (as the released code hands on), else the values;
// -1 for what was not chosen. One block.
KERNEL(choose_two, const uint8_t* present /* B,parts,256 */, const real* uniforms /* B,2 */, const int32_t* OPTIONAL avoid /* B,2 */, uint8_t* table /* B,256 */, int32_t* OPTIONAL chosen /* B,2 */, int32_t positions, int64_t values, int64_t batch, int64_t parts) {
    BLOCK_LOOP(i, batch * VALUES) table[i] = 0;
    barrier();
    BLOCK_LOOP(b, batch) {
        int32_t list[VALUES], rank[VALUES];
        const int32_t* excluded = avoid != nullptr ? avoid + 2 * b : nullptr;
        const int64_t n = list_values(present + b * parts * VALUES, parts, excluded, values, list);
        for (int64_t i = 0; i < n; ++i) rank[list[i]] = static_cast<int32_t>(i);
        for (int64_t j = 0; j < 2; ++j) {
            int32_t handed_on = -1;
            if (j < n) {
                const int32_t value = take_one(list, n - j, uniforms[2 * b + j]);
                table[b * VALUES + value] = 1;
                handed_on = positions ? rank[value] : value;
            }
            if (chosen != nullptr) chosen[2 * b + j] = handed_on;
        }
    }
}

// mask = table[b, label], and confident
KERNEL(class_mask, const uint8_t* label /* B,pixels */, const uint8_t* table /* B,256 */, const uint8_t* OPTIONAL confident /* B,pixels */, uint8_t* mask /* B,pixels */, int64_t batch, int64_t pixels) {
    GRID_LOOP(i, batch * pixels) {
        const uint8_t in_class = table[i / pixels * VALUES + label[i]];
        mask[i] = confident != nullptr && confident[i] == 0 ? 0 : in_class;
    }
}

// out = mask ? over : under, for image, label and weight; an absent weight is 1 everywhere.
KERNEL(paste, const uint8_t* mask /* n */, const real* over /* n,3 */, const uint8_t* over_label /* n */, const real* OPTIONAL over_weight /* n */, const real* under /* n,3 */, const uint8_t* under_label /* n */, const real* OPTIONAL under_weight /* n */, real* out /* n,3 */, uint8_t* out_label /* n */, real* out_weight /* n */, int64_t n) {
    GRID_LOOP(i, n) {
        const bool top = mask[i] != 0;
        for (int64_t c = 0; c < 3; ++c) out[3 * i + c] = top ? over[3 * i + c] : under[3 * i + c];
        out_label[i] = top ? over_label[i] : under_label[i];
        const real a = over_weight != nullptr ? over_weight[i] : real(1);
        const real b = under_weight != nullptr ? under_weight[i] : real(1);
        out_weight[i] = top ? a : b;
    }
}

// Pastes the pixels of two long-tail classes in turn, each from a crop of its own; weights stay.
// Colours enter as (channel - shift) · gain, the channels in BGR order where `reversed` is set.
KERNEL(paste_rare, const uint8_t* rgb /* B,2,pixels,3 */, const uint8_t* crop_label /* B,2,pixels */, const uint8_t* classes /* 2 */, const real* shift /* 3 */, const real* gain /* 3 */, real* image /* B,pixels,3 */, uint8_t* label /* B,pixels */, int32_t reversed, int64_t batch, int64_t pixels) {
    GRID_LOOP(i, batch * pixels) {
        const int64_t b = i / pixels, p = i % pixels;
        for (int64_t k = 0; k < 2; ++k) {
            const int64_t from = (b * 2 + k) * pixels + p;
            if (crop_label[from] != classes[k]) continue;
            for (int64_t c = 0; c < 3; ++c) {
                const real value = rgb[3 * from + (reversed ? 2 - c : c)];
                image[3 * i + c] = (value - shift[c]) * gain[c];
            }
            label[i] = classes[k];
        }
    }
}
