// mixtape forward MODEL --inputs F.safetensors --output G.safetensors [--gradients]
//
// One batch through a model, for checking parity with another framework. Inputs, int64: input_ids [B, T]; optional
// attention_mask [B, T] (1 = real), token_type_ids [B, T], labels (-100 = ignored; as Hugging Face takes them: of a
// decoder not shifted); decoder_input_ids [B, U] for an encoder-decoder, whose labels are [B, U]. Outputs, float32:
// logits [B, T, V], or [B, U, V]; loss [1] where there are labels; with --gradients, grad.NAME for every tensor NAME of
// the model's files. train/forward.h says it in full.
#include "train/forward.h"
#include "train/checkpoint/safetensors.h"
#include "train/cli/arguments.h"
#include "train/cli/commands.h"

namespace mixtape {
namespace {

struct ForwardArguments {
  std::string inputs, output;
  bool gradients = false;
};

void forward_command(const ModelArguments& model_arguments, const ForwardArguments& a) {
  const SafetensorsFile file = SafetensorsFile::open(a.inputs);
  Batch batch;
  LoadedModel model = load_model(model_arguments, [&](const HfModel& files, const Tokenizer*) {
    batch = batch_from_inputs(file, files.spec);
    return EngineShape{.rows = batch.rows,
                       .row_length = batch.row_length,
                       .decoder_length = batch.decoder.row_length,
                       .gradients = a.gradients,
                       .rehearse = [&](Engine& engine) {
                         logits_of(engine);
                         engine.run_micro_batch(a.gradients);
                       }};
  });
  Engine& engine = *model.engine;
  const ModelSpec& spec = engine.model().spec();
  engine.state().inverse_targets = batch.n_targets > 0 ? float(1.0 / double(batch.n_targets)) : 0.f;
  engine.upload_state();
  engine.load(batch);

  std::vector<NamedTensor> outputs;
  outputs.push_back(
      {"logits", {batch.rows, engine.predicting_rows() / batch.rows, spec.n_outputs()}, logits_of(engine)});
  if (batch.n_targets > 0) {
    if (a.gradients) engine.parameters().buckets().new_step();
    outputs.push_back({"loss", {1}, {float(engine.run_micro_batch(a.gradients))}});
    fmt::print("loss {:.7f} over {} targets\n", outputs.back().values[0], batch.n_targets);
  } else if (a.gradients) {
    throw DataError("forward: --gradients needs labels in {}", a.inputs);
  }
  if (a.gradients) {
    const ParameterLayout& layout = engine.model().layout();
    std::vector<float> values;
    for (int id = 0; id < layout.size(); ++id) {
      values.assign(size_t(layout[id].count()), 0.f);
      if (const GradientBuckets& buckets = engine.parameters().buckets(); buckets.was_written(id))
        engine.backend().copy_to_host(values.data(), buckets.gradient(id));
      for (NamedTensor& tensor : model.files.to_file(layout[id].name, values)) {
        tensor.name = "grad." + tensor.name;
        outputs.push_back(std::move(tensor));
      }
    }
  }
  std::vector<TensorSource> list;
  for (const NamedTensor& tensor : outputs)
    list.push_back(tensor_source(tensor.name, DType::f32, tensor.shape, tensor.values.data()));
  write_safetensors(a.output, std::move(list));
}

}  // namespace

void add_forward_command(Command& app) {
  Command command = app.subcommand("forward", "run one batch and write logits, loss and gradients");
  const auto model = add_model_arguments(command);
  const auto a = std::make_shared<ForwardArguments>();
  command
      .option("--inputs", a->inputs,
              "safetensors with input_ids, and optionally attention_mask, token_type_ids, decoder_input_ids and labels")
      .required();
  command.option("--output", a->output, "safetensors to write: logits, loss, grad.NAME").required();
  command.flag("--gradients", a->gradients, "write the gradient of every tensor of the model's files");
  command.action([model, a] { forward_command(*model, *a); });
}

}  // namespace mixtape
