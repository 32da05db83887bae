// Heads of labels in config.json: `architectures` says that there is one, `id2label` how many labels it has.
#include "train/checkpoint/huggingface/family.h"

namespace mixtape::huggingface {
namespace {

constexpr std::string_view of_sequences = "ForSequenceClassification", of_tokens = "ForTokenClassification";

}  // namespace

std::string architecture_name(const std::string& of_language_model, Head head) {
  const std::string stem = of_language_model.substr(0, of_language_model.find("For"));
  switch (head) {
    case Head::sequence_labels:
      return stem + std::string(of_sequences);
    case Head::token_labels:
      return stem + std::string(of_tokens);
    default:
      return of_language_model;
  }
}

std::vector<std::string> read_labels(const ConfigReader& config) {
  if (!config.has("id2label")) return {};
  const Json& names = config.at("id2label");
  std::vector<std::string> labels;
  for (size_t i = 0; names.is_object() && i < names.size(); ++i) {
    const auto found = names.find(std::to_string(i));
    if (found == names.end() || !found->is_string()) return {};
    labels.push_back(found->get<std::string>());
  }
  return labels;
}

void write_labels(const std::vector<std::string>& labels, Json& config) {
  Json names = Json::object(), numbers = Json::object();
  for (size_t i = 0; i < labels.size(); ++i) {
    names[std::to_string(i)] = labels[i];
    numbers[labels[i]] = i;
  }
  config["id2label"] = names;
  config["label2id"] = numbers;
}

void read_head(const ConfigReader& config, ModelSpec& spec) {
  for (const std::string& name : config.texts("architectures")) {
    if (name.ends_with(of_sequences)) spec.head = Head::sequence_labels;
    if (name.ends_with(of_tokens)) spec.head = Head::token_labels;
  }
  if (spec.head == Head::vocabulary) return;
  if (const std::string kind = config.text({"problem_type"}, "single_label_classification");
      kind != "single_label_classification")
    config.fail("problem_type", "'{}' is not supported: one label of several is", kind);
  const size_t labels = read_labels(config).size();
  // transformers leaves the names out where there are two labels without one.
  spec.n_labels = labels > 0 ? int64_t(labels) : config.size({"num_labels"}, 2);
}

void write_head(const std::string& of_language_model, const ModelSpec& spec, Json& config) {
  if (spec.head == Head::vocabulary) return;
  config["architectures"] = {architecture_name(of_language_model, spec.head)};
  std::vector<std::string> labels;
  for (int64_t i = 0; i < spec.n_labels; ++i) labels.push_back(fmt::format("LABEL_{}", i));
  write_labels(labels, config);
  if (spec.head == Head::sequence_labels) config["problem_type"] = "single_label_classification";
}

}  // namespace mixtape::huggingface
