// SPDX-License-Identifier: Apache-2.0
//
// Follows the outbox of a ledger and brings it to PostgreSQL.
//
//   no ledger ──▶ connect ──▶ read the cursor ──▶ ship, a batch a round ──▶ caught up ──▶ (the ledger changes) ship …
//                    ▲                                    │
//                    └──── wait, 1 s doubling to 1 min ◀──┘ a fault
//
// Invariants
//  - How far things are is PostgreSQL's to say: after a fault the cursor is read anew, so it does not matter whether
//  the
//    commit that was under way has happened, nor whether the server is still the same.
//  - The number in the shipped file is never above PostgreSQL's cursor as it was last seen.
//  - No event is waited for: what PostgreSQL refuses for its own sake is set aside there, and said once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "ledger/ledger_reader.h"
#include "postgres/connection.h"
#include "postgres/fault.h"

namespace aw::shipper {

struct ShipperOptions {
  postgres::Target target = {};
  std::filesystem::path ledger = {};
  std::filesystem::path shipped_file = {};  ///< see ledger/shipped.h
  std::string host = {};
  std::size_t largest_batch = 4000;  ///< events in a transaction
  std::uint32_t seed = 1;            ///< of the jitter, so that a fleet does not come back in step
};

/// What people should be told, once.
struct Notice {
  enum class Level { kInfo, kWarning, kError };
  Level level = Level::kInfo;
  std::string text;  ///< one line
};

/// What a round has come to.
struct Round {
  enum class Outcome {
    kMore,      ///< there is more to ship: go on at once
    kCaughtUp,  ///< look again when the ledger changes
    kNoLedger,  ///< … or when there is one
    kFault,     ///< PostgreSQL is in trouble: not before `wait` is over
  };
  Outcome outcome = Outcome::kCaughtUp;
  Span wait{0};  ///< at most, for kCaughtUp and kNoLedger: something may have been missed
  std::vector<Notice> notices;
};

/// Waits for files and for PostgreSQL, as long as the Target's timeouts say. May be dropped at any moment, and the
/// process killed: what was under way has happened or has not, and the next one finds out.
class Shipper {
 public:
  explicit Shipper(ShipperOptions options);

  /// One round: a batch at most.
  Round step(Instant now);
  /// Counts anew what waits, for status(). Reads the ledger only.
  void recount();
  /// "12 events wait; PostgreSQL: not reachable"
  std::string status() const;

 private:
  using Outcome = Round::Outcome;

  Outcome ship(Instant now);
  Outcome on_no_ledger(const Error& error);
  Outcome on_fault(const Error& error);
  void on_success();
  Result<void> find_cursor();
  Result<Outcome> ship_batch(ledger::Outbox outbox);
  Result<Outcome> ship_series(Instant now);
  Result<void> do_chores(Instant now);
  void set_cursor(std::int64_t cursor);
  void say_passed_over(const ledger::Outbox& outbox);
  void say_gone_back(std::int64_t cursor);
  Result<void> say_refusals(std::int64_t after);
  void adopt(const std::string& ledger_id);
  void say(Notice::Level level, std::string text);
  std::uint64_t waiting() const;

  const ShipperOptions options_;
  std::minstd_rand jitter_;
  ledger::LedgerReader ledger_;
  std::optional<postgres::Connection> connection_;

  std::string ledger_id_;      ///< empty: none was seen yet
  bool cursor_known_ = false;  ///< on this connection
  std::int64_t cursor_ = 0;    ///< what PostgreSQL has, as far as we know
  std::int64_t position_ = 0;  ///< what we have looked at; above the cursor where events can't be read
  std::int64_t newest_ = 0;
  std::int64_t refusals_up_to_ = -1;  ///< those above have not been said; -1: none was asked for yet
  std::size_t batch_;

  std::optional<std::int64_t> series_cursor_;  ///< the last change of a curve that PostgreSQL has; unset: to be asked
  Instant next_series_{};                      ///< not before, because it takes none
  bool series_trouble_ = false;

  bool unlinked_ = true;  ///< perhaps
  Instant next_linking_{};
  Instant next_check_{};

  std::optional<postgres::Fault> fault_;
  unsigned faults_ = 0;         ///< in a row
  std::set<std::string> said_;  ///< of this trouble
  bool ledger_trouble_ = false;
  bool file_trouble_ = false;
  std::vector<Notice> notices_;
};

}  // namespace aw::shipper
