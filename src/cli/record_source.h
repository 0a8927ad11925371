// SPDX-License-Identifier: Apache-2.0
//
// Where the tools read the record: of everything that the caller may read, together.
//
//   PostgreSQL   where it is configured and answers; the only one that knows of other hosts
//   the ledger   of this host, for root and its group; needs no daemon
//   the daemon   what it remembers; the only one for an ordinary user, to whom it shows their own
//
// Each is behind the next by a little: the shipper follows the ledger, and the ledger, which waits for the disk, the
// daemon. So an event of this host is taken from whichever has it, once, by its id.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "bus/value.h"
#include "cli/event_query.h"
#include "cli/json.h"
#include "cli/watchdog_client.h"
#include "config/settings.h"
#include "ledger/ledger_reader.h"
#include "postgres/connection.h"

namespace aw::cli {

/// Whose record is wanted, as typed.
struct RecordOptions {
  bus::BusKind bus = bus::BusKind::kSystem;
  std::string config = {};  ///< --config
  std::string host = {};    ///< --host; empty: this one
  bool all_hosts = false;   ///< --all-hosts
};

class RecordSource {
 public:
  /// Fails where nothing can be read, and says what was tried.
  static Result<RecordSource> open(const RecordOptions& options);

  /// Newest first. A shared store that fails is left for good, with a warning, unless hosts were asked for by name.
  Result<std::vector<bus::Dict>> read_events(const EventQuery& query);

  /// What a person should know, once: a store that is configured and did not answer. To be asked after each reading.
  std::vector<std::string> take_warnings() { return std::exchange(warnings_, {}); }

  Json to_json() const;  ///< {"kind": "ledger", "path": …}
  /// "the ledger of this host (/var/lib/…)"
  std::string to_text() const;

  /// Whether events of other hosts are read, which come late and out of turn.
  bool is_shared() const { return shared_ && (options_.all_hosts || !includes_this_host()); }
  /// Before following the events of this host: PostgreSQL has none of them sooner than the others.
  void leave_shared_store_if_others_do();
  /// To be waited on for signals; nothing where the bus is not there.
  WatchdogClient* watchdog() { return daemon_ ? &*daemon_ : nullptr; }

 private:
  RecordSource(RecordOptions options, config::Settings settings)
      : options_(std::move(options)), settings_(std::move(settings)) {}

  bool names_hosts() const { return options_.all_hosts || !options_.host.empty(); }
  bool includes_this_host() const;
  std::string open_shared_store();  ///< why not; empty when it is open
  std::string open_ledger();
  std::string open_daemon();
  Result<std::vector<bus::Dict>> read_shared_store(const EventQuery& query);

  RecordOptions options_;
  config::Settings settings_;
  std::optional<postgres::Connection> shared_;
  std::optional<ledger::LedgerReader> ledger_;
  std::optional<WatchdogClient> daemon_;
  std::filesystem::path ledger_path_;
  std::vector<std::string> warnings_;
};

/// Both newest first, as one; an event that both have is in it once. Within one moment those of `first` come first.
std::vector<bus::Dict> merge_events(std::vector<bus::Dict> first, std::vector<bus::Dict> second);

}  // namespace aw::cli
