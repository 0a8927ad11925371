// SPDX-License-Identifier: Apache-2.0
//
// C++20 has no std::expected; Result has the same member names, so it can become an alias later.
#pragma once

#include <cerrno>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <variant>

#include "base/assert.h"

namespace aw {

/// A failure: what could not be done, in words for a person, with the code it came from.
struct Error {
  std::error_code code;
  std::string message;

  /// Adds where we were: "place analysis 7: StartTransientUnit: Access denied".
  Error within(std::string_view what) && {
    message = std::string(what) + ": " + message;
    return std::move(*this);
  }
};

/// An Error from errno (or a positive errno value), worded "what: No such file or directory".
inline Error errno_error(std::string_view what, int err = errno) {
  std::error_code code(err, std::generic_category());
  return {code, std::string(what) + ": " + code.message()};
}

/// An Error for text or a value that was refused.
inline Error invalid(std::string message) {
  return {std::make_error_code(std::errc::invalid_argument), std::move(message)};
}

/// Either a T or an Error. Reading the wrong one is a bug and aborts.
template <class T>
class [[nodiscard]] Result {
 public:
  using value_type = T;

  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT(google-explicit-constructor)
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT(google-explicit-constructor)

  bool has_value() const noexcept { return state_.index() == 0; }
  explicit operator bool() const noexcept { return has_value(); }

  T& value() & { return checked_value(state_); }
  const T& value() const& { return checked_value(state_); }
  T&& value() && { return std::move(checked_value(state_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  Error& error() & { return checked_error(state_); }
  const Error& error() const& { return checked_error(state_); }
  Error&& error() && { return std::move(checked_error(state_)); }

  T value_or(T fallback) const& { return has_value() ? value() : std::move(fallback); }

  /// f(value) as a new Result; an error passes through.
  template <class F>
  auto transform(F&& f) && -> Result<std::invoke_result_t<F, T&&>> {
    if (!has_value()) return std::move(*this).error();
    return std::forward<F>(f)(std::move(*this).value());
  }

  /// f(value), which itself returns a Result; an error passes through.
  template <class F>
  auto and_then(F&& f) && -> std::invoke_result_t<F, T&&> {
    if (!has_value()) return std::move(*this).error();
    return std::forward<F>(f)(std::move(*this).value());
  }

 private:
  template <class Self>
  static auto& checked_value(Self& state) {
    AW_ASSERT(state.index() == 0);
    return *std::get_if<0>(&state);
  }
  template <class Self>
  static auto& checked_error(Self& state) {
    AW_ASSERT(state.index() == 1);
    return *std::get_if<1>(&state);
  }

  std::variant<T, Error> state_;
};

/// Success without a value, or an Error.
template <>
class [[nodiscard]] Result<void> {
  // Stands first because, in a class that is no template, `auto` is deduced in the order of the text.
  template <class Self>
  static auto& checked(Self& state) {
    AW_ASSERT(state.index() == 1);
    return *std::get_if<1>(&state);
  }

 public:
  Result() = default;
  Result(Error error) : error_(std::in_place_index<1>, std::move(error)) {}  // NOLINT(google-explicit-constructor)

  bool has_value() const noexcept { return error_.index() == 0; }
  explicit operator bool() const noexcept { return has_value(); }

  Error& error() & { return checked(error_); }
  const Error& error() const& { return checked(error_); }
  Error&& error() && { return std::move(checked(error_)); }

 private:
  std::variant<std::monostate, Error> error_;
};

}  // namespace aw
