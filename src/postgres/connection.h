// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "postgres/fault.h"

namespace aw::postgres {

/// Who is wanted of the servers that the address names.
enum class Access { kReadWrite, kAny };

/// Where the shared store is, and how to talk to it.
struct Target {
  /// PostgresUri=: what psql takes, several hosts included. It holds no password.
  std::string uri;
  /// search_path: the first schema is where our tables are, or are made. Empty: the role's own.
  std::vector<std::string> schemas;
  /// Of the password: libpq's passfile, or a file that holds just the password (a systemd credential, whose mode libpq
  /// would not take for a passfile's). At most one of them.
  std::filesystem::path passfile;
  std::filesystem::path password_file;
  std::string application_name = "analysis-watchdog";
  Access access = Access::kReadWrite;
  Span connect_timeout = std::chrono::seconds{10};  ///< for each host
  Span statement_timeout = std::chrono::seconds{30};
  /// For locks of others, on rows of `analyses` above all.
  Span lock_timeout = std::chrono::seconds{2};
};

/// The file of the systemd credential `name`, if this service was given one ($CREDENTIALS_DIRECTORY).
std::optional<std::filesystem::path> find_credential(const std::string& name);

struct Session;

/// One connection to the shared store. Every call on it waits, at most as long as the Target's timeouts say. After
/// Fault::kUnreachable it is of no more use: open another, and ask it for the cursor again.
class Connection {
 public:
  static Result<Connection> open(const Target& target);
  Connection(Connection&& other) noexcept;
  Connection& operator=(Connection&& other) noexcept;
  ~Connection();

  /// For this room.
  Session& session() { return *session_; }

 private:
  explicit Connection(std::unique_ptr<Session> session);
  std::unique_ptr<Session> session_;
};

/// The parameters that libpq is given, as "key='value' …", without the password. What `target.uri` says itself stands,
/// except that a password is refused.
Result<std::string> connection_parameters(const Target& target);

}  // namespace aw::postgres
