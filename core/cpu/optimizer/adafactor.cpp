// Adafactor: three passes over gradients, of which the last also goes over the weights.
//
// The first pass makes sums of squares by row and by column, the second the size of the update, the third the update.
// Tensors are taken in groups of 1 MiB of gradients a thread, so that the later passes find them in the cache: from
// memory come gradients and weights once. Work is cut into bands of rows by shape alone.
#include "core/cpu/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/optimizer/adafactor.cpp"
#include "hwy/foreach_target.h"
//
#include <cmath>

#include "core/cpu/backend.h"
#include "core/cpu/optimizer/codes-inl.h"
#include "core/cpu/parallel.h"
#include "core/cpu/simd.h"

#ifndef MIXTAPE_CPU_ADAFACTOR_ONCE
#define MIXTAPE_CPU_ADAFACTOR_ONCE
namespace mixtape {
namespace {

// Rows of a tensor that one task does.
struct Band {
  int64_t member = 0, row = 0, rows = 0;
  int64_t columns = 0;  // where the sums of its columns begin in the scratch
  double squares = 0;   // of its part of the update
};

// Columns of a tensor that one task does.
struct Columns {
  int64_t member = 0, begin = 0, count = 0;
};

// A tensor of the group, and what is the same for all of its elements.
struct Member {
  const UpdateTensor* tensor = nullptr;
  int64_t number = 0;  // among all tensors
  int64_t first_band = 0, end_band = 0;
  double rate = 0;
  float row_mean = 1;  // of the second moments of rows
  float step = 0;      // rate / max(1, RMS(u) / clip_threshold)
};

// Consecutive tensors whose passes run one after another.
struct Group {
  std::vector<Member> members;
  std::vector<Band> bands;
  std::vector<Columns> columns;
  int64_t scratch = 0;  // floats: a row of sums for each band; the first of a tensor becomes 1 / sqrt(its moments)
};

constexpr int64_t elements_of_thread = 256 * 1024;
// With fewer rows a band's sums of columns would be as large as the band.
constexpr int64_t least_rows = 16;
constexpr int64_t columns_of_task = 1024;

// Fills `group` with tensors from number `first` on, and returns the number of the one after.
int64_t next_group(const Adafactor& a, int64_t first, Group& group) {
  group = {};
  int64_t elements = 0, i = first;
  for (const int64_t enough = elements_of_thread * thread_count(); i < a.n_tensors && elements < enough; ++i) {
    const UpdateTensor& t = a.tensors[i];
    if (t.count() == 0) continue;
    const auto member = int64_t(group.members.size());
    Member& m = group.members.emplace_back(Member{.tensor = &t, .number = i});
    m.first_band = int64_t(group.bands.size());
    const int64_t height = std::max(least_rows, chunk_elements / t.cols);
    for (int64_t row = 0; row < t.rows; row += height) {
      group.bands.push_back(
          {.member = member, .row = row, .rows = std::min(height, t.rows - row), .columns = group.scratch});
      group.scratch += t.cols;
    }
    m.end_band = int64_t(group.bands.size());
    for (int64_t begin = 0; begin < t.cols; begin += columns_of_task)
      group.columns.push_back({member, begin, std::min(columns_of_task, t.cols - begin)});
    elements += t.count();
  }
  return i;
}

}  // namespace
}  // namespace mixtape
#endif

HWY_BEFORE_NAMESPACE();
namespace mixtape::HWY_NAMESPACE {
namespace {

class GroupUpdate {
 public:
  GroupUpdate(const Adafactor& a, Group& group, float* scratch)
      : a_(a),
        group_(group),
        scratch_(scratch),
        gradients_(a.gradients.data<float>()),
        weights_((a.master ? a.master : a.weights).data<float>()),
        first_moments_(a.m ? a.m.data<float>() : nullptr),
        moments_(a.v.data<float>()),
        gradient_factor_(a.state->grad_factor) {
    const double add = std::pow(double(a.state->updates) + 1, -double(a.decay_rate));
    add_ = float(add), keep_ = float(1 - add);
    for (Member& m : group.members)
      m.rate = double(a.state->learning_rate) * m.tensor->lr_factor * (a.scales ? a.scales.data<float>()[m.number] : 1);
  }

  void second_moments() {
    each_band([&](Band& band) { sum_squares(band); });
    parallel_tasks(int64_t(group_.columns.size()), [&](int64_t i) { finish_columns(group_.columns[i]); });
    for (Member& m : group_.members) m.row_mean = row_mean(*m.tensor);
  }

  void size_of_update() {
    each_band([&](Band& band) { band.squares = squares_of_update(band); });
    for (Member& m : group_.members) {
      double squares = 0;
      for (int64_t b = m.first_band; b < m.end_band; ++b) squares += group_.bands[b].squares;
      const double rms = std::sqrt(squares / double(m.tensor->count()));
      m.step = float(m.rate / std::max(1.0, rms / a_.clip_threshold));
    }
  }

  template <class T>
  void update() {
    each_band([&](Band& band) { update_band<T>(band); });
  }

 private:
  template <class Body>
  void each_band(Body&& body) {
    parallel_tasks(int64_t(group_.bands.size()), [&](int64_t i) { body(group_.bands[i]); });
  }
  Member& member(const Band& band) { return group_.members[band.member]; }
  float* column_factors(const Member& m) { return scratch_ + group_.bands[m.first_band].columns; }

