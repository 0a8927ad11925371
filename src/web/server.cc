// SPDX-License-Identifier: Apache-2.0
#include "web/server.h"

#include <arpa/inet.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <list>
#include <set>
#include <unordered_map>

#include "base/numbers.h"

namespace aw::web {
namespace {

/// A page of ours runs its own scripts, talks to us, and is shown in nobody's frame.
constexpr char kContentSecurityPolicy[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'";

std::string header_of(MHD_Connection* connection, const char* name) {
  const char* value = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
  return value == nullptr ? "" : value;
}

/// All of them, as one that can't be a host where there are several: which of them a proxy before us has looked at is
/// not known (RFC 9112, 3.2).
std::string hosts_of(MHD_Connection* connection) {
  std::string hosts;
  const auto add = [](void* all, MHD_ValueKind, const char* name, const char* value) -> MHD_Result {
    auto& text = *static_cast<std::string*>(all);
    if (::strcasecmp(name, "Host") == 0)
      text += (text.empty() ? "" : ", ") + std::string(value == nullptr ? "" : value);
    return MHD_YES;
  };
  (void)MHD_get_connection_values(connection, MHD_HEADER_KIND, add, &hosts);
  return hosts;
}

/// Before anything was asked: libmicrohttpd has no words for a connection that is one too many.
void turn_away(int socket) {
  constexpr std::string_view kAnswer =
      "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 10\r\nContent-Type: application/json\r\n"
      "Content-Length: 64\r\n\r\n{\"error\":\"this user has too many connections open here already\"}";
  (void)::send(socket, kAnswer.data(), kAnswer.size(), MSG_NOSIGNAL | MSG_DONTWAIT);  // It is best effort.
  (void)::shutdown(socket, SHUT_RDWR);
}

/// How late a connection may be cut that does not get on.
constexpr Span kSweep = std::chrono::seconds{1};

/// What is held for readers. A text that many wait for is there once, and counts once.
class HeldTexts {
 public:
  void add(const Text& text) {
    if (++uses_[text.get()] == 1) bytes_ += text->size();
  }
  void remove(const Text& text) {
    const auto use = uses_.find(text.get());
    if (--use->second > 0) return;
    uses_.erase(use);
    bytes_ -= text->size();
  }
  std::size_t bytes() const { return bytes_; }

 private:
  std::unordered_map<const std::string*, std::size_t> uses_;
  std::size_t bytes_ = 0;
};

/// libmicrohttpd takes memory for a response to be its own business; here it is shared, and counted.
struct Shared {
  Text body;
  HeldTexts* held;
};

void release(void* data) {
  auto* shared = static_cast<Shared*>(data);
  shared->held->remove(shared->body);
  delete shared;
}

}  // namespace

namespace {

class HttpServer;

/// A connection, from the first byte to the last.
struct Link {
  int fd = -1;
  bool further_out = false;
  Instant deadline = kNever;      ///< by when it has to have got on
  std::size_t* beside = nullptr;  ///< how many there are at the same socket
  std::optional<Peer> peer = {};  ///< at a unix socket
  std::list<Link*>::iterator place;
};

class HttpExchange final : public Exchange, public std::enable_shared_from_this<HttpExchange> {
 public:
  HttpExchange(HttpServer& server, std::string target) : server_(&server) { request_.target = std::move(target); }

  const Request& request() const override { return request_; }
  bool is_open() const override { return server_ != nullptr && !cut_; }
  void answer(Answer answer) override;
  void begin_stream(Answer head, std::function<void()> on_closed) override;
  void send(Text text) override;
  void send_beginning(const std::vector<Text>& texts) override;
  void end_stream() override {
    if (is_open() && stream_) shut();
  }

  MHD_Result on_access(MHD_Connection* connection, const char* method, const char* data, std::size_t* size);
  void on_completed();
  /// Of a stream that is open: how far it is behind, first besides what it began with.
  std::optional<std::pair<std::size_t, std::size_t>> lag() const;
  /// What is on its way does not go on for ever: the reader is not there, or too slow to be worth it.
  void shut();
  /// Lets libmicrohttpd end the connection: it may not be stopped while one is suspended.
  void cut();

 private:
  enum class Counts { kAsUnread, kNot };

