// SPDX-License-Identifier: Apache-2.0
#include "bus/message.h"

#include <fcntl.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

namespace aw::bus {
namespace {

constexpr std::size_t kMaxEntries = 4096;  // Of one array that a peer sends: more is not for us.

// Of the wire format: no type is aligned to more than 8 bytes, and text has a length before it and a NUL behind.
constexpr std::size_t kPadding = 7;
constexpr std::size_t kStringOverhead = 5;

std::string text_or_empty(const char* text) { return text == nullptr ? std::string() : std::string(text); }

Error malformed(const char* expected) {
  return invalid(std::string("the message does not hold ") + expected + " where one is expected");
}

template <class T>
Result<T> read_basic(sd_bus_message* m, char type, const char* name) {
  T value{};
  if (sd_bus_message_read_basic(m, type, &value) <= 0) return malformed(name);
  return value;
}

}  // namespace

const Value* find(const Dict& dict, std::string_view key) {
  const auto it = std::find_if(dict.begin(), dict.end(), [&](const auto& entry) { return entry.first == key; });
  return it == dict.end() ? nullptr : &it->second;
}

const char* signature_of(const Value& value) {
  struct Signature {
    const char* operator()(bool) const { return "b"; }
    const char* operator()(std::int32_t) const { return "i"; }
    const char* operator()(std::uint32_t) const { return "u"; }
    const char* operator()(std::int64_t) const { return "x"; }
    const char* operator()(std::uint64_t) const { return "t"; }
    const char* operator()(double) const { return "d"; }
    const char* operator()(const std::string&) const { return "s"; }
    const char* operator()(const ObjectPath&) const { return "o"; }
    const char* operator()(const StringMap&) const { return "a{ss}"; }
    const char* operator()(const Dict&) const { return "a{sv}"; }
    const char* operator()(const std::vector<Dict>&) const { return "aa{sv}"; }
    const char* operator()(const std::vector<std::string>&) const { return "as"; }
  };
  return std::visit(Signature{}, value.v);
}

std::string Message::sender() const { return text_or_empty(sd_bus_message_get_sender(raw())); }
std::string Message::path() const { return text_or_empty(sd_bus_message_get_path(raw())); }
std::string Message::interface() const { return text_or_empty(sd_bus_message_get_interface(raw())); }
std::string Message::member() const { return text_or_empty(sd_bus_message_get_member(raw())); }
std::string Message::signature() const { return text_or_empty(sd_bus_message_get_signature(raw(), 1)); }

Message& Message::note(int r) {
  if (r < 0 && status_ == 0) status_ = r;
  return *this;
}

Message& Message::append_basic(char type, const void* value, std::size_t bytes) {
  size_ += kPadding + bytes;
  return note(sd_bus_message_append_basic(raw(), type, value));
}

Message& Message::append(const char* text) { return append_basic('s', text, std::strlen(text) + kStringOverhead); }
Message& Message::append(const std::string& text) { return append(text.c_str()); }
Message& Message::append(const ObjectPath& path) {
  return append_basic('o', path.text.c_str(), path.text.size() + kStringOverhead);
}
Message& Message::append(bool value) {
  const int wire = value ? 1 : 0;
  return append_basic('b', &wire, sizeof(wire));
}
Message& Message::append(std::int32_t value) { return append_basic('i', &value, sizeof(value)); }
Message& Message::append(std::uint32_t value) { return append_basic('u', &value, sizeof(value)); }
Message& Message::append(std::int64_t value) { return append_basic('x', &value, sizeof(value)); }
Message& Message::append(std::uint64_t value) { return append_basic('t', &value, sizeof(value)); }
Message& Message::append(double value) { return append_basic('d', &value, sizeof(value)); }
Message& Message::append_fd(int fd) { return append_basic('h', &fd, sizeof(fd)); }

Message& Message::append(const StringMap& map) {
  open('a', "{ss}");
  for (const auto& [key, value] : map) open('e', "ss").append(key).append(value).close();
  return close();
}

Message& Message::append(const Dict& dict) {
  open('a', "{sv}");
  for (const auto& [key, value] : dict) open('e', "sv").append(key).append_variant(value).close();
  return close();
}

Message& Message::append(const std::vector<Dict>& dicts) {
  open('a', "a{sv}");
  for (const Dict& dict : dicts) append(dict);
  return close();
}

Message& Message::append(const std::vector<std::string>& strings) {
  open('a', "s");
  for (const std::string& text : strings) append(text);
  return close();
}

Message& Message::append_variant(const Value& value) {
  open('v', signature_of(value));
  std::visit([this](const auto& held) { append(held); }, value.v);
  return close();
}

Message& Message::open(char type, const char* contents) {
  // An array has a length, a variant its signature; each begins at a boundary.
  size_ += kPadding + (type == 'a' ? kStringOverhead + kPadding : 0) + (type == 'v' ? std::strlen(contents) + 2 : 0);
  return note(sd_bus_message_open_container(raw(), type, contents));
}
Message& Message::close() { return note(sd_bus_message_close_container(raw())); }

Result<std::string> Message::read_string() {
  return read_basic<const char*>(raw(), 's', "a string").transform([](const char* text) { return std::string(text); });
}
Result<std::string> Message::read_path() {
  return read_basic<const char*>(raw(), 'o', "an object path").transform([](const char* text) {
    return std::string(text);
  });
}
Result<std::uint32_t> Message::read_u32() { return read_basic<std::uint32_t>(raw(), 'u', "a uint32"); }
Result<std::uint64_t> Message::read_u64() { return read_basic<std::uint64_t>(raw(), 't', "a uint64"); }
Result<double> Message::read_double() { return read_basic<double>(raw(), 'd', "a double"); }
Result<bool> Message::read_bool() {
  return read_basic<int>(raw(), 'b', "a boolean").transform([](int wire) { return wire != 0; });
}
Result<UniqueFd> Message::read_fd() {
  auto lent = read_basic<int>(raw(), 'h', "a file descriptor");
  if (!lent) return std::move(lent).error();
  UniqueFd own(::fcntl(*lent, F_DUPFD_CLOEXEC, 3));
  if (!own) return errno_error("duplicate a received descriptor");
  return own;
}

bool Message::at_end() { return sd_bus_message_at_end(raw(), 0) > 0; }

Result<void> Message::enter(char type, const char* contents) {
  if (sd_bus_message_enter_container(raw(), type, contents) <= 0) {
    return malformed(contents == nullptr ? "a container" : contents);
  }
  return {};
}
Result<void> Message::leave() {
  if (sd_bus_message_exit_container(raw()) < 0) return malformed("the end of a container");
  return {};
}

Result<Value> Message::read_value(char type, const char* contents) {
  const std::string inner = text_or_empty(contents);
  const auto wrap = [](auto value) { return Value{std::move(value)}; };
  switch (type) {
    case 'b':
      return read_bool().transform(wrap);
    case 'i':
      return read_basic<std::int32_t>(raw(), 'i', "an int32").transform(wrap);
    case 'u':
      return read_u32().transform(wrap);
    case 'x':
      return read_basic<std::int64_t>(raw(), 'x', "an int64").transform(wrap);
    case 't':
      return read_u64().transform(wrap);
    case 'd':
      return read_basic<double>(raw(), 'd', "a double").transform(wrap);
    case 's':
      return read_string().transform(wrap);
    case 'o':
      return read_path().transform([](std::string text) { return Value{ObjectPath{std::move(text)}}; });
    case 'a':
      if (inner == "{ss}") {
        auto entered = enter('a', "{ss}");
        if (!entered) return std::move(entered).error();
        StringMap map;
        while (!at_end()) {
          if (map.size() >= kMaxEntries) return invalid("a dictionary has more than 4096 entries");
          if (auto e = enter('e', "ss"); !e) return std::move(e).error();
          auto key = read_string();
          auto value = read_string();
          if (!key || !value) return malformed("a pair of strings");
          if (!map.emplace(std::move(*key), std::move(*value)).second) return invalid("a key comes twice");
          if (auto e = leave(); !e) return std::move(e).error();
        }
        if (auto e = leave(); !e) return std::move(e).error();
        return Value{std::move(map)};
      }
      if (inner == "{sv}") return read_dict().transform(wrap);
      if (inner == "a{sv}") return read_dicts().transform(wrap);
      if (inner == "s") return read_strings().transform(wrap);
      break;
    default:
      break;
  }
  return invalid("a value of type " + std::string(1, type) + inner + " has no meaning here");
}

Result<Value> Message::read_variant() {
  char type = 0;
  const char* contents = nullptr;
  if (sd_bus_message_peek_type(raw(), &type, &contents) <= 0 || type != 'v') return malformed("a variant");
  const std::string inner = text_or_empty(contents);
  if (auto entered = enter('v', inner.c_str()); !entered) return std::move(entered).error();
  char inner_type = 0;
  const char* inner_contents = nullptr;
  if (sd_bus_message_peek_type(raw(), &inner_type, &inner_contents) <= 0) return malformed("a variant's value");
  auto value = read_value(inner_type, inner_contents);
  if (!value) return value;
  if (auto left = leave(); !left) return std::move(left).error();
  return value;
}

Result<Dict> Message::read_dict() {
  if (auto entered = enter('a', "{sv}"); !entered) return std::move(entered).error();
  Dict dict;
  while (!at_end()) {
    if (dict.size() >= kMaxEntries) return invalid("a dictionary has more than 4096 entries");
    if (auto e = enter('e', "sv"); !e) return std::move(e).error();
    auto key = read_string();
    if (!key) return std::move(key).error();
    auto value = read_variant();
    if (!value) return std::move(value).error().within("the value of " + *key);
    if (find(dict, *key) != nullptr) return invalid(*key + " is given twice");
    dict.emplace_back(std::move(*key), std::move(*value));
    if (auto e = leave(); !e) return std::move(e).error();
  }
  if (auto left = leave(); !left) return std::move(left).error();
  return dict;
}

Result<std::vector<Dict>> Message::read_dicts() {
  if (auto entered = enter('a', "a{sv}"); !entered) return std::move(entered).error();
  std::vector<Dict> dicts;
  while (!at_end()) {
    auto dict = read_dict();
    if (!dict) return std::move(dict).error();
    dicts.push_back(std::move(*dict));
  }
  if (auto left = leave(); !left) return std::move(left).error();
  return dicts;
}

Result<std::vector<std::string>> Message::read_strings() {
  if (auto entered = enter('a', "s"); !entered) return std::move(entered).error();
  std::vector<std::string> strings;
  while (!at_end()) {
    auto text = read_string();
    if (!text) return std::move(text).error();
    strings.push_back(std::move(*text));
  }
  if (auto left = leave(); !left) return std::move(left).error();
  return strings;
}

Result<std::vector<std::uint32_t>> Message::read_u32_list_variant() {
  if (auto entered = enter('v', "au"); !entered) return std::move(entered).error();
  if (auto entered = enter('a', "u"); !entered) return std::move(entered).error();
  std::vector<std::uint32_t> numbers;
  while (!at_end()) {
    auto number = read_u32();
    if (!number) return std::move(number).error();
    numbers.push_back(*number);
  }
  if (auto left = leave(); !left) return std::move(left).error();
  if (auto left = leave(); !left) return std::move(left).error();
  return numbers;
}

void Message::skip(const char* types) { (void)sd_bus_message_skip(raw(), types); }

}  // namespace aw::bus
