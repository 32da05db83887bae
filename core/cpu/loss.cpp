// Cross-entropy from hidden states.
//
// The logits of a chunk of rows are made in panels of V: a product, then in the same task, while the panel is in cache,
// bias, scale, the row's maximum m_p, e = exp(z - m_p) in place, and the sums of e. What the panels know of a row gives
// its log-sum-exp; the gradient is then e times one factor a row and panel, less the target, and goes straight into
// the panel's weight gradient. So each logit is exponentiated once, and crosses memory three times (written, read for
// dweight, read for dhidden).
//
// Chunks trade the logits' memory against reading weight, and reading and writing dweight, once a chunk.
// All partitions follow from shapes: the bits do not depend on the number of threads.
#include <cmath>
#include <limits>

#include "core/cpu/backend.h"
#include "core/cpu/gemm_tensors.h"
#include "core/cpu/loss_panels.h"
#include "core/shards.h"

namespace mixtape {
namespace {

// What a rank knows of a row: of its panels together, and the target's logit, 0 where it is another rank's.
struct RankStats {
  double sum, sum_z;
  float max, target_z;
  int32_t best;  // the token
  int32_t padding = 0;
};

constexpr int64_t most_panel_cols = 512, least_panel_cols = 64, panels_wanted = 8;
constexpr int64_t tile_rows = 256;

struct Panels {
  int64_t vocabulary, count;
  explicit Panels(int64_t v)
      : vocabulary(v),
        count(std::max((v + most_panel_cols - 1) / most_panel_cols,
                       std::min(panels_wanted, (v + least_panel_cols - 1) / least_panel_cols))) {}
  // Panels begin at multiples of 16 columns, a cache line of fp32.
  int64_t begin(int64_t i) const { return i == count ? vocabulary : vocabulary * i / count / 16 * 16; }
  int64_t cols(int64_t i) const { return begin(i + 1) - begin(i); }
  int64_t widest() const { return (vocabulary + count - 1) / count + 16; }
};

bool is_narrow(const Grad& g) { return g && g.tensor.dtype() != DType::f32; }

// Rows whose logits exist at a time: about 48 MiB of them, in chunks of equal size. A gradient of the head in 16 bits
// is summed over chunks in fp32; all logits at once take less than that where there are fewer rows than hidden
// channels.
int64_t rows_per_chunk(const CrossEntropy& a) {
  const LossSpec& spec = a.spec;
  const int64_t rows = a.hidden.rows();
  // On all ranks that share it out the same chunks.
  const int64_t vocabulary = spec.ranks ? part_of(spec.vocabulary, {0, spec.ranks->size()}).count : a.weight.rows();
  if (is_narrow(a.dweight) && spec.chunk_rows == 0 && rows <= a.hidden.cols()) return std::max<int64_t>(1, rows);
  const int64_t fit = std::clamp<int64_t>((int64_t(12) << 20) / std::max<int64_t>(vocabulary, 1), 32, 2048);
  const int64_t most = std::max<int64_t>(1, spec.chunk_rows > 0 ? spec.chunk_rows : fit);
  const int64_t chunks = std::max<int64_t>(1, (rows + most - 1) / most);
  return std::max<int64_t>(1, (rows + chunks - 1) / chunks);
}

// One call: its workspace, and the steps of a chunk.
class CrossEntropyRun {
 public:
  CrossEntropyRun(CpuBackend& backend, const CrossEntropy& a);
  void run();

 private:
  void find_targets();
  void gather(int64_t first);
  void logits();
  void row_stats();
  void share_stats();
  void row_losses();
  void weight_gradient(bool first_chunk);
  void hidden_gradient(int64_t first);
  float mean_of(const Tensor& losses) const;
  void finish();
  Panel panel(int64_t index, int64_t row, int64_t rows) const;
  bool one_chunk() const { return chunk_ >= rows_; }
  Tensor chunk_of(const Tensor& t) const { return t.slice(0, n_); }

  CpuBackend& backend_;
  const CrossEntropy& a_;
  const StepState state_;
  const int64_t rows_, d_, vocabulary_, all_tokens_;  // all: of all ranks
  const int ranks_, rank_;
  const Panels panels_;
  const bool widens_, gradients_;
  const int64_t chunk_, weight_panel_;
  const float gradient_scale_;

  RankStats* stats_of(int rank) const { return reinterpret_cast<RankStats*>(rank_stats_.raw()) + rank * n_; }

