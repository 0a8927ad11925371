// SPDX-License-Identifier: Apache-2.0
#include "support/gateway.h"

#include <sys/stat.h>

#include <filesystem>

#include "support/users.h"

namespace aw::stories {
namespace {

using namespace std::chrono_literals;

constexpr char kTokenFile[] = "/etc/analysis-watchdog/story-token";
constexpr char kDropIn[] = "/run/systemd/system/analysis-watchdog-web.service.d/60-story.conf";

/// As the manual page has it.
void give_token() {
  if (exists(kDropIn)) return;
  const mode_t mask = ::umask(0077);
  std::filesystem::create_directories(std::filesystem::path(kTokenFile).parent_path());
  write_file(kTokenFile, std::string(kToken) + "\n");
  ::umask(mask);
  std::filesystem::create_directories(std::filesystem::path(kDropIn).parent_path());
  write_file(kDropIn, std::string("[Service]\nLoadCredential=web-token:") + kTokenFile + "\n");
  EXPECT_TRUE(systemctl({"daemon-reload"}));
  EXPECT_TRUE(systemctl({"restart", kWebService}));
}

bool answers(long status) {
  const Answer answer = ask(std::string(kWebUrl) + "/healthz", {"GET", {}, "", "", 30s});
  return answer.status == status;
}

}  // namespace

std::string bearer(const std::string& token) { return "Authorization: Bearer " + token; }

void WebStory::SetUp() {
  Story::SetUp();
  (void)run_command({"systemctl", "reset-failed", kWebService});
  ASSERT_TRUE(systemctl({"start", kWebSocket}));
  give_token();
  ASSERT_TRUE(watchdog.wait_until([] { return answers(200); })) << "the gateway does not answer";
  pid_ = gateway_pid(watchdog);
  ASSERT_GT(pid_, 0);
}

void WebStory::TearDown() {
  EXPECT_TRUE(watchdog.wait_until([] { return answers(200); })) << "the gateway does not answer any more";
  EXPECT_EQ(gateway_pid(watchdog), pid_) << "the gateway is another process";
  Story::TearDown();
}

Answer WebStory::get(const std::string& path) { return ask(kWebUrl + path); }

Answer WebStory::get_by_token(const std::string& path) {
  return ask(kWebUrl + path, {"GET", {bearer()}, "", "", kPatience});
}

Answer WebStory::get_as(const std::string& user, const std::string& path) {
  const As as(user);
  return ask("http://localhost" + path, {"GET", {}, "", kWebUnixSocket, kPatience});
}

pid_t WebStory::gateway_pid(Watchdog& client) {
  return static_cast<pid_t>(unit_number(client, kWebService, "MainPID").value_or(0));
}

void WebStory::stop_daemon() {
  forget_bystander();
  ASSERT_TRUE(systemctl({"stop", kDaemonUnit}));
  ASSERT_TRUE(watchdog.wait_until([] { return answers(503); })) << "the gateway has not noticed";
}

void WebStory::start_daemon() {
  ASSERT_TRUE(systemctl({"start", kDaemonUnit}));
  ASSERT_TRUE(watchdog.wait_until([] { return answers(200); })) << "the gateway has not noticed";
}

void WebStory::restart_gateway() {
  ASSERT_TRUE(systemctl({"restart", kWebService}));
  ASSERT_TRUE(watchdog.wait_until([] { return answers(200); })) << "the next gateway does not answer";
  const pid_t next = gateway_pid(watchdog);
  EXPECT_NE(next, pid_);
  pid_ = next;
}

std::optional<ServerEvent> WebStory::await(EventStream& stream, const std::string& kind,
                                           const std::function<bool(const Json&)>& is_it, std::size_t from,
                                           Span patience) {
  std::optional<ServerEvent> found;
  (void)watchdog.wait_until(
      [&] {
        const auto& events = stream.read();
        for (; from < events.size() && !found; ++from) {
          if (events[from].kind == kind && is_it(events[from].json())) found = events[from];
        }
        return found.has_value();
      },
      patience);
  return found;
}

std::string WebStory::encoded(const std::string& text) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string path;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0) {
      path += c;
    } else {
      path += {'%', kHex[byte >> 4U], kHex[byte & 15U]};
    }
  }
  return path;
}

}  // namespace aw::stories
