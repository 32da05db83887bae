// Hugging Face directories: import and export give back the same tensors and names, for every golden decoder.
#include "train/checkpoint/huggingface/model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <map>

#include "core/base/error.h"
#include "tests/checkpoint/temporary_directory.h"

namespace mixtape {
namespace {

const std::filesystem::path models = std::filesystem::path(MIXTAPE_GOLDEN) / "models";

void expect_same_tensors(const SafetensorsModel& a, const SafetensorsModel& b) {
  ASSERT_EQ(a.names(), b.names());
  for (const std::string& name : a.names()) {
    EXPECT_EQ(a.at(name).type, b.at(name).type) << name;
    EXPECT_EQ(a.at(name).shape, b.at(name).shape) << name;
    EXPECT_TRUE(std::ranges::equal(a.at(name).data, b.at(name).data)) << name;
  }
}

struct Case {
  const char* name;
  const char* parent;  // whose names an export has
  const char* model_type;
};
class HuggingFace : public testing::TestWithParam<Case> {};

TEST_P(HuggingFace, import_and_export_give_back_the_same) {
  const HfModel model = import_huggingface(models / GetParam().name);
  EXPECT_TRUE(model.missing.empty());
  EXPECT_TRUE(model.unused.empty());
  EXPECT_EQ(model.model_type, GetParam().model_type);
  EXPECT_EQ(model_type_of(model.spec), GetParam().model_type);
  const TemporaryDirectory directory;
  export_huggingface(directory / "out", model, {.dtype = model.dtype});
  expect_same_tensors(SafetensorsModel::open(directory / "out"), SafetensorsModel::open(models / GetParam().parent));
  const HfModel again = import_huggingface(directory / "out");
  EXPECT_EQ(config_json(again.spec, again.dtype, again.ids), config_json(model.spec, model.dtype, model.ids));

  export_huggingface(directory / "shards", model, {.dtype = model.dtype, .max_shard_bytes = 20000});
  EXPECT_TRUE(std::filesystem::exists(directory / "shards/model.safetensors.index.json"));
  expect_same_tensors(SafetensorsModel::open(directory / "shards"), SafetensorsModel::open(models / GetParam().parent));
}

TEST_P(HuggingFace, a_gradient_takes_the_way_of_its_weight) {
  const HfModel model = import_huggingface(models / GetParam().name);
  const auto files = SafetensorsModel::open(models / GetParam().name);
  size_t tensors = 0;
  for (const ParameterShape& p : parameter_shapes(model.spec)) {
    std::vector<float> values(size_t(count_of(p.shape)));
    model.read(p.name, values);
    for (const NamedTensor& t : model.to_file(p.name, values)) {
      std::vector<float> expected(t.values.size());
      read_fp32(files.at(t.name), expected);
      EXPECT_EQ(t.values, expected) << t.name;
      EXPECT_EQ(t.shape, files.at(t.name).shape) << t.name;
      ++tensors;
    }
  }
  EXPECT_EQ(tensors + model.ignored.size(), files.names().size());
}

INSTANTIATE_TEST_SUITE_P(golden, HuggingFace,
                         testing::Values(Case{"gpt2", "gpt2", "gpt2"}, Case{"llama", "llama", "llama"},
                                         Case{"llama-tied", "llama-tied", "llama"}, Case{"bloom", "bloom", "bloom"},
                                         Case{"opt", "opt", "opt"}, Case{"variants/gpt2-hub-names", "gpt2", "gpt2"},
                                         Case{"variants/bloom-hub-names", "bloom", "bloom"},
                                         Case{"variants/gpt2-bf16", "variants/gpt2-bf16", "gpt2"},
                                         Case{"variants/llama-sharded", "llama", "llama"}, Case{"bert", "bert", "bert"},
                                         Case{"roberta", "roberta", "roberta"}, Case{"t5", "t5", "t5"},
                                         Case{"t5-v1.1", "t5-v1.1", "t5"}, Case{"bart", "bart", "bart"},
                                         Case{"variants/bert-hub-names", "bert", "bert"},
                                         Case{"variants/t5-hub-names", "t5", "t5"}),
                         [](const auto& info) {
                           std::string name = info.param.name;
                           for (char& c : name)
                             if (!isalnum(static_cast<unsigned char>(c))) c = '_';
                           return name;
                         });

// The transforms themselves, against golden values read by hand.
TEST(HuggingFaceLayout, rows_are_where_the_families_put_them) {
  const auto value = [](const SafetensorsModel& files, const std::string& name, int64_t row, int64_t column) {
    const StoredTensor& t = files.at(name);
    float x;
    std::memcpy(&x, t.data.data() + (row * t.shape[1] + column) * 4, 4);
    return x;
  };
  const auto ours = [](const HfModel& model, const std::string& name, int64_t row, int64_t column) {
    std::vector<float> values;
    for (const ParameterShape& p : parameter_shapes(model.spec))
      if (p.name == name) values.resize(size_t(count_of(p.shape)));
    model.read(name, values);
    return values[size_t(row * model.spec.d_model + column)];
  };
  const std::string qkv = "layers.1.attention.qkv.weight";
  {  // GPT-2: [in, out]
    const auto files = SafetensorsModel::open(models / "gpt2");
    EXPECT_EQ(ours(import_huggingface(models / "gpt2"), qkv, 70, 5),
              value(files, "transformer.h.1.attn.c_attn.weight", 5, 70));
  }
  {  // LLaMA, 4 heads and 2 of keys and values, 8 wide: q 0-31, k 32-47, v 48-63; gate 0-55, up 56-111
    const auto files = SafetensorsModel::open(models / "llama");
    const HfModel model = import_huggingface(models / "llama");
    EXPECT_EQ(ours(model, qkv, 33, 7), value(files, "model.layers.1.self_attn.k_proj.weight", 1, 7));
    EXPECT_EQ(ours(model, qkv, 63, 7), value(files, "model.layers.1.self_attn.v_proj.weight", 15, 7));
    EXPECT_EQ(ours(model, "layers.0.mlp.up.weight", 58, 3), value(files, "model.layers.0.mlp.up_proj.weight", 2, 3));
  }
  {  // BLOOM, 5 heads 8 wide: head 2's key row 3 is row 2 * 24 + 8 + 3 of the file, 40 + 2 * 8 + 3 of ours
    const auto files = SafetensorsModel::open(models / "bloom");
    EXPECT_EQ(ours(import_huggingface(models / "bloom"), qkv, 59, 11),
              value(files, "transformer.h.1.self_attention.query_key_value.weight", 59, 11));
    EXPECT_EQ(ours(import_huggingface(models / "bloom"), qkv, 40, 11),
              value(files, "transformer.h.1.self_attention.query_key_value.weight", 8, 11));
    EXPECT_EQ(ours(import_huggingface(models / "bloom"), qkv, 8, 11),
              value(files, "transformer.h.1.self_attention.query_key_value.weight", 24, 11));
  }
}

// A model directory of a config.json alone, read through to the spec by exporting random weights of it.
ModelSpec spec_of(const std::string& config) {
  const TemporaryDirectory directory;
  std::ofstream(directory / "config.json") << config;
  write_safetensors(directory / "model.safetensors", {});
  return import_huggingface(directory.path).spec;
}

TEST(HuggingFaceConfig, version_4_style_is_read) {
  std::ifstream file(models / "variants/llama-v4-config/config.json");
  const ModelSpec v4 = spec_of(std::string(std::istreambuf_iterator<char>(file), {}));
  const ModelSpec v5 = import_huggingface(models / "llama").spec;
  EXPECT_EQ(config_json(v4, DType::f32, {}), config_json(v5, DType::f32, {}));
}

const char* base = R"("hidden_size":32,"num_attention_heads":4,"num_hidden_layers":2,"intermediate_size":56,
  "vocab_size":100,"max_position_embeddings":64)";

TEST(HuggingFaceConfig, both_styles_of_rope_say_the_same) {
  const std::string scaling =
      R"("rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":32)";
  const ModelSpec v4 =
      spec_of(fmt::format(R"({{"model_type":"llama",{},"rope_theta":5e5,"rope_scaling":{{{}}}}})", base, scaling));
  const ModelSpec v5 =
      spec_of(fmt::format(R"({{"model_type":"llama",{},"rope_parameters":{{"rope_theta":5e5,{}}}}})", base, scaling));
  EXPECT_EQ(v4.rope_theta, 5e5);
  EXPECT_EQ(v4.rope_scaling.type, RopeScalingKind::llama3);
  EXPECT_EQ(v4.rope_scaling.original_max_positions, 32);
  const std::string written = config_json(v4, DType::bf16, {.bos = 1});
  EXPECT_EQ(written, config_json(v5, DType::bf16, {.bos = 1}));
  for (const char* part :
       {"\"rope_parameters\"", "\"rope_scaling\"", "\"rope_theta\": 500000.0", "\"torch_dtype\": \"bfloat16\"",
        "\"dtype\": \"bfloat16\"", "\"bos_token_id\": 1", "LlamaForCausalLM"})
    EXPECT_NE(written.find(part), std::string::npos) << part;
}

TEST(HuggingFaceConfig, mistral_and_qwen2_are_axes) {
  const ModelSpec mistral =
      spec_of(fmt::format(R"({{"model_type":"mistral",{},"num_key_value_heads":2,"sliding_window":16}})", base));
  EXPECT_EQ(mistral.window, 16);
  EXPECT_EQ(model_type_of(mistral), "mistral");
  const ModelSpec qwen = spec_of(fmt::format(
      R"({{"model_type":"qwen2",{},"num_key_value_heads":2,"use_sliding_window":true,"sliding_window":16,"max_window_layers":1}})",
      base));
  EXPECT_TRUE(qwen.has_qkv_bias());
  EXPECT_FALSE(qwen.has_out_bias());
  EXPECT_EQ(qwen.layer_window(0), 0);
  EXPECT_EQ(qwen.layer_window(1), 16);
  EXPECT_EQ(model_type_of(qwen), "qwen2");
}

// T5's logits are scaled as scale_decoder_outputs says, in files of transformers 4 as tie_word_embeddings does; the
// files alone decide whether the output layer is the embedding (these have none of its own).
TEST(HuggingFaceConfig, t5_scales_its_logits_by_either_version) {
  const auto t5 = [](const char* more) {
    return spec_of(fmt::format(
        R"({{"model_type":"t5","d_model":64,"num_heads":2,"d_kv":16,"num_layers":3,"d_ff":96,"vocab_size":100{}}})",
        more));
  };
  EXPECT_EQ(t5("").logit_factor(), 0.125);
  EXPECT_EQ(t5(R"(,"tie_word_embeddings":false)").logit_factor(), 1);
  EXPECT_EQ(t5(R"(,"tie_word_embeddings":true,"scale_decoder_outputs":false)").logit_factor(), 1);
  EXPECT_EQ(t5(R"(,"tie_word_embeddings":false,"scale_decoder_outputs":true)").logit_factor(), 0.125);
  EXPECT_TRUE(t5(R"(,"tie_word_embeddings":false)").tied_embeddings);
  EXPECT_EQ(t5("").decoder_layers(), 3);
  EXPECT_EQ(t5(R"(,"num_decoder_layers":2)").decoder_layers(), 2);
  EXPECT_EQ(t5("").relative_distance, 128);
  EXPECT_EQ(t5(R"(,"feed_forward_proj":"gated-gelu")").activation, Activation::geglu_tanh);
  EXPECT_EQ(t5(R"(,"feed_forward_proj":"gated-silu")").activation, Activation::swiglu);
  EXPECT_EQ(t5(R"(,"feed_forward_proj":"gelu")").activation, Activation::gelu);
}

TEST(HuggingFaceConfig, robertas_positions_follow_its_padding_token) {
  const auto roberta = [](int pad) {
    return spec_of(fmt::format(R"({{"model_type":"roberta",{},"pad_token_id":{}}})", base, pad));
  };
  EXPECT_EQ(roberta(1).position_offset, 2);
  EXPECT_EQ(roberta(1).max_positions, 62);
  EXPECT_EQ(roberta(5).position_offset, 6);
  // Whatever the tokenizer says of padding, the export says what positions were trained with.
  EXPECT_NE(config_json(roberta(5), DType::f32, {.pad = 3}).find("\"pad_token_id\": 5"), std::string::npos);
  ModelSpec other = roberta(5);
  other.position_offset = 2;
  EXPECT_EQ(model_type_of(other), "mixtape");
}

TEST(HuggingFaceConfig, refuses_what_it_does_not_know) {
  const auto error_of = [](const std::string& config) -> std::string {
    try {
      spec_of(config);
      return "accepted";
    } catch (const CheckpointError& error) {
      return error.what();
    }
  };
  const auto expect = [&](const std::string& config, const char* message) {
    EXPECT_NE(error_of(config).find(message), std::string::npos) << error_of(config);
  };
  const auto llama = [](const char* more) { return fmt::format(R"({{"model_type":"llama",{},{}}})", base, more); };
  expect("{", "not valid JSON");
  expect("[]", "expected an object");
  expect(R"({"model_type":"mamba"})", "'mamba' is not supported");
  expect(R"({"model_type":"llama"})", "num_hidden_layers: the key is missing");
  expect(llama(R"("hidden_act":"tanhexp")"), "hidden_act");
  expect(llama(R"("num_hidden_layers":1e99)"), "num_hidden_layers");
  expect(llama(R"("num_hidden_layers":1000000)"), "n_layers");
  expect(llama(R"("num_key_value_heads":3)"), "cannot share");
  expect(llama(R"("rms_norm_eps":-1)"), "norm_eps");
  expect(llama(R"("rope_scaling":{"type":"longrope"})"), "longrope");
  const auto bert = [](const char* type, const char* more) {
    return fmt::format(R"({{"model_type":"{}",{},{}}})", type, base, more);
  };
  expect(bert("bert", R"("position_embedding_type":"relative_key")"), "relative_key");
  expect(bert("bert", R"("is_decoder":true)"), "is_decoder");
  expect(bert("roberta", R"("hidden_act":"relu")"), "hidden_act");
  expect(bert("roberta", R"("pad_token_id":63)"), "leaves no position");
  const auto bart = [](const char* more) {
    return fmt::format(
        R"({{"model_type":"bart","d_model":32,"encoder_layers":1,"decoder_layers":1,"encoder_attention_heads":4,"decoder_attention_heads":4,"encoder_ffn_dim":64,"vocab_size":100,"max_position_embeddings":40,{}}})",
        more);
  };
  expect(bart(R"("decoder_ffn_dim":96)"), "stacks of two widths");
  expect(bart(R"("decoder_ffn_dim":64,"normalize_before":true)"), "normalize_before");
  expect(
      R"({"model_type":"gpt2","n_layer":1,"n_embd":8,"n_head":2,"vocab_size":9,"n_positions":4,"scale_attn_by_inverse_layer_idx":true})",
      "scale_attn_by_inverse_layer_idx");
}

TEST(HuggingFace, missing_and_unknown_tensors_are_named) {
  const TemporaryDirectory directory;
  std::filesystem::copy(models / "gpt2/config.json", directory / "config.json");
  const auto file = SafetensorsFile::open(models / "gpt2/model.safetensors");
  std::vector<TensorSource> sources;
  for (const StoredTensor& t : file.tensors())
    sources.push_back(
        tensor_source(t.name == "transformer.ln_f.bias" ? "surplus" : t.name, DType::f32, t.shape, t.data.data()));
  write_safetensors(directory / "model.safetensors", sources);
  const HfModel model = import_huggingface(directory.path);
  EXPECT_EQ(model.missing, std::vector<std::string>{"transformer.ln_f.bias"});
  EXPECT_EQ(model.unused, std::vector<std::string>{"surplus"});
  EXPECT_THROW(model.expect_complete(), CheckpointError);
}

// A model of random weights, written as a directory.
void write_model(const std::filesystem::path& directory, const ModelSpec& spec, const SpecialIds& ids) {
  std::map<std::string, std::vector<float>> values;
  for (const ParameterShape& p : parameter_shapes(spec))
    for (int64_t i = 0; i < count_of(p.shape); ++i) values[p.name].push_back(float(i % 97) + float(p.name.size()) / 64);
  export_huggingface(directory, spec,
                     [&](const std::string& name) {
                       return ParameterView{DType::f32, values.at(name).data()};
                     },
                     {.ids = ids});
}

ModelSpec with_labels(const char* golden, Head head) {
  ModelSpec spec = import_huggingface(models / golden).spec;
  spec.head = head;
  spec.n_labels = 3;
  return spec;
}

TEST(HuggingFace, heads_of_labels_have_transformers_names) {
  struct HeadCase {
    const char* golden;
    Head head;
    const char* architecture;
    std::vector<std::string> tensors;
  };
  const HeadCase cases[] = {
      {"bert",
       Head::sequence_labels,
       "BertForSequenceClassification",
       {"bert.pooler.dense.bias", "bert.pooler.dense.weight", "classifier.bias", "classifier.weight"}},
      {"bert", Head::token_labels, "BertForTokenClassification", {"classifier.bias", "classifier.weight"}},
      {"roberta",
       Head::sequence_labels,
       "RobertaForSequenceClassification",
       {"classifier.dense.bias", "classifier.dense.weight", "classifier.out_proj.bias", "classifier.out_proj.weight"}},
      {"roberta", Head::token_labels, "RobertaForTokenClassification", {"classifier.bias", "classifier.weight"}}};
  for (const HeadCase& c : cases) {
    SCOPED_TRACE(c.architecture);
    const TemporaryDirectory directory;
    const ModelSpec spec = with_labels(c.golden, c.head);
    EXPECT_EQ(model_type_of(spec), c.golden);
    write_model(directory / "out", spec, {.labels = {"no", "yes", "maybe"}});
    std::vector<std::string> heads;
    for (const std::string& name : SafetensorsModel::open(directory / "out").names())
      if (!name.starts_with("bert.e") && !name.starts_with("roberta.e")) heads.push_back(name);
    EXPECT_EQ(heads, c.tensors);
    const std::string config = read_text_file(directory / "out/config.json");
    EXPECT_NE(config.find(c.architecture), std::string::npos);

    const HfModel again = import_huggingface(directory / "out");
    again.expect_complete();
    EXPECT_EQ(again.spec.head, c.head);
    EXPECT_EQ(again.spec.n_labels, 3);
    EXPECT_EQ(again.ids.labels, (std::vector<std::string>{"no", "yes", "maybe"}));
    EXPECT_TRUE(again.fresh.empty());
  }
}

// A pre-trained model as the start of a classifier: the body and BERT's pooler are there, the rest is new.
TEST(HuggingFace, another_head_can_be_asked_for) {
  const TemporaryDirectory directory;
  const ModelSpec labels = with_labels("bert", Head::sequence_labels);
  const HfModel from_mlm = import_huggingface(models / "bert", &labels);
  from_mlm.expect_complete();
  EXPECT_EQ(from_mlm.spec.head, Head::sequence_labels);
  EXPECT_EQ(from_mlm.fresh, (std::vector<std::string>{"classifier.bias", "classifier.weight", "pooler.dense.bias",
                                                      "pooler.dense.weight"}));
  // Published files have the pooler.
  const HfModel published = import_huggingface(models / "variants/bert-hub-names", &labels);
  published.expect_complete();
  EXPECT_EQ(published.fresh, (std::vector<std::string>{"classifier.bias", "classifier.weight"}));
  // And back: a classifier as the start of masked LM.
  write_model(directory / "classifier", labels, {});
  const ModelSpec masked = import_huggingface(models / "bert").spec;
  const HfModel back = import_huggingface(directory / "classifier", &masked);
  back.expect_complete();
  EXPECT_EQ(back.fresh.size(), 5u);  // dense and norm of the head, and the output's bias
  // A body that lacks something is not excused by another head.
  const HfModel same = import_huggingface(models / "bert", &masked);
  EXPECT_TRUE(same.fresh.empty());
}

TEST(HuggingFace, labels_that_cannot_be_read_are_refused) {
  const TemporaryDirectory directory;
  const ModelSpec spec = with_labels("bert", Head::sequence_labels);
  write_model(directory / "out", spec, {});
  std::string config = read_text_file(directory / "out/config.json");
  const std::string problem = "single_label_classification";
  config.replace(config.find(problem), problem.size(), "regression");
  std::ofstream(directory / "out/config.json") << config;
  EXPECT_THROW(import_huggingface(directory / "out"), CheckpointError);
}

TEST(HuggingFace, an_architecture_of_nobody_keeps_its_own_names) {
  ModelSpec spec;
  spec.n_layers = 1, spec.d_model = 8, spec.n_heads = 2, spec.vocab_size = 11, spec.max_positions = 4;
  spec.norm = NormKind::rmsnorm;  // with learned positions
  EXPECT_EQ(model_type_of(spec), "mixtape");
  std::map<std::string, std::vector<float>> values;
  for (const ParameterShape& p : parameter_shapes(spec)) {
    auto& list = values[p.name];
    for (int64_t i = 0; i < count_of(p.shape); ++i) list.push_back(float(i) + float(values.size()) / 64);
  }
  const auto get = [&](const std::string& name) { return ParameterView{DType::f32, values.at(name).data()}; };
  const TemporaryDirectory directory;
  EXPECT_THROW(export_huggingface(directory / "no", spec, get, {}), ConfigError);
  export_huggingface(directory / "yes", spec, get, {.allow_native = true});
  const HfModel model = import_huggingface(directory / "yes");
  model.expect_complete();
  EXPECT_EQ(model.spec.norm, NormKind::rmsnorm);
  for (const auto& [name, expected] : values) {
    std::vector<float> found(expected.size());
    model.read(name, found);
    EXPECT_EQ(found, expected) << name;
  }
  EXPECT_THROW(export_huggingface(directory / "yes", spec, get, {.allow_native = true}), CheckpointError);
}

}  // namespace
}  // namespace mixtape
