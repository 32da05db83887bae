// Any bytes are either refused with a CheckpointError or describe tensors that lie within them.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "core/base/error.h"
#include "train/checkpoint/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
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
    if (total > size) std::abort();
  } catch (const mixtape::CheckpointError&) {
  }
  return 0;
}
