// Gradients in buckets: runs of whole parameters, in the order in which backward finishes them.
//
// The tape says when a parameter's gradient of this micro-batch is complete: all that read it have gone backward. When
// all of a bucket are, its listener hears of it, in the middle of backward, and may exchange the bucket or apply it.
//
// All gradients are one flat buffer, and a bucket is a part of it; or they are transient: a bucket has memory from the
// first write into it until its listener is done with it, so that never more than a few are there at once. Memory comes
// from the arena by the same requests each time: a plan counts it, and addresses stay.
#pragma once

#include <span>
#include <vector>

#include "core/backend.h"

namespace mixtape {

class ParameterLayout;

// A run of elements of the flat buffers of what learns.
struct Run {
  int64_t begin = 0, count = 0;
  int64_t end() const { return begin + count; }
};

struct GradientBucket {
  Run run;                      // padding included
  std::vector<int> parameters;  // ids, in the order of the buffer
};

// A bucket ends with the parameter that fills it to `elements`. One that would fill a bucket alone begins its own, so
// that what is smaller does not wait for it; the smallest, such as norm weights, go along.
std::vector<GradientBucket> gradient_buckets(const ParameterLayout& layout, int64_t elements);
// A 16th of what learns, at most 4 Mi: enough for the latency of an exchange, little enough to begin early.
int64_t usual_bucket_elements(const ParameterLayout& layout);

class BucketListener {
 public:
  virtual ~BucketListener() = default;
  // Called in backward, once in each micro-batch for each bucket and in the same order each time. A parameter that
  // nothing flowed into, in this step's micro-batches so far, has a gradient of zero. The bucket's weights are read no
  // more in this micro-batch. Transient memory is given back after the call.
  virtual void bucket_complete(int bucket) = 0;
};

struct GradientMemory {
  DType dtype = DType::f32;
  bool transient = false;
  int64_t bucket_elements = 0;  // 0: the usual
};

class GradientBuckets {
 public:
  GradientBuckets(const ParameterLayout& layout, GradientMemory storage, Backend& backend);

  int size() const { return int(buckets_.size()); }
  const GradientBucket& operator[](int bucket) const { return buckets_[size_t(bucket)]; }
  const std::vector<GradientBucket>& all() const { return buckets_; }
  int bucket_of(int parameter) const { return bucket_of_[size_t(parameter)]; }  // -1: it does not learn
  int64_t largest() const;                                                      // elements of the largest bucket

  // All gradients; absent if they are transient.
  const Tensor& flat() const { return flat_; }
  // A bucket's, [run.count]; absent while a transient one has no memory. Padding holds anything then.
  Tensor gradients(int bucket) const;
  Tensor gradient(int parameter) const;
  // Where the next gradient of the parameter goes: overwrite for the first since new_step(), then accumulate.
  Grad next(int parameter);
  // The next gradients overwrite.
  void new_step() { written_.assign(written_.size(), false); }
  bool was_written(int parameter) const { return written_[size_t(parameter)]; }
  const std::vector<bool>& written() const { return written_; }
  void set_written(const std::vector<bool>& written) { written_ = written; }

  // Null: nobody. Not owned.
  void set_listener(BucketListener* listener) { listener_ = listener; }
  // From the tape: the parameter's gradient of this micro-batch is complete; and backward is at its end, so that all
  // are, those too that nothing has read.
  void complete(int parameter);
  void end_backward();

 private:
  void finish(int bucket);

  const ParameterLayout& layout_;
  GradientMemory storage_;
  Backend& backend_;
  std::vector<GradientBucket> buckets_;
  std::vector<int> bucket_of_;
  std::vector<bool> written_;    // by parameter
  std::vector<int> incomplete_;  // by bucket: parameters that are not complete yet; none: it is finished
  Tensor flat_;
  std::vector<Tensor> memory_;  // by bucket, transient
  BucketListener* listener_ = nullptr;
};

}  // namespace mixtape
