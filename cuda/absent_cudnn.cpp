// In the place of cudnn.cpp where the headers of cudnn-frontend were not found.
#include "cuda/cudnn.h"

namespace mixtape::cuda {

struct Cudnn::State {};

Cudnn::Cudnn(CudaBackend&) {
  throw ConfigError(
      "attention.implementation: cudnn, but this build is without: pip install nvidia-cudnn-frontend, and configure "
      "with -DMIXTAPE_CUDNN_FRONTEND=the directory that has its cudnn_frontend.h");
}
Cudnn::~Cudnn() = default;
void Cudnn::attention(const Attention&) {}
void Cudnn::attention_backward(const AttentionBackward&) {}

}  // namespace mixtape::cuda
