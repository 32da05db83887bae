// Lookup of token, position and type vectors and of rows of hidden states, and the sum of gradients into them.
//
// Backward gives each thread a range of columns and lets it walk all tokens in their order: every element of a table is
// added to in one order whatever the number of threads, nothing is sorted, and frequent tokens unbalance nothing.
#include "core/cpu/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/embedding.cpp"
#include "hwy/foreach_target.h"
//
#include "core/cpu/backend.h"
#include "core/cpu/rows.h"
#include "core/cpu/simd.h"

#ifndef MIXTAPE_CPU_EMBEDDING_ONCE
#define MIXTAPE_CPU_EMBEDDING_ONCE
namespace mixtape {
namespace {
constexpr int64_t strip_cols = 32;

// Which row of a table of `rows` was looked up for row r of dy: index[r] + offset, or row 0 where there is no index. -1
// is none: what `present` says is not there, the padding token, and rows of other ranks' parts of the table.
struct Lookup {
  const int32_t *present, *index;
  int64_t offset, rows;
  int64_t pad_id = -1;

  int64_t operator()(int64_t r) const {
    if (present[r] < 0) return -1;
    if (!index) return 0;
    const int64_t row = index[r] + offset;
    return index[r] == pad_id || row < 0 || row >= rows ? -1 : row;
  }
};
}  // namespace
}  // namespace mixtape
#endif

HWY_BEFORE_NAMESPACE();
namespace mixtape::HWY_NAMESPACE {
namespace {

// P: the type of the positions, T or float.
template <class T, class P>
void embed_rows(const Embed& a, int64_t begin, int64_t end) {
  const int64_t d = a.y.cols();
  const int32_t* ids = a.ids.tokens.data<int32_t>();
  const int32_t* position = a.tables.positions ? a.ids.positions.data<int32_t>() : nullptr;
  const int32_t* type = a.ids.types ? a.ids.types.data<int32_t>() : nullptr;
  const Rows<const T> tokens(a.tables.tokens), types(a.tables.types);
  const Rows<const P> positions(a.tables.positions);
  const Rows<T> y(a.y);
  const Vec scale = set(a.spec.scale);
  const int64_t first = a.spec.first_token, n_tokens = a.tables.tokens.rows();
  for (int64_t r = begin; r < end; ++r) {
    T* out = y[r];
    if (ids[r] < first || ids[r] >= first + n_tokens) {  // none, or another rank's
      std::fill(out, out + d, T(0.f));
      continue;
    }
    const T* token = tokens[ids[r] - first];
    const P* place = position ? positions[position[r] + a.spec.position_offset] : nullptr;
    const T* kind = types ? types[type ? type[r] : 0] : nullptr;
    each_vector(d, [&](auto w, int64_t i) HWY_ATTR {
      Vec v = hn::Mul(w.load(token + i), scale);
      if (place) v = hn::Add(v, w.load(place + i));
      if (kind) v = hn::Add(v, w.load(kind + i));
      w.store(v, out + i);
    });
  }
}

template <class T>
void gather(const GatherRows& a) {
  const int64_t d = a.y.cols();
  const int32_t* index = a.index.data<int32_t>();
  const Rows<const T> x(a.x);
  const Rows<T> y(a.y);
  parallel_for(a.y.rows(), row_grain(d), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      if (index[i] < 0)
        std::fill(y[i], y[i] + d, T(0.f));
      else
        std::copy(x[index[i]], x[index[i]] + d, y[i]);
  });
}

// Adds scale * dy[r, c] to columns [begin, end) of row row_of(r) of the table, for all r in order.
template <class G, class T>
void scatter_columns(const Rows<G>& table, const Rows<const T>& dy, int64_t n, float scale, const Lookup& row_of,
                     int64_t begin, int64_t end) {
  const Vec factor = set(scale);
  for (int64_t r = 0; r < n; ++r) {
    const int64_t row = row_of(r);
    if (row < 0) continue;
    const T* from = dy[r] + begin;
    G* to = table[row] + begin;
    each_vector(end - begin, [&](auto w, int64_t i)
                                 HWY_ATTR { w.store(hn::MulAdd(w.load(from + i), factor, w.load(to + i)), to + i); });
  }
}

template <class G, class T>
void scatter(const Grad& to, const Tensor& dy, float scale, const Lookup& row_of) {
  const Rows<G> table(to.tensor);
  const int64_t d = to.tensor.cols();
  if (!to.accumulates())
    parallel_for(to.tensor.rows(), row_grain(d), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) std::fill(table[r], table[r] + d, G(0.f));
    });
  constexpr int64_t line = 32;  // columns that lie in one or two cache lines, not to be shared between threads
  const int64_t grain = row_grain(dy.rows() * line);
  parallel_for((d + line - 1) / line, grain, [&](int64_t begin, int64_t end) {
    scatter_columns<G, T>(table, Rows<const T>(dy), dy.rows(), scale, row_of, begin * line, std::min(d, end * line));
  });
}

