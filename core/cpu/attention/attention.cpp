// Attention on the CPU: scratch, and tasks for the threads. The arithmetic is in forward.cpp and backward.cpp.
//
// Segments do not overlap in backward, so a task's gradient rows are its own.
#include <cmath>
#include <limits>

#include "core/cpu/attention/problem.h"
#include "core/cpu/attention/relative.h"
#include "core/cpu/backend.h"
#include "core/cpu/gemm_tensors.h"
#include "core/cpu/parallel.h"

namespace mixtape {
namespace {

using flash::Segment;

constexpr int64_t most_key_scratch = int64_t(16) << 20;  // bytes a thread, for dK and dV of a whole segment

// The segments that are real, and how many tasks come before each.
class TaskList {
 public:
  TaskList(const Tensor& segments, const Tensor& n_segments, int64_t* starts)
      : segments_(reinterpret_cast<const Segment*>(segments.data<int32_t>())),
        count_(std::min<int64_t>(*n_segments.data<int32_t>(), segments.rows())),
        starts_(starts) {}

  int64_t segments() const { return count_; }
  const Segment& segment(int64_t s) const { return segments_[s]; }

  struct Range {
    int64_t begin, end;
  };
  Range all() const { return {0, count_}; }
  // The segments from `begin` on whose `size_of(segment)` sum up to at most `most`, and one at least.
  template <class SizeOf>
  Range batch(int64_t begin, int64_t most, SizeOf&& size_of) const {
    int64_t end = begin;
    for (int64_t size = 0; end < count_; ++end) {
      size += size_of(segments_[end]);
      if (size > most && end > begin) break;
    }
    return {begin, end};
  }

  // `tasks_of(segment)` tells how many; `body(segment's index, task in it)` runs them on all threads, in any order.
  template <class TasksOf, class Body>
  void run(Range range, TasksOf&& tasks_of, Body&& body) const {
    int64_t* starts = starts_ + range.begin;
    const int64_t n = range.end - range.begin;
    starts[0] = 0;
    for (int64_t s = 0; s < n; ++s) starts[s + 1] = starts[s] + tasks_of(segments_[range.begin + s]);
    parallel_tasks(starts[n], [&](int64_t task) {
      const int64_t s = std::upper_bound(starts, starts + n + 1, task) - starts - 1;
      body(range.begin + s, task - starts[s]);
    });
  }

