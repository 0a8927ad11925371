// SPDX-License-Identifier: Apache-2.0
#include "support/faults.h"

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "support/process.h"
#include "support/units.h"

namespace aw::stories {
namespace {

constexpr char kFolder[] = "/run/failpoint-walk";

}  // namespace

std::string Fault::order(std::uint64_t hit) const { return point + "=" + act + "@" + std::to_string(hit); }

std::string Fault::saying(std::uint64_t hit) const {
  return "failpoint " + point + " hit " + std::to_string(hit) + ": " + (act == "crash" ? "crash" : "fail " + act);
}

std::string Fault::test_name() const {
  std::string name = point + "_" + act;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return c == '.' || c == '-'; }, '_');
  return name;
}

Faults list_faults(const std::string& program) {
  const auto told = run_command({program, "--failpoints"});
  Faults faults;
  std::istringstream lines(told.out);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string name;
    words >> name;
    for (std::string word; words >> word;) {
      constexpr std::string_view kFail = "fail=";
      if (!word.starts_with(kFail)) {
        faults.all.push_back({name, word});
        continue;
      }
      std::istringstream errors(word.substr(kFail.size()));
      for (std::string error; std::getline(errors, error, ',');) faults.all.push_back({name, error});
    }
  }
  if (told.status != 0 || faults.all.empty()) {
    faults.wrong = program + " --failpoints exited with status " + std::to_string(told.status) +
                   " and lists nothing to walk: " + told.err;
  }
  return faults;
}

bool is_of_shipping(const std::string& point) {
  return point.starts_with("postgres.") || point.starts_with("shipped.");
}

Sayings::Sayings(std::string identifier) : identifier_(std::move(identifier)) {
  const auto shown = run_command({"journalctl", "--boot", "--lines=1", "--show-cursor", "--quiet"});
  constexpr std::string_view kCursor = "-- cursor: ";
  const auto at = shown.out.rfind(kCursor);
  EXPECT_NE(at, std::string::npos) << "the journal has no cursor: " << shown.out << shown.err;
  if (at == std::string::npos) return;
  cursor_ = shown.out.substr(at + kCursor.size());
  cursor_.resize(cursor_.find('\n'));
}

std::vector<std::string> Sayings::read() const {
  EXPECT_EQ(run_command({"journalctl", "--sync"}).status, 0);
  const auto shown = run_command(
      {"journalctl", "--boot", "--quiet", "--output=cat", "--after-cursor=" + cursor_, "--identifier=" + identifier_});
  std::vector<std::string> lines;
  std::istringstream text(shown.out);
  for (std::string line; std::getline(text, line);) {
    if (line.starts_with("failpoint ")) lines.push_back(line);
  }
  return lines;
}

OrdersForNextStart::OrdersForNextStart(const std::string& unit)
    : next_(std::string(kFolder) + "/next-" + unit), folder_("/run/systemd/system/" + unit + ".d") {
  const std::string now = std::string(kFolder) + "/now-" + unit;
  std::filesystem::create_directories(kFolder);
  take_back();  // A walk before this one may have been broken off.
  std::filesystem::create_directories(folder_);
  write_file(folder_ + "/failpoint-walk.conf",
             "[Unit]\n"
             "StartLimitIntervalSec=0\n"
             "[Service]\n"
             "ExecStartPre=-+/bin/rm -f " +
                 now +
                 "\n"
                 "ExecStartPre=-+/bin/mv " +
                 next_ + " " + now +
                 "\n"
                 "EnvironmentFile=-" +
                 now + "\n");
  EXPECT_TRUE(systemctl({"daemon-reload"}));
}

OrdersForNextStart::~OrdersForNextStart() {
  std::filesystem::remove_all(folder_);
  EXPECT_TRUE(systemctl({"daemon-reload"}));
}

void OrdersForNextStart::leave(const std::string& orders) const { write_file(next_, "AW_FAILPOINTS=" + orders + "\n"); }

void OrdersForNextStart::take_back() const { std::filesystem::remove(next_); }

}  // namespace aw::stories
