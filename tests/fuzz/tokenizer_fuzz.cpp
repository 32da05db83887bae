// Fuzzes tokenizer.json and the encoder behind it, for every model, normalizer and pre-tokenizer (seeds/tokenizer). The
// input up to the first zero byte is a tokenizer.json, the rest is text. Whatever is not refused must encode and decode
// anything without a fault; a byte-level tokenizer without normalizer must give the text's bytes back.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "core/base/error.h"
#include "train/data/tokenizer/pipeline_tokenizer.h"
#include "train/data/tokenizer/tokenizer_json.h"
#include "train/data/tokenizer/vocabulary_files.h"

using namespace mixtape;

namespace {

bool keeps_bytes(const TokenizerDefinition& d) {
  if (!d.byte_level() || !std::holds_alternative<ByteLevelDecoder>(d.decoder) || !d.normalizer.empty()) return false;
  for (const PreTokenizerStep& step : d.pre_tokenizer) {
    const auto* bytes = std::get_if<ByteLevel>(&step);
    if (std::holds_alternative<Metaspace>(step) || (bytes && bytes->add_prefix_space)) return false;
    const auto* rule = std::get_if<SplitRule>(&step);
    if (rule && (*rule == SplitRule::bert || *rule == SplitRule::words)) return false;  // white space goes
  }
  return d.added.empty();
}

void round_trip(const Tokenizer& tokenizer, std::string_view text, bool exact) {
  const auto ids = tokenizer.encode(text, {.parse_special = true, .add_special = !exact});
  (void)tokenizer.decode(ids);
  (void)tokenizer.encode(text, {.parse_special = false});
  const EncodedPair pair = tokenizer.encode_pair(text, text);
  if (pair.ids.size() != pair.types.size()) std::abort();
  StreamDecoder stream(tokenizer);
  std::string bytes;
  for (const int32_t id : ids) {
    bytes += tokenizer.token_bytes(id);
    (void)stream.next(id);
  }
  if (exact && bytes != text) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t split = std::min(input.find('\0'), size);
  const std::string_view json = input.substr(0, split), text = input.substr(std::min(split + 1, size));
  static const auto bytes = load_tokenizer("bytes");
  if (bytes->decode(bytes->encode(text, {.parse_special = false})).empty() != text.empty()) std::abort();
  try {
    const PipelineTokenizer tokenizer(read_tokenizer_json(json, "input"), "input");
    round_trip(tokenizer, text, keeps_bytes(tokenizer.definition()));
    PipelineTokenizer again(read_tokenizer_json(write_tokenizer_json(tokenizer.definition()), "saved"), "saved");
    if (again.fingerprint() != tokenizer.fingerprint()) std::abort();
    (void)write_tokenizer_config(tokenizer.definition());
    if (is_bert_layout(tokenizer.definition())) read_vocab_txt({write_vocab_txt(tokenizer.definition()), "saved"}, {});
  } catch (const DataError&) {
  }
  return 0;
}
