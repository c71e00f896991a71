// What the compiled parts of tracking share: indices that are checked, labels that are counted, errors as codes.

#ifndef CAST_TRACKING_COUNTING_H_
#define CAST_TRACKING_COUNTING_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <stdexcept>
#include <utility>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

constexpr int kNoMemory = -1, kOutside = -2;
constexpr std::size_t kTables = 4;  // neighbours are often equal: counted in one table, each would wait for the one before

// The index, if it is one of 0..count-1.
inline std::size_t within(std::int64_t index, std::int64_t count) {
  if (static_cast<std::uint64_t>(index) >= static_cast<std::uint64_t>(count)) throw std::out_of_range("index");
  return static_cast<std::size_t>(index);
}

// How often each of 0..count-1 occurs.
inline void count_labels(const std::int32_t* labels, std::size_t size, int count, std::vector<std::int32_t>& counts) {
  std::uint32_t highest = 0;  // also of negative labels
  for (std::size_t i = 0; i < size; i++) highest = std::max(highest, static_cast<std::uint32_t>(labels[i]));
  if (size > 0) within(highest, count);
  const std::size_t width = static_cast<std::size_t>(count);
  counts.assign(width * kTables, 0);
  std::int32_t *const a = counts.data(), *const b = a + width, *const c = b + width, *const d = c + width;
  std::size_t i = 0;
  for (; i + kTables <= size; i += kTables) a[labels[i]]++, b[labels[i + 1]]++, c[labels[i + 2]]++, d[labels[i + 3]]++;
  for (; i < size; i++) a[labels[i]]++;
  for (std::size_t label = 0; label < width; label++) a[label] += b[label] + c[label] + d[label];
  counts.resize(width);
}

// What `work` returns, or the code of its error.
template <typename Work>
std::int64_t guarded(const Work& work) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return kNoMemory;
  } catch (const std::length_error&) {
    return kNoMemory;
  } catch (const std::out_of_range&) {
    return kOutside;
  }
}

#endif  // CAST_TRACKING_COUNTING_H_
