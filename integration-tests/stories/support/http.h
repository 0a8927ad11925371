// SPDX-License-Identifier: Apache-2.0
//
// Clients of the gateway: one that behaves, one that listens, and one that says whatever bytes it is given.
#pragma once

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "support/process.h"

namespace aw::stories {

using Json = nlohmann::json;

/// What an object has there; null where it hasn't, or is none.
Json at(const Json& object, const char* key);
/// The same for text; "" where it is none.
std::string word(const Json& object, const char* key);

/// How a request is made. With `unix_socket` it goes there, as whoever this process is at that moment (see As).
struct Ask {
  std::string method = "GET";
  std::vector<std::string> headers;  ///< "Name: value"; "Name:" takes one of libcurl's own away
  std::string body;
  std::string unix_socket;
  Span patience = kPatience;
};

struct Answer {
  long status = 0;                             ///< 0: none came
  std::map<std::string, std::string> headers;  ///< names in small letters
  std::string body;
  std::string error;  ///< libcurl's words where none came

  Json json() const;  ///< discarded where it is none
  std::string header(const std::string& name) const;
};

/// Asks once, and waits for the answer.
Answer ask(const std::string& url, const Ask& how = {});

/// One server-sent event.
struct ServerEvent {
  std::string kind;
  std::string id;
  std::string data;
  Instant at;  ///< when it was read

  Json json() const;
};

/// Listens to a stream of events. It reads when it is asked to, and never blocks.
class EventStream {
 public:
  explicit EventStream(const std::string& url, const Ask& how = {});
  EventStream(const EventStream&) = delete;
  EventStream& operator=(const EventStream&) = delete;
  ~EventStream();

  /// All that came up to now, oldest first.
  const std::vector<ServerEvent>& read();
  /// 0: there was no answer yet.
  long status() const;
  bool open() const { return open_; }
  std::size_t comments() const { return comments_; }

 private:
  static std::size_t take(char* data, std::size_t size, std::size_t count, void* stream);
  void take_line(const std::string& line);

  void* handle_;
  void* multi_;
  void* headers_;
  bool open_ = true;
  std::string pending_;
  ServerEvent event_;
  std::vector<ServerEvent> events_;
  std::size_t comments_ = 0;
};

/// A TCP connection to a port of this machine, for what no HTTP library would send.
class Wire {
 public:
  explicit Wire(std::uint16_t port);

  bool connected() const { return static_cast<bool>(socket_); }
  /// False once the other side takes no more.
  bool send(const std::string& bytes);
  /// What came until the other side closed, or until time was up.
  std::string read_to_end(Span patience = kPatience);
  /// What is there now.
  std::string read_some();
  /// Whether the other side has closed; what came before is kept for read_some().
  bool closed();

 private:
  UniqueFd socket_;
  std::string got_;
  bool closed_ = false;
};

}  // namespace aw::stories
