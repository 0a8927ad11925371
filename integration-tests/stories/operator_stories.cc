// SPDX-License-Identifier: Apache-2.0
//
// analysisctl, as an operator has it: each command for people and as JSON, its exit status, and its errors.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>

#include "support/manager.h"
#include "support/story.h"
#include "support/users.h"

namespace aw::stories {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;

constexpr char kStranger[] = "story-other";

/// The lines of a table, or of several, that begin with this id.
std::string rows_of(const std::string& table, const std::string& id) {
  std::string rows;
  std::istringstream lines(table);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(id + " ")) rows += line + "\n";
  }
  return rows;
}

/// `analysisctl top` in a terminal of its own. What happens is told to it: it does not look again by itself.
class Top {
 public:
  pid_t pid() const { return process_.pid(); }
  /// Of the last picture, as far as it has come.
  std::string row(const std::string& id) {
    const auto begin = output().rfind("\x1b[H");
    return begin == std::string::npos ? "" : rows_of(output_.substr(begin), id);
  }
  /// Of all pictures.
  std::string rows(const std::string& id) { return rows_of(output(), id); }
  const std::string& output() {
    std::array<char, 4096> text{};
    for (ssize_t n = 0; (n = ::read(keyboard_.get(), text.data(), text.size())) > 0;) {
      output_.append(text.data(), static_cast<std::size_t>(n));
    }
    return output_;
  }
  void type(char key) const { EXPECT_EQ(::write(keyboard_.get(), &key, 1), 1); }
  std::optional<int> reap() { return process_.reap(); }

 private:
  static UniqueFd open_keyboard() {
    UniqueFd keyboard(::posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
    const winsize size{60, 160, 0, 0};
    EXPECT_TRUE(::grantpt(keyboard.get()) == 0 && ::unlockpt(keyboard.get()) == 0 &&
                ::ioctl(keyboard.get(), TIOCSWINSZ, &size) == 0);
    return keyboard;
  }

  const UniqueFd keyboard_ = open_keyboard();
  const UniqueFd terminal_{::open(::ptsname(keyboard_.get()), O_RDWR | O_NOCTTY | O_CLOEXEC)};
  std::string output_;
  Child process_ = Child::spawn({"analysisctl", "top", "--interval=1h"},
                                {.in = terminal_.get(),
                                 .out = terminal_.get(),
                                 .environment = {{"TERM", "xterm"}, {"LC_ALL", "C.UTF-8"}, {"NO_COLOR", "1"}}});
};

class AnalysisCtl : public Story {
 protected:
  static CommandResult ctl(const Words& words) {
    Words all{"analysisctl", "--no-pager"};
    all.insert(all.end(), words.begin(), words.end());
    return run_command(all);
  }
  /// One JSON value.
  static Json json(const Words& words) {
    const auto result = ctl(words);
    EXPECT_EQ(result.status, 0) << result.err;
    Json value = Json::parse(result.out, nullptr, false);
    EXPECT_FALSE(value.is_discarded()) << result.out;
    return value;
  }
  /// One JSON value a line.
  static std::vector<Json> json_lines(const Words& words) {
    const auto result = ctl(words);
    EXPECT_EQ(result.status, 0) << result.err;
    std::vector<Json> values;
    std::istringstream lines(result.out);
    for (std::string line; std::getline(lines, line);) values.push_back(Json::parse(line, nullptr, false));
    return values;
  }

