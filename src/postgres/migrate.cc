// SPDX-License-Identifier: Apache-2.0
#include "postgres/migrate.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <regex>

#include "base/numbers.h"
#include "postgres/session.h"

namespace aw::postgres {
namespace {

/// Of the advisory lock: "aw-migra" in ASCII. It is the database's, so two schemas of one database take turns.
constexpr std::int64_t kLockKey = 0x61772d6d69677261;

struct File {
  int version = 0;
  std::string name;
  std::string text;
};

/// The numbered files, in order and without a gap.
Result<std::vector<File>> read_files(const std::filesystem::path& directory) {
  static const std::regex kNumbered("([0-9]{4})_.+\\.sql");
  std::vector<File> files;
  std::error_code code;
  for (std::filesystem::directory_iterator entries(directory, code), end; !code && entries != end;
       entries.increment(code)) {
    std::string name = entries->path().filename().string();
    std::smatch match;
    if (!std::regex_match(name, match, kNumbered)) continue;
    std::ifstream in(entries->path(), std::ios::binary);
    std::string text((std::istreambuf_iterator<char>(in)), {});
    if (!in || text.empty()) return fail(Fault::kSettings, entries->path().string() + ": empty, or not readable");
    files.push_back({std::stoi(match[1].str()), std::move(name), std::move(text)});
  }
  if (code) return fail(Fault::kSettings, directory.string() + ": " + code.message());
  if (files.empty()) return fail(Fault::kSettings, directory.string() + " has no migrations (NNNN_name.sql)");
  std::ranges::sort(files, {}, &File::version);
  for (std::size_t i = 0; i < files.size(); ++i) {
    if (files[i].version != static_cast<int>(i) + 1) {
      return fail(Fault::kSettings,
                  directory.string() + ": the migrations are not numbered 1, 2, 3, …: " + files[i].name);
    }
  }
  return files;
}

int version_of(pqxx::transaction_base& transaction) {
  // Not to_regclass() alone: it reads no table, so it does not take note of what was committed while this transaction
  // waited for its turn, and would answer from the cache.
  const auto there = execute(transaction,
                             "SELECT EXISTS (SELECT FROM pg_class WHERE relname = 'watchdog_migrations' "
                             "AND pg_table_is_visible(oid))");
  if (!there[0][0].as<bool>()) return 0;
  return execute(transaction, "SELECT coalesce(max(version), 0) FROM watchdog_migrations")[0][0].as<int>();
}

/// A file that differs from what was applied under its number: its name.
std::string find_changed(pqxx::transaction_base& transaction, const std::vector<File>& files, int applied) {
  for (const File& file : files) {
    if (file.version > applied) break;
    const auto differs = execute(transaction,
                                 "SELECT 1 FROM watchdog_migrations WHERE version = $1 AND checksum IS NOT NULL "
                                 "AND checksum <> encode(sha256(convert_to($2, 'UTF8')), 'hex')",
                                 file.version, file.text);
    if (!differs.empty()) return file.name;
  }
  return "";
}

void make_schema(pqxx::transaction_base& transaction, const Target& target) {
  if (target.schemas.empty()) return;
  const std::string& first = target.schemas.front();
  if (!execute(transaction, "SELECT FROM pg_namespace WHERE nspname = $1", first).empty()) return;
  transaction.exec("CREATE SCHEMA " + search_path({first}));
}

/// One file, unless another has been faster. True if it was applied here.
bool apply(pqxx::transaction_base& transaction, const Target& target, const File& file) {
  execute(transaction, "SELECT pg_advisory_xact_lock($1)", kLockKey);
  if (version_of(transaction) >= file.version) return false;
  make_schema(transaction, target);
  transaction.exec(file.text);
  execute(transaction,
          "INSERT INTO watchdog_migrations (version, name, checksum) "
          "VALUES ($1, $2, encode(sha256(convert_to($3, 'UTF8')), 'hex')) "
          "ON CONFLICT (version) DO UPDATE SET name = excluded.name, checksum = excluded.checksum",
          file.version, file.name, file.text);
  return true;
}

/// Building an index on millions of rows takes its time, and so does whoever holds our tables.
constexpr TimeLimits kPatience{Span(0), std::chrono::minutes{1}};

}  // namespace

Result<Migrated> migrate(Connection& connection, const std::filesystem::path& directory) {
  auto files = read_files(directory);
  if (!files) return std::move(files).error().within("migrate");
  return guarded(connection, "migrate", [&](Session& session) -> Result<Migrated> {
    Migrated done;
    {
      pqxx::work look(session.connection);
      set_up(look, session.target, kPatience);
      done.version = version_of(look);
      if (done.version > files->back().version) {
        return fail(Fault::kNewerSchema, "migrate: the schema has version " + std::to_string(done.version) +
                                             ", this program knows " + std::to_string(files->back().version) +
                                             "; update the program");
      }
      if (const std::string changed = find_changed(look, *files, done.version); !changed.empty()) {
        return fail(Fault::kSettings, "migrate: " + (directory / changed).string() +
                                          " is not the file that was applied under its number; put that back, and "
                                          "make a change in a migration of its own");
      }
    }
    for (const File& file : *files) {
      if (file.version <= done.version) continue;
      try {
        pqxx::work transaction(session.connection);
        set_up(transaction, session.target, kPatience);
        const bool applied = apply(transaction, session.target, file);
        transaction.commit();
        if (applied) done.applied.push_back({file.version, file.name});
        done.version = file.version;
      } catch (const std::bad_alloc&) {
        throw;
      } catch (...) {
        return caught(session, "migrate: " + file.name);
      }
    }
    return done;
  });
}

Result<int> read_schema_version(Connection& connection) {
  return guarded(connection, "read the version of the schema", [](Session& session) -> Result<int> {
    pqxx::work look(session.connection);
    set_up(look, session.target, {session.target.statement_timeout, session.target.lock_timeout});
    return version_of(look);
  });
}

}  // namespace aw::postgres
