#include "train/data/tokenizer/word_counts.h"

#include <xxhash.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>

namespace mixtape {
namespace {

constexpr size_t longest_word = 4096;
constexpr size_t batch_size = size_t{1} << 20;  // bytes handed to a thread at a time
constexpr size_t waiting_batches = 8;           // more make the reader wait, so memory stays flat

void count_pieces(std::string_view text, const std::vector<Splitter>& splitters, size_t step, WordCounts& counts) {
  if (step == splitters.size()) {
    for (size_t at = 0; at < text.size(); at += longest_word) counts.add(text.substr(at, longest_word));
    return;
  }
  for (size_t begin = 0, end; begin < text.size(); begin = end) {
    end = splitters[step].piece_end(text, begin);
    if (splitters[step].drops(text, begin)) continue;
    count_pieces(text.substr(begin, end - begin), splitters, step + 1, counts);
  }
}

}  // namespace

WordCounts::Slot& WordCounts::find(std::string_view word, uint64_t hash) {
  for (uint64_t at = hash;; ++at) {
    Slot& slot = slots_[at & (slots_.size() - 1)];
    if (slot.count == 0) return slot;
    if (slot.hash == hash && std::string_view(characters_).substr(slot.offset, slot.length) == word) return slot;
  }
}

void WordCounts::grow() {
  std::vector<Slot> old(std::max<size_t>(1024, slots_.size() * 2));
  old.swap(slots_);
  for (const Slot& moved : old) {
    if (moved.count == 0) continue;
    uint64_t at = moved.hash;
    while (slots_[at & (slots_.size() - 1)].count) ++at;
    slots_[at & (slots_.size() - 1)] = moved;
  }
}

void WordCounts::add(std::string_view word, int64_t count) {
  if (used_ * 2 >= slots_.size()) grow();
  const uint64_t hash = XXH3_64bits(word.data(), word.size());
  Slot& slot = find(word, hash);
  if (slot.count == 0) {
    slot = {hash, characters_.size(), 0, static_cast<uint32_t>(word.size())};
    characters_ += word;
    ++used_;
  }
  slot.count += count;
}

void WordCounts::add(const WordCounts& other) {
  other.for_each([&](std::string_view word, int64_t count) { add(word, count); });
}

class WordCounter::Workers {
 public:
  Workers(const std::vector<SplitRule>& rules, int threads, std::vector<NormalizerStep> normalizer)
      : normalizer_(std::move(normalizer)) {
    for (const SplitRule rule : rules) splitters_.emplace_back(rule);
    counts_.resize(std::max(1, threads));
    try {
      for (WordCounts& counts : counts_) threads_.emplace_back([this, &counts] { work(counts); });
    } catch (const std::system_error&) {  // the system gives no more; the counts do not depend on how many there are
      if (threads_.empty()) throw;
    }
  }
  ~Workers() { join(); }

  void push(std::vector<std::string> batch) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return batches_.size() < waiting_batches; });
    batches_.push_back(std::move(batch));
    changed_.notify_all();
  }

  WordCounts result() {
    join();
    if (failure_) std::rethrow_exception(failure_);
    for (size_t i = 1; i < counts_.size(); ++i) counts_[0].add(counts_[i]);
    return std::move(counts_[0]);
  }

 private:
  void work(WordCounts& counts) {
    while (true) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return closed_ || !batches_.empty(); });
      if (batches_.empty()) return;
      const std::vector<std::string> batch = std::move(batches_.front());
      batches_.pop_front();
      changed_.notify_all();
      if (failure_) continue;  // keep emptying the queue, so that nobody waits for ever
      lock.unlock();
      try {
        for (const std::string& text : batch)
          count_pieces(normalizer_.empty() ? text : normalize(normalizer_, text), splitters_, 0, counts);
      } catch (...) {
        lock.lock();
        failure_ = std::current_exception();
      }
    }
  }

  void join() {
    {
      std::lock_guard lock(mutex_);
      closed_ = true;
      changed_.notify_all();
    }
    for (std::thread& thread : threads_)
      if (thread.joinable()) thread.join();
  }

  std::vector<NormalizerStep> normalizer_;
  std::vector<Splitter> splitters_;
  std::vector<WordCounts> counts_;  // one a thread
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::vector<std::string>> batches_;
  bool closed_ = false;
  std::exception_ptr failure_;
  std::vector<std::thread> threads_;
};

WordCounter::WordCounter(std::vector<SplitRule> rules, int threads, std::vector<NormalizerStep> normalizer)
    : workers_(std::make_unique<Workers>(rules, threads, std::move(normalizer))) {}

WordCounter::~WordCounter() = default;

void WordCounter::add(std::string text) {
  batch_bytes_ += text.size();
  batch_.push_back(std::move(text));
  if (batch_bytes_ < batch_size) return;
  workers_->push(std::move(batch_));
  batch_ = {};
  batch_bytes_ = 0;
}

WordCounts WordCounter::finish() {
  workers_->push(std::move(batch_));
  return workers_->result();
}

}  // namespace mixtape
