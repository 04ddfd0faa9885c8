// Mixing of images across domains: which classes a label holds, which of them are chosen, and the
// image that their pixels make with others (ClassMix, Olsson et al. 2021; QuadMix, Zhang et al. 2025, section 3).
//
// Choices are made by one block from uniform numbers drawn beforehand: among n candidates in
// ascending order the j-th pick is number ⌊u_j · (n - j)⌋ of those not yet picked. `values`: the first
// value that is no candidate. 256 has unlabelled pixels, 255, count as a class, as in the released code.
#include "colour.cuh"
#include "counting.cuh"

constexpr int64_t VALUES = 256;

// How often each part's pixels hold value v; parts of an image follow each other. One block a part.
KERNEL(count_values, const uint8_t* label /* images,pixels */, int32_t* counts /* images,parts,256 */, int64_t parts, int64_t pixels) {
    const int64_t image = block_index() / parts, part = block_index() % parts;
    const int64_t length = (pixels + parts - 1) / parts, begin = part * length;
    const int64_t end = least_of(begin + length, pixels);
    const uint8_t* in = label + image * pixels;
    int32_t* counters = counts + block_index() * VALUES;
    BLOCK_LOOP(v, VALUES) counters[v] = 0;
    barrier();
    for (int64_t i = begin + thread_index(); i < end; i += thread_count()) count_one(counters + in[i]);
}

// present[image, v] = 1 where a part of the image holds value v.
KERNEL(value_presence, const int32_t* counts /* images,parts,256 */, uint8_t* present /* images,256 */, int64_t parts, int64_t images) {
    GRID_LOOP(i, images * VALUES) {
        const int32_t* of_part = counts + i / VALUES * parts * VALUES + i % VALUES;
        int32_t found = 0;
        for (int64_t p = 0; p < parts; ++p) found |= of_part[p * VALUES];
        present[i] = found != 0;
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
KERNEL(choose_half, const uint8_t* present /* B,256 */, const real* uniforms /* B,most */, uint8_t* table /* B,256 */, int64_t values, int64_t batch, int64_t most) {
    BLOCK_LOOP(i, batch * VALUES) table[i] = 0;
    barrier();
    BLOCK_LOOP(b, batch) {
        int32_t list[VALUES];
        const int64_t n = list_values(present, batch, nullptr, values, list);
        for (int64_t j = 0; j < (n + 1) / 2; ++j)
            table[b * VALUES + take_one(list, n - j, uniforms[b * most + j])] = 1;
    }
}

// QuadMix: two values of each image's own label, or all where there are fewer. `avoid` names two
// values not to choose. `chosen` gets what a second choice should avoid: the positions of the chosen
// among the candidates where `positions` is set (as the released code hands on), else the values;
// -1 for what was not chosen. One block.
KERNEL(choose_two, const uint8_t* present /* B,256 */, const real* uniforms /* B,2 */, const int32_t* OPTIONAL avoid /* B,2 */, uint8_t* table /* B,256 */, int32_t* OPTIONAL chosen /* B,2 */, int32_t positions, int64_t values, int64_t batch) {
    BLOCK_LOOP(i, batch * VALUES) table[i] = 0;
    barrier();
    BLOCK_LOOP(b, batch) {
        int32_t list[VALUES], rank[VALUES];
        const int32_t* excluded = avoid != nullptr ? avoid + 2 * b : nullptr;
        const int64_t n = list_values(present + b * VALUES, 1, excluded, values, list);
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

// Pixels that lie over others: those whose label the image's table holds, where they are confident.
// Without a table none do; an absent weight is 1 everywhere.
struct Layer {
    const real* image;
    const uint8_t* label;
    const real* weight;
    const uint8_t* table;
    const uint8_t* confident;
};
DEVICE bool covers(Layer layer, int64_t b, int64_t i) {
    if (layer.table == nullptr || layer.table[b * VALUES + layer.label[i]] == 0) return false;
    return layer.confident == nullptr || layer.confident[i] != 0;
}

// A mixed image, jittered where there are factors and the switch is on: see colour.cuh. The highest
// layer that covers a pixel gives its colour, label and weight. Over all layers lie the pixels of two
// long-tail classes, the second's over the first's, each from a crop of its own, without weights of
// their own; their colours are (channel - mean) · gain, the channels in BGR order where `reversed` is set.
KERNEL(mix, const real* under /* B,pixels,3 */, const uint8_t* under_label /* B,pixels */, const real* OPTIONAL under_weight /* B,pixels */, const real* OPTIONAL lower /* B,pixels,3 */, const uint8_t* OPTIONAL lower_label /* B,pixels */, const real* OPTIONAL lower_weight /* B,pixels */, const uint8_t* OPTIONAL lower_table /* B,256 */, const uint8_t* OPTIONAL lower_confident /* B,pixels */, const real* OPTIONAL upper /* B,pixels,3 */, const uint8_t* OPTIONAL upper_label /* B,pixels */, const real* OPTIONAL upper_weight /* B,pixels */, const uint8_t* OPTIONAL upper_table /* B,256 */, const uint8_t* OPTIONAL upper_confident /* B,pixels */, const uint8_t* OPTIONAL rgb /* B,2,pixels,3 */, const uint8_t* OPTIONAL crop_label /* B,2,pixels */, const uint8_t* OPTIONAL classes /* 2 */, const real* OPTIONAL gain /* 3 */, const real* OPTIONAL factors /* B,4 */, const int32_t* OPTIONAL order /* B,4 */, const int32_t* OPTIONAL switches /* 2 */, const real* mean /* 3 */, const real* std /* 3 */, real* image /* B,pixels,3 */, uint8_t* label /* B,pixels */, real* weight /* B,pixels */, int32_t reversed, real unit, int64_t batch, int64_t pixels) {
    const Layer bottom = {under, under_label, under_weight, nullptr, nullptr};
    const Layer middle = {lower, lower_label, lower_weight, lower_table, lower_confident};
    const Layer top = {upper, upper_label, upper_weight, upper_table, upper_confident};
    const int64_t crops = rgb != nullptr ? 2 : 0;
    const bool jitters = factors != nullptr && switches[0] != 0;
    for (int64_t b = 0; b < batch; ++b) {
        GRID_LOOP(p, pixels) {
            const int64_t i = b * pixels + p;
            const Layer seen = covers(top, b, i) ? top : covers(middle, b, i) ? middle : bottom;
            int64_t crop = -1;
            for (int64_t k = 0; k < crops; ++k) {
                const int64_t at = (2 * b + k) * pixels + p;
                if (crop_label[at] == classes[k]) crop = at;
            }
            Colour colour;
            if (crop < 0) {
                colour = colour_at(seen.image, i);
                label[i] = seen.label[i];
            } else {
                const uint8_t* channels = rgb + 3 * crop;
                const int64_t first = reversed ? 2 : 0;
                colour = {
                    (real(channels[first]) - mean[0]) * gain[0],
                    (real(channels[1]) - mean[1]) * gain[1],
                    (real(channels[2 - first]) - mean[2]) * gain[2],
                };
                label[i] = crop_label[crop];
            }
            if (jitters) colour = jittered(colour, factors + 4 * b, order + 4 * b, mean, std, unit);
            set_colour(image, i, colour);
            weight[i] = seen.weight != nullptr ? seen.weight[i] : real(1);
        }
    }
}
