// Converts image bytes to network inputs: (x - mean) / std per channel, RGB. Images are
// batch,height,width,3.
#include "simt.cuh"

// y = (x - mean[c]) · inverse_std[c] inside the image, whose width and height `extent` gives, and 0
// in the padding. Without `extent` there is no padding.
KERNEL(normalize,
       const uint8_t* x /* batch,height,width,3 */, const int32_t* OPTIONAL extent /* batch,2 */,
       const real* mean /* 3 */, const real* inverse_std /* 3 */,
       real* y /* batch,height,width,3 */,
       int64_t batch, int64_t height, int64_t width) {
    ROW_LOOP(row, batch * height) {
        const int64_t b = row / height;
        const bool outside = extent != nullptr && row % height >= extent[2 * b + 1];
        const int64_t covered = outside ? 0 : extent != nullptr ? extent[2 * b] : width;
        BLOCK_LOOP(w, width) {
            const int64_t i = 3 * (row * width + w);
            for (int64_t c = 0; c < 3; ++c)
                y[i + c] = w < covered ? (real(x[i + c]) - mean[c]) * inverse_std[c] : real(0);
        }
    }
}

// Masked image consistency (Hoyer et al. 2023): masked = image where cells[b, cell of the pixel] is
// above `ratio`, else 0. The grid is upsampled by nearest neighbor: cell = ⌊pixel · cells /
// pixels⌋.
KERNEL(block_mask,
       const real* image /* batch,height,width,3 */,
       const real* cells /* batch,grid_height,grid_width */,
       real* masked /* batch,height,width,3 */,
       real ratio, int64_t batch, int64_t height, int64_t width, int64_t grid_height,
       int64_t grid_width) {
    const float step_h = static_cast<float>(grid_height) / static_cast<float>(height);
    const float step_w = static_cast<float>(grid_width) / static_cast<float>(width);
    ROW_LOOP(row, batch * height) {
        const int64_t b = row / height, y = row % height;
        const int64_t cell_y = static_cast<int64_t>(static_cast<float>(y) * step_h);
        const real* row_cells = cells + (b * grid_height + least_of(cell_y, grid_height - 1)) * grid_width;
        BLOCK_LOOP(x, width) {
            const int64_t cell_x = static_cast<int64_t>(static_cast<float>(x) * step_w);
            const real keep = row_cells[least_of(cell_x, grid_width - 1)] > ratio ? 1 : 0;
            const int64_t first = (row * width + x) * 3;
            for (int64_t c = 0; c < 3; ++c) masked[first + c] = image[first + c] * keep;
        }
    }
}
