#include "train/report/units.h"

#include <gtest/gtest.h>

#include <cmath>

namespace mixtape {
namespace {

TEST(Units, Thousands) {
  EXPECT_EQ(with_thousands(0), "0");
  EXPECT_EQ(with_thousands(999), "999");
  EXPECT_EQ(with_thousands(1000), "1,000");
  EXPECT_EQ(with_thousands(-123456), "-123,456");
  EXPECT_EQ(with_thousands(INT64_MIN), "-9,223,372,036,854,775,808");
}

TEST(Units, Nouns) {
  EXPECT_EQ(counted(1, "document"), "1 document");
  EXPECT_EQ(counted(0, "document"), "0 documents");
  EXPECT_EQ(counted(12345, "document"), "12,345 documents");
}

TEST(Units, CountsHaveThreeDigitsAndNeverShowAThousandOfAUnit) {
  EXPECT_EQ(human_count(0), "0");
  EXPECT_EQ(human_count(999), "999");
  EXPECT_EQ(human_count(999.9), "1.00k");
  EXPECT_EQ(human_count(1234), "1.23k");
  EXPECT_EQ(human_count(99990), "100k");
  EXPECT_EQ(human_count(999999), "1.00M");
  EXPECT_EQ(human_count(1.4e12), "1.40T");
  EXPECT_EQ(human_count(NAN), "nan");
}

TEST(Units, Bytes) {
  EXPECT_EQ(human_bytes(512), "512 B");
  EXPECT_EQ(human_bytes(1024), "1.00 KiB");
  EXPECT_EQ(human_bytes(1.21 * (1 << 30)), "1.21 GiB");
}

TEST(Units, Durations) {
  EXPECT_EQ(human_duration(0.42), "0.42 s");
  EXPECT_EQ(human_duration(59.7), "1m 00s");
  EXPECT_EQ(human_duration(192), "3m 12s");
  EXPECT_EQ(human_duration(2 * 3600 + 5 * 60), "2h 05m");
  EXPECT_EQ(human_duration(4 * 86400 + 3 * 3600), "4d 03h");
  EXPECT_EQ(human_duration(-1), "-");
  EXPECT_EQ(human_duration(INFINITY), "-");
}

TEST(Units, SharesAndRates) {
  EXPECT_EQ(human_percent(0.003), "0.3 %");
  EXPECT_EQ(human_percent(0.41), "41 %");
  EXPECT_EQ(human_rate(12345.4), "12,345");
  EXPECT_EQ(human_rate(1234567), "1.23M");
  EXPECT_EQ(human_loss(-INFINITY), "-inf");
}

}  // namespace
}  // namespace mixtape
