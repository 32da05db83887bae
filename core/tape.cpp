#include "core/tape.h"

#include "core/ops/cast.h"

namespace mixtape {

void expect_shape(const char* op, const char* argument, const Tensor& tensor, Shape expected) {
  if (!tensor) throw Error("{}: {} is absent, expected {}", op, argument, expected);
  if (tensor.shape() != expected) throw Error("{}: {} is {}, expected {}", op, argument, tensor.shape(), expected);
}

void expect_dtype(const char* op, const char* argument, const Tensor& tensor, DType expected) {
  if (tensor && tensor.dtype() != expected)
    throw Error("{}: {} is {}, expected {}", op, argument, tensor.dtype(), expected);
}

Tensor Tape::parameter(int id) {
  if (parameter_values_.empty()) parameter_values_.assign(parameters_->layout().size(), -1);
  const Tensor weight = parameters_->weight(id);
  int& value = parameter_values_[id];
  if (value < 0) {
    value = new_value(weight, -1, 0);
    values_[value].parameter = id;
    values_[value].wants_gradient = parameters_->storage().gradients && parameters_->layout()[id].learns;
  }
  return weight.as_value(value);
}

Tensor Tape::leaf(const Tensor& tensor, bool wants_gradient) {
  const int value = new_value(tensor, -1, 0);
  values_[value].wants_gradient = wants_gradient;
  return tensor.as_value(value);
}

Tensor Tape::leaf(const Tensor& tensor, DType gradient_dtype) {
  const Tensor value = leaf(tensor, true);
  values_[value.value()].grad_dtype = gradient_dtype;
  return value;
}

void Tape::sum_gradient_in_float32(const Tensor& value) {
  if (value.value() >= 0) values_[value.value()].grad_dtype = DType::f32;
}

int Tape::new_value(const Tensor& tensor, int node, int output) {
  values_.push_back(
      {.shape = tensor.shape(), .dtype = tensor.dtype(), .grad_dtype = tensor.dtype(), .node = node, .output = output});
  return int(values_.size()) - 1;
}

void Tape::count_parameters(std::span<const Tensor> inputs) {
  if (!training_ || replaying_) return;
  for (const Tensor& input : inputs)
    if (input && is_learning_parameter(input.value())) ++values_[input.value()].readers;
}

void Tape::count_off_parameters(std::span<const int> parameter_values) {
  for (const int value : parameter_values)
    if (--values_[value].readers == 0) parameters_->buckets().complete(values_[value].parameter);
}

void Tape::keep(int value, const Tensor& data) {
  Value& v = values_[data_value(value)];
  if (v.parameter >= 0) return;
  ++v.readers;
  if (v.kept != SavedTensors::none) return;
  if (policy_ == RecomputePolicy::selective && v.node >= 0) {
    const Erased& maker = nodes_[v.node].operation;
    if (maker.remake && maker.remakes == v.output) return;
  }
  v.kept = saved_.keep(data);
}

void Tape::release(int value) {
  Value& v = values_[data_value(value)];
  if (v.parameter >= 0) return;
  if (--v.readers == 0) saved_.drop(v.kept);
}

Outputs Tape::run_node(Node node, std::span<const Tensor> inputs, const Makes& makes) {
  const char* name = node.operation.name;
  if (inputs.size() > max_inputs) throw Error("{}: {} inputs, at most {}", name, inputs.size(), max_inputs);
  backend_.arena().set_context(name);
  count_parameters(inputs);
  // Numbered among random operations alone, so that recomputation, which adds others, changes no mask.
  if (node.operation.random) node.site = next_site_++;

  bool records = false;
  if (training_ && recording_)
    for (const Tensor& input : inputs) records = records || wants_gradient(input);

  Outputs outputs;
  for (size_t i = 0; i < makes.outputs.size(); ++i) {
    // Two holders of an input that may be overwritten: the operation's argument, and the list that it was passed in.
    const bool takes_input = i == 0 && makes.in_place && inputs[0].storage().owners() <= 2;
    outputs[int(i)] = takes_input || makes.renames ? inputs[0].as_value(-1)
                                                   : backend_.make(makes.outputs[i].shape, makes.outputs[i].dtype);
  }
  std::array<Tensor, Makes::max> saved;
  if (records)
    for (size_t i = 0; i < makes.saved.size(); ++i)
      saved[i] = backend_.make(makes.saved[i].shape, makes.saved[i].dtype);

  if (observer_) observer_->begin(name, false);
  const Forward forward(*this, inputs.data(), &outputs[0], saved.data(), node.site, records);
  node.operation.forward(node.operation.operation, forward, node.spec.data());
  if (observer_) observer_->end(name, false);
  if (!records) return outputs;

  const int index = int(nodes_.size());
  node.section = saved_.section();
  for (size_t i = 0; i < saved.size(); ++i) node.saved[i] = saved_.keep(saved[i]);
  node.n_inputs = int(inputs.size());
  for (int i = 0; i < node.n_inputs; ++i) {
    node.inputs[i].value = inputs[i].value();
    if (inputs[i].value() < 0) node.inputs[i].constant = inputs[i];
  }
  node.n_outputs = int(makes.outputs.size());
  for (int i = 0; i < node.n_outputs; ++i) {
    node.outputs[i] = new_value(outputs[i], index, i);
    values_[node.outputs[i]].wants_gradient = true;
    outputs[i] = outputs[i].as_value(node.outputs[i]);
  }
  if (makes.renames) {
    Value& v = values_[node.outputs[0]];
    v.renamed = node.inputs[0].value;
    if (values_[data_value(v.renamed)].parameter >= 0) v.grad_dtype = DType::f32;
  }
  const Needs needs = node.operation.needs;
  nodes_.push_back(std::move(node));
  const Node& recorded = nodes_.back();
  for (int i : needs.inputs)
    if (i < recorded.n_inputs && recorded.inputs[i].value >= 0) keep(recorded.inputs[i].value, inputs[i]);
  for (int i : needs.outputs) {
    // What backward and `remake` read of the node's own outputs must be there without remaking.
    Value& v = values_[recorded.outputs[i]];
    ++v.readers;
    v.kept = saved_.keep(outputs[i]);
  }
  return outputs;
}

Tensor Tape::data_of(int value) {
  value = data_value(value);
  Value& v = values_[value];
  if (v.parameter >= 0) return parameters_->weight(v.parameter);
  if (v.kept != SavedTensors::none) return saved_.get(v.kept);

  const int maker_index = v.node;
  if (maker_index < 0 || !nodes_[maker_index].operation.remake)
    throw Error("tape: value {} was not kept for backward", value);
  // Everything that the maker's backward reads is still there: its backward comes after this reader's.
  const Node& maker = nodes_[maker_index];
  std::array<Tensor, max_inputs> inputs;
  for (int i = 0; i < maker.n_inputs; ++i)
    if (maker.inputs[i].value < 0) inputs[i] = maker.inputs[i].constant;
  for (int i : maker.operation.needs.inputs)
    if (i < maker.n_inputs && maker.inputs[i].value >= 0) inputs[i] = data_of(maker.inputs[i].value);
  std::array<Tensor, Makes::max> outputs;
  for (int i : maker.operation.needs.outputs) outputs[i] = saved_.get(values_[maker.outputs[i]].kept);
  const Value& made = values_[value];
  Tensor& remade = outputs[made.output];
  remade = backend_.make(made.shape, made.dtype);

  if (observer_) observer_->begin(maker.operation.name, true);
  const std::array<Tensor, Makes::max> saved = saved_of(maker);
  const Forward forward(*this, inputs.data(), outputs.data(), saved.data(), maker.site, true);
  maker.operation.remake(maker.operation.operation, forward, maker.spec.data());
  if (observer_) observer_->end(maker.operation.name, true);
  values_[value].kept = saved_.keep(remade);
  return remade;
}

std::array<Tensor, Makes::max> Tape::saved_of(const Node& node) {
  std::array<Tensor, Makes::max> saved;
  for (size_t i = 0; i < saved.size(); ++i) saved[i] = saved_.get(node.saved[i]);
  return saved;
}

Grad Tape::gradient_of(int value) {
  Value& v = values_[value];
  if (!v.wants_gradient) return {};
  if (v.parameter >= 0) return parameters_->buckets().next(v.parameter);
  if (!v.grad) {
    v.grad = backend_.make(v.shape, v.grad_dtype);
    return {v.grad, Write::overwrite};
  }
  if (v.grad.storage() && !v.grad.storage().unique()) {
    // Shared with another value's gradient, which must not change with this one.
    const Tensor own = backend_.make(v.shape, v.grad_dtype);
    backend_.cast().convert({.y = {own, Write::overwrite}, .x = v.grad});
    values_[value].grad = own;
  }
  return {values_[value].grad, Write::accumulate};
}

void Tape::give_gradient(int value, const Tensor& gradient) {
  Value& v = values_[value];
  if (!v.wants_gradient) return;
  if (v.parameter < 0 && !v.grad && gradient.dtype() == v.grad_dtype) {
    v.grad = gradient;
    return;
  }
  const Grad to = gradient_of(value);
  backend_.cast().convert({.y = to, .x = gradient});
}

void Tape::seed(const Tensor& value, const Tensor& gradient) { give_gradient(value.value(), gradient); }

void Tape::backward() {
  backward_from(0);
  if (parameters_ && parameters_->storage().gradients) parameters_->buckets().end_backward();
}

void Tape::backward_from(size_t end) {
  while (nodes_.size() > end) {
    const size_t index = nodes_.size() - 1;
    backend_.arena().set_context(nodes_[index].operation.name);
    go_back_to(nodes_[index].section);
    if (nodes_[index].block) {
      replay_block(index);
    } else {
      run_backward(index);
    }
    const Node& node = nodes_[index];
    for (int i : node.operation.needs.inputs)
      if (i < node.n_inputs && node.inputs[i].value >= 0) release(node.inputs[i].value);
    for (int i : node.operation.needs.outputs) release(node.outputs[i]);
    for (int i = 0; i < node.n_outputs; ++i) {
      values_[node.outputs[i]].grad = {};
      saved_.drop(values_[node.outputs[i]].kept);
    }
    for (SavedTensors::Handle& saved : nodes_.back().saved) saved_.drop(saved);
    std::array<int, max_inputs> parameters;
    size_t n_parameters = 0;
    for (int i = 0; i < node.n_inputs; ++i)
      if (is_learning_parameter(node.inputs[i].value)) parameters[n_parameters++] = node.inputs[i].value;
    nodes_.pop_back();  // and constants that it held, before a bucket's listener needs memory
    count_off_parameters({parameters.data(), n_parameters});
  }
}

void Tape::begin_section() {
  if (!saved_.offloads() || !training_ || !recording_ || replaying_) return;
  if (observer_) observer_->begin("offload", false);
  saved_.begin_section();
  if (observer_) observer_->end("offload", false);
}

void Tape::go_back_to(int section) {
  if (section == saved_.section()) return;
  if (observer_) observer_->begin("offload", true);
  saved_.go_back_to(section);
  if (observer_) observer_->end("offload", true);
}

// To the value's own type, which is what its maker's backward takes; a parameter's gradients are of a type of their
// own.
void Tape::round_gradient(int value) {
  Value& v = values_[value];
  if (!v.grad || v.grad.dtype() == v.dtype || values_[data_value(value)].parameter >= 0) return;
  const Tensor rounded = backend_.make(v.shape, v.dtype);
  backend_.cast().convert({.y = {rounded, Write::overwrite}, .x = v.grad});
  v.grad = rounded;
}

void Tape::run_backward(size_t index) {
  const Node& node = nodes_[index];
  // Nothing flows in: nothing flows out. (A loss has delivered its gradients in forward.)
  const auto has_gradient = [&](int value) { return bool(values_[value].grad); };
  if (std::none_of(node.outputs.begin(), node.outputs.begin() + node.n_outputs, has_gradient)) return;
  for (int i = 0; i < node.n_outputs; ++i) round_gradient(node.outputs[i]);
  if (observer_) observer_->begin(node.operation.name, true);
  const Backward backward(*this, index);
  node.operation.backward(node.operation.operation, backward, node.spec.data());
  if (observer_) observer_->end(node.operation.name, true);
}

void Tape::recompute(Block block, const void* model, int64_t index, std::span<const Tensor> inputs,
                     std::span<Tensor> outputs) {
  count_parameters(inputs);
  const uint32_t site = next_site_;
  bool records = false;
  if (training_ && recording_)
    for (const Tensor& input : inputs) records = records || wants_gradient(input);
  if (!records) return block(*this, model, index, inputs, outputs);

  recording_ = false;  // dropout stays active
  block(*this, model, index, inputs, outputs);
  recording_ = true;

  Node node;
  node.operation.name = "recompute";
  node.block = block;
  node.model = model;
  node.index = index;
  node.site = site;
  node.section = saved_.section();
  node.n_inputs = int(inputs.size());
  const int node_index = int(nodes_.size());
  for (int i = 0; i < node.n_inputs; ++i) {
    node.inputs[i].value = inputs[i].value();
    if (inputs[i].value() < 0) node.inputs[i].constant = inputs[i];
  }
  node.n_outputs = int(outputs.size());
  for (int i = 0; i < node.n_outputs; ++i) {
    node.outputs[i] = new_value(outputs[i], node_index, 0);
    values_[node.outputs[i]].wants_gradient = true;
    outputs[i] = outputs[i].as_value(node.outputs[i]);
  }
  nodes_.push_back(std::move(node));
  for (int i = 0; i < int(inputs.size()); ++i)
    if (inputs[i].value() >= 0) keep(inputs[i].value(), inputs[i]);
}

void Tape::replay_block(size_t index) {
  std::array<Tensor, max_inputs> inputs;
  std::array<Tensor, Makes::max> outputs;
  const Node& node = nodes_[index];
  const int n_inputs = node.n_inputs, n_outputs = node.n_outputs;
  std::array<int, max_inputs> leaves;
  for (int i = 0; i < n_inputs; ++i) {
    const int outer = nodes_[index].inputs[i].value;
    inputs[i] = outer >= 0 ? leaf(data_of(outer), values_[outer].wants_gradient) : nodes_[index].inputs[i].constant;
    leaves[i] = inputs[i].value();
  }
  const uint32_t site = next_site_;
  next_site_ = node.site;
  const Block block = node.block;
  const void* model = node.model;
  replaying_ = true;
  block(*this, model, node.index, {inputs.data(), size_t(n_inputs)}, {outputs.data(), size_t(n_outputs)});
  replaying_ = false;
  next_site_ = site;
  for (int i = 0; i < n_outputs; ++i) {
    round_gradient(nodes_[index].outputs[i]);
    const Tensor grad = values_[nodes_[index].outputs[i]].grad;
    values_[nodes_[index].outputs[i]].grad = {};
    if (grad) give_gradient(outputs[i].value(), grad);
    outputs[i] = {};
  }
  for (int i = 0; i < n_inputs; ++i) inputs[i] = {};
  backward_from(index + 1);
  for (int i = 0; i < n_inputs; ++i) {
    const int outer = nodes_[index].inputs[i].value;
    if (outer < 0) continue;
    Tensor grad = values_[leaves[i]].grad;
    values_[leaves[i]].grad = {};
    saved_.drop(values_[leaves[i]].kept);
    if (grad) give_gradient(outer, grad);
    release(outer);
  }
}

void Tape::clear() {
  nodes_.clear();
  values_.clear();
  saved_.clear();
  parameter_values_.clear();
  next_site_ = 0;
  if (parameters_ && parameters_->weight_source()) parameters_->weight_source()->forget();
}

Grad Forward::grad(int i) const {
  if (!records_) return {};
  const int value = inputs_[i].value();
  return inputs_[i] && value >= 0 ? tape_.gradient_of(value) : Grad{};
}

Tensor Backward::in(int i) const {
  const auto& input = node().inputs[i];
  return input.value < 0 ? input.constant : tape_.data_of(input.value);
}

Tensor Backward::out(int i) const { return tape_.data_of(node().outputs[i]); }

Grad Backward::grad(int i) const {
  const int value = node().inputs[i].value;
  return value < 0 ? Grad{} : tape_.gradient_of(value);
}

bool Backward::wants(int i) const {
  const int value = node().inputs[i].value;
  return value >= 0 && tape_.values_[value].wants_gradient;
}

void Backward::give(int i, const Tensor& gradient) const {
  const int value = node().inputs[i].value;
  if (value >= 0) tape_.give_gradient(value, gradient);
}

Tensor Backward::reuse_dy(int i) const {
  const Tensor& dy = this->dy(i);
  return owns_dy(i) ? dy : tape_.backend().make(dy.shape(), dy.dtype());
}

}  // namespace mixtape
