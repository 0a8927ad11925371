// SPDX-License-Identifier: Apache-2.0
#include "support/http.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <stdexcept>

namespace aw::stories {
namespace {

struct Library {
  Library() { curl_global_init(CURL_GLOBAL_DEFAULT); }
};

CURL* new_handle(const std::string& url, const Ask& how) {
  static const Library library;
  CURL* handle = curl_easy_init();
  if (handle == nullptr) throw std::runtime_error("curl_easy_init");
  curl_easy_setopt(handle, CURLOPT_URL, url.c_str());
  curl_easy_setopt(handle, CURLOPT_PATH_AS_IS, 1L);  // "/../" is one of the things to be asked.
  curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(handle, CURLOPT_PROXY, "");  // Whatever the environment says.
  if (!how.unix_socket.empty()) curl_easy_setopt(handle, CURLOPT_UNIX_SOCKET_PATH, how.unix_socket.c_str());
  return handle;
}

curl_slist* list_of(const std::vector<std::string>& headers) {
  curl_slist* list = nullptr;
  for (const std::string& header : headers) list = curl_slist_append(list, header.c_str());
  return list;
}

std::size_t take_body(char* data, std::size_t size, std::size_t count, void* body) {
  static_cast<std::string*>(body)->append(data, size * count);
  return size * count;
}

std::size_t take_header(char* data, std::size_t size, std::size_t count, void* answer) {
  const std::string line(data, size * count);
  const std::size_t colon = line.find(':');
  if (colon != std::string::npos) {
    std::string name = line.substr(0, colon);
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    const std::size_t first = line.find_first_not_of(' ', colon + 1);
    const std::size_t last = line.find_last_not_of("\r\n ");
    static_cast<Answer*>(answer)->headers[name] =
        first == std::string::npos || last < first ? "" : line.substr(first, last + 1 - first);
  }
  return size * count;
}

long milliseconds(Span span) { return static_cast<long>(span.count() / 1000); }

}  // namespace

Json at(const Json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() ? Json() : *found;
}

std::string word(const Json& object, const char* key) {
  const Json value = at(object, key);
  return value.is_string() ? value.get<std::string>() : "";
}

Json Answer::json() const { return Json::parse(body, nullptr, false); }

std::string Answer::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

Answer ask(const std::string& url, const Ask& how) {
  Answer answer;
  CURL* handle = new_handle(url, how);
  curl_slist* headers = list_of(how.headers);
  std::array<char, CURL_ERROR_SIZE> error{};
  curl_easy_setopt(handle, CURLOPT_HTTPHEADER, headers);
  curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, take_body);
  curl_easy_setopt(handle, CURLOPT_WRITEDATA, &answer.body);
  curl_easy_setopt(handle, CURLOPT_HEADERFUNCTION, take_header);
  curl_easy_setopt(handle, CURLOPT_HEADERDATA, &answer);
  curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, error.data());
  curl_easy_setopt(handle, CURLOPT_TIMEOUT_MS, milliseconds(how.patience));
  if (!how.body.empty()) {
    curl_easy_setopt(handle, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(how.body.size()));
    curl_easy_setopt(handle, CURLOPT_POSTFIELDS, how.body.c_str());
  }
  if (how.method == "HEAD") {
    curl_easy_setopt(handle, CURLOPT_NOBODY, 1L);
  } else if (how.method != "GET" || !how.body.empty()) {
    curl_easy_setopt(handle, CURLOPT_CUSTOMREQUEST, how.method.c_str());
  }
  const CURLcode done = curl_easy_perform(handle);
  if (done != CURLE_OK) answer.error = error[0] != '\0' ? error.data() : curl_easy_strerror(done);
  curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &answer.status);
  curl_slist_free_all(headers);
  curl_easy_cleanup(handle);
  return answer;
}

Json ServerEvent::json() const { return Json::parse(data, nullptr, false); }

