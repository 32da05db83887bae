#include "train/resume.h"

#include <algorithm>

#include "train/parallel/shards.h"
#include "train/parallel/shared_file.h"
#include "train/parallel/world.h"
#include "train/report/console.h"
#include "train/saved_state.h"

namespace mixtape {
namespace {

// Weights, a parameter at a time: read by rank 0, and sent to those that have a part of it.
void load_parameters(Engine& engine, Communicator& ranks, const CheckpointReader* checkpoint) {
  Parameters& p = engine.parameters();
  const DType type = p.weights.dtype();
  std::vector<TensorRef> tensors;
  std::vector<Stored> stored = parameters_of(engine.model().layout(), "", false);
  for (const Stored& s : stored) tensors.push_back({s.name, type, s.shape});
  if (checkpoint) checkpoint->expect_model(tensors);
  const std::vector<Shards::Part> parts = p.weight_parts();
  std::vector<std::byte> whole;
  for (size_t i = 0; i < stored.size(); ++i) {
    const int64_t count = count_of(stored[i].shape);
    if (checkpoint) {
      whole.resize(size_t(count * size_of(type)));
      tensors[i].data = whole.data();
      checkpoint->read_model({&tensors[i], 1});
    }
    distribute(ranks, whole.data(), {stored[i].offset, count}, {engine.backend(), p.weights}, parts);
  }
}

// Masters and moments. What all have, rank 0 reads and sends; of what is shared out each reads its own parts, if it
// sees rank 0's file.
void load_optimizer(Engine& engine, Communicator& ranks, const CheckpointReader* checkpoint) {
  const Parameters& p = engine.parameters();
  const std::vector<StateBuffer> buffers = optimizer_buffers(engine);
  std::vector<TensorRef> all;
  for (const StateBuffer& b : buffers)
    for (const Stored& s : b.stored) all.push_back({s.name, b.flat.dtype(), s.shape});
  if (checkpoint) checkpoint->expect_optimizer(all);
  const std::optional<SafetensorsFile> here =
      open_together(ranks, checkpoint ? checkpoint->path() / "optimizer.safetensors" : std::filesystem::path());
  for (const StateBuffer& b : buffers) {
    const bool cut = is_cut(p, b);
    const std::vector<Shards::Part> parts =
        cut ? p.learning_parts(b.each) : std::vector<Shards::Part>{{{0, b.flat.count()}, 0}};
    for (const Stored& s : b.stored) {
      const Run run{s.offset, count_of(s.shape)};
      if (here && (cut || ranks.size() == 1))
        keep(here->at(s.name).data.data(), run, b.flat, parts);
      else
        distribute(ranks, checkpoint ? checkpoint->optimizer_bytes(s.name).data() : nullptr, run, b.flat, parts);
    }
  }
}

}  // namespace

RunState load_run(Engine& engine, const TrainingStep& step, const CheckpointReader* checkpoint) {
  Communicator& ranks = step.grid().all();
  load_parameters(engine, ranks, checkpoint);
  load_optimizer(engine, ranks, checkpoint);

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
  std::vector<int8_t> codes;
  const ParameterLayout& layout = engine.model().layout();
  for (int id = 0; id < layout.size(); ++id) {
    if (is_adapter(layout[id].name) || std::ranges::binary_search(model.fresh, layout[id].name)) continue;
    if (layout[id].coded) {
      codes.resize(size_t(layout[id].count()));
      values.resize(size_t(layout[id].shape.rows()));
      model.read_codes(layout[id].name, codes, values);
      engine.parameters().load_codes(id, codes.data(), values.data());
      continue;
    }
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
