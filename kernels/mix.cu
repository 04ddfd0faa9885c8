// Mixing of images across domains: which classes a label holds, which of them are chosen, and the
// image that their pixels make with others (ClassMix, Olsson et al. 2021; QuadMix, Zhang et al. 2025, section 3).
//
// Choices are made by one block from uniform numbers drawn beforehand: among n candidates in
// ascending order the j-th pick is number ⌊u_j · (n - j)⌋ of those not yet picked. `values`: the first
// value that is no candidate. 256 has unlabelled pixels, 255, count as a class, as in the released code.
#include "colour.cuh"
#include "counting.cuh"
#include "label.cuh"

// How often each part's pixels hold value v; parts of an image follow each other. One block a part.
KERNEL(count_values,
       const uint8_t* label /* blocks/parts,pixels */, int32_t* counts /* blocks,LABEL_VALUES */,
       int64_t parts, int64_t pixels) {
    const int64_t image = block_index() / parts, part = block_index() % parts;
    const int64_t length = (pixels + parts - 1) / parts, begin = part * length;
    const int64_t end = least_of(begin + length, pixels);
    const uint8_t* in = label + image * pixels;
    int32_t* counters = counts + block_index() * LABEL_VALUES;
    BLOCK_LOOP(v, LABEL_VALUES) counters[v] = 0;
    barrier();
    for (int64_t i = begin + thread_index(); i < end; i += thread_count()) count_one(counters + in[i]);
}

// present[image, v] = 1 where a part of the image holds value v.
KERNEL(value_presence,
       const int32_t* counts /* images,parts,LABEL_VALUES */,
       uint8_t* present /* images,LABEL_VALUES */,
       int64_t parts, int64_t images) {
    GRID_LOOP(i, images * LABEL_VALUES) {
        const int32_t* of_part = counts + i / LABEL_VALUES * parts * LABEL_VALUES + i % LABEL_VALUES;
        int32_t found = 0;
        for (int64_t p = 0; p < parts; ++p) found |= of_part[p * LABEL_VALUES];
        present[i] = found != 0;
    }
}

// Ascending values below `values` that any of `rows` rows of `present` holds and `excluded` does not (up
// to two values; negative: none). Returns how many.
DEVICE int64_t list_values(const uint8_t* present, int64_t rows, const int32_t* excluded, int64_t values, int32_t* list) {
    int64_t count = 0;
    for (int32_t v = 0; v < values; ++v) {
        bool found = false;
        for (int64_t r = 0; r < rows; ++r) found = found || present[r * LABEL_VALUES + v] != 0;
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
KERNEL(choose_half,
       const uint8_t* present /* batch,LABEL_VALUES */, const real* uniforms /* batch,most */,
       uint8_t* table /* batch,LABEL_VALUES */,
       int64_t values, int64_t batch, int64_t most) {
    BLOCK_LOOP(i, batch * LABEL_VALUES) table[i] = 0;
    barrier();
    BLOCK_LOOP(b, batch) {
        int32_t list[LABEL_VALUES];
        const int64_t n = list_values(present, batch, nullptr, values, list);
        for (int64_t j = 0; j < (n + 1) / 2; ++j)
            table[b * LABEL_VALUES + take_one(list, n - j, uniforms[b * most + j])] = 1;
    }
}

// QuadMix: two values of each image's own label, or all where there are fewer. `avoid` names two
// values not to choose. `chosen` gets what a second choice should avoid: the positions of the chosen
// among the candidates where `positions` is set (as the released code hands on), else the values;
// -1 for what was not chosen. One block.
KERNEL(choose_two,
       const uint8_t* present /* batch,LABEL_VALUES */, const real* uniforms /* batch,2 */,
       const int32_t* OPTIONAL avoid /* batch,2 */, uint8_t* table /* batch,LABEL_VALUES */,
       int32_t* OPTIONAL chosen /* batch,2 */,
       bool positions, int64_t values, int64_t batch) {
    BLOCK_LOOP(i, batch * LABEL_VALUES) table[i] = 0;
    barrier();
    BLOCK_LOOP(b, batch) {
        int32_t list[LABEL_VALUES], rank[LABEL_VALUES];
        const int32_t* excluded = avoid != nullptr ? avoid + 2 * b : nullptr;
        const int64_t n = list_values(present + b * LABEL_VALUES, 1, excluded, values, list);
        for (int64_t i = 0; i < n; ++i) rank[list[i]] = static_cast<int32_t>(i);
        for (int64_t j = 0; j < 2; ++j) {
            int32_t handed_on = -1;
            if (j < n) {
                const int32_t value = take_one(list, n - j, uniforms[2 * b + j]);
                table[b * LABEL_VALUES + value] = 1;
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
    if (layer.table == nullptr || layer.table[b * LABEL_VALUES + layer.label[i]] == 0) return false;
    return layer.confident == nullptr || layer.confident[i] != 0;
}

// A mixed image, jittered where there are factors and the switch is on: see colour.cuh. The highest
// layer that covers a pixel gives its colour, label and weight. Over all layers lie the pixels of two
// long-tail classes, the second's over the first's, each from a crop of its own, without weights of
// their own; their colours are (channel - mean) · gain, the channels in BGR order where `reversed` is set.
KERNEL(mix,
       const real* under /* batch,pixels,3 */, const uint8_t* under_label /* batch,pixels */,
       const real* OPTIONAL under_weight /* batch,pixels */,
       const real* OPTIONAL lower /* batch,pixels,3 */,
       const uint8_t* OPTIONAL lower_label /* batch,pixels */,
       const real* OPTIONAL lower_weight /* batch,pixels */,
       const uint8_t* OPTIONAL lower_table /* batch,LABEL_VALUES */,
       const uint8_t* OPTIONAL lower_confident /* batch,pixels */,
       const real* OPTIONAL upper /* batch,pixels,3 */,
       const uint8_t* OPTIONAL upper_label /* batch,pixels */,
       const real* OPTIONAL upper_weight /* batch,pixels */,
       const uint8_t* OPTIONAL upper_table /* batch,LABEL_VALUES */,
       const uint8_t* OPTIONAL upper_confident /* batch,pixels */,
       const uint8_t* OPTIONAL rgb /* batch,2,pixels,3 */,
       const uint8_t* OPTIONAL crop_label /* batch,2,pixels */,
       const uint8_t* OPTIONAL classes /* 2 */, const real* OPTIONAL gain /* 3 */,
       const real* OPTIONAL factors /* batch,4 */, const int32_t* OPTIONAL order /* batch,4 */,
       const int32_t* OPTIONAL switches /* 2 */, const real* mean /* 3 */, const real* std /* 3 */,
       real* image /* batch,pixels,3 */, uint8_t* label /* batch,pixels */,
       real* weight /* batch,pixels */,
       bool reversed, real unit, int64_t batch, int64_t pixels) {
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
