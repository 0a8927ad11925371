// SPDX-License-Identifier: Apache-2.0
#include "config/settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <regex>
#include <sstream>
#include <tuple>

namespace aw::config {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using testing::AllOf;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using testing::StartsWith;

const fs::path kSource = AW_SOURCE_DIR;

using Outcome = std::variant<Settings, std::vector<Problem>>;

std::vector<std::string> problems(const Outcome& outcome) {
  std::vector<std::string> lines;
  if (const auto* list = std::get_if<std::vector<Problem>>(&outcome)) {
    for (const Problem& problem : *list) lines.push_back(to_string(problem));
  }
  return lines;
}

/// The settings, or the test's failure with what is wrong with them.
Settings settings_of(const Outcome& outcome) {
  EXPECT_THAT(problems(outcome), IsEmpty());
  const auto* settings = std::get_if<Settings>(&outcome);
  return settings ? *settings : Settings{};
}

Outcome parse(std::string text) { return parse_settings({{"a.conf", std::move(text)}}); }
Settings parsed(std::string text) { return settings_of(parse(std::move(text))); }
std::vector<std::string> complaints(std::string text) { return problems(parse(std::move(text))); }

/// Every field; a new one breaks the bindings until it is compared too.
auto fields(const Settings& settings) {
  const auto& [defaults, caps, orphans, stall, series, ledger, postgres, web] = settings;
  const auto& [memory, wall_clock, grace, tasks, per_user, memory_per_user, tasks_per_user, analyses] = caps;
  const auto& [interval, confirmation] = orphans;
  const auto& [pressure, time] = stall;
  const auto& [sampling, idle, points] = series;
  const auto& [path, retention, max_size] = ledger;
  const auto& [uri, schemas, passfile] = postgres;
  const auto& [listen, token_file, allowed_hosts, per_analysis, per_analysis_max] = web;
  return std::make_tuple(defaults, memory, wall_clock, grace, tasks, per_user, memory_per_user, tasks_per_user,
                         analyses, interval, confirmation, pressure, time, sampling, idle, points, path, retention,
                         max_size, uri, schemas, passfile, listen, token_file, allowed_hosts, per_analysis,
                         per_analysis_max);
}

bool is_default(const Settings& settings) { return fields(settings) == fields(Settings{}); }

std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(ConfigText, WithoutAWordMeansTheDefaults) {
  EXPECT_TRUE(is_default(parsed("")));
  EXPECT_TRUE(is_default(parsed("\n\n# only a comment\n; and another\n[Defaults]\n[Web]\n")));
  EXPECT_TRUE(is_default(settings_of(parse_settings({}))));
}

TEST(ConfigText, SetsEveryKey) {
  const Settings settings = parsed(R"([Defaults]
MemoryLimit=12G
MemoryHeadroom=100M
WallClockLimit=1h 30s
Grace=500ms
TasksMax=64
CPUQuota=150%
CPUWeight=10
OrphanPolicy=report
OwnerPolicy=ignore
[Caps]
MaxMemoryLimit=64G
MaxWallClockLimit=2d
MaxGrace=1min
MaxTasks=1000
MaxAnalysesPerUser=7
MaxMemoryPerUser=100G
MaxTasksPerUser=4000
MaxAnalyses=infinity
[Orphans]
Interval=10s
Confirmation=1s
[Memory]
StallPressure=55%
StallTime=infinity
[Series]
Interval=never
IdleInterval=5min
Points=100
[Ledger]
Path=/srv/watchdog/ledger.db
Retention=30d
MaxSize=256M
[PostgreSQL]
PostgresUri=postgresql://watchdog@db1,db2:5433/analyses?sslmode=verify-full
SearchPath=watchdog, public
PassFile=/etc/analysis-watchdog/pgpass
)");

  EXPECT_EQ(settings.defaults.memory, Bytes(12 * kGiB.count()));
  EXPECT_EQ(settings.defaults.headroom, Bytes(100 * kMiB.count()));
  EXPECT_EQ(settings.defaults.wall_clock, Span(1h + 30s));
  EXPECT_EQ(settings.defaults.grace, Span(500ms));
  EXPECT_EQ(settings.defaults.tasks_max, 64U);
  EXPECT_EQ(settings.defaults.cpu_quota_per_second, Span(1500ms));
  EXPECT_EQ(settings.defaults.cpu_weight, 10U);
  EXPECT_EQ(settings.defaults.orphan_policy, supervise::OrphanPolicy::kReport);
  EXPECT_EQ(settings.defaults.owner_policy, supervise::OwnerPolicy::kIgnore);
  EXPECT_EQ(settings.caps.memory, Bytes(64 * kGiB.count()));
  EXPECT_EQ(settings.caps.wall_clock, Span(48h));
  EXPECT_EQ(settings.caps.grace, Span(1min));
  EXPECT_EQ(settings.caps.tasks, 1000U);
  EXPECT_EQ(settings.caps.analyses_per_user, 7U);
  EXPECT_EQ(settings.caps.memory_per_user, Bytes(100 * kGiB.count()));
  EXPECT_EQ(settings.caps.tasks_per_user, 4000U);
  EXPECT_EQ(settings.caps.analyses, supervise::kUnlimited);
  EXPECT_EQ(settings.orphans.interval, Span(10s));
  EXPECT_EQ(settings.orphans.confirmation, Span(1s));
  EXPECT_EQ(settings.stall.pressure_percent, 55U);
  EXPECT_EQ(settings.stall.time, kForever);
  EXPECT_EQ(settings.series.interval, kForever);
  EXPECT_EQ(settings.series.idle, Span(5min));
  EXPECT_EQ(settings.series.points, 100U);
  EXPECT_EQ(settings.ledger.path, "/srv/watchdog/ledger.db");
  EXPECT_EQ(settings.ledger.retention, Span(30 * 24h));
  EXPECT_EQ(settings.ledger.max_size, Bytes(256 * kMiB.count()));
  EXPECT_EQ(settings.postgres.uri, "postgresql://watchdog@db1,db2:5433/analyses?sslmode=verify-full");
  EXPECT_EQ(settings.postgres.schemas, (std::vector<std::string>{"watchdog", "public"}));
  EXPECT_EQ(settings.postgres.passfile, "/etc/analysis-watchdog/pgpass");
}

TEST(ConfigText, IsInSystemdsFormat) {
  const Settings settings = parsed(
      "\xef\xbb\xbf# with a byte order mark\r\n"
      "  [Defaults]  \r\n"
      "\tMemoryLimit = 3G  \r\n"
      "    Grace=7s\n"  // Indented: a line of its own, no continuation of the one above.
      "WallClockLimit=\\\n"
      "# a comment in between\n"
      "   1h \\\n"
      "   30s\n"
      "CPUWeight=5\\");  // The text ends before the line does.

  EXPECT_EQ(settings.defaults.memory, Bytes(3 * kGiB.count()));
  EXPECT_EQ(settings.defaults.grace, Span(7s));
  EXPECT_EQ(settings.defaults.wall_clock, Span(1h + 30s));
  EXPECT_EQ(settings.defaults.cpu_weight, 5U);
}

TEST(ConfigText, HasCommentsOnLinesOfTheirOwnOnly) {
  EXPECT_THAT(
      complaints("[Defaults]\nGrace=5s ; short\nGrace=5s # short\n"),
      ElementsAre(HasSubstr("\"5s ; short\" is not a time span"), HasSubstr("\"5s # short\" is not a time span")));
}

TEST(ConfigText, LetsTheLaterLineWin) {
  EXPECT_EQ(parsed("[Defaults]\nGrace=5s\nGrace=6s\n").defaults.grace, Span(6s));
}

TEST(ConfigText, ReturnsAKeyToItsDefaultWithAnEmptyValue) {
  EXPECT_TRUE(
      is_default(parsed("[Defaults]\nMemoryLimit=1G\nMemoryHeadroom=1G\nCPUWeight=7\nOwnerPolicy=ignore\n"
                        "MemoryLimit=\nMemoryHeadroom= \nCPUWeight=\nOwnerPolicy=\n")));
}

TEST(SeveralTexts, AreMergedKeyByKeyAndTheLaterWins) {
  const Settings settings =
      settings_of(parse_settings({{"a.conf", "[Defaults]\nGrace=5s\nMemoryLimit=1G\nTasksMax=9\n"},
                                  {"b.conf", "[Defaults]\nGrace=6s\nTasksMax=\n"}}));

  EXPECT_EQ(settings.defaults.grace, Span(6s));
  EXPECT_EQ(settings.defaults.memory, kGiB);
  EXPECT_EQ(settings.defaults.tasks_max, supervise::kUnlimited);
}

TEST(SeveralTexts, DoNotShareTheirSections) {
  EXPECT_THAT(problems(parse_settings({{"a.conf", "[Defaults]\n"}, {"b.conf", "Grace=6s\n"}})),
              ElementsAre("b.conf:1: \"Grace=6s\" stands before the first [Section]"));
}

TEST(SeveralTexts, AreAllComplainedOf) {
  EXPECT_THAT(problems(parse_settings({{"a.conf", "[Defaults]\nGrace=0\n"}, {"b.conf", "\n[Caps]\nMaxTasks=x\n"}})),
              ElementsAre(StartsWith("a.conf:2: Grace=: "), StartsWith("b.conf:3: MaxTasks=: ")));
}

TEST(AProblem, NamesFileLineAndKey) {
  EXPECT_THAT(complaints("[Defaults]\n\nMemoryLimit=12 GiBs\n"),
              ElementsAre("a.conf:3: MemoryLimit=: \"12 GiBs\" is not a size; write e.g. 512M, 2G or infinity"));
}

TEST(AProblem, NamesTheLineWhereAContinuedLineBegins) {
  EXPECT_THAT(complaints("[Defaults]\nGrace=1h \\\n nonsense\nTasksMax=0\n"),
              ElementsAre(StartsWith("a.conf:2: "), StartsWith("a.conf:4: ")));
}

TEST(AProblem, OfAWholeFileHasNoLine) { EXPECT_EQ(to_string(Problem{"/x.conf", 0, "no"}), "/x.conf: no"); }

TEST(AnUnknownKey, IsAProblem) {
  EXPECT_THAT(complaints("[Defaults]\nColour=red\n"),
              ElementsAre("a.conf:2: Colour= is not known in [Defaults] in this version"));
}

TEST(AnUnknownKey, ComesWithTheOneThatWasProbablyMeant) {
  EXPECT_THAT(complaints("[Defaults]\nMemoryLimt=1G\nmemorylimit=1G\nMaxTask=5\n"),
              ElementsAre(HasSubstr("did you mean MemoryLimit=?"), HasSubstr("did you mean MemoryLimit=?"),
                          HasSubstr("did you mean MaxTasks= in [Caps]?")));
}

TEST(AnUnknownKey, MayBeAKnownOneOfAnotherSection) {
  EXPECT_THAT(complaints("[Memory]\nMaxGrace=1s\n"), ElementsAre(HasSubstr("did you mean MaxGrace= in [Caps]?")));
}

TEST(AnUnknownSection, IsOneProblemWithAllThatItHolds) {
  EXPECT_THAT(complaints("[Default]\nGrace=1s\nnonsense\n[Other]\n[Caps]\nMaxTasks=0\n"),
              ElementsAre("a.conf:1: [Default] is not known in this version; did you mean [Defaults]?",
                          AllOf(StartsWith("a.conf:4: [Other] is not known"), HasSubstr("[Defaults], [Caps], ")),
                          StartsWith("a.conf:6: MaxTasks=: ")));
}

TEST(AWebSection, SaysWhereToListenAndWhoMayCall) {
  const auto settings = parsed(
      "[Web]\nListen=[::1]:80 /run/x/http, 10.0.0.1:8787\nTokenFile=/etc/token\nAllowedHosts=Batch1.Example.org "
      "[fd00::1]\n");

  EXPECT_THAT(settings.web.listen, ElementsAre("[::1]:80", "/run/x/http", "10.0.0.1:8787"));
  EXPECT_EQ(settings.web.token_file, "/etc/token");
  EXPECT_THAT(settings.web.allowed_hosts, ElementsAre("batch1.example.org", "[fd00::1]"));
}

TEST(AWebSection, SaysWhetherEachAnalysisHasSeries) {
  EXPECT_FALSE(parsed("").web.metrics_per_analysis);
  EXPECT_EQ(parsed("").web.metrics_per_analysis_max, 200U);
  const auto settings = parsed("[Web]\nMetricsPerAnalysis=yes\nMetricsPerAnalysisMax=7\n");
  EXPECT_TRUE(settings.web.metrics_per_analysis);
  EXPECT_EQ(settings.web.metrics_per_analysis_max, 7U);
  for (const std::string bad : {"MetricsPerAnalysis=maybe", "MetricsPerAnalysis=2", "MetricsPerAnalysisMax=0",
                                "MetricsPerAnalysisMax=10001", "MetricsPerAnalysisMax=infinity"}) {
    EXPECT_THAT(complaints("[Web]\n" + bad + "\n"), SizeIs(1)) << bad;
  }
}

TEST(AWebSection, RefusesWhatCannotBeListenedAtOrIsNoHost) {
  for (const std::string bad :
       {"8787", "localhost:8787", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:70000", "::1:80", "[::1]", "run/http", ","}) {
    EXPECT_THAT(complaints("[Web]\nListen=" + bad + "\n"), SizeIs(1)) << bad;
  }
  for (const std::string bad : {"a:80", "http://a", "a/b", "*"}) {
    EXPECT_THAT(complaints("[Web]\nAllowedHosts=" + bad + "\n"), SizeIs(1)) << bad;
  }
}

TEST(ASectionWithoutSuchAKey, IsKnownButTheKeyIsNot) {
  for (const std::string section : {"PostgreSQL", "Web"}) {
    EXPECT_THAT(complaints("[" + section + "]\n"), IsEmpty());
    EXPECT_THAT(complaints("[" + section + "]\nSomeKey=x\n"),
                ElementsAre("a.conf:2: SomeKey= is not known in [" + section + "] in this version"));
  }
}

TEST(ALineOutOfForm, IsAProblem) {
  const std::vector<std::string> lines = {
      "nonsense", "MemoryLimit 2G", "MemoryLimit: 2G", "Memory:Limit=2G", "=2G", ":", "\\\\"};
  for (const std::string& line : lines) {
    EXPECT_THAT(complaints("[Defaults]\n" + line + "\n"), ElementsAre("a.conf:2: \"" + line + "\" is not Key=Value"));
  }
}

TEST(ASectionOutOfForm, IsAProblem) {
  EXPECT_THAT(complaints("[Defaults\nGrace=0\n"),
              ElementsAre("a.conf:1: \"[Defaults\" is not a section; write [Section]"));
  EXPECT_THAT(complaints("[Defaults] x\n"), SizeIs(1));
  EXPECT_THAT(complaints("[ Defaults ]\n"), SizeIs(1));
  EXPECT_THAT(complaints("[]\n"), SizeIs(1));
  EXPECT_THAT(complaints("[Defaults]]\n"), SizeIs(1));
}

TEST(ALine, MayBeLongButNotEndless) {
  EXPECT_THAT(complaints("#" + std::string(100000, 'x') + "\n[Defaults]\nGrace=" + std::string(4000, ' ') + "5s\n"),
              IsEmpty());
  EXPECT_THAT(complaints("[Defaults]\nGrace=" + std::string(4089, '0') + "\nTasksMax=0\n"),
              ElementsAre(StartsWith("a.conf:2: Grace=: "), StartsWith("a.conf:3: ")));
  EXPECT_THAT(complaints("[Defaults]\nGrace=" + std::string(4090, '0') + "\nTasksMax=0\n"),
              ElementsAre("a.conf:2: this line is longer than 4095 bytes", StartsWith("a.conf:3: ")));
}

TEST(ALine, HoldsNoNul) {
  EXPECT_THAT(complaints(std::string("[Defaults]\nGrace=5\0s\n", 20)),
              ElementsAre("a.conf:2: this line holds a NUL byte"));
}

struct BadValue {
  const char* section;
  const char* line;
  const char* why;
};

class ABadValue : public testing::TestWithParam<BadValue> {};

TEST_P(ABadValue, IsOneProblemThatSaysWhatIsAccepted) {
  const auto [section, line, why] = GetParam();

  EXPECT_THAT(complaints("[" + std::string(section) + "]\n" + line + "\n"), ElementsAre(HasSubstr(why)));
}

INSTANTIATE_TEST_SUITE_P(
    Settings, ABadValue,
    testing::Values(
        BadValue{"Defaults", "MemoryLimit=0", "\"0\" is no limit; write e.g. 512M"},
        BadValue{"Defaults", "MemoryLimit=50%", "is a percentage"},
        BadValue{"Defaults", "MemoryHeadroom=x", "not a size"},
        BadValue{"Defaults", "WallClockLimit=0s", "\"0s\" is no limit; write e.g. 500ms"},
        BadValue{"Defaults", "WallClockLimit=-1", "is negative"}, BadValue{"Defaults", "Grace=0", "is no limit"},
        BadValue{"Defaults", "TasksMax=0", "\"0\" is not a number above 0; write e.g. 500 or infinity"},
        BadValue{"Defaults", "TasksMax=50%", "not a number"}, BadValue{"Defaults", "TasksMax=-1", "not a number"},
        BadValue{"Defaults", "TasksMax=18446744073709551616", "not a number"},
        BadValue{"Defaults", "CPUQuota=50", "\"50\" is not a share of a CPU; write e.g. 50%, 150% or infinity"},
        BadValue{"Defaults", "CPUQuota=0%", "is no limit"}, BadValue{"Defaults", "CPUQuota=0.00001%", "is no limit"},
        BadValue{"Defaults", "CPUQuota=1000001%", "not a share"}, BadValue{"Defaults", "CPUQuota=%", "not a share"},
        BadValue{"Defaults", "CPUQuota=50%%", "not a share"}, BadValue{"Defaults", "CPUWeight=0", "from 1 to 10000"},
        BadValue{"Defaults", "CPUWeight=10001", "from 1 to 10000"}, BadValue{"Defaults", "CPUWeight=idle", "from 1 to"},
        BadValue{"Defaults", "OrphanPolicy=ignore", "\"ignore\" is neither kill nor report"},
        BadValue{"Defaults", "OwnerPolicy=report", "\"report\" is neither kill nor ignore"},
        BadValue{"Caps", "MaxMemoryLimit=0", "is no limit"}, BadValue{"Caps", "MaxWallClockLimit=0", "is no limit"},
        BadValue{"Caps", "MaxGrace=0", "is no limit"}, BadValue{"Caps", "MaxTasks=0", "not a number above 0"},
        BadValue{"Caps", "MaxAnalysesPerUser=0", "not a number above 0"},
        BadValue{"Caps", "MaxMemoryPerUser=0", "is no limit"},
        BadValue{"Caps", "MaxTasksPerUser=many", "not a number above 0"},
        BadValue{"Caps", "MaxAnalyses=0", "not a number above 0"}, BadValue{"Orphans", "Interval=0", "is no interval"},
        BadValue{"Orphans", "Interval=infinity", "is no interval"},
        BadValue{"Orphans", "Confirmation=0", "is no interval"},
        BadValue{"Memory", "StallPressure=80", "from 1% to 99%"},
        BadValue{"Memory", "StallPressure=0%", "from 1% to 99%"},
        BadValue{"Memory", "StallPressure=100%", "from 1% to"}, BadValue{"Memory", "StallPressure=%", "from 1% to"},
        BadValue{"Memory", "StallPressure=5%5%", "from 1% to"}, BadValue{"Memory", "StallTime=0", "is no limit"},
        BadValue{"Series", "Interval=0", "is too short; write e.g. 100ms, 2s, or never for no samples"},
        BadValue{"Series", "Interval=99ms", "is too short"}, BadValue{"Series", "Interval=always", "not a time span"},
        BadValue{"Series", "IdleInterval=0", "is no interval"},
        BadValue{"Series", "IdleInterval=infinity", "is no interval"},
        BadValue{"Series", "Points=15", "\"15\" is not a number from 16 to 4096; write e.g. 512"},
        BadValue{"Series", "Points=4097", "from 16 to"}, BadValue{"Series", "Points=infinity", "from 16 to"},
        BadValue{"Ledger", "Path=ledger.db", "\"ledger.db\" is not the absolute path of a file; write e.g. /var/lib"},
        BadValue{"Ledger", "Path=/var/lib/", "not the absolute path of a file"},
        BadValue{"Ledger", "Retention=0", "is no limit"}, BadValue{"Ledger", "Retention=ever", "not a time span"},
        BadValue{"Ledger", "MaxSize=15M", "\"15M\" is too small for a ledger, which needs 16M; write e.g. 512M"},
        BadValue{"Ledger", "MaxSize=0", "is too small"}, BadValue{"Ledger", "MaxSize=much", "not a size"},
        BadValue{"PostgreSQL", "PostgresUri=db.example.org", "is no address of PostgreSQL; write e.g. postgresql://"},
        BadValue{"PostgreSQL", "PostgresUri=postgresql://a:b@db/x", "a password does not belong here"},
        BadValue{"PostgreSQL", "PostgresUri=host=db password=b", "a password does not belong here"},
        BadValue{"PostgreSQL", "PostgresUri=host=db password = b", "a password does not belong here"},
        BadValue{"PostgreSQL", "PostgresUri=user=password password\t=b", "a password does not belong here"},
        BadValue{"PostgreSQL", "PostgresUri=postgresql://db/x?password=b", "a password does not belong here"},
        BadValue{"PostgreSQL", "SearchPath=\"a b\"", "quotes no names"},
        BadValue{"PostgreSQL", "PassFile=pgpass", "not the absolute path of a file"}));

TEST(CpuQuota, TakesFractionsOfAPercent) {
  EXPECT_EQ(parsed("[Defaults]\nCPUQuota=33.33%\n").defaults.cpu_quota_per_second, Span(333300us));
  EXPECT_EQ(parsed("[Defaults]\nCPUQuota=infinity\n").defaults.cpu_quota_per_second, kForever);
}

TEST(TheInterval, OfSamplesMayBeNeverOrInfinity) {
  EXPECT_EQ(parsed("[Series]\nInterval=never\n").series.interval, kForever);
  EXPECT_EQ(parsed("[Series]\nInterval=infinity\n").series.interval, kForever);
  EXPECT_EQ(parsed("[Series]\nInterval=100ms\n").series.interval, Span(100ms));
}

TEST(TheLedgersSize, MayBeSmallOrUnbounded) {
  EXPECT_EQ(parsed("[Ledger]\nMaxSize=16M\n").ledger.max_size, Bytes(16 * kMiB.count()));
  EXPECT_TRUE(parsed("[Ledger]\nMaxSize=infinity\n").ledger.max_size.is_infinite());
}

TEST(Headroom, MayBeNone) { EXPECT_EQ(parsed("[Defaults]\nMemoryHeadroom=0\n").defaults.headroom, Bytes(0)); }

TEST(KnownKeys, HaveAMeaningAndTheDefaultThatTheyReset) {
  for (const KnownKey& known : known_keys()) {
    const std::string line = "[" + known.section + "]\n" + known.key + "=" + known.default_text + "\n";

    EXPECT_TRUE(is_default(parsed(line))) << line;
    EXPECT_THAT(known.meaning, Not(IsEmpty())) << line;
  }
}

TEST(KnownKeys, ShowTheirDefaultsAsOneWouldWriteThem) {
  std::vector<std::string> lines;
  for (const KnownKey& known : known_keys())
    lines.push_back(known.section + "." + known.key + "=" + known.default_text);

  EXPECT_THAT(
      lines,
      ElementsAre(
          "Defaults.MemoryLimit=2G", "Defaults.MemoryHeadroom=", "Defaults.WallClockLimit=30min", "Defaults.Grace=10s",
          "Defaults.TasksMax=infinity", "Defaults.CPUQuota=infinity", "Defaults.CPUWeight=",
          "Defaults.OrphanPolicy=kill", "Defaults.OwnerPolicy=kill", "Caps.MaxMemoryLimit=infinity",
          "Caps.MaxWallClockLimit=infinity", "Caps.MaxGrace=5min", "Caps.MaxTasks=infinity",
          "Caps.MaxAnalysesPerUser=500", "Caps.MaxMemoryPerUser=infinity", "Caps.MaxTasksPerUser=infinity",
          "Caps.MaxAnalyses=4000", "Orphans.Interval=5s", "Orphans.Confirmation=500ms", "Memory.StallPressure=80%",
          "Memory.StallTime=1min", "Series.Interval=2s", "Series.IdleInterval=1min", "Series.Points=512",
          "Ledger.Path=/var/lib/analysis-watchdog/ledger.db", "Ledger.Retention=90d", "Ledger.MaxSize=1G",
          "PostgreSQL.PostgresUri=", "PostgreSQL.SearchPath=", "PostgreSQL.PassFile=", "Web.Listen=127.0.0.1:8787",
          "Web.TokenFile=", "Web.AllowedHosts=", "Web.MetricsPerAnalysis=no", "Web.MetricsPerAnalysisMax=200"));
}

// ---- The example that is installed ----

std::string example() { return read_file(kSource / "packaging/analysis-watchdog.conf"); }

std::string with_keys_uncommented(const std::string& text) {
  return std::regex_replace(text, std::regex("(^|\n)#([A-Z][A-Za-z]*=)"), "$1$2");
}

TEST(TheExampleFile, ChangesNothingAsItIs) { EXPECT_TRUE(is_default(parsed(example()))); }

TEST(TheExampleFile, ShowsEveryKeyWithItsDefault) {
  EXPECT_TRUE(is_default(parsed(with_keys_uncommented(example()))));

  std::string section;
  std::vector<std::string> shown;
  std::istringstream lines(with_keys_uncommented(example()));
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with('[')) section = line;
    if (!line.starts_with('#') && line.find('=') != std::string::npos) shown.push_back(section + line);
  }
  std::vector<std::string> expected;
  for (const KnownKey& k : known_keys()) expected.push_back("[" + k.section + "]" + k.key + "=" + k.default_text);
  EXPECT_EQ(shown, expected);
}

