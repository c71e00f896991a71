// The tracker of one film, one call a frame: `plain.py` in C++.
//
// Sums and comparisons are those of the NumPy code, in the same order, so that both give the same bits. Compile with
// -ffp-contract=off. Indices that come from outside are checked where they are read.

#include "_counting.h"

namespace {

constexpr std::size_t kManyPairs = std::size_t{1} << 20;  // of superpixels: then one table, as several would be large
constexpr float kForgotten = 0.02f, kRemembered = 1e-3f;  // as in membership.py

// A column for each row, none twice, -1 for none: pairs that prefer each other, then again among what is left.
class Assignment {
 public:
  const std::vector<int>& of(const std::vector<float>& weights, int rows, int columns) {
    chosen_.assign(rows, -1), row_taken_.assign(rows, 0), column_taken_.assign(columns, 0);
    left_.resize(weights.size());
    std::size_t positive = 0;  // what is not is never chosen
    for (int r = 0; r < rows; r++) {
      for (int c = 0; c < columns; c++) {
        const float weight = weights[static_cast<std::size_t>(r) * columns + c];
        left_[positive] = {r, c, weight};
        positive += weight > 0;
      }
    }
    left_.resize(positive);
    while (!left_.empty()) {
      of_row_.assign(rows, nullptr), of_column_.assign(columns, nullptr);
      for (const Entry& entry : left_) {  // row by row: the first wins among equals, in rows and in columns
        const Entry *&row = of_row_[entry.row], *&column = of_column_[entry.column];
        if (row == nullptr || entry.weight > row->weight) row = &entry;
        if (column == nullptr || entry.weight > column->weight) column = &entry;
      }
      for (const Entry* entry : of_row_) {
        if (entry == nullptr || of_column_[entry->column] != entry) continue;
        chosen_[entry->row] = entry->column;
        row_taken_[entry->row] = column_taken_[entry->column] = 1;
      }
      const auto taken = [&](const Entry& entry) { return row_taken_[entry.row] || column_taken_[entry.column]; };
      left_.erase(std::remove_if(left_.begin(), left_.end(), taken), left_.end());
    }
    return chosen_;
  }

 private:
  struct Entry {
    int row, column;
    float weight;
  };
  std::vector<Entry> left_;
  std::vector<const Entry*> of_row_, of_column_;
  std::vector<int> chosen_;
  std::vector<char> row_taken_, column_taken_;
};

// Which superpixel of the frame before each one follows: `assignment.superpixels`.
class Succession {
 public:
  std::vector<int> source, same;

  void forget() { before_.clear(), common_.clear(); }

  // Keeps the samples of the first frame of a scene.
  void start(const std::int32_t* now, int height, int width, int step, int count) {
    sample(now, height, width, step);
    before_.swap(now_);
    count_before_ = count;
  }

  void follow(const std::int32_t* now, int height, int width, int step, int count) {
    sample(now, height, width, step);
    const std::size_t pairs = static_cast<std::size_t>(count) * count_before_, tables = pairs > kManyPairs ? 1 : kTables;
    common_.resize(std::max(common_.size(), tables * pairs));  // stays all zeros
    places_.resize(now_.size());
    const std::size_t columns = static_cast<std::size_t>(count_before_);
    std::size_t different = 0;
    for (std::size_t place = 0; place < now_.size(); place++) {
      const std::size_t pair = static_cast<std::size_t>(now_[place]) * columns + before_[place];
      places_[different] = place;  // where a pair is seen first, once for each table
      different += common_[pair * tables + (place & (tables - 1))]++ == 0;
    }
    source.assign(count, 0), same.assign(count, -1);
    most_.assign(count, 0), most_before_.assign(count_before_, 0), best_.assign(count_before_, 0);
    for (std::size_t k = 0; k < different; k++) {  // the first wins among equals
      const std::int32_t i = now_[places_[k]], j = before_[places_[k]];
      std::int32_t *const counts = &common_[(static_cast<std::size_t>(i) * columns + j) * tables], shared = 0;
      for (std::size_t table = 0; table < tables; table++) shared += std::exchange(counts[table], 0);
      if (shared == 0) continue;
      if (shared > most_[i] || (shared == most_[i] && j < source[i])) most_[i] = shared, source[i] = j;
      if (shared > most_before_[j] || (shared == most_before_[j] && i < best_[j])) {
        most_before_[j] = shared, best_[j] = i;
      }
    }
    for (int i = 0; i < count; i++) {
      if (most_[i] > 0 && best_[source[i]] == i) same[i] = source[i];
    }
    before_.swap(now_);
    count_before_ = count;
  }

