#include <deque>
#include <map>
#include <optional>

#include "train/parallel/shards.h"
#include "train/parallel/shared_file.h"
#include "train/parallel/world.h"
#include "train/resume.h"
#include "train/saved_state.h"

namespace mixtape {
namespace {

// What is read of state at a time.
constexpr int64_t piece_elements = 4 << 20;

// What is in a flat buffer, as the checkpoint sees it.
std::vector<ConstTensorRef> views(const void* flat, DType type, const std::vector<Stored>& stored) {
  std::vector<ConstTensorRef> list;
  for (const Stored& s : stored)
    list.push_back({s.name, type, s.shape, static_cast<const std::byte*>(flat) + s.offset * size_of(type)});
  return list;
}

// The flat buffer of all weights, on rank 0; in `buffer` where they have to be brought together.
const void* whole_weights(Engine& engine, const RankGrid& ranks, std::vector<std::byte>& buffer) {
  const Parameters& p = engine.parameters();
  const bool sharded = p.storage().shards_weights, first = ranks.data().rank() == 0;
  if (!sharded && p.layout().slice().ranks == 1) return engine.backend().host_view(p.weights, buffer);
  // What several have, the first of them brings.
  const std::vector<Shards::Part> parts = sharded || first ? p.weight_parts(first) : std::vector<Shards::Part>{};
  buffer = gather(ranks.all(), {engine.backend(), p.weights}, parts, p.layout().whole_flat_count());
  return buffer.data();
}

// What this rank writes of a buffer into a file that all write: its parts, or of what all have its share.
std::vector<Shards::Part> written_parts(const Parameters& p, const RankGrid& grid, const StateBuffer& b) {
  if (is_cut(p, b)) {
    const bool has_own = p.storage().sharding.ranks > 1 || grid.data().rank() == 0;
    return has_own ? p.learning_parts(b.each) : std::vector<Shards::Part>{};
  }
  const Run share = part_of(b.flat.count(), {grid.all().rank(), grid.all().size()});
  return {{share, share.begin}};
}

// Where the numbers of a flat buffer lie in a file, by where they begin in the buffer; padding lies nowhere.
struct Placed {
  int64_t count;
  uint64_t at;
};
std::map<int64_t, Placed> placed(const StateBuffer& b, const SafetensorsLayout& layout) {
  std::map<int64_t, Placed> by_offset;
  for (const Stored& s : b.stored) by_offset[s.offset] = {count_of(s.shape), layout.places.at(s.name)};
  return by_offset;
}

// Writes `bytes`, those of the buffer's numbers from `begin` on.
void write_numbers(SharedFile& file, const std::map<int64_t, Placed>& places, int64_t begin, int64_t size,
                   std::span<const std::byte> bytes) {
  const int64_t end = begin + int64_t(bytes.size()) / size;
  auto tensor = places.upper_bound(begin);
  if (tensor != places.begin()) --tensor;
  for (; tensor != places.end() && tensor->first < end; ++tensor) {
    const auto [count, at] = tensor->second;
    const int64_t first = std::max(begin, tensor->first), last = std::min(end, tensor->first + count);
    if (first < last)
      file.write(at + uint64_t((first - tensor->first) * size),
                 bytes.subspan(size_t((first - begin) * size), size_t((last - first) * size)));
  }
}

// Of a buffer that this process has whole: a piece of it at a time.
TensorSource streamed(const FlatState& flat, const Stored& stored) {
  auto produce = [flat, begin = stored.offset, count = count_of(stored.shape)](const ByteSink& sink) {
    std::vector<std::byte> piece(size_t(std::min(count, piece_elements) * size_of(flat.dtype())));
    for (int64_t at = 0; at < count; at += piece_elements) {
      const int64_t n = std::min(count - at, piece_elements);
      flat.read(piece.data(), begin + at, n);
      sink({piece.data(), size_t(n * size_of(flat.dtype()))});
    }
  };
  return {stored.name, stored_type(flat.dtype()), stored.shape, std::move(produce)};
}

// All ranks, in turns: on rank 0, which writes it, everything that is cut, and a piece of what is not.
FileRecord gather_and_write(const Parameters& p, const RankGrid& grid, const std::vector<StateBuffer>& buffers,
                            const std::filesystem::path& path) {
  std::deque<std::vector<std::byte>> held;
  std::vector<TensorSource> tensors;
  for (const StateBuffer& b : buffers) {
    const DType type = b.flat.dtype();
    const std::byte* all = nullptr;
    if (is_cut(p, b))
      all = held.emplace_back(gather(grid.all(), b.flat, written_parts(p, grid, b), whole_count(p, b))).data();
    for (const Stored& s : b.stored)
      tensors.push_back(all ? tensor_source(s.name, type, s.shape, all + s.offset * size_of(type))
                            : streamed(b.flat, s));
  }
  return grid.all().rank() == 0 ? write_safetensors(path, std::move(tensors)) : FileRecord{};
}

// All ranks, each what it has, at once; `path` is rank 0's, and empty where it has nothing to write any more.
FileRecord write_together(Engine& engine, const RankGrid& grid, const std::string& path_of_first) {
  Communicator& ranks = grid.all();
  const std::filesystem::path path = broadcast_text(ranks, path_of_first);
  if (path.empty()) return {};
  const std::vector<StateBuffer> buffers = optimizer_buffers(engine);
  std::vector<TensorSource> tensors;
  for (const StateBuffer& b : buffers)
    for (const Stored& s : b.stored) tensors.push_back({s.name, stored_type(b.flat.dtype()), s.shape, {}});
  const SafetensorsLayout layout = layout_safetensors(std::move(tensors));
  std::optional<SharedFile> file = SharedFile::create(ranks, path, layout.header, layout.bytes);
  if (!file) return gather_and_write(engine.parameters(), grid, buffers, path);
  std::vector<std::byte> piece;
  for (const StateBuffer& b : buffers) {
    const std::map<int64_t, Placed> places = placed(b, layout);
    const int64_t size = size_of(b.flat.dtype());
    for (const Shards::Part& part : written_parts(engine.parameters(), grid, b))
      for (int64_t at = 0; at < part.run.count; at += piece_elements) {
        const int64_t count = std::min(part.run.count - at, piece_elements);
        piece.resize(size_t(count * size));
        b.flat.read(piece.data(), part.at + at, count);
        write_numbers(*file, places, part.run.begin + at, size, piece);
      }
  }
  return file->finish();
}

}  // namespace

std::filesystem::path save_run(Engine& engine, const TrainingStep& step, RunState& state,
                               const CheckpointDirectory& directory, const SpecialIds& ids,
                               const std::vector<std::filesystem::path>& tokenizer_files) {
  const StepState& now = engine.state();
  state.loss_scaler = {.scale = now.loss_scale,
                       .growth_tracker = now.growth_tracker,
                       .hysteresis_left = now.hysteresis_left,
                       .overflows = now.overflows};
  state.grad_norm = now.grad_norm;
  state.matmul_table = engine.backend().choices();
  Parameters& p = engine.parameters();
  const RankGrid& grid = step.grid();
  Communicator& ranks = grid.all();
  std::vector<std::byte> held;  // what had to be copied
  const void* weights = whole_weights(engine, grid, held);
  if (ranks.rank() > 0) {
    write_together(engine, grid, "");
    return {};
  }
  CheckpointContents contents{
      .spec = engine.model().spec(),
      .lora = engine.options().lora,
      .model = views(weights, p.weights.dtype(), parameters_of(engine.model().layout(), "", false)),
      .state = state,
      .ids = ids,
      .tokenizer_files = tokenizer_files};
  bool met = false;  // the others, who wait for a path
  contents.write_optimizer = [&](const std::filesystem::path& path) {
    met = true;
    return ranks.size() > 1 ? write_together(engine, grid, path.string())
                            : gather_and_write(p, grid, optimizer_buffers(engine), path);
  };
  try {
    return save_checkpoint(directory, contents);
  } catch (const CheckpointError&) {
    if (!met && ranks.size() > 1) write_together(engine, grid, "");
    throw;
  }
}

}  // namespace mixtape