// ---- The fuzzer's corpus ----

TEST(TheCorpus, IsParsedAsTheNamesOfItsFilesSay) {
  std::size_t count = 0;
  for (const auto& entry : fs::directory_iterator(kSource / "src/config/corpus/settings")) {
    const std::string name = entry.path().filename().string();
    const auto found = complaints(read_file(entry.path()));

    EXPECT_EQ(found.empty(), name.starts_with("good-")) << name << testing::PrintToString(found);
    EXPECT_THAT(found, Each(Not(StartsWith("a.conf:0:")))) << name;
    ++count;
  }
  EXPECT_GE(count, 10U);
}

// ---- Files and drop-ins ----

class ConfigFiles : public testing::Test {
 protected:
  ConfigFiles() {
    std::string pattern = (fs::temp_directory_path() / "settings-test-XXXXXX").string();
    root_ = ::mkdtemp(pattern.data());
    path_ = {root_ / "main.conf", {root_ / "etc", root_ / "run", root_ / "usr"}};
    for (const fs::path& dir : path_.dropin_dirs) fs::create_directory(dir);
  }
  ~ConfigFiles() override { fs::remove_all(root_); }

  void write(const std::string& name, const std::string& text) { std::ofstream(root_ / name) << text; }
  Settings loaded() const { return settings_of(load_settings(path_)); }
  std::vector<std::string> found_wrong() const { return problems(load_settings(path_)); }

