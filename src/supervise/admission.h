// SPDX-License-Identifier: Apache-2.0
//
// Who may be registered, and with which limits: every check that needs no answer from PID 1.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "supervise/limits.h"
#include "supervise/policy.h"
#include "supervise/ports.h"

namespace aw::supervise {

/// Who asks.
struct Caller {
  uid_t uid = 0;
  pid_t pid = 0;               ///< 0: not known
  bool administrator = false;  ///< root, or a member of analysis-admin
};

/// The defaults, as far as check_limits() lets this caller have them: nobody is refused for what was not asked for.
Limits allowed_defaults(Limits defaults, const Caps& caps, const Caller& caller, Bytes machine_memory);

/// Limits of 0, of more than 10000 for the CPU weight and the like are kInvalidOption; limits above the machine or
/// the caps are kLimitTooHigh. Each message names the option, the value and what would be accepted.
Result<void> check_limits(const Limits& limits, const Caps& caps, const Caller& caller, Bytes machine_memory);

/// What the live runs of one user are allowed, all together.
struct Sums {
  std::uint64_t runs = 0;
  Bytes memory;             ///< infinite as soon as one of them has no limit
  std::uint64_t tasks = 0;  ///< kUnlimited, too

  void add(const Limits& limits);
};

/// That `wanted`, beside `others`, stays within what one user may have; otherwise kLimitTooHigh, which says what was
/// asked for, what is in use, and what would be accepted. With `before`, the limits that the run has now, only what is
/// raised is looked at: nobody is kept from asking for less.
Result<void> check_sums(const Limits& wanted, const Sums& others, const Caps& caps, const Caller& caller,
                        const Limits* before = nullptr);

/// A process may be registered: it lives (kNoSuchProcess), is none of ours or the system's (kProtectedProcess).
/// Gives its stat. A process of a system service that is not the caller's is protected, for root too.
Result<ProcessStat> check_process(const Processes& processes, const ProcessHandle& process, const Caller& caller);

/// The leader's parent, held, unless it is pid 1 or a user manager (none), or gone already (none: `orphaned_at_birth`
/// is no case of its own; a leader whose parent died before is pid 1's child).
std::unique_ptr<ProcessHandle> find_owner(Processes& processes, const ProcessStat& leader);

/// True for a cgroup path of a system service's or the manager's own processes.
bool is_system_service(const std::string& cgroup);

}  // namespace aw::supervise
