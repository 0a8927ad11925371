// SPDX-License-Identifier: Apache-2.0
//
// What the fuzzer does with one input; rows_corpus_test.cc does the same with each file of corpus/rows.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

#include "base/analysis_id.h"
#include "base/assert.h"
#include "base/numbers.h"
#include "ledger/rows.h"

namespace aw::ledger {

/// A row as a damaged file, or somebody else's program, may have it: cells between bytes 0x1f. One that begins with '#'
/// is a number, an empty one NULL, any other text; those that are missing are NULL. The first byte selects the table:
/// 'r' for runs, else events.
inline void fuzz_rows(std::string_view input) {
  if (input.empty()) return;
  const bool of_run = input.front() == 'r';
  const std::string_view names = of_run ? kRunColumns : kEventColumns;
  const auto columns = 1 + std::count(names.begin(), names.end(), ',');
  static auto database = Database::open(":memory:", Database::Access::kReadWrite, 0);
  AW_ASSERT(database.has_value());
  std::string sql = "SELECT ?";
  for (auto i = columns; i > 1; --i) sql += ",?";
  auto row = database->prepare(sql);
  AW_ASSERT(row.has_value());
  std::string_view rest = input.substr(1);
  for (int column = 1; column <= columns; ++column) {
    const auto end = std::min(rest.find('\x1f'), rest.size());
    const std::string_view cell = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (cell.empty()) continue;
    const auto number = cell.front() == '#' ? parse_number<std::int64_t>(cell.substr(1)) : std::nullopt;
    if (number) {
      row->bind(column, *number);
    } else {
      row->bind(column, cell);
    }
  }
  AW_ASSERT(row->step().value_or(false));
  if (!of_run) {
    (void)to_event(*row);
  } else if (const auto run = to_run(*row)) {
    AW_ASSERT(AnalysisId::parse(run->registered_as) && !run->run_id.empty() && run->leader.pid > 0);
  }
}

}  // namespace aw::ledger
