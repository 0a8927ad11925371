// SPDX-License-Identifier: Apache-2.0
#include "support/journal.h"

#include <systemd/sd-journal.h>

#include <memory>
#include <stdexcept>

#include "support/manager.h"

namespace aw::stories {
namespace {

struct Close {
  void operator()(sd_journal* journal) const noexcept { sd_journal_close(journal); }
};
using Journal = std::unique_ptr<sd_journal, Close>;

Journal open_at(const std::string& name, const std::string& value) {
  sd_journal* raw = nullptr;
  // A user's records are in the system's journal or in their own, as the host keeps it.
  const int which = is_users() ? 0 : SD_JOURNAL_SYSTEM;
  if (sd_journal_open(&raw, SD_JOURNAL_LOCAL_ONLY | which) < 0) throw std::runtime_error("no journal");
  Journal journal(raw);
  (void)sd_journal_set_data_threshold(raw, 0);
  const std::string match = name + "=" + value;
  if (sd_journal_add_match(raw, match.data(), match.size()) < 0) throw std::runtime_error("no match " + match);
  return journal;
}

std::vector<JournalRecord> read_records(sd_journal* journal) {
  std::vector<JournalRecord> records;
  sd_journal_seek_head(journal);
  while (sd_journal_next(journal) > 0) {
    JournalRecord record;
    const void* data = nullptr;
    std::size_t size = 0;
    SD_JOURNAL_FOREACH_DATA(journal, data, size) {
      const std::string entry(static_cast<const char*>(data), size);
      const auto equals = entry.find('=');
      record.emplace(entry.substr(0, equals), entry.substr(equals + 1));
    }
    records.push_back(std::move(record));
  }
  return records;
}

}  // namespace

std::string field(const JournalRecord& record, const std::string& name) {
  const auto found = record.find(name);
  return found == record.end() ? "" : found->second;
}

std::vector<JournalRecord> find_journal_records(const std::string& name, const std::string& value) {
  const Journal journal = open_at(name, value);
  return read_records(journal.get());
}

std::optional<JournalRecord> await_journal_record(const std::string& name, const std::string& value, Span patience) {
  const Journal journal = open_at(name, value);
  const Instant deadline = monotonic_now() + patience;
  for (;;) {
    const auto records = read_records(journal.get());
    if (!records.empty()) return records.front();
    if (monotonic_now() >= deadline) return std::nullopt;
    (void)sd_journal_wait(journal.get(), 500'000);  // Woken by what is written; the time is for a missed wake-up.
  }
}

}  // namespace aw::stories
