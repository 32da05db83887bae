// Fuzzes the reader of SentencePiece models: a model it takes becomes a tokenizer that encodes anything.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/base/error.h"
#include "train/data/tokenizer/pipeline_tokenizer.h"
#include "train/data/tokenizer/sentencepiece_model.h"

using namespace mixtape;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  try {
    const PipelineTokenizer tokenizer(t5_definition(read_sentencepiece_model(input, "input"), 3, "input"), "input");
    (void)tokenizer.decode(tokenizer.encode("the <extra_id_0> A\u00E9 \xFF", {.add_special = true}));
    (void)tokenizer.decode(tokenizer.encode(input.substr(0, 4096)));
  } catch (const DataError&) {
  }
  return 0;
}
