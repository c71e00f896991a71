// What `film.py` counts in each frame.

#include "_counting.h"

// Of every second pixel in both directions the colour, in 8 x 8 x 8 bins: [512] from uint8 [height, width, 3].
EXPORT void cast_film_colours(const std::uint8_t* image, int height, int width, std::int64_t* counts) {
  std::int32_t tables[kTables][512] = {};
  for (int y = 0; y < height; y += 2) {
    const std::uint8_t* pixel = image + static_cast<std::size_t>(y) * width * 3;
    for (int x = 0; x < width; x += 2, pixel += 6) {
      tables[x / 2 % kTables][(pixel[0] >> 5) * 64 + (pixel[1] >> 5) * 8 + (pixel[2] >> 5)]++;
    }
  }
  std::fill(counts, counts + 512, 0);
  for (const auto& table : tables) {
    for (int i = 0; i < 512; i++) counts[i] += table[i];
  }
}

// How many of the labels 0..count-1 have fewer pixels than `low` or more than `high`; kNoMemory or kOutside.
EXPORT std::int64_t cast_film_beyond(const std::int32_t* labels, std::int64_t size, int count, double low,
                                     double high) {
  return guarded([&] {
    std::vector<std::int32_t> areas;
    count_labels(labels, static_cast<std::size_t>(size), count, areas);
    return std::count_if(areas.begin(), areas.end(), [&](std::int32_t area) { return area < low || area > high; });
  });
}