  Tensor index_, targets_, z_, g_, hidden_, stats_, target_z_;
  Tensor rank_stats_;  // RankStats [ranks, rows of the chunk]
  Tensor row_nll_;     // of all rows, where it differs from the row's loss
  Tensor weight_wide_, weight_panel_wide_, dhidden_, dweight_, dbias_;
  int64_t found_ = 0;                // rows with a target
  int64_t n_ = 0;                    // rows of the current chunk
  Tensor h_;                         // its hidden states, as the products take them
  const int32_t* row_of_ = nullptr;  // where they are in `hidden`
};

int64_t padded(int64_t cols) {  // rows that do not all fall into the same sets of the caches
  const int64_t c = (cols + 15) / 16 * 16;
  return c % 512 == 0 ? c + 16 : c;
}

CrossEntropyRun::CrossEntropyRun(CpuBackend& backend, const CrossEntropy& a)
    : backend_(backend),
      a_(a),
      state_(a.state ? *a.state : StepState{}),
      rows_(a.hidden.rows()),
      d_(a.hidden.cols()),
      vocabulary_(a.weight.rows()),
      all_tokens_(a.spec.vocabulary ? a.spec.vocabulary : vocabulary_),
      ranks_(a.spec.ranks ? a.spec.ranks->size() : 1),
      rank_(a.spec.ranks ? a.spec.ranks->rank() : 0),
      panels_(vocabulary_),
      widens_(!multiplied_as_is(a.hidden.dtype())),
      gradients_(a.dhidden || a.dweight || a.dbias),
      chunk_(rows_per_chunk(a)),
      weight_panel_(panel_rows(vocabulary_, d_, chunk_)),
      gradient_scale_(state_.loss_scale * state_.inverse_targets * a.spec.logit_scale) {
  const DType product = widens_ ? DType::f32 : a.hidden.dtype();
  const auto need = [&](Shape shape, DType type) { return backend.workspace(shape, type); };
  index_ = need({rows_}, DType::i32);
  targets_ = need({chunk_}, DType::i32);
  z_ = need({chunk_, padded(vocabulary_)}, DType::f32);
  hidden_ = need({chunk_, d_}, product);
  stats_ = need({chunk_, panels_.count * int64_t(sizeof(PanelStats) / sizeof(float))}, DType::f32);
  target_z_ = need({chunk_}, DType::f32);
  rank_stats_ = need({ranks_ * chunk_, int64_t(sizeof(RankStats))}, DType::u8);
  if (a.nll && a.spec.label_smoothing != 0) row_nll_ = need({rows_}, DType::f32);
  if (widens_) weight_wide_ = need({thread_count() * panels_.widest(), d_}, DType::f32);
  if (!gradients_) return;
  if (product != DType::f32) g_ = need({chunk_, padded(vocabulary_)}, product);
  if (widens_ && a.dhidden) weight_panel_wide_ = need({weight_panel_, d_}, DType::f32);
  if (a.dhidden) dhidden_ = need({chunk_, d_}, DType::f32);
  if (is_narrow(a.dweight))
    dweight_ = need({one_chunk() ? thread_count() * panels_.widest() : vocabulary_, d_}, DType::f32);
  if (a.dbias) dbias_ = need({1, vocabulary_}, DType::f32);
}

// The rows with a target, in order; the others' results.
void CrossEntropyRun::find_targets() {
  const int32_t* targets = a_.targets.data<int32_t>();
  int32_t* index = index_.data<int32_t>();
  float* losses = a_.row_loss.data<float>();
  for (int64_t r = 0; r < rows_; ++r) {
    if (targets[r] >= all_tokens_)
      throw DataError("cross_entropy: the target of row {} is {}, but the vocabulary has {} tokens", r, targets[r],
                      all_tokens_);
    losses[r] = 0;
    if (a_.predictions) a_.predictions.data<int32_t>()[r] = -1;
    if (row_nll_) row_nll_.data<float>()[r] = 0;
    if (targets[r] >= 0) index[found_++] = int32_t(r);
  }
  if (found_ < rows_ && a_.dhidden.write == Write::overwrite) backend_.zero(a_.dhidden.tensor);
}

void CrossEntropyRun::gather(int64_t first) {
  n_ = std::min(chunk_, found_ - first);
  const int32_t* row = row_of_ = index_.data<int32_t>() + first;
  const auto first_token = int32_t(a_.spec.first_token);
  for (int64_t i = 0; i < n_; ++i) {
    targets_.data<int32_t>()[i] = a_.targets.data<int32_t>()[row[i]] - first_token;
    target_z_.data<float>()[i] = 0;  // unless a panel has it
  }
  if (!widens_ && found_ == rows_) {
    h_ = a_.hidden.slice(first, n_);
    return;
  }
  h_ = hidden_.slice(0, n_);
  parallel_for(n_, row_grain(d_), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) copy_block(Block(h_).at(i, 0), Block(a_.hidden).at(row[i], 0), 1, d_);
  });
}

