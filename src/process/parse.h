// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"
#include "supervise/orphan_rule.h"

namespace aw::process {

/// /proc/PID/stat (proc(5)). comm is whatever the process wrote there, so it is taken from the first '(' to the
/// last ')', however many parentheses and newlines it holds.
Result<supervise::ProcessStat> parse_stat(std::string_view text);

/// /proc/PID/cmdline as one line for people: NULs become spaces, those at the end go. At most `limit` bytes;
/// where that is not all of it, it is cut at a UTF-8 boundary and ends with "…" (of the last bytes of a `text` that
/// was itself cut no more is known than that, so it is to be longer than `limit`); bytes that are not UTF-8 and
/// noncharacters become U+FFFD and control characters a space, so that sd-bus takes what comes of it.
std::string readable_cmdline(std::string_view text, std::size_t limit);

/// What follows "NAME:" in a line of /proc/PID/status or smaps_rollup, from its first character that is no white space.
/// The first line, which a process may name itself in, has none.
std::optional<std::string_view> find_field(std::string_view text, std::string_view name);

/// The uid in /proc/PID/status, as user namespaces show it to us, if it is real, effective, saved and filesystem uid at
/// once. Nothing for a set-uid program, also where it has gone back to the uid of whoever started it for a while.
std::optional<uid_t> parse_sole_uid(std::string_view text);

/// "Pss_Anon:" of /proc/PID/smaps_rollup: a page of n processes counts for an n-th in each.
std::optional<Bytes> parse_anonymous_share(std::string_view text);

/// The unified entry of /proc/PID/cgroup ("0::/a/b"), without " (deleted)". Entries of cgroup v1 are passed over, a
/// host that has only those is refused.
Result<std::string_view> parse_proc_cgroup(std::string_view text);

}  // namespace aw::process
