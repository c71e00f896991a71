// Judging a pair of neighbouring pixels with different labels: which of the two, if any, takes the other's label.
//
// With vector instructions every x86-64 has, or four labels to a word elsewhere. No branch depends on the pixels: two
// pairs in five stay as they are, which no processor foresees. Float32 operations are OpenCV's, in its order: compile
// with -ffp-contract=off.

#ifndef CAST_SEEDS_PAIRS_H
#define CAST_SEEDS_PAIRS_H

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#if defined(__x86_64__) && !defined(CAST_SEEDS_PORTABLE)
#include <emmintrin.h>
#define CAST_SEEDS_SSE2 1
#endif

#if defined(_MSC_VER) || !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "needs GCC or Clang on a little-endian machine"
#endif

namespace seeds {

constexpr int kMaxLabels = 0x7fff;  // 15 bits: comparing four labels in one word needs the sixteenth

using Label = std::uint16_t;
using Count = std::int32_t;  // of pixels of a superpixel; compared in float32, as OpenCV does

inline std::uint64_t load64(const void* at) {
  std::uint64_t word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

// The window of a pair: four lines of four labels, from one line and one place before its first pixel; the pair is in
// line 1, places 1 and 2. A pattern has one bit per place, set where the label is the wanted one; the bits of the pair
// itself say nothing. Only pairs of the sweep down the image (`down`) use the fourth line.
//
// Ahead and behind in the pair's own line single labels are read: a wide load would have to wait for the labels that
// the last pair has just stored.
#ifdef CAST_SEEDS_SSE2

constexpr int bit_of(int line, int place) { return (line == 1 ? 8 : line == 2 ? 4 : 4 * line) + place; }

template <bool down>
struct Window {
  Window(const Label* first, std::ptrdiff_t stride) {
    const Label* corner = first - stride - 1;
    beside = _mm_unpacklo_epi64(four(corner), four(corner + 2 * stride));
    own = _mm_set1_epi32(-1);  // no label
    if (down) own = _mm_unpacklo_epi64(own, four(corner + 3 * stride));
    own = _mm_insert_epi16(_mm_insert_epi16(own, first[-1], 0), first[2], 3);
  }

  std::uint32_t pattern(Label label) const {
    const __m128i wanted = _mm_set1_epi16(static_cast<short>(label));
    const __m128i equal = _mm_packs_epi16(_mm_cmpeq_epi16(beside, wanted), _mm_cmpeq_epi16(own, wanted));
    return static_cast<std::uint32_t>(_mm_movemask_epi8(equal));
  }

  static __m128i four(const Label* at) { return _mm_cvtsi64_si128(static_cast<long long>(load64(at))); }

  __m128i beside, own;
};

#else

constexpr int bit_of(int line, int place) { return 4 * place + line; }

// Highest bit of each 16-bit lane: set where the labels, of 15 bits, are equal.
inline std::uint64_t equality(std::uint64_t a, std::uint64_t b) {
  return ~((a ^ b) + 0x7fff7fff7fff7fffu) & 0x8000800080008000u;
}

template <bool down>
struct Window {
  Window(const Label* first, std::ptrdiff_t stride) {
    const Label* corner = first - stride - 1;
    above = load64(corner);
    own = std::uint64_t{first[2]} << 48 | first[-1];
    below = load64(corner + 2 * stride);
    further = down ? load64(corner + 3 * stride) : 0;
  }

  std::uint32_t pattern(Label label) const {
    const std::uint64_t wanted = label * 0x0001000100010001u;
    std::uint64_t equal = equality(above, wanted) >> 15 | equality(own, wanted) >> 14 | equality(below, wanted) >> 13;
    if (down) equal |= equality(further, wanted) >> 12;
    return static_cast<std::uint32_t>(equal * 0x0001001001001000u >> 48);  // four bits of each lane, side by side
  }

  std::uint64_t above, own, below, further;
};

#endif

// True when taking `self` away would cut its region in two, judged by the five neighbours on the far side of the
// boundary: corner, neighbour, far side, neighbour, corner.
template <typename T>
bool cuts(T self, T corner1, T near1, T far, T near2, T corner2) {
  return (self != far && self == near1 && self == near2) || (self != corner1 && self == near1 && self == far) ||
         (self != corner2 && self == near2 && self == far);
}

// Bits of a judgement: the first pixel takes the second's label, or the second the first's. Never both.
constexpr int kFirst = 1, kSecond = 2;

// What the squared ratio of neighbours with the own label and with the other one counts in keeping a pixel: the prior.
// Not a number, so that no comparison holds, where the pixel may not leave its region.
struct Prior {
  float first, second;
};

struct Tables {
  static constexpr int kFree = 0x10;
  // For each pattern of a pixel's label around its pair: how many neighbours with that label count, and kFree when the
  // pixel may leave its region.
  std::uint8_t first[2][1 << 16], second[2][1 << 16];  // across, down
  Prior prior[2][1 << 10];                             // backward, forward; by the entries above, five bits each

  Tables() {
    for (std::uint32_t pattern = 0; pattern < 1 << 16; pattern++) {
      const auto at = [pattern](int line, int place) { return pattern >> bit_of(line, place) & 1; };
      for (const bool down : {false, true}) {
        // Beside a pair of the sweep down not the next column but the one after it counts: so does OpenCV.
        const int line = down ? 3 : 2;
        const std::uint32_t count = at(1, 0) + at(1, 3) + at(0, 0) + at(0, 1) + at(0, 2) + at(0, 3) + at(2, 0) +
                                    at(2, 3) + at(line, 1) + at(line, 2);
        first[down][pattern] = entry(count, cuts(1u, at(0, 0), at(0, 1), at(1, 0), at(2, 1), at(2, 0)));
        second[down][pattern] = entry(count, cuts(1u, at(0, 3), at(0, 2), at(1, 3), at(2, 2), at(2, 3)));
      }
    }
    constexpr float no = std::numeric_limits<float>::quiet_NaN();
    for (int i = 0; i < 1 << 10; i++) {
      const int own = i >> 5 & 15, other = i & 15;
      const bool first_free = i >> 5 & kFree, second_free = i & kFree, both = first_free && second_free;
      const float keep_first = ratio(own, other), keep_second = ratio(other, own);
      // The pixel that is judged first also gates the other one.
      prior[false][i] = {both ? keep_first : no, second_free ? keep_second : no};
      prior[true][i] = {first_free ? keep_first : no, both ? keep_second : no};
    }
  }

  static std::uint8_t entry(std::uint32_t count, bool cut) {
    return static_cast<std::uint8_t>(count | (cut ? 0 : kFree));
  }

  static float ratio(int own, int other) {
    const float quotient = other ? static_cast<float>(own) / static_cast<float>(other) : 1.0f;
    return quotient * quotient;
  }
};

inline const Tables& tables() {
  static const Tables instance;
  return instance;
}

// Which of the pixels the other superpixel's histogram suits better: bits kFirst and kSecond, perhaps both. `first` and
// `second` are the counts of the pixels' colours by label, `size` the pixels by label.
#ifdef CAST_SEEDS_SSE2

inline int better(const Count* first, const Count* second, const Count* size, std::size_t a, std::size_t b,
                  const Prior& prior) {
  const auto pair = [](const Count& x, const Count& y) {
    return _mm_cvtepi32_ps(_mm_unpacklo_epi32(_mm_cvtsi32_si128(x), _mm_cvtsi32_si128(y)));
  };
  const __m128 own = pair(size[a], size[b]), other = _mm_shuffle_ps(own, own, _MM_SHUFFLE(3, 2, 0, 1));
  const __m128 keep_by = _mm_castsi128_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(&prior)));
  const __m128 gain = _mm_mul_ps(_mm_mul_ps(pair(first[b], second[a]), own), own);
  const __m128 keep = _mm_mul_ps(_mm_mul_ps(_mm_mul_ps(pair(first[a], second[b]), other), other), keep_by);
  return _mm_movemask_ps(_mm_cmpgt_ps(gain, keep));  // the upper half compares zeros
}

#else

inline int better(const Count* first, const Count* second, const Count* size, std::size_t a, std::size_t b,
                  const Prior& prior) {
  const auto real = [](Count count) { return static_cast<float>(count); };
  const float size_a = real(size[a]), size_b = real(size[b]);
  const bool better_first = real(first[b]) * size_a * size_a > real(first[a]) * size_b * size_b * prior.first;
  const bool better_second = real(second[a]) * size_b * size_b > real(second[b]) * size_a * size_a * prior.second;
  return better_first * kFirst | better_second * kSecond;
}

#endif

}  // namespace seeds

#endif
