// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "support/process.h"

namespace aw::stories {

/// One record of the journal. A field may come more than once.
using JournalRecord = std::multimap<std::string, std::string>;

/// The first value of a field, or "".
std::string field(const JournalRecord& record, const std::string& name);

/// All records in which `name` is `value`.
std::vector<JournalRecord> find_journal_records(const std::string& name, const std::string& value);

/// Waits until there is one.
std::optional<JournalRecord> await_journal_record(const std::string& name, const std::string& value,
                                                  Span patience = kPatience);

}  // namespace aw::stories
