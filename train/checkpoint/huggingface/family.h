// What a family of Hugging Face's models is: its config.json and its tensors. One .cpp file each.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/model/spec.h"
#include "train/checkpoint/huggingface/config_reader.h"
#include "train/checkpoint/huggingface/model.h"

namespace mixtape::huggingface {

struct HfFamily {
  const char* model_type;
  const char* architecture;
  // Published files often hold the bare model, whose names lack this.
  const char* base_prefix;
  // CheckpointError, naming the key, for what Mixtape's axes cannot express.
  ModelSpec (*read_config)(const ConfigReader& config);
  // All keys but those that every family has (architectures, model_type, dtype, ids, tie_word_embeddings). Of a spec
  // that is not of this family, whatever can be said: fits() finds the difference by reading it back.
  void (*write_config)(const ModelSpec& spec, Json& config);
  std::vector<TensorMapping> (*tensors)(const ModelSpec& spec);
  // Is this tensor a buffer that files may hold and nobody needs?
  bool (*is_buffer)(std::string_view name);
  // Other names under which files may hold a tensor; null: none.
  std::vector<std::string> (*other_names)(const std::string& name) = nullptr;
  // Sets the axis that the tensors decide, whatever config.json says, and which that is; null: there is none.
  void (*read_files)(const SafetensorsModel& files, ModelSpec& spec) = nullptr;
  const char* decided_by_files = "";
};

extern const HfFamily gpt2, llama, mistral, qwen2, opt, bloom, bert, roberta, t5, bart, native;

// In the order in which an export tries them; `native` is last and fits everything.
std::span<const HfFamily* const> families();
const HfFamily& family_named(const std::string& model_type, const std::string& what);

// The axes in which a spec differs from what the family makes of it ("norm is rmsnorm, gpt2 has layernorm"); empty if
// it fits. Dropout and initialisation do not count: they are no part of the function.
std::vector<std::string> misfits(const HfFamily& family, const ModelSpec& spec);
const HfFamily& family_of(const ModelSpec& spec);

// Two specs of the same function have the same normal form: zeros and "as bias" are resolved, axes without effect are
// at their defaults.
ModelSpec normal_form(ModelSpec spec);

// Activation by Hugging Face's name ("gelu_new"); `gated` where the family multiplies by a second projection.
Activation read_activation(const ConfigReader& config, const char* key, const char* if_absent, bool gated);
std::string activation_name(Activation activation);

// The architecture's name with what the head is for: BertForMaskedLM, BertForSequenceClassification.
std::string architecture_name(const std::string& of_language_model, Head head);
// Sets head and n_labels by `architectures` and `id2label`, and writes both.
void read_head(const ConfigReader& config, ModelSpec& spec);
void write_head(const std::string& of_language_model, const ModelSpec& spec, Json& config);
// id2label; empty where there is none, or where it is not a name for each number.
std::vector<std::string> read_labels(const ConfigReader& config);
void write_labels(const std::vector<std::string>& labels, Json& config);

// Collects mappings against the spec's parameters. A parameter that the spec does not have (a bias, say) is left out.
class MappingList {
 public:
  explicit MappingList(const ModelSpec& spec);
  void whole(const std::string& name, const std::string& parameter);
  void rows(const std::string& name, const std::string& parameter, int64_t first_row, int64_t rows);
  void transposed(const std::string& name, const std::string& parameter);
  void by_head(const std::string& name, const std::string& parameter, int64_t n_heads);
  // A vector that the file has as a matrix of one row, or as zeros where the spec has no such parameter.
  void as_row(const std::string& name, const std::string& parameter, int64_t count);
  std::vector<TensorMapping> take() { return std::move(list_); }

 private:
  const Extents* shape_of(const std::string& parameter) const;

  std::map<std::string, Extents> shapes_;
  std::vector<TensorMapping> list_;
};

}  // namespace mixtape::huggingface
