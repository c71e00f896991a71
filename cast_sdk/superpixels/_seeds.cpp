// SEEDS superpixels (Van den Bergh et al., IJCV 2015) with one level of blocks, two by two blocks per superpixel.
//
// Labels are those of OpenCV's SuperpixelSEEDS with num_levels=1, prior=2 and single steps: the order of the visits
// and of the float32 operations is part of the result. Compile with -ffp-contract=off.
//
// What makes it fast: histograms hold the colours of the image only, blocks keep theirs as short lists, and bitmaps
// of label changes lead from one boundary pair to the next, so that the inside of superpixels is never visited. The
// neighbourhood of a pair becomes one index into a table; both moves of a pair are judged without a branch. With vector
// instructions every x86-64 has, or four labels to a word elsewhere.
//
// A film starts each frame from the labels of the frame before (`run_from`): no blocks, fewer passes. OpenCV has no such
// start; the passes are the same.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

#if defined(__SSE2__) && !defined(CAST_SEEDS_PORTABLE)
#include <emmintrin.h>
#define CAST_SEEDS_SSE2 1
#endif

#if defined(_MSC_VER) || !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "needs GCC or Clang on a little-endian machine"
#endif

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

constexpr int kMaxLabels = 0x7fff;  // 15 bits: comparing four labels in one word needs the sixteenth
constexpr std::uint8_t kFree = 0x80;

using Label = std::uint16_t;

