// SPDX-License-Identifier: Apache-2.0
#include "supervise/limits.h"

#include <algorithm>

#include "base/assert.h"

namespace aw::supervise {

std::string_view to_string(OrphanPolicy policy) {
  switch (policy) {
    case OrphanPolicy::kKill:
      return "kill";
    case OrphanPolicy::kReport:
      return "report";
  }
  unreachable(policy);
}

std::string_view to_string(OwnerPolicy policy) {
  switch (policy) {
    case OwnerPolicy::kKill:
      return "kill";
    case OwnerPolicy::kIgnore:
      return "ignore";
  }
  unreachable(policy);
}

std::optional<OrphanPolicy> parse_orphan_policy(std::string_view text) {
  for (const OrphanPolicy policy : {OrphanPolicy::kKill, OrphanPolicy::kReport}) {
    if (text == to_string(policy)) return policy;
  }
  return std::nullopt;
}

std::optional<OwnerPolicy> parse_owner_policy(std::string_view text) {
  for (const OwnerPolicy policy : {OwnerPolicy::kKill, OwnerPolicy::kIgnore}) {
    if (text == to_string(policy)) return policy;
  }
  return std::nullopt;
}

Bytes default_headroom(Bytes memory_limit) {
  constexpr Bytes kLeast{64 * kMiB.count()};
  return std::max(memory_limit / 8, kLeast);
}

}  // namespace aw::supervise
