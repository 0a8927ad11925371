// SPDX-License-Identifier: Apache-2.0
//
// What keeps the record: migrate and prune. They open the stores themselves and need no daemon.
#include <unistd.h>

#include <cstring>

#include "cli/commands.h"
#include "cli/host_settings.h"
#include "cli/terminal.h"
#include "cli/upkeep.h"
#include "cli/when.h"
#include "ledger/migrations.h"
#include "ledger/prune.h"
#include "ledger/shipped.h"
#include "postgres/migrate.h"

namespace aw::cli {
namespace {

/// What became of one store: done, left out for a reason that is no failure, or failed.
struct Outcome {
  Json json;
  std::string text;
  std::optional<Error> error = {};
};

Outcome left_out(const std::string& why) { return {Json{{"skipped", why}}, why + "\n"}; }

Outcome migrated(Json json, const std::string& store, const std::vector<std::string>& applied, int version) {
  std::string text = store + ": ";
  for (const std::string& name : applied) text += "applied " + name + "; ";
  json["applied"] = applied;
  json["version"] = version;
  return {std::move(json),
          text + (applied.empty() ? "up to date, version " : "now version ") + std::to_string(version) + "\n"};
}

Outcome migrate_ledger(const std::filesystem::path& path) {
  if (path.empty()) return left_out("a user's own watchdog keeps a ledger only where its configuration names one");
  const std::string name = "ledger " + printable(path.string());
  if (::access(path.c_str(), F_OK) != 0 && errno == ENOENT) {
    return left_out(name + ": there is none yet; the watchdog makes it when it starts");
  }
  if (::access(path.c_str(), W_OK) != 0) {
    return left_out(name + ": " + std::strerror(errno) + "; the watchdog migrates its own when it starts");
  }
  const auto done = ledger::migrate_file(path);
  if (!done) return {Json{{"path", path.string()}, {"error", done.error().message}}, "", done.error()};
  return migrated({{"path", path.string()}}, name, done->applied, done->version);
}

Outcome migrate_shared_store(const config::PostgresSettings& settings, const std::filesystem::path& migrations) {
  if (settings.uri.empty()) return left_out("PostgreSQL: none is configured (PostgresUri=); see also --postgres");
  const std::string name = "PostgreSQL " + printable(settings.uri);
  const auto failed = [&](const Error& error) {
    return Outcome{Json{{"uri", settings.uri}, {"error", error.message}}, "", error};
  };
  auto connection = postgres::Connection::open(shared_store(settings, postgres::Access::kReadWrite));
  if (!connection) return failed(connection.error());
  const auto done = postgres::migrate(*connection, migrations.empty() ? migrations_directory() : migrations);
  if (!done) return failed(done.error());
  std::vector<std::string> applied;
  for (const postgres::Migration& migration : done->applied) applied.push_back(migration.name);
  return migrated({{"uri", settings.uri}}, name, applied, done->version);
}

Result<config::Settings> read_settings_aloud(const Common& common, const std::string& file) {
  std::vector<std::string> warnings;
  auto settings = read_settings(common.bus, file, warnings);
  for (const std::string& warning : warnings) warn(warning);
  return settings;
}

int say(const Common& common, const Json& json, const std::string& text) {
  print(common.json == JsonStyle::kOff ? text : to_text(json, common.json) + "\n");
  return 0;
}

}  // namespace

int migrate_command(const Common& common, const MigrateOptions& options) {
  auto settings = read_settings_aloud(common, options.config);
  if (!settings) return fail(settings.error());
  if (!options.postgres.empty()) settings->postgres.uri = options.postgres;
  const Outcome ledger = migrate_ledger(settings->ledger.path);
  const Outcome shared = migrate_shared_store(settings->postgres, options.migrations);
  (void)say(common, {{"ledger", ledger.json}, {"postgresql", shared.json}}, ledger.text + shared.text);
  int status = 0;
  for (const Outcome* outcome : {&ledger, &shared}) {
    if (outcome->error) status = fail({outcome->error->code, printable(outcome->error->message)});
  }
  return status;
}

int prune_command(const Common& common, const PruneOptions& options) {
  const auto settings = read_settings_aloud(common, options.config);
  if (!settings) return fail(settings.error());
  const std::filesystem::path path = settings->ledger.path;
  if (path.empty()) return fail(invalid("a user's own watchdog keeps a ledger only where its configuration names one"));
  const std::string name = printable(path.string());
  if (options.older_than.empty() && settings->ledger.retention == kForever) {
    return say(common, {{"ledger", path.string()}, {"older_than", nullptr}, {"deleted", 0}},
               "nothing to be deleted: Retention=infinity\n");
  }
  const WallTime now = read_clocks().real;
  const auto older_than = options.older_than.empty() ? Result<WallTime>(now - settings->ledger.retention)
                                                     : parse_older_than(options.older_than, now);
  if (!older_than) return fail(older_than.error());
  if (::access(path.c_str(), F_OK) != 0 && errno == ENOENT) {
    return say(common, {{"ledger", path.string()}, {"older_than", format_iso8601(*older_than)}, {"deleted", 0}},
               "nothing to be deleted: there is no ledger " + name + " yet\n");
  }
  ledger::PruneOrder order{.older_than = *older_than};
  const bool shared = !settings->postgres.uri.empty();
  if (shared) {
    const auto shipped = common.bus == bus::BusKind::kUser ? ledger::user_shipped_file() : ledger::kShippedFile;
    const auto seq = read_prunable_seq(path, shipped);
    if (!seq) return fail(seq.error());
    order.up_to_seq = *seq;
    if (*seq == 0)
      warn("PostgreSQL has none of these events yet, so all are kept; see: systemctl status analysis-watchdog-shipper");
  }
  const auto deleted = ledger::prune(path, order);
  if (!deleted) return fail({deleted.error().code, printable(deleted.error().message)});
  Json json{{"ledger", path.string()}, {"older_than", format_iso8601(*older_than)}, {"deleted", *deleted}};
  json["up_to_seq"] = shared ? Json(order.up_to_seq) : Json(nullptr);
  return say(common, json,
             std::to_string(*deleted) + " events older than " + format_local(*older_than) + " deleted from " + name +
                 (shared ? "; what PostgreSQL does not have yet is kept" : "") + "\n");
}

}  // namespace aw::cli
