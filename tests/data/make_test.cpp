#include "train/objective/make.h"

#include "tests/data/objective_support.h"
#include "train/config/config.h"
#include "train/data/prepare.h"
#include "train/data/tokenizer/bpe_trainer.h"
#include "train/data/tokenizer/tokenizer.h"

namespace mixtape::test {
namespace {

// A tokenizer with every role, and shards made with it.
class MakeObjective : public testing::Test {
 protected:
  void SetUp() override {
    BpeTrainer trainer(
        {.vocab_size = 300,
         .special_tokens = {"<s>", "<pad>", "</s>", "<mask>", "<extra_id_0>", "<extra_id_1>", "<extra_id_2>"},
         .threads = 1});
    trainer.add(read_bytes(test::sayings()));
    tokenizer = trainer.train();
    prepare(*tokenizer, {.inputs = {test::sayings()}, .text = {.separator = "%"}, .output = directory / "shards"});
    config.data.sources = {{.name = "a", .path = directory / "shards"}};
    config.data.seq_length = 40;
    config.data.validation_split = 0.2;
  }

  Config with(ObjectiveKind kind) const {
    Config changed = config;
    changed.objective.name = kind;
    return changed;
  }

  TemporaryDirectory directory;
  std::unique_ptr<Tokenizer> tokenizer;
  Config config;
};

constexpr ObjectiveKind kinds[] = {ObjectiveKind::causal_lm, ObjectiveKind::masked_lm, ObjectiveKind::span_corruption,
                                   ObjectiveKind::denoising};

TEST_F(MakeObjective, ShapesArePlannedWithoutData) {
  for (const ObjectiveKind kind : kinds) {
    SCOPED_TRACE(name_of(kind));
    const Config c = with(kind);
    const auto objective = training_objective(c, *tokenizer);
    const RowShape planned = row_shape(c), made = objective->shape();
    EXPECT_EQ(planned.length, made.length);
    EXPECT_EQ(planned.decoder_length, made.decoder_length);
    EXPECT_EQ(planned.most_targets, made.most_targets);
    EXPECT_EQ(made.length, 40);
    Batch batch;
    objective->fill(std::vector<uint64_t>{0, 1, 2}, batch);
    EXPECT_EQ(batch.tokens.size(), 120u);
    if (kind != ObjectiveKind::denoising) {  // whose corrupted rows are padded
      EXPECT_EQ(batch.n_tokens, 120);
    }
    EXPECT_EQ(batch.decoder.tokens.size(), size_t(3 * planned.decoder_length));
    EXPECT_EQ(batch.targets.size(), size_t(3 * (planned.decoder_length ? planned.decoder_length : planned.length)));
    EXPECT_EQ(batch.targets.size() - size_t(std::count(batch.targets.begin(), batch.targets.end(), -1)),
              size_t(batch.n_targets));
  }
}

TEST_F(MakeObjective, TheSeedChangesTrainingAndNotValidation) {
  for (const ObjectiveKind kind : kinds) {
    SCOPED_TRACE(name_of(kind));
    Config c = with(kind);
    Batch training[2], validation[2];
    for (const int i : {0, 1}) {
      c.seed = i;
      training_objective(c, *tokenizer)->fill(std::vector<uint64_t>{1, 2}, training[i]);
      validation_objective(c, *tokenizer)->fill(std::vector<uint64_t>{0}, validation[i]);
    }
    EXPECT_NE(training[0].tokens, training[1].tokens);
    EXPECT_EQ(validation[0].tokens, validation[1].tokens);
    EXPECT_EQ(validation[0].targets, validation[1].targets);
  }
  config.data.validation_split = 0;
  EXPECT_EQ(validation_objective(config, *tokenizer), nullptr);
}

TEST_F(MakeObjective, DocumentMaskIsOnExceptForSpanCorruption) {
  config.data.seq_length = 120;
  config.objective.mean_span_length = 20;  // so that three sentinels suffice
  for (const ObjectiveKind kind : kinds) {
    Batch batch;
    training_objective(with(kind), *tokenizer)->fill(std::vector<uint64_t>{0}, batch);
    EXPECT_EQ(batch.segments.size() > 1, kind != ObjectiveKind::span_corruption) << name_of(kind);
  }
  config.data.document_mask.emplace(false);
  for (const ObjectiveKind kind : {ObjectiveKind::causal_lm, ObjectiveKind::masked_lm}) {
    Batch batch;
    training_objective(with(kind), *tokenizer)->fill(std::vector<uint64_t>{0}, batch);
    EXPECT_EQ(batch.segments.size(), 1u);
  }
}

TEST_F(MakeObjective, TokensThatAreMissingAreNamed) {
  const auto bytes = load_tokenizer("bytes");
  prepare(*bytes, {.inputs = {test::sayings()}, .text = {.separator = "%"}, .output = directory / "bytes"});
  config.data.sources = {{.name = "a", .path = directory / "bytes"}};
  const auto error = [&](ObjectiveKind kind) { return error_of([&] { training_objective(with(kind), *bytes); }); };
  EXPECT_EQ(error(ObjectiveKind::causal_lm), "");
  EXPECT_NE(error(ObjectiveKind::masked_lm).find("cls_token"), std::string::npos);
  EXPECT_NE(error(ObjectiveKind::denoising).find("cls_token"), std::string::npos);
  EXPECT_NE(error(ObjectiveKind::span_corruption).find("pad_token"), std::string::npos);
}

// Documents begin with what prompts begin with.
TEST(VocabularyOf, HasABosOnlyWhereTextsBeginWithOne) {
  const std::string golden = std::string(MIXTAPE_GOLDEN) + "/tokenizers/";
  EXPECT_EQ(vocabulary_of(*load_tokenizer(golden + "llama_bpe/tokenizer.json")).bos_id, 1);
  EXPECT_EQ(vocabulary_of(*load_tokenizer(golden + "bpe/tokenizer.json")).bos_id, std::nullopt);
  EXPECT_EQ(vocabulary_of(*load_tokenizer("bytes")).bos_id, std::nullopt);
}

}  // namespace
}  // namespace mixtape::test
