// Softmax attention over segments, blocked: no path stores a matrix of queries times keys.
//
//   s[i, j] = scale * q[i] . k[j] + bias_h(j - i')               where key j is visible from query i
//   p = softmax over visible j;  out[i] = sum_j dropout(p[i, j]) v[j]
//
// Rows are tokens, all sequences one after another. A segment is a document (or a whole sequence): queries of a segment
// see keys of the same segment only. With i and j counted inside a segment and i' = i + k_len - q_len (the two ends
// aligned), key j is visible from query i if j <= i' when causal, and j > i' - window when window > 0 (for
// bidirectional attention |j - i'| < window). A query that sees no key gives 0 and lse = -inf. Query head h reads
// key/value head h / (n_heads / n_kv_heads). Source: FlashAttention-2 (arXiv 2307.08691).
//
// The bias is none, or ALiBi's (arXiv 2108.12409), slope_h * (j - i'), or T5's (arXiv 1910.10683), learned:
// table[relative_bucket(j - i'), h].
//
// Dropout: element (i, j) of head h, i and j being *rows of the q and k tensors*, has byte
// 4 ((j % 32) / 8) + 2 ((i % 16) / 8) + j % 2 of philox(key, ((i / 16) * n_heads + h) << 32 | ((j / 32) * 32 + 4 (i %
// 8)
// + (j % 8) / 2), site, Purpose::attention_dropout), and is dropped if that is below the threshold; kept ones are
// scaled by 1 / (1 - threshold / 256).
#pragma once

#include "core/backend.h"
#include "core/tape.h"

namespace mixtape {

struct AttentionSpec {
  int64_t n_heads = 0, n_kv_heads = 0, head_dim = 0;
  float scale = 0;
  bool causal = true;
  int64_t window = 0;         // 0 means no limit
  int dropout_threshold = 0;  // p = threshold / 256
  int64_t max_q_len = 0;      // the most queries a segment can have: a capacity, for scheduling only
  int64_t max_k_len = 0;      // the most keys; 0: as many as queries
  // T5's bias, if there are buckets: how many, and the distance from which on all keys share the last one.
  int64_t relative_buckets = 0, relative_distance = 0;
  // Where ranks share out the heads: the number of the first here, and of all; 0: all are here. Dropout counts by them.
  int64_t first_head = 0, all_heads = 0;
  int64_t heads_of_all() const { return all_heads ? all_heads : n_heads; }
};

// qkv: [rows, (n_heads + 2 n_kv_heads) head_dim], q of all heads, then k, then v. segments: int32 [capacity, 4],
// {q_start, q_len, k_start, k_len} in rows; n_segments: int32 [1], how many are real. bias: ALiBi's slopes, float32
// [n_heads]; with spec.relative_buckets T5's table [relative_buckets, n_heads], to which gradients flow; or absent.
// Rows in no segment give 0. Returns [rows, n_heads * head_dim].
Tensor attention(Tape& tape, const Tensor& qkv, const Tensor& segments, const Tensor& n_segments, const Tensor& bias,
                 const AttentionSpec& spec);

// Cross-attention: queries from one sequence (a decoder's rows), keys and values from another (the encoder's output).
// q: [rows_q, n_heads head_dim]; kv: [rows_k, 2 n_kv_heads head_dim], k of all heads, then v. Segments pair a range of
// queries with a range of keys, of any lengths; no two pairs share a key. Returns a tensor like q.
Tensor cross_attention(Tape& tape, const Tensor& q, const Tensor& kv, const Tensor& segments, const Tensor& n_segments,
                       const AttentionSpec& spec);

// ALiBi's slopes, float32, for any number of heads.
void alibi_slopes(float* slopes, int64_t n_heads);

// T5's bucket for a key `relative` = j - i' behind its query, computed in float32 as Hugging Face does. Half of the
// buckets (a quarter for each direction, if the attention is bidirectional) hold one distance each, the others grow
// with its logarithm up to spec.relative_distance. Causal attention has buckets for relative <= 0 alone.
int64_t relative_bucket(int64_t relative, const AttentionSpec& spec);

// What a device provides. q: [rows_q, n_heads D]; k, v: [rows_k, n_kv_heads D], views with a row stride; out as q;
// lse: float32 [n_heads, rows_q], log of the sum of exp(s), natural. slopes and relative (T5's table) may be absent.
struct Attention {
  Tensor out, lse, q, k, v, segments, n_segments, slopes, relative;
  AttentionSpec spec;
  uint32_t site = 0;
  const StepState* state = nullptr;
};
struct AttentionBackward {
  Grad dq, dk, dv, drelative;
  Tensor dout, out, lse, q, k, v, segments, n_segments, slopes, relative;
  AttentionSpec spec;
  uint32_t site = 0;
  const StepState* state = nullptr;
};

class AttentionKernels {
 public:
  virtual ~AttentionKernels() = default;
  virtual void attention(const Attention&) = 0;
  // Gradient rows in no segment become 0 (or stay, when accumulating).
  virtual void attention_backward(const AttentionBackward&) = 0;
};

}  // namespace mixtape
