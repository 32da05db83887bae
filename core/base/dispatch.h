// From a run-time element type to a compile-time one, once, in a launcher:
//
//   dispatch<float, fp16, bf16>(a.x.dtype(), "rms_norm", [&]<class T>() { ... });
//
// The list is the documentation of what the kernel takes, the error message and the number of instantiations.
#pragma once

#include "core/base/dtype.h"

namespace mixtape {

template <class... Types, class Body>
void dispatch(DType type, std::string_view op, Body&& body) {
  const bool found = ((type == dtype_of<Types> ? (body.template operator()<Types>(), true) : false) || ...);
  if (found) return;
  std::string list;
  ((list += (list.empty() ? "" : ", ") + std::string(name_of(dtype_of<Types>))), ...);
  throw Error("{}: no kernel for {}; it takes {}", op, type, list);
}

}  // namespace mixtape
