// Any bytes are either refused with a CheckpointError or describe tensors that lie within them. Each input is read as
// it is, and with the header's length put right, so that changes of the JSON reach the checks behind it.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "core/base/error.h"
#include "train/checkpoint/safetensors.h"

namespace {

void read(std::span<const std::byte> bytes) {
  try {
    const auto file = mixtape::SafetensorsFile::parse(bytes, "fuzz");
    size_t total = 0;
    for (const mixtape::StoredTensor& tensor : file.tensors()) {
      const bool inside =
          tensor.data.empty() || (tensor.data.data() >= bytes.data() &&
                                  tensor.data.data() + tensor.data.size() <= bytes.data() + bytes.size());
      if (!inside || &file.at(tensor.name) != &tensor) std::abort();
      total += tensor.data.size();
    }
    if (total > bytes.size()) std::abort();
  } catch (const mixtape::CheckpointError&) {
  }
}

// The bytes with the first eight saying that the header ends with the last brace and the blanks behind it.
std::vector<std::byte> with_right_length(std::span<const std::byte> bytes) {
  std::vector<std::byte> copy(bytes.begin(), bytes.end());
  uint64_t end = copy.size();
  while (end > 8 && copy[end - 1] != std::byte('}')) --end;
  while (end < copy.size() && copy[end] == std::byte(' ')) ++end;
  const uint64_t length = end - 8;
  std::memcpy(copy.data(), &length, sizeof length);
  return copy;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  read(bytes);
  if (size >= 8) read(with_right_length(bytes));
  return 0;
}
