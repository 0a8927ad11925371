// SPDX-License-Identifier: Apache-2.0
#include "web/viewer.h"

#include <fcntl.h>
#include <nettle/hmac.h>
#include <nettle/memops.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "base/unique_fd.h"
#include "web/request.h"

namespace aw::web {
namespace {

using Digest = std::array<std::uint8_t, SHA256_DIGEST_SIZE>;

const std::uint8_t* bytes_of(std::string_view text) { return reinterpret_cast<const std::uint8_t*>(text.data()); }

Digest keyed_hash(std::string_view key, std::string_view text) {
  hmac_sha256_ctx context{};
  ::nettle_hmac_sha256_set_key(&context, key.size(), bytes_of(key));
  ::nettle_hmac_sha256_update(&context, text.size(), bytes_of(text));
  Digest digest{};
  ::nettle_hmac_sha256_digest(&context, digest.size(), digest.data());
  return digest;
}

std::string hex(const Digest& digest) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const std::uint8_t byte : digest) {
    text += kDigits[byte >> 4U];
    text += kDigits[byte & 0x0fU];
  }
  return text;
}

/// Compares hashes of the two, so that neither length nor content shows in the time that it takes.
bool same(std::string_view a, std::string_view b) {
  const Digest first = keyed_hash("compare", a);
  const Digest second = keyed_hash("compare", b);
  return ::nettle_memeql_sec(first.data(), second.data(), first.size()) != 0;
}

}  // namespace

std::optional<Peer> read_peer(int socket) {
  ucred credentials{};
  socklen_t size = sizeof(credentials);
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) < 0) return std::nullopt;
  if (credentials.uid == static_cast<uid_t>(-1)) return std::nullopt;
  Peer peer{credentials.uid, {credentials.gid}};
  std::vector<gid_t> groups(64);
  for (;;) {
    auto bytes = static_cast<socklen_t>(groups.size() * sizeof(gid_t));
    if (::getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &bytes) == 0) {
      groups.resize(bytes / sizeof(gid_t));
      peer.groups.insert(peer.groups.end(), groups.begin(), groups.end());
      return peer;
    }
    if (errno != ERANGE || groups.size() > 65536) return peer;
    groups.resize(bytes / sizeof(gid_t) + 1);
  }
}

Gatekeeper::Gatekeeper(Trusted trusted) : trusted_(std::move(trusted)) {
  if (has_token()) session_ = hex(keyed_hash(trusted_.token, "analysis-watchdog-web session"));
}

bool Gatekeeper::is_token(std::string_view text) const { return has_token() && same(text, trusted_.token); }

Viewer Gatekeeper::judge(const Peer& peer) const {
  const auto& uids = trusted_.uids;
  const auto& groups = trusted_.groups;
  const bool all =
      std::find(uids.begin(), uids.end(), peer.uid) != uids.end() ||
      std::find_first_of(peer.groups.begin(), peer.groups.end(), groups.begin(), groups.end()) != peer.groups.end();
  return all ? Viewer{Sight::kAll} : Viewer{Sight::kOwn, peer.uid};
}

Result<Viewer> Gatekeeper::judge(const std::optional<Peer>& peer, std::string_view authorization,
                                 std::string_view cookies) const {
  if (!authorization.empty()) {
    const auto token = find_bearer(authorization);
    if (!token) return invalid("the Authorization header is no \"Bearer TOKEN\"");
    if (!has_token()) return invalid("this gateway has no token; TokenFile= in [Web] of analysis-watchdog.conf(5)");
    if (!is_token(*token)) return invalid("the token is not the right one");
    return Viewer{Sight::kAll};
  }
  const auto session = find_cookie(cookies, kSessionCookie);
  if (session && has_token() && same(*session, session_)) return Viewer{Sight::kAll};
  return peer ? judge(*peer) : Viewer{};
}

Result<std::string> read_token(const std::string& file) {
  const UniqueFd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return errno_error("read the token from " + file);
  std::array<char, 4096> buffer{};
  const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
  if (got < 0) return errno_error("read the token from " + file);
  std::string token(buffer.data(), static_cast<std::size_t>(got));
  token.resize(std::min(token.find_first_of("\r\n"), token.size()));
  const bool plain = std::all_of(token.begin(), token.end(), [](char c) { return c > ' ' && c < '\x7f'; });
  if (token.size() < kShortestToken || token.size() > 1024 || !plain) {
    return invalid(file +
                   " holds no token: its first line must have 16 to 1024 characters of ASCII without spaces; "
                   "make one with: openssl rand -hex 32");
  }
  return token;
}

}  // namespace aw::web
