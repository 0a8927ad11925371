// SPDX-License-Identifier: Apache-2.0
//
// A small owner of SQLite's handles. Its error codes are kept as they are, because what to do about an error depends
// on them: a full disk is waited for, a corrupt file is set aside, a row that is refused is put aside alone.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include "base/result.h"

namespace aw::ledger {

/// Of SQLite's extended result codes.
const std::error_category& sqlite_category();

/// What an error of SQLite's asks for.
enum class Trouble {
  kCorrupt,      ///< the file is no database, or a broken one
  kRefused,      ///< this row, or this statement, will never be taken
  kUnavailable,  ///< disk full, read-only, I/O error, locked: may pass
};
Trouble trouble_of(const std::error_code& code);

/// A prepared statement, which its Database outlives. Parameters and columns are counted from 1 and from 0, as in
/// SQLite. Text that is bound is copied.
class Statement {
 public:
  explicit Statement(sqlite3_stmt* handle) : handle_(handle) {}

  /// With its colon; nullptr beyond the last.
  const char* parameter_name(int parameter) const { return sqlite3_bind_parameter_name(handle_.get(), parameter); }
  void bind(int parameter, std::string_view text);
  void bind(int parameter, std::int64_t number);
  void bind_blob(int parameter, std::string_view bytes);
  void bind_null(int parameter) { sqlite3_bind_null(handle_.get(), parameter); }
  template <class T>
  void bind(int parameter, const std::optional<T>& value) {
    value ? bind(parameter, *value) : bind_null(parameter);
  }

  /// True if there is a row to read.
  Result<bool> step();
  /// step() for a statement without rows, then reset().
  Result<void> run();
  /// Ready for another run; parameters become NULL.
  void reset();

  std::optional<std::int64_t> number(int column) const;
  std::string text(int column) const;  ///< empty for NULL
  std::string blob(int column) const;  ///< empty for NULL
  bool is_null(int column) const { return sqlite3_column_type(handle_.get(), column) == SQLITE_NULL; }

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* handle) const { sqlite3_finalize(handle); }
  };
  std::unique_ptr<sqlite3_stmt, Finalize> handle_;
};

/// A connection, for one thread at a time.
class Database {
 public:
  enum class Access { kRead, kReadWrite };
  /// The file must be there; see create_file(). Waits up to `busy` for other connections' locks, then and later.
  static Result<Database> open(const std::filesystem::path& path, Access access, int busy_milliseconds);

  Result<void> execute(const char* sql);  ///< one or several statements, whose rows are dropped
  Result<Statement> prepare(std::string_view sql);
  Result<std::int64_t> read_number(std::string_view sql);  ///< the first column of the first row; 0 without one
  Result<std::string> read_text(std::string_view sql);

  /// Leaves log and index where they are when the last connection closes: a reader that may not make them finds them.
  void keep_log();

  sqlite3* handle() const { return handle_.get(); }
  /// Whether another file, or none, has the name that this one was opened by.
  bool has_moved() const;
  /// Leaves the files as they are when the connection is closed.
  void forget();

 private:
  explicit Database(sqlite3* handle) : handle_(handle) {}
  struct Close {
    void operator()(sqlite3* handle) const { sqlite3_close_v2(handle); }
  };
  std::unique_ptr<sqlite3, Close> handle_;
};

/// BEGIN IMMEDIATE, and ROLLBACK unless it was committed. The Database outlives it.
class Transaction {
 public:
  static Result<Transaction> begin(Database& database);
  Transaction(Transaction&& other) noexcept : database_(std::exchange(other.database_, nullptr)) {}
  Transaction& operator=(Transaction&&) = delete;
  ~Transaction();
  Result<void> commit();

 private:
  explicit Transaction(Database& database) : database_(&database) {}
  Database* database_;
};

/// An empty file of mode 0640 in a directory that is made with mode 0750, each unless it is there.
Result<void> create_file(const std::filesystem::path& path);

}  // namespace aw::ledger
