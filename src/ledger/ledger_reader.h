// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "ledger/database.h"
#include "supervise/event_record.h"
#include "supervise/run_record.h"

namespace aw::ledger {

/// Which events a reader wants.
struct EventQuery {
  std::optional<WallTime> since = {};
  std::optional<WallTime> until = {};           ///< that moment included
  std::optional<std::string> analysis_id = {};  ///< as registered
  std::optional<std::string> run_id = {};       ///< with analysis_id: there is no index for it alone
  std::optional<Reason> reason = {};
  std::optional<EventKind> kind = {};
  std::optional<std::uint32_t> uid = {};  ///< that user's runs only
  std::size_t limit = 100;
};

struct StoredEvent {
  std::int64_t seq;
  supervise::EventRecord event;
};

/// A piece of the ledger, for who keeps a copy.
struct Outbox {
  std::string ledger_id;            ///< seq means something in this ledger only
  std::int64_t newest = 0;          ///< the newest event; 0 while there is none
  std::int64_t highest = 0;         ///< the highest number that was ever given: `newest` may have been pruned
  std::int64_t up_to = 0;           ///< the last that was looked at
  std::size_t unreadable = 0;       ///< that were looked at and are not among `events`
  std::vector<StoredEvent> events;  ///< in the order in which they were written
};

/// Reads a ledger, whoever writes it meanwhile. Opens the file when it is first asked, and anew when another one has
/// taken its place. Fails where there is none. For one thread at a time; each call reads files.
class LedgerReader {
 public:
  explicit LedgerReader(std::filesystem::path path) : path_(std::move(path)) {}

  Result<std::vector<supervise::EventRecord>> read_events(const EventQuery& query);  ///< newest first
  /// What follows `after`, in the order in which it was written: for who keeps a copy.
  Result<std::vector<StoredEvent>> read_events_after(std::int64_t after, std::size_t limit);
  /// The same with what it is a part of. Whatever takes the file's place meanwhile, it is all of one ledger.
  Result<Outbox> read_outbox(std::int64_t after, std::size_t limit);
  Result<std::int64_t> read_newest_seq();  ///< 0 while there is no event
  Result<std::string> read_ledger_id();    ///< the same as long as the ledger lives
  Result<std::vector<supervise::RunRow>> read_runs();
  Result<bool> has_event(const std::string& event_id);

 private:
  Result<Database*> connection();

  std::filesystem::path path_;
  std::optional<Database> database_;
};

}  // namespace aw::ledger
