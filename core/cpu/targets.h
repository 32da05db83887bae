// Which instruction sets kernels are compiled for: AVX2, AVX-512 and a portable fallback.
//
// A kernel file is compiled once for each (hwy/foreach_target.h includes it again and again), and picks one at run
// time:
//
//   #include "core/cpu/targets.h"
//   #undef HWY_TARGET_INCLUDE
//   #define HWY_TARGET_INCLUDE "core/cpu/norm.cpp"
//   #include "hwy/foreach_target.h"
//   #include "core/cpu/simd.h"
//
//   HWY_BEFORE_NAMESPACE();
//   namespace mixtape::HWY_NAMESPACE { void norm(const Norm& a) { ... } }
//   HWY_AFTER_NAMESPACE();
//
//   #if HWY_ONCE
//   namespace mixtape {
//   HWY_EXPORT(norm);
//   void CpuNorm::norm(const Norm& a) { HWY_DYNAMIC_DISPATCH(norm)(a); }
//   }
//   #endif
//
// The compiler's flags stay those of the least CPU: code of a newer instruction set exists inside its target only. Mark
// lambdas inside a target with HWY_ATTR: `[&](...) HWY_ATTR { ... }`.
#pragma once

// Off are the sets between the fallback and AVX2, and variants of AVX-512 whose additions no kernel uses (bits 4 and 6
// are those of later Highway versions).
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | (1LL << 4) | (1LL << 6))