  Outcome ask_bus(const char* member, const std::string& name = "") {
    return watchdog.call_at("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", member,
                            [&](bus::Message& m) {
                              if (!name.empty()) m.append(name);
                            });
  }
  /// What the bus calls the client that this process is; "" if it has none.
  std::string find_client(pid_t pid) {
    for (const std::string& name : ask_bus("ListNames").reply.read_strings().value_or({})) {
      if (!name.starts_with(':')) continue;
      auto owner = ask_bus("GetConnectionUnixProcessID", name);
      if (owner.ok() && owner.reply.read_u32().value_or(0) == static_cast<std::uint32_t>(pid)) return name;
    }
    return "";
  }
  /// A signal to one client alone, of somebody who has no business to send it.
  static void forge(const std::string& destination, const Words& signal) {
    Words words{"busctl", is_users() ? "--user" : "--system", "emit", "--destination=" + destination};
    words.insert(words.end(), signal.begin(), signal.end());
    const auto sent = is_users() ? run_command(words) : run_as(kStranger, words);
    EXPECT_EQ(sent.status, 0) << sent.err;
  }
};

TEST_F(AnalysisCtl, ListsWhatRuns) {
  const auto run = start(How::kLaunched, new_id("listed"), {memory_limit(100)}, {"stay"});

  for (const Words& words : {Words{}, Words{"list"}}) {
    const auto listed = ctl(words);
    EXPECT_EQ(listed.status, 0) << listed.err;
    EXPECT_THAT(listed.out, HasSubstr(run.id));
    EXPECT_THAT(listed.out, HasSubstr("running"));
    EXPECT_THAT(listed.out, HasSubstr("100M"));
    EXPECT_THAT(listed.out, HasSubstr("STATE"));
  }
  EXPECT_THAT(ctl({"list", "--no-legend"}).out, Not(HasSubstr("STATE")));
  bool found = false;
  for (const Json& analysis : json({"list", "--json=short"})) {
    if (analysis.value("analysis_id", "") != run.id) continue;
    found = true;
    EXPECT_EQ(analysis.value("state", ""), "running");
    EXPECT_EQ(analysis.value("memory_limit_bytes", 0), 100 << 20);
    EXPECT_EQ(analysis.value("leader_pid", 0), run.leader);
  }
  EXPECT_TRUE(found);
}

TEST_F(AnalysisCtl, ShowsWhatRunsAsATable) {
  const auto run = start(How::kRegistered, new_id("tabled"), {memory_limit(100)}, {"stay"});

  const auto table = ctl({"top"});
  EXPECT_EQ(table.status, 0) << table.err;
  EXPECT_THAT(rows_of(table.out, run.id), HasSubstr("running"));
  EXPECT_THAT(rows_of(table.out, run.id), HasSubstr("100M"));
  Json shown;
  for (const Json& analysis : json({"top", "--json=short"})) {
    if (analysis.value("analysis_id", "") == run.id) shown = analysis;
  }
  ASSERT_TRUE(shown.is_object());
  EXPECT_EQ(shown.value("state", ""), "running");
  EXPECT_EQ(shown.value("uid", ~0U), ::getuid());
  EXPECT_EQ(shown.value("owner_pid", 0), ::getpid());

  ASSERT_EQ(watchdog.kill(run.id).error, "");
  await_end(run);
  EXPECT_EQ(rows_of(ctl({"top"}).out, run.id), "");
}

TEST_F(AnalysisCtl, ShowsInATerminalWhatTheWatchdogTellsAndNobodyElse) {
  if (!is_users()) make_user(kStranger);
  const auto run = start(How::kRegistered, new_id("in a terminal"), {}, {"stay"});
  Top top;
  const auto has_shown = [&](const std::string& id, const std::string& state) {
    return watchdog.wait_until([&] { return top.rows(id).find(state) != std::string::npos; });
  };
  ASSERT_TRUE(has_shown(run.id, "running")) << top.output();
  const std::string client = find_client(top.pid());
  ASSERT_NE(client, "");
  const std::string daemon = ask_bus("GetNameOwner", names::kBusName).reply.read_string().value_or("");
  const std::string run_id = text(watchdog.find(run.id).value_or(Dict{}), "RunId");

  forge(client,
        {"/org/freedesktop/DBus", "org.freedesktop.DBus", "NameOwnerChanged", "sss", names::kBusName, daemon, ""});
  forge(client, {names::kManagerPath, names::kManagerInterface, "AnalysisEnding", "sst", run.id, "boredom", "1000000"});
  forge(client, {names::kManagerPath, names::kManagerInterface, "AnalysisEnded", "ssa{sv}", run.id, "boredom", "1",
                 "run_id", "s", run_id});
  const auto next = start(How::kRegistered, new_id("told of"), {}, {"stay"});

  EXPECT_TRUE(has_shown(next.id, "running")) << top.output();
  EXPECT_TRUE(watchdog.wait_until([&] { return top.row(run.id).find("running") != std::string::npos; }));
  EXPECT_THAT(top.output(), Not(HasSubstr("boredom")));
  for (const Started* ended : {&run, &next}) {
    ASSERT_EQ(watchdog.kill(ended->id).error, "");
    await_end(*ended);
    EXPECT_TRUE(has_shown(ended->id, "ended: requested")) << top.output();
  }
  top.type('q');
  EXPECT_EQ(top.reap(), 0);
}

TEST_F(AnalysisCtl, ShowsOne) {
  const auto run = start(How::kRegistered, new_id("shown"), {{"Description", {std::string("a story")}}}, {"stay"});

  const auto shown = ctl({"show", run.id});

  EXPECT_EQ(shown.status, 0) << shown.err;
  EXPECT_THAT(shown.out, HasSubstr(run.id));
  EXPECT_THAT(shown.out, HasSubstr("a story"));
  EXPECT_THAT(shown.out, HasSubstr("running"));
  EXPECT_EQ(json({"show", "--json=pretty", run.id}).value("description", ""), "a story");
  const auto absent = ctl({"show", "no such analysis"});
  EXPECT_EQ(absent.status, 1);
  EXPECT_THAT(absent.err, HasSubstr("analysisctl list"));
}

TEST_F(AnalysisCtl, SaysHowTheWatchdogIs) {
  const auto status = ctl({"status"});
  EXPECT_EQ(status.status, 0) << status.err;
  EXPECT_NE(status.out, "");
  const Json object = json({"status", "--json"});
  EXPECT_GE(object.value("monitored_count", -1), 1);
  EXPECT_GE(object.value("grace_count", -1), 0);
  EXPECT_GE(object.value("kills_last_24h", -1), 0);
  EXPECT_TRUE(object.value("recent_events", Json()).is_array());
}

TEST_F(AnalysisCtl, ShowsEvents) {
  const auto run = start(How::kLaunched, new_id("eventful"), {}, {"stay"});
  ASSERT_EQ(ctl({"kill", run.id}).status, 0);
  await_end(run);

  const auto events = ctl({"events", "--id=" + run.id});
  EXPECT_EQ(events.status, 0) << events.err;
  EXPECT_THAT(events.out, HasSubstr("requested"));
  std::vector<std::string> kinds;
  for (const Json& event : json_lines({"events", "--json=short", "--id=" + run.id})) {
    kinds.push_back(event.value("kind", ""));
    EXPECT_EQ(event.value("registered_as", ""), run.id);
  }
  EXPECT_THAT(kinds, ::testing::ElementsAre("registered", "ending", "ended")) << "oldest first";
  EXPECT_EQ(json_lines({"events", "--json", "--id=" + run.id, "--kind=ended", "--reason=requested"}).size(), 1U);
  EXPECT_EQ(json_lines({"events", "--json", "--id=" + run.id, "--limit=1"}).size(), 1U);
  EXPECT_EQ(json_lines({"events", "--json", "--id=" + run.id, "--since=-1h"}).size(), 3U);
  EXPECT_TRUE(json_lines({"events", "--json", "--id=" + run.id, "--until=-1h"}).empty());
  EXPECT_EQ(ctl({"events", "--since=one day"}).status, 1);
  EXPECT_EQ(ctl({"events", "--reason=boredom"}).status, 1);
}

TEST_F(AnalysisCtl, FollowsEvents) {
  const std::string id = new_id("followed");
  const UniqueFd out(::open(path("out").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  Child follower =
      Child::spawn({"analysisctl", "events", "--follow", "--json=short", "--id=" + id}, {-1, out.get(), -1, -1, {}});

  const auto run = start(How::kLaunched, id, {}, {"stay"});
  EXPECT_TRUE(watchdog.wait_until([&] { return read_file(path("out")).find("\"registered\"") != std::string::npos; }));
  ASSERT_EQ(watchdog.kill(id).error, "");
  await_end(run);

  EXPECT_TRUE(watchdog.wait_until([&] { return read_file(path("out")).find("\"ended\"") != std::string::npos; }));
}

TEST_F(AnalysisCtl, RegistersChangesAndReleases) {
  Child process = spawn_workload({"stay"});
  const std::string id = new_id("managed");

  const auto registered = ctl({"register", id, std::to_string(process.pid()), "--memory=64M", "--wall-clock=1h"});
  ASSERT_EQ(registered.status, 0) << registered.err;
  const auto before = watchdog.find(id);
  ASSERT_TRUE(before);
  EXPECT_EQ(number(*before, "MemoryLimit"), 64U << 20U);
  const auto set = ctl({"set", id, "MemoryLimit=96M", "TasksMax=20"});
  EXPECT_EQ(set.status, 0) << set.err;
  const auto extended = ctl({"extend", id, "30min"});
  EXPECT_EQ(extended.status, 0) << extended.err;
  const auto after = watchdog.find(id);
  ASSERT_TRUE(after);
  EXPECT_EQ(number(*after, "MemoryLimit"), 96U << 20U);
  EXPECT_EQ(number(*after, "TasksMax"), 20U);
  EXPECT_EQ(number(*after, "DeadlineUSec"), number(*before, "DeadlineUSec") + to_usec(30min));

  EXPECT_EQ(ctl({"register", id, std::to_string(process.pid())}).status, 1);
  EXPECT_EQ(ctl({"register", new_id("absent"), "0"}).status, 1);
  EXPECT_EQ(ctl({"set", id, "MemoryLimit=0"}).status, 1);
  EXPECT_EQ(ctl({"set", id, "Colour=blue"}).status, 1);
  EXPECT_EQ(ctl({"extend", id, "soon"}).status, 1);

  const auto released = ctl({"unregister", id});
  EXPECT_EQ(released.status, 0) << released.err;
  EXPECT_FALSE(watchdog.find(id));
  EXPECT_FALSE(process.await_end(0s)) << "it was to live";
  EXPECT_EQ(ctl({"unregister", id}).status, 1);
}

TEST_F(AnalysisCtl, Kills) {
  const auto run = start(How::kRegistered, new_id("killed"), {}, {"stay"});
  const auto killed = ctl({"kill", run.id});
  EXPECT_EQ(killed.status, 0) << killed.err;
  EXPECT_EQ(text(await_end(run), "reason"), "requested");
  const auto again = ctl({"kill", run.id});
  EXPECT_EQ(again.status, 1);
  EXPECT_THAT(again.err, HasSubstr(run.id));
}

TEST_F(AnalysisCtl, ExaminesTheHost) {
  const auto examined = ctl({"doctor"});
  EXPECT_EQ(examined.status, 0) << examined.out << examined.err;
  for (const Json& finding : json({"doctor", "--json"}))
    EXPECT_NE(finding.value("health", ""), "fail") << finding.dump();
}

TEST_F(AnalysisCtl, ComplainsAboutWrongUsageWithStatusTwo) {
  for (const Words& words :
       {Words{"no-such-command"}, Words{"show"}, Words{"kill"}, Words{"list", "--json=yaml"}, Words{"list", "--colour"},
        Words{"extend", "x"}, Words{"events", "--follow", "--until=now"}}) {
    const auto wrong = ctl(words);
    EXPECT_EQ(wrong.status, 2) << ::testing::PrintToString(words);
    EXPECT_NE(wrong.err, "");
    EXPECT_EQ(wrong.out, "");
  }
  EXPECT_EQ(ctl({"--help"}).status, 0);
  EXPECT_EQ(ctl({"--version"}).status, 0);
}

}  // namespace
}  // namespace aw::stories
