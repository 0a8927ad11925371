// SPDX-License-Identifier: Apache-2.0
#include "process/parse.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

#include "process/parse_fuzz.h"

namespace aw::process {
namespace {

using namespace std::string_literals;
using testing::HasSubstr;

/// A line of /proc/PID/stat around what a test is about.
struct StatLine {
  std::string pid = "1234";
  std::string comm = "python3";
  std::string state = "S";
  std::string parent = "1200";
  std::string group = "1230";
  std::string session = "1100";
  std::string flags = "4194304";
  std::string start = "987654";
  std::string rest = "250000000 12000 18446744073709551615 1 2 3 0 0 0 0 16781312 2 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0";
  std::string exit_code = " 0";

  std::string text() const {
    return pid + " (" + comm + ") " + state + " " + parent + " " + group + " " + session + " 34816 1300 " + flags +
           " 5000 0 3 0 100 20 0 0 20 0 4 0 " + start + " " + rest + exit_code + "\n";
  }
};

TEST(ParseStat, ReadsWhatTheRulesNeed) {
  const auto stat = parse_stat(StatLine{}.text());

  EXPECT_EQ(stat->pid, 1234);
  EXPECT_EQ(stat->comm, "python3");
  EXPECT_EQ(stat->state, 'S');
  EXPECT_EQ(stat->parent, 1200);
  EXPECT_EQ(stat->process_group, 1230);
  EXPECT_EQ(stat->session, 1100);
  EXPECT_EQ(stat->start_time, 987654U);
  EXPECT_FALSE(stat->kernel_thread);
  EXPECT_EQ(stat->exit_status, 0);
}

TEST(ParseStat, TakesTheCommandAsItIs) {
  for (const char* comm :
       {"", " ", "a b", ")", "(", "((", "a) R 1 (b)", ") Z 1 1 1", "x\ny", "\n", "\xff\xfe", "(sd-pam)"}) {
    StatLine line;
    line.comm = comm;

    const auto stat = parse_stat(line.text());

    ASSERT_TRUE(stat) << comm << ": " << stat.error().message;
    EXPECT_EQ(stat->comm, comm);
    EXPECT_EQ(stat->parent, 1200) << comm;
  }
}

TEST(ParseStat, KnowsAKernelThreadByItsFlag) {
  StatLine line;
  line.flags = "2129984";

  EXPECT_TRUE(parse_stat(line.text())->kernel_thread);
}

TEST(ParseStat, ReadsTheExitStatusOfAZombieOnly) {
  StatLine line;
  line.exit_code = " 2304";
  EXPECT_EQ(parse_stat(line.text())->exit_status, 0);

  line.state = "Z";
  EXPECT_EQ(parse_stat(line.text())->exit_status, 9 << 8);
  line.exit_code = " 15";
  EXPECT_EQ(parse_stat(line.text())->exit_status, 15);
}

TEST(ParseStat, DoesWithoutTheFieldsAfterTheStartTime) {
  StatLine line;
  line.state = "Z";
  line.exit_code = "";
  EXPECT_EQ(parse_stat(line.text())->exit_status, 0);
  EXPECT_EQ(parse_stat("7 (x) S 1 7 7 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 55")->start_time, 55U);
}

TEST(ParseStat, PassesOverFieldsOfALaterKernel) {
  StatLine line;
  line.state = "Z";
  line.exit_code = " 256 77 x y";

  EXPECT_EQ(parse_stat(line.text())->exit_status, 256);
}

TEST(ParseStat, ReadsAProcessThatIsBeingReleased) {
  StatLine line;
  line.state = "X";
  line.parent = "0";
  line.group = "-1";
  line.session = "-1";

  EXPECT_EQ(parse_stat(line.text())->session, -1);
}

TEST(ParseStat, RefusesATextThatEndsBeforeTheStartTime) {
  const std::string text = "1234 (x) S 1 7 7 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 55";
  for (std::size_t size = 0; size + 3 < text.size(); ++size) EXPECT_FALSE(parse_stat(text.substr(0, size))) << size;
}

TEST(ParseStat, RefusesATextWithoutACommand) {
  for (const char* text : {"", "\n", "1234", "1234 S 1 1 1", "1 ) (", "(x) S 1", "1 (", "1 () ", "1 (x)"}) {
    EXPECT_FALSE(parse_stat(text)) << text;
  }
}

TEST(ParseStat, RefusesFieldsThatAreNotNumbersOrTooLarge) {
  const std::vector<std::pair<std::string StatLine::*, std::string>> bad{{&StatLine::pid, "x"},
                                                                         {&StatLine::pid, "0"},
                                                                         {&StatLine::pid, "-1"},
                                                                         {&StatLine::pid, "2147483648"},
                                                                         {&StatLine::state, "SS"},
                                                                         {&StatLine::state, ""},
                                                                         {&StatLine::parent, "x"},
                                                                         {&StatLine::parent, "-1"},
                                                                         {&StatLine::parent, "99999999999"},
                                                                         {&StatLine::group, ""},
                                                                         {&StatLine::session, "1.5"},
                                                                         {&StatLine::flags, "-1"},
                                                                         {&StatLine::start, "x"},
                                                                         {&StatLine::start, "18446744073709551616"}};
  for (const auto& [field, text] : bad) {
    StatLine line;
    line.*field = text;
    EXPECT_FALSE(parse_stat(line.text())) << line.text();
  }
}

TEST(ParseStat, RefusesAnExitStatusThatIsNotANumber) {
  StatLine line;
  line.state = "Z";
  line.exit_code = " nine";

  EXPECT_THAT(parse_stat(line.text()).error().message, HasSubstr("field 52"));
}

TEST(ParseStat, ReadsThisVeryProcess) {
  std::ifstream file("/proc/self/stat");
  const auto stat = parse_stat(std::string(std::istreambuf_iterator<char>(file), {}));

  EXPECT_EQ(stat->pid, getpid());
  EXPECT_EQ(stat->parent, getppid());
  EXPECT_EQ(stat->session, getsid(0));
}

TEST(AReadableCommandLine, HasSpacesBetweenItsArguments) {
  EXPECT_EQ(readable_cmdline("python3\0-c\0print(1)\0"s, 100), "python3 -c print(1)");
  EXPECT_EQ(readable_cmdline("a\0\0b\0"s, 100), "a  b");
  EXPECT_EQ(readable_cmdline("no end", 100), "no end");
}

TEST(AReadableCommandLine, IsEmptyForAKernelThreadAndAZombie) {
  EXPECT_EQ(readable_cmdline("", 100), "");
  EXPECT_EQ(readable_cmdline("\0\0\0"s, 100), "");
}

TEST(AReadableCommandLine, EndsWithItsLastArgumentHoweverManyNulsFollow) {
  EXPECT_EQ(readable_cmdline("nginx: worker\0\0\0\0\0"s, 100), "nginx: worker");
}

TEST(AReadableCommandLine, ShowsNoControlCharacters) {
  EXPECT_EQ(readable_cmdline("a\nb\tc\x1b[31m\x7f\xc2\x85|", 100), "a b c [31m  |");
}

TEST(AReadableCommandLine, KeepsWhatIsUtf8) {
  EXPECT_EQ(readable_cmdline("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80", 100),
            "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80");
}

TEST(AReadableCommandLine, ReplacesEachByteThatIsNotUtf8) {
  const std::string_view replaced = "\xEF\xBF\xBD";
  const auto times = [&](int count) {
    std::string all;
    for (int i = 0; i < count; ++i) all += replaced;
    return all;
  };
  EXPECT_EQ(readable_cmdline("\xff|", 100), times(1) + "|");
  EXPECT_EQ(readable_cmdline("\xc0\xaf", 100), times(2));          // overlong
  EXPECT_EQ(readable_cmdline("\xe0\x80\xaf", 100), times(3));      // overlong
  EXPECT_EQ(readable_cmdline("\xed\xa0\x80", 100), times(3));      // a surrogate
  EXPECT_EQ(readable_cmdline("\xf4\x90\x80\x80", 100), times(4));  // above U+10FFFF
  EXPECT_EQ(readable_cmdline("\xf0\x9f\x98", 100), times(3));      // cut off
  EXPECT_EQ(readable_cmdline("\x80", 100), times(1));
}

TEST(AReadableCommandLine, ReplacesEachNoncharacterForTheBusTakesNone) {
  const std::string replaced = "\xEF\xBF\xBD";
  for (const char* text :
       {"\xef\xb7\x90", "\xef\xb7\xaf", "\xef\xbf\xbe", "\xef\xbf\xbf", "\xf0\x9f\xbf\xbe", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_EQ(readable_cmdline(std::string("a") + text + "b", 100), "a" + replaced + "b");
  }
  EXPECT_EQ(readable_cmdline("\xef\xb7\x8f\xef\xb7\xb0", 100), "\xef\xb7\x8f\xef\xb7\xb0");  // Beside them.
}

TEST(AReadableCommandLine, IsCutBetweenCharacters) {
  EXPECT_EQ(readable_cmdline("abcdef", 6), "abcdef");
  EXPECT_EQ(readable_cmdline("abcdef", 5), "ab\xE2\x80\xA6");
  EXPECT_EQ(readable_cmdline("abcdef", 3), "\xE2\x80\xA6");
  EXPECT_EQ(readable_cmdline("ab\xc3\xbc", 4), "ab\xc3\xbc");
  EXPECT_EQ(readable_cmdline("ab\xc3\xbc|", 4), "a\xE2\x80\xA6");
  EXPECT_EQ(readable_cmdline("a\xc3\xbc|||", 5), "a\xE2\x80\xA6");
  EXPECT_EQ(readable_cmdline("ab\xff", 4), "a\xE2\x80\xA6");
  EXPECT_EQ(readable_cmdline("abc", 2), "");  // No room for the mark.
  EXPECT_EQ(readable_cmdline("abc", 0), "");
}

TEST(AReadableCommandLine, StopsAtItsLimitInAHugeText) {
  EXPECT_EQ(readable_cmdline(std::string(10'000'000, 'x'), 200), std::string(197, 'x') + "\xE2\x80\xA6");
}

TEST(TheFuzzersCorpus, BreaksNoPromise) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(AW_SOURCE_DIR "/src/process/corpus/parse")) {
    std::ifstream file(entry.path(), std::ios::binary);
    SCOPED_TRACE(entry.path());
    fuzz_parse(std::string(std::istreambuf_iterator<char>(file), {}));
    ++files;
  }
  EXPECT_GT(files, 20);
}

TEST(ParseProcCgroup, ReadsTheUnifiedEntry) {
  EXPECT_EQ(parse_proc_cgroup("0::/analysis.slice/a\\x20b.scope\n").value(), "/analysis.slice/a\\x20b.scope");
  EXPECT_EQ(parse_proc_cgroup("0::/\n").value(), "/");
  EXPECT_EQ(parse_proc_cgroup("0::/../outside").value(), "/../outside");
}

TEST(ParseProcCgroup, TakesOffTheMarkOfARemovedCgroup) {
  EXPECT_EQ(parse_proc_cgroup("0::/a/b.scope (deleted)\n").value(), "/a/b.scope");
}

TEST(ParseProcCgroup, PassesOverEntriesOfVersionOne) {
  EXPECT_EQ(parse_proc_cgroup("10::/no\n1:net_cls:/mullvad\n0::/user.slice\n").value(), "/user.slice");
}

TEST(ParseProcCgroup, RefusesATextWithoutAPath) {
  for (const char* text : {"", "\n", "4:memory:/a\n1:name=systemd:/b\n", "0::\n", "0:: (deleted)\n", "0::a\n"}) {
    EXPECT_FALSE(parse_proc_cgroup(text)) << text;
  }
}

TEST(AField, IsTheRestOfTheLineThatBeginsWithItsName) {
  const std::string status = "Name:\tTgid:\t1\nUmask:\t0022\nTgid:\t77\nNgid:\t0";
  EXPECT_EQ(find_field(status, "Tgid"), "77");
  EXPECT_EQ(find_field(status, "Ngid"), "0");
  EXPECT_EQ(find_field(status, "gid"), std::nullopt);
  EXPECT_EQ(find_field(status, "Name"), std::nullopt);
  EXPECT_EQ(find_field("\nTgid:\n77\n", "Tgid"), "");
}

TEST(ParseSoleUid, TakesTheOneThatAllFourAre) {
  EXPECT_EQ(parse_sole_uid("Name:\tjob\nUid:\t1000\t1000\t1000\t1000\nGid:\t1\t1\t1\t1\n"), 1000U);
  EXPECT_EQ(parse_sole_uid("Name:\tjob\nUid:\t0\t0\t0\t0\n"), 0U);
  EXPECT_EQ(parse_sole_uid("Name:\tjob\nUid:\t4294967294\t4294967294\t4294967294\t4294967294\n"), 4294967294U);
}

TEST(ParseSoleUid, TakesNoneOfASetUidProgram) {
  for (const char* uids : {"1000\t0\t0\t0", "1000\t1000\t0\t1000", "0\t1000\t1000\t1000", "1000\t1000\t1000\t0"}) {
    EXPECT_EQ(parse_sole_uid("Name:\tsu\nUid:\t" + std::string(uids) + "\nGid:\t1\t1\t1\t1\n"), std::nullopt) << uids;
  }
}

TEST(ParseSoleUid, RefusesWhatIsNoListOfFour) {
  for (const char* text :
       {"", "Name:\tx\n", "Name:\tx\nUid:\t1000", "Name:\tx\nUid:\t1\t1\t1\n", "Name:\tx\nUid:\t1\t1\t1\t1\t1\n",
        "Name:\tx\nUid:\t1\tnobody\t1\t1\n", "Name:\tx\nUid:\t-1\t-1\t-1\t-1\n", "Name:\tx\nUid:\t1\t1\n1\t1\n",
        "Name:\tx\nUid:\t4294967295\t4294967295\t4294967295\t4294967295\n"}) {
    EXPECT_EQ(parse_sole_uid(text), std::nullopt) << text;
  }
}

TEST(AShareOfMemory, IsTheAnonymousPart) {
  const std::string rollup =
      "55d0c0a00000-7ffd2f9fe000 ---p 00000000 00:00 0 [rollup]\nRss:                1804 kB\nPss:                 413 "
      "kB\n"
      "Pss_Anon:            120 kB\nPss_File:            293 kB\n";
  EXPECT_EQ(parse_anonymous_share(rollup), Bytes(120 * 1024));
  for (const char* bad : {"", "Pss_Anon: 1 kB\n", "\nPss_Anon:", "\nPss_Anon:   ", "\nPss_Anon: x kB\n",
                          "\nPss_Anon: -1 kB\n", "\nPss_Anon: 18446744073709551615 kB\n"}) {
    EXPECT_EQ(parse_anonymous_share(bad), std::nullopt) << bad;
  }
}

}  // namespace
}  // namespace aw::process
