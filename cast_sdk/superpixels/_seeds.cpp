// SEEDS superpixels (Van den Bergh et al., IJCV 2015) with one level of blocks, two by two blocks per superpixel.
//
// Labels are those of OpenCV's SuperpixelSEEDS with num_levels=1, prior=2 and single steps: the order of the visits
// and of the float32 operations is part of the result. Compile with -ffp-contract=off.
//
// What makes it fast: histograms hold the colours of the image only, blocks keep theirs as short lists, only pixels
// beside another superpixel are visited, several lines take turns (_seeds_sweep.h), and a pair is judged without a
// branch (_seeds_pairs.h). For the sweeps down the image the labels are turned, so that every sweep runs along lines.
//
// A film starts each frame from the labels of the frame before (`run_from`): no blocks, fewer passes. OpenCV has no such
// start; the passes are the same.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

#include "_seeds_sweep.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace seeds {

struct Bin {
  std::int32_t offset;  // of the colour's row in the superpixel histograms
  Count count;
};

class Seeds {
 public:
  Seeds(int height, int width, int block_rows, int block_columns, int bins, int iterations)
      : height_(height), width_(width), block_rows_(block_rows), block_columns_(block_columns), rows_(block_rows / 2),
        columns_(block_columns / 2), iterations_(iterations), first_row_(block_rows + 1),
        first_column_(block_columns + 1), colour_of_(static_cast<std::size_t>(bins) * bins * bins),
        image_(height, width), turned_(width, height),
        block_label_(static_cast<std::size_t>(block_rows) * block_columns), block_bins_start_(block_label_.size() + 1),
        block_size_(block_label_.size()), parts_(count()), size_(count()), boxes_(count()) {
    for (int i = 0; i <= block_rows; i++) first_row_[i] = first_pixel(i, block_rows, height);
    for (int i = 0; i <= block_columns; i++) first_column_[i] = first_pixel(i, block_columns, width);
    for (int v = 0; v < 256; v++) {
      const int level = v * bins / 256;
      key_part_[0][v] = static_cast<std::uint16_t>(level * bins * bins);
      key_part_[1][v] = static_cast<std::uint16_t>(level * bins);
      key_part_[2][v] = static_cast<std::uint16_t>(level);
    }
  }

  void run(const std::uint8_t* lab, std::int32_t* out) {
    count_colours(lab);
    fill_histograms();
    move_blocks<true>();
    move_blocks<false>();
    spread_block_labels();
    move_boundaries(iterations_);
    give(out);
  }

  // Labels that were there before, moved to fit the image. False when one of them is none of this grid's.
  bool run_from(const std::uint8_t* lab, const std::int32_t* before, int passes, std::int32_t* out) {
    if (!take_labels(before)) return false;
    count_colours(lab);
    fill_histograms_from_labels();
    move_boundaries(passes);
    give(out);
    return true;
  }

 private:
  // The rectangle of a superpixel: from `left` and `top` on, before `right` and `bottom`.
  struct Box {
    int left = INT32_MAX, right = 0, top = INT32_MAX, bottom = 0;

    void add(int from_x, int to_x, int from_y, int to_y) {
      left = std::min(left, from_x);
      right = std::max(right, to_x);
      top = std::min(top, from_y);
      bottom = std::max(bottom, to_y);
    }
  };

  void move_boundaries(int passes) {
    if (passes == 0) return;
    int widest = 0, highest = 0;
    for (const Box& box : boxes_) {
      widest = std::max(widest, box.right - box.left);
      highest = std::max(highest, box.bottom - box.top);
    }
    Sweep across(image_, histogram_.data(), size_.data(), count());
    Sweep down(turned_, histogram_.data(), size_.data(), count());
    turned_.turn(&Plane::colours, image_);
    for (int pass = 0; pass < passes; pass++) {
      const int grown = 2 * std::min(pass, std::max(height_, width_));
      sweep<false>(across, pass, std::min(widest + grown, width_));
      turned_.turn(&Plane::labels, image_);
      // Right of the image the next row begins, for OpenCV's reading two columns on.
      std::copy_n(&turned_.labels[1], height_ - 1, &turned_.labels[turned_.stride * width_]);
      sweep<true>(down, pass, std::min(highest + grown, height_));
      image_.turn(&Plane::labels, turned_);
      copy_border();
    }
  }

  template <bool down>
  static void sweep(Sweep& lines, int pass, int longest) {
    if (pass % 2 == 0) {
      lines.run<down, true>(longest);
    } else {
      lines.run<down, false>(longest);
    }
  }

  bool take_labels(const std::int32_t* before) {
    const auto labels = static_cast<std::uint32_t>(count());
    for (int y = 0; y < height_; y++) {
      Label* row = &image_.labels[y * image_.stride];
      for (int x = 0; x < width_; x++) {
        const auto label = static_cast<std::uint32_t>(*before++);
        if (label >= labels) return false;
        row[x] = static_cast<Label>(label);
      }
    }
    return true;
  }

  // Histograms and rectangles, run by run of pixels with one label.
  void fill_histograms_from_labels() {
    std::fill(size_.begin(), size_.end(), 0);
    std::fill(boxes_.begin(), boxes_.end(), Box());
    for (int y = 0; y < height_; y++) {
      const Label* row = &image_.labels[y * image_.stride];
      for (int x = 0; x < width_;) {
        const Label label = row[x];
        const int start = x;
        for (; x < width_ && row[x] == label; x++) bins_of(y * image_.stride + x)[label]++;
        size_[label] += x - start;
        boxes_[label].add(start, x, y, y + 1);
      }
    }
  }

