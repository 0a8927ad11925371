// SPDX-License-Identifier: Apache-2.0
//
// Who looks. Over TCP anybody of this host may: they see counts and rows without names, unless they have the token.
// Over the unix socket the kernel says who it is.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace aw::web {

enum class Sight {
  kAnonymous,  ///< counts, and rows that name nobody
  kOwn,        ///< that of a uid: its own runs
  kAll,
};

struct Viewer {
  Sight sight = Sight::kAnonymous;
  uid_t uid = static_cast<uid_t>(-1);  ///< of kOwn

  /// With its names, what belongs to `owner`; nobody owns the daemon's own events, which name nobody.
  bool may_see(std::optional<uid_t> owner) const {
    return sight == Sight::kAll || (sight == Sight::kOwn && owner.value_or(uid) == uid);
  }
  bool operator==(const Viewer&) const = default;
};

/// The process at the other end of a unix socket, when it connected.
struct Peer {
  uid_t uid;
  std::vector<gid_t> groups;
};

/// Asks the kernel; nothing if it does not say.
std::optional<Peer> read_peer(int socket);

/// The cookie that a browser has instead of the token.
inline constexpr char kSessionCookie[] = "analysis_watchdog_session";

class Gatekeeper {
 public:
  struct Trusted {
    std::string token = {};          ///< empty: there is none
    std::vector<uid_t> uids{0};      ///< who see everything
    std::vector<gid_t> groups = {};  ///< the same of groups: analysis-admin, analysis-viewer
  };
  explicit Gatekeeper(Trusted trusted);

  bool has_token() const { return !trusted_.token.empty(); }
  /// Takes as long for a token that is nearly right as for any other.
  bool is_token(std::string_view text) const;
  /// What the cookie holds: it can't be made without the token, and the token can't be made of it.
  const std::string& session() const { return session_; }

  /// An error for a token that is wrong. A cookie that is not any more is as none.
  Result<Viewer> judge(const std::optional<Peer>& peer, std::string_view authorization, std::string_view cookies) const;

 private:
  Viewer judge(const Peer& peer) const;

  Trusted trusted_;
  std::string session_;
};

/// A token is at least that long: who may guess as often as they like must not get anywhere.
inline constexpr std::size_t kShortestToken = 16;

/// The first line of the file.
Result<std::string> read_token(const std::string& file);

}  // namespace aw::web