 private:
  void sample(const std::int32_t* labels, int height, int width, int step) {
    const int columns = (width + step - 1) / step, rows = (height + step - 1) / step;
    now_.resize(static_cast<std::size_t>(rows) * columns);
    std::int32_t* out = now_.data();
    for (int y = 0; y < height; y += step, out += columns) {
      const std::int32_t* row = labels + static_cast<std::size_t>(y) * width;
      for (int x = 0; x < columns; x++) out[x] = row[static_cast<std::size_t>(x) * step];
    }
  }

  std::vector<std::int32_t> now_, before_, common_, most_, most_before_;
  std::vector<std::size_t> places_;
  std::vector<int> best_;
  int count_before_ = 0;
};

// The tracks of one level: `membership.Membership`.
struct Level {
  int tracks = 0;
  std::vector<float> shares;  // [superpixels, tracks]
  std::vector<int> current;   // the column that each superpixel is shown with
  std::vector<std::int64_t> ids, born;
  // What is shown: columns that have a superpixel, and which of them each superpixel has.
  std::vector<int> present, shown;
};

class Tracker {
 public:
  Tracker(float keep, float rate, float margin) : keep_(keep), rate_(rate), margin_(margin) {}

  void reset() {
    height_ = width_ = 0;
    levels_.clear();
    succession_.forget();
  }

  // Takes a frame, see `plain.Memory.update`; returns the next id.
  std::int64_t update(int height, int width, int step, const std::int32_t* superpixels, int count, int levels,
                      const std::int32_t* const* members, std::int64_t next, int* counts) {
    count_labels(superpixels, static_cast<std::size_t>(height) * width, count, pixels_);
    areas_.assign(pixels_.begin(), pixels_.end());
    if (height != height_ || width != width_ || levels != static_cast<int>(levels_.size())) {
      frame_ = 0;
      own_.resize(count), own_born_.assign(count, 0);
      for (std::int64_t& id : own_) id = next++;
      levels_.assign(levels, Level());
      for (int l = 0; l < levels; l++) next = first(levels_[l], members[l], count, next);
      succession_.start(superpixels, height, width, step, count);
      height_ = height, width_ = width;
    } else {
      succession_.follow(superpixels, height, width, step, count);
      for (int l = 0; l < levels; l++) next = follow(levels_[l], members[l], count, next);
      next = follow_superpixels(next);
    }
    show(counts);
    frame_++;
    return next;
  }

  // Of the frame just taken: each level's members, [levels, superpixels], and per level, the superpixels first, ids
  // and ages of what is shown and then the ids of all tracks, but for the superpixels, which are all shown.
  void give(std::int32_t* members, std::int64_t* values) const {
    const std::int64_t now = frame_ - 1;
    values = std::copy(own_.begin(), own_.end(), values);
    for (const std::int64_t born : own_born_) *values++ = now - born;
    for (const Level& level : levels_) {
      members = std::copy(level.shown.begin(), level.shown.end(), members);
      for (const int column : level.present) *values++ = level.ids[column];
      for (const int column : level.present) *values++ = now - level.born[column];
      values = std::copy(level.ids.begin(), level.ids.end(), values);
    }
  }

 private:
  static int segments(const std::int32_t* member, int count) {
    std::size_t highest = 0;
    for (int i = 0; i < count; i++) highest = std::max(highest, within(member[i], count));
    return static_cast<int>(highest) + 1;
  }

