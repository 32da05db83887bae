// Directories with int8 weights: every family's are written and read back, in the form that compressed-tensors has, and
// what is damaged is refused in one line.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "core/base/code_scale.h"
#include "core/base/error.h"
#include "tests/checkpoint/temporary_directory.h"
#include "train/checkpoint/huggingface/model.h"

namespace mixtape {
namespace {

using nlohmann::json;
const std::filesystem::path golden_models = std::filesystem::path(MIXTAPE_GOLDEN) / "models";

bool is_of_layer(const ParameterShape& p) {
  return p.shape.size() == 2 && p.name.find("layers.") != p.name.npos && p.name.ends_with(".weight");
}
std::vector<float> numbers(const HfModel& model, const ParameterShape& p) {
  std::vector<float> values(static_cast<size_t>(count_of(p.shape)));
  model.read(p.name, values);
  return values;
}
json config_of(const std::filesystem::path& directory) { return json::parse(std::ifstream(directory / "config.json")); }

class Int8Files : public testing::TestWithParam<const char*> {};

// By row of Mixtape's parameters, whatever the order of rows and columns in the files.
TEST_P(Int8Files, CodesAreNearestAndScalesFollowTheLargest) {
  const HfModel model = import_huggingface(golden_models / GetParam());
  const TemporaryDirectory directory;
  export_huggingface(directory / "int8", model, {.dtype = DType::f32, .int8 = true});
  const HfModel int8 = import_huggingface(directory / "int8");
  EXPECT_TRUE(int8.int8);
  EXPECT_FALSE(model.int8);
  int8.expect_complete();
  EXPECT_EQ(config_json(int8.spec, DType::f32, int8.ids), config_json(model.spec, DType::f32, model.ids));
  int coded = 0;
  for (const ParameterShape& p : parameter_shapes(model.spec)) {
    const std::vector<float> values = numbers(model, p), decoded = numbers(int8, p);
    if (!is_of_layer(p)) {
      EXPECT_EQ(decoded, values) << p.name;
      continue;
    }
    ++coded;
    std::vector<int8_t> codes(values.size());
    std::vector<float> scales(static_cast<size_t>(p.shape[0]));
    int8.read_codes(p.name, codes, scales);
    const auto cols = size_t(p.shape[1]);
    for (size_t r = 0; r < scales.size(); ++r) {
      float largest = 0;
      for (size_t i = r * cols; i < (r + 1) * cols; ++i) largest = std::max(largest, std::abs(values[i]));
      ASSERT_EQ(scales[r], code_scale(DType::i8, largest)) << p.name << " " << r;
      for (size_t i = r * cols; i < (r + 1) * cols; ++i) {
        ASSERT_LE(std::abs(values[i] - scales[r] * float(codes[i])), 0.5001f * scales[r]) << p.name << " " << i;
        ASSERT_EQ(decoded[i], scales[r] * float(codes[i])) << p.name;
        ASSERT_GE(codes[i], -127);
      }
    }
  }
  EXPECT_GE(coded, 4);
}

TEST_P(Int8Files, AreWhatCompressedTensorsDescribes) {
  const HfModel model = import_huggingface(golden_models / GetParam());
  const TemporaryDirectory directory;
  export_huggingface(directory / "int8", model, {.dtype = DType::bf16, .max_shard_bytes = 20000, .int8 = true});
  const auto files = SafetensorsModel::open(directory / "int8");
  size_t codes = 0;
  for (const std::string& name : files.names()) {
    const StoredTensor& t = files.at(name);
    if (name.ends_with("_scale")) {
      EXPECT_EQ(t.type, StoredType::f32) << name;
      continue;
    }
    if (t.type != StoredType::i8) {
      EXPECT_EQ(t.type, StoredType::bf16) << name;
      continue;
    }
    ++codes;
    EXPECT_EQ(files.at(name + "_scale").shape, (Extents{t.shape[0], 1})) << name;
  }
  EXPECT_GE(codes, 8u);
  const json config = config_of(directory / "int8"), q = config["quantization_config"];
  // GPT-2's layers are Conv1D, which the package does not know: the directory is none that transformers loads.
  EXPECT_EQ(config["model_type"], std::string(GetParam()) == "gpt2" ? "mixtape" : model.model_type);
  EXPECT_EQ(q["quant_method"], "compressed-tensors");
  EXPECT_EQ(q["format"], "int-quantized");
  EXPECT_EQ(q["quantization_status"], "compressed");
  const json group = q["config_groups"]["group_0"];
  EXPECT_EQ(group["targets"], json::array({"Linear"}));
  const auto operand = [](const char* strategy, bool dynamic) {
    return json{{"dynamic", dynamic}, {"num_bits", 8}, {"strategy", strategy}, {"symmetric", true}, {"type", "int"}};
  };
  EXPECT_EQ(group["weights"], operand("channel", false));
  EXPECT_EQ(group["input_activations"], operand("token", true));
}

INSTANTIATE_TEST_SUITE_P(Golden, Int8Files,
                         testing::Values("gpt2", "llama", "llama-tied", "bloom", "opt", "bert", "roberta", "t5",
                                         "t5-v1.1", "bart"),
                         [](const auto& info) {
                           std::string name = info.param;
                           for (char& c : name)
                             if (!isalnum(static_cast<unsigned char>(c))) c = '_';
                           return name;
                         });

// Each module with a matrix that keeps its numbers, whether the files have that or the head is the table of tokens.
TEST(Int8Config, IgnoresWhatIsNotCoded) {
  const auto ignored = [](const char* name) {
    const TemporaryDirectory directory;
    export_huggingface(directory / "int8", import_huggingface(golden_models / name), {.int8 = true});
    return config_of(directory / "int8")["quantization_config"]["ignore"];
  };
  EXPECT_EQ(ignored("llama"), json::array({"lm_head"}));
  EXPECT_EQ(ignored("llama-tied"), json::array({"lm_head"}));
  EXPECT_EQ(ignored("t5"), json::array({"lm_head"}));
  EXPECT_EQ(ignored("bert"), json::array({"cls.predictions.transform.dense", "cls.predictions.decoder"}));
}

// A directory of llama with int8 weights, of which something is changed.
class DamagedInt8 : public testing::Test {
 protected:
  DamagedInt8() {
    export_huggingface(directory.path / "int8", import_huggingface(golden_models / "llama"),
                       {.dtype = DType::f32, .int8 = true});
  }
  // What is said of it when `change` has had the tensors and config.json.
  template <class Change>
  std::string error(const Change& change) const {
    const TemporaryDirectory to;
    const auto file = SafetensorsFile::open(directory / "int8/model.safetensors");
    std::map<std::string, Tensor> tensors;
    for (const StoredTensor& t : file.tensors())
      tensors[t.name] = {*memory_type(t.type), t.shape, {t.data.begin(), t.data.end()}};
    json config = config_of(directory / "int8");
    change(tensors, config);
    std::vector<TensorSource> sources;
    for (const auto& [name, t] : tensors) sources.push_back(tensor_source(name, t.type, t.shape, t.bytes.data()));
    write_safetensors(to / "model.safetensors", std::move(sources));
    std::ofstream(to / "config.json") << config;
    try {
      import_huggingface(to.path).expect_complete();
    } catch (const CheckpointError& e) {
      return e.what();
    }
    return "accepted";
  }
  struct Tensor {
    DType type;
    Extents shape;
    std::vector<std::byte> bytes;
  };
  using Tensors = std::map<std::string, Tensor>;
  static void set(Tensor& t, size_t i, float value) { std::memcpy(t.bytes.data() + i * 4, &value, 4); }
  const std::string name = "model.layers.0.mlp.up_proj.weight", scale = name + "_scale";
  TemporaryDirectory directory;
};

void expect_said(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) EXPECT_NE(text.find(part), text.npos) << text;
  EXPECT_EQ(text.find('\n'), text.npos) << text;
}

TEST_F(DamagedInt8, TensorsAreRefused) {
  EXPECT_EQ(error([](Tensors&, json&) {}), "accepted");
  EXPECT_EQ(error([&](Tensors& t, json&) { set(t[scale], 3, 0); }), "accepted") << "of a row of zeros";
  EXPECT_EQ(error([&](Tensors& t, json&) { t[scale].shape = {t[scale].shape[0]}; }), "accepted");
  for (const float bad : {-0.01f, NAN, INFINITY})
    expect_said(error([&](Tensors& t, json&) { set(t[scale], 55, bad); }), {scale, "finite scales"});
  expect_said(error([&](Tensors& t, json&) { t.erase(scale); }), {scale, "is missing"});
  expect_said(error([&](Tensors& t, json&) {
                t[scale].shape[0] -= 1;
                t[scale].bytes.resize(t[scale].bytes.size() - 4);
              }),
              {scale, "[55, 1]", "[56, 1]"});
  expect_said(error([&](Tensors& t, json&) { t[scale].shape = {1, t[scale].shape[0]}; }), {scale, "[1, 56]"});
  expect_said(error([&](Tensors& t, json&) {
                t[scale].type = DType::i8;
                t[scale].bytes.resize(56);
              }),
              {scale, "I8"});
  expect_said(error([&](Tensors& t, json&) { t[name].type = DType::u8; }), {name, "U8", "expected I8"});
  expect_said(error([&](Tensors& t, json&) {
                t[name].type = DType::f32;
                t[name].bytes.resize(4 * t[name].bytes.size());
              }),
              {name, "F32", "expected I8"});
  expect_said(error([&](Tensors& t, json&) { std::swap(t[name].shape[0], t[name].shape[1]); }), {name, "[32, 56]"});
  expect_said(error([&](Tensors& t, json&) { t.erase(name); }), {name});
  // Scales of nothing.
  expect_said(error([&](Tensors& t, json&) { t["lm_head.weight_scale"] = t[scale]; }), {"lm_head.weight_scale"});
}

TEST_F(DamagedInt8, OtherQuantisationsAreRefused) {
  const auto with = [&](const std::function<void(json&)>& change) {
    return error([&](Tensors&, json& config) { change(config["quantization_config"]); });
  };
  const auto group = [](json& q) -> json& { return q["config_groups"]["group_0"]; };
  expect_said(with([](json& q) { q["quant_method"] = "gptq"; }), {"quantization_config", "gptq"});
  expect_said(with([](json& q) { q["format"] = "pack-quantized"; }), {"quantization_config", "pack-quantized"});
  expect_said(with([](json& q) { q = 8; }), {"quantization_config"});
  expect_said(with([](json& q) { q.erase("config_groups"); }), {"config_groups"});
  expect_said(with([](json& q) { q["config_groups"] = json::array({1}); }), {"config_groups"});
  expect_said(with([](json& q) { q["config_groups"] = json::object(); }), {"config_groups"});
  expect_said(with([&](json& q) { q["config_groups"]["group_1"] = group(q); }), {"config_groups", "2"});
  expect_said(with([&](json& q) { group(q)["weights"]["num_bits"] = 4; }), {"weights", "4 bits"});
  expect_said(with([&](json& q) { group(q)["weights"]["type"] = "float"; }), {"weights", "float"});
  expect_said(with([&](json& q) { group(q)["weights"]["strategy"] = "group"; }), {"weights", "by group"});
  expect_said(with([&](json& q) { group(q)["weights"]["symmetric"] = false; }), {"weights", "symmetric"});
  expect_said(with([&](json& q) { group(q)["input_activations"] = json(); }), {"input_activations", "absent"});
  expect_said(with([&](json& q) { group(q)["input_activations"]["dynamic"] = false; }), {"input_activations"});
  // Without a word in config.json codes are no weights.
  expect_said(error([](Tensors&, json& config) { config.erase("quantization_config"); }), {"I8", "expected F32"});
}

TEST(Int8Files, TransposedCodesAreNotRead) {
  const TemporaryDirectory directory;
  export_huggingface(directory / "gpt2", import_huggingface(golden_models / "gpt2"), {.dtype = DType::f32});
  export_huggingface(directory / "int8", import_huggingface(golden_models / "gpt2"), {.int8 = true});
  json config = config_of(directory / "gpt2");
  config["quantization_config"] = config_of(directory / "int8")["quantization_config"];
  std::ofstream(directory / "gpt2/config.json") << config;
  try {
    import_huggingface(directory / "gpt2");
    FAIL();
  } catch (const CheckpointError& e) {
    expect_said(e.what(), {"transformer.h.0.attn.c_attn.weight", "Conv1D"});
  }
}

TEST(Int8Files, NumbersThatAreNotFiniteAreNotCoded) {
  const HfModel model = import_huggingface(golden_models / "llama");
  const TemporaryDirectory directory;
  std::vector<float> values;
  const auto get = [&](const std::string& name) -> ParameterView {
    for (const ParameterShape& p : parameter_shapes(model.spec))
      if (p.name == name) values = numbers(model, p);
    if (name == "layers.1.mlp.down.weight") values[5] = NAN;
    return {DType::f32, values.data()};
  };
  EXPECT_THROW(export_huggingface(directory / "int8", model.spec, get, {.int8 = true}), NumericsError);
}

}  // namespace
}  // namespace mixtape
