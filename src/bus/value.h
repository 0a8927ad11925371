// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace aw::bus {

struct ObjectPath {
  std::string text;
  bool operator==(const ObjectPath&) const = default;
};

struct Value;
/// a{sv}, in the order in which it is written.
using Dict = std::vector<std::pair<std::string, Value>>;
using StringMap = std::map<std::string, std::string>;

/// What can stand in a variant on our bus. Each alternative has exactly one D-Bus type, so a value is appended by its
/// C++ type and never by a signature string beside it.
struct Value {
  std::variant<bool, std::int32_t, std::uint32_t, std::int64_t, std::uint64_t, double, std::string, ObjectPath,
               StringMap, Dict, std::vector<Dict>, std::vector<std::string>>
      v;

  Value();
  /// Not explicit: a value is written as what it holds.
  template <class T>
  requires(!std::same_as<std::remove_cvref_t<T>, Value>) Value(T&& value) : v(std::forward<T>(value)) {}

  template <class T>
  const T* get_if() const {
    return std::get_if<T>(&v);
  }
};

// Behind the class: a Dict is made of whole values, which clang wants to know sooner than GCC.
inline Value::Value() = default;
inline bool operator==(const Value& a, const Value& b) { return a.v == b.v; }

/// The entry of that name, or nothing.
const Value* find(const Dict& dict, std::string_view key);

/// The D-Bus signature of what the value holds: "b", "t", "a{sv}", …
const char* signature_of(const Value& value);

}  // namespace aw::bus
