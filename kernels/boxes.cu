// The class-balanced crop: of several boxes drawn for each image, the one with the most balanced classes
// (SePiCo, Xie et al. 2023). With n_c pixels of class c in a box:
//   score = Σ ln n_c over the classes with n_c > 1, or 0 if the box has fewer than two classes, or one class
//   has max_share or more of its labeled pixels
// Boxes are y1, y2, x1, x2; `many` are drawn for an image. Everything is chosen on the device.
#include "counting.cuh"
#include "label.cuh"

// Histogram of the label values in each part of each box; one block per part.
KERNEL(count_in_boxes,
       const uint8_t* label /* batch,height,width */, const int32_t* boxes /* batch,many,4 */,
       int32_t* counts /* batch,many,parts,LABEL_VALUES */,
       int64_t batch, int64_t many, int64_t parts, int64_t height, int64_t width) {
    ROW_LOOP(block, batch * many * parts) {
        const int64_t box = block / parts, part = block - box * parts;
        const int32_t* place = boxes + box * 4;
        const int64_t left = held_to(place[2], 0, width), w = held_to(place[3], left, width) - left;
        const int64_t top = held_to(place[0], 0, height), h = held_to(place[1], top, height) - top;
        const int64_t begin = h * part / parts, pixels = (h * (part + 1) / parts - begin) * w;
        const uint8_t* corner = label + (box / many * height + top + begin) * width + left;
        int32_t* counters = counts + block * LABEL_VALUES;
        BLOCK_LOOP(v, LABEL_VALUES) counters[v] = 0;
        barrier();
        for (int64_t i = thread_index(); i < pixels; i += thread_count()) count_one(counters + corner[i / w * width + i % w]);
    }
}

// scores[box], as at the top of the file. A block takes one box at a time.
KERNEL(score_boxes,
       const int32_t* counts /* boxes,parts,LABEL_VALUES */, real* scores /* boxes */,
       int64_t boxes, int64_t parts, real max_share) {
    SHARED(int32_t, pixels, LABEL_VALUES);
    ROW_LOOP(box, boxes) {
        BLOCK_LOOP(v, LABEL_VALUES) {
            int32_t sum = 0;
            for (int64_t p = 0; p < parts; ++p) sum += counts[(box * parts + p) * LABEL_VALUES + v];
            pixels[v] = sum;
        }
        barrier();
        const real labeled = block_sum(IGNORED, [&](int64_t c) { return static_cast<real>(pixels[c]); });
        const real most = block_max(IGNORED, [&](int64_t c) { return static_cast<real>(pixels[c]); });
        const real logs = block_sum(IGNORED, [&](int64_t c) { return pixels[c] > 1 ? log_of(static_cast<real>(pixels[c])) : real(0); });
        // With one class, or none, `most` is all of them.
        const bool balanced = most < labeled && most / labeled < max_share;
        BLOCK_LOOP(k, 1) scores[box] = balanced ? logs : real(0);
    }
}

// place[image] = the first of the image's boxes with the highest score.
KERNEL(choose_box,
       const real* scores /* batch,many */, const int32_t* boxes /* batch,many,4 */,
       int32_t* place /* batch,4 */,
       int64_t batch, int64_t many) {
    GRID_LOOP(b, batch) {
        int64_t best = b * many;
        for (int64_t k = best + 1; k < (b + 1) * many; ++k) best = scores[k] > scores[best] ? k : best;
        for (int64_t edge = 0; edge < 4; ++edge) place[b * 4 + edge] = boxes[best * 4 + edge];
    }
}