  static ssize_t read(void* cls, std::uint64_t position, char* buffer, std::size_t most);
  ssize_t read(char* buffer, std::size_t most);
  void begin(MHD_Connection* connection, const char* method);
  MHD_Result queue();
  MHD_Result refuse_body();
  MHD_Response* make_response();
  void resume();
  void put(Text text, Counts counts);
  void check_unsent();
  void drop_unsent();

  HttpServer* server_;  ///< null when the connection is done with
  MHD_Connection* connection_ = nullptr;
  Link* link_ = nullptr;
  Request request_;
  bool begun_ = false, too_large_ = false, dispatched_ = false, suspended_ = false, cut_ = false;
  bool queued_ = false;
  std::optional<Answer> answer_;
  // Of a stream.
  bool stream_ = false;
  std::function<void()> on_closed_;
  std::deque<Text> unsent_;
  std::size_t unsent_bytes_ = 0;
  std::size_t exempt_ = 0;  ///< of those: what is not counted against the reader
  bool beginning_ = false;  ///< a part of the beginning is among those
  std::size_t sent_of_first_ = 0;
};

class HttpServer final : public Server {
 public:
  HttpServer(loop::Loop& loop, ServerLimits limits, OnRequest on_request)
      : loop_(loop), limits_(limits), on_request_(std::move(on_request)) {}
  ~HttpServer() override { stop(); }
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  Result<void> start(std::vector<UniqueFd> sockets);
  void stop() override;

  void kick() {
    if (run_) loop::Loop::schedule(run_);
  }
  Instant in(Span span) const { return add_span(loop_.now().monotonic, span); }
  const ServerLimits& limits() const { return limits_; }
  void handle(std::shared_ptr<Exchange> exchange) { on_request_(std::move(exchange)); }
  HeldTexts& bodies() { return bodies_; }
  HeldTexts& stream_texts() { return stream_texts_; }
  ServerCounts counts() const override { return {answers_, links_.size(), bodies_.bytes(), stream_texts_.bytes()}; }
  bool is_crowded(const Link& link) const { return *link.beside > limits_.connections / 3 * 2; }
  /// Cuts off the slowest streams until what is left unread is not too much.
  void bound_streams();
  void count(unsigned status) { ++answers_[status]; }

 private:
  struct Front {
    MHD_Daemon* daemon = nullptr;
    bool is_unix = false;
    bool further_out = false;
    std::size_t connections = 0;
    std::map<uid_t, unsigned> of_uid{};  ///< at a unix socket
    HttpServer* server = nullptr;
    loop::Source source;
  };

  static void* on_target(void* cls, const char* target, MHD_Connection*) {
    HttpServer& server = *static_cast<Front*>(cls)->server;
    auto exchange = std::make_shared<HttpExchange>(server, target);
    server.exchanges_.insert(exchange.get());
    // Owned by the connection until it says that it has completed.
    return new std::shared_ptr<HttpExchange>(std::move(exchange));
  }
  static MHD_Result on_access(void*, MHD_Connection* connection, const char*, const char* method, const char*,
                              const char* data, std::size_t* size, void** exchange) {
    if (*exchange == nullptr) return MHD_NO;
    const auto held = *static_cast<std::shared_ptr<HttpExchange>*>(*exchange);
    return held->on_access(connection, method, data, size);
  }
  static void on_completed(void* cls, MHD_Connection*, void** exchange, MHD_RequestTerminationCode) {
    auto* held = static_cast<std::shared_ptr<HttpExchange>*>(*exchange);
    if (held == nullptr) return;
    static_cast<Front*>(cls)->server->exchanges_.erase(held->get());
    (*held)->on_completed();
    delete held;
    *exchange = nullptr;
  }
  static void on_connection(void* cls, MHD_Connection* connection, void** context, MHD_ConnectionNotificationCode what);
  static std::size_t leave_escapes(void*, MHD_Connection*, char* text) { return std::strlen(text); }

  void run();
  void look_after();

