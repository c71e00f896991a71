// The inner loops of tracking: overlaps of two superpixel maps, and what a level remembers.
//
// Sums and comparisons are those of the NumPy code in assignment.py and membership.py, in the same order, so that both
// give the same bits. Compile with -ffp-contract=off. Indices are checked where they are
// read; every function returns kOutside for one that is not in its range.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <stdexcept>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

constexpr int kNoMemory = -1, kOutside = -2;
constexpr float kForgotten = 0.02f, kRemembered = 1e-3f;  // as in membership.py

// The index, if it is one of 0..count-1.
inline std::size_t within(std::int64_t index, std::int64_t count) {
  if (static_cast<std::uint64_t>(index) >= static_cast<std::uint64_t>(count)) throw std::out_of_range("index");
  return static_cast<std::size_t>(index);
}

// Sums of the rows of each group: [groups, columns] from [rows, columns] rows that `row` gives.
template <typename Row>
std::vector<float> group_sums(int rows, int columns, int groups, const std::int32_t* group, const Row& row) {
  std::vector<float> sums(static_cast<std::size_t>(groups) * columns, 0.0f);
  for (int i = 0; i < rows; i++) row(i, &sums[within(group[i], groups) * columns]);
  return sums;
}

// A column for each row, none twice, -1 for none: pairs that prefer each other, then again among what is left.
std::vector<int> assign(const std::vector<float>& weights, int rows, int columns) {
  std::vector<int> chosen(rows, -1), of_row(rows, -1), of_column(columns, -1);
  std::vector<char> row_taken(rows, 0), column_taken(columns, 0);
  const auto at = [&](int row, int column) { return weights[static_cast<std::size_t>(row) * columns + column]; };
  for (bool found = true; found;) {
    for (int r = 0; r < rows; r++) {
      if (row_taken[r] || (of_row[r] >= 0 && !column_taken[of_row[r]])) continue;
      of_row[r] = -1;
      for (int c = 0; c < columns; c++) {
        if (!column_taken[c] && (of_row[r] < 0 || at(r, c) > at(r, of_row[r]))) of_row[r] = c;
      }
    }
    // Columns row by row: the first row wins among equals, as it does when one column is read downwards.
    std::vector<char> stale(columns, 0);
    bool any_stale = false;
    for (int c = 0; c < columns; c++) {
      stale[c] = !column_taken[c] && (of_column[c] < 0 || row_taken[of_column[c]]);
      if (stale[c]) of_column[c] = -1, any_stale = true;
    }
    for (int r = 0; any_stale && r < rows; r++) {
      if (row_taken[r]) continue;
      for (int c = 0; c < columns; c++) {
        if (stale[c] && (of_column[c] < 0 || at(r, c) > at(of_column[c], c))) of_column[c] = r;
      }
    }
    found = false;
    for (int r = 0; r < rows; r++) {
      const int c = of_row[r];
      if (row_taken[r] || c < 0 || of_column[c] != r || !(at(r, c) > 0)) continue;
      chosen[r] = c;
      row_taken[r] = column_taken[c] = 1;
      found = true;
    }
  }
  return chosen;
}

template <typename Work>
int guarded(const Work& work) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return kNoMemory;
  } catch (const std::out_of_range&) {
    return kOutside;
  }
}

}  // namespace

// Areas of today's superpixels; for each the one of the frame before that it shares most sampled pixels with; and the
// same again where that is mutual, else -1. Maps are [height, width]. 0, kNoMemory or kOutside; of the map before only
// the samples are looked at.
EXPORT int cast_track_superpixels(int height, int width, int step, const std::int32_t* now, const std::int32_t* before,
                                  int count_now, int count_before, float* areas, std::int64_t* source,
                                  std::int64_t* same) {
  return guarded([&] {
    const std::size_t pixels = static_cast<std::size_t>(height) * width;
    std::vector<std::int32_t> area(count_now, 0), common(static_cast<std::size_t>(count_now) * count_before, 0);
    for (std::size_t i = 0; i < pixels; i++) area[within(now[i], count_now)]++;
    for (int y = 0; y < height; y += step) {
      const std::size_t row = static_cast<std::size_t>(y) * width;
      for (int x = 0; x < width; x += step) {
        common[static_cast<std::size_t>(now[row + x]) * count_before + within(before[row + x], count_before)]++;
      }
    }
    std::vector<int> largest(count_before, 0), best(count_before, 0);
    for (int i = 0; i < count_now; i++) {
      const std::int32_t* shared = &common[static_cast<std::size_t>(i) * count_before];
      areas[i] = static_cast<float>(area[i]);
      source[i] = std::max_element(shared, shared + count_before) - shared;
      for (int j = 0; j < count_before; j++) {
        if (shared[j] > largest[j]) largest[j] = shared[j], best[j] = i;
      }
    }
    for (int i = 0; i < count_now; i++) {
      const bool mutual = best[source[i]] == i && common[static_cast<std::size_t>(i) * count_before + source[i]] > 0;
      same[i] = mutual ? source[i] : -1;
    }
    return 0;
  });
}

