// What the trainers have in common: texts go in, a tokenizer comes out.
#pragma once

#include <memory>
#include <string>

#include "train/data/tokenizer/tokenizer.h"

namespace mixtape {

class TokenizerTrainer {
 public:
  virtual ~TokenizerTrainer() = default;

  // A document, or a part of one that ends between two words.
  virtual void add(std::string text) = 0;
  // Once, after all texts. Throws DataError if there was no text. With too little text the vocabulary stays smaller.
  virtual std::unique_ptr<Tokenizer> train() = 0;
};

}  // namespace mixtape
