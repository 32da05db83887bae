#include "train/resume.h"

#include <algorithm>
#include <deque>

#include "train/report/console.h"

namespace mixtape {
namespace {

Extents extents_of(const Shape& shape) {
  Extents extents;
  for (int i = 0; i < shape.rank(); ++i) extents.push_back(shape[i]);
  return extents;
}

// A tensor of the checkpoint and its place in a flat buffer.
struct Stored {
  std::string name;
  Extents shape;
  int64_t offset = 0;  // elements
};

// Of a flat buffer of all parameters, or of those that learn.
std::vector<Stored> parameters_of(const ParameterLayout& layout, const std::string& prefix, bool learning) {
  std::vector<Stored> list;
  for (const ParameterEntry& entry : layout.entries())
    if (entry.learns || !learning) list.push_back({prefix + entry.name, extents_of(entry.shape), entry.offset});
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

// The flat buffers that an optimizer updates beside the weights, and what is in them.
std::vector<std::pair<Tensor, std::vector<Stored>>> optimizer_buffers(Engine& engine) {
  const ParameterLayout& layout = engine.model().layout();
  const Parameters& p = engine.parameters();
  const bool factored = p.storage().moments.second == SecondMoments::factored;
  std::vector<std::pair<Tensor, std::vector<Stored>>> buffers;
  if (p.master) buffers.emplace_back(p.master, parameters_of(layout, "master.", true));
  if (p.m) buffers.emplace_back(p.m, parameters_of(layout, "m.", true));
  if (p.v) buffers.emplace_back(p.v, factored ? factored_moments_of(layout) : parameters_of(layout, "v.", true));
  return buffers;
}

// What is in a flat buffer on the device, as the checkpoint sees it. `held` keeps what had to be copied.
std::vector<ConstTensorRef> views(Engine& engine, const Tensor& flat, const std::vector<Stored>& stored,
                                  std::deque<std::vector<std::byte>>& held) {
  std::vector<ConstTensorRef> list;
  const auto* base = static_cast<const std::byte*>(engine.backend().host_view(flat, held.emplace_back()));
  for (const Stored& s : stored)
    list.push_back({s.name, flat.dtype(), s.shape, base + s.offset * size_of(flat.dtype())});
  return list;
}

// The same to be written to, on the host; the padding between parameters stays 0.
std::vector<TensorRef> places(const Tensor& flat, const std::vector<Stored>& stored, std::vector<std::byte>& host) {
  host.assign(size_t(flat.bytes()), std::byte{});
  std::vector<TensorRef> list;
  for (const Stored& s : stored)
    list.push_back({s.name, flat.dtype(), s.shape, host.data() + s.offset * size_of(flat.dtype())});
  return list;
}

}  // namespace

std::filesystem::path save_run(Engine& engine, RunState& state, const CheckpointDirectory& directory,
                               const SpecialIds& ids, const std::vector<std::filesystem::path>& tokenizer_files) {
  const StepState& step = engine.state();
  state.loss_scaler = {.scale = step.loss_scale,
                       .growth_tracker = step.growth_tracker,
                       .hysteresis_left = step.hysteresis_left,
                       .overflows = step.overflows};
  state.matmul_table = engine.backend().choices();
  Parameters& p = engine.parameters();
  std::deque<std::vector<std::byte>> held;
  CheckpointContents contents{
      .spec = engine.model().spec(),
      .lora = engine.options().lora,
      .model = views(engine, p.weights, parameters_of(engine.model().layout(), "", false), held),
      .state = state,
      .ids = ids,
      .tokenizer_files = tokenizer_files};
  for (const auto& [flat, stored] : optimizer_buffers(engine))
    for (ConstTensorRef& tensor : views(engine, flat, stored, held)) contents.optimizer.push_back(std::move(tensor));
  return save_checkpoint(directory, contents);
}

RunState load_run(Engine& engine, const TrainingStep& step, const CheckpointReader& checkpoint) {
  Parameters& p = engine.parameters();
  std::vector<std::byte> host;
  checkpoint.read_model(places(p.weights, parameters_of(engine.model().layout(), "", false), host));
  engine.backend().copy_from_host(p.weights, host.data());

  const auto buffers = optimizer_buffers(engine);
  std::vector<TensorRef> all;
  for (const auto& [flat, stored] : buffers)
    for (const Stored& s : stored) all.push_back({s.name, flat.dtype(), s.shape});
  checkpoint.expect_optimizer(all);
  for (const auto& [flat, stored] : buffers) {
    checkpoint.read_optimizer(places(flat, stored, host));
    engine.backend().copy_from_host(flat, host.data());
  }

  const RunState& state = checkpoint.state();
  StepState& now = engine.state();
  now.attempts = uint64_t(state.attempts);
  now.updates = uint64_t(state.updates);
  if (step.scales_loss()) now.loss_scale = float(state.loss_scaler.scale);
  now.growth_tracker = state.loss_scaler.growth_tracker;
  now.hysteresis_left = state.loss_scaler.hysteresis_left;
  now.overflows = state.loss_scaler.overflows;
  engine.upload_state();
  engine.backend().set_choices(state.matmul_table);
  return state;
}

void load_weights(Engine& engine, const HfModel& model) {
  model.expect_complete();
  std::vector<float> values;
  const ParameterLayout& layout = engine.model().layout();
  for (int id = 0; id < layout.size(); ++id) {
    if (is_adapter(layout[id].name) || std::ranges::binary_search(model.fresh, layout[id].name)) continue;
    values.resize(size_t(layout[id].count()));
    model.read(layout[id].name, values);
    engine.parameters().load(id, values.data());
  }
  engine.parameters().refresh_weights();
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
