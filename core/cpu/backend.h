// The CPU as a device.
#pragma once

#include <deque>

#include "core/backend.h"
#include "core/cpu/families.h"

namespace mixtape {

struct CpuOptions {
  int threads = 0;  // 0: one a core that this process may use
  Determinism determinism = Determinism::fast;
};

class CpuBackend : public Backend {
 public:
  explicit CpuBackend(CpuOptions options = {});

  std::string name() const override;
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
  void copy(const Tensor& to, const Tensor& from) override;
  void synchronize() override {}
  std::unique_ptr<Offload> offload(const OffloadRoom& room) override;
  const void* host_view(const Tensor& tensor, std::vector<std::byte>&) override { return tensor.raw(); }
  std::string choices() const override;
  void set_choices(const std::string& text) override;

  Determinism determinism() const { return options_.determinism; }

 private:
  CpuOptions options_;
  std::deque<HostMemory> memory_;
  CpuMatmul matmul_{*this};
  CpuAttention attention_{*this};
  CpuNorm norm_{*this};
  CpuActivation activation_{*this};
  CpuEmbedding embedding_{*this};
  CpuLoss loss_{*this};
  CpuDropout dropout_{*this};
  CpuPosition position_{*this};
  CpuCast cast_{*this};
  CpuOptimizer optimizer_{*this};
};

}  // namespace mixtape