 private:
  const Segment* segments_;
  int64_t count_;
  int64_t* starts_;
};

int64_t pieces(int64_t n, int64_t size) { return (n + size - 1) / size; }

void require(bool condition, const char* what) {
  if (!condition) throw Error("attention: {}", what);
}

void check_segments(const TaskList& tasks, int64_t rows_q, int64_t rows_k) {
  for (int64_t i = 0; i < tasks.segments(); ++i) {
    const Segment& s = tasks.segment(i);
    if (s.q_start < 0 || s.q_len < 0 || s.k_start < 0 || s.k_len < 0 || int64_t(s.q_start) + s.q_len > rows_q ||
        int64_t(s.k_start) + s.k_len > rows_k)
      throw Error("attention: segment {} has queries {}+{} of {} and keys {}+{} of {}", i, s.q_start, s.q_len, rows_q,
                  s.k_start, s.k_len, rows_k);
  }
}

template <class Arguments>
void describe(flash::Problem& p, const Arguments& a) {
  require(a.spec.dropout_threshold == 0 || a.state, "dropout needs the state of the step");
  p.q = flash::Rows(a.q), p.k = flash::Rows(a.k), p.v = flash::Rows(a.v), p.out = flash::Rows(a.out);
  p.lse = a.lse ? a.lse.template data<float>() : nullptr;
  p.rows_q = a.q.rows();
  p.slopes = a.slopes ? a.slopes.template data<float>() : nullptr;
  require(!(a.slopes && a.relative), "scores have one bias, slopes or relative positions");
  require(bool(a.relative) == (a.spec.relative_buckets > 0),
          "a table of relative positions goes with relative_buckets");
  p.spec = a.spec;
  p.site = a.site;
  if (a.state) p.philox = a.state->philox;
}

// Zeroes the rows that no segment covers. `covered` has a byte a row.
template <class Range>
void zero_uncovered(const Tensor& t, uint8_t* covered, const TaskList& tasks, Range&& range) {
  std::fill_n(covered, t.rows(), uint8_t(0));
  for (int64_t s = 0; s < tasks.segments(); ++s) {
    const auto [start, length] = range(tasks.segment(s));
    std::fill_n(covered + start, length, uint8_t(1));
  }
  const flash::Rows rows(t);
  parallel_for(t.rows(), 256, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      if (!covered[r]) std::fill_n(rows.at(r, 0), t.cols() * size_of(t.dtype()), std::byte(0));
  });
}

std::pair<int64_t, int64_t> query_rows(const Segment& s) { return {s.q_start, s.q_len}; }
std::pair<int64_t, int64_t> key_rows(const Segment& s) { return {s.k_start, s.k_len}; }

struct BackwardTasks {
  const flash::BackwardProblem& problem;
  const TaskList& tasks;
  int64_t keys;                // the most that a task can own
  const int64_t* tile_starts;  // the first tile of queries of each segment, where they are counted
  const Tensor& scratch;       // a row a thread
};

void backward_tasks(const BackwardTasks& b, TaskList::Range range) {
  const AttentionSpec& spec = b.problem.spec;
  // Owning a key/value head takes five products where cutting it takes seven, if that leaves no thread idle for longer.
  const int64_t owners = (range.end - range.begin) * spec.n_kv_heads, threads = thread_count();
  const bool enough = 7 * owners >= 5 * flash::round_up(owners, threads);
  const auto owned = [&](const Segment& s) { return enough && s.k_len <= b.keys; };
  const int64_t heads = spec.n_heads, kv_heads = spec.n_kv_heads, group = heads / kv_heads;
  const auto tasks_of = [&](const Segment& s) {
    if (owned(s)) return kv_heads;
    return kv_heads * pieces(s.k_len, flash::key_tile) + heads * pieces(s.q_len, flash::backward_queries);
  };
  b.tasks.run(range, tasks_of, [&](int64_t index, int64_t task) {
    const Segment& s = b.tasks.segment(index);
    const int64_t first_tile = b.tile_starts ? b.tile_starts[index] : 0;
    float* memory = b.scratch.data<float>() + omp_get_thread_num() * b.scratch.row_stride();
    if (owned(s)) {
      flash::backward(b.problem, {s, task * group, group, 0, s.q_len, 0, s.k_len, true, true, first_tile}, memory);
      return;
    }
    const int64_t key_tiles = pieces(s.k_len, flash::key_tile), query_tiles = pieces(s.q_len, flash::backward_queries);
    if (task < kv_heads * key_tiles) {
      const int64_t begin = task % key_tiles * flash::key_tile,
                    end = std::min<int64_t>(begin + flash::key_tile, s.k_len);
      flash::backward(b.problem, {s, task / key_tiles * group, group, 0, s.q_len, begin, end, false, true, first_tile},
                      memory);
    } else {
      task -= kv_heads * key_tiles;
      const int64_t begin = (query_tiles - 1 - task % query_tiles) * flash::backward_queries;
      const int64_t end = std::min<int64_t>(begin + flash::backward_queries, s.q_len);
      flash::backward(b.problem, {s, task / query_tiles, 1, begin, end, 0, s.k_len, true, false, first_tile}, memory);
    }
  });
}

}  // namespace

void CpuAttention::attention(const Attention& a) {
  const int64_t scratch_floats = flash::forward_scratch(a.spec);
  const Tensor scratch = backend_.workspace({thread_count(), scratch_floats}, DType::f32);
  const Tensor starts = backend_.workspace({a.segments.rows() + 1}, DType::i64);
  const Tensor covered = backend_.workspace({a.q.rows()}, DType::u8);
  const flash::RelativeWorkspace relative(backend_, a.spec, std::max(a.q.rows(), a.k.rows()));
  if (backend_.planning()) return;

  flash::Problem problem;
  describe(problem, a);
  problem.relative = relative.spread(a.relative, a.spec);
  const TaskList tasks(a.segments, a.n_segments, starts.data<int64_t>());
  check_segments(tasks, a.q.rows(), a.k.rows());
  zero_uncovered(a.out, covered.data<uint8_t>(), tasks, query_rows);
  if (a.lse) {
    const uint8_t* rows = covered.data<uint8_t>();
    for (int64_t i = 0; i < a.lse.count(); ++i)
      if (!rows[i % problem.rows_q]) problem.lse[i] = -std::numeric_limits<float>::infinity();
  }

  const auto decodes = [&](const Segment& s) { return s.q_len == 1 && a.spec.dropout_threshold == 0; };
  const auto tasks_of = [&](const Segment& s) {
    return decodes(s) ? a.spec.n_kv_heads : a.spec.n_heads * pieces(s.q_len, flash::forward_queries);
  };
  tasks.run(tasks.all(), tasks_of, [&](int64_t index, int64_t task) {
    const Segment& s = tasks.segment(index);
    float* memory = scratch.data<float>() + omp_get_thread_num() * scratch_floats;
    if (decodes(s)) return flash::decode(problem, {s, task}, memory);
    const int64_t tiles = pieces(s.q_len, flash::forward_queries);
    // The last queries first: causal ones see the most keys.
    const int64_t begin = (tiles - 1 - task % tiles) * flash::forward_queries;
    const int64_t end = std::min<int64_t>(begin + flash::forward_queries, s.q_len);
    flash::forward(problem, {s, task / tiles, begin, end}, memory);
  });
}

