// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/time.h"

namespace aw::supervise {

/// What happens to a process of the run whose parent, outside the run, is not its own any more.
enum class OrphanPolicy { kKill, kReport };
/// What happens to the run when its owner dies.
enum class OwnerPolicy { kKill, kIgnore };

std::string_view to_string(OrphanPolicy policy);  ///< "kill", "report"
std::string_view to_string(OwnerPolicy policy);   ///< "kill", "ignore"
std::optional<OrphanPolicy> parse_orphan_policy(std::string_view text);
std::optional<OwnerPolicy> parse_owner_policy(std::string_view text);

/// "No limit" for counts, as on the bus.
inline constexpr std::uint64_t kUnlimited = std::numeric_limits<std::uint64_t>::max();

/// How far above its limit the kernel lets a tree go while it is being ended: an eighth of the limit, at least
/// 64 MiB, unless it was asked for.
Bytes default_headroom(Bytes memory_limit);

/// What a run may use, and what is done about it. The defaults stand here and nowhere else.
struct Limits {
  Bytes memory{2 * kGiB.count()};  ///< memory that can't be reclaimed; infinite is none
  std::optional<Bytes> headroom;   ///< unset: default_headroom(memory)
  Span wall_clock = std::chrono::minutes{30};
  Span grace = std::chrono::seconds{10};
  std::uint64_t tasks_max = kUnlimited;
  Span cpu_quota_per_second = kForever;     ///< CPU time per second of wall time
  std::optional<std::uint64_t> cpu_weight;  ///< 1 to 10000; unset: the kernel's 100
  OrphanPolicy orphan_policy = OrphanPolicy::kKill;
  OwnerPolicy owner_policy = OwnerPolicy::kKill;
  std::string description;
  std::map<std::string, std::string> labels;

  Bytes effective_headroom() const { return headroom ? *headroom : default_headroom(memory); }
  /// memory.max: limit + headroom.
  Bytes ceiling() const { return memory + effective_headroom(); }
  /// memory.high while the run is being ended: limit + half the headroom (see memory.h).
  Bytes mercy() const { return memory.is_infinite() ? memory : memory + effective_headroom() / 2; }

  bool operator==(const Limits&) const = default;
};

}  // namespace aw::supervise
