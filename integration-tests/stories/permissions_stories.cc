// SPDX-License-Identifier: Apache-2.0
//
// Who may do what: each method, property and signal that the daemon says it has, as each kind of caller, against the
// table of docs/security.md; and polkit, which is asked about the rest.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <map>

#include "base/analysis_id.h"
#include "support/story.h"
#include "support/users.h"
#include "testing/permission_table.h"

namespace aw::stories {
namespace {

using namespace std::chrono_literals;
using testing::Deed;
using testing::describe;
using ::testing::ElementsAreArray;
using ::testing::IsEmpty;

constexpr char kAdmin[] = "story-admin";
constexpr char kViewer[] = "story-viewer";
constexpr char kOwner[] = "story-owner";
constexpr char kOther[] = "story-other";

constexpr char kProperties[] = "org.freedesktop.DBus.Properties";
constexpr char kObjectManager[] = "org.freedesktop.DBus.ObjectManager";
constexpr char kIntrospectable[] = "org.freedesktop.DBus.Introspectable";
constexpr char kPeer[] = "org.freedesktop.DBus.Peer";

void make_users() {
  make_user(kAdmin, names::kAdminGroup);
  make_user(kViewer, names::kViewerGroup);
  make_user(kOwner);
  make_user(kOther);
}

std::string object_of(const std::string& id) {
  return std::string(names::kAnalysisPathPrefix) + "/" + escape_for_path(id);
}

/// A process of the owner's, and a run of it.
struct Target {
  std::string id;
  std::unique_ptr<Child> process;
  std::uint32_t pid() const { return static_cast<std::uint32_t>(process->pid()); }
};

class Permissions : public Story {
 protected:
  void SetUp() override {
    Story::SetUp();
    make_users();
    clients_["root"] = std::make_unique<Watchdog>();
    clients_["admin"] = std::make_unique<Watchdog>(Hearing::kSignals, kAdmin);
    clients_["viewer"] = std::make_unique<Watchdog>(Hearing::kSignals, kViewer);
    clients_["owner"] = std::make_unique<Watchdog>(Hearing::kSignals, kOwner);
    clients_["other"] = std::make_unique<Watchdog>(Hearing::kSignals, kOther);
    clients_["nobody"] = std::make_unique<Watchdog>(Hearing::kSignals, "nobody");
    others_ = make_target("others own");
    EXPECT_EQ(client("other").register_process(others_.id, others_.pid()).error, "");
  }

  Watchdog& client(const std::string& caller) { return *clients_.at(caller); }

  Target make_target(const std::string& name) {
    const std::string user = name == "others own" ? kOther : kOwner;
    return {new_id(name), std::make_unique<Child>(spawn_as(user, {workload_program(), "stay"}))};
  }
  /// One that is registered by its owner.
  Target make_run(const std::string& name, const Dict& options = {}) {
    Target target = make_target(name);
    const auto registered = client("owner").register_process(target.id, target.pid(), options);
    EXPECT_EQ(registered.error, "") << registered.message;
    return target;
  }
  bool runs(const Target& target) {
    const auto properties = watchdog.find(target.id);
    return properties && text(*properties, "State") == "running";
  }
  bool is_watched(const Target& target) {
    return folder_of(target.process->pid()).starts_with(slice_folder(target.id));
  }

  std::string introspect(const std::string& object) {
    auto reply = watchdog.call_at(names::kBusName, object, kIntrospectable, "Introspect");
    EXPECT_EQ(reply.error, "") << reply.message;
    return reply.ok() ? reply.reply.read_string().value_or("") : "";
  }

  static std::string verdict_of(const Outcome& outcome) {
    if (outcome.ok()) return "yes";
    if (outcome.error == names::error::kAccessDenied) return "ask";
    if (outcome.error == "org.freedesktop.DBus.Error.UnknownObject") return "hidden";
    if (outcome.error == "org.freedesktop.DBus.Error.PropertyReadOnly") return "no";
    return outcome.error + ": " + outcome.message;
  }
  /// Of a list, by whether the owner's run is in it; the caller's own always is.
  static std::string verdict_of_list(bool has_owners) { return has_owners ? "yes" : "own"; }

