// SPDX-License-Identifier: Apache-2.0
#include "api/allowance.h"

#include <algorithm>

namespace aw::api {

std::optional<Span> Allowance::take(uid_t uid, Instant now) {
  std::erase_if(whole_at_, [&](const auto& entry) { return entry.second <= now; });
  const auto known = whole_at_.find(uid);
  const Instant then = (known == whole_at_.end() ? now : known->second) + kEach;
  if (then - now > kBurst * kEach) return then - now - kBurst * kEach;
  whole_at_.insert_or_assign(uid, then);
  return std::nullopt;
}

}  // namespace aw::api