Panel CrossEntropyRun::panel(int64_t index, int64_t row, int64_t rows) const {
  const int64_t col = panels_.begin(index);
  return {.rows = rows,
          .cols = panels_.cols(index),
          .z = z_.data<float>() + row * z_.row_stride() + col,
          .stride = z_.row_stride(),
          .bias = a_.bias ? a_.bias.raw() + col * size_of(a_.bias.dtype()) : nullptr,
          .targets = targets_.data<int32_t>() + row,
          .stats = reinterpret_cast<PanelStats*>(stats_.data<float>()) + row * panels_.count + index,
          .stats_stride = panels_.count,
          .target_z = target_z_.data<float>() + row,
          .type = a_.weight.dtype(),
          .logit_scale = a_.spec.logit_scale,
          .first_col = col,
          .finds_best = bool(a_.predictions)};
}

void CrossEntropyRun::logits() {
  const int64_t down = (n_ + tile_rows - 1) / tile_rows;
  parallel_tiles(panels_.count * down, [&](int64_t task) {
    const int64_t index = task / down, row = n_ * (task % down) / down, rows = n_ * (task % down + 1) / down - row;
    const Panel p = panel(index, row, rows);
    Block weight = Block(a_.weight).at(p.first_col, 0);
    if (widens_) {
      const Block wide = Block(weight_wide_).at(omp_get_thread_num() * panels_.widest(), 0);
      copy_block(wide, weight, p.cols, d_);
      weight = wide;
    }
    gemm_here({.transpose_b = true,
               .m = rows,
               .n = p.cols,
               .k = d_,
               .a = Block(h_).at(row, 0).data,
               .lda = h_.row_stride(),
               .b = weight.data,
               .ldb = weight.stride,
               .c = p.z,
               .ldc = p.stride,
               .type = weight.type});
    exponentials(p);
  });
}

// Joins what the panels know of a row, in their order.
void CrossEntropyRun::row_stats() {
  RankStats* here = stats_of(rank_);
  parallel_for(n_, 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const PanelStats* stats = panel(0, i, 1).stats;
      float max = -std::numeric_limits<float>::infinity();
      int64_t best = 0;
      for (int64_t p = 0; p < panels_.count; ++p)
        if (stats[p].max > max) max = stats[p].max, best = p;
      double sum = 0, sum_z = 0;
      for (int64_t p = 0; p < panels_.count; ++p) {
        sum += double(stats[p].sum) * std::exp(double(stats[p].max) - max);
        sum_z += stats[p].sum_z;
      }
      const int64_t token = a_.spec.first_token + panels_.begin(best) + stats[best].best;
      here[i] = {sum, sum_z, max, target_z_.data<float>()[i], int32_t(token)};
    }
  });
}

void CrossEntropyRun::share_stats() {
  if (!a_.spec.ranks) return;
  const std::vector<int64_t> bytes(size_t(ranks_), n_ * int64_t(sizeof(RankStats)));
  const Tensor all(rank_stats_.raw(), {ranks_ * bytes[0]}, DType::u8);
  a_.spec.ranks->wait(a_.spec.ranks->all_gather(all, bytes));
}

// Joins what the ranks know of a row, in their order, and turns it into the gradient's factors.
void CrossEntropyRun::row_losses() {
  const float smoothing = a_.spec.label_smoothing;
  parallel_for(n_, 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      RankStats all = stats_of(0)[i];
      for (int r = 1; r < ranks_; ++r) {
        const RankStats& next = stats_of(r)[i];
        const double max = std::max(all.max, next.max);
        all.sum = all.sum * std::exp(all.max - max) + next.sum * std::exp(next.max - max);
        if (next.max > all.max) all.max = next.max, all.best = next.best;
        all.sum_z += next.sum_z, all.target_z += next.target_z;
      }
      if (a_.predictions) a_.predictions.data<int32_t>()[row_of_[i]] = all.best;
      const double log_sum = all.max + std::log(all.sum);
      if (row_nll_) row_nll_.data<float>()[row_of_[i]] = float(log_sum - all.target_z);
      double loss = log_sum - (1.0 - smoothing) * all.target_z;
      if (smoothing != 0) loss -= smoothing * all.sum_z / double(all_tokens_);
      a_.row_loss.data<float>()[row_of_[i]] = float(loss);
      PanelStats* stats = panel(0, i, 1).stats;
      for (int64_t p = 0; p < panels_.count; ++p)
        stats[p].factor = float(std::exp(double(stats[p].max) - log_sum) * gradient_scale_);
    }
  });
}

