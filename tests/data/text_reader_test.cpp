#include "train/data/text_reader.h"

#include <zlib.h>
#include <zstd.h>

#include "tests/data/support.h"
#include "train/data/paths.h"

namespace mixtape::test {
namespace {

using Texts = std::vector<std::string>;

Texts documents(const std::vector<fs::path>& files, TextOptions options = {}, TextCounters* counters = nullptr) {
  TextReader reader(files, std::move(options));
  Texts out;
  bool open = false;
  for (TextPiece piece; reader.next(piece);) {
    if (!open) out.emplace_back();
    out.back() += piece.text;
    open = !piece.ends_document;
  }
  EXPECT_FALSE(open);
  if (counters) *counters = reader.counters();
  return out;
}

std::string gzip(const std::string& text) {
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, text.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = uInt(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = uInt(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(out.size() - stream.avail_out);
  deflateEnd(&stream);
  return out;
}

std::string zstd(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

TEST(TextReader, CutsPlainText) {
  const TemporaryDirectory directory;
  const fs::path file = directory / "a.txt";
  write_bytes(file, "one\ntwo\n%\n%\n\nthree\r\n%\r\nfour");
  EXPECT_EQ(documents({file}), (Texts{"one\ntwo\n%\n%\n\nthree\r\n%\r\nfour"}));
  EXPECT_EQ(documents({file}, {.separator = "%"}), (Texts{"one\ntwo", "\nthree", "four"}));
  EXPECT_EQ(documents({file}, {.separator = ""}), (Texts{"one\ntwo\n%\n%", "three\r\n%\r\nfour"}));
  write_bytes(file, "");
  EXPECT_EQ(documents({file, file}), Texts{});
}

TEST(TextReader, FixtureOfSayings) {
  const auto found = documents({fs::path(MIXTAPE_SOURCE) / "tests/data/fixtures/sayings"}, {.separator = "%"});
  ASSERT_EQ(found.size(), 5u);
  EXPECT_EQ(found[2], "The cheapest token is the one you did not have to train on.");
}

TEST(TextReader, JsonLines) {
  const TemporaryDirectory directory;
  const fs::path file = directory / "a.jsonl";
  write_bytes(file,
              "{\"text\": \"one\\n\\u00e4\", \"n\": 1}\n\n{\"other\": 0, \"text\": "
              "\"two\"}\r\n{\"text\":\"\"}\n{\"text\":\"x\"}");
  EXPECT_EQ(documents({file}), (Texts{"one\n\xC3\xA4", "two", "x"}));
  EXPECT_NE(error_of([&] { documents({file}, {.key = "other"}); }).find("a.jsonl:1: no key \"other\""),
            std::string::npos);
}

TEST(TextReader, BadLinesAreErrorsWithFileAndLineOrCounted) {
  const TemporaryDirectory directory;
  const fs::path file = directory / "a.jsonl";
  const std::string good = "{\"text\": \"good\"}\n";
  for (const std::string bad : {"{\"text\": \"", "[1]", "{\"text\": 3}", "nonsense", "{\"text\": \"a\"} x"}) {
    write_bytes(file, good + bad + "\n" + good);
    EXPECT_NE(error_of([&] { documents({file}); }).find("a.jsonl:2: "), std::string::npos) << bad;
    TextCounters counters;
    EXPECT_EQ(documents({file}, {.bad_line = BadLine::skip}, &counters), (Texts{"good", "good"}));
    EXPECT_EQ(counters.skipped_lines, 1u);
    EXPECT_NE(counters.first_skipped.find(":2:"), std::string::npos);
  }
  write_bytes(file, good + "{\"text\": \"" + std::string(300000, 'a') + "\"}\n" + good);
  const TextOptions limited{.bad_line = BadLine::skip, .max_line_bytes = 100000};
  EXPECT_EQ(documents({file}, limited), (Texts{"good", "good"}));
}

TEST(TextReader, CompressedFilesAndSeveralMembers) {
  const TemporaryDirectory directory;
  std::string text;
  for (int i = 0; i < 100000; ++i) text += "line " + std::to_string(i * 7919 % 10007) + "\n";
  for (const auto& compress : {gzip, zstd}) {
    const fs::path file = directory / "a.txt.z";  // known by content, not by name
    const std::string bytes = compress(text) + compress("more");
    write_bytes(file, bytes);
    EXPECT_EQ(documents({file}), (Texts{text + "more"}));
    TextCounters counters;
    documents({file}, {}, &counters);
    EXPECT_EQ(counters.bytes_read, bytes.size());
    const std::string cut = compress(text);
    for (const size_t size : {cut.size() - 1, cut.size() / 2, size_t(6)}) {
      write_bytes(file, cut.substr(0, size));
      EXPECT_NE(error_of([&] { documents({file}); }).find("incomplete"), std::string::npos) << size;
    }
    std::string damaged = cut;
    for (size_t at = damaged.size() / 2; at < damaged.size() / 2 + 40; ++at) damaged[at] = char(~damaged[at]);
    write_bytes(file, damaged);
    EXPECT_THROW(documents({file}), DataError);
  }
}

TEST(TextReader, BrokenUtf8IsRepairedOrRefused) {
  const TemporaryDirectory directory;
  const fs::path file = directory / "a.txt";
  write_bytes(file, "good\n%\nbad \xE2\x82 \xFF end\n");
  TextCounters counters;
  EXPECT_EQ(documents({file}, {.separator = "%"}, &counters), (Texts{"good", "bad \xEF\xBF\xBD \xEF\xBF\xBD end"}));
  EXPECT_EQ(counters.repaired, 1u);
  const TextOptions strict{.separator = "%", .invalid_utf8 = InvalidUtf8::error};
  EXPECT_NE(error_of([&] { documents({file}, strict); }).find("line 3"), std::string::npos);
  write_bytes(file, "\xEF\xBB\xBFtext");
  EXPECT_EQ(documents({file}), (Texts{"text"}));
  write_bytes(file, std::string_view("\xFF\xFEt\0", 4));
  EXPECT_NE(error_of([&] { documents({file}); }).find("UTF-16"), std::string::npos);
}

TEST(TextReader, LongDocumentsComeInPiecesCutBetweenWords) {
  const TemporaryDirectory directory;
  std::string text;
  for (int i = 0; i < 20000; ++i) text += "w\xC3\xB6rd" + std::to_string(i) + (i % 9 ? " " : "\n");
  write_bytes(directory / "a.txt", text);
  write_bytes(directory / "b.txt", std::string(5000, 'x') + "\xE6\xBC\xA2\xE5\xAD\x97");
  for (const char* name : {"a.txt", "b.txt"}) {
    TextReader reader({directory / name}, {.invalid_utf8 = InvalidUtf8::error, .max_piece_bytes = 1001});
    std::string whole;
    int pieces = 0;
    for (TextPiece piece; reader.next(piece); ++pieces) {
      EXPECT_LE(piece.text.size(), 1001u);
      if (!whole.empty() && name[0] == 'a') {
        EXPECT_TRUE(piece.text[0] == ' ' || whole.back() == '\n');
      }
      whole += piece.text;
    }
    EXPECT_EQ(whole, read_bytes(directory / name));
    EXPECT_GT(pieces, 5);
    EXPECT_EQ(reader.counters().documents, 1u);
  }
}

TEST(Paths, PatternsAndDirectories) {
  EXPECT_TRUE(matches_pattern("part-01.txt", "part-??.*"));
  EXPECT_TRUE(matches_pattern("", "*"));
  EXPECT_FALSE(matches_pattern("part-1.txt", "part-??.*"));
  EXPECT_FALSE(matches_pattern("a", "b*"));
  EXPECT_TRUE(matches_pattern(std::string(1000, 'a') + "b", "*a*a*a*a*a*b"));

  const TemporaryDirectory directory;
  for (const char* name : {"b.txt", "sub/a.jsonl.gz", "c.dat", "deep/er/d.md"}) write_bytes(directory / name, "x");
  const auto all = expand_paths({directory.path().string()});
  EXPECT_EQ(all,
            (std::vector<fs::path>{directory / "b.txt", directory / "deep/er/d.md", directory / "sub/a.jsonl.gz"}));
  EXPECT_EQ(expand_paths({directory.path().string() + "/*/a.*"}).size(), 1u);
  EXPECT_EQ(expand_paths({directory.path().string() + "/?.dat"}).size(), 1u);
  EXPECT_THROW(expand_paths({directory.path().string() + "/*.none"}), DataError);
  EXPECT_THROW(expand_paths({(directory / "none").string()}), DataError);
}

}  // namespace
}  // namespace mixtape::test