  loop::Loop& loop_;
  const ServerLimits limits_;
  const OnRequest on_request_;
  std::list<Front> fronts_;
  std::list<Link*> links_;
  std::set<HttpExchange*> exchanges_;
  HeldTexts bodies_, stream_texts_;
  std::map<unsigned, std::uint64_t> answers_;
  loop::Source run_;
  loop::Source timeout_;
  loop::Source sweep_;
};

// ---- one exchange ----

void HttpExchange::begin(MHD_Connection* connection, const char* method) {
  begun_ = true;
  connection_ = connection;
  request_.method = method;
  request_.host = hosts_of(connection);
  request_.authorization = header_of(connection, "Authorization");
  request_.cookie = header_of(connection, "Cookie");
  request_.content_type = header_of(connection, "Content-Type");
  request_.accept = header_of(connection, "Accept");
  request_.last_event_id = header_of(connection, "Last-Event-ID");
  request_.fetch_site = header_of(connection, "Sec-Fetch-Site");
  const auto* context = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
  link_ = context == nullptr ? nullptr : static_cast<Link*>(context->socket_context);
  if (link_ != nullptr) request_.peer = link_->peer;
  request_.further_out = link_ != nullptr && link_->further_out;
}

MHD_Result HttpExchange::on_access(MHD_Connection* connection, const char* method, const char* data,
                                   std::size_t* size) {
  if (!begun_) {
    begin(connection, method);
    const auto length = parse_number<std::uint64_t>(header_of(connection, "Content-Length"));
    return length && *length > server_->limits().request_body ? refuse_body() : MHD_YES;
  }
  if (*size > 0) {
    too_large_ |= request_.body.size() + *size > server_->limits().request_body;
    if (!too_large_) request_.body.append(data, *size);
    *size = 0;
    return MHD_YES;
  }
  if (answer_) return queue();
  if (too_large_) return refuse_body();
  if (!std::exchange(dispatched_, true)) {
    if (link_ != nullptr) link_->deadline = kNever;  // It is our turn.
    server_->handle(shared_from_this());
    if (answer_) return queue();
  }
  suspended_ = true;
  MHD_suspend_connection(connection);
  return MHD_YES;
}

MHD_Result HttpExchange::refuse_body() {
  answer_ = Answer{413,
                   "application/json",
                   make_text(R"({"error":"the body of a request here has a few KiB at most"})"),
                   {{"Connection", "close"}}};
  return queue();
}

MHD_Response* HttpExchange::make_response() {
  if (stream_) {
    return MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, 4096, &HttpExchange::read, new std::shared_ptr<HttpExchange>(shared_from_this()),
        [](void* cls) { delete static_cast<std::shared_ptr<HttpExchange>*>(cls); });
  }
  auto* shared = new Shared{answer_->body, &server_->bodies()};
  shared->held->add(shared->body);
  // libmicrohttpd never writes to it.
  return MHD_create_response_from_buffer_with_free_callback_cls(
      shared->body->size(), const_cast<char*>(shared->body->data()), &release, shared);
}

MHD_Result HttpExchange::queue() {
  if (queued_) return MHD_NO;
  queued_ = true;
  if (!answer_->body) answer_->body = make_text("");
  if (server_->bodies().bytes() > server_->limits().all_bodies / 4 * answer_->room) {
    stream_ = false;
    answer_ = Answer{503,
                     "application/json",
                     make_text("{\"error\":\"too many answers are on their way to readers that are slow to take them; "
                               "try again in a minute\"}"),
                     {{"Retry-After", "60"}}};
  }
  server_->count(answer_->status);
  MHD_Response* response = make_response();
  if (response == nullptr) return MHD_NO;
  const auto add = [&](const char* name, const std::string& value) {
    (void)MHD_add_response_header(response, name, value.c_str());  // Fails for lack of memory, or a bug of ours.
  };
  if (!answer_->type.empty()) add("Content-Type", answer_->type);
  add("Content-Security-Policy", kContentSecurityPolicy);
  add("X-Content-Type-Options", "nosniff");
  add("X-Frame-Options", "DENY");
  add("Referrer-Policy", "no-referrer");
  add("Cross-Origin-Resource-Policy", "same-origin");
  // Who has been answered makes room for the next.
  if (link_ != nullptr && server_->is_crowded(*link_) && !stream_) add("Connection", "close");
  bool cached = false;
  for (const auto& [name, value] : answer_->headers) {
    cached |= name == "Cache-Control";
    add(name.c_str(), value);
  }
  if (!cached) add("Cache-Control", "no-store");
  const MHD_Result queued = MHD_queue_response(connection_, answer_->status, response);
  MHD_destroy_response(response);
  if (link_ != nullptr) link_->deadline = stream_ ? kNever : server_->in(server_->limits().answer_time);
  return queued;
}

void HttpExchange::resume() {
  if (!std::exchange(suspended_, false)) return;
  MHD_resume_connection(connection_);
  server_->kick();
}

void HttpExchange::answer(Answer answer) {
  if (!is_open() || answer_) return;
  answer_ = std::move(answer);
  resume();
}

void HttpExchange::begin_stream(Answer head, std::function<void()> on_closed) {
  if (!is_open() || answer_) return;
  stream_ = true;
  on_closed_ = std::move(on_closed);
  answer(std::move(head));
}

void HttpExchange::send(Text text) {
  if (!is_open() || !stream_) return;
  put(std::move(text), Counts::kAsUnread);
  check_unsent();
}

void HttpExchange::send_beginning(const std::vector<Text>& texts) {
  if (!is_open() || !stream_) return;
  const Counts counts = std::exchange(beginning_, true) ? Counts::kAsUnread : Counts::kNot;
  for (const Text& text : texts) put(text, counts);
  check_unsent();
}

void HttpExchange::put(Text text, Counts counts) {
  if (text->empty()) return;
  unsent_bytes_ += text->size();
  server_->stream_texts().add(text);
  // Who had read all before is not slow, however much this one is.
  if (counts == Counts::kNot || unsent_bytes_ == text->size()) exempt_ += text->size();
  unsent_.push_back(std::move(text));
}

void HttpExchange::check_unsent() {
  if (unsent_bytes_ - exempt_ > server_->limits().unsent) return shut();
  server_->bound_streams();
  resume();
}

std::optional<std::pair<std::size_t, std::size_t>> HttpExchange::lag() const {
  if (!is_open() || !stream_) return std::nullopt;
  return std::pair(unsent_bytes_ - exempt_, unsent_bytes_);
}

void HttpExchange::drop_unsent() {
  for (const Text& text : unsent_) server_->stream_texts().remove(text);
  unsent_.clear();
  unsent_bytes_ = exempt_ = sent_of_first_ = 0;
}

void HttpExchange::shut() {
  cut_ = true;
  drop_unsent();
  if (link_ != nullptr) (void)::shutdown(link_->fd, SHUT_RDWR);  // Wakes libmicrohttpd, which then sees the end.
  resume();
}

void HttpExchange::cut() {
  cut_ = true;
  if (!answer_) answer_ = Answer{503, "application/json", make_text("{\"error\":\"the gateway is stopping\"}"), {}};
  if (std::exchange(suspended_, false)) MHD_resume_connection(connection_);
}

ssize_t HttpExchange::read(void* cls, std::uint64_t, char* buffer, std::size_t most) {
  const auto self = *static_cast<std::shared_ptr<HttpExchange>*>(cls);
  return self->read(buffer, most);
}

ssize_t HttpExchange::read(char* buffer, std::size_t most) {
  if (cut_ || server_ == nullptr) return MHD_CONTENT_READER_END_WITH_ERROR;
  std::size_t size = 0;
  while (size < most && !unsent_.empty()) {
    const std::string& first = *unsent_.front();
    const std::size_t part = std::min(most - size, first.size() - sent_of_first_);
    std::memcpy(buffer + size, first.data() + sent_of_first_, part);
    size += part;
    sent_of_first_ += part;
    unsent_bytes_ -= part;
    exempt_ -= std::min(exempt_, part);
    beginning_ &= exempt_ > 0;
    if (sent_of_first_ == first.size()) {
      server_->stream_texts().remove(unsent_.front());
      unsent_.pop_front();
      sent_of_first_ = 0;
    }
  }
  if (size == 0) {
    suspended_ = true;
    MHD_suspend_connection(connection_);
  }
  return static_cast<ssize_t>(size);
}

void HttpExchange::on_completed() {
  if (link_ != nullptr && server_ != nullptr) link_->deadline = server_->in(server_->limits().request_time);
  if (server_ != nullptr) drop_unsent();
  server_ = nullptr;
  link_ = nullptr;
  if (const auto closed = std::exchange(on_closed_, {})) closed();
}

// ---- all of them ----

void HttpServer::on_connection(void* cls, MHD_Connection* connection, void** context,
                               MHD_ConnectionNotificationCode what) {
  auto* front = static_cast<Front*>(cls);
  HttpServer& server = *front->server;
  if (what == MHD_CONNECTION_NOTIFY_STARTED) {
    auto* link = new Link{};
    const auto* info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    link->fd = info == nullptr ? -1 : info->connect_fd;
    link->further_out = front->further_out;
    link->beside = &front->connections;
    ++front->connections;
    link->deadline = server.in(server.limits_.request_time);
    if (server.links_.empty()) loop::Loop::set_timer(server.sweep_, server.in(kSweep));
    link->place = server.links_.insert(server.links_.end(), link);
    *context = link;
    if (front->is_unix) link->peer = read_peer(link->fd);
    if (link->peer && ++front->of_uid[link->peer->uid] > server.limits_.connections_of_one) turn_away(link->fd);
    return;
  }
  auto* link = static_cast<Link*>(*context);
  if (link == nullptr) return;
  if (link->peer && --front->of_uid[link->peer->uid] == 0) front->of_uid.erase(link->peer->uid);
  server.links_.erase(link->place);
  --*link->beside;
  delete link;
  *context = nullptr;
}

void HttpServer::bound_streams() {
  while (stream_texts_.bytes() > limits_.all_streams) {
    const auto slowest =
        std::max_element(exchanges_.begin(), exchanges_.end(),
                         [](const HttpExchange* a, const HttpExchange* b) { return a->lag() < b->lag(); });
    if (slowest == exchanges_.end() || !(*slowest)->lag()) return;  // Nobody is left who holds any.
    (*slowest)->shut();
  }
}

Result<void> HttpServer::start(std::vector<UniqueFd> sockets) {
  auto deferred = loop_.add_deferred("http", [this](const Now&) { run(); });
  if (!deferred) return std::move(deferred).error();
  run_ = std::move(*deferred);
  auto timeout = loop_.add_timer(loop::Priority::kBus, "http timeout", [this](const Now&) { run(); });
  if (!timeout) return std::move(timeout).error();
  timeout_ = std::move(*timeout);
  // No lower than the requests: as long as they come in, nothing below them has its turn.
  auto sweep = loop_.add_timer(loop::Priority::kBus, "http deadlines", [this](const Now&) { look_after(); });
  if (!sweep) return std::move(sweep).error();
  sweep_ = std::move(*sweep);
  for (UniqueFd& socket : sockets) {
    sockaddr_storage address{};
    socklen_t size = sizeof(address);
    if (::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size) < 0)
      return errno_error("getsockname");
    Front& front = fronts_.emplace_back();
    front.is_unix = address.ss_family == AF_UNIX;
    front.further_out = listens_further_out(socket.get());
    front.server = this;
    front.daemon =
        MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, nullptr, nullptr, &HttpServer::on_access, &front,
                         MHD_OPTION_LISTEN_SOCKET, socket.get(), MHD_OPTION_CONNECTION_LIMIT, limits_.connections,
                         MHD_OPTION_CONNECTION_MEMORY_LIMIT, limits_.connection_memory, MHD_OPTION_CONNECTION_TIMEOUT,
                         60U, MHD_OPTION_URI_LOG_CALLBACK, &HttpServer::on_target, &front, MHD_OPTION_UNESCAPE_CALLBACK,
                         &HttpServer::leave_escapes, nullptr, MHD_OPTION_NOTIFY_COMPLETED, &HttpServer::on_completed,
                         &front, MHD_OPTION_NOTIFY_CONNECTION, &HttpServer::on_connection, &front,
                         MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
    if (front.daemon == nullptr) return errno_error("start serving HTTP");
    (void)socket.release();  // libmicrohttpd closes it.
    const auto* info = MHD_get_daemon_info(front.daemon, MHD_DAEMON_INFO_EPOLL_FD);
    if (info == nullptr) return invalid("libmicrohttpd has no epoll descriptor here");
    auto source =
        loop_.watch_fd(info->epoll_fd, EPOLLIN, loop::Priority::kBus, "http requests", [this](const Now&) { run(); });
    if (!source) return std::move(source).error();
    front.source = std::move(*source);
  }
  return {};
}

void HttpServer::run() {
  Instant due = kNever;
  for (const Front& front : fronts_) {
    (void)MHD_run(front.daemon);  // Fails for what it has told its connections already.
    MHD_UNSIGNED_LONG_LONG wait = 0;
    if (MHD_get_timeout(front.daemon, &wait) == MHD_YES) {
      due = std::min(due, in(std::chrono::milliseconds{static_cast<std::int64_t>(std::min(wait, 60'000ULL))}));
    }
  }
  loop::Loop::set_timer(timeout_, due);
}

/// libmicrohttpd's own timeout starts again with each byte; this one does not.
void HttpServer::look_after() {
  const Instant now = loop_.now().monotonic;
  for (const Link* link : links_) {
    if (now >= link->deadline) (void)::shutdown(link->fd, SHUT_RDWR);
  }
  if (!links_.empty()) loop::Loop::set_timer(sweep_, in(kSweep));
}

void HttpServer::stop() {
  run_.reset();
  timeout_.reset();
  sweep_.reset();
  for (Front& front : fronts_) {
    front.source.reset();
    if (front.daemon == nullptr) continue;
    for (Link* link : links_) (void)::shutdown(link->fd, SHUT_RDWR);
    for (HttpExchange* exchange : exchanges_) exchange->cut();
    (void)MHD_run(front.daemon);
    MHD_stop_daemon(std::exchange(front.daemon, nullptr));
  }
  fronts_.clear();
}

}  // namespace

Result<std::unique_ptr<Server>> Server::start(loop::Loop& loop, std::vector<UniqueFd> sockets, ServerLimits limits,
                                              OnRequest on_request) {
  auto server = std::make_unique<HttpServer>(loop, limits, std::move(on_request));
  if (auto started = server->start(std::move(sockets)); !started) return std::move(started).error();
  return std::unique_ptr<Server>(std::move(server));
}

bool listens_further_out(int socket) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  if (::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) < 0)
    return true;  // It is not known to be safe.
  if (address.ss_family == AF_UNIX) return false;
  const auto is_loopback = [](std::uint32_t ipv4) { return ntohl(ipv4) >> 24U == IN_LOOPBACKNET; };
  if (address.ss_family == AF_INET) return !is_loopback(reinterpret_cast<const sockaddr_in&>(address).sin_addr.s_addr);
  if (address.ss_family != AF_INET6) return true;
  const in6_addr& ipv6 = reinterpret_cast<const sockaddr_in6&>(address).sin6_addr;
  if (!IN6_IS_ADDR_V4MAPPED(&ipv6)) return !IN6_IS_ADDR_LOOPBACK(&ipv6);
  std::uint32_t mapped = 0;
  std::memcpy(&mapped, &ipv6.s6_addr[12], sizeof(mapped));
  return !is_loopback(mapped);
}

Result<UniqueFd> open_listener(const std::string& address) {
  const bool path = address.starts_with('/');
  sockaddr_storage storage{};
  socklen_t size = 0;
  if (path) {
    auto* name = reinterpret_cast<sockaddr_un*>(&storage);
    if (address.size() >= sizeof(name->sun_path)) return invalid(address + " is too long for a socket");
    name->sun_family = AF_UNIX;
    std::memcpy(name->sun_path, address.c_str(), address.size() + 1);
    size = sizeof(*name);
    struct stat found {};
    if (::lstat(address.c_str(), &found) == 0 && S_ISSOCK(found.st_mode)) (void)::unlink(address.c_str());
  } else {
    const std::size_t colon = address.rfind(':');
    const auto port =
        colon == std::string::npos ? std::nullopt : parse_number<std::uint16_t>(address.substr(colon + 1));
    if (!port) return invalid(address + " is not ADDRESS:PORT");
    std::string host = address.substr(0, colon);
    if (host.starts_with('[')) {
      auto* name = reinterpret_cast<sockaddr_in6*>(&storage);
      name->sin6_family = AF_INET6;
      name->sin6_port = htons(*port);
      if (::inet_pton(AF_INET6, host.substr(1, host.size() - 2).c_str(), &name->sin6_addr) != 1) {
        return invalid(address + " is not ADDRESS:PORT");
      }
      size = sizeof(*name);
    } else {
      auto* name = reinterpret_cast<sockaddr_in*>(&storage);
      name->sin_family = AF_INET;
      name->sin_port = htons(*port);
      if (::inet_pton(AF_INET, host.c_str(), &name->sin_addr) != 1) return invalid(address + " is not ADDRESS:PORT");
      size = sizeof(*name);
    }
  }
  UniqueFd socket(::socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return errno_error("socket for " + address);
  const int on = 1;
  if (!path) (void)::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (::bind(socket.get(), reinterpret_cast<sockaddr*>(&storage), size) < 0) return errno_error("listen at " + address);
  // Who connects is known by the kernel's word, so everybody may.
  if (path && ::chmod(address.c_str(), 0666) < 0) return errno_error("listen at " + address);
  if (::listen(socket.get(), SOMAXCONN) < 0) return errno_error("listen at " + address);
  return socket;
}

}  // namespace aw::web
