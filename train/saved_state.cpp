#include "train/saved_state.h"

namespace mixtape {
namespace {

Extents extents_of(const Shape& shape) {
  Extents extents;
  for (int i = 0; i < shape.rank(); ++i) extents.push_back(shape[i]);
  return extents;
}

// One scale for each block of 256 elements of NAME's moment.
std::vector<Stored> scales_of(const ParameterLayout& layout, const std::string& prefix) {
  std::vector<Stored> list;
  for (const ParameterEntry& entry : layout.entries())
    if (entry.learns)
      list.push_back({prefix + entry.name, {Moment::blocks_of(entry.count())}, entry.whole_offset / moment_block});
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
  buffers.push_back({.flat = {engine.backend(), q->scale}, .stored = std::move(scales), .shared = true});
  buffers.push_back({.flat = {engine.backend(), q->history}, .stored = std::move(histories), .shared = true});
}

}  // namespace

std::vector<Stored> parameters_of(const ParameterLayout& layout, const std::string& prefix, bool learning) {
  std::vector<Stored> list;
  for (const ParameterEntry& entry : layout.entries())
    if (entry.learns || !learning) list.push_back({prefix + entry.name, extents_of(entry.whole), entry.whole_offset});
  return list;
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

bool is_shared_out(const Parameters& p) { return p.storage().sharding.ranks > 1 || p.layout().slice().ranks > 1; }

bool is_cut(const Parameters& p, const StateBuffer& buffer) { return is_shared_out(p) && !buffer.shared; }

// The length of an optimizer's buffer, of which this rank may have parts.
int64_t whole_count(const Parameters& p, const StateBuffer& buffer) {
  return is_cut(p, buffer) ? p.layout().whole_learning_flat_count() / buffer.each : buffer.flat.count();
}

}  // namespace mixtape
