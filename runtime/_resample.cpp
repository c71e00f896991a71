// Weighted sums along the columns of an image, then along its rows: `resample.py` in C++, with the same bits.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

constexpr int kBits = 22;  // as in resample.py
constexpr std::int32_t kHalf = 1 << (kBits - 1);

std::uint8_t rounded(std::int32_t sum) { return static_cast<std::uint8_t>(std::clamp(sum >> kBits, 0, 255)); }

void resample(const std::uint8_t* image, std::ptrdiff_t stride, int width, const std::int32_t* row_first,
              const std::int32_t* row_weights, int row_taps, int rows, const std::int32_t* column_first,
              const std::int32_t* column_weights, int column_taps, int columns, int begin, int end, int reverse,
              std::uint8_t* out) {
  const std::size_t length = static_cast<std::size_t>(columns) * 3;
  std::vector<std::uint8_t> narrow(length * (end - begin));
  std::vector<std::int32_t> sums(length);
  const int first_out = reverse ? 2 : 0, last_out = 2 - first_out;
  for (int y = begin; y < end; y++) {
    const std::uint8_t* line = image + y * stride;
    std::uint8_t* to = narrow.data() + length * (y - begin);
    for (int x = 0; x < columns; x++, to += 3) {
      const std::uint8_t* from = line + static_cast<std::size_t>(column_first[x]) * 3;
      const std::int32_t* weights = column_weights + static_cast<std::size_t>(x) * column_taps;
      const int taps = std::min(column_taps, width - column_first[x]);  // further weights are 0
      std::int32_t first = kHalf, second = kHalf, third = kHalf;
      for (int tap = 0; tap < taps; tap++, from += 3) {
        first += from[0] * weights[tap], second += from[1] * weights[tap], third += from[2] * weights[tap];
      }
      to[first_out] = rounded(first), to[1] = rounded(second), to[last_out] = rounded(third);
    }
  }
  for (int y = 0; y < rows; y++, out += length) {
    const std::int32_t* weights = row_weights + static_cast<std::size_t>(y) * row_taps;
    const std::uint8_t* from = narrow.data() + length * (row_first[y] - begin);
    const int taps = std::min(row_taps, end - row_first[y]);
    std::fill(sums.begin(), sums.end(), kHalf);
    for (int tap = 0; tap < taps; tap++, from += length) {
      const std::int32_t weight = weights[tap];
      for (std::size_t i = 0; i < length; i++) sums[i] += from[i] * weight;
    }
    for (std::size_t i = 0; i < length; i++) out[i] = rounded(sums[i]);
  }
}

}  // namespace

// `image`: uint8 [., width, 3], rows `stride` bytes apart; rows begin to end-1 of it are read. Taps [rows, row_taps] and
// [columns, column_taps]: first source index and weights. `reverse` swaps the first and the third channel. `out`: uint8
// [rows, columns, 3]. 0, or 1 without memory.
EXPORT int cast_resample(const std::uint8_t* image, std::int64_t stride, int width, const std::int32_t* row_first,
                         const std::int32_t* row_weights, int row_taps, int rows, const std::int32_t* column_first,
                         const std::int32_t* column_weights, int column_taps, int columns, int begin, int end,
                         int reverse, std::uint8_t* out) {
  try {
    resample(image, static_cast<std::ptrdiff_t>(stride), width, row_first, row_weights, row_taps, rows, column_first,
             column_weights, column_taps, columns, begin, end, reverse, out);
    return 0;
  } catch (const std::bad_alloc&) {
    return 1;
  }
}
