// SPDX-License-Identifier: Apache-2.0
#include "cli/record_source.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <unordered_set>

#include "cli/host_settings.h"
#include "cli/report.h"
#include "cli/terminal.h"
#include "postgres/events.h"
#include "postgres/migrate.h"
#include "record/event_dict.h"

namespace aw::cli {
namespace {

using bus::Dict;

/// A daemon that takes longer than this has nothing to add to what the stores say.
constexpr Span kDaemonPatience = std::chrono::seconds{3};

constexpr char kOwnRecordOnly[] = "; what follows is this host's own record";

std::vector<Dict> to_dicts(const std::vector<supervise::EventRecord>& events) {
  std::vector<Dict> dicts;
  dicts.reserve(events.size());
  for (const auto& event : events) dicts.push_back(record::to_dict(event));
  return dicts;
}

std::uint64_t moment_of(const Dict& event) { return number_of(event, "occurred_at").value_or(0); }

}  // namespace

std::vector<Dict> merge_events(std::vector<Dict> first, std::vector<Dict> second) {
  std::unordered_set<std::string> known;
  for (const Dict& event : first) known.insert(text_of(event, "event_id"));
  std::erase_if(second, [&](const Dict& event) { return known.contains(text_of(event, "event_id")); });
  std::vector<Dict> all;
  all.reserve(first.size() + second.size());
  std::merge(std::make_move_iterator(first.begin()), std::make_move_iterator(first.end()),
             std::make_move_iterator(second.begin()), std::make_move_iterator(second.end()), std::back_inserter(all),
             [](const Dict& a, const Dict& b) { return moment_of(a) > moment_of(b); });
  return all;
}

bool RecordSource::includes_this_host() const {
  return options_.all_hosts || options_.host.empty() || options_.host == this_host();
}

std::string RecordSource::open_shared_store() {
  auto connection = postgres::Connection::open(shared_store(settings_.postgres, postgres::Access::kAny));
  if (!connection) return printable(connection.error().message);
  const auto version = postgres::read_schema_version(*connection);
  if (!version) return printable(version.error().message);
  if (*version == 0) return "PostgreSQL has none of our tables; analysisctl migrate makes them";
  shared_.emplace(std::move(*connection));
  return "";
}

std::string RecordSource::open_ledger() {
  ledger_path_ = settings_.ledger.path;
  const std::string what = "the ledger " + printable(ledger_path_.string());
  // What is not there, or not for this caller, is nothing to be warned of.
  if (::access(ledger_path_.c_str(), R_OK) != 0) return what + ": " + std::strerror(errno);
  ledger::LedgerReader reader(ledger_path_);
  if (const auto newest = reader.read_newest_seq(); !newest) {
    warnings_.push_back(what + " is not used: " + printable(newest.error().message));
    return warnings_.back();
  }
  ledger_.emplace(std::move(reader));
  return "";
}

std::string RecordSource::open_daemon() {
  auto client = WatchdogClient::connect(options_.bus);
  if (!client) return client.error().message;
  if (!shared_ && !ledger_) {  // Then it is to be known now whether it answers.
    const auto answer = client->list_events({{"Limit", {std::uint32_t{1}}}});
    if (!answer) return answer.error().message;
  }
  daemon_.emplace(std::move(*client));
  return "";
}

Result<RecordSource> RecordSource::open(const RecordOptions& options) {
  std::vector<std::string> warnings;
  auto settings = read_settings(options.bus, options.config, warnings);
  if (!settings) return std::move(settings).error();
  RecordSource source(options, std::move(*settings));
  source.warnings_ = std::move(warnings);

  const bool of_others = source.names_hosts();
  const bool configured = options.bus == bus::BusKind::kSystem && !source.settings_.postgres.uri.empty();
  if (of_others && !configured) {
    return invalid(
        "--host and --all-hosts need the store that hosts share, and none is configured for this watchdog: "
        "PostgresUri= in [PostgreSQL] of analysis-watchdog.conf(5)");
  }
  if (configured) {
    const std::string why = source.open_shared_store();
    if (of_others && !why.empty()) return invalid(why);
    if (!why.empty()) source.warnings_.push_back(why + kOwnRecordOnly);
  }
  if (!source.includes_this_host()) return source;
  const std::string no_ledger = source.open_ledger();
  const std::string no_daemon = source.open_daemon();
  if (!source.shared_ && !source.ledger_ && !source.daemon_) {
    return invalid("the record can't be read here: " + no_ledger + "; " + no_daemon);
  }
  return source;
}

Result<std::vector<Dict>> RecordSource::read_shared_store(const EventQuery& query) {
  postgres::EventQuery asked;
  asked.since = query.since;
  asked.until = query.until;
  if (!options_.all_hosts) asked.host = options_.host.empty() ? this_host() : options_.host;
  asked.analysis_id = query.analysis_id;
  asked.run_id = query.run_id;
  asked.reason = query.reason;
  asked.kind = query.kind;
  asked.limit = query.limit;
  auto events = postgres::read_events(*shared_, asked);
  if (!events) return std::move(events).error();
  return to_dicts(*events);
}

Result<std::vector<Dict>> RecordSource::read_events(const EventQuery& query) {
  std::vector<Dict> events;
  if (ledger_) {
    auto stored = ledger_->read_events({.since = query.since,
                                        .until = query.until,
                                        .analysis_id = query.analysis_id,
                                        .run_id = query.run_id,
                                        .reason = query.reason,
                                        .kind = query.kind,
                                        .limit = query.limit});
    if (!stored) return std::move(stored).error();
    events = to_dicts(*stored);
  }
  if (shared_) {
    if (auto shared = read_shared_store(query)) {
      events = merge_events(std::move(events), std::move(*shared));
    } else {
      if (names_hosts() || (!ledger_ && !daemon_)) return std::move(shared).error();
      warnings_.push_back("PostgreSQL: " + printable(shared.error().message) + kOwnRecordOnly);
      shared_.reset();
    }
  }
  if (daemon_) {
    const bool alone = !ledger_ && !shared_;
    EventQuery rest = query;
    // What the stores don't have yet of this host is newer than what they have of it.
    const std::string here = this_host();
    const auto newest =
        std::find_if(events.begin(), events.end(), [&](const Dict& e) { return text_of(e, "host") == here; });
    if (!alone && newest != events.end()) rest.since = WallTime(from_usec(moment_of(*newest)));
    auto remembered =
        alone ? daemon_->list_events(to_filter(rest)) : daemon_->list_events(to_filter(rest), kDaemonPatience);
    if (remembered) {
      narrow(*remembered, rest);
      events = merge_events(std::move(*remembered), std::move(events));
    } else if (alone) {
      return std::move(remembered).error();
    }
  }
  events.resize(std::min(events.size(), query.limit));
  return events;
}

void RecordSource::leave_shared_store_if_others_do() {
  if (!is_shared() && (ledger_ || daemon_)) shared_.reset();
}

Json RecordSource::to_json() const {
  if (shared_) {
    Json json{{"kind", "postgresql"}, {"uri", settings_.postgres.uri}};
    json["host"] = options_.all_hosts ? Json(nullptr) : Json(options_.host.empty() ? this_host() : options_.host);
    if (ledger_) json["ledger"] = ledger_path_.string();
    return json;
  }
  if (ledger_) return {{"kind", "ledger"}, {"path", ledger_path_.string()}, {"host", this_host()}};
  return {{"kind", "daemon"}, {"host", this_host()}};
}

std::string RecordSource::to_text() const {
  const std::string ledger = "the ledger of this host (" + printable(ledger_path_.string()) + ")";
  if (shared_) {
    const std::string host =
        options_.all_hosts ? "all hosts" : printable(options_.host.empty() ? this_host() : options_.host);
    return "PostgreSQL (" + printable(settings_.postgres.uri) + ", " + host + ")" + (ledger_ ? " and " + ledger : "");
  }
  if (ledger_) return ledger;
  return "the watchdog, which shows you your own runs and remembers the last that happened";
}

}  // namespace aw::cli
