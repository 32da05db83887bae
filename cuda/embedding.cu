// Lookup of token, position and type vectors and of rows of hidden states, and the sum of gradients into them.
//
// Forward moves 2 rows d sizeof(T) bytes with tokens alone, 4 with positions and types, and is bound by memory.
// Backward sorts the rows by what they look up (stable, sort.h), and gives each run of equal ids to a block that adds
// its rows in their order; a long run to several, whose sums are then added in theirs. rows d sizeof(T) bytes read,
// each row of the table that is named written once, no atomics, the same bits every time. A table that is overwritten
// is zeroed first, which a vocabulary's gradient pays once a step.
#include "cuda/sort.h"

namespace mixtape {
namespace cuda {
namespace {

// P: the type of the positions, T or float.
template <class T, class P, int N>
struct EmbedBody {
  Rows<T> y;
  Rows<const T> tokens, types;
  Rows<const P> positions;
  const int32_t *ids, *position, *type;
  int64_t first_token, tokens_here, vocabulary, places, kinds, offset;  // of the vocabulary those here are some
  float scale;

  __device__ void operator()(int64_t row, int64_t item) const {
    const int64_t col = item * N;
    float v[N] = {}, w[N];
    require(ids[row] < vocabulary, "embedding: a token outside the vocabulary");
    const int64_t token = ids[row] - first_token;
    if (ids[row] >= 0 && token >= 0 && token < tokens_here) {
      load(v, tokens[token] + col);
#pragma unroll
      for (int i = 0; i < N; ++i) v[i] *= scale;
      if (positions) {
        const int64_t place = position[row] + offset;
        require(place >= 0 && place < places, "embedding: a position outside the table");
        load(w, positions[place] + col);
#pragma unroll
        for (int i = 0; i < N; ++i) v[i] += w[i];
      }
      if (types) {
        const int64_t kind = type ? type[row] : 0;
        require(kind >= 0 && kind < kinds, "embedding: a type outside the table");
        load(w, types[kind] + col);
#pragma unroll
        for (int i = 0; i < N; ++i) v[i] += w[i];
      }
    }
    store(y[row] + col, v);
  }
};

template <class T, int N>
struct GatherBody {
  Rows<T> y;
  Rows<const T> x;
  const int32_t* index;
  int64_t x_rows;
  __device__ void operator()(int64_t row, int64_t item) const {
    float v[N] = {};
    require(index[row] < x_rows, "gather_rows: a row that is not there");
    if (index[row] >= 0) load(v, x[index[row]] + item * N);
    store(y[row] + item * N, v);
  }
};

// Where each row's gradient goes: id + offset, or `nowhere` (a number above all) for rows that give none.
struct Target {
  const int32_t* ids;    // of this table; null: row 0 of the table
  const int32_t* guard;  // rows with a negative number here give nothing; may be null
  int64_t offset, skipped_id, rows;
  bool is_part = false;  // ids outside of the table are another rank's

  __device__ int of(int64_t row) const {
    if (guard && guard[row] < 0) return int(rows);
    const int64_t id = ids ? ids[row] : 0;
    if (id == skipped_id || (!guard && id < 0)) return int(rows);
    const bool inside = id + offset >= 0 && id + offset < rows;
    if (is_part && !inside) return int(rows);
    require(inside, "embedding_backward: an id outside the table");
    return int(id + offset);
  }
};

struct KeysBody {
  int *keys, *values;
  Target target;
  __device__ void operator()(int64_t, int64_t row) const {
    keys[row] = target.of(row);
    values[row] = int(row);
  }
};

template <class G, int N>
struct ZeroBody {
  Rows<G> table;
  __device__ void operator()(int64_t row, int64_t item) const {
    const float zeros[N] = {};
    store(table[row] + item * N, zeros);
  }
};

constexpr int scatter_threads = 128;
constexpr int64_t piece_rows = 64;  // a block adds up no more than a piece of so many sorted positions

template <class G, class T>
struct ScatterOf {
  Rows<G> table;
  Rows<const T> dy;
  // Of piece p the sums of its part of a run that began before it (row 2 p), and of a run that goes on behind (2 p +
  // 1).
  Rows<float> parts;
  const int *keys, *rows;
  int64_t n, table_rows, cols;
  float scale;
  bool accumulate;