  std::string call(const std::string& caller, const std::string& object, const std::string& member);
  std::string read(const std::string& caller, const std::string& object, const std::string& member);
  std::string write(const std::string& caller, const std::string& object, const std::string& member);
  std::string call_manager(const std::string& caller, const std::string& method);
  bool manages_objects_of(Watchdog& caller, const std::string& id);

  std::map<std::string, std::unique_ptr<Watchdog>> clients_;
  Target others_;
  Target shared_;  ///< the owner's run that is looked at, and never ended
};

std::string interface_of(const std::string& member) {
  return "org.scidex.AnalysisWatchdog1." + member.substr(0, member.find('.'));
}
std::string name_of(const std::string& member) { return member.substr(member.find('.') + 1); }

bool Permissions::manages_objects_of(Watchdog& caller, const std::string& id) {
  auto got = caller.call_at(names::kBusName, names::kManagerPath, kObjectManager, "GetManagedObjects");
  EXPECT_EQ(got.error, "") << got.message;
  if (!got.ok() || !got.reply.enter('a', "{oa{sa{sv}}}")) return false;
  bool found = false;
  while (!got.reply.at_end()) {
    if (!got.reply.enter('e', "oa{sa{sv}}")) return false;
    found |= got.reply.read_path().value_or("") == object_of(id);
    got.reply.skip("a{sa{sv}}");
    if (!got.reply.leave()) return false;
  }
  return found;
}

std::string Permissions::call_manager(const std::string& caller, const std::string& method) {
  Watchdog& by = client(caller);
  const auto has = [&](const std::vector<Dict>& list, const char* key, const std::string& id) {
    return std::any_of(list.begin(), list.end(), [&](const Dict& one) { return text(one, key) == id; });
  };
  if (method == "ListAnalyses") {
    const auto list = by.list();
    EXPECT_TRUE(caller != "other" || has(list, "Id", others_.id));
    return verdict_of_list(has(list, "Id", shared_.id));
  }
  if (method == "ListEvents") {
    EXPECT_TRUE(caller != "other" || has(by.events({{"AnalysisId", {others_.id}}}), "registered_as", others_.id));
    return verdict_of_list(has(by.events({{"AnalysisId", {shared_.id}}}), "registered_as", shared_.id));
  }
  if (method == "GetSeries") {
    const auto properties = client("owner").find(shared_.id);
    const std::string run_id = properties ? text(*properties, "RunId") : "";
    const auto got = by.call("GetSeries", [&](bus::Message& m) { m.append(run_id); });
    return got.error == names::error::kNoSuchAnalysis ? "hidden" : verdict_of(got);
  }
  if (method == "GetAnalysis") {
    return verdict_of(by.call("GetAnalysis", [&](bus::Message& m) { m.append(shared_.id); }));
  }
  if (method == "GetMetrics") return verdict_of(by.call("GetMetrics"));
  if (method == "SetLimits") return verdict_of(by.set_limits(shared_.id, {grace(9s)}));
  if (method == "ExtendDeadline") return verdict_of(by.extend(shared_.id, 1'000'000));
  if (method.starts_with("Register")) {
    Target target = make_target("registered by " + caller);
    const auto done = method == "RegisterAnalysis" ? by.register_process(target.id, target.pid())
                                                   : by.register_pidfd(target.id, target.process->pid());
    EXPECT_EQ(done.ok(), is_watched(target)) << caller << " " << method;
    if (done.ok()) {
      EXPECT_EQ(number(watchdog.find(target.id).value_or(Dict{}), "Uid"), uid_of(kOwner));
    }
    return verdict_of(done);
  }
  if (method == "AttachProcess") {
    const Target run = make_run("attached to by " + caller);
    const Target more = make_target("attached by " + caller);
    const auto done = by.attach(run.id, more.pid());
    EXPECT_EQ(done.ok(), folder_of(more.process->pid()).starts_with(slice_folder(run.id))) << caller;
    return verdict_of(done);
  }
  Target target = make_run(method + " by " + caller);
  if (method == "KillAnalysis") {
    const auto done = by.kill(target.id);
    if (done.ok()) {
      EXPECT_EQ(text(await_end(target.id), "reason"), "requested");
    } else {
      EXPECT_TRUE(runs(target)) << caller;
    }
    return verdict_of(done);
  }
  if (method == "UnregisterAnalysis") {
    const auto done = by.unregister(target.id);
    EXPECT_EQ(done.ok(), !is_watched(target)) << caller;
    return verdict_of(done);
  }
  return "nobody knows how to call it";
}

std::string Permissions::call(const std::string& caller, const std::string& object, const std::string& member) {
  Watchdog& by = client(caller);
  const bool of_manager = object == "manager";
  const std::string path = of_manager ? names::kManagerPath : object_of(shared_.id);
  const char* interface = of_manager ? names::kManagerInterface : names::kAnalysisInterface;
  const std::string name = name_of(member);
  const auto at = [&](const char* standard, const std::function<void(bus::Message&)>& append = {}) {
    return verdict_of(by.call_at(names::kBusName, path, standard, name.c_str(), append));
  };
  if (member.starts_with("Manager.")) return call_manager(caller, name);
  if (member.starts_with("Peer.")) return at(kPeer);
  if (member == "Introspectable.Introspect") return at(kIntrospectable);
  if (member == "ObjectManager.GetManagedObjects") return verdict_of_list(manages_objects_of(by, shared_.id));
  if (member == "Properties.Get") {
    return at(kProperties, [&](bus::Message& m) { m.append(interface).append(of_manager ? "Version" : "State"); });
  }
  if (member == "Properties.GetAll") return at(kProperties, [&](bus::Message& m) { m.append(interface); });
  if (member == "Properties.Set") {
    return at(kProperties, [&](bus::Message& m) {
      m.append(interface)
          .append(of_manager ? "DefaultGraceUSec" : "GraceUSec")
          .append_variant({std::uint64_t{9'000'000}});
    });
  }
  return "nobody knows how to call it";
}

std::string Permissions::read(const std::string& caller, const std::string& object, const std::string& member) {
  const std::string path = object == "manager" ? names::kManagerPath : object_of(shared_.id);
  return verdict_of(client(caller).call_at(names::kBusName, path, kProperties, "Get", [&](bus::Message& m) {
    m.append(interface_of(member)).append(name_of(member));
  }));
}

/// Writes what is there already.
std::string Permissions::write(const std::string& caller, const std::string& object, const std::string& member) {
  const bool of_manager = object == "manager";
  const std::string path = of_manager ? names::kManagerPath : object_of(shared_.id);
  const Dict now = watchdog.get_all(names::kBusName, path, interface_of(member).c_str());
  const Value* value = bus::find(now, name_of(member));
  if (value == nullptr) return "root can't read it";
  return verdict_of(client(caller).call_at(names::kBusName, path, kProperties, "Set", [&](bus::Message& m) {
    m.append(interface_of(member)).append(name_of(member)).append_variant(*value);
  }));
}

testing::PermissionTable read_table() {
  std::vector<std::string> problems;
  auto table = testing::read_permission_table(read_file(program_folder() + "/security.md"), problems);
  EXPECT_THAT(problems, IsEmpty());
  EXPECT_FALSE(table.empty());
  return table;
}

TEST_F(Permissions, AreForAllThatIsThereAsTheTableSays) {
  shared_ = make_run("looked at");
  const auto table = read_table();
  auto deeds = testing::deeds_of("analysis", introspect(object_of(shared_.id)));
  const auto of_manager = testing::deeds_of("manager", introspect(names::kManagerPath));
  deeds.insert(deeds.end(), of_manager.begin(), of_manager.end());

  std::vector<std::string> there, in_table;
  for (const Deed& deed : deeds) there.push_back(describe(deed));
  for (const auto& [deed, verdicts] : table) in_table.push_back(describe(deed));
  EXPECT_THAT(in_table, ElementsAreArray(there)) << "rows of docs/security.md, and what the daemon has";

  for (const Deed& deed : deeds) {
    const auto row = table.find(deed);
    if (row == table.end() || deed.kind == "hear") continue;
    for (const char* caller : testing::kCallers) {
      const std::string verdict = deed.kind == "call"   ? call(caller, deed.object, deed.member)
                                  : deed.kind == "read" ? read(caller, deed.object, deed.member)
                                                        : write(caller, deed.object, deed.member);
      EXPECT_EQ(verdict, row->second.at(caller)) << describe(deed) << " as " << caller;
    }
  }
  // What has no row for writing can be written by nobody.
  for (const Deed& deed : deeds) {
    if (deed.kind != "read" || table.contains({deed.object, "write", deed.member})) continue;
    EXPECT_EQ(write("root", deed.object, deed.member), "no") << describe(deed);
    EXPECT_THAT(write("other", deed.object, deed.member), ::testing::AnyOf("no", "hidden")) << describe(deed);
  }
  EXPECT_TRUE(runs(shared_));
  EXPECT_TRUE(runs(others_));
}

TEST_F(Permissions, AreForSignalsAsTheTableSays) {
  const auto table = read_table();
  ::chmod(path("").c_str(), 01777);  // The workload writes there as its user.
  const std::string id = new_id("heard of");
  const Child launcher = spawn_as(kOwner, {"analysis-run", "--id=" + id, "--orphans=report", "--", workload_program(),
                                           "daemonize", path("orphan")});
  ASSERT_TRUE(watchdog.await_event(id, "orphan-found"));
  ASSERT_EQ(client("owner").set_limits(id, {grace(8s)}).error, "");
  ASSERT_EQ(client("owner").kill(id).error, "");
  EXPECT_EQ(text(await_end(id), "reason"), "requested");

  const std::string object = object_of(id);
  for (const char* caller : testing::kCallers) {
    Watchdog& by = client(caller);
    // The signals were sent before the answer to this is.
    (void)by.manager_properties();
    by.let_pass(500ms);
    const auto heard = [&](const Deed& deed) {
      return std::any_of(by.signals().begin(), by.signals().end(), [&](const Signal& signal) {
        if (signal.member != name_of(deed.member)) return false;
        if (deed.object == "analysis") return signal.path == object;
        if (deed.member == "Properties.PropertiesChanged") return signal.path == names::kManagerPath;
        return signal.id == id || signal.id == object;
      });
    };
    for (const auto& [deed, verdicts] : table) {
      if (deed.kind != "hear") continue;
      EXPECT_EQ(heard(deed), verdicts.at(caller) == "yes") << describe(deed) << " as " << caller;
    }
  }
}

TEST_F(Permissions, HoldForCapsAndForAnIdThatIsAnothers) {
  const Target run = make_run("taken");
  const Target mine = make_target("mine");

  // An id is in use, and that is all that is told.
  const auto taken = client("owner").register_process(run.id, mine.pid());
  EXPECT_EQ(taken.error, names::error::kAlreadyRegistered);
  // A grace above the cap is the administrator's to give.
  EXPECT_EQ(client("owner").register_process(mine.id, mine.pid(), {grace(1h)}).error, names::error::kLimitTooHigh);
  EXPECT_EQ(client("admin").register_process(mine.id, mine.pid(), {grace(1h)}).error, "");
}

// ---- polkit ----

/// So that polkit is not refused for having been started too often. It fails where polkit is not loaded.
void forget_starts() { (void)run_command({"systemctl", "reset-failed", "polkit.service"}); }

/// A rule of the site's, as long as it lives.
class Rule {
 public:
  explicit Rule(const std::string& body) {
    write_file(kFile, "polkit.addRule(function(action, subject) {\n" + body + "\n});\n");
    ::chmod(kFile, 0644);
    restart();
  }
  Rule(const Rule&) = delete;
  Rule& operator=(const Rule&) = delete;
  ~Rule() {
    ::unlink(kFile);
    restart();
  }