  static std::int64_t first(Level& level, const std::int32_t* member, int count, std::int64_t next) {
    level.tracks = segments(member, count);
    level.shares.assign(static_cast<std::size_t>(count) * level.tracks, 0.0f);
    level.current.assign(member, member + count);
    for (int i = 0; i < count; i++) level.shares[static_cast<std::size_t>(i) * level.tracks + member[i]] = 1.0f;
    level.ids.resize(level.tracks), level.born.assign(level.tracks, 0);
    for (std::int64_t& id : level.ids) id = next++;
    return next;
  }

  // `membership.level`, births and deaths.
  std::int64_t follow(Level& level, const std::int32_t* member, int count, std::int64_t next) {
    const int groups = segments(member, count), tracks = level.tracks;
    const auto before = [&](int i) { return &level.shares[static_cast<std::size_t>(succession_.source[i]) * tracks]; };
    sums_.assign(static_cast<std::size_t>(groups) * tracks, 0.0f);
    for (int i = 0; i < count; i++) {
      const float* row = before(i);
      float* sums = &sums_[static_cast<std::size_t>(member[i]) * tracks];
      for (int t = 0; t < tracks; t++) sums[t] += row[t] * areas_[i];
    }
    column_ = assignment_.of(sums_, groups, tracks);
    int width = tracks;
    for (int& place : column_) {
      if (place < 0) place = width++;
    }
    mixed_.resize(static_cast<std::size_t>(count) * width), current_.resize(count);
    largest_.assign(width, 0.0f), alive_.assign(width, 0);
    for (int i = 0; i < count; i++) {
      const float* row = before(i);
      float* mine = &mixed_[static_cast<std::size_t>(i) * width];
      for (int t = 0; t < tracks; t++) mine[t] = row[t] * keep_;
      std::fill(mine + tracks, mine + width, 0.0f);
      mine[column_[member[i]]] += rate_;
      const int best = static_cast<int>(std::max_element(mine, mine + width) - mine);
      const int last = level.current[succession_.source[i]];
      current_[i] = mine[best] <= mine[last] + margin_ ? last : best;
      alive_[current_[i]] = 1;
      for (int t = 0; t < width; t++) largest_[t] = std::max(largest_[t], mine[t]);
    }
    kept_.clear(), place_.assign(width, -1);
    for (int t = 0; t < width; t++) {
      if (!alive_[t] && !(largest_[t] > kForgotten)) continue;
      place_[t] = static_cast<int>(kept_.size());
      kept_.push_back(t);
    }
    const int kept = static_cast<int>(kept_.size());
    level.ids.resize(std::max(tracks, kept)), level.born.resize(std::max(tracks, kept));
    for (int k = 0; k < kept; k++) {  // never to a later place than it comes from
      const int t = kept_[k];
      level.ids[k] = t < tracks ? level.ids[t] : next + (t - tracks);
      level.born[k] = t < tracks ? level.born[t] : frame_;
    }
    level.ids.resize(kept), level.born.resize(kept);
    level.shares.resize(static_cast<std::size_t>(count) * kept), level.current.resize(count);
    for (int i = 0; i < count; i++) {
      const float* mine = &mixed_[static_cast<std::size_t>(i) * width];
      float* packed = &level.shares[static_cast<std::size_t>(i) * kept];
      for (int k = 0; k < kept; k++) packed[k] = mine[kept_[k]];
      level.current[i] = place_[current_[i]];
    }
    level.tracks = kept;
    return std::max(next, level.ids.back() + 1);
  }

  // A superpixel goes on as the one that it continues, or is new.
  std::int64_t follow_superpixels(std::int64_t next) {
    const std::size_t count = succession_.same.size();
    own_before_.swap(own_), own_born_before_.swap(own_born_);
    own_.resize(count), own_born_.resize(count);
    for (std::size_t i = 0; i < count; i++) {
      const int same = succession_.same[i];
      own_[i] = same < 0 ? next++ : own_before_[same];
      own_born_[i] = same < 0 ? frame_ : own_born_before_[same];
    }
    return next;
  }

