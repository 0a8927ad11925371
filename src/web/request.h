// SPDX-License-Identifier: Apache-2.0
//
// What the gateway itself reads of a request: its target, cookies, the Host header, a small form. Pure, and fuzzed.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace aw::web {

/// What is asked for: "/api/analyses/a%2Fb?x=1" is {{"api", "analyses", "a/b"}, {{"x", "1"}}}. No segment and no value
/// holds a NUL byte, and each is UTF-8.
struct Target {
  std::vector<std::string> path;
  std::vector<std::pair<std::string, std::string>> query;  ///< no name comes twice
};

/// The error says what is wrong with it, for a person.
Result<Target> parse_target(std::string_view raw);

/// The value of a form as browsers send it (application/x-www-form-urlencoded); nothing if it is none, or has no such
/// field or several.
std::optional<std::string> find_form_value(std::string_view body, std::string_view name);

/// Of a Cookie header. The first of that name.
std::optional<std::string_view> find_cookie(std::string_view header, std::string_view name);

/// The token of "Bearer TOKEN"; nothing for any other scheme.
std::optional<std::string_view> find_bearer(std::string_view authorization);

/// Of a Host header, without the port and in lower case: "localhost", "127.0.0.1", "[::1]". Nothing if it is none.
std::optional<std::string> parse_host(std::string_view header);

/// A page of somebody else's whose name was made to lead here (DNS rebinding) calls us by that name. So only names that
/// nobody can have in the DNS of their own are ours, and those of `allowed`.
bool is_our_host(std::string_view host, const std::vector<std::string>& allowed);

}  // namespace aw::web
