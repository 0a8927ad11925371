// SPDX-License-Identifier: Apache-2.0
#include "cli/run_options.h"

#include <gmock/gmock.h>

#include <sstream>

#include "base/version.h"

namespace aw::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class ACommandLine : public ::testing::Test {
 protected:
  LaunchOptions parse(std::vector<const char*> words) {
    auto parsed = run(std::move(words));
    EXPECT_TRUE(std::holds_alternative<LaunchOptions>(parsed)) << err.str();
    return std::holds_alternative<LaunchOptions>(parsed) ? std::get<LaunchOptions>(parsed) : LaunchOptions{};
  }
  /// What it says, where it is refused; each refusal is a 125 and one line.
  std::string refusal(std::vector<const char*> words) {
    const auto parsed = run(std::move(words));
    const int* status = std::get_if<int>(&parsed);
    EXPECT_EQ(status == nullptr ? 0 : *status, kExitOwnFailure);
    return err.str();
  }
  std::variant<LaunchOptions, int> run(std::vector<const char*> words) {
    out.str("");
    err.str("");
    words.insert(words.begin(), "analysis-run");
    return parse_run_options(static_cast<int>(words.size()), words.data(), out, err);
  }
  std::ostringstream out;
  std::ostringstream err;
};

TEST_F(ACommandLine, LeavesTheCommandUntouched) {
  EXPECT_THAT(parse({"--quiet", "make", "--id=x", "-j8", "--", "--help"}).command,
              ElementsAre("make", "--id=x", "-j8", "--", "--help"));
  EXPECT_THAT(parse({"--", "--help", "-q"}).command, ElementsAre("--help", "-q"));
  EXPECT_THAT(parse({"-q", "-", "x"}).command, ElementsAre("-", "x"));
}

TEST_F(ACommandLine, TakesValuesBehindAnEqualsSignOrAsTheNextWord) {
  const LaunchOptions options = parse({"--id", "a b", "--memory=1G", "--label", "k=v", "--label=l=w", "sleep", "1"});

  EXPECT_EQ(options.id, "a b");
  EXPECT_EQ(options.limits, (bus::Dict{{"MemoryLimit", {std::uint64_t{1} << 30U}},
                                       {"Labels", {bus::StringMap{{"k", "v"}, {"l", "w"}}}}}));
  EXPECT_THAT(options.command, ElementsAre("sleep", "1"));
}

TEST_F(ACommandLine, TakesAValueThatLooksLikeAnOption) {
  EXPECT_EQ(parse({"--id", "-x", "true"}).id, "-x");
  EXPECT_EQ(parse({"--id=--", "true"}).id, "--");
}

TEST_F(ACommandLine, LeavesToTheDaemonWhatWasNotTyped) {
  const LaunchOptions options = parse({"/usr/bin/true"});

  EXPECT_THAT(options.limits, IsEmpty());
  EXPECT_TRUE(options.id.starts_with("true-"));
  EXPECT_EQ(options.bus, bus::BusKind::kSystem);
  EXPECT_FALSE(options.report);
}

TEST_F(ACommandLine, TakesABareReportForOneOnStderr) {
  const LaunchOptions options = parse({"--report", "--json", "true"});

  EXPECT_TRUE(options.report);
  EXPECT_EQ(options.report_file, "");
  EXPECT_EQ(options.json, JsonStyle::kShort);
  EXPECT_THAT(options.command, ElementsAre("true"));
  EXPECT_EQ(parse({"--report=r.json", "--json=pretty", "true"}).report_file, "r.json");
  EXPECT_EQ(parse({"--json=pretty", "true"}).json, JsonStyle::kPretty);
}

TEST_F(ACommandLine, RefusesWhatItDoesNotKnow) {
  EXPECT_THAT(refusal({"--bogus", "true"}), HasSubstr("--bogus"));
  EXPECT_THAT(refusal({"-x", "true"}), HasSubstr("-x"));
  EXPECT_THAT(refusal({"--json=yaml", "true"}), HasSubstr("neither \"short\" nor \"pretty\""));
}

TEST_F(ACommandLine, RefusesBadValuesByTheOptionsName) {
  EXPECT_THAT(refusal({"--memory=12x", "true"}), HasSubstr("--memory: \"12x\""));
  EXPECT_THAT(refusal({"--wall-clock=soon", "true"}), HasSubstr("--wall-clock"));
  EXPECT_THAT(refusal({"--label=x", "true"}), HasSubstr("--label"));
  EXPECT_THAT(refusal({"--id=a\nb", "true"}), HasSubstr("--id"));
  EXPECT_THAT(refusal({"--id=", "true"}), HasSubstr("--id"));
  EXPECT_THAT(refusal({"--memory"}), HasSubstr("--memory"));
}

TEST_F(ACommandLine, RefusesWhatContradictsItself) {
  EXPECT_THAT(refusal({"--user", "--system", "true"}), HasSubstr("exclude each other"));
  EXPECT_THAT(refusal({"--detach", "--report", "true"}), HasSubstr("--report"));
  EXPECT_THAT(refusal({}), HasSubstr("no COMMAND"));
  EXPECT_THAT(refusal({"--id=x", "--"}), HasSubstr("no COMMAND"));
  EXPECT_THAT(refusal({""}), HasSubstr("no COMMAND"));
}

TEST_F(ACommandLine, ShowsItsHelpAndIsContent) {
  const auto parsed = run({"--help"});

  ASSERT_EQ(parsed.index(), 1U);
  EXPECT_EQ(std::get<int>(parsed), 0);
  EXPECT_THAT(out.str(), HasSubstr("analysis-run [OPTIONS] [--] COMMAND..."));
  EXPECT_EQ(err.str(), "");
}

TEST_F(ACommandLine, SaysItsVersionAndLeavesTheCommandsAlone) {
  const auto parsed = run({"--version"});

  ASSERT_EQ(parsed.index(), 1U);
  EXPECT_EQ(std::get<int>(parsed), 0);
  EXPECT_EQ(out.str(), std::string("analysis-run ") + kVersion + "\n");
  EXPECT_THAT(parse({"python3", "--version"}).command, ElementsAre("python3", "--version"));
}

}  // namespace
}  // namespace aw::cli