  fs::path root_;
  SearchPath path_;
};

TEST_F(ConfigFiles, MayAllBeAbsent) {
  for (const fs::path& dir : path_.dropin_dirs) fs::remove(dir);

  EXPECT_TRUE(is_default(loaded()));
}

TEST_F(ConfigFiles, MustBeThereWhereTheyAreNamed) {
  path_.presence = MainFile::kMustExist;

  EXPECT_THAT(found_wrong(), ElementsAre(AllOf(StartsWith((root_ / "main.conf").string() + ": "),
                                               HasSubstr("No such file or directory"))));
}

TEST_F(ConfigFiles, AreOverriddenByDropins) {
  write("main.conf", "[Defaults]\nGrace=1s\nTasksMax=5\n");
  write("usr/50-vendor.conf", "[Defaults]\nGrace=2s\n");

  EXPECT_EQ(loaded().defaults.grace, Span(2s));
  EXPECT_EQ(loaded().defaults.tasks_max, 5U);
}

TEST_F(ConfigFiles, AreReadInTheOrderOfTheirNamesWhateverTheirDirectory) {
  write("etc/10-admin.conf", "[Defaults]\nGrace=1s\nTasksMax=5\n");
  write("run/30-runtime.conf", "[Defaults]\nGrace=3s\n");
  write("usr/20-vendor.conf", "[Defaults]\nGrace=2s\nTasksMax=6\n");

  EXPECT_EQ(loaded().defaults.grace, Span(3s));
  EXPECT_EQ(loaded().defaults.tasks_max, 6U);
}

