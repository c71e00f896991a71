// The averaging matrix of superpixels over the cells of a grid that is resized to the label map.
//
// Resizing is separable and both it and averaging are linear: within a run of one label in a row of pixels the
// horizontal weights are summed first, then spread over the rows of cells that the row of pixels reads.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

void assign(const std::int32_t* labels, int height, int width, int count, const std::int32_t* row_cells,
            const float* row_weights, int row_taps, const std::int32_t* column_cells, const float* column_weights,
            int column_taps, int grid_height, int grid_width, float* out) {
  const std::size_t pixels = static_cast<std::size_t>(height) * width;
  const std::size_t cells = static_cast<std::size_t>(grid_height) * grid_width;
  std::vector<float> share(count, 0.0f), across(grid_width, 0.0f);
  for (std::size_t i = 0; i < pixels; i++) share[labels[i]] += 1.0f;
  for (float& size : share) size = 1.0f / std::max(size, 1.0f);
  std::fill_n(out, static_cast<std::size_t>(count) * cells, 0.0f);
  for (int y = 0; y < height; y++, labels += width) {
    for (int begin = 0, end = 0; begin < width; begin = end) {
      const std::int32_t label = labels[begin];
      int first = grid_width, last = -1;
      for (; end < width && labels[end] == label; end++) {
        for (int tap = 0; tap < column_taps; tap++) {
          const int cell = column_cells[end * column_taps + tap];
          across[cell] += column_weights[end * column_taps + tap];
          first = std::min(first, cell);
          last = std::max(last, cell);
        }
      }
      for (int tap = 0; tap < row_taps; tap++) {
        const float weight = row_weights[y * row_taps + tap] * share[label];
        float* row = out + label * cells + static_cast<std::size_t>(row_cells[y * row_taps + tap]) * grid_width;
        for (int cell = first; cell <= last; cell++) row[cell] += weight * across[cell];
      }
      std::fill(across.begin() + first, across.begin() + last + 1, 0.0f);
    }
  }
}

}  // namespace

// labels [height, width]; cells and weights [pixels, taps] of each axis; out [count, grid_height * grid_width].
// 0 on success, 1 when memory ran out, 2 for a label that is none of 0..count-1.
EXPORT int cast_resized_assignment(const std::int32_t* labels, int height, int width, int count,
                                   const std::int32_t* row_cells, const float* row_weights, int row_taps,
                                   const std::int32_t* column_cells, const float* column_weights, int column_taps,
                                   int grid_height, int grid_width, float* out) {
  for (std::size_t i = 0; i < static_cast<std::size_t>(height) * width; i++) {
    if (static_cast<std::uint32_t>(labels[i]) >= static_cast<std::uint32_t>(count)) return 2;
  }
  try {
    assign(labels, height, width, count, row_cells, row_weights, row_taps, column_cells, column_weights, column_taps,
           grid_height, grid_width, out);
  } catch (const std::bad_alloc&) {
    return 1;
  }
  return 0;
}