void CpuAttention::attention_backward(const AttentionBackward& a) {
  if (!a.dq && !a.dk && !a.dv && !a.drelative) return;
  // A segment's dK and dV in float32, where they are not too large; longer segments are cut.
  const int64_t row_bytes = 2 * int64_t(sizeof(float)) * flash::round_up(a.spec.head_dim, flash::widest_panel);
  const int64_t most_keys = a.spec.max_k_len > 0 ? a.spec.max_k_len : a.spec.max_q_len;
  const int64_t longest = most_keys > 0 ? std::min(most_keys, a.k.rows()) : a.k.rows();
  const int64_t keys = std::max(flash::key_tile, std::min(longest, most_key_scratch / row_bytes));
  const flash::RelativeWorkspace relative(backend_, a.spec, std::max(a.q.rows(), a.k.rows()));
  const int64_t scratch_floats = flash::backward_scratch(a.spec, keys) + flash::round_up(relative.width(), 16);
  const Tensor scratch = backend_.workspace({thread_count(), scratch_floats}, DType::f32);
  const Tensor starts = backend_.workspace({a.segments.rows() + 1}, DType::i64);
  const Tensor covered = backend_.workspace({std::max(a.q.rows(), a.k.rows())}, DType::u8);
  Tensor sums, tile_starts;
  if (a.drelative) {
    sums = flash::relative_sums(backend_, a.spec, a.q.rows(), a.segments.rows());
    tile_starts = backend_.workspace({a.segments.rows() + 1}, DType::i64);
  }
  if (backend_.planning()) return;

  flash::BackwardProblem problem;
  describe(problem, a);
  problem.relative = relative.spread(a.relative, a.spec);
  problem.dout = flash::Rows(a.dout);
  if (a.dq) problem.dq = flash::Rows(a.dq.tensor), problem.write_dq = a.dq.write;
  if (a.dk) problem.dk = flash::Rows(a.dk.tensor), problem.write_dk = a.dk.write;
  if (a.dv) problem.dv = flash::Rows(a.dv.tensor), problem.write_dv = a.dv.write;
  const TaskList tasks(a.segments, a.n_segments, starts.data<int64_t>());
  check_segments(tasks, a.q.rows(), a.k.rows());
  if (a.dq.write == Write::overwrite) zero_uncovered(a.dq.tensor, covered.data<uint8_t>(), tasks, query_rows);
  if (a.dk.write == Write::overwrite) zero_uncovered(a.dk.tensor, covered.data<uint8_t>(), tasks, key_rows);
  if (a.dv.write == Write::overwrite) zero_uncovered(a.dv.tensor, covered.data<uint8_t>(), tasks, key_rows);

  if (!a.drelative) return backward_tasks({problem, tasks, keys, nullptr, scratch}, tasks.all());

  // The table's gradient: sums of tiles, added in the order of the segments. Many short segments take several rounds.
  problem.relative_sums = sums.data<float>();
  const auto tiles_of = [](const Segment& s) { return pieces(s.q_len, flash::backward_queries); };
  Grad to = a.drelative;
  for (TaskList::Range range{0, 0}; range.end < tasks.segments();) {
    range = tasks.batch(range.end, sums.rows(), tiles_of);
    int64_t tiles = 0;
    for (int64_t s = range.begin; s < range.end; ++s) {
      tile_starts.data<int64_t>()[s] = tiles;
      tiles += tiles_of(tasks.segment(s));
    }
    backward_tasks({problem, tasks, keys, tile_starts.data<int64_t>(), scratch}, range);
    if (tiles == 0) continue;
    add_column_sums(sums.slice(0, tiles), to);
    to.write = Write::accumulate;
  }
  if (to.write == Write::overwrite) backend_.zero(to.tensor);
}

}  // namespace mixtape
