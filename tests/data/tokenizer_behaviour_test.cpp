// Tokenizers beyond the golden cases: bytes, specials, saving, streaming, long words, many threads.
#include "train/data/tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <random>
#include <thread>

#include "core/base/error.h"
#include "train/data/tokenizer/bpe_merges.h"

namespace mixtape {
namespace {

using Ids = std::vector<int32_t>;

// An empty directory that is gone after the test.
class Folder {
 public:
  Folder() : path_(testing::TempDir() + "mixtape_tokenizer_" + std::to_string(::getpid())) {
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

TEST(Tokenizer, BytesAreTheirOwnIds) {
  const auto bytes = load_tokenizer("bytes");
  EXPECT_EQ(bytes->vocab_size(), 257);
  EXPECT_EQ(bytes->eos_id(), 256);
  const std::string text("a\0\xFFé", 5);
  EXPECT_EQ(bytes->encode(text), (Ids{'a', 0, 0xFF, 0xC3, 0xA9}));
  EXPECT_EQ(bytes->encode("x<|endoftext|>"), (Ids{'x', 256}));
  EXPECT_EQ(bytes->encode("<|", {.parse_special = false}), (Ids{'<', '|'}));
  EXPECT_EQ(bytes->decode(Ids{'h', 0xC3, 0xA9, 256}), "hé<|endoftext|>");
  EXPECT_EQ(bytes->decode(Ids{'h', 256, 'i'}, true), "hi");
  EXPECT_EQ(bytes->token_bytes(0xC3), "\xC3");
}

TEST(Tokenizer, AppendsAndRefusesForeignIds) {
  const auto bytes = load_tokenizer("bytes");
  Ids ids{7};
  bytes->encode("a", ids);
  EXPECT_EQ(ids, (Ids{7, 'a'}));
  EXPECT_THROW(bytes->decode(Ids{257}), DataError);
  EXPECT_THROW(bytes->decode(Ids{-1}), DataError);
  const auto sentencepiece = load_tokenizer(test::golden_tokenizer("t5_unigram"));
  EXPECT_THROW(sentencepiece->decode(Ids{512}), DataError);
  EXPECT_THROW(sentencepiece->token_text(-1), DataError);
}

TEST(Tokenizer, BytesThatAreNotUtf8Survive) {
  const auto tokenizer = load_tokenizer(test::golden_tokenizer("bpe"));
  const std::string text = "ok \xF0\x9F\x98 \xFF\xC3(";
  std::string bytes;
  for (const int32_t id : tokenizer->encode(text)) bytes += tokenizer->token_bytes(id);
  EXPECT_EQ(bytes, text);
}

TEST(Tokenizer, SavedAndLoadedIsTheSame) {
  const Folder folder;
  const std::string text = "Don't   stop: 12345 cafés\n\n<|endoftext|></s> ▁x";
  for (const std::string& source :
       {std::string("bytes"), test::golden_tokenizer("bpe"), test::golden_tokenizer("bpe_digits"),
        test::golden_tokenizer("bpe/vocab.json"), test::golden_tokenizer("llama_bpe/tokenizer.json"),
        test::golden_tokenizer("llama_bpe/tokenizer.model"), test::golden_tokenizer("patterns/llama3.json"),
        test::golden_tokenizer("patterns/qwen2.json"), test::golden_tokenizer("patterns/bloom.json")}) {
    const auto original = load_tokenizer(source);
    std::filesystem::remove_all(folder / "saved");
    original->save(folder / "saved");
    const auto loaded = load_tokenizer(folder / "saved");
    EXPECT_EQ(loaded->fingerprint(), original->fingerprint()) << source;
    EXPECT_EQ(loaded->encode(text, {.add_special = true}), original->encode(text, {.add_special = true})) << source;
    EXPECT_EQ(loaded->special_tokens(), original->special_tokens()) << source;
  }
}

TEST(Tokenizer, FingerprintsTellTokenizersApart) {
  const auto a = load_tokenizer(test::golden_tokenizer("bpe")),
             b = load_tokenizer(test::golden_tokenizer("bpe_digits"));
  EXPECT_NE(a->fingerprint(), b->fingerprint());
  EXPECT_NE(a->fingerprint(), load_tokenizer("bytes")->fingerprint());
  EXPECT_EQ(a->fingerprint(), load_tokenizer(test::golden_tokenizer("bpe/tokenizer.json"))->fingerprint());
}

TEST(Tokenizer, ConfigBesideTheFileNamesRoles) {
  const Folder folder;
  load_tokenizer(test::golden_tokenizer("bpe"))->save(folder / "tokenizer.json");
  std::ofstream(folder / "tokenizer_config.json")
      << R"({"eos_token": {"content": "!"}, "bos_token": "\"", "pad_token": "<none>"})";
  const auto tokenizer = load_tokenizer(folder / "tokenizer.json");
  EXPECT_EQ(tokenizer->eos_id(), 1);
  EXPECT_EQ(tokenizer->bos_id(), 2);
  EXPECT_EQ(tokenizer->pad_id(), std::nullopt);
  std::ofstream(folder / "tokenizer_config.json") << R"({"eos_token": "<none>"})";
  EXPECT_THROW(load_tokenizer(folder / "tokenizer.json"), DataError);
}

TEST(SpecialTokens, AreFoundByTheirUsualNames) {
  const auto named = [](std::vector<std::string> names) {
    SpecialTokens tokens;
    find_special_tokens(tokens, [&](std::string_view name) -> std::optional<int32_t> {
      const auto found = std::ranges::find(names, name);
      return found == names.end() ? std::nullopt : std::optional(static_cast<int32_t>(found - names.begin()));
    });
    return tokens;
  };
  EXPECT_EQ(named({}), SpecialTokens{});
  EXPECT_EQ(named({"<|endoftext|>"}), SpecialTokens{.eos = 0});
  EXPECT_EQ(named({"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}),
            (SpecialTokens{.bos = 2, .eos = 3, .unk = 1, .pad = 0, .cls = 2, .sep = 3, .mask = 4}));
  EXPECT_EQ(named({"<s>", "<pad>", "</s>", "<unk>", "<mask>"}),
            (SpecialTokens{.bos = 0, .eos = 2, .unk = 3, .pad = 1, .cls = 0, .sep = 2, .mask = 4}));
  EXPECT_EQ(named({"<pad>", "</s>", "<unk>", "<extra_id_3>", "<extra_id_1>", "<extra_id_0>"}),
            (SpecialTokens{.eos = 1, .unk = 2, .pad = 0, .sentinels = {5, 4}}));
}

TEST(Tokenizer, WordsBeginWithWhiteSpaceOrAreSpecial) {
  const auto bpe = load_tokenizer(test::golden_tokenizer("bpe"));
  EXPECT_TRUE(bpe->begins_word(bpe->token_id("Ġthe").value()));
  EXPECT_TRUE(bpe->begins_word(bpe->token_id("Ċ").value()));
  EXPECT_FALSE(bpe->begins_word(bpe->token_id("e").value()));
  EXPECT_TRUE(bpe->begins_word(0));
  const auto t5 = load_tokenizer(test::golden_tokenizer("t5_unigram"));
  EXPECT_TRUE(t5->begins_word(t5->token_id("▁the").value()));
  EXPECT_FALSE(t5->begins_word(t5->token_id("s").value()));
}

TEST(StreamDecoder, HoldsBackIncompleteCharacters) {
  const auto bytes = load_tokenizer("bytes");
  StreamDecoder stream(*bytes);
  EXPECT_EQ(stream.next('a'), "a");
  EXPECT_EQ(stream.next(0xF0), "");
  EXPECT_EQ(stream.next(0x9F), "");
  EXPECT_EQ(stream.next(0x98), "");
  EXPECT_EQ(stream.next(0x80), "😀");
  EXPECT_EQ(stream.next(0xE2), "");
  EXPECT_EQ(stream.next('b'),
            "\uFFFD"
            "b");
  EXPECT_EQ(stream.next(256), "");  // special
  EXPECT_EQ(stream.next(0xC3), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(stream.finish(), "");
}

TEST(StreamDecoder, KeepsTheBlankAfterAPrompt) {
  const auto llama = load_tokenizer(test::golden_tokenizer("llama_bpe/tokenizer.model"));
  const Ids ids = llama->encode("the end");
  for (const bool after_prompt : {false, true}) {
    StreamDecoder stream(*llama, after_prompt);
    std::string text;
    for (const int32_t id : ids) text += stream.next(id);
    EXPECT_EQ(text, after_prompt ? " the end" : "the end");
  }
}

// The definition itself: the leftmost pair of the least rank, one at a time.
Ids merge_slowly(const BpeMerges& merges, Ids ids) {
  while (true) {
    size_t best = 0;
    BpeMerges::Merge found;
    for (size_t i = 0; i + 1 < ids.size(); ++i)
      if (const auto merge = merges.find(ids[i], ids[i + 1]); merge.rank < found.rank) found = merge, best = i;
    if (found.rank == BpeMerges::no_rank) return ids;
    ids[best] = found.id;
    ids.erase(ids.begin() + best + 1);
  }
}

TEST(BpeMerges, ShortAndLongWordsFollowTheDefinition) {
  std::mt19937 random(5);
  std::vector<std::pair<int32_t, int32_t>> pairs;
  Ids made;
  for (int32_t id = 3; id < 60; ++id) {
    pairs.emplace_back(random() % id, random() % id);
    made.push_back(id);
  }
  const BpeMerges merges(pairs, made);
  for (const size_t length : {0, 1, 2, 3, 10, 63, 64, 65, 66, 300}) {
    for (int repeat = 0; repeat < 20; ++repeat) {
      Ids ids(length);
      for (int32_t& id : ids) id = static_cast<int32_t>(random() % 3);
      Ids merged = ids;
      merges.apply(merged);
      EXPECT_EQ(merged, merge_slowly(merges, ids)) << length;
    }
  }
}

TEST(Tokenizer, ManyThreadsGiveTheSame) {
  const auto tokenizer = load_tokenizer(test::golden_tokenizer("bpe"));
  std::string text;
  for (int i = 0; i < 2000; ++i) text += " word" + std::to_string(i * 7919) + "'s\n";
  const Ids expected = tokenizer->encode(text);
  std::vector<Ids> found(4);
  std::vector<std::thread> threads;
  for (Ids& ids : found) threads.emplace_back([&] { tokenizer->encode(text, ids); });
  for (std::thread& thread : threads) thread.join();
  for (const Ids& ids : found) EXPECT_EQ(ids, expected);
  EXPECT_EQ(tokenizer->decode(expected), text);
}

TEST(Tokenizer, TwoTokenizersOnOneThreadDoNotMix) {
  const auto a = load_tokenizer(test::golden_tokenizer("bpe")), b = load_tokenizer("bytes");
  const Ids first = a->encode("the end");
  EXPECT_EQ(b->encode("the"), (Ids{'t', 'h', 'e'}));
  EXPECT_EQ(a->encode("the end"), first);
}

}  // namespace
}  // namespace mixtape
