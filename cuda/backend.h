// A GPU as a device; or, linked with the emulator's runtime, the host that plays one in tests.
#pragma once

#include "core/backend.h"
#include "cuda/families.h"
#include "cuda/products.h"
#include "cuda/runtime.h"

namespace mixtape {

class CudaBackend : public Backend {
 public:
  explicit CudaBackend(int device = 0);

  std::string name() const override { return runtime_.name(); }
  MatmulKernels& matmul() override { return matmul_; }
  AttentionKernels& attention() override { return attention_; }
  NormKernels& norm() override { return norm_; }
  ActivationKernels& activation() override { return activation_; }
  EmbeddingKernels& embedding() override { return embedding_; }
  LossKernels& loss() override { return loss_; }
  DropoutKernels& dropout() override { return dropout_; }
  PositionKernels& position() override { return position_; }
  CastKernels& cast() override { return cast_; }
  OptimizerKernels& optimizer() override { return optimizer_; }

  std::byte* reserve(int64_t bytes) override;
  void copy_from_host(const Tensor& to, const void* from) override;
  void copy_to_host(void* to, const Tensor& from) override;
  void zero(const Tensor& tensor) override;
  void synchronize() override { runtime_.synchronize(); }

  cuda::Runtime& runtime() { return runtime_; }
  cuda::Products& products() { return products_; }

 private:
  cuda::Runtime runtime_;
  cuda::Products products_;
  CudaMatmul matmul_{*this};
  CudaAttention attention_{*this};
  CudaNorm norm_{*this};
  CudaActivation activation_{*this};
  CudaEmbedding embedding_{*this};
  CudaLoss loss_{*this};
  CudaDropout dropout_{*this};
  CudaPosition position_{*this};
  CudaCast cast_{*this};
  CudaOptimizer optimizer_{*this};
};

}  // namespace mixtape
