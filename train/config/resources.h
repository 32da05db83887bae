// memory, attention, parallel, runtime: how the machine is used. None of them changes what is computed.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <tuple>

#include "core/backend.h"
#include "core/base/fields.h"

namespace mixtape {

enum class RecomputeMode { none, selective, full };
enum class OffloadMode { none, optimizer, activations, all };
enum class AttentionImplementation { automatic, native, cudnn };

constexpr auto names(std::type_identity<RecomputeMode>) {
  using E = RecomputeMode;
  return std::array{Named<E>{E::none, "none"}, Named<E>{E::selective, "selective"}, Named<E>{E::full, "full"}};
}
constexpr auto names(std::type_identity<OffloadMode>) {
  using E = OffloadMode;
  return std::array{Named<E>{E::none, "none"}, Named<E>{E::optimizer, "optimizer"},
                    Named<E>{E::activations, "activations"}, Named<E>{E::all, "all"}};
}
constexpr auto names(std::type_identity<AttentionImplementation>) {
  using E = AttentionImplementation;
  return std::array{Named<E>{E::automatic, "auto"}, Named<E>{E::native, "native"}, Named<E>{E::cudnn, "cudnn"}};
}
constexpr auto names(std::type_identity<Determinism>) {
  using E = Determinism;
  return std::array{Named<E>{E::fast, "fast"}, Named<E>{E::strict, "strict"}};
}

struct MemoryConfig {
  RecomputeMode recompute = RecomputeMode::selective;
  OffloadMode offload = OffloadMode::none;
  std::optional<std::string> offload_directory;
  Auto<int64_t> loss_chunk_tokens;
  bool offloads_state() const { return offload == OffloadMode::optimizer || offload == OffloadMode::all; }
  bool offloads_activations() const { return offload == OffloadMode::activations || offload == OffloadMode::all; }
};

constexpr auto fields(std::type_identity<MemoryConfig>) {
  using C = MemoryConfig;
  return std::tuple{
      field(
          "recompute", &C::recompute,
          "none: keep every activation; selective: make norms and activations again in backward, which costs no time "
          "worth "
          "naming; full: keep only the input of each block, and compute forward twice. The same bits in every mode on "
          "CPUs; on GPUs but for gelu_tanh, which selective rounds otherwise",
          Aliases{"recompute_granularity", "activation_checkpointing"}),
      field("offload", &C::offload,
            "what is outside of the device's memory, of a CPU in a file and of a GPU in memory of the host. optimizer: "
            "master weights and moments, which come piece by piece to be updated; activations: what layers keep for "
            "backward, but for the last two; all: both. The same bits"),
      field("offload_directory", &C::offload_directory,
            "where the file is, which has no name; of a GPU, too, then. null: on CPUs the run's directory, of a GPU no "
            "file but memory of the host"),
      field("loss_chunk_tokens", &C::loss_chunk_tokens,
            "positions whose logits exist at once; fewer need less memory. auto: chosen from the vocabulary",
            Range{1, 1 << 24}),
  };
}

struct AttentionConfig {
  AttentionImplementation implementation = AttentionImplementation::automatic;
};

constexpr auto fields(std::type_identity<AttentionConfig>) {
  using C = AttentionConfig;
  return std::tuple{
      field("implementation", &C::implementation,
            "native: Mixtape's own kernels; cudnn: cuDNN's, on a GPU, for plain attention in 16 bits with one document "
            "a row; auto: native"),
  };
}

struct ParallelConfig {
  int64_t zero_stage = 0;
  int64_t tensor_parallel_size = 1;
  int64_t timeout_seconds = 1800;
};

constexpr auto fields(std::type_identity<ParallelConfig>) {
  using C = ParallelConfig;
  return std::tuple{
      field("zero_stage", &C::zero_stage,
            "what data-parallel ranks share out: 0 nothing, 1 optimizer state, 2 gradients too, 3 weights too",
            Range{0, 3}),
      field("tensor_parallel_size", &C::tensor_parallel_size, "ranks over which each layer's matrices are cut",
            Range{1, 1024}, Aliases{"tensor_model_parallel_size"}),
      field("timeout_seconds", &C::timeout_seconds,
            "of several processes: one that is so long in the same phase of a step (a micro-batch, a wait for the "
            "others, a save) ends the job; at least as long as the longest validation or save",
            Range{1, 1e7}),
  };
}

struct RuntimeConfig {
  Auto<int64_t> threads;
  Auto<bool> cuda_graphs;
};

constexpr auto fields(std::type_identity<RuntimeConfig>) {
  using C = RuntimeConfig;
  return std::tuple{
      field("threads", &C::threads, "threads of the CPU back end; auto: one a core that this process may use",
            Range{1, 4096}),
      field("cuda_graphs", &C::cuda_graphs,
            "on GPUs, capture forward and backward of a micro-batch and the update as CUDA graphs and launch those; "
            "auto: "
            "as far as they can be captured, with a warning else; true: an error then. The same bits in every mode"),
  };
}

}  // namespace mixtape
