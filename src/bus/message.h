// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <systemd/sd-bus.h>

#include <memory>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "bus/value.h"

namespace aw::bus {

/// A D-Bus message. Arguments are appended and read by type.
class Message {
 public:
  Message() = default;
  /// Takes over one reference.
  static Message adopt(sd_bus_message* raw) { return Message(raw); }
  /// The same of a reply, which remembers its call: a reply that can't be sent must still be answered.
  static Message adopt_reply(sd_bus_message* raw, const Message& call) {
    Message reply(raw);
    reply.call_.reset(sd_bus_message_ref(call.raw()));
    return reply;
  }
  /// Adds a reference to a message that is lent to us.
  static Message share(sd_bus_message* raw) { return Message(sd_bus_message_ref(raw)); }

  explicit operator bool() const { return raw_ != nullptr; }
  sd_bus_message* raw() const { return raw_.get(); }

  std::string sender() const;
  std::string path() const;
  std::string interface() const;
  std::string member() const;
  std::string signature() const;

  // Appending fails only for lack of memory or for text that is not UTF-8 (or has a noncharacter); the first failure is
  // kept and comes back from send.
  Message& append(const char* text);
  Message& append(const std::string& text);
  Message& append(const ObjectPath& path);
  Message& append(bool value);
  Message& append(std::int32_t value);
  Message& append(std::uint32_t value);
  Message& append(std::int64_t value);
  Message& append(std::uint64_t value);
  Message& append(double value);
  Message& append(const StringMap& map);            ///< a{ss}
  Message& append(const Dict& dict);                ///< a{sv}
  Message& append(const std::vector<Dict>& dicts);  ///< aa{sv}
  Message& append(const std::vector<std::string>& strings);
  Message& append(const UniqueFd& fd) { return append_fd(fd.get()); }
  Message& append_fd(int fd);                   ///< h; the message keeps a duplicate
  Message& append_variant(const Value& value);  ///< v

  // Containers, for what the types above do not cover.
  Message& open(char type, const char* contents);
  Message& close();

  // Reading; each says what was expected when the message holds something else.
  Result<std::string> read_string();
  Result<std::string> read_path();
  Result<std::uint32_t> read_u32();
  Result<std::uint64_t> read_u64();
  Result<bool> read_bool();
  Result<double> read_double();
  Result<UniqueFd> read_fd();              ///< a duplicate, ours to close
  Result<Value> read_variant();            ///< v of any type that Value can hold, or of a unix fd: refused
  Result<Dict> read_dict();                ///< a{sv}; a key that comes twice is refused
  Result<std::vector<Dict>> read_dicts();  ///< aa{sv}
  Result<std::vector<std::string>> read_strings();
  Result<std::vector<std::uint32_t>> read_u32_list_variant();  ///< v holding au
  void skip(const char* types);                                ///< passes over values of these types
  /// True at the end of the message or container.
  bool at_end();
  Result<void> enter(char type, const char* contents);  ///< false at the end of an array comes back as an error
  Result<void> leave();

  int append_status() const { return status_; }
  /// Of what was appended so far, in bytes: never less than it takes on the wire.
  std::size_t size() const { return size_; }
  /// The call that this is the reply to; null for anything else.
  sd_bus_message* call() const { return call_.get(); }

 private:
  struct Unref {
    void operator()(sd_bus_message* m) const noexcept { sd_bus_message_unref(m); }
  };
  explicit Message(sd_bus_message* raw) : raw_(raw) {}
  Message& note(int r);
  Message& append_basic(char type, const void* value, std::size_t bytes);
  Result<Value> read_value(char type, const char* contents);

  std::unique_ptr<sd_bus_message, Unref> raw_;
  std::unique_ptr<sd_bus_message, Unref> call_;
  int status_ = 0;
  std::size_t size_ = 0;
};

/// An error that a peer answered with: its D-Bus name and its words.
struct RemoteError {
  std::string name;
  std::string message;
};

}  // namespace aw::bus