EventStream::EventStream(const std::string& url, const Ask& how)
    : handle_(new_handle(url, how)), multi_(curl_multi_init()), headers_(list_of(how.headers)) {
  curl_easy_setopt(handle_, CURLOPT_HTTPHEADER, static_cast<curl_slist*>(headers_));
  curl_easy_setopt(handle_, CURLOPT_WRITEFUNCTION, &EventStream::take);
  curl_easy_setopt(handle_, CURLOPT_WRITEDATA, this);
  curl_multi_add_handle(multi_, handle_);
  // Connected while this process is who it is now.
  (void)read();
}

EventStream::~EventStream() {
  curl_multi_remove_handle(multi_, handle_);
  curl_multi_cleanup(multi_);
  curl_easy_cleanup(handle_);
  curl_slist_free_all(static_cast<curl_slist*>(headers_));
}

const std::vector<ServerEvent>& EventStream::read() {
  int running = 0;
  if (open_) {
    curl_multi_perform(multi_, &running);
    open_ = running > 0;
  }
  return events_;
}

long EventStream::status() const {
  long status = 0;
  curl_easy_getinfo(handle_, CURLINFO_RESPONSE_CODE, &status);
  return status;
}

std::size_t EventStream::take(char* data, std::size_t size, std::size_t count, void* stream) {
  auto& self = *static_cast<EventStream*>(stream);
  self.pending_.append(data, size * count);
  std::size_t begin = 0;
  for (std::size_t end = 0; (end = self.pending_.find('\n', begin)) != std::string::npos; begin = end + 1) {
    std::string line = self.pending_.substr(begin, end - begin);
    if (!line.empty() && line.back() == '\r') line.pop_back();
    self.take_line(line);
  }
  self.pending_.erase(0, begin);
  return size * count;
}

void EventStream::take_line(const std::string& line) {
  if (line.empty()) {
    if (!event_.data.empty() || !event_.kind.empty()) {
      event_.at = monotonic_now();
      events_.push_back(std::move(event_));
    }
    event_ = {};
    return;
  }
  if (line.front() == ':') {
    ++comments_;
    return;
  }
  const std::size_t colon = std::min(line.find(':'), line.size());
  const std::string name = line.substr(0, colon);
  std::string value = colon < line.size() ? line.substr(colon + 1) : "";
  if (!value.empty() && value.front() == ' ') value.erase(0, 1);
  if (name == "event") event_.kind = value;
  if (name == "id") event_.id = value;
  if (name == "data") event_.data += (event_.data.empty() ? "" : "\n") + value;
}

Wire::Wire(std::uint16_t port) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return;
  socket_ = std::move(fd);
}

bool Wire::send(const std::string& bytes) {
  std::size_t sent = 0;
  while (sent < bytes.size()) {
    pollfd ready{socket_.get(), POLLOUT, 0};
    if (::poll(&ready, 1, static_cast<int>(milliseconds(kPatience))) != 1) return false;
    const ssize_t n = ::send(socket_.get(), bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) continue;
    if (n < 0) return false;
    sent += static_cast<std::size_t>(n);
  }
  return true;
}

std::string Wire::read_some() {
  (void)closed();
  return std::exchange(got_, {});
}

bool Wire::closed() {
  std::array<char, 16384> part{};
  while (!closed_) {
    const ssize_t n = ::recv(socket_.get(), part.data(), part.size(), MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return false;
    if (n <= 0) closed_ = true;
    if (n > 0) got_.append(part.data(), static_cast<std::size_t>(n));
  }
  return true;
}

std::string Wire::read_to_end(Span patience) {
  const Instant deadline = monotonic_now() + patience;
  while (!closed() && monotonic_now() < deadline) {
    pollfd ready{socket_.get(), POLLIN, 0};
    (void)::poll(&ready, 1, 100);
  }
  return std::exchange(got_, {});
}

}  // namespace aw::stories
