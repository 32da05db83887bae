// What is stored is what the model has: names and shapes of the two lists agree.
#include <gtest/gtest.h>

#include <map>

#include "core/model/transformer.h"
#include "train/checkpoint/huggingface/model.h"

namespace mixtape {
namespace {

void expect_same_parameters(const ModelSpec& spec) {
  std::map<std::string, std::string> stored, built;
  for (const ParameterShape& p : parameter_shapes(spec)) stored[p.name] = text_of(p.shape);
  const Transformer model(spec, 8);
  for (const ParameterEntry& p : model.layout().entries()) built[p.name] = p.shape.text();
  EXPECT_EQ(stored, built);
}

TEST(ParameterShapes, are_those_of_the_model) {
  for (const char* name : {"gpt2", "llama", "llama-tied", "bloom", "opt"})
    expect_same_parameters(import_huggingface(std::filesystem::path(MIXTAPE_GOLDEN) / "models" / name).spec);
  ModelSpec spec;
  spec.n_layers = 2, spec.d_model = 32, spec.n_heads = 4, spec.vocab_size = 50, spec.max_positions = 16;
  spec.lm_head_bias = true, spec.tied_embeddings = false, spec.embedding_norm = true;
  expect_same_parameters(spec);
  spec.bias = false, spec.qkv_bias = true, spec.final_norm = false;
  expect_same_parameters(spec);
}

}  // namespace
}  // namespace mixtape
