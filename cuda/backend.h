// A GPU as a device; or, linked with the emulator's runtime, the host that plays one in tests.
#pragma once

#include <functional>
#include <optional>

#include "core/backend.h"
#include "cuda/families.h"
#include "cuda/products.h"
#include "cuda/repeat.h"
#include "cuda/runtime.h"

namespace mixtape {

struct CudaOptions {
  int device = 0;
  bool graphs = false;  // what is repeated is recorded
  // Told why something cannot be recorded, which then runs as it is.
  std::function<void(const std::string&)> graphs_refused = [](const std::string&) {};
};

class CudaBackend : public Backend {
 public:
  explicit CudaBackend(const CudaOptions& options = {});

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
  std::unique_ptr<Feed> feed(const Tensor& block) override;
  void repeat(int id, const std::function<void()>& work) override;
  void begin_range(std::string_view name) override { runtime_.begin_range(std::string(name)); }
  void end_range() override { runtime_.end_range(); }

  cuda::Runtime& runtime() { return runtime_; }
  cuda::Products& products() { return products_; }

 private:
  cuda::Runtime runtime_;
  cuda::Products products_;
  std::optional<cuda::Repeater> repeater_;
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
