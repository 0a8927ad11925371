// SPDX-License-Identifier: Apache-2.0
#include "ledger/database.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/failpoint.h"
#include "base/unique_fd.h"

#ifdef AW_FAILPOINTS
// SQLite's own system calls, as they are found under these names in this program first: what it makes of a disk that
// fails at any of them is its business, and part of what is tested.
extern "C" ssize_t pwrite64(int fd, const void* data, size_t size, off64_t at) {
  if (const int e = AW_FAILPOINT_ERRNO("ledger.file-write", ENOSPC, EIO)) {
    errno = e;
    return -1;
  }
  const ssize_t written = ::syscall(SYS_pwrite64, fd, data, size, at);
  AW_FAILPOINT("ledger.file-written");
  return written;
}

extern "C" int fdatasync(int fd) {
  if (const int e = AW_FAILPOINT_ERRNO("ledger.file-sync", EIO, ENOSPC)) {
    errno = e;
    return -1;
  }
  const int synced = static_cast<int>(::syscall(SYS_fdatasync, fd));
  AW_FAILPOINT("ledger.file-synced");
  return synced;
}
#endif

namespace aw::ledger {
namespace {

class SqliteCategory final : public std::error_category {
 public:
  const char* name() const noexcept override { return "sqlite"; }
  std::string message(int code) const override { return sqlite3_errstr(code); }
};

Error error_of(sqlite3* handle, std::string_view what) {
  const int code = sqlite3_extended_errcode(handle);
  const int err = sqlite3_system_errno(handle);
  std::string message = std::string(what) + ": " + sqlite3_errmsg(handle);
  // Which I/O error it was is what helps; SQLite itself only says that there was one.
  const int primary = code & 0xff;
  if (err != 0 && (primary == SQLITE_IOERR || primary == SQLITE_CANTOPEN)) {
    message += " (" + std::generic_category().message(err) + ")";
  }
  return {{code, sqlite_category()}, std::move(message)};
}

/// What SQLite makes of a system call that fails with this errno.
[[maybe_unused]] Error failed(std::string_view what, int err) {
  const int code = err == ENOSPC   ? SQLITE_FULL
                   : err == EMFILE ? SQLITE_CANTOPEN
                   : err == EAGAIN ? SQLITE_BUSY
                                   : SQLITE_IOERR;
  return {{code, sqlite_category()}, std::string(what) + ": " + std::generic_category().message(err)};
}

/// The first words of a statement, for a message.
std::string_view gist(std::string_view sql) { return sql.substr(0, sql.find_first_of("(\n;")).substr(0, 60); }

}  // namespace

const std::error_category& sqlite_category() {
  static const SqliteCategory kCategory;
  return kCategory;
}

Trouble trouble_of(const std::error_code& code) {
  if (code.category() != sqlite_category()) return Trouble::kUnavailable;
  // Shorter than its index says: its log was taken away while others read it, and they hold on to that index.
  if (code.value() == SQLITE_IOERR_SHORT_READ) return Trouble::kCorrupt;
  switch (code.value() & 0xff) {  // The low byte is the primary code (sqlite.org/rescode.html).
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return Trouble::kCorrupt;
    case SQLITE_CONSTRAINT:
    case SQLITE_TOOBIG:
    case SQLITE_MISMATCH:
      return Trouble::kRefused;
    default:
      return Trouble::kUnavailable;
  }
}

void Statement::bind(int parameter, std::string_view text) {
  // The call fails only for a text beyond SQLite's largest; the parameter is NULL then.
  sqlite3_bind_text64(handle_.get(), parameter, text.data() != nullptr ? text.data() : "", text.size(),
                      SQLITE_TRANSIENT, SQLITE_UTF8);
}

void Statement::bind(int parameter, std::int64_t number) { sqlite3_bind_int64(handle_.get(), parameter, number); }

void Statement::bind_blob(int parameter, std::string_view bytes) {
  sqlite3_bind_blob64(handle_.get(), parameter, bytes.data() != nullptr ? bytes.data() : "", bytes.size(),
                      SQLITE_TRANSIENT);
}

Result<bool> Statement::step() {
  switch (sqlite3_step(handle_.get())) {
    case SQLITE_ROW:
      return true;
    case SQLITE_DONE:
      return false;
    default:
      return error_of(sqlite3_db_handle(handle_.get()), gist(sqlite3_sql(handle_.get())));
  }
}

Result<void> Statement::run() {
  auto stepped = step();
  reset();
  if (!stepped) return std::move(stepped).error();
  return {};
}

void Statement::reset() {
  sqlite3_reset(handle_.get());  // What it returns is step()'s error again.
  sqlite3_clear_bindings(handle_.get());
}

std::optional<std::int64_t> Statement::number(int column) const {
  if (is_null(column)) return std::nullopt;
  return sqlite3_column_int64(handle_.get(), column);
}

std::string Statement::text(int column) const {
  const unsigned char* text = sqlite3_column_text(handle_.get(), column);
  if (text == nullptr) return "";
  return {reinterpret_cast<const char*>(text), static_cast<std::size_t>(sqlite3_column_bytes(handle_.get(), column))};
}

std::string Statement::blob(int column) const {
  const void* bytes = sqlite3_column_blob(handle_.get(), column);
  if (bytes == nullptr) return "";
  return {static_cast<const char*>(bytes), static_cast<std::size_t>(sqlite3_column_bytes(handle_.get(), column))};
}

Result<Database> Database::open(const std::filesystem::path& path, Access access, int busy_milliseconds) {
  if (const int e = AW_FAILPOINT_ERRNO("ledger.open", EMFILE, EIO)) return failed("open " + path.string(), e);
  const int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE |
                    (access == Access::kRead ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE);
  sqlite3* handle = nullptr;
  const int opened = sqlite3_open_v2(path.c_str(), &handle, flags, nullptr);
  Database database(handle);  // There is a handle even then, and it has the error.
  if (opened != SQLITE_OK) return error_of(handle, "open " + path.string());
  sqlite3_busy_timeout(handle, busy_milliseconds);
  // What the schema holds comes from a file that might have been tampered with.
  sqlite3_db_config(handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  return database;
}

Result<void> Database::execute(const char* sql) {
  if (sqlite3_exec(handle_.get(), sql, nullptr, nullptr, nullptr) == SQLITE_OK) return {};
  return error_of(handle_.get(), gist(sql));
}

Result<Statement> Database::prepare(std::string_view sql) {
  if (const int e = AW_FAILPOINT_ERRNO("ledger.prepare", EIO)) return failed(gist(sql), e);
  sqlite3_stmt* handle = nullptr;
  const int prepared = sqlite3_prepare_v3(handle_.get(), sql.data(), static_cast<int>(sql.size()), 0, &handle, nullptr);
  if (prepared != SQLITE_OK) return error_of(handle_.get(), gist(sql));
  return Statement(handle);
}

Result<std::int64_t> Database::read_number(std::string_view sql) {
  auto statement = prepare(sql);
  if (!statement) return std::move(statement).error();
  auto row = statement->step();
  if (!row) return std::move(row).error();
  return *row ? statement->number(0).value_or(0) : 0;
}

Result<std::string> Database::read_text(std::string_view sql) {
  auto statement = prepare(sql);
  if (!statement) return std::move(statement).error();
  auto row = statement->step();
  if (!row) return std::move(row).error();
  return *row ? statement->text(0) : std::string();
}

void Database::keep_log() {
  int keep = 1;
  sqlite3_file_control(handle_.get(), "main", SQLITE_FCNTL_PERSIST_WAL, &keep);
}

bool Database::has_moved() const {
  int moved = 0;
  return sqlite3_file_control(handle_.get(), "main", SQLITE_FCNTL_HAS_MOVED, &moved) == SQLITE_OK && moved != 0;
}

void Database::forget() { sqlite3_db_config(handle_.get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr); }

Result<Transaction> Transaction::begin(Database& database) {
  if (const int e = AW_FAILPOINT_ERRNO("ledger.begin", EAGAIN, EIO)) return failed("BEGIN IMMEDIATE", e);
  if (auto begun = database.execute("BEGIN IMMEDIATE"); !begun) return std::move(begun).error();
  AW_FAILPOINT("ledger.begun");
  return Transaction(database);
}

Result<void> Transaction::commit() {
  if (const int e = AW_FAILPOINT_ERRNO("ledger.commit", ENOSPC, EIO)) return failed("COMMIT", e);
  auto committed = database_->execute("COMMIT");
  if (committed) database_ = nullptr;
  // It is durable, and nobody is told: what was written is written again.
  if (const int e = AW_FAILPOINT_ERRNO("ledger.committed", EIO)) return failed("COMMIT", e);
  return committed;
}

Transaction::~Transaction() {
  // A failed COMMIT or a full disk may have ended it already; then there is nothing to roll back.
  if (database_ != nullptr) (void)database_->execute("ROLLBACK");
}

Result<void> create_file(const std::filesystem::path& path) {
  const std::filesystem::path dir = path.parent_path();
  if (!dir.empty()) {
    std::error_code error;
    std::filesystem::create_directories(dir.parent_path(), error);  // What fails here fails again in mkdir().
    if (::mkdir(dir.c_str(), 0750) == 0) {
      if (::chmod(dir.c_str(), 0750) < 0) return errno_error("chmod " + dir.string());  // Whatever the umask is.
    } else if (errno != EEXIST) {
      return errno_error("make " + dir.string());
    }
  }
  if (const int e = AW_FAILPOINT_ERRNO("ledger.create-file", EMFILE, ENOSPC))
    return errno_error("create " + path.string(), e);
  // An existing file is not even opened: close() would drop the POSIX locks of our other connections to it.
  const UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640));
  if (!fd) return errno == EEXIST ? Result<void>() : errno_error("create " + path.string());
  if (::fchmod(fd.get(), 0640) < 0) return errno_error("chmod " + path.string());
  return {};
}

}  // namespace aw::ledger
