// The update of flat buffers, a block of 256 elements at a time: what is narrower than float32 is widened into the
// first-level cache, updated there by a rule that knows floats alone, and written back. Include after foreach_target.h.
//
//   update_blocks(buffers, ranges, n_ranges, [&](const UpdateRange& range) { return Rule(...); });
//   struct Rule { void operator()(const Block& b) const; };
//
// A rule's formula is one place for all formats; a format is one place for all rules, blocks.cpp: a call a block is
// nothing beside its 256 elements.
#if defined(MIXTAPE_CPU_OPTIMIZER_BLOCKS_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MIXTAPE_CPU_OPTIMIZER_BLOCKS_H
#undef MIXTAPE_CPU_OPTIMIZER_BLOCKS_H
#else
#define MIXTAPE_CPU_OPTIMIZER_BLOCKS_H
#endif

#include "core/cpu/parallel.h"
#include "core/cpu/simd.h"
#include "core/ops/optimizer.h"
#include "core/ops/stochastic_rounding.h"

HWY_BEFORE_NAMESPACE();
namespace mixtape::HWY_NAMESPACE {

// What a rule updates: n elements, n at most 256. Moments that the rule has not are null.
struct Block {
  float* w;
  const float* g;
  float *m, *v;
  int64_t n;
};

struct FlatBuffers {
  Tensor weights, master, gradients;
  Moment m, v;
  PhiloxKey rounding;
};

// A rule as blocks.cpp sees it.
struct AnyRule {
  const void* rule;
  void (*apply)(const void* rule, const Block& b);
};

void update_range(const FlatBuffers& b, const UpdateRange& range, AnyRule rule);

// rule_of(range): what does a range's blocks.
template <class RuleOf>
void update_blocks(const FlatBuffers& b, const UpdateRange* ranges, int64_t n_ranges, const RuleOf& rule_of) {
  parallel_tasks(n_ranges, [&](int64_t r) HWY_ATTR {
    const auto rule = rule_of(ranges[r]);
    using Rule = decltype(rule);
    update_range(b, ranges[r],
                 {&rule, [](const void* of, const Block& block) HWY_ATTR { (*static_cast<Rule*>(of))(block); }});
  });
}

}  // namespace mixtape::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
