// Labels and colours of an image, line by line, and the same turned: columns become lines.

#ifndef CAST_SEEDS_PLANE_H
#define CAST_SEEDS_PLANE_H

#include <vector>

#include "_seeds_pairs.h"

namespace seeds {

// Bit i: the label at place i is not the one at place i + 1. Sixteen places.
#ifdef CAST_SEEDS_SSE2

inline std::uint32_t changes(const Label* at) {
  const auto equal = [at](int i) {
    return _mm_cmpeq_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at + i)),
                           _mm_loadu_si128(reinterpret_cast<const __m128i*>(at + i + 1)));
  };
  return static_cast<std::uint32_t>(_mm_movemask_epi8(_mm_packs_epi16(equal(0), equal(8)))) ^ 0xffff;
}

constexpr int kTile = 8;

// Columns of a tile of kTile x kTile values become lines.
inline void turn_tile(const std::uint16_t* from, std::ptrdiff_t from_stride, std::uint16_t* to,
                      std::ptrdiff_t to_stride) {
  const auto line = [&](int i) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i * from_stride)); };
  const auto store = [&](int i, __m128i values) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i * to_stride), values);
  };
  const auto turn_half = [&](int i, __m128i ab, __m128i cd, __m128i ef, __m128i gh) {
    const __m128i low = _mm_unpacklo_epi32(ab, cd), low_end = _mm_unpacklo_epi32(ef, gh);
    const __m128i high = _mm_unpackhi_epi32(ab, cd), high_end = _mm_unpackhi_epi32(ef, gh);
    store(i, _mm_unpacklo_epi64(low, low_end));
    store(i + 1, _mm_unpackhi_epi64(low, low_end));
    store(i + 2, _mm_unpacklo_epi64(high, high_end));
    store(i + 3, _mm_unpackhi_epi64(high, high_end));
  };
  const __m128i a = line(0), b = line(1), c = line(2), d = line(3), e = line(4), f = line(5), g = line(6), h = line(7);
  turn_half(0, _mm_unpacklo_epi16(a, b), _mm_unpacklo_epi16(c, d), _mm_unpacklo_epi16(e, f), _mm_unpacklo_epi16(g, h));
  turn_half(4, _mm_unpackhi_epi16(a, b), _mm_unpackhi_epi16(c, d), _mm_unpackhi_epi16(e, f), _mm_unpackhi_epi16(g, h));
}

#else

inline std::uint32_t changes(const Label* at) {
  std::uint32_t bits = 0;
  for (int i = 0; i < 16; i += 4) {
    const std::uint64_t equal = equality(load64(at + i), load64(at + i + 1)) >> 15;
    bits |= static_cast<std::uint32_t>(equal * 0x0001000200040008u >> 48 & 15) << i;  // one bit of each lane
  }
  return bits ^ 0xffff;
}

constexpr int kTile = 4;

inline void turn_tile(const std::uint16_t* from, std::ptrdiff_t from_stride, std::uint16_t* to,
                      std::ptrdiff_t to_stride) {
  constexpr std::uint64_t even = 0x0000ffff0000ffffu, low = 0x00000000ffffffffu;
  const auto turn_pair = [&](const std::uint16_t* line, std::uint64_t& evens, std::uint64_t& odds) {
    const std::uint64_t a = load64(line), b = load64(line + from_stride);
    evens = (a & even) | (b & even) << 16;
    odds = (a >> 16 & even) | (b & ~even);
  };
  const auto store = [&](int i, std::uint64_t values) { std::memcpy(to + i * to_stride, &values, sizeof values); };
  std::uint64_t evens, odds, evens_below, odds_below;
  turn_pair(from, evens, odds);
  turn_pair(from + 2 * from_stride, evens_below, odds_below);
  store(0, (evens & low) | evens_below << 32);
  store(1, (odds & low) | odds_below << 32);
  store(2, evens >> 32 | (evens_below & ~low));
  store(3, odds >> 32 | (odds_below & ~low));
}

#endif

inline int rounded_up(int value, int unit) { return (value + unit - 1) / unit * unit; }

struct Plane {
  // Lines start on an odd number of 64-byte cache lines, so that a column is not in few sets of the cache; they and the
  // plane are filled up to whole tiles. Behind the last line is room for one more, and for wide loads.
  Plane(int lines, int length)
      : lines(lines), length(length), stride((rounded_up(length, 32) / 32 | 1) * 32),
        labels(static_cast<std::size_t>(rounded_up(lines + 1, 8) + 1) * stride), colours(labels.size()) {}

  // Labels or colours of the other plane, turned.
  void turn(std::vector<std::uint16_t> Plane::*values, const Plane& other) {
    for (int line = 0; line < lines; line += kTile) {
      for (int i = 0; i < length; i += kTile) {
        turn_tile(&(other.*values)[i * other.stride + line], other.stride, &(this->*values)[line * stride + i], stride);
      }
    }
  }

  const int lines, length;
  const std::ptrdiff_t stride;
  std::vector<std::uint16_t> labels, colours;
};

}  // namespace seeds

#endif
