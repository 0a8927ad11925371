// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace aw {

/// Says on stderr which promise of ours was broken, and aborts. systemd starts us again; the analyses live in
/// scopes of their own and are not touched.
[[noreturn]] void assertion_failed(const char* what, const char* file, int line) noexcept;

/// Ends a switch over one of our own enums, whose enumerators are all handled above it.
template <class Enum>
[[noreturn]] void unreachable(Enum) noexcept {
  assertion_failed("an enumerator outside its enum", __FILE__, __LINE__);
}

}  // namespace aw

// Beside those of base/failpoint.h the only macros of ours: they need the text, file and line of the call site.
#define AW_ASSERT(condition) \
  (static_cast<bool>(condition) ? void(0) : ::aw::assertion_failed(#condition, __FILE__, __LINE__))