  void give(std::int32_t* out) const {
    for (int y = 0; y < height_; y++, out += width_) std::copy_n(&image_.labels[y * image_.stride], width_, out);
  }

  static int first_pixel(int block, int blocks, int pixels) {
    return static_cast<int>((static_cast<std::int64_t>(block) * pixels + blocks - 1) / blocks);
  }

  int count() const { return rows_ * columns_; }

  // Number the colours of the image in order of appearance; each pixel gets its colour's.
  void count_colours(const std::uint8_t* lab) {
    std::fill(colour_of_.begin(), colour_of_.end(), 0);
    int colours = 0;
    for (int y = 0; y < height_; y++) {
      std::uint16_t* row = &image_.colours[y * image_.stride];
      for (int x = 0; x < width_; x++, lab += 3) {
        std::int32_t& number = colour_of_[key_part_[0][lab[0]] + key_part_[1][lab[1]] + key_part_[2][lab[2]]];
        if (number == 0) number = ++colours;
        row[x] = static_cast<std::uint16_t>(number - 1);
      }
    }
    histogram_.assign(static_cast<std::size_t>(colours) * count(), 0);
    in_block_.assign(colours, 0);
  }

  // Histograms of the blocks, as lists, and of the superpixels.
  void fill_histograms() {
    const int labels = count();
    std::fill(parts_.begin(), parts_.end(), 4);  // nominal: OpenCV does not count the extra blocks of odd grids
    std::fill(size_.begin(), size_.end(), 0);
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
          const std::uint16_t* colour = &image_.colours[y * image_.stride];
          for (int x = x0; x < x1; x++) {
            if (in_block_[colour[x]]++ == 0) seen_.push_back(colour[x]);
          }
        }
        for (const int colour : seen_) {
          const Count number = in_block_[colour];
          in_block_[colour] = 0;
          block_bins_.push_back({colour * labels, number});
          histogram_[static_cast<std::size_t>(colour) * labels + label] += number;
        }
        block_size_[block] = (y1 - y0) * (x1 - x0);
        size_[label] += block_size_[block];
      }
    }
    block_bins_start_.back() = block_bins_.size();
  }

  // Intersection of the normalised histograms of a block and of a superpixel, which may be without the block.
  float intersection(int block, Label label, bool without) const {
    const Count taken = without ? 1 : 0;
    const auto block_size = static_cast<float>(block_size_[block]);
    const auto size = static_cast<float>(size_[label] - taken * block_size_[block]);
    float sum = 0.0f;
    for (std::size_t i = block_bins_start_[block]; i < block_bins_start_[block + 1]; i++) {
      const Bin bin = block_bins_[i];
      sum += std::min(static_cast<float>(histogram_[bin.offset + label] - taken * bin.count) * block_size,
                      static_cast<float>(bin.count) * size);
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

  // Labels of the pixels, and rectangles.
  void spread_block_labels() {
    std::fill(boxes_.begin(), boxes_.end(), Box());
    for (int row = 0; row < block_rows_; row++) {
      const Label* block = &block_label_[static_cast<std::size_t>(row) * block_columns_];
      const int y0 = first_row_[row], y1 = first_row_[row + 1];
      Label* labels = &image_.labels[y0 * image_.stride];
      for (int column = 0; column < block_columns_; column++) {
        const int x0 = first_column_[column], x1 = first_column_[column + 1];
        std::fill(labels + x0, labels + x1, block[column]);
        boxes_[block[column]].add(x0, x1, y0, y1);
      }
      for (int y = y0 + 1; y < y1; y++) std::copy_n(labels, width_, &image_.labels[y * image_.stride]);
    }
  }

  // Where the superpixels count the colour of a pixel.
  Count* bins_of(std::size_t pixel) { return &histogram_[image_.colours[pixel] * static_cast<std::size_t>(count())]; }

  void relabel(std::size_t pixel, Label from, Label to) {
    Count* bin = bins_of(pixel);
    bin[from]--;
    bin[to]++;
    size_[from]--;
    size_[to]++;
    image_.labels[pixel] = to;
  }

  // The outermost pixels take the label of their inner neighbour: first the rows, then the columns.
  void copy_border() {
    const std::size_t stride = image_.stride, last_row = (height_ - 1) * stride, last_column = width_ - 1;
    for (int x = 0; x < width_; x++) {
      copy_label(x, stride + x);
      copy_label(last_row + x, last_row - stride + x);
    }
    for (std::size_t row = 0; row <= last_row; row += stride) {
      copy_label(row, row + 1);
      copy_label(row + last_column, row + last_column - 1);
    }
  }

  void copy_label(std::size_t to, std::size_t from) {
    if (image_.labels[to] != image_.labels[from]) relabel(to, image_.labels[to], image_.labels[from]);
  }

  const int height_, width_, block_rows_, block_columns_, rows_, columns_, iterations_;
  std::vector<int> first_row_, first_column_;  // of each block, and one past the last
  std::uint16_t key_part_[3][256];             // what each channel adds to the index of a colour
  std::vector<std::int32_t> colour_of_;        // number of each colour, counted from 1
  Plane image_, turned_;
  std::vector<Count> histogram_;  // [colours, labels]
  std::vector<Label> block_label_;
  std::vector<std::size_t> block_bins_start_;
  std::vector<Bin> block_bins_;
  std::vector<Count> block_size_;
  std::vector<int> in_block_, seen_;
  std::vector<int> parts_;   // blocks per superpixel
  std::vector<Count> size_;  // pixels per superpixel
  std::vector<Box> boxes_;
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

}  // namespace seeds

using seeds::Seeds;
using seeds::kMaxLabels;
using seeds::within_memory;

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
