// SPDX-License-Identifier: Apache-2.0
#include "ledger/migrations.h"

#include <string>

namespace aw::ledger {
namespace {

Result<void> apply(Database& database, const Migration& step) {
  auto transaction = Transaction::begin(database);
  if (!transaction) return std::move(transaction).error();
  // Another program may have been faster, between our look and our lock.
  const auto version = database.read_number("PRAGMA user_version");
  if (!version) return Error(version.error());
  if (*version >= step.version) return {};

  if (auto applied = database.execute(std::string(step.sql).c_str()); !applied) return applied;
  auto note = database.prepare(
      "INSERT INTO watchdog_migrations (version, name, applied_at) "
      "VALUES (?1, ?2, strftime('%Y-%m-%dT%H:%M:%f000Z', 'now'))");
  if (!note) return std::move(note).error();
  note->bind(1, std::int64_t{step.version});
  note->bind(2, step.name);
  if (auto noted = note->run(); !noted) return noted;
  const std::string reached = "PRAGMA user_version = " + std::to_string(step.version);
  if (auto set = database.execute(reached.c_str()); !set) return set;
  return transaction->commit();
}

}  // namespace

Result<void> migrate(Database& database, std::span<const Migration> steps) {
  const auto version = database.read_number("PRAGMA user_version");
  if (!version) return Error(version.error());
  const int newest = steps.empty() ? 0 : steps.back().version;
  if (*version > newest) {
    return Error{std::make_error_code(std::errc::not_supported),
                 "its schema is version " + std::to_string(*version) + ", and this program knows version " +
                     std::to_string(newest) +
                     " at most: install the newer analysis-watchdog again, or move the file away to begin a new one"};
  }
  for (const Migration& step : steps) {
    if (step.version <= *version) continue;
    if (auto applied = apply(database, step); !applied) {
      return std::move(applied).error().within("migration " + std::string(step.name));
    }
  }
  return {};
}

namespace {

constexpr int kPatience = 30'000;  // The daemon's transactions take milliseconds, unless the disk is busy.

Result<Database> open_to_write(const std::filesystem::path& path) {
  auto database = Database::open(path, Database::Access::kReadWrite, kPatience);
  if (!database) return database;
  database->keep_log();
  for (const char* sql : {"PRAGMA foreign_keys=ON", "PRAGMA synchronous=FULL"}) {
    if (auto set = database->execute(sql); !set) return std::move(set).error().within(path.string());
  }
  return database;
}

}  // namespace

Result<Database> open_for_upkeep(const std::filesystem::path& path, std::span<const Migration> steps) {
  auto database = open_to_write(path);
  if (!database) return database;
  if (auto migrated = migrate(*database, steps); !migrated) return std::move(migrated).error().within(path.string());
  return database;
}

Result<Migrated> migrate_file(const std::filesystem::path& path, std::span<const Migration> steps) {
  auto database = open_to_write(path);
  if (!database) return std::move(database).error();
  const auto before = database->read_number("PRAGMA user_version");
  if (!before) return Error(before.error()).within(path.string());
  if (auto migrated = migrate(*database, steps); !migrated) return std::move(migrated).error().within(path.string());
  Migrated done;
  for (const Migration& step : steps) {
    if (step.version > *before) done.applied.emplace_back(step.name);
    done.version = step.version;
  }
  return done;
}

}  // namespace aw::ledger
