// SPDX-License-Identifier: Apache-2.0
#include "cli/upkeep.h"

#include "base/numbers.h"
#include "cli/terminal.h"
#include "cli/when.h"
#include "ledger/ledger_reader.h"
#include "ledger/shipped.h"

namespace aw::cli {

Result<WallTime> parse_older_than(const std::string& text, WallTime now) {
  if (text.empty() || parse_number<std::uint64_t>(text)) {
    return invalid("--older-than: \"" + printable(text) + "\" has no unit; write e.g. 90d, or 2026-01-31");
  }
  if (const auto span = parse_span(text)) {
    if (*span == kForever) return invalid("--older-than: nothing is older than that; write e.g. 90d");
    return now - *span;
  }
  const auto moment = parse_when(text, now);
  if (!moment) return Error(moment.error()).within("--older-than");
  if (*moment > now) return invalid("--older-than: \"" + printable(text) + "\" is still to come");
  return *moment;
}

Result<std::int64_t> read_prunable_seq(const std::filesystem::path& ledger, const std::filesystem::path& shipped) {
  auto id = ledger::LedgerReader(ledger).read_ledger_id();
  if (!id) return std::move(id).error();
  return ledger::read_shipped_seq(shipped, *id).value_or(0);
}

std::filesystem::path migrations_directory() {
  constexpr const char* kBelowDatadir = "analysis-watchdog/migrations/postgresql";
  std::error_code ignored;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", ignored);
  const auto beside = program.parent_path().parent_path() / "share" / kBelowDatadir;
  if (std::filesystem::is_directory(beside, ignored)) return beside;
  return std::filesystem::path(AW_DATADIR) / kBelowDatadir;
}

}  // namespace aw::cli
