#include "core/gradient_buckets.h"

#include <algorithm>

#include "core/parameters.h"

namespace mixtape {

std::vector<GradientBucket> gradient_buckets(const ParameterLayout& layout, int64_t elements) {
  std::vector<int> order;
  for (int id = 0; id < layout.size(); ++id)
    if (layout[id].learns) order.push_back(id);
  std::ranges::sort(order, {}, [&](int id) { return layout[id].offset; });

  std::vector<GradientBucket> buckets;
  bool open = false;
  for (size_t i = 0; i < order.size(); ++i) {
    const ParameterEntry& entry = layout[order[i]];
    const int64_t end = i + 1 < order.size() ? layout[order[i + 1]].offset : layout.learning_flat_count();
    const bool begins_its_own = open && entry.count() >= elements && buckets.back().run.count >= elements / 16;
    if (!open || begins_its_own) buckets.push_back({.run = {.begin = entry.offset}, .parameters = {}});
    GradientBucket& bucket = buckets.back();
    bucket.parameters.push_back(order[i]);
    bucket.run.count = end - bucket.run.begin;
    open = bucket.run.count < elements;
  }
  return buckets;
}

int64_t usual_bucket_elements(const ParameterLayout& layout) {
  return std::clamp<int64_t>(layout.learning_flat_count() / 16, 1, 4 << 20);
}

GradientBuckets::GradientBuckets(const ParameterLayout& layout, GradientMemory storage, Backend& backend)
    : layout_(layout),
      storage_(storage),
      backend_(backend),
      buckets_(gradient_buckets(layout,
                                storage.bucket_elements > 0 ? storage.bucket_elements : usual_bucket_elements(layout))),
      bucket_of_(size_t(layout.size()), -1),
      written_(size_t(layout.size())),
      memory_(buckets_.size()) {
  for (size_t b = 0; b < buckets_.size(); ++b) {
    incomplete_.push_back(int(buckets_[b].parameters.size()));
    for (const int id : buckets_[b].parameters) bucket_of_[size_t(id)] = int(b);
  }
  if (storage.transient) return;
  flat_ = backend.make({layout.learning_flat_count()}, storage.dtype, Category::gradients);
  if (!backend.planning()) backend.zero(flat_);  // the padding is never written again
}

int64_t GradientBuckets::largest() const {
  int64_t most = 0;
  for (const GradientBucket& bucket : buckets_) most = std::max(most, bucket.run.count);
  return most;
}

Tensor GradientBuckets::gradients(int bucket) const {
  if (storage_.transient) return memory_[size_t(bucket)];
  const Run& run = buckets_[size_t(bucket)].run;
  return flat_.columns(run.begin, run.count).reshaped({run.count});
}

Tensor GradientBuckets::gradient(int parameter) const {
  const ParameterEntry& entry = layout_[parameter];
  const int bucket = bucket_of(parameter);
  const Tensor all = gradients(bucket);
  return all ? all.columns(entry.offset - buckets_[size_t(bucket)].run.begin, entry.count()).reshaped(entry.shape)
             : Tensor{};
}

Grad GradientBuckets::next(int parameter) {
  const int bucket = bucket_of(parameter);
  if (bucket < 0) return {};
  Tensor& memory = memory_[size_t(bucket)];
  if (storage_.transient && !memory)
    memory = backend_.make({buckets_[size_t(bucket)].run.count}, storage_.dtype, Category::gradients);
  const bool first = !written_[size_t(parameter)];
  written_[size_t(parameter)] = true;
  return {gradient(parameter), first ? Write::overwrite : Write::accumulate};
}

void GradientBuckets::complete(int parameter) {
  const int bucket = bucket_of(parameter);
  if (bucket >= 0 && --incomplete_[size_t(bucket)] == 0) finish(bucket);
}

void GradientBuckets::end_backward() {
  for (int b = 0; b < size(); ++b) {
    if (incomplete_[size_t(b)] > 0) finish(b);
    incomplete_[size_t(b)] = int(buckets_[size_t(b)].parameters.size());
  }
}

void GradientBuckets::finish(int bucket) {
  incomplete_[size_t(bucket)] = 0;
  Tensor& memory = memory_[size_t(bucket)];
  if (storage_.transient && !memory)
    memory = backend_.make({buckets_[size_t(bucket)].run.count}, storage_.dtype, Category::gradients);
  for (const int id : buckets_[size_t(bucket)].parameters)
    if (!written_[size_t(id)] && !backend_.planning()) backend_.zero(gradient(id));
  if (listener_) listener_->bucket_complete(bucket);
  if (!storage_.transient) return;
  memory = {};
  for (const int id : buckets_[size_t(bucket)].parameters) written_[size_t(id)] = false;
}

}  // namespace mixtape
