// SPDX-License-Identifier: Apache-2.0
//
// HTTP over sockets that are listened at already: libmicrohttpd, with its epoll descriptor in our loop. Nothing here
// knows what is asked for. A connection costs a bounded amount of memory and is cut when it does not get on: half a
// request, an answer that is not read, a stream whose reader is too slow.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/unique_fd.h"
#include "loop/loop.h"
#include "web/viewer.h"

namespace aw::web {

using Text = std::shared_ptr<const std::string>;
inline Text make_text(std::string text) { return std::make_shared<const std::string>(std::move(text)); }

struct Answer {
  unsigned status = 200;
  std::string type = "application/json";
  Text body;
  std::vector<std::pair<std::string, std::string>> headers = {};  ///< besides those that every answer has
  /// Of the room for answers on their way, in quarters: it is refused where more than this is taken. What is for those
  /// who see all may take all of it.
  unsigned room = 4;
};

/// What came in, raw: the target with its escapes, headers as they were sent ("" where there was none).
struct Request {
  std::string method;
  std::string target;
  std::string host;
  std::string authorization;
  std::string cookie;
  std::string content_type;
  std::string accept;
  std::string last_event_id;
  std::string fetch_site;
  std::string body;
  std::optional<Peer> peer;  ///< over a unix socket
  bool further_out = false;  ///< at a socket that more than this host may reach
};

/// One request, until it is answered. Whoever holds it may outlive the connection: then answers go nowhere.
class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual const Request& request() const = 0;
  virtual bool is_open() const = 0;
  /// Once. May be called later, from the loop.
  virtual void answer(Answer answer) = 0;
  /// The same with a body that never ends; send() adds to it. `on_closed` when the reader has gone or was cut off.
  virtual void begin_stream(Answer head, std::function<void()> on_closed) = 0;
  virtual void send(Text text) = 0;
  /// The same of all that there is at first, however much that may be: it does not count as unread until it has left.
  /// What there is at first once more, before that, does count.
  virtual void send_beginning(const std::vector<Text>& texts) = 0;
  /// Ends the stream. `on_closed` follows.
  virtual void end_stream() = 0;
};

/// What was done so far, and what is going on.
struct ServerCounts {
  std::map<unsigned, std::uint64_t> answers = {};  ///< by status
  std::size_t connections = 0;
  std::size_t body_bytes = 0;    ///< of answers on their way; what several have in common is counted once
  std::size_t stream_bytes = 0;  ///< the same of what streams have not read yet
};

struct ServerLimits {
  unsigned connections = 2000;               ///< on each socket
  unsigned connections_of_one = 500;         ///< of these, of one uid, at a unix socket
  std::size_t connection_memory = 24 << 10;  ///< of a request's head, and for sending
  std::size_t request_body = 4 << 10;
  std::size_t unsent = 4 << 20;                  ///< of a stream that is not read, besides its beginning
  std::size_t all_bodies = 256 << 20;            ///< of answers on their way; beyond it there are no more
  std::size_t all_streams = 128 << 20;           ///< unread of all of them; beyond it the slowest is cut off
  Span request_time = std::chrono::seconds{15};  ///< for the head and body of one, or until the next one comes
  Span answer_time = std::chrono::minutes{1};    ///< for reading it
};

class Server {
 public:
  using OnRequest = std::function<void(std::shared_ptr<Exchange>)>;

  /// Of sockets that are listened at. `loop` outlives it.
  static Result<std::unique_ptr<Server>> start(loop::Loop& loop, std::vector<UniqueFd> sockets, ServerLimits limits,
                                               OnRequest on_request);
  virtual ~Server() = default;
  virtual ServerCounts counts() const = 0;
  /// Cuts all connections. Nothing is called any more.
  virtual void stop() = 0;
};

/// Binds and listens: ADDRESS:PORT, with port 0 any, or the path of a unix socket, which everybody may connect to.
Result<UniqueFd> open_listener(const std::string& address);

/// Whether more than this host may reach it: it is none of a loopback address, and no unix socket.
bool listens_further_out(int socket);

}  // namespace aw::web
