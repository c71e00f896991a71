// A sweep over the pairs of neighbours with different labels: line by line as OpenCV goes, but several lines at a time.
//
// A judgement needs what the one before it changed, so that a processor mostly waits. Pairs that have no superpixel in
// common, though, may change places. Superpixels are a few dozen pixels long: a line may begin as soon as the line
// before it is further on than that, and stays so far behind all the way. The lines on their way take turns.
//
// How far: in a sweep a superpixel grows by one pixel at most at each end along the lines. Backward, because the first
// pixel of a pair changes when the pair before it has had its turn; forward, because the pair after a second pixel that
// changed is left out. So lengths before the sweep bound those within it, in whatever order the lines go.

#ifndef CAST_SEEDS_SWEEP_H
#define CAST_SEEDS_SWEEP_H

#include <algorithm>

#include "_seeds_plane.h"

namespace seeds {

class Sweep {
 public:
  // `histogram` [colours, labels] and `size` [labels] are those of the pixels of the plane, and stay so.
  Sweep(Plane& plane, Count* histogram, Count* size, std::size_t labels)
      : plane_(plane), histogram_(histogram), size_(size), labels_(labels) {}

  // `longest`: the pixels that a superpixel may extend over along the lines, before the sweep.
  template <bool down, bool forward>
  void run(int longest) {
    const int last = plane_.lines - 2, places = plane_.length - 3;  // from 1 on: borders are not judged
    const int steps = (places + kStep - 1) / kStep;
    const int apart = std::max(longest + 2, 4);  // pairs further apart share no superpixel and no window
    const int lag = std::min(std::max((apart + kStep - 1) / kStep + 1, (steps + kLines - 1) / kLines), steps);
    const std::uint32_t last_places = (1u << (places - kStep * (steps - 1))) - 1;
    // Lines first_line..last_line are on their way; the first is `step` steps on, each other `lag` behind the last.
    int first_line = 1, last_line = 1, step = 0, until_next = lag;
    while (first_line <= last) {
      collect(first_line * plane_.stride + kStep * step + 1, plane_.stride - kStep * lag, last_line - first_line + 1,
              step == steps - 1 ? last_places : (1u << kStep) - 1);
      if (collected_ > kBatch) judge<down, forward>();
      if (++step == steps) {
        first_line++;
        step -= lag;
      }
      if (--until_next == 0) {
        until_next = lag;
        if (last_line < last) last_line++;
      }
    }
    collected_before_ = collected_;
    judge<down, forward>();
  }

 private:
  static constexpr int kStep = 16, kLines = 8;
  static constexpr int kBatch = 256, kMost = kBatch + 2 * kStep * kLines + 1;

  // Note the pairs of one step: those of the first line from pixel `at` on, in `places`, and of the others, each from
  // `next_line` further on. Up to two of each line, which mostly are all, then one of each in turn. What a line without
  // a pair writes is overwritten.
  void collect(std::size_t at, std::ptrdiff_t next_line, int lines, std::uint32_t places) {
    collected_before_ = collected_;
    int end = collected_;
    std::uint32_t starts[kLines], rest[kLines], left = 0;
    const auto note_first = [&](std::size_t start, std::uint32_t bits) {
      pixels_[end] = static_cast<std::uint32_t>(start) + static_cast<std::uint32_t>(__builtin_ctz(bits | 1u << kStep));
      end += bits != 0;
      return bits & (bits - 1);
    };
    for (int i = 0; i < lines; i++, at += next_line, places = (1u << kStep) - 1) {
      rest[i] = note_first(at, note_first(at, changes(&plane_.labels[at]) & places));
      left |= rest[i];
      starts[i] = static_cast<std::uint32_t>(at);
    }
    while (left) {
      left = 0;
      for (int i = 0; i < lines; i++) left |= rest[i] = note_first(starts[i], rest[i]);
    }
    collected_ = end;
  }

  // Judge the noted pairs but for those of the last step.
  template <bool down, bool forward>
  void judge() {
    const Tables& table = tables();
    Label* const labels = plane_.labels.data();
    const std::uint16_t* const colours = plane_.colours.data();
    Count *const histogram = histogram_, *const size = size_;
    const std::size_t count = labels_;
    const std::ptrdiff_t stride = plane_.stride;
    // The labels of the pairs are read well before, so that addresses need not wait for judgements. Only the pair right
    // before it may change a pair's first label, and then the pair is left out: so that one is judged after this. The
    // second label waits for the pair itself.
    for (int i = known_; i < collected_; i++) std::memcpy(&pairs_[i], labels + pixels_[i], sizeof pairs_[i]);
    for (int i = 0; i < collected_before_; i++) {
      const std::size_t first = pixels_[i];
      const std::uint32_t a = pairs_[i] & 0xffff, b = pairs_[i] >> 16, change = a ^ b;
      Label* const at = labels + first;
      const Window<down> window(at, stride);
      const std::uint32_t around = static_cast<std::uint32_t>(table.first[down][window.pattern(a)]) << 5 |
                                   table.second[down][window.pattern(b)];
      Count* const bin_first = histogram + colours[first] * count;
      Count* const bin_second = histogram + colours[first + 1] * count;
      const int wanted = better(bin_first, bin_second, size, a, b, table.prior[forward][around]);
      const int moves = wanted & -static_cast<int>(at[0] == a);
      const int first_moves = forward ? moves & 1 : moves & ~(moves >> 1) & 1;
      const int second_moves = forward ? moves >> 1 & ~moves : moves >> 1;
      bin_first[a] -= first_moves;
      bin_first[b] += first_moves;
      bin_second[b] -= second_moves;
      bin_second[a] += second_moves;
      size[a] += second_moves - first_moves;
      size[b] -= second_moves - first_moves;
      at[0] ^= static_cast<Label>(change & -first_moves);
      at[1] ^= static_cast<Label>(change & -second_moves);
    }
    std::copy(pixels_ + collected_before_, pixels_ + collected_, pixels_);
    std::copy(pairs_ + collected_before_, pairs_ + collected_, pairs_);
    known_ = collected_ -= collected_before_;
    collected_before_ = 0;
  }

  Plane& plane_;
  Count *const histogram_, *const size_;
  const std::size_t labels_;
  int collected_ = 0, collected_before_ = 0, known_ = 0;  // pairs: all, those before the last step, those with labels
  std::uint32_t pixels_[kMost], pairs_[kMost];
};

}  // namespace seeds

#endif