 private:
  static constexpr char kFile[] = "/etc/polkit-1/rules.d/00-story.rules";
  static void restart() {
    forget_starts();
    EXPECT_TRUE(systemctl({"restart", "polkit.service"}));
  }
};

class Polkit : public Permissions {};

std::string rule_for(const std::string& id, const std::string& result) {
  return "if (action.id == '" + std::string(names::kPolkitManage) + "' && action.lookup('analysis') == '" + id +
         "') { " + result + " }";
}

TEST_F(Polkit, LetsSomebodyManageWhatARuleSays) {
  const Target named = make_run("named"), unnamed = make_run("unnamed");
  const Rule rule(rule_for(named.id, "return polkit.Result.YES;"));

  EXPECT_EQ(client("other").kill(unnamed.id).error, names::error::kAccessDenied);
  const auto killed = client("other").kill(named.id);
  EXPECT_EQ(killed.error, "") << killed.message;

  const Dict end = await_end(named.id);
  EXPECT_EQ(text(end, "reason"), "requested");
  EXPECT_EQ(number(details(end), "requested_by_uid"), uid_of(kOther));
  EXPECT_TRUE(runs(unnamed));
}

TEST_F(Polkit, LetsSomebodyRegisterWhatARuleSaysAndNothingProtected) {
  const Target target = make_target("registered by leave");
  const Rule rule("if (action.id == '" + std::string(names::kPolkitRegister) + "') return polkit.Result.YES;");

  EXPECT_EQ(client("other").register_process(new_id("manager"), 1).error, names::error::kProtectedProcess);
  EXPECT_EQ(client("other").register_process(target.id, target.pid()).error, "");
  EXPECT_EQ(number(watchdog.find(target.id).value_or(Dict{}), "Uid"), uid_of(kOwner));
}

TEST_F(Polkit, IsAskedAboutWhateverTheTableSaysItIs) {
  // Without a rule each of these is AccessDenied (AreForAllThatIsThereAsTheTableSays), whoever denies it.
  shared_ = make_run("looked at by leave");
  const Rule rule("if (action.id == '" + std::string(names::kPolkitManage) + "' || action.id == '" +
                  std::string(names::kPolkitRegister) + "') { return polkit.Result.YES; }");
  std::size_t asked = 0;
  for (const auto& [deed, verdicts] : read_table()) {
    for (const char* caller : testing::kCallers) {
      if (verdicts.at(caller) != "ask") continue;
      ASSERT_NE(deed.kind, "hear");
      ++asked;
      const std::string verdict = deed.kind == "call"   ? call(caller, deed.object, deed.member)
                                  : deed.kind == "read" ? read(caller, deed.object, deed.member)
                                                        : write(caller, deed.object, deed.member);
      // A yes about the run makes nobody else's process theirs.
      EXPECT_EQ(verdict, deed.member == "Manager.AttachProcess" ? "ask" : "yes") << describe(deed) << " as " << caller;
    }
  }
  EXPECT_GT(asked, 30U);
  EXPECT_TRUE(runs(shared_));

  const Child own = spawn_as(kOther, {workload_program(), "stay"});
  const auto attached = client("other").attach(shared_.id, static_cast<std::uint32_t>(own.pid()));
  EXPECT_EQ(attached.error, "") << attached.message;
  EXPECT_TRUE(folder_of(own.pid()).starts_with(slice_folder(shared_.id))) << folder_of(own.pid());
}

TEST_F(Polkit, ThatIsAwayOrFailsIsANo) {
  const Target run = make_run("held");
  {
    const Rule rule("throw new Error('a rule that is broken');");
    EXPECT_EQ(client("other").kill(run.id).error, names::error::kAccessDenied);
  }
  ASSERT_TRUE(systemctl({"mask", "--runtime", "--now", "polkit.service"}));
  EXPECT_EQ(client("other").kill(run.id).error, names::error::kAccessDenied);
  EXPECT_EQ(client("owner").set_limits(run.id, {grace(8s)}).error, "") << "one's own needs no polkit";
  EXPECT_TRUE(systemctl({"unmask", "--runtime", "polkit.service"}));
  forget_starts();
  EXPECT_TRUE(systemctl({"start", "polkit.service"}));
  EXPECT_TRUE(runs(run));
}

TEST_F(Polkit, IsNotObeyedForAClientThatHasGone) {
  const Target run = make_run("outlives a question");
  const Rule rule(rule_for(run.id, "polkit.spawn(['sleep', '5']); return polkit.Result.YES;"));

  const auto gone = run_as(kOther, {"timeout", "2", "busctl", "call", names::kBusName, names::kManagerPath,
                                    names::kManagerInterface, "KillAnalysis", "s", run.id});
  EXPECT_EQ(gone.status, 124) << "it was answered at once: " << gone.out << gone.err;

  watchdog.let_pass(8s);
  EXPECT_TRUE(runs(run));
  EXPECT_TRUE(watchdog.events_of(run.id, "ending").empty());
}

}  // namespace
}  // namespace aw::stories
