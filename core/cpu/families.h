// The ten families on the CPU: declared here, defined one .cpp a family.
#pragma once

#include "core/ops/activation.h"
#include "core/ops/attention.h"
#include "core/ops/cast.h"
#include "core/ops/dropout.h"
#include "core/ops/embedding.h"
#include "core/ops/loss.h"
#include "core/ops/matmul.h"
#include "core/ops/norm.h"
#include "core/ops/optimizer.h"
#include "core/ops/position.h"

namespace mixtape {

class CpuBackend;

class CpuMatmul : public MatmulKernels {
 public:
  explicit CpuMatmul(CpuBackend& backend) : backend_(backend) {}
  void linear(const Linear&) override;
  void linear_backward(const LinearBackward&) override;
  void linear_rows(const Linear&) override;
  void linear_int8(const LinearInt8&) override;

 private:
  CpuBackend& backend_;
};

class CpuAttention : public AttentionKernels {
 public:
  explicit CpuAttention(CpuBackend& backend) : backend_(backend) {}
  void attention(const Attention&) override;
  void attention_backward(const AttentionBackward&) override;

 private:
  CpuBackend& backend_;
};

class CpuNorm : public NormKernels {
 public:
  explicit CpuNorm(CpuBackend& backend) : backend_(backend) {}
  void norm(const Norm&) override;
  void norm_backward(const NormBackward&) override;

 private:
  CpuBackend& backend_;
};

class CpuActivation : public ActivationKernels {
 public:
  explicit CpuActivation(CpuBackend& backend) : backend_(backend) {}
  void activation(const Activate&) override;
  void activation_backward(const ActivateBackward&) override;
  void gated(const Activate&) override;
  void gated_backward(const ActivateBackward&) override;

 private:
  CpuBackend& backend_;
};

class CpuEmbedding : public EmbeddingKernels {
 public:
  explicit CpuEmbedding(CpuBackend& backend) : backend_(backend) {}
  void embedding(const Embed&) override;
  void embedding_backward(const EmbedBackward&) override;
  void gather_rows(const GatherRows&) override;
  void gather_rows_backward(const GatherRowsBackward&) override;

 private:
  CpuBackend& backend_;
};

class CpuLoss : public LossKernels {
 public:
  explicit CpuLoss(CpuBackend& backend) : backend_(backend) {}
  void cross_entropy(const CrossEntropy&) override;

 private:
  CpuBackend& backend_;
};

class CpuDropout : public DropoutKernels {
 public:
  explicit CpuDropout(CpuBackend& backend) : backend_(backend) {}
  void dropout(const Dropout&) override;

 private:
  CpuBackend& backend_;
};

class CpuPosition : public PositionKernels {
 public:
  explicit CpuPosition(CpuBackend& backend) : backend_(backend) {}
  void rope(const Rope&) override;

 private:
  CpuBackend& backend_;
};

class CpuCast : public CastKernels {
 public:
  explicit CpuCast(CpuBackend& backend) : backend_(backend) {}
  void convert(const Convert&) override;
  void add(const Add&) override;
  void abs_max(const AbsMax&) override;
  void quantise(const Quantise&) override;
  void update_scales(const UpdateScales&) override;

 private:
  CpuBackend& backend_;
};

class CpuOptimizer : public OptimizerKernels {
 public:
  explicit CpuOptimizer(CpuBackend& backend) : backend_(backend) {}
  void gradient_norm(const GradientNorm&) override;
  void range_squares(const RangeSquares&) override;
  void parameter_scales(const ParameterScales&) override;
  void adamw(const AdamW&) override;
  void sgd(const Sgd&) override;
  void lion(const Lion&) override;
  void muon_direction(const MuonDirection&) override;
  void divide_by_norm(const DivideByNorm&) override;
  void follow(const Follow&) override;
  void adafactor(const Adafactor&) override;
  void finish_micro_batch(const FinishMicroBatch&) override;
  void finish_attempt(const FinishAttempt&) override;

 private:
  CpuBackend& backend_;
};

}  // namespace mixtape
