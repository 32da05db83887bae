// A GPU as a device; or, linked with the emulator's runtime, the host that plays one in tests.
#pragma once

#include <functional>
#include <optional>

#include "core/backend.h"
#include "cuda/cudnn.h"
#include "cuda/families.h"
#include "cuda/marks.h"
#include "cuda/products.h"
#include "cuda/repeat.h"
#include "cuda/runtime.h"

namespace mixtape {

struct CudaOptions {
  int device = 0;
  bool graphs = false;  // what is repeated is recorded
  // Told why something cannot be recorded, which then runs as it is.
  std::function<void(const std::string&)> graphs_refused = [](const std::string&) {};
  bool tf32 = false;   // products of float32 by tensor cores
  bool cudnn = false;  // attention by cuDNN where it can (cudnn.h)
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
  void copy(const Tensor& to, const Tensor& from) override;
  int64_t mark() override { return marks_.mark(); }
  double seconds_between(int64_t first, int64_t second) override { return marks_.seconds_between(first, second); }
  void forget_marks() override { marks_.forget(); }
  void synchronize() override { runtime_.synchronize(); }
  std::unique_ptr<Feed> feed(const Tensor& block) override;
  std::unique_ptr<Offload> offload(const OffloadRoom& room) override;
  void repeat(int id, const std::function<void()>& work) override;
  void begin_range(std::string_view name) override { runtime_.begin_range(std::string(name)); }
  void end_range() override { runtime_.end_range(); }

  cuda::Runtime& runtime() { return runtime_; }
  cuda::Products& products() { return products_; }
  cuda::Cudnn* cudnn() { return cudnn_.get(); }  // null where it was not asked for

 private:
  cuda::Runtime runtime_;
  cuda::Products products_;
  std::optional<cuda::Repeater> repeater_;
  cuda::Marks marks_;
  std::unique_ptr<cuda::Cudnn> cudnn_;
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