  __device__ bool continues(int64_t i) const { return i > 0 && i < n && keys[i - 1] == keys[i]; }
};

template <int N>
__device__ inline int64_t column() {
  return (int64_t(blockIdx.y) * blockDim.x + threadIdx.x) * N;
}

// A block for each sorted position: it adds up what begins there, a run or the part of one that lies in a piece.
template <class G, class T, int N>
__global__ void __launch_bounds__(scatter_threads) scatter_kernel(ScatterOf<G, T> a) {
  const int64_t first = blockIdx.x, piece = first / piece_rows, col = column<N>();
  const int key = a.keys[first];
  const bool begins = !a.continues(first);
  if (key == a.table_rows || (!begins && first % piece_rows) || col >= a.cols) return;
  int64_t end = first + 1;
  while (end % piece_rows && a.continues(end)) ++end;
  float sum[N] = {};
#pragma unroll 4
  for (int64_t i = first; i < end; ++i) {
    float v[N];
    load(v, a.dy[a.rows[i]] + col);
#pragma unroll
    for (int j = 0; j < N; ++j) sum[j] += v[j] * a.scale;
  }
  if (begins && !a.continues(end))
    put(a.table[key] + col, sum, a.accumulate);
  else
    store(a.parts[2 * piece + begins] + col, sum);
}

// A block for each piece: the sum of the run, if any, that begins in it and goes on behind.
template <class G, class T, int N>
__global__ void __launch_bounds__(scatter_threads) join_kernel(ScatterOf<G, T> a) {
  const int64_t piece = blockIdx.x, begin = piece * piece_rows, end = begin + piece_rows, col = column<N>();
  if (!a.continues(end) || col >= a.cols) return;
  const int key = a.keys[end];
  if (key == a.table_rows || (begin > 0 && a.keys[begin - 1] == key)) return;
  float sum[N];
  load(sum, a.parts[2 * piece + 1] + col);
#pragma unroll 4
  for (int64_t p = piece + 1; p * piece_rows < a.n && a.keys[p * piece_rows] == key; ++p) {
    float v[N];
    load(v, a.parts[2 * p] + col);
#pragma unroll
    for (int j = 0; j < N; ++j) sum[j] += v[j];
  }
  put(a.table[key] + col, sum, a.accumulate);
}

template <class G, class T>
void scatter(Runtime& runtime, const Grad& to, const Tensor& dy, float scale, const Sort& sorted, const Tensor& parts) {
  const ScatterOf<G, T> a{.table = rows_of<G>(to.tensor),
                          .dy = rows_of<const T>(dy),
                          .parts = rows_of<float>(parts),
                          .keys = sorted.keys(),
                          .rows = sorted.values(),
                          .n = dy.rows(),
                          .table_rows = to.tensor.rows(),
                          .cols = to.tensor.cols(),
                          .scale = scale,
                          .accumulate = to.accumulates()};
  constexpr int width = 16 / std::max(sizeof(G), sizeof(T));
  const auto run = [&]<int N>() {
    if (!a.accumulate) elementwise(runtime, a.table_rows, a.cols / N, ZeroBody<G, N>{a.table});
    if (a.n == 0) return;
    const int64_t threads = std::min<int64_t>(scatter_threads, divide_up(a.cols / N, warp_size) * warp_size);
    const auto columns = unsigned(divide_up(a.cols / N, threads));
    launch(runtime, scatter_kernel<G, T, N>, dim3(unsigned(a.n), columns), dim3(unsigned(threads)), 0, a);
    if (a.n > piece_rows)
      launch(runtime, join_kernel<G, T, N>, dim3(unsigned(divide_up(a.n, piece_rows)), columns),
             dim3(unsigned(threads)), 0, a);
  };
  if (vectors_fit({a.n, a.cols}, width, {dy}) && vectors_fit({a.table_rows, a.cols}, width, {to.tensor}))
    run.template operator()<width>();
  else
    run.template operator()<1>();
}

// to[target(r), :] = (or +=) scale * sum of dy[r, :].
void scatter_rows(CudaBackend& backend, const char* name, const Grad& to, const Tensor& dy, float scale,
                  Target target) {
  if (!to) return;
  Sort sort(dy.rows());
  const Tensor memory = backend.workspace({sort.ints()}, DType::i32);
  const Tensor parts = backend.workspace({2 * divide_up(dy.rows(), piece_rows), dy.cols()}, DType::f32);
  if (backend.planning()) return;
  sort.bind(memory);
  target.rows = to.tensor.rows();
  elementwise(backend.runtime(), 1, dy.rows(), KeysBody{sort.keys(), sort.values(), target});
  sort.run(backend.runtime(), target.rows);
  dispatch<float, fp16, bf16>(dy.dtype(), name, [&]<class T>() {
    if (to.tensor.dtype() == dy.dtype()) return scatter<T, T>(backend.runtime(), to, dy, scale, sort, parts);
    if (to.tensor.dtype() == DType::f32) return scatter<float, T>(backend.runtime(), to, dy, scale, sort, parts);
    throw Error("{}: a gradient is {}, expected fp32 or {}", name, to.tensor.dtype(), dy.dtype());
  });
}

template <class T, class P>
void embed(Runtime& runtime, const Embed& a) {
  const EmbeddingTables& t = a.tables;
  const Extent e{a.y.rows(), a.y.cols()};
  const auto run = [&]<int N>() {
    elementwise(runtime, e.rows, e.cols / N,
                EmbedBody<T, P, N>{.y = rows_of<T>(a.y),
                                   .tokens = rows_of<const T>(t.tokens),
                                   .types = rows_of<const T>(t.types),
                                   .positions = rows_of<const P>(t.positions),
                                   .ids = data_of<int32_t>(a.ids.tokens),
                                   .position = data_of<int32_t>(a.ids.positions),
                                   .type = data_of<int32_t>(a.ids.types),
                                   .first_token = a.spec.first_token,
                                   .tokens_here = t.tokens.rows(),
                                   .vocabulary = a.spec.vocabulary ? a.spec.vocabulary : t.tokens.rows(),
                                   .places = t.positions ? t.positions.rows() : 0,
                                   .kinds = t.types ? t.types.rows() : 0,
                                   .offset = a.spec.position_offset,
                                   .scale = a.spec.scale});
  };
  // Rows of the tables are addressed whatever the number of rows of y, so their strides matter as its own do.
  dispatch_vectors<T>({std::max<int64_t>(e.rows, 2), e.cols}, {a.y, t.tokens, t.positions, t.types}, run);
}

}  // namespace
}  // namespace cuda

void CudaEmbedding::embedding(const Embed& a) {
  if (backend_.planning()) return;
  const bool wide = a.tables.positions && a.tables.positions.dtype() == DType::f32;
  dispatch<float, fp16, bf16>(a.y.dtype(), "embedding", [&]<class T>() {
    if (wide)
      cuda::embed<T, float>(backend_.runtime(), a);
    else
      cuda::embed<T, T>(backend_.runtime(), a);
  });
}

void CudaEmbedding::embedding_backward(const EmbedBackward& a) {
  const auto ids = [&](const Tensor& t) { return backend_.planning() ? nullptr : cuda::data_of<int32_t>(t); };
  const int32_t* tokens = ids(a.ids.tokens);
  const bool is_part = a.dtokens && a.dtokens.tensor.rows() < a.spec.vocabulary;
  cuda::scatter_rows(backend_, "embedding_backward", a.dtokens, a.dy, a.spec.scale,
                     {tokens, tokens, -a.spec.first_token, a.spec.pad_id, 0, is_part});
  cuda::scatter_rows(backend_, "embedding_backward", a.dpositions, a.dy, 1,
                     {ids(a.ids.positions), tokens, a.spec.position_offset, INT64_MIN, 0});
  cuda::scatter_rows(backend_, "embedding_backward", a.dtypes, a.dy, 1, {ids(a.ids.types), tokens, 0, INT64_MIN, 0});
}

void CudaEmbedding::gather_rows(const GatherRows& a) {
  if (backend_.planning()) return;
  const cuda::Extent e{a.y.rows(), a.y.cols()};
  dispatch<float, fp16, bf16>(a.y.dtype(), "gather_rows", [&]<class T>() {
    const auto run = [&]<int N>() {
      cuda::elementwise(backend_.runtime(), e.rows, e.cols / N,
                        cuda::GatherBody<T, N>{cuda::rows_of<T>(a.y), cuda::rows_of<const T>(a.x),
                                               a.index.data<int32_t>(), a.x.rows()});
    };
    constexpr int n = 16 / sizeof(T);
    if (cuda::vectors_fit(e, n, {a.y}) && cuda::vectors_fit({a.x.rows(), a.x.cols()}, n, {a.x}))
      run.template operator()<n>();
    else
      run.template operator()<1>();
  });
}

void CudaEmbedding::gather_rows_backward(const GatherRowsBackward& a) {
  const int32_t* index = backend_.planning() ? nullptr : a.index.data<int32_t>();
  cuda::scatter_rows(backend_, "gather_rows_backward", a.dx, a.dy, 1, {index, nullptr, 0, INT64_MIN, 0});
}

}  // namespace mixtape
