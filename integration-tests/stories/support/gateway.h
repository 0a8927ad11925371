// SPDX-License-Identifier: Apache-2.0
//
// What the stories of the gateway begin and end with: its units are those of the package, it answers, and after the
// story it still does, from the same process unless the story restarted it.
#pragma once

#include <string>
#include <vector>

#include "support/http.h"
#include "support/story.h"

namespace aw::stories {

inline constexpr char kWebService[] = "analysis-watchdog-web.service";
inline constexpr char kWebSocket[] = "analysis-watchdog-web.socket";
inline constexpr std::uint16_t kWebPort = 8787;
inline constexpr char kWebUrl[] = "http://127.0.0.1:8787";
/// Whose peers are known by their uid.
inline constexpr char kWebUnixSocket[] = "/run/analysis-watchdog-web/http";

/// A token that the gateway takes, for as long as a story needs it.
inline constexpr char kToken[] = "a-token-of-the-stories-0123456789abcdef";
std::string bearer(const std::string& token = kToken);

class WebStory : public Story {
 protected:
  void SetUp() override;
  void TearDown() override;

  /// As somebody who hasn't said who they are; as who knows the token; as a user by the unix socket.
  static Answer get(const std::string& path);
  static Answer get_by_token(const std::string& path);
  static Answer get_as(const std::string& user, const std::string& path);

  static pid_t gateway_pid(Watchdog& client);
  /// Stops the daemon and waits until the gateway knows; starts it and waits again.
  void stop_daemon();
  void start_daemon();
  /// The old process is gone and the next one answers.
  void restart_gateway();

  /// Waits for an event of this kind that `is_it` likes among those that came after `from` others.
  std::optional<ServerEvent> await(EventStream& stream, const std::string& kind,
                                   const std::function<bool(const Json&)>& is_it, std::size_t from = 0,
                                   Span patience = kPatience);

  /// An id as it stands in a path.
  static std::string encoded(const std::string& text);

 private:
  pid_t pid_ = 0;
};

}  // namespace aw::stories