// A table of 16 bits: columns at a time are summed in float32, so that an element is rounded once however often its row
// is looked up. `strips`: float32 [threads, rows of a table * strip_cols].
template <class T>
void scatter_rounded_once(const Grad& to, const Tensor& dy, float scale, const Lookup& row_of, const Tensor& strips) {
  const Rows<T> table(to.tensor);
  const int64_t n_rows = to.tensor.rows(), d = to.tensor.cols();
  parallel_tasks((d + strip_cols - 1) / strip_cols, [&](int64_t strip) {
    Rows<float> sums;
    sums.data = strips.data<float>() + omp_get_thread_num() * strips.cols();
    sums.stride = strip_cols;
    const int64_t begin = strip * strip_cols, n = std::min(strip_cols, d - begin);
    for (int64_t r = 0; r < n_rows; ++r)
      each_vector(n, [&](auto w, int64_t i)
                         HWY_ATTR { w.store(to.accumulates() ? w.load(table[r] + begin + i) : set(0), sums[r] + i); });
    const Tensor columns = dy.columns(begin, n);
    scatter_columns<float, T>(sums, Rows<const T>(columns), dy.rows(), scale, row_of, 0, n);
    for (int64_t r = 0; r < n_rows; ++r)
      each_vector(n, [&](auto w, int64_t i) HWY_ATTR { w.store(w.load(sums[r] + i), table[r] + begin + i); });
  });
}

template <class T>
void scatter_table(const Grad& to, const Tensor& dy, float scale, const Lookup& row_of, const Tensor& strips) {
  if (!to) return;
  if (to.tensor.dtype() == DType::f32) return scatter<float, T>(to, dy, scale, row_of);
  if (to.tensor.dtype() == dy.dtype()) return scatter_rounded_once<T>(to, dy, scale, row_of, strips);
  throw Error("embedding: a gradient is {}, expected fp32 or {}", to.tensor.dtype(), dy.dtype());
}

template <class T>
void scatter_any(const Grad& to, const Tensor& dy, float scale, const Lookup& row_of) {
  if (!to) return;
  if (to.tensor.dtype() == dy.dtype()) return scatter<T, T>(to, dy, scale, row_of);
  if (to.tensor.dtype() == DType::f32) return scatter<float, T>(to, dy, scale, row_of);
  throw Error("gather_rows: a gradient is {}, expected fp32 or {}", to.tensor.dtype(), dy.dtype());
}

}  // namespace

void embedding(const Embed& a) {
  const bool wide = a.tables.positions && a.tables.positions.dtype() == DType::f32;
  dispatch<float, fp16, bf16>(a.y.dtype(), "embedding", [&]<class T>() {
    const auto rows = wide ? embed_rows<T, float> : embed_rows<T, T>;
    parallel_for(a.y.rows(), row_grain(a.y.cols()), [&](int64_t begin, int64_t end) { rows(a, begin, end); });
  });
}

