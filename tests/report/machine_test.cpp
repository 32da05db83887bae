#include "train/report/machine.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>

namespace mixtape {
namespace {

const Finding* find(const std::vector<Finding>& findings, std::string_view name) {
  const auto found = std::find_if(findings.begin(), findings.end(), [&](const Finding& f) { return f.name == name; });
  return found == findings.end() ? nullptr : &*found;
}

TEST(Machine, NamesLibrariesAndWhatTheyChose) {
  const auto findings = examine_machine();
  for (const char* name : {"cores", "instruction sets", "main memory", "disk", "oneDNN", "OpenBLAS", "Highway", "ICU",
                           "SentencePiece", "zstd", "compiler", "cpu", "cuda"})
    ASSERT_TRUE(find(findings, name)) << name;
  EXPECT_NE(find(findings, "OpenBLAS")->value.find("kernels for"), std::string::npos);
  EXPECT_GE(available_cores(), 1);
}

TEST(Machine, AForcedOpenBlasCoreIsAWarning) {
  ::setenv("OPENBLAS_CORETYPE", "Haswell", 1);
  const auto findings = examine_machine();
  ::unsetenv("OPENBLAS_CORETYPE");
  EXPECT_FALSE(find(findings, "OpenBLAS")->ok());
  const auto after = examine_machine();
  EXPECT_EQ(find(after, "OpenBLAS")->advice.find("OPENBLAS_CORETYPE="), std::string::npos);
}

TEST(Machine, TextIsAlignedAndMarksWarnings) {
  EXPECT_EQ(
      findings_text({{"CPU", "model", "X", ""}, {"CPU", "a", "1", "do this"}, {"build", "type", "Debug", ""}}, false),
      "CPU\n  ok  model  X\n  !!  a      1\n             do this\n\nbuild\n  ok  type   Debug\n");
}

}  // namespace
}  // namespace mixtape
