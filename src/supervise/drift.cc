// SPDX-License-Identifier: Apache-2.0
#include "supervise/drift.h"

#include <algorithm>
#include <limits>

namespace aw::supervise {
namespace {

/// PID_MAX_LIMIT: pids.max takes no more, and systemd then leaves it at "max" (kernel/cgroup/pids.c).
constexpr std::uint64_t kMostTasks = 4'194'304;
/// A quota below this is raised to it (systemd, cgroup_cpu_adjust_period: 1 ms in a period of at most 1 s).
constexpr Span kLeastQuota = std::chrono::milliseconds{1};
/// A quota is a whole number of microseconds in a period of 100 ms or more.
constexpr Span kQuotaRounding{10};

std::string to_text(Bytes size) { return size.is_infinite() ? "max" : std::to_string(size.count()); }
std::string to_text(std::uint64_t count) { return count == kUnlimited ? "max" : std::to_string(count); }
std::string to_text(Span span) { return span == kForever ? "max" : std::to_string(to_usec(span)); }

/// A size as memory.max and memory.high give it back (mm/page_counter.c).
Bytes as_kept(Bytes size, Bytes page_size) {
  const std::uint64_t page = std::max<std::uint64_t>(1, page_size.count());
  const std::uint64_t most = std::numeric_limits<std::int64_t>::max() / page;
  const std::uint64_t pages = size.count() / page;
  return pages >= most ? Bytes::infinite() : Bytes(pages * page);
}

std::uint64_t as_kept(std::uint64_t tasks) { return tasks >= kMostTasks ? kUnlimited : tasks; }

bool is_same_quota(Span found, Span wanted) {
  if (found == kForever || wanted == kForever) return found == wanted;
  const Span kept = std::max(wanted, kLeastQuota);
  const Span off = found > kept ? found - kept : kept - found;
  return off <= std::max(kQuotaRounding, kept / 100);
}

class Comparison {
 public:
  Comparison(const SliceLimits& wanted, const std::optional<SliceLimits>& before) : wanted_(wanted), before_(before) {}

  /// `same` says whether what was found is one of the values of `field`.
  template <class T, class Field, class Same>
  void look(const char* file, const std::optional<T>& found, Field field, Same same) {
    if (!found || same(*found, field(wanted_))) return;
    if (before_ && same(*found, field(*before_))) return;
    add({file, "", to_text(*found), to_text(field(wanted_))});
  }
  void add(Drift drift) { drifts_.push_back(std::move(drift)); }
  std::vector<Drift> take() { return std::move(drifts_); }

 private:
  const SliceLimits& wanted_;
  const std::optional<SliceLimits>& before_;
  std::vector<Drift> drifts_;
};

}  // namespace

std::vector<Drift> find_drift(const LimitsFound& found, const SliceLimits& wanted,
                              const std::optional<SliceLimits>& before, Bytes page_size) {
  const auto same_size = [page_size](Bytes a, Bytes b) { return a == as_kept(b, page_size); };
  Comparison files(wanted, before);
  files.look(
      "memory.high", found.tripwire, [](const SliceLimits& l) { return l.tripwire; }, same_size);
  files.look(
      "memory.max", found.ceiling, [](const SliceLimits& l) { return l.ceiling; }, same_size);
  files.look(
      "memory.swap.max", found.swap, [](const SliceLimits&) { return Bytes(0); }, same_size);
  files.look(
      "pids.max", found.tasks_max, [](const SliceLimits& l) { return l.tasks_max; },
      [](std::uint64_t a, std::uint64_t b) { return as_kept(a) == as_kept(b); });
  files.look(
      "cpu.max", found.cpu_quota_per_second, [](const SliceLimits& l) { return l.cpu_quota_per_second; },
      is_same_quota);
  if (wanted.cpu_weight) {  // Without one the kernel's, or the administrator's for the slice, is as good.
    files.look(
        "cpu.weight", found.cpu_weight, [&](const SliceLimits& l) { return l.cpu_weight.value_or(*wanted.cpu_weight); },
        [](std::uint64_t a, std::uint64_t b) { return a == b; });
  }
  for (const auto& [scope, whole] : found.scopes) {
    if (!whole) files.add({scope + "/" + kGroupOomFile, scope, "0", "1"});
  }
  return files.take();
}

}  // namespace aw::supervise
