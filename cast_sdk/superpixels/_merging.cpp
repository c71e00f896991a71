// Nested segments by merging neighbouring superpixels, nearest pair first: what `merging.py` says, in one call.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

constexpr int kNoMemory = -1, kOutside = -2;
constexpr double kLabScale = 60, kNetworkWeight = 2;
constexpr double kFar = std::numeric_limits<double>::infinity();

// Memory of one call, all of it zero; the page for browsers is built without exceptions, so no std::vector.
class Room {
 public:
  explicit Room(std::size_t numbers) : start_(static_cast<double*>(std::calloc(numbers, sizeof(double)))), next_(start_) {}
  ~Room() { std::free(start_); }
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;
  bool empty() const { return start_ == nullptr; }
  double* take(std::size_t numbers) {
    double* part = next_;
    next_ += numbers;
    return part;
  }

 private:
  double *start_, *next_;
};

double linear(double value) {
  const double share = value / 255;
  return share > 0.04045 ? std::pow((share + 0.055) / 1.055, 2.4) : share / 12.92;
}

double lightness(double t) { return t > 0.008856 ? std::cbrt(t) : 7.787 * t + 16.0 / 116; }

// CIELAB (D65) of an sRGB colour in 0..255, in its place.
void to_lab(double* colour) {
  const double r = linear(colour[0]), g = linear(colour[1]), b = linear(colour[2]);
  const double x = lightness((0.412453 * r + 0.357580 * g + 0.180423 * b) / 0.95047);
  const double y = lightness(0.212671 * r + 0.715160 * g + 0.072169 * b);
  const double z = lightness((0.019334 * r + 0.119193 * g + 0.950227 * b) / 1.08883);
  colour[0] = 116 * y - 16;
  colour[1] = 500 * (x - y);
  colour[2] = 200 * (y - z);
}

struct Regions {
  int count, width;           // of superpixels S, and of a row of `shares`
  double *areas, *colours;    // [S], [S, 3]: means over the pixels of a region
  double* shares;             // [S, width]: likewise, of unit vectors of assignments, one for each level that counts
  double unit;                // what a product of such rows of one and the same region is, at most
  double *distances, *nearest;  // [S, S], infinite where regions are no neighbours; the smallest of each row
  int *partner, *member;        // [S]: where that is; the region of each superpixel, the lowest of its superpixels

  double* row(int index) const { return distances + static_cast<std::size_t>(index) * count; }
  double* share(int index) const { return shares + static_cast<std::size_t>(index) * width; }

  double distance(int i, int j) const {
    const double *a = colours + 3 * i, *b = colours + 3 * j;
    const double l = a[0] - b[0], u = a[1] - b[1], v = a[2] - b[2];
    double together = 0;  // a mean of products over the pixels of both is the product of the means
    for (int k = 0; k < width; k++) together += share(i)[k] * share(j)[k];
    return std::sqrt(l * l + u * u + v * v) / kLabScale + kNetworkWeight * (1 - together / unit);
  }

  void look(int i) {
    const double* values = row(i);
    nearest[i] = kFar;
    partner[i] = 0;
    for (int j = 0; j < count; j++) {
      if (values[j] < nearest[i]) nearest[i] = values[j], partner[i] = j;
    }
  }

  void set(int i, int j, double value) {
    row(i)[j] = value;
    if (partner[i] == j || value < nearest[i] || (value == nearest[i] && j < partner[i])) look(i);
  }

  // Region j becomes a part of region i, which comes before it.
  void merge(int i, int j) {
    const double weight = areas[j] / (areas[i] + areas[j]);
    for (int c = 0; c < 3; c++) colours[3 * i + c] += weight * (colours[3 * j + c] - colours[3 * i + c]);
    for (int k = 0; k < width; k++) share(i)[k] += weight * (share(j)[k] - share(i)[k]);
    areas[i] += areas[j];
    for (int k = 0; k < count; k++) {
      if (member[k] == j) member[k] = i;
      const bool touches = row(i)[k] < kFar || row(j)[k] < kFar;
      if (!touches || k == i || k == j) continue;
      row(i)[k] = distance(i, k);
      set(k, j, kFar);
      set(k, i, row(i)[k]);
    }
    for (int k = 0; k < count; k++) row(j)[k] = kFar;
    row(i)[j] = kFar;
    look(i);
    look(j);
  }
};