void embedding_backward(const EmbedBackward& a, const Tensor& strips) {
  const int32_t* ids = a.ids.tokens.data<int32_t>();
  const int32_t* position = a.dpositions ? a.ids.positions.data<int32_t>() : nullptr;
  const int32_t* type = a.ids.types ? a.ids.types.data<int32_t>() : nullptr;
  const auto rows = [](const Grad& table) { return table ? table.tensor.rows() : 0; };
  const Lookup tokens{ids, ids, -a.spec.first_token, rows(a.dtokens), a.spec.pad_id};
  const Lookup positions{ids, position, a.spec.position_offset, rows(a.dpositions)};
  const Lookup types{ids, type, 0, rows(a.dtypes)};
  dispatch<float, fp16, bf16>(a.dy.dtype(), "embedding_backward", [&]<class T>() {
    scatter_table<T>(a.dtokens, a.dy, a.spec.scale, tokens, strips);
    scatter_table<T>(a.dpositions, a.dy, 1, positions, strips);
    scatter_table<T>(a.dtypes, a.dy, 1, types, strips);
  });
}

void gather_rows(const GatherRows& a) {
  dispatch<float, fp16, bf16>(a.y.dtype(), "gather_rows", [&]<class T>() { gather<T>(a); });
}

void gather_rows_backward(const GatherRowsBackward& a) {
  const int32_t* index = a.index.data<int32_t>();
  dispatch<float, fp16, bf16>(a.dy.dtype(), "gather_rows_backward", [&]<class T>() {
    scatter_any<T>(a.dx, a.dy, 1, {index, index, 0, a.dx ? a.dx.tensor.rows() : 0});
  });
}

}  // namespace mixtape::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mixtape {

HWY_EXPORT(embedding);
HWY_EXPORT(embedding_backward);
HWY_EXPORT(gather_rows);
HWY_EXPORT(gather_rows_backward);

namespace {

// A lookup outside a table would read or write foreign memory; the ids come from files.
void check_lookups(const Embed& a) {
  const int32_t* ids = a.ids.tokens.data<int32_t>();
  const int32_t* position = a.tables.positions ? a.ids.positions.data<int32_t>() : nullptr;
  const int32_t* type = a.tables.types && a.ids.types ? a.ids.types.data<int32_t>() : nullptr;
  const int64_t vocabulary = a.spec.vocabulary ? a.spec.vocabulary : a.tables.tokens.rows();
  for (int64_t r = 0; r < a.y.rows(); ++r) {
    if (ids[r] < 0) continue;
    if (ids[r] >= vocabulary)
      throw DataError("embedding: token {} in row {}, expected less than the vocabulary's {}", ids[r], r, vocabulary);
    if (type && (type[r] < 0 || type[r] >= a.tables.types.rows()))
      throw DataError("embedding: token type {} in row {}, but the model has {} types", type[r], r,
                      a.tables.types.rows());
    if (!position) continue;
    const int64_t place = position[r] + a.spec.position_offset;
    if (place < 0 || place >= a.tables.positions.rows())
      throw DataError("embedding: position {} in row {}, but the table has {} rows (the first {} are reserved)",
                      position[r], r, a.tables.positions.rows(), a.spec.position_offset);
  }
}

}  // namespace

void CpuEmbedding::embedding(const Embed& a) {
  if (backend_.planning()) return;
  check_lookups(a);
  HWY_DYNAMIC_DISPATCH(embedding)(a);
}

void CpuEmbedding::embedding_backward(const EmbedBackward& a) {
  int64_t rows = 0;  // of the largest table of 16 bits
  for (const Grad* table : {&a.dtokens, &a.dpositions, &a.dtypes})
    if (*table && table->tensor.dtype() != DType::f32) rows = std::max(rows, table->tensor.rows());
  Tensor strips;
  if (rows > 0) strips = backend_.workspace({thread_count(), rows * strip_cols}, DType::f32);
  if (backend_.planning()) return;
  HWY_DYNAMIC_DISPATCH(embedding_backward)(a, strips);
}

void CpuEmbedding::gather_rows(const GatherRows& a) {
  if (backend_.planning()) return;
  const int32_t* index = a.index.data<int32_t>();
  for (int64_t i = 0; i < a.y.rows(); ++i)
    if (index[i] >= a.x.rows()) throw Error("gather_rows: row {} of {} is asked for", index[i], a.x.rows());
  HWY_DYNAMIC_DISPATCH(gather_rows)(a);
}

void CpuEmbedding::gather_rows_backward(const GatherRowsBackward& a) {
  if (backend_.planning()) return;
  HWY_DYNAMIC_DISPATCH(gather_rows_backward)(a);
}

}  // namespace mixtape
#endif