std::uint64_t load64(const void* at) {
  std::uint64_t word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

// The window of a pair: four rows of four labels, from one row and one column before its first pixel. A pattern has one
// bit per place, set where the label is the wanted one. Horizontal pairs do not use the fourth row.
#ifdef CAST_SEEDS_SSE2

constexpr int bit_of(int row, int column) { return 4 * row + column; }

template <bool horizontal>
struct Window {
  Window(const Label* at, std::ptrdiff_t width) {
    const __m128i pair = row(at + width), below = row(at + 2 * width);
    upper = _mm_unpacklo_epi64(row(at), pair);
    lower = horizontal ? below : _mm_unpacklo_epi64(below, row(at + 3 * width));
  }

  std::uint32_t pattern(Label label) const {
    const __m128i wanted = _mm_set1_epi16(static_cast<short>(label));
    const __m128i equal = _mm_packs_epi16(_mm_cmpeq_epi16(upper, wanted), _mm_cmpeq_epi16(lower, wanted));
    return static_cast<std::uint32_t>(_mm_movemask_epi8(equal)) & (horizontal ? 0xfff : 0xffff);
  }

  static __m128i row(const Label* at) { return _mm_cvtsi64_si128(static_cast<long long>(load64(at))); }

  __m128i upper, lower;
};

#else

constexpr int bit_of(int row, int column) { return 4 * column + row; }

template <bool horizontal>
struct Window {
  Window(const Label* at, std::ptrdiff_t width)
      : rows{load64(at), load64(at + width), load64(at + 2 * width), horizontal ? 0 : load64(at + 3 * width)} {}

  std::uint32_t pattern(Label label) const {
    const std::uint64_t wanted = label * 0x0001000100010001u;
    std::uint64_t equal = equality(rows[0], wanted) >> 15 | equality(rows[1], wanted) >> 14 |
                          equality(rows[2], wanted) >> 13;
    if (!horizontal) equal |= equality(rows[3], wanted) >> 12;
    return static_cast<std::uint32_t>(equal * 0x0001001001001000u >> 48);  // four bits of each lane, side by side
  }

  // Highest bit of each 16-bit lane: set where the labels, of 15 bits, are equal.
  static std::uint64_t equality(std::uint64_t a, std::uint64_t b) {
    return ~((a ^ b) + 0x7fff7fff7fff7fffu) & 0x8000800080008000u;
  }

  std::uint64_t rows[4];
};

#endif

// True when taking `self` away would cut its region in two, judged by the five neighbours on the far side of the
// boundary: corner, neighbour, far side, neighbour, corner.
template <typename T>
bool cuts(T self, T corner1, T near1, T far, T near2, T corner2) {
  return (self != far && self == near1 && self == near2) || (self != corner1 && self == near1 && self == far) ||
         (self != corner2 && self == near2 && self == far);
}

// For each pattern of a label around a pair: how many neighbours with that label count for the prior, and kFree when
// the pixel with that label may leave its region.
struct Tables {
  std::uint8_t first_horizontal[1 << 16], second_horizontal[1 << 16];
  std::uint8_t first_vertical[1 << 16], second_vertical[1 << 16];
  float ratio[16 * 16];  // squared ratio of two counts

  Tables() {
    for (std::uint32_t pattern = 0; pattern < sizeof first_vertical; pattern++) {
      const auto across = [pattern](int line, int lane) { return pattern >> bit_of(line, lane) & 1; };
      const auto down = [pattern](int line, int lane) { return pattern >> bit_of(lane, line) & 1; };
      first_horizontal[pattern] = about_first(across, 2);
      second_horizontal[pattern] = about_second(across, 2);
      // Beside a vertical pair not the next column but the one after it counts: so does OpenCV, and at the right edge
      // that is the start of the next row.
      first_vertical[pattern] = about_first(down, 3);
      second_vertical[pattern] = about_second(down, 3);
    }
    for (int own = 0; own < 16; own++) {
      for (int other = 0; other < 16; other++) {
        const float quotient = other ? static_cast<float>(own) / static_cast<float>(other) : 1.0f;
        ratio[own << 4 | other] = quotient * quotient;
      }
    }
  }

  // The pair lies on line 1, in lanes 1 and 2; `beside` is the line that counts beside it.
  template <typename At>
  static int count(const At& at, int beside) {
    return at(1, 0) + at(1, 3) + at(0, 0) + at(0, 1) + at(0, 2) + at(0, 3) + at(2, 0) + at(2, 3) + at(beside, 1) +
           at(beside, 2);
  }

  template <typename At>
  static std::uint8_t about_first(const At& at, int beside) {
    return entry(count(at, beside), cuts(1u, at(0, 0), at(0, 1), at(1, 0), at(2, 1), at(2, 0)));
  }

  template <typename At>
  static std::uint8_t about_second(const At& at, int beside) {
    return entry(count(at, beside), cuts(1u, at(0, 3), at(0, 2), at(1, 3), at(2, 2), at(2, 3)));
  }

  static std::uint8_t entry(int count, bool cut) { return static_cast<std::uint8_t>(count | (cut ? 0 : kFree)); }
};

const Tables& tables() {
  static const Tables instance;
  return instance;
}

struct Bin {
  std::int32_t offset;  // of the colour's row in the superpixel histograms
  float count;
};

class Seeds {
 public:
  Seeds(int height, int width, int block_rows, int block_columns, int bins, int iterations)
      : tables_(tables()), height_(height), width_(width), block_rows_(block_rows), block_columns_(block_columns),
        rows_(block_rows / 2), columns_(block_columns / 2), labels_count_(count()), bins_(bins), iterations_(iterations),
        row_stride_(words(width)), column_stride_(words(height)), first_row_(block_rows + 1),
        first_column_(block_columns + 1), colour_of_(static_cast<std::size_t>(bins) * bins * bins),
        labels_(static_cast<std::size_t>(height) * width + 8), colour_(static_cast<std::size_t>(height) * width),
        block_label_(static_cast<std::size_t>(block_rows) * block_columns), block_bins_start_(block_label_.size() + 1),
        block_size_(block_label_.size()), parts_(count()), size_(count()),
        row_changes_(static_cast<std::size_t>(height) * row_stride_ * 8 + 8),
        column_changes_(static_cast<std::size_t>(width) * column_stride_ * 8 + 8) {
    for (int i = 0; i <= block_rows; i++) first_row_[i] = first_pixel(i, block_rows, height);
    for (int i = 0; i <= block_columns; i++) first_column_[i] = first_pixel(i, block_columns, width);
    for (int v = 0; v < 256; v++) quantised_[v] = static_cast<std::uint16_t>(v * bins / 256);
  }

  void run(const std::uint8_t* lab, std::int32_t* out) {
    count_colours(lab);
    fill_histograms();
    move_blocks<true>();
    move_blocks<false>();
    spread_block_labels();
    move_boundaries(iterations_);
    std::copy_n(labels_.data(), static_cast<std::size_t>(height_) * width_, out);
  }

  // Labels that were there before, moved to fit the image. False when one of them is none of this grid's.
  bool run_from(const std::uint8_t* lab, const std::int32_t* before, int passes, std::int32_t* out) {
    if (!take_labels(before)) return false;
    count_colours(lab);
    fill_histograms_from_labels();
    find_changes();
    move_boundaries(passes);
    std::copy_n(labels_.data(), static_cast<std::size_t>(height_) * width_, out);
    return true;
  }

 private:
  void move_boundaries(int passes) {
    for (int pass = 0; pass < passes; pass++) {
      if (pass % 2 == 0) {
        move_pixels<true>();
      } else {
        move_pixels<false>();
      }
      copy_border();
    }
  }

  bool take_labels(const std::int32_t* before) {
    const auto labels = static_cast<std::uint32_t>(count());
    for (std::size_t i = 0; i < colour_.size(); i++) {
      const auto label = static_cast<std::uint32_t>(before[i]);
      if (label >= labels) return false;
      labels_[i] = static_cast<Label>(label);
    }
    return true;
  }

  void fill_histograms_from_labels() {
    std::fill(size_.begin(), size_.end(), 0.0f);
    for (std::size_t i = 0; i < colour_.size(); i++) {
      bins_of(i)[labels_[i]] += 1.0f;
      size_[labels_[i]] += 1.0f;
    }
  }

  // The bitmaps of label changes to the right and downwards, from the labels of the pixels.
  void find_changes() {
    std::fill(row_changes_.begin(), row_changes_.end(), 0);
    std::fill(column_changes_.begin(), column_changes_.end(), 0);
    for (int y = 0; y < height_; y++) {
      const Label* row = &labels_[static_cast<std::size_t>(y) * width_];
      std::uint8_t* changes = row_changes(y);
      for (int x = 0; x + 1 < width_; x++) {
        changes[x >> 3] |= static_cast<std::uint8_t>((row[x] != row[x + 1]) << (x & 7));
      }
      if (y + 1 == height_) continue;
      for (int x = 0; x < width_; x++) {
        if (row[x] != row[x + width_]) column_changes(x)[y >> 3] |= static_cast<std::uint8_t>(1u << (y & 7));
      }
    }
  }

  static std::size_t words(int bits) { return (static_cast<std::size_t>(bits) + 63) / 64; }

  static int first_pixel(int block, int blocks, int pixels) {
    return static_cast<int>((static_cast<std::int64_t>(block) * pixels + blocks - 1) / blocks);
  }

  int count() const { return rows_ * columns_; }

  // Number the colours of the image in order of appearance; colour_ gets each pixel's.
  void count_colours(const std::uint8_t* lab) {
    std::fill(colour_of_.begin(), colour_of_.end(), 0);
    int colours = 0;
    for (std::size_t i = 0; i < colour_.size(); i++, lab += 3) {
      const int key = (quantised_[lab[0]] * bins_ + quantised_[lab[1]]) * bins_ + quantised_[lab[2]];
      int number = colour_of_[key];
      if (number == 0) number = colour_of_[key] = ++colours;
      colour_[i] = static_cast<std::uint16_t>(number - 1);
    }
    histogram_.assign(static_cast<std::size_t>(colours) * count(), 0.0f);
    in_block_.assign(colours, 0);
  }

  // Histograms of the blocks, as lists, and of the superpixels.
  void fill_histograms() {
    const int labels = count();
    std::fill(parts_.begin(), parts_.end(), 4);  // nominal: OpenCV does not count the extra blocks of odd grids
    std::fill(size_.begin(), size_.end(), 0.0f);
    block_bins_.clear();
    for (int row = 0, block = 0; row < block_rows_; row++) {
      for (int column = 0; column < block_columns_; column++, block++) {
        const int y0 = first_row_[row], y1 = first_row_[row + 1];
        const int x0 = first_column_[column], x1 = first_column_[column + 1];
        // A block belongs to the superpixel of its last pixel in an even division of the image.
        const auto label = static_cast<Label>(static_cast<std::int64_t>(y1 - 1) * rows_ / height_ * columns_ +
                                              static_cast<std::int64_t>(x1 - 1) * columns_ / width_);
        block_label_[block] = label;
        block_bins_start_[block] = block_bins_.size();
        seen_.clear();
        for (int y = y0; y < y1; y++) {
          const std::uint16_t* colour = &colour_[static_cast<std::size_t>(y) * width_];
          for (int x = x0; x < x1; x++) {
            if (in_block_[colour[x]]++ == 0) seen_.push_back(colour[x]);
          }
        }
        for (const int colour : seen_) {
          const auto number = static_cast<float>(in_block_[colour]);
          in_block_[colour] = 0;
          block_bins_.push_back({colour * labels, number});
          histogram_[static_cast<std::size_t>(colour) * labels + label] += number;
        }
        block_size_[block] = static_cast<float>((y1 - y0) * (x1 - x0));
        size_[label] += block_size_[block];
      }
    }
    block_bins_start_.back() = block_bins_.size();
  }

  // Intersection of the normalised histograms of a block and of a superpixel, which may be without the block.
  float intersection(int block, Label label, bool without) const {
    const float taken = without ? 1.0f : 0.0f, block_size = block_size_[block];
    const float size = size_[label] - taken * block_size;
    float sum = 0.0f;
    for (std::size_t i = block_bins_start_[block]; i < block_bins_start_[block + 1]; i++) {
      const Bin bin = block_bins_[i];
      sum += std::min((histogram_[bin.offset + label] - taken * bin.count) * block_size, bin.count * size);
    }
    return sum / (size * block_size);
  }

  bool move_block(int block, Label from, Label to) {
    if (!(intersection(block, to, false) - intersection(block, from, true) > 0.0f)) return false;
    for (std::size_t i = block_bins_start_[block]; i < block_bins_start_[block + 1]; i++) {
      histogram_[block_bins_[i].offset + from] -= block_bins_[i].count;
      histogram_[block_bins_[i].offset + to] += block_bins_[i].count;
    }
    size_[from] -= block_size_[block];
    size_[to] += block_size_[block];
    parts_[from]--;
    parts_[to]++;
    block_label_[block] = to;
    return true;
  }

  template <bool horizontal>
  void move_blocks() {
    // `step` leads from the first block of a pair to the second, `side` across.
    const int step = horizontal ? 1 : block_columns_, side = horizontal ? block_columns_ : 1;
    const int lines = horizontal ? block_rows_ : block_columns_, length = horizontal ? block_columns_ : block_rows_;
    for (int line = 1; line < lines - 1; line++) {
      for (int i = 1; i < length - 2; i++) {
        const int first = line * side + i * step, second = first + step;
        const Label* label = &block_label_[first];
        const Label a = label[0], b = label[step];
        if (a == b) continue;
        const auto may_leave = [&](Label self, const Label* at, int away) {
          return parts_[self] == 2 || (parts_[self] > 2 && !cuts(self, at[away - side], at[-side], at[away], at[side],
                                                                 at[away + side]));
        };
        if (may_leave(a, label, -step) && move_block(first, a, b)) continue;
        if (may_leave(b, label + step, step) && move_block(second, b, a)) i++;
      }
    }
  }

  // Labels of the pixels, and the bitmaps of label changes to the right and downwards.
  void spread_block_labels() {
    std::fill(row_changes_.begin(), row_changes_.end(), 0);
    std::fill(column_changes_.begin(), column_changes_.end(), 0);
    for (int row = 0; row < block_rows_; row++) {
      const Label* block = &block_label_[static_cast<std::size_t>(row) * block_columns_];
      const int y0 = first_row_[row], y1 = first_row_[row + 1];
      Label* labels = &labels_[static_cast<std::size_t>(y0) * width_];
      std::uint8_t* changes = row_changes(y0);
      for (int column = 0; column < block_columns_; column++) {
        std::fill(labels + first_column_[column], labels + first_column_[column + 1], block[column]);
        if (column + 1 < block_columns_ && block[column] != block[column + 1]) {
          const int x = first_column_[column + 1] - 1;
          changes[x >> 3] |= static_cast<std::uint8_t>(1u << (x & 7));
        }
        if (row + 1 < block_rows_ && block[column] != block[column + block_columns_]) {
          for (int x = first_column_[column]; x < first_column_[column + 1]; x++) {
            column_changes(x)[(y1 - 1) >> 3] |= static_cast<std::uint8_t>(1u << ((y1 - 1) & 7));
          }
        }
      }
      for (int y = y0 + 1; y < y1; y++) {
        std::copy_n(labels, width_, &labels_[static_cast<std::size_t>(y) * width_]);
        std::copy_n(changes, row_stride_ * 8, row_changes(y));
      }
    }
  }

  std::uint8_t* row_changes(int y) { return &row_changes_[static_cast<std::size_t>(y) * row_stride_ * 8]; }
  std::uint8_t* column_changes(int x) { return &column_changes_[static_cast<std::size_t>(x) * column_stride_ * 8]; }

  // Rows from left to right, then columns from top to bottom, in both directions of the pass.
  template <bool forward>
  void move_pixels() {
    for (int y = 1; y < height_ - 1; y++) {
      const std::size_t start = static_cast<std::size_t>(y) * width_;
      walk(row_changes(y), width_ - 2, [&](int x) { return try_pair<true, forward>(start + x, y, x); });
    }
    for (int x = 1; x < width_ - 1; x++) {
      walk(column_changes(x), height_ - 2, [&](int y) {
        return try_pair<false, forward>(static_cast<std::size_t>(y) * width_ + x, y, x);
      });
    }
  }

  // Visit the set bits 1..end-1 in order; after a visit that returns true the next position is left out.
  template <typename Visit>
  static void walk(const std::uint8_t* bitmap, int end, const Visit& visit) {
    bool leave_out_next = false;
    for (int base = 0; base < end; base += 64) {
      std::uint64_t bits = load64(bitmap + base / 8);
      if (base == 0) bits &= ~std::uint64_t{1};
      if (end - base < 64) bits &= (std::uint64_t{1} << (end - base)) - 1;
      if (leave_out_next) bits &= ~std::uint64_t{1};
      leave_out_next = false;
      while (bits) {
        const int bit = __builtin_ctzll(bits);
        bits &= bits - 1;
        if (visit(base + bit)) {
          leave_out_next = bit == 63;
          if (bit < 63) bits &= ~(std::uint64_t{2} << bit);
        }
      }
    }
  }

  // Where the superpixels count the colour of a pixel.
  float* bins_of(std::size_t pixel) { return &histogram_[colour_[pixel] * labels_count_]; }

  // Judge the pair of pixels at `first` and one step to the right or down; true when the second one was moved.
  template <bool horizontal, bool forward>
  bool try_pair(std::size_t first, int y, int x) {
    const std::size_t second = first + (horizontal ? 1 : width_);
    const Label a = labels_[first], b = labels_[second];
    const Window<horizontal> window(&labels_[first] - width_ - 1, width_);
    const auto& about_first = horizontal ? tables_.first_horizontal : tables_.first_vertical;
    const auto& about_second = horizontal ? tables_.second_horizontal : tables_.second_vertical;
    const std::uint8_t about_a = about_first[window.pattern(a)], about_b = about_second[window.pattern(b)];
    const int near_a = about_a & 15, near_b = about_b & 15;
    const float size_a = size_[a], size_b = size_[b];
    const float *bin_a = bins_of(first), *bin_b = bins_of(second);
    const float prior_a = tables_.ratio[near_a << 4 | near_b], prior_b = tables_.ratio[near_b << 4 | near_a];
    const bool better_a = (bin_a[b] * size_a) * size_a > ((bin_a[a] * size_b) * size_b) * prior_a;
    const bool better_b = (bin_b[a] * size_b) * size_b > ((bin_b[b] * size_a) * size_a) * prior_b;
    const bool free_a = about_a & kFree, free_b = about_b & kFree;
    // The pixel that is judged first also gates the other one.
    const bool move_first = forward ? free_a & better_a : free_b & free_a & better_a & !better_b;
    const bool move_second = forward ? free_a & free_b & better_b & !better_a : free_b & better_b;
    if (!(move_first | move_second)) return false;
    const Label from = move_second ? b : a, to = move_second ? a : b;
    const std::size_t pixel = move_second ? second : first;
    y += !horizontal & move_second;
    x += horizontal & move_second;
    relabel(pixel, from, to);
    const Label* at = &labels_[pixel];
    mark(row_changes(y), x, at[-1] != to, at[1] != to);
    mark(column_changes(x), y, at[-width_] != to, at[width_] != to);
    return move_second;
  }

  void relabel(std::size_t pixel, Label from, Label to) {
    float* bin = bins_of(pixel);
    bin[from] -= 1.0f;
    bin[to] += 1.0f;
    size_[from] -= 1.0f;
    size_[to] += 1.0f;
    labels_[pixel] = to;
  }

  // Set the bits `at - 1` and `at`.
  static void mark(std::uint8_t* bitmap, int at, bool before, bool after) {
    std::uint8_t* byte = bitmap + ((at - 1) >> 3);
    const int shift = (at - 1) & 7;
    std::uint16_t bits;
    std::memcpy(&bits, byte, sizeof bits);
    bits = static_cast<std::uint16_t>((bits & ~(3 << shift)) | (before | after << 1) << shift);
    std::memcpy(byte, &bits, sizeof bits);
  }

  // The outermost pixels take the label of their inner neighbour: first the rows, then the columns.
  void copy_border() {
    const std::size_t last_row = static_cast<std::size_t>(height_ - 1) * width_;
    for (int x = 0; x < width_; x++) {
      copy_label(x, width_ + x);
      copy_label(last_row + x, last_row - width_ + x);
    }
    for (int y = 0; y < height_; y++) {
      const std::size_t row = static_cast<std::size_t>(y) * width_;
      copy_label(row, row + 1);
      copy_label(row + width_ - 1, row + width_ - 2);
    }
  }

  void copy_label(std::size_t to, std::size_t from) {
    if (labels_[to] != labels_[from]) relabel(to, labels_[to], labels_[from]);
  }

  const Tables& tables_;
  const int height_, width_, block_rows_, block_columns_, rows_, columns_;
  const std::size_t labels_count_;
  const int bins_, iterations_;
  const std::size_t row_stride_, column_stride_;  // 64-bit words per bitmap
  std::vector<int> first_row_, first_column_;     // of each block, and one past the last
  std::uint16_t quantised_[256];
  std::vector<std::int32_t> colour_of_;  // number of each colour, counted from 1
  std::vector<Label> labels_;
  std::vector<std::uint16_t> colour_;  // per pixel: number of its colour, at most 16 x 16 x 16
  std::vector<float> histogram_;      // [colours, labels]
  std::vector<Label> block_label_;
  std::vector<std::size_t> block_bins_start_;
  std::vector<Bin> block_bins_;
  std::vector<float> block_size_;
  std::vector<int> in_block_, seen_;
  std::vector<int> parts_;   // blocks per superpixel
  std::vector<float> size_;  // pixels per superpixel
  std::vector<std::uint8_t> row_changes_, column_changes_;
};

// Do `work`; false when memory ran out. Without exceptions, as in WebAssembly, the program is stopped instead.
template <typename Work>
bool within_memory(const Work& work) {
#ifdef __cpp_exceptions
  try {
    work();
  } catch (const std::bad_alloc&) {
    return false;
  }
#else
  work();
#endif
  return true;
}

}  // namespace

