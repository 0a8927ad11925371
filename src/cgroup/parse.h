// SPDX-License-Identifier: Apache-2.0
//
// The kernel's cgroup files as values. Pure; no allocation but for the pids that the caller keeps. Unknown keys are
// passed over, because the kernel adds lines in the middle; a known key with a bad number is an error; a missing
// key keeps its zero unless it is said otherwise.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "supervise/memory.h"

namespace aw::cgroup {

/// memory.events. `oom_kill` must be there: without it the text is not of this file.
Result<supervise::MemoryEvents> parse_memory_events(std::string_view text);

/// memory.stat. `anon` must be there. Without `kernel` (before 5.18) its parts are added up.
Result<supervise::MemoryStat> parse_memory_stat(std::string_view text);

/// memory.pressure. The "full" line must be there.
Result<supervise::MemoryPressure> parse_memory_pressure(std::string_view text);

/// "populated" of cgroup.events.
Result<bool> parse_populated(std::string_view text);

/// cgroup.procs, appended to `pids` (the kernel may list one twice; 0, a process of a foreign pid namespace, is
/// left out). After a failure `pids` is as it was.
Result<void> parse_procs(std::string_view text, std::vector<pid_t>& pids);

/// usage_usec of cpu.stat.
Result<Span> parse_cpu_usage(std::string_view text);

/// One number, or "max" (UINT64_MAX), as memory.max and pids.current hold it.
Result<std::uint64_t> parse_limit(std::string_view text);

/// cpu.max, "QUOTA PERIOD" in microseconds or "max PERIOD": CPU time per second, kForever without a limit.
Result<Span> parse_quota(std::string_view text);

/// "max" of pids.events: forks that failed at the limit.
Result<std::uint64_t> parse_pids_refused(std::string_view text);

}  // namespace aw::cgroup
