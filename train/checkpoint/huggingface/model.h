// Models in Hugging Face's directories, both ways: config.json, safetensors, tokenizer files.
//
//   HfModel model = import_huggingface("smollm");           // a ModelSpec and where each tensor comes from
//   model.read("layers.0.attention.qkv.weight", buffer);    // Mixtape's name, Mixtape's layout
//   export_huggingface("out", spec, get, {.dtype = DType::bf16});
//
// Families: gpt2, llama (and mistral and qwen2, which are the same axes), opt, bloom, bert (and roberta), t5, bart; one
// file each beside this one. A ModelSpec that is none of these is stored under model_type "mixtape" with Mixtape's own
// names: such a directory is a checkpoint or the start of a run here, and transformers does not load it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/dtype.h"
#include "core/model/spec.h"
#include "train/checkpoint/safetensors.h"

namespace mixtape {

// A parameter of Mixtape's: the name and shape that core/model gives it. Matrices are [out, in].
struct ParameterShape {
  std::string name;
  Extents shape;
};
// All parameters of a model, in the order of the forward pass.
std::vector<ParameterShape> parameter_shapes(const ModelSpec& spec);
// Does it stand behind the last hidden states? Another task has others there.
bool is_of_head(std::string_view parameter);

// Ids and names that a model's files mention and that the architecture does not need.
struct SpecialIds {
  std::optional<int64_t> bos, eos, pad;
  std::optional<int64_t> decoder_start;  // an encoder-decoder's first decoder input
  std::vector<std::string> labels = {};  // of a head of labels, by number
  std::string adapter_base = {};         // the model that an adapter beside this one is for
  friend bool operator==(const SpecialIds&, const SpecialIds&) = default;
};

// How one tensor of a file holds rows of one parameter of Mixtape's.
enum class Arrangement {
  rows,       // the same rows
  transpose,  // [in, out] instead of [out, in] (GPT-2's Conv1D)
  by_head,    // q, k and v rows head by head instead of all q, all k, all v (BLOOM)
  zeros,      // of no parameter: zeros that the file has (BART's final_logits_bias)
};
struct TensorMapping {
  std::string name;       // in the file
  Extents shape;          // in the file
  std::string parameter;  // Mixtape's
  int64_t first_row = 0;  // of the parameter's rows (elements, for a vector)
  int64_t rows = 0;
  Arrangement arrangement = Arrangement::rows;
  int64_t n_heads = 0;  // by_head
};
// Every tensor of the spec's family, as transformers writes it.
std::vector<TensorMapping> tensor_mappings(const ModelSpec& spec);

// A tensor in the file's name and layout.
struct NamedTensor {
  std::string name;
  Extents shape;
  std::vector<float> values;
};

class HfAdapter;

class HfModel {
 public:
  ModelSpec spec;
  std::string model_type;  // as in config.json
  SpecialIds ids;
  DType dtype = DType::f32;  // the type most of its weights are stored in
  std::vector<std::filesystem::path>
      tokenizer_files;               // those present: tokenizer.json, tokenizer.model, vocab.json, ...
  std::vector<std::string> missing;  // tensors that the architecture needs and the files lack
  std::vector<std::string> unused;   // tensors that the architecture does not know
  std::vector<std::string> ignored;  // known buffers and copies: causal masks, a tied head
  // The weights of layers are int8 codes with scales (int8.h): read() gives their products.
  bool int8 = false;
  // Parameters (Mixtape's names) of a head that the files do not have, where another head than theirs was asked for.
  std::vector<std::string> fresh;

