#include "train/report/number_formats.h"

#include <gtest/gtest.h>

#include <cmath>

namespace mixtape {
namespace {

NumberInFormat in(const std::string& format, double x, double amax = 4) {
  for (const NumberInFormat& n : in_all_formats(x, amax))
    if (n.format == format) return n;
  throw std::runtime_error(format);
}

// The bits as IEEE 754, the OCP's 8-bit formats and NVIDIA's tf32 lay them out, by hand.
TEST(NumberFormats, PiBitByBit) {
  EXPECT_EQ(in("fp32", 3.14159265358979).bits, "0 10000000 10010010000111111011011");
  EXPECT_EQ(in("tf32", 3.14159265358979).bits, "0 10000000 1001001000");
  EXPECT_EQ(in("fp16", 3.14159265358979).bits, "0 10000 1001001000");
  EXPECT_EQ(in("bf16", 3.14159265358979).bits, "0 10000000 1001001");
  EXPECT_EQ(in("e4m3", 3.14159265358979).bits, "0 1000 101");
  EXPECT_EQ(in("e5m2", 3.14159265358979).bits, "0 10000 10");
  EXPECT_EQ(in("e4m3", 3.14159265358979).value, 3.25);
  EXPECT_EQ(in("e5m2", 3.14159265358979).value, 3);
}

TEST(NumberFormats, SpacingIsTheDistanceToTheNextNumber) {
  EXPECT_EQ(in("fp32", 1).spacing, 0x1p-23);
  EXPECT_EQ(in("tf32", 1).spacing, 0x1p-10);
  EXPECT_EQ(in("fp16", 2048).spacing, 2);
  EXPECT_EQ(in("bf16", 256).spacing, 2);
  EXPECT_EQ(in("e4m3", 448).spacing, 32);
  EXPECT_EQ(in("e5m2", 0).spacing, 0x1p-16);  // subnormal
  EXPECT_EQ(in("fp16", 1e-7).spacing, 0x1p-24);
  EXPECT_EQ(in("fp16", 1e6).spacing, 0);  // infinite
}

TEST(NumberFormats, Ranges) {
  const struct {
    const char* format;
    double least, least_normal, largest;
  } want[] = {{"fp32", 0x1p-149, 0x1p-126, 3.4028234663852886e38},
              {"tf32", 0x1p-136, 0x1p-126, 0x1.ffcp127},
              {"fp16", 0x1p-24, 0x1p-14, 65504},
              {"bf16", 0x1p-133, 0x1p-126, 0x1.fep127},
              {"e4m3", 0x1p-9, 0x1p-6, 448},
              {"e5m2", 0x1p-16, 0x1p-14, 57344}};
  for (const auto& w : want) {
    const NumberInFormat n = in(w.format, 1);
    EXPECT_EQ(n.least, w.least) << w.format;
    EXPECT_EQ(n.least_normal, w.least_normal) << w.format;
    EXPECT_EQ(n.largest, w.largest) << w.format;
  }
}

TEST(NumberFormats, Int8IsACodeTimesAScale) {
  EXPECT_EQ(in("int8", -2, 2.54).bits, "10011100");  // -100, in two's complement
  EXPECT_DOUBLE_EQ(in("int8", -2, 2.54).value, -2);
  EXPECT_DOUBLE_EQ(in("int8", 99, 2.54).value, 2.54);  // clamped
  EXPECT_EQ(in("int8", 0, 0).value, 0);
}

TEST(NumberFormats, WhatOverflowsAndWhatIsNoNumber) {
  EXPECT_TRUE(std::isinf(in("fp16", 1e5).value));
  EXPECT_TRUE(std::isnan(in("e4m3", 1e5).value));  // it has no infinity
  for (const char* format : {"fp32", "tf32", "fp16", "bf16", "e4m3", "e5m2"})
    EXPECT_TRUE(std::isnan(in(format, NAN).value)) << format;
}

}  // namespace
}  // namespace mixtape
