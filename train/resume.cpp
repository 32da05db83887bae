#include "train/resume.h"

#include <algorithm>
#include <deque>
#include <map>
#include <optional>

#include "train/parallel/shards.h"
#include "train/parallel/shared_file.h"
#include "train/parallel/world.h"
#include "train/report/console.h"

namespace mixtape {
namespace {

Extents extents_of(const Shape& shape) {
  Extents extents;
  for (int i = 0; i < shape.rank(); ++i) extents.push_back(shape[i]);
  return extents;
}

// A tensor of the checkpoint and its place in a flat buffer of a model that is not cut.
struct Stored {
  std::string name;
  Extents shape;
  int64_t offset = 0;  // elements
};

// One scale for each block of 256 elements of NAME's moment.
std::vector<Stored> scales_of(const ParameterLayout& layout, const std::string& prefix) {
  std::vector<Stored> list;
  for (const ParameterEntry& entry : layout.entries())
    if (entry.learns)
      list.push_back({prefix + entry.name, {Moment::blocks_of(entry.count())}, entry.whole_offset / moment_block});
  return list;
}

// Of a flat buffer of all parameters, or of those that learn.
std::vector<Stored> parameters_of(const ParameterLayout& layout, const std::string& prefix, bool learning) {
  std::vector<Stored> list;
  for (const ParameterEntry& entry : layout.entries())
    if (entry.learns || !learning) list.push_back({prefix + entry.name, extents_of(entry.whole), entry.whole_offset});
  return list;
}

// Of a matrix v_col.NAME [columns], or [pieces, columns], and v_row.NAME [rows]; of a vector v.NAME.
std::vector<Stored> factored_moments_of(const ParameterLayout& layout) {
  std::vector<Stored> list;
  for (const ParameterEntry& entry : layout.entries()) {
    if (!entry.learns) continue;
    if (!entry.is_matrix()) {
      list.push_back({"v." + entry.name, extents_of(entry.shape), entry.factored_offset});
      continue;
    }
    const int64_t pieces = entry.n_pieces(), cols = entry.shape.cols();
    list.push_back({"v_col." + entry.name, pieces > 1 ? Extents{pieces, cols} : Extents{cols}, entry.factored_offset});
    list.push_back({"v_row." + entry.name, {entry.shape.rows()}, entry.factored_offset + pieces * cols});
  }
  return list;
}

// Of all but hidden matrices.
std::vector<Stored> second_moments_without_hidden(const ParameterLayout& layout) {
  std::vector<Stored> list;
  for (const ParameterEntry& entry : layout.entries())
    if (entry.learns && !entry.is_hidden_matrix())
      list.push_back({"v." + entry.name, extents_of(entry.shape), entry.second_offset});
  return list;
}

std::vector<Stored> second_moments_of(const ParameterLayout& layout, SecondMoments kind) {
  if (kind == SecondMoments::factored) return factored_moments_of(layout);
  if (kind == SecondMoments::without_hidden) return second_moments_without_hidden(layout);
  return parameters_of(layout, "v.", true);
}

// A flat buffer that an optimizer updates beside the weights, and what is in it.
struct StateBuffer {
  Tensor flat;
  std::vector<Stored> stored;
  int64_t each = 1;     // elements of the parameters that a number is for
  bool shared = false;  // every rank has all of it, whatever else is cut into shards
};

// Of layers' inputs, weights and output gradients: fp8_scale.NAME [3], fp8_amax.NAME [3, history], NAME the weight's.
void add_scales(Engine& engine, std::vector<StateBuffer>& buffers) {
  const Quantisation* const q = engine.quantisation();
  if (!q || !q->scale) return;
  std::vector<Stored> scales, histories;
  const int64_t steps = q->history.cols();
  for (size_t i = 0; i < q->weights().size(); ++i) {
    const std::string& name = engine.model().layout()[q->weights()[i]].name;
    scales.push_back({"fp8_scale." + name, {3}, 3 * int64_t(i)});
    histories.push_back({"fp8_amax." + name, {3, steps}, 3 * steps * int64_t(i)});
  }
  buffers.push_back({.flat = q->scale, .stored = std::move(scales), .shared = true});
  buffers.push_back({.flat = q->history, .stored = std::move(histories), .shared = true});
}

std::vector<StateBuffer> optimizer_buffers(Engine& engine) {
  const ParameterLayout& layout = engine.model().layout();
  const Parameters& p = engine.parameters();
  std::vector<StateBuffer> buffers;
  if (p.master)
    buffers.push_back(
        {p.master, parameters_of(layout, p.master.dtype() == DType::f32 ? "master." : "remainder.", true)});
  if (p.m) buffers.push_back({p.m.values, parameters_of(layout, "m.", true)});
  if (p.m.scales) buffers.push_back({p.m.scales, scales_of(layout, "m_scale."), moment_block});
  if (p.v) buffers.push_back({p.v.values, second_moments_of(layout, p.storage().moments.second)});
  if (p.v.scales) buffers.push_back({p.v.scales, scales_of(layout, "v_scale."), moment_block});
  add_scales(engine, buffers);
  return buffers;
}

// What is in a flat buffer, as the checkpoint sees it.
std::vector<ConstTensorRef> views(const void* flat, DType type, const std::vector<Stored>& stored) {
  std::vector<ConstTensorRef> list;
  for (const Stored& s : stored)
    list.push_back({s.name, type, s.shape, static_cast<const std::byte*>(flat) + s.offset * size_of(type)});
  return list;
}

// The same to be written to, in a buffer on the host; the padding between parameters stays 0.
std::vector<TensorRef> places(std::vector<std::byte>& host, int64_t elements, DType type,
                              const std::vector<Stored>& stored) {
  host.assign(size_t(elements * size_of(type)), std::byte{});
  std::vector<TensorRef> list;
  for (const Stored& s : stored) list.push_back({s.name, type, s.shape, host.data() + s.offset * size_of(type)});
  return list;
}

// Where no rank has everything.
bool is_shared_out(const Parameters& p) { return p.storage().sharding.ranks > 1 || p.layout().slice().ranks > 1; }

// The flat buffer of all weights, on rank 0; in `buffer` where they have to be brought together.
const void* whole_weights(Engine& engine, const RankGrid& ranks, std::vector<std::byte>& buffer) {
  const Parameters& p = engine.parameters();
  const bool sharded = p.storage().shards_weights, first = ranks.data().rank() == 0;
  if (!sharded && p.layout().slice().ranks == 1) return engine.backend().host_view(p.weights, buffer);
  // What several have, the first of them brings.
  const std::vector<Shards::Part> parts = sharded || first ? p.weight_parts(first) : std::vector<Shards::Part>{};
  buffer = gather(ranks.all(), engine.backend(), p.weights, parts, p.layout().whole_flat_count());
  return buffer.data();
}

bool is_cut(const Parameters& p, const StateBuffer& buffer) { return is_shared_out(p) && !buffer.shared; }

// The length of an optimizer's buffer, of which this rank may have parts.
int64_t whole_count(const Parameters& p, const StateBuffer& buffer) {
  return is_cut(p, buffer) ? p.layout().whole_learning_flat_count() / buffer.each : buffer.flat.count();
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

// All ranks, in turns: everything on rank 0, which writes it.
FileRecord gather_and_write(Engine& engine, const RankGrid& grid, const std::vector<StateBuffer>& buffers,
                            const std::filesystem::path& path) {
  const Parameters& p = engine.parameters();
  std::deque<std::vector<std::byte>> held;
  std::vector<ConstTensorRef> tensors;
  for (const StateBuffer& b : buffers) {
    std::vector<std::byte>& host = held.emplace_back();
    const void* all = nullptr;
    if (is_cut(p, b)) {
      host = gather(grid.all(), engine.backend(), b.flat, written_parts(p, grid, b), whole_count(p, b));
      all = host.data();
    } else {
      all = engine.backend().host_view(b.flat, host);
    }
    for (ConstTensorRef& tensor : views(all, b.flat.dtype(), b.stored)) tensors.push_back(std::move(tensor));
  }
  return grid.all().rank() == 0 ? write_optimizer_file(path, tensors) : FileRecord{};
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
  if (!file) return gather_and_write(engine, grid, buffers, path);
  constexpr int64_t piece_elements = 4 << 20;
  std::vector<std::byte> piece;
  for (const StateBuffer& b : buffers) {
    const std::map<int64_t, Placed> places = placed(b, layout);
    const int64_t size = size_of(b.flat.dtype());
    for (const Shards::Part& part : written_parts(engine.parameters(), grid, b))
      for (int64_t at = 0; at < part.run.count; at += piece_elements) {
        const int64_t count = std::min(part.run.count - at, piece_elements);
        piece.resize(size_t(count * size));
        engine.backend().copy_to_host(piece.data(), Parameters::part(b.flat, {part.at + at, count}));
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
                            : gather_and_write(engine, grid, optimizer_buffers(engine), path);
  };
  try {
    return save_checkpoint(directory, contents);
  } catch (const CheckpointError&) {
    if (!met && ranks.size() > 1) write_together(engine, grid, "");
    throw;
  }
}

RunState load_run(Engine& engine, const TrainingStep& step, const CheckpointReader* checkpoint) {
  Parameters& p = engine.parameters();
  Communicator& ranks = step.grid().all();
  std::vector<std::byte> host;
  const std::vector<Stored> model = parameters_of(engine.model().layout(), "", false);
  const int64_t elements = p.layout().whole_flat_count();
  if (checkpoint) checkpoint->read_model(places(host, elements, p.weights.dtype(), model));
  distribute(ranks, engine.backend(), host.data(), elements, p.weights, p.weight_parts());

  const auto buffers = optimizer_buffers(engine);
  std::vector<TensorRef> all;
  for (const StateBuffer& b : buffers)
    for (const Stored& s : b.stored) all.push_back({s.name, b.flat.dtype(), s.shape});
  if (checkpoint) checkpoint->expect_optimizer(all);
  for (const StateBuffer& b : buffers) {
    const int64_t count = whole_count(p, b);
    if (checkpoint) checkpoint->read_optimizer(places(host, count, b.flat.dtype(), b.stored));
    const std::vector<Shards::Part> whole{{{0, count}, 0}};
    distribute(ranks, engine.backend(), host.data(), count, b.flat, is_cut(p, b) ? p.learning_parts(b.each) : whole);
  }

  const RunState state = run_state_from_json(broadcast_text(ranks, checkpoint ? to_json(checkpoint->state()) : ""),
                                             "the state from rank 0");
  StepState& now = engine.state();
  now.attempts = uint64_t(state.attempts);
  now.updates = uint64_t(state.updates);
  if (step.scales_loss()) now.loss_scale = float(state.loss_scaler.scale);
  now.growth_tracker = state.loss_scaler.growth_tracker;
  now.hysteresis_left = state.loss_scaler.hysteresis_left;
  now.overflows = state.loss_scaler.overflows;
  now.grad_norm = float(state.grad_norm.value_or(0));
  engine.upload_state();
  engine.backend().set_choices(state.matmul_table);
  return state;
}

void expect_same_shapes(const HfModel& model, const Config& config) {
  const auto texts = [](const ModelSpec& spec) {
    std::vector<std::string> list;
    for (const ParameterShape& p : parameter_shapes(spec))
      list.push_back(fmt::format("{} {}", p.name, text_of(p.shape)));
    return list;
  };
  if (texts(model.spec) == texts(config.model)) return;
  Config there = config;
  static_cast<ModelSpec&>(there.model) = model.spec;
  std::string differences;
  for (const ConfigChange& c : compare_for_resume(there, config))
    if (c.saved != "auto" && c.now != "auto" && c.key.find("dropout") == c.key.npos)
      differences +=
          fmt::format("{}{} is {} there and {} here", differences.empty() ? "" : ", ", c.key, c.saved, c.now);
  throw ConfigError("run.init_from: {} is a model of another shape: {}", *config.run.init_from, differences);
}

void load_weights(Engine& engine, const HfModel& model) {
  model.expect_complete();
  std::vector<float> values;
  const ParameterLayout& layout = engine.model().layout();
  for (int id = 0; id < layout.size(); ++id) {
    if (is_adapter(layout[id].name) || std::ranges::binary_search(model.fresh, layout[id].name)) continue;
    values.resize(size_t(layout[id].whole.count()));
    model.read(layout[id].name, values);
    engine.parameters().load(id, values.data());
  }
}

std::filesystem::path find_model(const std::filesystem::path& path) {
  if (is_huggingface_directory(path)) return path;
  const CheckpointDirectory checkpoints(std::filesystem::is_directory(path / "checkpoints") ? path / "checkpoints"
                                                                                            : path);
  const auto newest = checkpoints.newest_whole([](const std::string& text) { console().warn(text); });
  if (newest) return newest->path;
  throw CheckpointError(
      "{}: no model there; expected a run directory, a checkpoint, or a Hugging Face directory "
      "(config.json and model.safetensors)",
      path.string());
}

}  // namespace mixtape