  // One parameter, converted to fp32 from fp32, fp16, bf16 or fp64; where there is an adapter beside the model (a run
  // with LoRA), merged with it. `out` has the parameter's count. CheckpointError if a tensor is missing.
  void read(std::string_view parameter, std::span<float> out) const;
  // As it is stored, without an adapter; CheckpointError if the files store another type. Also of an adapter itself.
  void read(std::string_view parameter, DType dtype, std::span<std::byte> out) const;
  // Of an int8 model a layer's weight as it is stored: codes [out, in] and a scale for each output.
  void read_codes(std::string_view parameter, std::span<int8_t> codes, std::span<float> scales) const;
  // A parameter's gradient (or anything of its shape) under the names and in the layout of this model's files.
  std::vector<NamedTensor> to_file(std::string_view parameter, std::span<const float> values) const;
  // CheckpointError that lists `missing` and `unused`, if there are any.
  void expect_complete() const;

 private:
  friend HfModel import_huggingface(const std::filesystem::path&, const ModelSpec*);
  void decode(std::string_view parameter, int64_t rows, std::span<float> out) const;
  void gather(std::string_view parameter, DType dtype, std::span<std::byte> out) const;

  std::filesystem::path directory_;
  std::vector<TensorMapping> mappings_;  // with the names found in the files
  SafetensorsModel tensors_;
  std::shared_ptr<const HfAdapter> adapter_;  // null where there is none
};

// Opens a directory with config.json and model.safetensors (or shards). Shapes are checked against config.json here,
// all at once; values are read later. CheckpointError if a file is malformed, or the architecture has an axis that
// Mixtape does not know: nothing is guessed.
//
// `head_of`: reads the model with the head of that spec in place of the files'. What it has in common with theirs is
// read (BERT's pooler is in most of its files), the rest is `fresh`.
HfModel import_huggingface(const std::filesystem::path& directory, const ModelSpec* head_of = nullptr);
// The files of a tokenizer that are in a directory: tokenizer.json, tokenizer_config.json, tokenizer.model, ...
std::vector<std::filesystem::path> tokenizer_files_in(const std::filesystem::path& directory);
// Is there a config.json in it?
bool is_huggingface_directory(const std::filesystem::path& directory);

// A parameter's values in memory: fp32, fp16 or bf16, row-major, of the parameter's shape.
struct ParameterView {
  DType dtype = DType::f32;
  const void* data = nullptr;
};
// Called when a tensor is written, once for each tensor that holds a part of the parameter. A view must last until the
// next call, so a caller may hold one parameter at a time.
using ParameterGetter = std::function<ParameterView(const std::string& name)>;

struct ExportOptions {
  DType dtype = DType::f32;  // of the weights in the files
  SpecialIds ids;
  std::vector<std::filesystem::path> tokenizer_files;  // copied under their own names
  uint64_t max_shard_bytes = 5'000'000'000;
  bool int8 = false;          // the weights of layers as int8 codes with scales (int8.h)
  bool allow_native = false;  // write model_type "mixtape" where no family fits, instead of an error
  TensorWriter write = write_alone;
};
// The tensors that an export writes.
std::vector<TensorSource> model_sources(const ModelSpec& spec, const ParameterGetter& get,
                                        const ExportOptions& options);
// Writes config.json, generation_config.json, the weights and the tokenizer's files into a directory, which is created.
// ConfigError, naming the axes, if no family of transformers has this architecture and allow_native is not set.
std::vector<FileRecord> export_huggingface(const std::filesystem::path& directory, const ModelSpec& spec,
                                           const ParameterGetter& get, const ExportOptions& options);

// The same from a model in files, one parameter in memory at a time; ids and tokenizer files are the model's own.
std::vector<FileRecord> export_huggingface(const std::filesystem::path& directory, const HfModel& model,
                                           ExportOptions options);

// config.json's text of a spec, in the style of transformers 4 and 5 at once; `model_type` as in HfModel.
std::string config_json(const ModelSpec& spec, DType dtype, const SpecialIds& ids, bool int8 = false);
// What stands between the last hidden states and the output: the axes of `head`, all others of `body`.
ModelSpec with_head(ModelSpec body, const ModelSpec& head);
// The family that a spec is exported as: "gpt2", "llama", "mistral", "qwen2", "opt", "bloom", "bert",
// "roberta", "t5", "bart", or "mixtape".
std::string model_type_of(const ModelSpec& spec);

}  // namespace mixtape