TEST_F(ConfigFiles, HideTheSameNameInALaterDirectory) {
  write("etc/50-a.conf", "[Defaults]\nGrace=1s\n");
  write("run/50-a.conf", "[Defaults]\nGrace=2s\nTasksMax=5\n");
  write("usr/50-a.conf", "this is not even read");

  EXPECT_EQ(loaded().defaults.grace, Span(1s));
  EXPECT_EQ(loaded().defaults.tasks_max, supervise::kUnlimited);
}

TEST_F(ConfigFiles, AreMaskedByAnEmptyFileOrALinkToDevNull) {
  write("usr/50-a.conf", "[Defaults]\nGrace=1s\n");
  write("usr/60-b.conf", "[Defaults]\nTasksMax=5\n");
  write("run/50-a.conf", "");
  fs::create_symlink("/dev/null", root_ / "etc/60-b.conf");

  EXPECT_TRUE(is_default(loaded()));
}

TEST_F(ConfigFiles, AreThoseNamedConfAndNotHidden) {
  write("etc/50-a.conf~", "x");
  write("etc/50-a.conf.dpkg-old", "x");
  write("etc/.50-a.conf", "x");
  write("etc/README", "x");

  EXPECT_TRUE(is_default(loaded()));
}

TEST_F(ConfigFiles, AreAllComplainedOfAtOnce) {
  write("main.conf", "[Defaults]\nGrace=0\n");
  write("etc/50-a.conf", "[Nothing]\n");
  fs::create_symlink("nowhere", root_ / "run/60-b.conf");
  write("usr/70-c.conf", "[Caps]\n\nMaxTasks=0\n");

  EXPECT_THAT(found_wrong(), ElementsAre(StartsWith((root_ / "run/60-b.conf").string() + ": open: No such file"),
                                         StartsWith((root_ / "main.conf").string() + ":2: Grace="),
                                         StartsWith((root_ / "etc/50-a.conf").string() + ":1: [Nothing]"),
                                         StartsWith((root_ / "usr/70-c.conf").string() + ":3: MaxTasks=")));
}

TEST_F(ConfigFiles, AreRegularFiles) {
  fs::create_directory(root_ / "etc/50-dir.conf");
  ASSERT_EQ(::mkfifo((root_ / "etc/60-fifo.conf").c_str(), 0600), 0);

  EXPECT_THAT(found_wrong(), AllOf(SizeIs(2), Each(HasSubstr("neither a regular file nor a link to /dev/null"))));
}

TEST_F(ConfigFiles, HaveABoundedSize) {
  write("main.conf", std::string(1024 * 1024 + 1, '\n'));

  EXPECT_THAT(found_wrong(), ElementsAre(HasSubstr("larger than 1M")));
}

TEST_F(ConfigFiles, ThatCannotBeListedAreAProblem) {
  write("not-a-directory", "");
  path_.dropin_dirs = {root_ / "not-a-directory"};

  EXPECT_THAT(found_wrong(), ElementsAre(HasSubstr("Not a directory")));
}

}  // namespace
}  // namespace aw::config