void CrossEntropyRun::weight_gradient(bool first_chunk) {
  const Tensor g = g_ ? g_ : z_;
  const bool rounds_panels = dweight_ && one_chunk();
  const Tensor to = dweight_ ? dweight_ : a_.dweight.tensor;
  const bool adds = !first_chunk || (!dweight_ && a_.dweight.accumulates());
  parallel_tiles(panels_.count, [&](int64_t index) {
    const Panel p = panel(index, 0, n_);
    float* sums = dbias_ ? dbias_.data<float>() + p.first_col : nullptr;
    if (sums && first_chunk) std::fill_n(sums, p.cols, 0.f);
    const Block out = Block(g).at(0, p.first_col);
    panel_gradient(p, {.uniform = gradient_scale_ * a_.spec.label_smoothing / float(all_tokens_),
                       .target = gradient_scale_ * (1 - a_.spec.label_smoothing),
                       .g = out.data,
                       .stride = out.stride,
                       .type = out.type,
                       .column_sums = sums});
    if (!a_.dweight) return;
    const Block place = Block(to).at(rounds_panels ? omp_get_thread_num() * panels_.widest() : p.first_col, 0);
    gemm_here({.transpose_a = true,
               .m = p.cols,
               .n = d_,
               .k = n_,
               .a = out.data,
               .lda = out.stride,
               .b = h_.raw(),
               .ldb = h_.row_stride(),
               .beta = adds ? 1.f : 0.f,
               .c = place.row<float>(0),
               .ldc = place.stride,
               .type = out.type});
    if (rounds_panels)
      copy_block(Block(a_.dweight.tensor).at(p.first_col, 0), place, p.cols, d_, a_.dweight.accumulates());
  });
}

void CrossEntropyRun::hidden_gradient(int64_t first) {
  const Tensor g = (g_ ? g_ : z_).slice(0, n_);
  const bool direct = found_ == rows_ && a_.dhidden.tensor.dtype() == DType::f32;
  const Tensor to = direct ? a_.dhidden.tensor.slice(first, n_) : dhidden_.slice(0, n_);
  for (int64_t v = 0; v < vocabulary_; v += weight_panel_) {
    const int64_t count = std::min(weight_panel_, vocabulary_ - v);
    const int64_t step = weight_panel_wide_ ? count : vocabulary_;
    const Tensor weight = widened(a_.weight.slice(v, step), weight_panel_wide_);
    Gemm product =
        product_of(g.columns(v, step), false, weight, false, to, v > 0 || (direct && a_.dhidden.accumulates()));
    product.most_m = chunk_;
    gemm(product, backend_.determinism());
    if (step == vocabulary_) break;
  }
  if (direct) return;
  const int32_t* row = row_of_;
  parallel_for(n_, row_grain(d_), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      copy_block(Block(a_.dhidden.tensor).at(row[i], 0), Block(to).at(i, 0), 1, d_, a_.dhidden.accumulates());
  });
}

float CrossEntropyRun::mean_of(const Tensor& losses) const {
  double sum = 0;  // in the rows' order
  for (int64_t r = 0; r < rows_; ++r) sum += losses.data<float>()[r];
  return float(sum * state_.inverse_targets);
}

// The means, and gradients that were summed in fp32 for a narrower type.
void CrossEntropyRun::finish() {
  const float mean = *a_.mean.data<float>() = mean_of(a_.row_loss);
  if (a_.nll) *a_.nll.data<float>() = row_nll_ ? mean_of(row_nll_) : mean;
  if (found_ == 0) {
    if (a_.dweight.write == Write::overwrite) backend_.zero(a_.dweight.tensor);
    if (a_.dbias.write == Write::overwrite) backend_.zero(a_.dbias.tensor);
    return;
  }
  if (dweight_ && !one_chunk()) copy_rows(dweight_, a_.dweight);
  if (dbias_) add_column_sums(dbias_, a_.dbias);
}

void CrossEntropyRun::run() {
  find_targets();
  for (int64_t first = 0; first < found_; first += chunk_) {
    gather(first);
    logits();
    row_stats();
    share_stats();
    row_losses();
    if (!gradients_) continue;
    weight_gradient(first == 0);
    if (a_.dhidden) hidden_gradient(first);
  }
  finish();
}

}  // namespace

void CpuLoss::cross_entropy(const CrossEntropy& a) {
  CrossEntropyRun run(backend_, a);
  if (backend_.planning()) return;
  run.run();
}

}  // namespace mixtape
