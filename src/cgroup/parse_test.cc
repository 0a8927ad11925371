// SPDX-License-Identifier: Apache-2.0
#include "cgroup/parse.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "cgroup/parse_fuzz.h"

namespace aw::cgroup {
namespace {

using supervise::MemoryEvents;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kOneTooMany = "18446744073709551616";

TEST(ParseMemoryEvents, ReadsEveryCounter) {
  const auto events = parse_memory_events("low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n");

  EXPECT_EQ(events.value(), (MemoryEvents{1, 2, 3, 4, 5, 6}));
}

TEST(ParseMemoryEvents, PassesOverKeysItDoesNotKnowWhereverTheyAre) {
  const auto events = parse_memory_events("low 0\nnew_one x\nhigh 7\noom_kill 5\nsock_throttled 3 4\noom_kills 9\n");

  EXPECT_EQ(events.value(), (MemoryEvents{0, 7, 0, 0, 5, 0}));
}

TEST(ParseMemoryEvents, LeavesACounterAtZeroThatAnOlderKernelDoesNotHave) {
  EXPECT_EQ(parse_memory_events("low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n").value(), MemoryEvents{});
}

TEST(ParseMemoryEvents, RefusesATextWithoutOomKill) {
  EXPECT_THAT(parse_memory_events("low 0\nhigh 0\nmax 0\noom 0\n").error().message, HasSubstr("oom_kill"));
}

TEST(ParseMemoryEvents, RefusesAnEmptyText) {
  EXPECT_FALSE(parse_memory_events(""));
  EXPECT_FALSE(parse_memory_events("\n"));
}

TEST(ParseMemoryEvents, RefusesACounterThatIsNotANumber) {
  for (const char* text : {"oom_kill many\n", "oom_kill -1\n", "oom_kill +1\n", "oom_kill 1 \n", "oom_kill  1\n",
                           "oom_kill 0x1\n", "oom_kill \n", "oom_kill\n", "oom_kill 1.0\n", "oom_kill 1\r\n"}) {
    EXPECT_THAT(parse_memory_events(text).error().message, HasSubstr("oom_kill")) << text;
  }
}

TEST(ParseMemoryEvents, ReadsTheLargestNumberAndRefusesALargerOne) {
  EXPECT_EQ(parse_memory_events("oom_kill 18446744073709551615\n").value().oom_kill, UINT64_MAX);
  EXPECT_FALSE(parse_memory_events(std::string("oom_kill ") + kOneTooMany + "\n"));
}

TEST(ParseMemoryEvents, ReadsALastLineWithoutItsNewline) {
  EXPECT_EQ(parse_memory_events("oom_kill 3").value().oom_kill, 3U);
}

TEST(ParseMemoryEvents, KeepsItsErrorShortHoweverLongTheTextIs) {
  const std::string text = "oom_kill " + std::string(1'000'000, 'x') + "\n";

  EXPECT_LT(parse_memory_events(text).error().message.size(), 100U);
}

TEST(ParseMemoryStat, ReadsTheKeysOfTheVerdict) {
  const auto stat = parse_memory_stat(
      "anon 1\nfile 2\nkernel 3\nkernel_stack 100\nsock 4\nvmalloc 100\nshmem 5\nshmem_thp 100\nslab_reclaimable 6\n"
      "slab 100\nworkingset_refault_anon 7\nworkingset_refault_file 8\nworkingset_restore_file 100\n");

  EXPECT_EQ(stat->anon, Bytes(1));
  EXPECT_EQ(stat->file, Bytes(2));
  EXPECT_EQ(stat->kernel, Bytes(3));
  EXPECT_EQ(stat->sock, Bytes(4));
  EXPECT_EQ(stat->shmem, Bytes(5));
  EXPECT_EQ(stat->slab_reclaimable, Bytes(6));
  EXPECT_EQ(stat->workingset_refault_anon, 7U);
  EXPECT_EQ(stat->workingset_refault_file, 8U);
}

TEST(ParseMemoryStat, AddsUpThePartsOfKernelMemoryWhereTheKernelDoesNot) {
  const auto stat = parse_memory_stat(
      "anon 1\nkernel_stack 10\npagetables 200\nsec_pagetables 3000\npercpu 40000\nvmalloc 500000\nslab_reclaimable "
      "6000000\nslab_unreclaimable 70000000\nslab 76000000\n");

  EXPECT_EQ(stat->kernel, Bytes(76'543'210));
}

TEST(ParseMemoryStat, TakesAKernelMemoryOfZeroAsItIs) {
  EXPECT_EQ(parse_memory_stat("anon 1\nkernel 0\nkernel_stack 10\n")->kernel, Bytes(0));
}

TEST(ParseMemoryStat, RefusesATextWithoutAnon) {
  EXPECT_THAT(parse_memory_stat("file 1\nanon_thp 1\n").error().message, HasSubstr("anon"));
  EXPECT_FALSE(parse_memory_stat(""));
}

TEST(ParseMemoryStat, RefusesAKnownKeyThatIsNotANumberAndPassesOverAnUnknownOne) {
  EXPECT_THAT(parse_memory_stat("anon 1\nsock x\n").error().message, HasSubstr("sock"));
  EXPECT_TRUE(parse_memory_stat("anon 1\nsockets x\n"));
}

TEST(ParseMemoryStat, RefusesAnOverflowAndDoesNotWrapASum) {
  EXPECT_FALSE(parse_memory_stat(std::string("anon ") + kOneTooMany + "\n"));
  EXPECT_TRUE(parse_memory_stat("anon 1\nkernel_stack 18446744073709551615\npercpu 2\n")->kernel.is_infinite());
}

TEST(ParseMemoryPressure, ReadsTheTotalsOfItsLines) {
  const auto pressure = parse_memory_pressure(
      "some avg10=1.00 avg60=0.00 avg300=0.00 total=123\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=456\n");

  EXPECT_EQ(pressure->full_total, Span(456));
  EXPECT_EQ(pressure->some_total, Span(123));
}

TEST(ParseMemoryPressure, FindsTheTotalAmongFieldsItDoesNotKnow) {
  EXPECT_EQ(parse_memory_pressure("full avg10=0.50 subtotal=7 total=456 more=1\n")->full_total, Span(456));
}

TEST(ParseMemoryPressure, RefusesATextWithoutItsLineOrField) {
  EXPECT_FALSE(parse_memory_pressure(""));
  EXPECT_FALSE(parse_memory_pressure("some avg10=1.00 avg60=0.00 avg300=0.00 total=123\n"));
  EXPECT_FALSE(parse_memory_pressure("full avg10=0.50\n"));
  EXPECT_FALSE(parse_memory_pressure("fuller total=1\n"));
  EXPECT_FALSE(parse_memory_pressure("some avg10=0.50\nfull total=1\n"));
}

TEST(ParseMemoryPressure, RefusesATotalThatIsNotANumberOrTooLargeForASpan) {
  for (const char* total : {"x", "", "-1", "9223372036854775808", kOneTooMany}) {
    EXPECT_FALSE(parse_memory_pressure(std::string("full avg10=0 total=") + total + "\n")) << total;
  }
  EXPECT_EQ(parse_memory_pressure("full avg10=0 total=9223372036854775807\n")->full_total, Span::max());
}

TEST(ParsePopulated, ReadsBothValues) {
  EXPECT_TRUE(parse_populated("populated 1\nfrozen 0\n").value());
  EXPECT_FALSE(parse_populated("populated 0\nfrozen 1\n").value());
  EXPECT_TRUE(parse_populated("new 3\nfrozen 0\npopulated 1\n").value());
}

TEST(ParsePopulated, RefusesEverythingElse) {
  for (const char* text : {"", "frozen 0\n", "populated 2\n", "populated yes\n", "populated\n", "populated 1 1\n",
                           "populated 18446744073709551617\n"}) {
    EXPECT_FALSE(parse_populated(text)) << text;
  }
}

class ParseProcs : public testing::Test {
 protected:
  std::vector<pid_t> pids{7};
};

TEST_F(ParseProcs, AppendsThePids) {
  EXPECT_TRUE(parse_procs("12\n4194304\n3\n", pids));
  EXPECT_THAT(pids, ElementsAre(7, 12, 4194304, 3));
}

TEST_F(ParseProcs, FindsNobodyInAnEmptyCgroup) {
  EXPECT_TRUE(parse_procs("", pids));
  EXPECT_THAT(pids, ElementsAre(7));
}

TEST_F(ParseProcs, LeavesOutAProcessOfAForeignPidNamespace) {
  EXPECT_TRUE(parse_procs("0\n12\n0\n", pids));
  EXPECT_THAT(pids, ElementsAre(7, 12));
}

TEST_F(ParseProcs, RefusesWhatIsNotAPidAndAppendsNothingThen) {
  for (const char* text : {"12\nx\n", "12\n-3\n", "12\n\n", "12 13\n", "12\n2147483648\n", "12\n13threaded\n"}) {
    EXPECT_FALSE(parse_procs(text, pids)) << text;
    EXPECT_THAT(pids, ElementsAre(7)) << text;
  }
}

TEST(ParseCpuUsage, ReadsTheUsage) {
  EXPECT_EQ(parse_cpu_usage("usage_usec 288943\nuser_usec 1\nsystem_usec 2\n").value(), Span(288943));
  EXPECT_EQ(parse_cpu_usage("nice_usec 5\nusage_usec 0\n").value(), Span(0));
}

TEST(ParseCpuUsage, RefusesEverythingElse) {
  for (const char* text : {"", "user_usec 1\n", "usage_usec x\n", "usage_usec -1\n", "usage_usec 9223372036854775808\n",
                           "usage_usec 18446744073709551616\n"}) {
    EXPECT_FALSE(parse_cpu_usage(text)) << text;
  }
}

TEST(ParseLimit, ReadsANumberOrMax) {
  EXPECT_EQ(parse_limit("134217728\n").value(), 134217728U);
  EXPECT_EQ(parse_limit("0\n").value(), 0U);
  EXPECT_EQ(parse_limit("17").value(), 17U);
  EXPECT_EQ(parse_limit("max\n").value(), UINT64_MAX);
  EXPECT_EQ(parse_limit("max").value(), UINT64_MAX);
}

TEST(ParseLimit, RefusesEverythingElse) {
  for (const char* text : {"", "\n", "maximum\n", "max\n\n", "-1\n", "1K\n", "1 2\n", "18446744073709551616\n"}) {
    EXPECT_FALSE(parse_limit(text)) << text;
  }
}

TEST(ParseQuota, IsCpuTimePerSecond) {
  EXPECT_EQ(parse_quota("50000 100000\n").value(), std::chrono::milliseconds{500});
  EXPECT_EQ(parse_quota("1000 1000000\n").value(), std::chrono::milliseconds{1});
  EXPECT_EQ(parse_quota("1600000 100000").value(), std::chrono::seconds{16});
  EXPECT_EQ(parse_quota("max 100000\n").value(), kForever);
}

TEST(ParseQuota, RefusesEverythingElse) {
  for (const char* text : {"", "\n", "max\n", "50000\n", "50000 \n", "50000 0\n", "50000 max\n", "x 100000\n",
                           "-1 100000\n", "1 2 3\n", "18446744073709551614 100000\n", "50000 18446744073709551615\n"}) {
    EXPECT_FALSE(parse_quota(text)) << text;
  }
}

TEST(TheFuzzersCorpus, BreaksNoPromise) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(AW_SOURCE_DIR "/src/cgroup/corpus/parse")) {
    std::ifstream file(entry.path(), std::ios::binary);
    SCOPED_TRACE(entry.path());
    fuzz_parse(std::string(std::istreambuf_iterator<char>(file), {}));
    ++files;
  }
  EXPECT_GT(files, 20);
}

}  // namespace
}  // namespace aw::cgroup