// One frame of one level, see `membership.level`; the frame before had `rows` superpixels. `out` takes
// [superpixels, tracks + segments] floats and holds [superpixels, kept] afterwards; `columns` says what each kept column
// was before. Returns kept, kNoMemory or kOutside.
EXPORT int cast_track_one_level(int superpixels, int rows, int tracks, int segments, const float* shares,
                                const std::int64_t* current, const std::int64_t* source, const std::int32_t* member,
                                const float* areas, float keep, float rate, float margin, float* out,
                                std::int64_t* out_current, std::int64_t* columns) {
  return guarded([&] {
    const auto before = [&](int i) { return shares + within(source[i], rows) * tracks; };
    const std::vector<float> weights = group_sums(superpixels, tracks, segments, member, [&](int i, float* sums) {
      const float* row = before(i);
      for (int t = 0; t < tracks; t++) sums[t] += row[t] * areas[i];
    });
    std::vector<int> column = assign(weights, segments, tracks);
    int width = tracks;
    for (int& place : column) {
      if (place < 0) place = width++;
    }
    std::vector<float> largest(width, 0.0f);
    std::vector<char> alive(width, 0);
    for (int i = 0; i < superpixels; i++) {
      const float* row = before(i);
      float* mine = out + static_cast<std::size_t>(i) * width;
      for (int t = 0; t < tracks; t++) mine[t] = row[t] * keep;
      std::fill(mine + tracks, mine + width, 0.0f);
      mine[column[member[i]]] += rate;
      const std::int64_t best = std::max_element(mine, mine + width) - mine, last = within(current[source[i]], tracks);
      out_current[i] = mine[best] <= mine[last] + margin ? last : best;
      alive[out_current[i]] = 1;
      for (int t = 0; t < width; t++) largest[t] = std::max(largest[t], mine[t]);
    }
    std::vector<int> place(width, -1);
    int kept = 0;
    for (int t = 0; t < width; t++) {
      if (!alive[t] && !(largest[t] > kForgotten)) continue;
      columns[kept] = t;
      place[t] = kept++;
    }
    for (int i = 0; i < superpixels; i++) {  // never to a later place than it comes from
      const float* mine = out + static_cast<std::size_t>(i) * width;
      float* packed = out + static_cast<std::size_t>(i) * kept;
      for (int k = 0; k < kept; k++) packed[k] = mine[columns[k]];
      out_current[i] = place[out_current[i]];
    }
    return kept;
  });
}

// Column of the coarser level that most of each finer track lies in, see `parents`. 0, kNoMemory or kOutside.
EXPORT int cast_track_parents(int superpixels, int tracks, int count, const float* shares, const std::int64_t* current,
                              const std::int32_t* column, const float* areas, std::int64_t* parents) {
  return guarded([&] {
    const std::vector<float> sums = group_sums(superpixels, tracks, count, column, [&](int i, float* sums) {
      const float* row = shares + static_cast<std::size_t>(i) * tracks;
      const int shown = static_cast<int>(within(current[i], tracks));
      for (int t = 0; t < tracks; t++) sums[t] += (row[t] * kRemembered + (t == shown ? 1.0f : 0.0f)) * areas[i];
    });
    for (int k = 0; k < count; k++) {
      const float* row = &sums[static_cast<std::size_t>(k) * tracks];
      parents[k] = std::max_element(row, row + tracks) - row;
    }
    return 0;
  });
}
