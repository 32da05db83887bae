#include "core/cpu/gemm_choices.h"

#include <limits>
#include <map>
#include <mutex>
#include <sstream>
#include <tuple>
#include <vector>

#include "core/base/clock.h"
#include "core/cpu/parallel.h"

namespace mixtape {
namespace {

struct Key {
  bool transpose_a, transpose_b, bf16, adds;
  int64_t m, n, k;
  auto fields() const { return std::tie(m, n, k, transpose_a, transpose_b, bf16, adds); }
  bool operator<(const Key& other) const { return fields() < other.fields(); }
};

Key key_of(const Gemm& p) { return {p.transpose_a, p.transpose_b, p.type == DType::bf16, p.beta != 0, p.m, p.n, p.k}; }

struct Table {
  std::mutex mutex;
  std::map<Key, GemmChoice> choices;
};

Table& table() {
  static Table t;
  return t;
}

int parts(int64_t extent, int64_t most) { return int(std::max<int64_t>(1, (extent + most - 1) / most)); }

// Parts of C of at most 256 x 512, which stay in the second-level cache; fewer than `least` are halved along their
// longer side while that leaves 96 or more, and many columns, or else rows, are cut into a multiple of `least`, so that
// up to `least` threads have equally much to do.
GemmChoice partition(const Gemm& p, int least) {
  GemmChoice c{.row_parts = parts(p.m, 256), .col_parts = parts(p.n, 512)};
  while (c.row_parts * c.col_parts < least) {
    const int64_t rows = p.m / c.row_parts, cols = p.n / c.col_parts;
    if (std::max(rows, cols) < 192) break;
    (cols >= rows ? c.col_parts : c.row_parts) *= 2;
  }
  const int64_t tiles = int64_t(c.row_parts) * c.col_parts;
  if (tiles > least && tiles < 8 * least) {
    const auto rounded = [&](int parts) { return (parts + least - 1) / least * least; };
    if (p.n / rounded(c.col_parts) >= 96)
      c.col_parts = rounded(c.col_parts);
    else if (tiles % least != 0 && p.m / rounded(c.row_parts) >= 96)
      c.row_parts = rounded(c.row_parts);
  }
  return c;
}

// The product cut down to about a GFLOP along the longer side of C, with a partition of the same tile sizes.
Gemm reduced(const Gemm& p, double& share) {
  const double flops = 2.0 * p.m * p.n * p.k, most = 1e9;
  Gemm small = p;
  share = std::min(1.0, most / flops);
  int64_t& side = p.m >= p.n ? small.m : small.n;
  side = std::min(side, std::max<int64_t>(int64_t(double(side) * share), 256));
  share = double(side) / double(std::max(p.m, p.n));
  return small;
}

GemmChoice scaled(GemmChoice choice, const Gemm& p, double share) {
  int& side = p.m >= p.n ? choice.row_parts : choice.col_parts;
  side = std::max(1, int(side * share + 0.5));
  return choice;
}

std::vector<GemmChoice> candidates(const Gemm& p) {
  const int threads = thread_count();
  std::vector<GemmChoice> list;
  const auto offer = [&](GemmChoice c) {
    if (std::find(list.begin(), list.end(), c) == list.end()) list.push_back(c);
  };
  for (GemmLibrary library : {GemmLibrary::openblas, GemmLibrary::onednn}) {
    if (p.type == DType::bf16 && library == GemmLibrary::openblas) continue;
    GemmChoice tiles = partition(p, threads);
    tiles.library = library;
    offer(tiles);
    if (threads > 1) offer({.library = library, .own_threads = true});
  }
  return list;
}

// Five rounds, alternating, after one that warms up. The first candidate, tiles of OpenBLAS, is left only for one that
// was faster in all rounds but one, and by 4 % in the best: a disturbed machine must not make a bad choice that a run
// then keeps. Who is a quarter slower after a round is not asked again. C is scratch memory of our own: the real
// product is computed once, by the choice.
GemmChoice measure(const Gemm& p) {
  constexpr int rounds = 5;
  const std::vector<GemmChoice> list = candidates(p);
  if (list.size() == 1) return list[0];
  double share = 1;
  Gemm small = reduced(p, share);
  std::vector<float> scratch(small.m * small.n, 0.f);
  small.c = scratch.data();
  small.ldc = small.n;
  // A product of less than a millisecond says little by itself.
  const int calls = int(std::clamp(2e8 / (2.0 * small.m * small.n * small.k), 1.0, 100.0));
  const auto time = [&](size_t i) {
    const double start = now_seconds();
    for (int call = 0; call < calls; ++call) run_gemm(small, scaled(list[i], p, share));
    return now_seconds() - start;
  };
  for (size_t i = 0; i < list.size(); ++i) time(i);
  std::vector<double> best(list.size(), std::numeric_limits<double>::infinity());
  std::vector<int> wins(list.size(), 0);
  for (int round = 0; round < rounds; ++round) {
    const double first = time(0);
    best[0] = std::min(best[0], first);
    for (size_t i = 1; i < list.size(); ++i) {
      if (round > 0 && best[i] > 1.25 * best[0]) continue;
      const double t = time(i);
      best[i] = std::min(best[i], t);
      wins[i] += t < first;
    }
  }
  size_t chosen = 0;
  for (size_t i = 1; i < list.size(); ++i)
    if (wins[i] >= rounds - 1 && 1.04 * best[i] < best[0] && best[i] < best[chosen]) chosen = i;
  return list[chosen];
}

std::string line_of(const Key& key, const GemmChoice& c) {
  return fmt::format("{}{} {} {} {} {}{} {} {}\n", key.transpose_a ? 't' : 'n', key.transpose_b ? 't' : 'n', key.m,
                     key.n, key.k, key.bf16 ? "bf16_" : "", key.adds ? "add" : "store",
                     c.library == GemmLibrary::openblas ? "openblas" : "onednn",
                     c.own_threads ? "threads" : fmt::format("{}x{}", c.row_parts, c.col_parts));
}

// Reads what line_of wrote; false for anything else.
bool read_line(const std::string& line, Key& key, GemmChoice& choice) {
  std::istringstream in(line);
  std::string layout, mode, library, parts, rest;
  if (!(in >> layout >> key.m >> key.n >> key.k >> mode >> library >> parts) || in >> rest) return false;
  if (layout.size() != 2 || layout.find_first_not_of("nt") != layout.npos) return false;
  key.transpose_a = layout[0] == 't';
  key.transpose_b = layout[1] == 't';
  key.bf16 = mode.starts_with("bf16_");
  if (key.bf16) mode.erase(0, 5);
  key.adds = mode == "add";
  choice.library = library == "onednn" ? GemmLibrary::onednn : GemmLibrary::openblas;
  choice.own_threads = parts == "threads";
  char x = 0;
  std::istringstream cut(parts);
  if (!choice.own_threads && (!(cut >> choice.row_parts >> x >> choice.col_parts) || x != 'x')) return false;
  // Also refuses what has another spelling, or more parts than rows or columns.
  return key.m > 0 && key.n > 0 && key.k > 0 && choice.row_parts > 0 && choice.row_parts <= key.m &&
         choice.col_parts > 0 && choice.col_parts <= key.n && (!key.bf16 || choice.library == GemmLibrary::onednn) &&
         line_of(key, choice) == line + "\n";
}

}  // namespace

GemmChoice static_choice(const Gemm& product) { return partition(product, 8); }

GemmChoice timed_choice(const Gemm& product) {
  Gemm largest = product;
  largest.m = std::max(product.m, product.most_m);
  Table& t = table();
  const std::lock_guard lock(t.mutex);
  const Key key = key_of(largest);
  if (auto found = t.choices.find(key); found != t.choices.end()) return found->second;
  if (omp_in_parallel()) return static_choice(product);
  return t.choices[key] = measure(largest);
}

std::string matmul_choices() {
  Table& t = table();
  const std::lock_guard lock(t.mutex);
  std::string text;
  for (const auto& [key, choice] : t.choices) text += line_of(key, choice);
  return text;
}

void set_matmul_choices(std::string_view text) {
  std::map<Key, GemmChoice> read;
  std::istringstream in{std::string(text)};
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    if (line.empty()) continue;
    Key key{};
    GemmChoice choice;
    if (!read_line(line, key, choice))
      throw CheckpointError(
          "matmul choices: line {} is '{}', expected e.g. 'nt 256 768 3072 store openblas 1x4'; "
          "delete the table to have the choices timed again",
          number, line.substr(0, 80));
    read[key] = choice;
  }
  Table& t = table();
  const std::lock_guard lock(t.mutex);
  for (const auto& [key, choice] : read) t.choices[key] = choice;
}

}  // namespace mixtape