  // From the second level on tracks go to coarser ones as a whole, so that the levels nest.
  void show(int* counts) {
    const int count = static_cast<int>(own_.size());
    const Level* finer = nullptr;
    for (Level& level : levels_) {
      level.shown = level.current;
      if (finer != nullptr) {
        parents(*finer, level);
        for (int i = 0; i < count; i++) level.shown[i] = column_[finer->shown[i]];
      }
      place_.assign(level.tracks, -1), level.present.clear();
      for (const int column : level.shown) place_[column] = 0;
      for (int t = 0; t < level.tracks; t++) {
        if (place_[t] < 0) continue;
        place_[t] = static_cast<int>(level.present.size());
        level.present.push_back(t);
      }
      for (int& column : level.shown) column = place_[column];
      *counts++ = static_cast<int>(level.present.size());
      *counts++ = level.tracks;
      finer = &level;
    }
  }

  // Column of the coarser level that most of each finer track lies in, into `column_`: `membership.parents`.
  void parents(const Level& finer, const Level& coarser) {
    const std::size_t tracks = static_cast<std::size_t>(coarser.tracks);
    sums_.assign(finer.present.size() * tracks, 0.0f);
    for (std::size_t i = 0; i < areas_.size(); i++) {
      const float* row = &coarser.shares[i * tracks];
      float* sums = &sums_[static_cast<std::size_t>(finer.shown[i]) * tracks];
      const std::size_t shown = static_cast<std::size_t>(coarser.current[i]);
      for (std::size_t t = 0; t < tracks; t++) {
        sums[t] += (row[t] * kRemembered + (t == shown ? 1.0f : 0.0f)) * areas_[i];
      }
    }
    column_.resize(finer.present.size());
    for (std::size_t k = 0; k < column_.size(); k++) {
      const float* row = &sums_[k * tracks];
      column_[k] = static_cast<int>(std::max_element(row, row + tracks) - row);
    }
  }

  const float keep_, rate_, margin_;
  int height_ = 0, width_ = 0;
  std::int64_t frame_ = 0;
  Succession succession_;
  Assignment assignment_;
  std::vector<Level> levels_;
  std::vector<std::int64_t> own_, own_born_, own_before_, own_born_before_;  // of the superpixels
  std::vector<std::int32_t> pixels_;
  std::vector<float> areas_, sums_, mixed_, largest_;
  std::vector<int> column_, current_, kept_, place_;
  std::vector<char> alive_;
};

}  // namespace

// Null without memory. `keep` is 1 - rate.
EXPORT Tracker* cast_tracker_create(float keep, float rate, float margin) {
  return new (std::nothrow) Tracker(keep, rate, margin);
}

EXPORT void cast_tracker_destroy(Tracker* tracker) { delete tracker; }

EXPORT void cast_tracker_reset(Tracker* tracker) { tracker->reset(); }

// The next id, kNoMemory or kOutside; after these two it is as after a reset. Maps are [height, width], `members` are
// `levels` arrays of `count`. `counts` gets per level the number of tracks that are shown and of all.
EXPORT std::int64_t cast_tracker_update(Tracker* tracker, int height, int width, int step,
                                        const std::int32_t* superpixels, int count, int levels,
                                        const std::int32_t* const* members, std::int64_t next, int* counts) {
  const std::int64_t code = guarded(
      [&] { return tracker->update(height, width, step, superpixels, count, levels, members, next, counts); });
  if (code < 0) tracker->reset();
  return code;
}

// The results of the last update, see `Tracker::give`: `members` takes levels * count, `values` 2 * count and per level
// twice what is shown and all.
EXPORT void cast_tracker_give(const Tracker* tracker, std::int32_t* members, std::int64_t* values) {
  tracker->give(members, values);
}
