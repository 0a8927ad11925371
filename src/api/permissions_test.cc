// SPDX-License-Identifier: Apache-2.0
//
// docs/security.md against the introspection data, and the bus's policy against both: what has no row may not be there.
#include <gmock/gmock.h>

#include <fstream>
#include <regex>
#include <sstream>

#include "api/encode.h"
#include "api/service.h"
#include "testing/permission_table.h"

namespace aw::api {
namespace {

using testing::Deed;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string read_page(const std::string& name) {
  std::ifstream file(std::string(AW_SOURCE_DIR) + "/" + name);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

/// All that can be done with the manager and with an analysis, by the data that the daemon serves.
std::vector<Deed> all_deeds() {
  auto deeds = testing::deeds_of("analysis", introspect_analysis());
  const auto of_manager = testing::deeds_of("manager", introspect_manager({}));
  deeds.insert(deeds.end(), of_manager.begin(), of_manager.end());
  return deeds;
}

std::vector<std::string> described(const std::vector<Deed>& deeds) {
  std::vector<std::string> lines;
  for (const Deed& deed : deeds) lines.push_back(testing::describe(deed));
  return lines;
}

TEST(ThePageOfPermissions, HasARowForEachThingThatCanBeDoneAndNoOther) {
  std::vector<std::string> problems;
  const auto table = testing::read_permission_table(read_page("docs/security.md"), problems);

  EXPECT_THAT(problems, IsEmpty());
  EXPECT_GT(table.size(), 80U);
  EXPECT_THAT(described(testing::deeds_of(table)), ElementsAreArray(described(all_deeds())));
}

TEST(ThePageOfPermissions, LacksARowForWhateverIsAdded) {
  std::vector<std::string> problems;
  const auto table = testing::read_permission_table(read_page("docs/security.md"), problems);
  std::string xml = introspect_manager({});
  const std::string head = "<interface name=\"org.scidex.AnalysisWatchdog1.Manager\">";
  ASSERT_NE(xml.find(head), std::string::npos);
  xml.insert(xml.find(head) + head.size(),
             "<method name=\"Added\"/><property name=\"AddedToo\" type=\"s\" access=\"readwrite\"/>"
             "<signal name=\"AddedAsWell\"/>");

  std::vector<std::string> without;
  for (const Deed& deed : testing::deeds_of("manager", xml)) {
    if (!table.contains(deed)) without.push_back(testing::describe(deed));
  }

  EXPECT_THAT(without,
              ::testing::UnorderedElementsAre("manager call Manager.Added", "manager read Manager.AddedToo",
                                              "manager write Manager.AddedToo", "manager hear Manager.AddedAsWell"));
}

TEST(IntrospectionData, HasEveryMethodThatIsServedAndNoOther) {
  // Otherwise one could be called that is in no introspection data, and so in no row.
  std::vector<std::string> served;
  for (const std::string& method : Service::methods()) {
    const auto member = method.rfind('.');
    served.push_back(method.substr(method.rfind('.', member - 1) + 1));
  }
  std::vector<std::string> told;
  for (const Deed& deed : all_deeds()) {
    // The bus library answers Peer's itself.
    if (deed.kind == "call" && !deed.member.starts_with("Peer.")) told.push_back(deed.member);
  }
  std::sort(told.begin(), told.end());
  told.erase(std::unique(told.begin(), told.end()), told.end());

  EXPECT_THAT(served, ::testing::UnorderedElementsAreArray(told));
}

TEST(IntrospectionData, HasEveryPropertyOfAnAnalysisThatIsServedAndNoOther) {
  const supervise::Run run(1, AnalysisId::parse("x").value(), supervise::StallDetector(80, std::chrono::minutes{1}));
  std::vector<std::string> served;
  for (const auto& [name, value] : to_dict(run, {})) {
    served.push_back("analysis read Analysis." + name);
    EXPECT_THAT(introspect_analysis(),
                HasSubstr("<property name=\"" + name + "\" type=\"" + bus::signature_of(value) + "\""));
  }
  std::vector<std::string> told;
  for (const Deed& deed : testing::deeds_of("analysis", introspect_analysis())) {
    if (deed.kind == "read") told.push_back(testing::describe(deed));
  }

  EXPECT_THAT(served, ::testing::UnorderedElementsAreArray(told));
}

TEST(ThePageOfPermissions, LetsNobodyElseThanItsOwnerSeeOrTouchARun) {
  std::vector<std::string> problems;
  for (const auto& [deed, verdicts] : testing::read_permission_table(read_page("docs/security.md"), problems)) {
    const bool says_nothing = deed.member.starts_with("Peer.");  // The bus library answers it on any path.
    if (deed.object != "analysis" || says_nothing) continue;
    for (const char* stranger : {"other", "nobody"}) {
      EXPECT_THAT(verdicts.at(stranger), ::testing::AnyOf("hidden", "own")) << testing::describe(deed);
    }
  }
}

TEST(APermissionTable, IsReadRowByRowAndSaysWhatIsNone) {
  std::vector<std::string> problems;
  const auto table = testing::read_permission_table(
      "before | it |\n"
      "| object | | member | root | admin | viewer | owner | other | nobody |\n"
      "|---|---|---|---|---|---|---|---|---|\n"
      "| manager | call | `Manager.Do` | yes | yes | yes | own | ask | no |\n"
      "| manager | call | `Manager.Do` | yes | yes | yes | own | ask | no |\n"
      "| manager | call | `Manager.Dare` | yes | yes | yes | perhaps | ask | no |\n"
      "| manager | call | `Manager.Dream` | yes |\n"
      "\n"
      "| manager | call | `Manager.After` | yes | yes | yes | own | ask | no |\n",
      problems);

  EXPECT_THAT(described(testing::deeds_of(table)),
              ElementsAreArray({"manager call Manager.Dare", "manager call Manager.Do"}));
  EXPECT_EQ(table.at({"manager", "call", "Manager.Do"}).at("other"), "ask");
  EXPECT_THAT(problems, ElementsAreArray({HasSubstr("twice"), HasSubstr("perhaps"), HasSubstr("Dream")}));
}

TEST(IntrospectionData, IsReadAsWhatCanBeDone) {
  EXPECT_THAT(
      described(testing::deeds_of("analysis",
                                  "<interface name=\"a.b.Analysis\"><method name=\"Do\"><arg name=\"x\"/></method>"
                                  "<signal name=\"Done\"/><property name=\"P\" type=\"s\" access=\"readwrite\"/>"
                                  "<property name=\"Q\" type=\"s\" access=\"read\"></property></interface>")),
      ElementsAreArray({"analysis call Analysis.Do", "analysis hear Analysis.Done", "analysis read Analysis.P",
                        "analysis read Analysis.Q", "analysis write Analysis.P"}));
}

// ---- the bus's policy ----

TEST(TheBussPolicy, AllowsEachCallByNameAndNoOther) {
  std::string policy = read_page("units/org.scidex.AnalysisWatchdog1.conf");
  policy = std::regex_replace(policy, std::regex("<!--[^]*?-->"), "");
  std::vector<std::string> expected;
  for (const Deed& deed : all_deeds()) {
    if (deed.kind == "call") expected.push_back(deed.member);
  }
  std::sort(expected.begin(), expected.end());
  expected.erase(std::unique(expected.begin(), expected.end()), expected.end());

  static const std::regex kAllow(
      "<allow send_destination=\"org.scidex.AnalysisWatchdog1\"\\s+send_interface=\"([\\w.]+)\"\\s+"
      "send_member=\"(\\w+)\"/>");
  std::vector<std::string> allowed;
  for (std::sregex_iterator at(policy.begin(), policy.end(), kAllow); at != std::sregex_iterator(); ++at) {
    const std::string interface = (*at)[1];
    allowed.push_back(interface.substr(interface.rfind('.') + 1) + "." + std::string((*at)[2]));
  }
  std::sort(allowed.begin(), allowed.end());

  EXPECT_THAT(allowed, ElementsAreArray(expected));
  // Nothing else is let through: one rule to own the name, one to hear us, one for root's signals, the calls.
  std::size_t rules = 0;
  for (auto at = policy.find("<allow "); at != std::string::npos; at = policy.find("<allow ", at + 1)) ++rules;
  EXPECT_EQ(rules, expected.size() + 3);
}

TEST(TheBussPolicy, LetsNobodyButRootSendTheDaemonSignals) {
  const std::string policy =
      std::regex_replace(read_page("units/org.scidex.AnalysisWatchdog1.conf"), std::regex("<!--[^]*?-->"), "");
  const std::string signals = " send_destination=\"org.scidex.AnalysisWatchdog1\" send_type=\"signal\"/>";
  const auto roots = policy.find("<policy user=\"root\">");
  ASSERT_NE(roots, std::string::npos);
  const auto denied = policy.find("<deny" + signals);
  ASSERT_NE(denied, std::string::npos);
  // The last rule that fits decides, and those for a user come after those for everybody.
  EXPECT_LT(policy.rfind("<allow ", roots), denied);
  EXPECT_LT(denied, roots);
  EXPECT_GT(policy.find("<allow" + signals), roots);
  EXPECT_NE(policy.find("<allow" + signals), std::string::npos);
}

}  // namespace
}  // namespace aw::api