// Rows of `regions.shares`: of each level that counts, the unit vector of a superpixel's assignments to its segments.
// `members` and `next` have room for [S, widest].
void read_network(const Regions& regions, const float* const* assignments, const int* segments, int levels,
                  double* members, double* next) {
  const int count = regions.count;
  int at = 0;
  for (int level = 0; level < levels; level++) {
    const float* matrix = assignments[level];
    const int width = segments[level], below = level > 0 ? segments[level - 1] : 0;
    for (int i = 0; i < count; i++) {
      double* sums = next + static_cast<std::size_t>(i) * width;
      for (int k = 0; k < width; k++) sums[k] = level > 0 ? 0 : matrix[static_cast<std::size_t>(i) * width + k];
      for (int b = 0; b < below; b++) {
        const double share = members[static_cast<std::size_t>(i) * below + b];
        for (int k = 0; k < width; k++) sums[k] += share * matrix[static_cast<std::size_t>(b) * width + k];
      }
    }
    double* const swapped = members;
    members = next;
    next = swapped;
    if (level == 0 && levels > 1) continue;
    for (int i = 0; i < count; i++) {
      const double* from = members + static_cast<std::size_t>(i) * width;
      double square = 0;
      for (int k = 0; k < width; k++) square += from[k] * from[k];
      const double length = std::sqrt(square);
      for (int k = 0; k < width; k++) regions.share(i)[at + k] = from[k] / length;
    }
    at += width;
  }
}

}  // namespace

// Segment of each of `count` superpixels per level, int32 [levels, count]; 0, kNoMemory or kOutside.
//   image uint8 [height, width, 3] RGB, labels int32 [height, width],
//   assignments: `levels` pointers to float32 [count, segments[0]], [segments[0], segments[1]], ...
EXPORT int cast_merged_levels(const std::uint8_t* image, const std::int32_t* labels, int height, int width, int count,
                              const float* const* assignments, const int* segments, int levels, std::int32_t* out) {
  const std::size_t size = static_cast<std::size_t>(height) * width, all = static_cast<std::size_t>(count);
  std::size_t widest = 1, wide = 0;
  for (int level = 0; level < levels; level++) {
    const std::size_t width = static_cast<std::size_t>(segments[level]);
    if (width > widest) widest = width;
    if (level > 0 || levels == 1) wide += width;
  }
  for (std::size_t i = 0; i < size; i++) {
    if (static_cast<std::uint32_t>(labels[i]) >= static_cast<std::uint32_t>(count)) return kOutside;
  }
  Room room(all * all + 2 * all * widest + all * wide + 7 * all);
  if (room.empty()) return kNoMemory;
  Regions regions{};
  regions.count = count;
  regions.width = static_cast<int>(wide);
  regions.unit = levels > 1 ? levels - 1 : 1;
  regions.shares = room.take(all * wide);
  regions.distances = room.take(all * all);
  double *const members = room.take(all * widest), *const next = room.take(all * widest);
  regions.areas = room.take(all);
  regions.colours = room.take(3 * all);
  regions.nearest = room.take(all);
  regions.partner = reinterpret_cast<int*>(room.take(all));
  regions.member = reinterpret_cast<int*>(room.take(all));

  for (std::size_t i = 0; i < size; i++) {
    const std::size_t label = static_cast<std::size_t>(labels[i]);
    regions.areas[label]++;
    for (std::size_t c = 0; c < 3; c++) regions.colours[3 * label + c] += image[3 * i + c];
  }
  int left = 0;
  for (int i = 0; i < count; i++) {
    regions.member[i] = i;
    if (regions.areas[i] == 0) continue;
    left++;
    for (int c = 0; c < 3; c++) regions.colours[3 * i + c] /= regions.areas[i];
    to_lab(regions.colours + 3 * i);
  }
  read_network(regions, assignments, segments, levels, members, next);

  for (std::size_t k = 0; k < all * all; k++) regions.distances[k] = kFar;
  const auto meet = [&](int i, int j) {
    if (i != j && regions.row(i)[j] == kFar) regions.row(i)[j] = regions.row(j)[i] = regions.distance(i, j);
  };
  for (int y = 0; y < height; y++) {
    const std::int32_t* line = labels + static_cast<std::size_t>(y) * width;
    for (int x = 0; x < width; x++) {
      if (x + 1 < width) meet(line[x], line[x + 1]);
      if (y + 1 < height) meet(line[x], line[x + width]);
    }
  }
  for (int i = 0; i < count; i++) regions.look(i);

  for (int level = 0; level < levels; level++) {
    while (left > segments[level]) {
      int best = 0;
      for (int i = 1; i < count; i++) {
        if (regions.nearest[i] < regions.nearest[best]) best = i;
      }
      if (!(regions.nearest[best] < kFar)) break;
      regions.merge(best, regions.partner[best]);
      left--;
    }
    std::int32_t *const result = out + level * all, number = 0;
    for (int i = 0; i < count; i++) {  // the lowest superpixel of a region comes first
      if (regions.areas[i] == 0) {
        result[i] = 0;
      } else {
        result[i] = regions.member[i] == i ? number++ : result[regions.member[i]];
      }
    }
  }
  return 0;
}
