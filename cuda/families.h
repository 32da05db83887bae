// The ten families on a GPU: declared here, defined in .cu files of their names.
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

class CudaBackend;

class CudaMatmul : public MatmulKernels {
 public:
  explicit CudaMatmul(CudaBackend& backend) : backend_(backend) {}
  void linear(const Linear&) override;
  void linear_backward(const LinearBackward&) override;
  void linear_rows(const Linear&) override;
  void linear_int8(const LinearInt8&) override;
  bool linear_of_codes(const LinearOfCodes&) override;
  bool linear_of_codes_backward(const LinearOfCodesBackward&) override;

 private:
  CudaBackend& backend_;
};

class CudaAttention : public AttentionKernels {
 public:
  explicit CudaAttention(CudaBackend& backend) : backend_(backend) {}
  void attention(const Attention&) override;
  void attention_backward(const AttentionBackward&) override;

 private:
  CudaBackend& backend_;
};

class CudaNorm : public NormKernels {
 public:
  explicit CudaNorm(CudaBackend& backend) : backend_(backend) {}
  void norm(const Norm&) override;
  void norm_backward(const NormBackward&) override;

 private:
  CudaBackend& backend_;
};

class CudaActivation : public ActivationKernels {
 public:
  explicit CudaActivation(CudaBackend& backend) : backend_(backend) {}
  void activation(const Activate&) override;
  void activation_backward(const ActivateBackward&) override;
  void gated(const Activate&) override;
  void gated_backward(const ActivateBackward&) override;

 private:
  CudaBackend& backend_;
};

class CudaEmbedding : public EmbeddingKernels {
 public:
  explicit CudaEmbedding(CudaBackend& backend) : backend_(backend) {}
  void embedding(const Embed&) override;
  void embedding_backward(const EmbedBackward&) override;
  void gather_rows(const GatherRows&) override;
  void gather_rows_backward(const GatherRowsBackward&) override;

 private:
  CudaBackend& backend_;
};

class CudaLoss : public LossKernels {
 public:
  explicit CudaLoss(CudaBackend& backend) : backend_(backend) {}
  void cross_entropy(const CrossEntropy&) override;

 private:
  CudaBackend& backend_;
};

class CudaDropout : public DropoutKernels {
 public:
  explicit CudaDropout(CudaBackend& backend) : backend_(backend) {}
  void dropout(const Dropout&) override;

 private:
  CudaBackend& backend_;
};

class CudaPosition : public PositionKernels {
 public:
  explicit CudaPosition(CudaBackend& backend) : backend_(backend) {}
  void rope(const Rope&) override;

 private:
  CudaBackend& backend_;
};

class CudaCast : public CastKernels {
 public:
  explicit CudaCast(CudaBackend& backend) : backend_(backend) {}
  void convert(const Convert&) override;
  void add(const Add&) override;
  void abs_max(const AbsMax&) override;
  void quantise(const Quantise&) override;
  void update_scales(const UpdateScales&) override;

 private:
  CudaBackend& backend_;
};

class CudaOptimizer : public OptimizerKernels {
 public:
  explicit CudaOptimizer(CudaBackend& backend) : backend_(backend) {}
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
  CudaBackend& backend_;
};

}  // namespace mixtape
