// data: token shards, their mixture, and how they become sequences.
#pragma once

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "core/base/fields.h"

namespace mixtape {

struct SourceConfig {
  std::string name;
  std::string path;
  double weight = 1;
  std::optional<double> max_epochs;
  std::optional<std::string> validation;
  std::string format = "auto";
};

constexpr auto fields(std::type_identity<SourceConfig>) {
  using C = SourceConfig;
  return std::tuple{
      field("name", &C::name, "a name for logs; the path's last part where it is not given", Aliases{"source_name"}),
      field(
          "path", &C::path,
          "what `mixtape data prepare` wrote, llm.c's or nanoGPT's .bin, or Megatron's .idx/.bin pair; of fine-tuning "
          "a .jsonl file, a directory of them or a pattern",
          Aliases{"paths"}),
      field("weight", &C::weight,
            "share of the sequences, relative to the other sources' weights; 0: none, until a stage has it",
            Range{0, 1e9}, Aliases{"target_ratio"}),
      field("max_epochs", &C::max_epochs,
            "stop taking from this source after so many passes; its share goes to the others. null: no limit", above(0),
            Aliases{"max_repetition_ratio"}),
      field("validation", &C::validation,
            "shards for validation; null: the split data.validation_split of this source"),
      field("format", &C::format, "of the token files: auto, mixtape, llmc, nanogpt or megatron"),
  };
}

struct StageConfig {
  int64_t from_tokens = 0;
  std::vector<double> weights;
};

constexpr auto fields(std::type_identity<StageConfig>) {
  using C = StageConfig;
  return std::tuple{
      field("from_tokens", &C::from_tokens, "where the stage begins: so many tokens of the run are over",
            Range{1, 1e18}),
      field("weights", &C::weights, "of the sources, one each, in their order; 0: nothing from it in this stage"),
  };
}

struct DataConfig {
  std::string tokenizer = "bytes";
  std::vector<SourceConfig> sources;
  std::vector<StageConfig> stages;
  double validation_split = 0.01;
  int64_t seq_length = 256;
  Auto<int64_t> decoder_seq_length;
  bool pack = true;
  Auto<bool> document_mask;

  // The greatest that it has in a stage: a source that comes late counts in validation from the start.
  double greatest_weight(size_t source) const;
};

constexpr auto fields(std::type_identity<DataConfig>) {
  using C = DataConfig;
  return std::tuple{
      field(
          "tokenizer", &C::tokenizer,
          "bytes (ids 0 to 255, and 256 ends a document), a tokenizer.json, a SentencePiece .model, a vocab.txt, or a "
          "directory with one",
          refused_on_resume("the embedding's rows mean the tokens of the tokenizer they were trained with")),
      field("sources", &C::sources, "what to train on: a list of sources and their weights"),
      field("stages", &C::stages,
            "other weights of the sources later in the run: a list of stages in the order of their beginnings"),
      field("validation_split", &C::validation_split,
            "share of each source's documents that is kept for validation; 0: none", Range{0, 0.5}),
      field("seq_length", &C::seq_length, "tokens in a sequence", Range{1, 1 << 24},
            Aliases{"max_seq_length", "sequence_length", "max_context_length"}),
      field("decoder_seq_length", &C::decoder_seq_length,
            "seq2seq: tokens that the decoder writes in a sequence; auto: seq_length", Range{1, 1 << 24},
            Aliases{"max_target_length"}),
      field("pack", &C::pack,
            "fill sequences with consecutive documents, or with whole examples of fine-tuning; false: one a sequence, "
            "cut or padded to seq_length"),
      field("document_mask", &C::document_mask,
            "a token attends only to tokens of its own document, and positions start again with each document; auto: "
            "except for span_corruption, whose spans run through whole sequences"),
  };
}

}  // namespace mixtape
