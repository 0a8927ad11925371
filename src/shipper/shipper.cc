// SPDX-License-Identifier: Apache-2.0
#include "shipper/shipper.h"

#include <algorithm>

#include "base/assert.h"
#include "ledger/shipped.h"
#include "postgres/series.h"
#include "postgres/shipping.h"

namespace aw::shipper {
namespace {

using postgres::Fault;
using namespace std::chrono_literals;

constexpr Span kPoll = 5s;  // An event that inotify has not told of, or a ledger that is not there yet.
constexpr Span kFirstDelay = 1s;
constexpr Span kLongestDelay = 1min;
constexpr Span kCheck = 1min;  // Whether a connection without work is still one, to a server that has not gone back.
constexpr Span kLinking = 10s;
constexpr std::size_t kSeriesAtOnce = 100;  // Of some 20 KB each on the wire.
constexpr std::size_t kMostSaid = 8;        // Different words for one trouble.
constexpr std::size_t kPage = 100;
constexpr unsigned kBusyIsTrouble = 3;  // In a row; before that it is traffic.

/// PostgreSQL repeats in its messages what it was sent, and that may be an analysis's words.
std::string one_line(std::string_view text) {
  std::string line;
  for (const char c : text) {
    const bool control = static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
    if (!control) line += c;
    if (control && !line.ends_with(' ')) line += ' ';
  }
  return line;
}

/// What a person can do about it.
std::string_view advice(Fault fault) {
  switch (fault) {
    case Fault::kUnreachable:
      return "it is tried again, every minute at least";
    case Fault::kDenied:
      return "look at the user of PostgresUri=, its password (the credential postgres-password, or PassFile=) and its "
             "grants (roles.sql)";
    case Fault::kReadOnly:
      return "waiting for a server that takes writes";
    case Fault::kFull:
      return "waiting for room there";
    case Fault::kBusy:
      return "sending less at once";
    case Fault::kNoSchema:
      return "run: analysisctl migrate";
    case Fault::kNewerSchema:
      return "install the newer analysis-watchdog here too";
    case Fault::kSettings:
      return "correct [PostgreSQL] in the configuration, then: systemctl reload analysis-watchdog-shipper";
    case Fault::kData:
    case Fault::kOther:
      return "it is tried again, every minute at least";
  }
  unreachable(fault);
}

}  // namespace

Shipper::Shipper(ShipperOptions options)
    : options_(std::move(options)), jitter_(options_.seed), ledger_(options_.ledger), batch_(options_.largest_batch) {}

Round Shipper::step(Instant now) {
  const Outcome outcome = ship(now);
  Round round{outcome, kPoll, std::exchange(notices_, {})};
  switch (outcome) {
    case Outcome::kMore:
      round.wait = Span(0);
      break;
    case Outcome::kCaughtUp:
    case Outcome::kNoLedger:
      break;
    case Outcome::kFault: {
      const Span delay = std::min(kLongestDelay, kFirstDelay * (1U << std::min(faults_ - 1, 6U)));
      // Between three quarters and all of it.
      round.wait = delay - Span(std::uniform_int_distribution<Span::rep>(0, delay.count() / 4)(jitter_));
      break;
    }
  }
  return round;
}

Round::Outcome Shipper::ship(Instant now) {
  auto id = ledger_.read_ledger_id();
  if (!id) return on_no_ledger(id.error());
  if (*id != ledger_id_) adopt(*id);
  recount();
  ledger_trouble_ = false;

  if (!cursor_known_) {
    if (auto found = find_cursor(); !found) return on_fault(found.error());
    next_check_ = add_span(now, kCheck);
  }
  auto outbox = ledger_.read_outbox(position_, batch_);
  if (!outbox) return on_no_ledger(outbox.error());
  if (outbox->ledger_id != ledger_id_) return Outcome::kMore;  // Replaced this very moment.
  newest_ = outbox->newest;
  if (outbox->highest < cursor_) {
    say(Notice::Level::kWarning, "the ledger has gone back: PostgreSQL has its event " + std::to_string(cursor_) +
                                     ", it has only " + std::to_string(outbox->highest) +
                                     " (was a backup restored?); all of it is sent again, nothing is stored twice");
    if (auto reset = postgres::reset_cursor(*connection_, options_.host, ledger_id_); !reset) {
      return on_fault(reset.error());
    }
    refusals_up_to_ = 0;
    set_cursor(0);
    series_cursor_.reset();
    return Outcome::kMore;
  }

  auto shipped = ship_batch(*std::move(outbox));
  if (!shipped) return on_fault(shipped.error());
  if (auto done = do_chores(now); !done) return on_fault(done.error());
  // Events first: somebody may wait for them.
  if (*shipped == Outcome::kCaughtUp) shipped = ship_series(now);
  if (!shipped) return on_fault(shipped.error());
  on_success();
  return *shipped;
}

Result<Round::Outcome> Shipper::ship_series(Instant now) {
  if (now < next_series_) return Outcome::kCaughtUp;
  if (!series_cursor_) {
    auto cursor = postgres::read_series_cursor(*connection_, options_.host, ledger_id_);
    if (!cursor) return std::move(cursor).error();
    series_cursor_ = *cursor;
  }
  auto changed = ledger_.read_series_after(*series_cursor_, kSeriesAtOnce);
  if (!changed) return Outcome::kCaughtUp;                     // The next round finds out what is wrong with it.
  if (changed->highest < *series_cursor_) series_cursor_ = 0;  // A backup was restored.
  if (changed->up_to <= *series_cursor_) return Outcome::kCaughtUp;
  const bool more = changed->up_to < changed->highest;
  std::vector<postgres::OutboxSeries> series;
  series.reserve(changed->series.size());
  for (ledger::StoredSeries& stored : changed->series) series.push_back({stored.change, std::move(stored.row)});

  const auto shipped = postgres::insert_series(*connection_, {options_.host, ledger_id_, changed->up_to, series});
  if (!shipped) {
    // roles.sql was not run again after the migration: events go on, and matter more.
    if (postgres::fault_of(shipped.error()) != Fault::kDenied) return Error(shipped.error());
    if (!std::exchange(series_trouble_, true)) {
      say(Notice::Level::kError, shipped.error().message + "; events are shipped, curves are not: run roles.sql again");
    }
    next_series_ = add_span(now, kCheck);
    return Outcome::kCaughtUp;
  }
  if (std::exchange(series_trouble_, false)) say(Notice::Level::kInfo, "PostgreSQL takes curves again");
  if (shipped->refused > 0) {
    say(Notice::Level::kError,
        "PostgreSQL refuses " + std::to_string(shipped->refused) + " curves, which are passed over: " + shipped->error);
  }
  series_cursor_ = changed->up_to;
  return more ? Outcome::kMore : Outcome::kCaughtUp;
}

void Shipper::adopt(const std::string& ledger_id) {
  if (!ledger_id_.empty()) say(Notice::Level::kInfo, "another ledger is at " + options_.ledger.string() + " now");
  ledger_id_ = ledger_id;
  cursor_known_ = false;
  refusals_up_to_ = -1;
  // Until PostgreSQL is asked.
  cursor_ = position_ = ledger::read_shipped_seq(options_.shipped_file, ledger_id).value_or(0);
}

Result<void> Shipper::find_cursor() {
  if (!connection_) {
    auto opened = postgres::Connection::open(options_.target);
    if (!opened) return std::move(opened).error();
    connection_.emplace(std::move(*opened));
  }
  const auto cursor = postgres::read_cursor(*connection_, options_.host, ledger_id_);
  if (!cursor) return Error(cursor.error());
  if (*cursor < cursor_) say_gone_back(*cursor);
  if (refusals_up_to_ < 0) {
    say(Notice::Level::kInfo, "PostgreSQL has ledger " + ledger_id_ + " up to its event " + std::to_string(*cursor));
  } else if (auto said = say_refusals(refusals_up_to_); !said) {  // The answer to a commit may have been lost.
    return said;
  }
  refusals_up_to_ = *cursor;
  set_cursor(*cursor);
  series_cursor_.reset();  // Another server may have others.
  cursor_known_ = true;
  return {};
}

Result<Round::Outcome> Shipper::ship_batch(ledger::Outbox outbox) {
  if (outbox.events.empty()) {
    if (outbox.up_to == position_) return Outcome::kCaughtUp;
    say_passed_over(outbox);
    position_ = outbox.up_to;
    return Outcome::kMore;
  }
  std::vector<postgres::OutboxEvent> events;
  events.reserve(outbox.events.size());
  for (ledger::StoredEvent& stored : outbox.events) events.push_back({stored.seq, std::move(stored.event)});

  const auto shipped = postgres::insert_events(*connection_, {options_.host, ledger_id_, cursor_, events});
  if (!shipped) return Error(shipped.error());
  if (shipped->outcome == postgres::Shipped::Outcome::kRewound) {
    say_gone_back(shipped->cursor);
    refusals_up_to_ = shipped->cursor;
    set_cursor(shipped->cursor);
    return Outcome::kMore;
  }
  unlinked_ = unlinked_ || shipped->unlinked > 0;
  if (outbox.unreadable > 0) say_passed_over(outbox);  // Now, so that a batch that is tried again says it once.
  set_cursor(shipped->cursor);
  position_ = std::max(position_, outbox.up_to);
  batch_ = std::min(batch_ * 2, options_.largest_batch);
  if (shipped->refused > 0) {
    if (auto said = say_refusals(refusals_up_to_); !said) return std::move(said).error();
  }
  refusals_up_to_ = cursor_;
  return position_ < newest_ ? Outcome::kMore : Outcome::kCaughtUp;
}

Result<void> Shipper::do_chores(Instant now) {
  if (unlinked_ && now >= next_linking_) {
    next_linking_ = add_span(now, kLinking);
    const auto linked = postgres::link_events(*connection_, options_.host);
    if (!linked) return Error(linked.error());
    unlinked_ = linked->waiting > 0;
  }
  if (now < next_check_) return {};
  next_check_ = add_span(now, kCheck);
  return find_cursor();
}

void Shipper::set_cursor(std::int64_t cursor) {
  if (cursor < cursor_ || position_ < cursor) position_ = cursor;
  cursor_ = cursor;
  // Also where it is as before: whoever removed the file should find it again.
  auto written = ledger::write_shipped_seq(options_.shipped_file, ledger_id_, cursor);
  if (!written && !file_trouble_) {
    say(Notice::Level::kWarning,
        written.error().message + "; the daemon can't know what was shipped, and the ledger is not pruned");
  }
  file_trouble_ = !written;
}

Result<void> Shipper::say_refusals(std::int64_t after) {
  for (;;) {
    const auto refusals = postgres::read_refusals(*connection_, options_.host, ledger_id_, after, kPage);
    if (!refusals) return Error(refusals.error());
    for (const postgres::Refusal& refusal : *refusals) {
      say(Notice::Level::kError, "PostgreSQL refuses event " + refusal.event_id + " (" + std::to_string(refusal.seq) +
                                     " in the ledger): " + refusal.error +
                                     "; it was set aside in the table watchdog_refused, the others pass");
      refusals_up_to_ = after = refusal.seq;
    }
    if (refusals->size() < kPage) return {};
  }
}

void Shipper::say_passed_over(const ledger::Outbox& outbox) {
  say(Notice::Level::kWarning,
      std::to_string(outbox.unreadable) + " of the events " + std::to_string(position_ + 1) + " to " +
          std::to_string(outbox.up_to) +
          " of the ledger can't be read by this version (of a kind or reason that it does not know); passed over");
}

void Shipper::say_gone_back(std::int64_t cursor) {
  say(Notice::Level::kWarning, "PostgreSQL has only the events up to " + std::to_string(cursor) + ", no more up to " +
                                   std::to_string(cursor_) +
                                   " (a failover, or a restored backup?); what it lacks is sent again");
}

Round::Outcome Shipper::on_no_ledger(const Error& error) {
  if (!ledger_trouble_) {
    say(Notice::Level::kWarning, "no ledger to read: " + error.message + "; is analysis-watchdogd running?");
  }
  ledger_trouble_ = true;
  return Outcome::kNoLedger;
}

Round::Outcome Shipper::on_fault(const Error& error) {
  const Fault fault = postgres::fault_of(error);
  ++faults_;
  cursor_known_ = false;
  // The same connection does for what will pass by itself; for anything else another server may be the one to talk to.
  if (fault == Fault::kBusy) {
    batch_ = std::max<std::size_t>(1, batch_ / 2);
  } else {
    connection_.reset();
  }
  fault_ = fault;
  if ((fault != Fault::kBusy || faults_ >= kBusyIsTrouble) && said_.size() < kMostSaid) {
    std::string text = error.message;
    if (text.find(advice(fault)) == std::string::npos) text += "; " + std::string(advice(fault));
    if (said_.insert(text).second) say(Notice::Level::kError, std::move(text));
  }
  return Outcome::kFault;
}

void Shipper::on_success() {
  if (fault_ && !said_.empty()) {
    say(Notice::Level::kInfo, "PostgreSQL takes events again; " + std::to_string(waiting()) + " wait");
  }
  fault_.reset();
  faults_ = 0;
  said_.clear();
}

void Shipper::recount() {
  if (const auto newest = ledger_.read_newest_seq()) newest_ = *newest;
}

std::uint64_t Shipper::waiting() const { return newest_ > cursor_ ? static_cast<std::uint64_t>(newest_ - cursor_) : 0; }

std::string Shipper::status() const {
  if (ledger_trouble_) return "no ledger to read";
  const std::uint64_t count = waiting();
  std::string text = count == 1 ? "1 event waits" : std::to_string(count) + " events wait";
  text += "; PostgreSQL: ";
  if (fault_) return text + postgres::fault_category().message(static_cast<int>(*fault_));
  return text + (cursor_known_ ? "takes them" : "not asked yet");
}

void Shipper::say(Notice::Level level, std::string text) { notices_.push_back({level, one_line(text)}); }

}  // namespace aw::shipper
