// SPDX-License-Identifier: Apache-2.0
//
// docs/dbus-api.md against the introspection data and the words of the interface.
#include <gmock/gmock.h>

#include <fstream>
#include <regex>
#include <sstream>

#include "analysis_watchdog/words.h"
#include "api/service.h"

namespace aw::api {
namespace {

using ::testing::HasSubstr;

std::string page() {
  std::ifstream file(std::string(AW_SOURCE_DIR) + "/docs/dbus-api.md");
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

struct Entry {
  std::string element, name, type;
};

/// Methods, signals and properties of our own interface in `xml`.
std::vector<Entry> entries_of(const std::string& xml) {
  const auto begin = xml.find("<interface name=\"org.scidex.");
  const std::string ours = xml.substr(begin, xml.find("</interface>", begin) - begin);
  static const std::regex kEntry("<(method|signal|property) name=\"(\\w+)\"(?: type=\"([^\"]+)\")?");
  std::vector<Entry> entries;
  for (std::sregex_iterator at(ours.begin(), ours.end(), kEntry); at != std::sregex_iterator(); ++at) {
    entries.push_back({(*at)[1], (*at)[2], (*at)[3]});
  }
  return entries;
}

TEST(ThePageOfTheInterface, HasEveryMethodAndSignal) {
  const auto entries = entries_of(introspect_manager({}));

  EXPECT_GT(entries.size(), 10U);
  for (const Entry& entry : entries) {
    if (entry.element == "property") continue;
    EXPECT_THAT(page(), HasSubstr(entry.element == "method" ? "| `" + entry.name + "` |" : "`" + entry.name + " ("));
  }
}

TEST(ThePageOfTheInterface, HasEveryPropertyWithItsType) {
  auto entries = entries_of(introspect_manager({}));
  const auto of_analysis = entries_of(introspect_analysis());
  entries.insert(entries.end(), of_analysis.begin(), of_analysis.end());

  EXPECT_GT(of_analysis.size(), 20U);
  for (const auto& [element, name, type] : entries) {
    if (element != "property" || name.starts_with("Default")) continue;
    EXPECT_THAT(page(), ::testing::AnyOf(HasSubstr("`" + name + " " + type + "`"),
                                         HasSubstr("| `" + name + "` | `" + type + "` |")));
  }
}

TEST(ThePageOfTheInterface, HasEveryWord) {
  const auto expect_words = [](const auto& words) {
    for (const std::string_view word : words) EXPECT_THAT(page(), HasSubstr("\n| `" + std::string(word) + "` |"));
  };

  expect_words(kStateWords);
  expect_words(kReasonWords);
  expect_words(kEventKindWords);
}

}  // namespace
}  // namespace aw::api
