// The safetensors reader refuses every malformed file, and the writer writes what the reader and others read.
#include "train/checkpoint/safetensors.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "core/base/error.h"
#include "tests/checkpoint/temporary_directory.h"

namespace mixtape {
namespace {

std::string file_of(const std::string& header, size_t data_bytes, std::optional<uint64_t> length = {}) {
  const uint64_t n = length.value_or(header.size());
  return std::string(reinterpret_cast<const char*>(&n), 8) + header + std::string(data_bytes, '\1');
}

std::string error_of(const std::string& bytes) {
  try {
    SafetensorsFile::parse(std::as_bytes(std::span(bytes)), "F");
    return "accepted";
  } catch (const CheckpointError& error) {
    return error.what();
  }
}

std::string tensor(const std::string& name, const std::string& dtype, const std::string& shape,
                   const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
}

TEST(Safetensors, reads_a_valid_file) {
  const std::string bytes =
      file_of("{\"__metadata__\":{\"format\":\"pt\"}," + tensor("b", "F32", "[2,1]", "[4,12]") + "," +
                  tensor("a", "I16", "[2]", "[0,4]") + "," + tensor("none", "F32", "[0,7]", "[4,4]") + "," +
                  tensor("scalar", "U8", "[]", "[12,13]") + "}   ",
              13);
  const auto file = SafetensorsFile::parse(std::as_bytes(std::span(bytes)), "F");
  ASSERT_EQ(file.tensors().size(), 4u);
  EXPECT_EQ(file.tensors()[0].name, "a");
  EXPECT_EQ(file.at("b").shape, (Extents{2, 1}));
  EXPECT_EQ(file.at("b").data.size(), 8u);
  EXPECT_EQ(file.at("none").data.size(), 0u);
  EXPECT_EQ(file.at("scalar").type, StoredType::u8);
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(file.find("c"), nullptr);
  EXPECT_THROW(file.at("c"), CheckpointError);
}

struct Refusal {
  const char* name;
  std::string bytes;
  const char* message;  // a part of it
};

class SafetensorsRefuses : public testing::TestWithParam<Refusal> {};

TEST_P(SafetensorsRefuses, with_a_reason) {
  EXPECT_NE(error_of(GetParam().bytes).find(GetParam().message), std::string::npos) << error_of(GetParam().bytes);
}

const std::string f32 = tensor("a", "F32", "[1]", "[0,4]");

INSTANTIATE_TEST_SUITE_P(
    files, SafetensorsRefuses,
    testing::Values(
        Refusal{"empty", "", "too few"}, Refusal{"seven_bytes", std::string(7, '\0'), "too few"},
        Refusal{"no_header", std::string(8, '\0'), "does not begin"},
        Refusal{"header_beyond_file", file_of("{}", 0, 3), "is announced"},
        Refusal{"header_beyond_limit", file_of("{}", 0, 100'000'001), "is announced"},
        Refusal{"header_of_all_ones", file_of("{}", 0, ~uint64_t(0)), "is announced"},
        Refusal{"blank_first", file_of(" {}", 0), "does not begin"},
        Refusal{"list", file_of("[]", 0), "does not begin"},
        Refusal{"truncated_json", file_of("{\"a\":", 0), "not valid JSON"},
        Refusal{"two_documents", file_of("{}{}", 0), "not valid JSON"},
        Refusal{"comment", file_of("{/**/}", 0), "not valid JSON"},
        Refusal{"trailing_comma", file_of("{" + f32 + ",}", 4), "not valid JSON"},
        Refusal{"name_not_utf8", file_of("{" + tensor("\xff\xfe", "F32", "[1]", "[0,4]") + "}", 4), "not valid JSON"},
        Refusal{"name_half_surrogate", file_of("{" + tensor("\\ud800", "F32", "[1]", "[0,4]") + "}", 4),
                "not valid JSON"},
        Refusal{"duplicate_name", file_of("{" + f32 + "," + tensor("a", "F32", "[1]", "[4,8]") + "}", 8),
                "occurs twice"},
        Refusal{"duplicate_by_escape", file_of("{" + f32 + "," + tensor("\\u0061", "F32", "[1]", "[4,8]") + "}", 8),
                "occurs twice"},
        Refusal{"duplicate_member",
                file_of(R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4), "repetition"},
        Refusal{"unknown_member", file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}})", 4),
                "unknown"},
        Refusal{"no_dtype", file_of(R"({"a":{"shape":[1],"data_offsets":[0,4]}})", 4), "lacks"},
        Refusal{"no_shape", file_of(R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", 4), "lacks"},
        Refusal{"no_offsets", file_of(R"({"a":{"dtype":"F32","shape":[1]}})", 4), "lacks"},
        Refusal{"one_offset", file_of("{" + tensor("a", "F32", "[1]", "[0]") + "}", 4), "lacks"},
        Refusal{"three_offsets", file_of("{" + tensor("a", "F32", "[1]", "[0,4,8]") + "}", 4), "more than two"},
        Refusal{"unknown_dtype", file_of("{" + tensor("a", "F31", "[1]", "[0,4]") + "}", 4), "does not know"},
        Refusal{"dtype_is_number", file_of(R"({"a":{"dtype":1}})", 4), "a number"},
        Refusal{"negative_extent", file_of("{" + tensor("a", "F32", "[-1]", "[0,4]") + "}", 4), "not negative"},
        Refusal{"fractional_extent", file_of("{" + tensor("a", "F32", "[1.5]", "[0,4]") + "}", 4), "whole number"},
        Refusal{"exponent_extent", file_of("{" + tensor("a", "F32", "[1e0]", "[0,4]") + "}", 4), "whole number"},
        Refusal{"huge_extent", file_of("{" + tensor("a", "F32", "[18446744073709551615]", "[0,4]") + "}", 4),
                "too large"},
        Refusal{"overflowing_shape",
                file_of("{" + tensor("a", "F32", "[4294967296,4294967296,4294967296]", "[0,0]") + "}", 0),
                "impossible"},
        Refusal{"overflow_to_size", file_of("{" + tensor("a", "F32", "[4611686018427387905]", "[0,4]") + "}", 4),
                "impossible"},
        Refusal{"too_many_dimensions",
                file_of("{" + tensor("a", "U8", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[0,1]") + "}", 1),
                "dimensions"},
        Refusal{"nested_shape", file_of("{" + tensor("a", "F32", "[[1]]", "[0,4]") + "}", 4), "an array in an array"},
        Refusal{"deep", file_of("{\"a\":" + std::string(100000, '['), 0), "an array"},
        Refusal{"deep_objects", file_of(R"({"a":{"dtype":{"a":{}}}})", 0), "an object"},
        Refusal{"null", file_of(R"({"a":null})", 0), "null"},
        Refusal{"true", file_of(R"({"a":true})", 0), "true or false"},
        Refusal{"metadata_number", file_of(R"({"__metadata__":{"a":1}})", 0), "a number"},
        Refusal{"metadata_twice", file_of(R"({"__metadata__":{"a":"1","a":"2"}})", 0), "occurs twice"},
        Refusal{"metadata_list", file_of(R"({"__metadata__":["a"]})", 0), "an array"},
        Refusal{"offsets_reversed", file_of("{" + tensor("a", "F32", "[1]", "[4,0]") + "}", 4), "outside"},
        Refusal{"offsets_beyond", file_of("{" + tensor("a", "F32", "[2]", "[0,8]") + "}", 4), "outside"},
        Refusal{"size_mismatch", file_of("{" + tensor("a", "F32", "[2]", "[0,4]") + "}", 4), "take"},
        Refusal{"overlap",
                file_of("{" + tensor("a", "F32", "[2]", "[0,8]") + "," + tensor("b", "F32", "[2]", "[4,12]") + "}", 12),
                "overlap"},
        Refusal{"same_range", file_of("{" + f32 + "," + tensor("b", "F32", "[1]", "[0,4]") + "}", 4), "overlap"},
        Refusal{"hole", file_of("{" + f32 + "," + tensor("b", "F32", "[1]", "[8,12]") + "}", 12), "hole"},
        Refusal{"hole_at_start", file_of("{" + tensor("a", "F32", "[1]", "[4,8]") + "}", 8), "hole"},
        Refusal{"trailing_bytes", file_of("{" + f32 + "}", 5), "belong to none"},
        Refusal{"data_without_tensors", file_of("{}", 1), "belong to none"}),
    [](const auto& info) { return info.param.name; });

// Whatever one byte is changed to, the answer is an error or a file whose tensors lie within it; never a crash.
TEST(Safetensors, any_changed_byte_is_safe) {
  const std::string good = file_of("{" + f32 + "," + tensor("b", "BF16", "[2,2]", "[4,12]") + "}", 12);
  for (size_t i = 0; i < good.size(); ++i)
    for (int value = 0; value < 256; ++value) {
      std::string bytes = good;
      bytes[i] = char(value);
      try {
        const auto file = SafetensorsFile::parse(std::as_bytes(std::span(bytes)), "F");
        for (const StoredTensor& t : file.tensors())
          ASSERT_EQ(int64_t(t.data.size()), count_of(t.shape) * size_of(t.type));
      } catch (const CheckpointError&) {
      }
    }
}

TEST(Safetensors, written_bytes_equal_the_python_packages) {
  for (const char* model : {"gpt2", "llama", "bloom", "opt", "variants/gpt2-bf16", "variants/gpt2-hub-names"}) {
    const auto path = std::filesystem::path(MIXTAPE_GOLDEN) / "models" / model / "model.safetensors";
    const auto file = SafetensorsFile::open(path);
    std::vector<TensorSource> sources;
    for (const StoredTensor& t : file.tensors())
      sources.push_back(tensor_source(t.name, *memory_type(t.type), t.shape, t.data.data()));
    std::ranges::reverse(sources);
    const TemporaryDirectory directory;
    const FileRecord record = write_safetensors(directory / "model.safetensors", std::move(sources));
    EXPECT_EQ(record, hash_file(path)) << model;
    EXPECT_EQ(record, hash_file(directory / "model.safetensors"));
  }
}

TEST(Safetensors, a_source_must_give_the_bytes_of_its_shape) {
  const TemporaryDirectory directory;
  int i = 0;
  for (size_t bytes : {3u, 5u}) {
    const std::vector<std::byte> data(bytes);
    const TensorSource source{"a", StoredType::f32, {1}, [&](const ByteSink& sink) { sink(data); }};
    EXPECT_THROW(write_safetensors(directory / std::to_string(i++), {source}), Error);
  }
}

TEST(Safetensors, a_file_is_replaced_even_while_it_is_read) {
  const TemporaryDirectory directory;
  const std::filesystem::path path = directory / "a.safetensors";
  const std::vector<float> first(5000, 1.f), second(1, 2.f);
  write_safetensors(path, {tensor_source("a", DType::f32, {5000}, first.data())});
  const auto old = SafetensorsFile::open(path);
  write_safetensors(path, {tensor_source("a", DType::f32, {1}, second.data())});
  std::vector<float> values(5000);
  read_fp32(old.at("a"), values);
  EXPECT_EQ(values, first);
  EXPECT_EQ(SafetensorsFile::open(path).at("a").shape, Extents{1});
}

TEST(SafetensorsModel, shards_and_single_file_hold_the_same) {
  const auto models = std::filesystem::path(MIXTAPE_GOLDEN) / "models";
  const auto whole = SafetensorsModel::open(models / "llama"),
             sharded = SafetensorsModel::open(models / "variants/llama-sharded");
  ASSERT_EQ(whole.names(), sharded.names());
  for (const std::string& name : whole.names())
    EXPECT_TRUE(std::ranges::equal(whole.at(name).data, sharded.at(name).data)) << name;
}

TEST(SafetensorsModel, refuses_a_false_index) {
  const auto shards = std::filesystem::path(MIXTAPE_GOLDEN) / "models/variants/llama-sharded";
  const auto error_with = [&](const std::string& index) -> std::string {
    const TemporaryDirectory directory;
    for (const auto& entry : std::filesystem::directory_iterator(shards))
      if (entry.path().extension() == ".safetensors")
        std::filesystem::copy(entry.path(), directory.path / entry.path().filename());
    std::ofstream(directory / "model.safetensors.index.json") << index;
    try {
      SafetensorsModel::open(directory.path);
      return "accepted";
    } catch (const CheckpointError& error) {
      return error.what();
    }
  };
  const auto expect = [&](const std::string& index, const char* message) {
    EXPECT_NE(error_with(index).find(message), std::string::npos) << index << ": " << error_with(index);
  };
  expect("{", "not valid JSON");
  expect("{}", "weight_map");
  expect(R"({"weight_map":{}})", "weight_map");
  for (const char* name : {"../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", ".safetensors", "x.bin"})
    expect(R"({"weight_map":{"a":")" + std::string(name) + "\"}}", "beside the index");
  expect(R"({"weight_map":{"a":1}})", "beside the index");
  expect(R"({"weight_map":{"a":"x.safetensors","a":"x.safetensors"}})", "occurs twice");
  expect(R"({"weight_map":{"a":{"b":{"c":{"d":1}}}}})", "nested");
  expect(R"({"weight_map":{"a":"absent.safetensors"}})", "cannot open");
  expect(R"({"weight_map":{"a":"model-00001-of-00003.safetensors"}})", "where the index does not have it");
}

}  // namespace
}  // namespace mixtape
