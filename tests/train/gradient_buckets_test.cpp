// When a gradient is complete, and the buckets of gradients, whole and transient.
#include "core/gradient_buckets.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "core/ops/matmul.h"
#include "tests/train/tiny_run.h"
#include "train/devices.h"
#include "train/step.h"

namespace mixtape {
namespace {

using Floats = std::vector<float>;

// What each bucket had when its listener was called, in the order of calls.
class Recorder : public BucketListener {
 public:
  Recorder(Parameters& parameters, Backend& backend) : parameters_(parameters), backend_(backend) {
    parameters.buckets().set_listener(this);
  }
  void bucket_complete(int bucket) override {
    for (const int id : parameters_.buckets()[bucket].parameters) {
      gradients[id] = Floats(size_t(parameters_.layout()[id].count()));
      backend_.copy_to_host(gradients[id].data(), parameters_.buckets().gradient(id));
      if (spoils_weights) parameters_.load(id, Floats(size_t(parameters_.layout()[id].count()), NAN).data());
    }
    order.push_back(bucket);
  }
  bool spoils_weights = false;
  std::vector<int> order;
  std::map<int, Floats> gradients;

 private:
  Parameters& parameters_;
  Backend& backend_;
};

struct Backwards {
  std::vector<int> order;
  std::map<int, Floats> at_call, after;
  int64_t gradient_bytes = 0, largest = 0;
};

struct Way {
  std::vector<std::string> model;
  RecomputePolicy policy = RecomputePolicy::none;
  GradientMemory storage = {.bucket_elements = 1};  // a bucket for each parameter
  bool spoils_weights = false;
};

Batch batch_for(const EngineOptions& options) {
  Batch batch = tiny_batch().micro_batches[0];
  if (options.decoder_length) {
    batch.decoder = {16, batch.tokens, batch.positions, batch.segments, batch.segments};
  }
  return batch;
}

Backwards backwards(const Way& way) {
  const Config config = tiny_config(way.model);
  EngineOptions options = training_options(config);
  options.recompute = way.policy;
  options.gradient_memory = way.storage;
  Engine engine(options, int64_t(64) << 20);
  Parameters& parameters = engine.parameters();
  parameters.initialise(3);
  engine.state().inverse_targets = 1.f / 32;
  engine.upload_state();
  engine.load(batch_for(options));
  Recorder recorder(parameters, engine.backend());
  recorder.spoils_weights = way.spoils_weights;
  parameters.buckets().new_step();
  engine.run_micro_batch(true);
  Backwards result{.order = recorder.order, .at_call = recorder.gradients};
  result.gradient_bytes = engine.arena().at_peak()[int(Category::gradients)];
  result.largest = parameters.buckets().largest();
  for (int id = 0; id < parameters.layout().size() && !way.storage.transient; ++id) {
    result.after[id].resize(size_t(parameters.layout()[id].count()));
    engine.backend().copy_to_host(result.after[id].data(), parameters.buckets().gradient(id));
  }
  return result;
}

const std::vector<std::vector<std::string>> models = {
    {"model.n_layers=3", "model.n_heads=2"},
    {"model.n_layers=3", "model.n_heads=4", "model.n_kv_heads=2", "model.position=rope", "model.norm=rmsnorm",
     "model.activation=swiglu", "model.bias=false", "model.tied_embeddings=false"},
    {"model.family=encoder_decoder", "model.n_layers=2", "model.n_heads=2", "model.position=relative_bias",
     "model.norm=rmsnorm", "model.bias=false", "objective.name=seq2seq", "data.decoder_seq_length=16"},
};
constexpr RecomputePolicy policies[] = {RecomputePolicy::none, RecomputePolicy::selective, RecomputePolicy::full};

// Complete means that nothing is added later, whatever is recomputed; and each is told once, in the order of the
// buffer.
TEST(GradientBuckets, AreCompleteOnceAndInOrder) {
  for (const auto& model : models) {
    const Backwards plain = backwards({.model = model});
    for (const RecomputePolicy policy : policies) {
      const Backwards b = backwards({.model = model, .policy = policy});
      EXPECT_EQ(b.at_call, b.after);
      EXPECT_EQ(b.after, plain.after);
      EXPECT_EQ(b.order, plain.order);
    }
    EXPECT_EQ(std::set<int>(plain.order.begin(), plain.order.end()).size(), plain.after.size());
    EXPECT_EQ(plain.order.size(), plain.after.size());
    EXPECT_GE(plain.order.back(), int(plain.order.size()) - 2) << "tables of embeddings are last";
  }
}

// A listener may change the weights of its bucket: backward reads them no more.
TEST(GradientBuckets, WeightsAreReadNoMoreWhenComplete) {
  for (const auto& model : models)
    for (const RecomputePolicy policy : policies) {
      const Backwards plain = backwards({.model = model, .policy = policy});
      const Backwards spoilt = backwards({.model = model, .policy = policy, .spoils_weights = true});
      EXPECT_EQ(spoilt.at_call, plain.at_call);
    }
}

TEST(GradientBuckets, TransientOnesHaveTheSameBitsInLessMemory) {
  for (const auto& model : models)
    for (const int64_t elements : {int64_t(1), int64_t(4000), int64_t(0)}) {
      const Backwards whole = backwards({.model = model, .storage = {.bucket_elements = elements}});
      for (const RecomputePolicy policy : policies) {
        const Backwards b =
            backwards({.model = model, .policy = policy, .storage = {.transient = true, .bucket_elements = elements}});
        EXPECT_EQ(b.at_call, whole.after);
        EXPECT_EQ(b.order, whole.order);
        EXPECT_LT(b.gradient_bytes, whole.gradient_bytes);
      }
    }
}

TEST(GradientBuckets, AreWholeParametersAndCoverAll) {
  for (const char* preset : {"gpt2", "llama-1b", "t5-small"}) {
    const ModelSpec spec = load_config({}, {std::string("model.preset=") + preset}).config.model;
    const Transformer model(spec, 64, 64);
    const int64_t elements = usual_bucket_elements(model.layout());
    EXPECT_LE(elements, 4 << 20);
    int64_t end = 0;
    std::set<int> seen;
    for (const GradientBucket& bucket : gradient_buckets(model.layout(), elements)) {
      EXPECT_EQ(bucket.run.begin, end);
      end = bucket.run.end();
      for (const int id : bucket.parameters) {
        EXPECT_TRUE(seen.insert(id).second);
        EXPECT_GE(model.layout()[id].offset, bucket.run.begin);
        EXPECT_LE(model.layout()[id].offset + model.layout()[id].count(), bucket.run.end());
      }
      const ParameterEntry& last = model.layout()[bucket.parameters.back()];
      EXPECT_LT(last.offset - bucket.run.begin, elements) << "it was full before " << last.name;
    }
    EXPECT_EQ(end, model.layout().learning_flat_count());
    EXPECT_EQ(int(seen.size()), model.layout().size());
  }
}

// Two matrices and one that nothing reads; of the two one has no gradient, since nothing flows into what it made.
TEST(GradientBuckets, WhatGetsNoGradientIsZeroAndComplete) {
  for (const bool transient : {false, true}) {
    ParameterLayout layout;
    const int read = layout.add("read", {2, 2}, {Init::ones}), idle = layout.add("idle", {2, 2}, {Init::ones}),
              unread = layout.add("unread", {2, 2}, {Init::ones});
    layout.finish();
    const std::unique_ptr<Backend> backend = make_backend({});
    HostMemory memory(int64_t(1) << 20);
    Arena arena(memory.data(), memory.bytes(), Arena::Guards::on);
    backend->bind(arena);
    Parameters parameters(layout, {.gradient_memory = {.transient = transient, .bucket_elements = 1}}, *backend);
    parameters.initialise(1);
    const auto filled = [&](float value) {
      const Tensor t = backend->make({2, 2}, DType::f32);
      backend->copy_from_host(t, Floats(4, value).data());
      return t;
    };
    Recorder recorder(parameters, *backend);
    for (int step = 0; step < 2; ++step) {  // the second finds what the first has left
      parameters.buckets().new_step();
      Tape tape(*backend, &parameters, nullptr);
      const Tensor x = filled(3);
      linear(tape, x, tape.parameter(idle), {});
      tape.seed(linear(tape, x, tape.parameter(read), {}), filled(1));
      tape.backward();
      EXPECT_FALSE(parameters.buckets().was_written(idle));
    }
    EXPECT_EQ(recorder.gradients[read], Floats(4, 6));
    EXPECT_EQ(recorder.gradients[idle], Floats(4, 0));
    EXPECT_EQ(recorder.gradients[unread], Floats(4, 0));
    const int first = parameters.buckets().bucket_of(read), second = parameters.buckets().bucket_of(idle),
              third = parameters.buckets().bucket_of(unread);
    EXPECT_EQ(recorder.order, (std::vector{first, second, third, first, second, third}));
  }
}

// Gradients of several micro-batches are added, each of which completes the buckets.
TEST(GradientBuckets, AddMicroBatches) {
  const Config config = tiny_config({"model.n_layers=2", "model.n_heads=2"});
  EngineOptions options = training_options(config);
  Engine engine(options, int64_t(64) << 20);
  engine.parameters().initialise(3);
  engine.state().inverse_targets = 1.f / 32;
  engine.upload_state();
  engine.load(tiny_batch().micro_batches[0]);
  Recorder recorder(engine.parameters(), engine.backend());
  engine.parameters().buckets().new_step();
  engine.run_micro_batch(true);
  const auto once = recorder.gradients;
  engine.run_micro_batch(true);
  for (const auto& [id, gradient] : recorder.gradients)
    for (size_t i = 0; i < gradient.size(); ++i) ASSERT_NEAR(gradient[i], 2 * once.at(id)[i], 1e-6);
}

}  // namespace
}  // namespace mixtape
