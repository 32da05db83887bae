#include "train/joint_files.h"

#include <algorithm>
#include <optional>
#include <sstream>

#include "train/checkpoint/huggingface/adapter.h"
#include "train/parallel/world.h"

namespace mixtape {
namespace {

// What is read of state at a time.
constexpr int64_t piece_elements = 4 << 20;

// A tensor of state, where this process has all of it: a piece at a time.
TensorSource streamed(const FlatState& flat, const Stored& stored) {
  auto produce = [flat, begin = stored.offset, count = count_of(stored.shape)](const ByteSink& sink) {
    std::vector<std::byte> piece(size_t(std::min(count, piece_elements) * size_of(flat.dtype())));
    for (int64_t at = 0; at < count; at += piece_elements) {
      const int64_t n = std::min(count - at, piece_elements);
      flat.read(piece.data(), begin + at, n);
      sink({piece.data(), size_t(n * size_of(flat.dtype()))});
    }
  };
  return {stored.name, stored_type(flat.dtype()), stored.shape, std::move(produce)};
}

// What this rank writes of a buffer: its parts, or of what all have its share.
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
void put_numbers(const SharedFile::Put& put, const std::map<int64_t, Placed>& places, int64_t begin, int64_t size,
                 std::span<const std::byte> bytes) {
  const int64_t end = begin + int64_t(bytes.size()) / size;
  auto tensor = places.upper_bound(begin);
  if (tensor != places.begin()) --tensor;
  for (; tensor != places.end() && tensor->first < end; ++tensor) {
    const auto [count, at] = tensor->second;
    const int64_t first = std::max(begin, tensor->first), last = std::min(end, tensor->first + count);
    if (first < last)
      put(at + uint64_t((first - tensor->first) * size),
          bytes.subspan(size_t((first - begin) * size), size_t((last - first) * size)));
  }
}

void put_tensor(const SharedFile::Put& put, uint64_t at, const TensorSource& tensor) {
  const uint64_t end = at + uint64_t(count_of(tensor.shape) * size_of(tensor.type));
  tensor.produce([&](std::span<const std::byte> bytes) {
    if (at + bytes.size() > end) throw Error("'{}' is larger than its shape", tensor.name);
    put(at, bytes);
    at += bytes.size();
  });
  if (at != end) throw Error("'{}' is smaller than its shape", tensor.name);
}

// Tensors that are made of one parameter, or of none.
struct Deal {
  std::string parameter;
  int64_t bytes = 0;
  std::vector<const TensorSource*> tensors;
};
// The largest first: those of a round are then alike.
std::vector<Deal> deals_of(const std::vector<TensorSource>& tensors) {
  std::map<std::string, Deal> by_parameter;
  for (const TensorSource& t : tensors) {
    Deal& deal = by_parameter[t.parameter];
    deal.parameter = t.parameter;
    deal.bytes += count_of(t.shape) * size_of(t.type);
    deal.tensors.push_back(&t);
  }
  std::vector<Deal> deals;
  for (auto& [parameter, deal] : by_parameter) deals.push_back(std::move(deal));
  std::ranges::stable_sort(deals, std::greater(), &Deal::bytes);
  return deals;
}

}  // namespace

JointFiles::JointFiles(Engine& engine, const RankGrid& grid)
    : engine_(engine),
      grid_(grid),
      weights_(engine.parameters(), engine.backend(), grid),
      state_(optimizer_buffers(engine)) {}

ParameterGetter JointFiles::weights() {
  return [this](const std::string& name) { return weights_(name); };
}

std::vector<TensorSource> JointFiles::optimizer_tensors() const {
  std::vector<TensorSource> tensors;
  for (const StateBuffer& b : state_)
    for (const Stored& s : b.stored) tensors.push_back(streamed(b.flat, s));
  return tensors;
}

FileRecord JointFiles::write(const std::filesystem::path& path, std::vector<TensorSource> tensors) {
  if (grid_.all().size() == 1) return write_alone(path, std::move(tensors));
  std::string order = path.string();
  for (const TensorSource& t : tensors) order += "\n" + t.name;
  broadcast_text(grid_.all(), std::move(order));
  return write_together(path, tensors);
}

void JointFiles::release() {
  if (grid_.all().size() > 1) broadcast_text(grid_.all(), "");
}

void JointFiles::follow() {
  const ModelSpec& spec = engine_.model().spec();
  const DType dtype = engine_.parameters().weights.dtype();
  std::map<std::string, TensorSource> known;
  const auto add = [&](std::vector<TensorSource> tensors) {
    for (TensorSource& t : tensors) known.insert_or_assign(t.name, std::move(t));
  };
  add(model_sources(spec, weights(), {.dtype = dtype}));
  add(adapter_sources(spec, engine_.options().lora, dtype, weights()));
  add(optimizer_tensors());
  for (std::string text; !(text = broadcast_text(grid_.all(), "")).empty();) {
    std::istringstream order(text);
    std::string path;
    std::getline(order, path);
    std::vector<TensorSource> tensors;
    for (std::string name; std::getline(order, name);) tensors.push_back(known.at(name));
    write_together(path, tensors);
  }
}

FileRecord JointFiles::write_together(const std::filesystem::path& path, const std::vector<TensorSource>& tensors) {
  const SafetensorsLayout layout = layout_safetensors(tensors);
  std::optional<SharedFile> file = SharedFile::create(grid_.all(), path, layout.header, layout.bytes);
  if (!file) return {};
  bool has_state = false;
  for (const StateBuffer& b : state_)
    if (!b.stored.empty() && layout.places.contains(b.stored.front().name))
      write_state(*file, layout, b), has_state = true;
  if (!has_state) write_dealt(*file, layout, tensors);
  return file->finish();
}

void JointFiles::write_dealt(SharedFile& file, const SafetensorsLayout& layout,
                             const std::vector<TensorSource>& tensors) {
  const std::vector<Deal> deals = deals_of(tensors);
  const auto ranks = size_t(grid_.all().size()), here = size_t(grid_.all().rank());
  for (size_t first = 0; first < deals.size(); first += ranks) {
    for (size_t r = 0; r < ranks && first + r < deals.size(); ++r)
      if (const std::string& parameter = deals[first + r].parameter; !parameter.empty())
        weights_.bring(parameter, int(r));
    file.write([&](const SharedFile::Put& put) {
      if (first + here >= deals.size()) return;
      for (const TensorSource* t : deals[first + here].tensors) put_tensor(put, layout.places.at(t->name), *t);
    });
  }
}

void JointFiles::write_state(SharedFile& file, const SafetensorsLayout& layout, const StateBuffer& b) const {
  const std::map<int64_t, Placed> places = placed(b, layout);
  const int64_t size = size_of(b.flat.dtype());
  file.write([&](const SharedFile::Put& put) {
    std::vector<std::byte> piece;
    for (const Shards::Part& part : written_parts(engine_.parameters(), grid_, b))
      for (int64_t at = 0; at < part.run.count; at += piece_elements) {
        const int64_t count = std::min(part.run.count - at, piece_elements);
        piece.resize(size_t(count * size));
        b.flat.read(piece.data(), part.at + at, count);
        put_numbers(put, places, part.run.begin + at, size, piece);
      }
  });
}

}  // namespace mixtape
