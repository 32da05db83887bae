#include "train/checkpoint/checkpoint.h"

#include <algorithm>
#include <map>

#include "core/base/error.h"
#include "train/checkpoint/huggingface/adapter.h"

namespace mixtape {
namespace {

std::string list_of(const std::vector<std::string>& names) {
  constexpr size_t shown = 8;
  const std::vector<std::string> head(names.begin(), names.begin() + int64_t(std::min(names.size(), shown)));
  return fmt::format("{}{}", fmt::join(head, ", "),
                     names.size() > shown ? fmt::format(" and {} more", names.size() - shown) : "");
}

// `found` in the checkpoint against what the caller has: the same names, each with the same shape.
void check_names(const std::string& what, const std::map<std::string, Extents>& found,
                 std::span<const TensorRef> wanted) {
  std::vector<std::string> missing, unexpected;
  std::map<std::string, Extents> left = found;
  for (const TensorRef& tensor : wanted) {
    const auto entry = found.find(tensor.name);
    if (entry == found.end()) {
      missing.push_back(tensor.name);
      continue;
    }
    left.erase(tensor.name);
    if (entry->second != tensor.shape)
      throw CheckpointError("{}: '{}' is {} in the checkpoint, {} in this run: the model's configuration differs", what,
                            tensor.name, text_of(entry->second), text_of(tensor.shape));
  }
  for (const auto& [name, shape] : left) unexpected.push_back(name);
  if (missing.empty() && unexpected.empty()) return;
  throw CheckpointError("{}: the checkpoint is of another model:{}{}{}", what,
                        missing.empty() ? "" : " it lacks " + list_of(missing),
                        missing.empty() || unexpected.empty() ? "" : ";",
                        unexpected.empty() ? "" : " this run has no " + list_of(unexpected));
}

size_t bytes_of(const Extents& shape, DType dtype) { return size_t(count_of(shape) * size_of(dtype)); }

ParameterGetter getter_of(const CheckpointContents& contents) {
  std::map<std::string, const ConstTensorRef*> by_name;
  for (const ConstTensorRef& tensor : contents.model) by_name[tensor.name] = &tensor;
  for (const ParameterShape& expected : parameter_shapes(contents.spec)) {
    const auto found = by_name.find(expected.name);
    if (found == by_name.end() || found->second->shape != expected.shape ||
        found->second->dtype != contents.model.front().dtype)
      throw Error("checkpoint: the model must have the parameter '{}' of shape {} and of the one type of all weights",
                  expected.name, text_of(expected.shape));
  }
  const size_t expected = parameter_shapes(contents.spec).size() + 2 * contents.lora.layers.size();
  if (by_name.size() != expected)
    throw Error("checkpoint: {} parameters, the architecture has {}", by_name.size(), expected);
  if (contents.weights) return contents.weights;
  return [by_name](const std::string& name) { return ParameterView{by_name.at(name)->dtype, by_name.at(name)->data}; };
}

}  // namespace

std::filesystem::path save_checkpoint(const CheckpointDirectory& directory, const CheckpointContents& contents) {
  CheckpointDraft draft(directory.root(), contents.state.updates);
  const ParameterGetter get = getter_of(contents);
  const DType dtype = contents.model.front().dtype;
  const ExportOptions options{.dtype = dtype,
                              .ids = contents.ids,
                              .tokenizer_files = contents.tokenizer_files,
                              .allow_native = true,
                              .write = contents.write};
  for (FileRecord& file : export_huggingface(draft.path(), contents.spec, get, options)) draft.add(std::move(file));

  if (contents.lora.rank > 0)
    for (FileRecord& file : write_adapter(draft.path(), contents.spec, contents.lora, contents.ids.adapter_base,
                                          adapter_sources(contents.spec, contents.lora, dtype, get), contents.write))
      draft.add(std::move(file));

  draft.add(contents.write(draft.path() / "optimizer.safetensors", contents.optimizer));
  draft.add_text("config.resolved.yaml", contents.state.config);
  draft.add_text("state.json", to_json(contents.state));
  return draft.commit();
}

CheckpointReader::CheckpointReader(std::filesystem::path path)
    : path_(std::move(path)),
      state_(run_state_from_json(read_text_file(path_ / "state.json"), (path_ / "state.json").string())),
      model_(import_huggingface(path_)),
      optimizer_(SafetensorsFile::open(path_ / "optimizer.safetensors")) {}

void CheckpointReader::expect_model(std::span<const TensorRef> tensors) const {
  model_.expect_complete();
  std::map<std::string, Extents> found;
  for (ParameterShape& p : parameter_shapes(model_.spec)) found[std::move(p.name)] = std::move(p.shape);
  // An adapter's own reader compares shapes.
  for (const TensorRef& t : tensors)
    if (is_adapter(t.name)) found[t.name] = t.shape;
  check_names(path_.string(), found, tensors);
}

void CheckpointReader::read_model(std::span<const TensorRef> tensors) const {
  for (const TensorRef& t : tensors)
    model_.read(t.name, t.dtype, {static_cast<std::byte*>(t.data), bytes_of(t.shape, t.dtype)});
}

void CheckpointReader::expect_optimizer(std::span<const TensorRef> tensors) const {
  const std::string what = (path_ / "optimizer.safetensors").string();
  std::map<std::string, Extents> found;
  for (const StoredTensor& t : optimizer_.tensors()) found[t.name] = t.shape;
  check_names(what, found, tensors);
  for (const TensorRef& t : tensors) {
    const StoredTensor& stored = optimizer_.at(t.name);
    if (memory_type(stored.type) != t.dtype)
      throw CheckpointError("{}: '{}' is {} in the checkpoint, {} in this run: the precision settings differ", what,
                            t.name, name_of(stored.type), t.dtype);
  }
}

void CheckpointReader::read_optimizer(std::span<const TensorRef> tensors) const {
  for (const TensorRef& t : tensors) std::ranges::copy(optimizer_.at(t.name).data, static_cast<std::byte*>(t.data));
}

}  // namespace mixtape