  // What the update of a row has beside the factors of its columns.
  float row_factor(const Member& m, int64_t row) {
    const UpdateTensor& t = *m.tensor;
    return t.rows > 1 ? 1 / std::sqrt(moments_[t.row_moments + row] / m.row_mean) : 1.f;
  }

  void sum_squares(Band& band) {
    const UpdateTensor& t = *member(band).tensor;
    float* columns = scratch_ + band.columns;
    const Vec factor = set(gradient_factor_), eps = set(a_.eps);
    for (int64_t row = band.row; row < band.row + band.rows; ++row) {
      const float* gradient = gradients_ + t.offset + row * t.cols;
      const bool add = row > band.row;
      const float sum = sum_over(t.cols, [&](auto w, int64_t i) HWY_ATTR {
        const Vec g = hn::Mul(w.load(gradient + i), factor);
        const Vec square = hn::MulAdd(g, g, eps);
        w.put(square, columns + i, add);
        return square;
      });
      if (t.rows == 1) continue;
      float& moment = moments_[t.row_moments + row];
      moment = keep_ * moment + add_ * (sum / float(t.cols));
    }
  }

  void finish_columns(const Columns& task) {
    const Member& m = group_.members[task.member];
    const UpdateTensor& t = *m.tensor;
    float* moments = moments_ + t.column_moments + task.begin;
    float* factors = column_factors(m) + task.begin;
    const Vec keep = set(keep_), add = set(add_ / float(t.rows)), one = set(1);
    each_vector(task.count, [&](auto w, int64_t i) HWY_ATTR {
      Vec sum = w.load(factors + i);
      for (int64_t b = m.first_band + 1; b < m.end_band; ++b)
        sum = hn::Add(sum, w.load(scratch_ + group_.bands[b].columns + task.begin + i));
      const Vec moment = hn::MulAdd(sum, add, hn::Mul(w.load(moments + i), keep));
      w.store(moment, moments + i);
      w.store(hn::Div(one, hn::Sqrt(moment)), factors + i);
    });
  }

  float row_mean(const UpdateTensor& t) {
    double sum = 0;
    for (int64_t row = 0; row < t.rows && t.rows > 1; ++row) sum += moments_[t.row_moments + row];
    return float(sum / double(t.rows));
  }

  double squares_of_update(const Band& band) {
    const Member& m = member(band);
    const UpdateTensor& t = *m.tensor;
    const float* columns = column_factors(m);
    const Vec factor = set(gradient_factor_);
    double squares = 0;
    for (int64_t row = band.row; row < band.row + band.rows; ++row) {
      const float* gradient = gradients_ + t.offset + row * t.cols;
      const float sum = sum_over(t.cols, [&](auto w, int64_t i) HWY_ATTR {
        const Vec u = hn::Mul(hn::Mul(w.load(gradient + i), factor), w.load(columns + i));
        return hn::Mul(u, u);
      });
      const double of_row = row_factor(m, row);
      squares += of_row * of_row * sum;
    }
    return squares;
  }

  template <class T>
  void update_band(const Band& band) {
    const Member& m = member(band);
    const UpdateTensor& t = *m.tensor;
    const float* columns = column_factors(m);
    const Vec factor = set(gradient_factor_), decay = set(float(1 - m.rate * t.weight_decay));
    const Vec keep_m = set(a_.beta1), add_m = set(float(1 - double(a_.beta1)));
    for (int64_t row = band.row; row < band.row + band.rows; ++row) {
      const int64_t at = t.offset + row * t.cols;
      const float* gradient = gradients_ + at;
      float* weights = weights_ + at;
      T* rounded = a_.master ? a_.weights.data<T>() + at : nullptr;
      float* first_moments = first_moments_ ? first_moments_ + at : nullptr;
      const Vec step = set(m.step * row_factor(m, row));
      each_vector(t.cols, [&](auto w, int64_t i) HWY_ATTR {
        const Vec g = hn::Mul(w.load(gradient + i), factor);
        Vec u = hn::Mul(hn::Mul(g, w.load(columns + i)), step);
        if (first_moments) {
          u = hn::MulAdd(u, add_m, hn::Mul(w.load(first_moments + i), keep_m));
          w.store(u, first_moments + i);
        }
        const Vec weight = hn::Sub(hn::Mul(w.load(weights + i), decay), u);
        w.store(weight, weights + i);
        if (rounded) w.store(as_weight<T>(weight), rounded + i);
      });
    }
  }

  const Adafactor& a_;
  Group& group_;
  float* scratch_;
  const float* gradients_;
  float *weights_, *first_moments_, *moments_;
  float gradient_factor_, keep_, add_;
};

}  // namespace

void adafactor(const Adafactor& a, Group& group, float* scratch) {
  GroupUpdate step(a, group, scratch);
  step.second_moments();
  step.size_of_update();
  dispatch<float, fp16, bf16>(a.weights.dtype(), "adafactor", [&]<class T>() { step.update<T>(); });
}

}  // namespace mixtape::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mixtape {

HWY_EXPORT(adafactor);

void CpuOptimizer::adafactor(const Adafactor& a) {
  Group group;
  int64_t most = 0;
  for (int64_t i = 0; i < a.n_tensors;) {
    i = next_group(a, i, group);
    most = std::max(most, group.scratch);
  }
  const Tensor scratch = backend_.workspace({most}, DType::f32);
  if (backend_.planning() || !a.state->finite) return;
  for (int64_t i = 0; i < a.n_tensors;) {
    i = next_group(a, i, group);
    HWY_DYNAMIC_DISPATCH(adafactor)(a, group, scratch.data<float>());
  }
}

}  // namespace mixtape
#endif
