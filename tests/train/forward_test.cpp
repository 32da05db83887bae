// Batches in Hugging Face's form: what the segments, positions and targets of each kind of model are, and what is
// refused.
#include "train/forward.h"

#include <gtest/gtest.h>

#include "tests/checkpoint/temporary_directory.h"

namespace mixtape {
namespace {

struct Input {
  std::string name;
  Extents shape;
  std::vector<int64_t> values;
};

Batch batch_of(const std::vector<Input>& inputs, const ModelSpec& spec) {
  const TemporaryDirectory directory;
  std::vector<TensorSource> sources;
  for (const Input& input : inputs) {
    const auto bytes = std::as_bytes(std::span(input.values));
    sources.push_back({input.name, StoredType::i64, input.shape, [bytes](const ByteSink& sink) { sink(bytes); }});
  }
  write_safetensors(directory / "inputs.safetensors", std::move(sources));
  return batch_from_inputs(SafetensorsFile::open(directory / "inputs.safetensors"), spec);
}

const ModelSpec decoder{.vocab_size = 20};
const ModelSpec encoder{.family = Family::encoder, .vocab_size = 20, .token_types = 2};
const ModelSpec both{.family = Family::encoder_decoder, .vocab_size = 20};

const Input ids{"input_ids", {2, 4}, {5, 6, 7, 8, 9, 10, 11, 0}};
const Input mask{"attention_mask", {2, 4}, {1, 1, 1, 1, 1, 1, 1, 0}};
const Input decoder_ids{"decoder_input_ids", {2, 3}, {0, 1, 2, 0, 3, 4}};

TEST(ForwardBatch, OnlyADecodersLabelsAreShifted) {
  const Input labels{"labels", {2, 4}, {-100, 6, -100, 8, 9, -100, -100, -100}};
  const Batch causal = batch_of({ids, mask, labels}, decoder), masked = batch_of({ids, mask, labels}, encoder);
  EXPECT_EQ(causal.targets, (std::vector<int32_t>{6, -1, 8, -1, -1, -1, -1, -1}));
  EXPECT_EQ(causal.n_targets, 2);
  EXPECT_EQ(masked.targets, (std::vector<int32_t>{-1, 6, -1, 8, 9, -1, -1, -1}));
  EXPECT_EQ(masked.n_targets, 3);
}

TEST(ForwardBatch, ADecoderReadsWhatTheEncodersMaskLeaves) {
  const Batch b = batch_of({ids, mask, decoder_ids, {"labels", {2, 3}, {1, 2, -100, 3, 4, 5}}}, both);
  EXPECT_EQ(b.segments, (std::vector<Segment>{{0, 4, 0, 4}, {4, 3, 4, 3}}));
  EXPECT_EQ(b.decoder.segments, (std::vector<Segment>{{0, 3, 0, 3}, {3, 3, 3, 3}}));
  EXPECT_EQ(b.decoder.cross_segments, (std::vector<Segment>{{0, 3, 0, 4}, {3, 3, 4, 3}}));
  EXPECT_EQ(b.decoder.positions, (std::vector<int32_t>{0, 1, 2, 0, 1, 2}));
  EXPECT_EQ(b.targets, (std::vector<int32_t>{1, 2, -1, 3, 4, 5}));
}

TEST(ForwardBatch, PositionsWithAnOffsetStartAtTheFirstRealToken) {
  ModelSpec spec = decoder;
  const Input left{"attention_mask", {2, 4}, {0, 0, 1, 1, 1, 1, 1, 1}};
  EXPECT_EQ(batch_of({ids, left}, spec).positions, (std::vector<int32_t>{0, 1, 2, 3, 0, 1, 2, 3}));
  spec.position_offset = 2;
  EXPECT_EQ(batch_of({ids, left}, spec).positions, (std::vector<int32_t>{0, 0, 0, 1, 0, 1, 2, 3}));
}

TEST(ForwardBatch, MalformedInputsAreNamed) {
  const auto expect = [](const std::vector<Input>& inputs, const ModelSpec& spec, const std::string& message) {
    try {
      batch_of(inputs, spec);
      ADD_FAILURE() << "accepted; expected: " << message;
    } catch (const DataError& error) {
      EXPECT_NE(std::string(error.what()).find(message), std::string::npos) << error.what();
    }
  };
  expect({mask}, decoder, "no input_ids");
  expect({ids}, both, "no decoder_input_ids");
  expect({ids, {"decoder_input_ids", {1, 3}, {0, 1, 2}}}, both, "decoder_input_ids has 1 rows, input_ids 2");
  expect({ids, {"token_type_ids", {2, 4}, {0, 0, 0, 2, 0, 0, 0, 0}}}, encoder,
         "token_type_ids[0, 3] is 2, expected 0 to 1");
  expect({ids, {"token_type_ids", {2, 3}, {0, 0, 0, 0, 0, 0}}}, encoder,
         "token_type_ids is I64 [2, 3], expected I64 [2, 4]");
  expect({{"input_ids", {1, 2}, {3, 20}}}, decoder, "input_ids[0, 1] is 20, expected 0 to 19");
  expect({ids, {"attention_mask", {2, 4}, {1, 0, 1, 1, 1, 1, 1, 1}}}, encoder, "has a hole");
  expect({ids, {"labels", {2, 4}, {-100, -1, 0, 0, 0, 0, 0, 0}}}, encoder, "labels[0, 1] is -1");
  expect({{"input_ids", {2, 0}, {}}}, decoder, "input_ids is [2, 0], which is empty");
  ModelSpec few = decoder;
  few.max_positions = 3;
  expect({ids}, few, "input_ids is [2, 4], but the model has 3 positions");
  // Labels belong to the decoder's side.
  expect({ids, decoder_ids, {"labels", {2, 4}, {1, 1, 1, 1, 1, 1, 1, 1}}}, both,
         "labels is I64 [2, 4], expected I64 [2, 3]");
}

}  // namespace
}  // namespace mixtape
