// Cross-domain mixing of images: which classes a label contains, which of them are chosen, and the
// image composed of the chosen pixels and others (ClassMix, Olsson et al. 2021; QuadMix, Zhang et
// al. 2025, section 3). Images are batch,pixels,3; labels and weights are batch,pixels.
//
// One block makes the choices from precomputed uniform numbers: among n candidates in ascending
// order, the j-th pick is number ⌊u_j · (n - j)⌋ of those not yet picked. `values` is the first
// value that cannot be chosen; with 256, unlabeled pixels (255) count as a class, as in the
// released code.
#include "color.cuh"
#include "counting.cuh"
#include "label.cuh"

// Histogram of the label values of each part of each image; one block per part.
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

// present[image, v] = 1 if any part of the image contains value v, else 0.
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

// Lists in ascending order the values below `values` that any of the first `rows` rows of `present`
// contains, without the two values of `excluded` (a negative one excludes nothing). Returns how
// many.
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

// Removes element ⌊u · n⌋ from a list of n and returns it.
DEVICE int32_t take_one(int32_t* list, int64_t n, real u) {
    const int64_t at = least_of(static_cast<int64_t>(u * n), n - 1);
    const int32_t taken = list[at];
    for (int64_t i = at; i + 1 < n; ++i) list[i] = list[i + 1];
    return taken;
}

// ClassMix: chooses for each image half (rounded up) of the values in the whole batch, whose `whole`
// images include those of other processes; one block.
KERNEL(choose_half,
       const uint8_t* present /* whole,LABEL_VALUES */, const real* uniforms /* batch,most */,
       uint8_t* table /* batch,LABEL_VALUES */,
       int64_t values, int64_t whole, int64_t batch, int64_t most) {
    BLOCK_LOOP(i, batch * LABEL_VALUES) table[i] = 0;
    barrier();
    BLOCK_LOOP(b, batch) {
        int32_t list[LABEL_VALUES];
        const int64_t n = list_values(present, whole, nullptr, values, list);
        for (int64_t j = 0; j < (n + 1) / 2; ++j)
            table[b * LABEL_VALUES + take_one(list, n - j, uniforms[b * most + j])] = 1;
    }
}

// QuadMix: chooses two values of each image's own label, or all of them if there are fewer; one
// block. `avoid` excludes two values. `chosen` receives what a later choice should avoid: if
// `positions` is set, the positions of the chosen values among the candidates (as in the released
// code), otherwise the values; -1 stands for a missing choice.
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

// A layer covers a pixel if its table contains the pixel's label and the pixel is confident. A
// layer without a table covers nothing; a layer without weights has weight 1 everywhere.
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

// Composes the mixed image, with color jitter (color.cuh) if there are factors and switches[0] is
// set. The topmost layer that covers a pixel provides its color, label and weight. Pixels of two
// long-tail classes, each from its own crop, replace the colors and labels of all layers but not
// the weights; the second class is on top. Their colors are (channel - mean) · gain, with the
// channels in BGR order if `reversed` is set.
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
            Color color;
            if (crop < 0) {
                color = color_at(seen.image, i);
                label[i] = seen.label[i];
            } else {
                const uint8_t* channels = rgb + 3 * crop;
                const int64_t first = reversed ? 2 : 0;
                color = {
                    (real(channels[first]) - mean[0]) * gain[0],
                    (real(channels[1]) - mean[1]) * gain[1],
                    (real(channels[2 - first]) - mean[2]) * gain[2],
                };
                label[i] = crop_label[crop];
            }
            if (jitters) color = jittered(color, factors + 4 * b, order + 4 * b, mean, std, unit);
            set_color(image, i, color);
            weight[i] = seen.weight != nullptr ? seen.weight[i] : real(1);
        }
    }
}