// The interface for ctypes and JavaScript. Sizes are checked by the caller except for what memory safety needs.

EXPORT Seeds* cast_seeds_create(int height, int width, int block_rows, int block_columns, int bins, int iterations) {
  const bool usable = height >= 4 && width >= 4 && block_rows >= 2 && block_columns >= 2 && block_rows <= height &&
                      block_columns <= width && bins >= 1 && bins <= 16 && iterations >= 0 &&
                      static_cast<std::int64_t>(block_rows / 2) * (block_columns / 2) <= kMaxLabels &&
                      static_cast<std::int64_t>(height) * width <= INT32_MAX / 64;
  if (!usable) return nullptr;
  Seeds* seeds = nullptr;
  within_memory([&] { seeds = new Seeds(height, width, block_rows, block_columns, bins, iterations); });
  return seeds;
}

// 0 on success, 1 when memory ran out.
EXPORT int cast_seeds_run(Seeds* seeds, const std::uint8_t* lab, std::int32_t* out) {
  return within_memory([&] { seeds->run(lab, out); }) ? 0 : 1;
}

// The same from labels [height, width] of the frame before; 2 when they are not labels of this grid. `before` may be `out`.
EXPORT int cast_seeds_run_from(Seeds* seeds, const std::uint8_t* lab, const std::int32_t* before, int passes,
                               std::int32_t* out) {
  bool usable = false;
  if (!within_memory([&] { usable = seeds->run_from(lab, before, passes, out); })) return 1;
  return usable ? 0 : 2;
}

EXPORT void cast_seeds_destroy(Seeds* seeds) { delete seeds; }
