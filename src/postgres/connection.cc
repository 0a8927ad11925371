// SPDX-License-Identifier: Apache-2.0
#include "postgres/connection.h"

#include <libpq-fe.h>
#include <sys/socket.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>

#include "base/failpoint.h"
#include "postgres/session.h"

namespace aw::postgres {
namespace {

std::string milliseconds(Span span) {
  if (span == kForever || span <= Span(0)) return "0";  // None, to PostgreSQL.
  return std::to_string(std::max<std::int64_t>(1, std::chrono::duration_cast<std::chrono::milliseconds>(span).count()));
}

std::string seconds(Span span) {
  if (span == kForever || span <= Span(0)) return "0";
  // libpq takes 1 for 2.
  return std::to_string(std::max<std::int64_t>(2, std::chrono::duration_cast<std::chrono::seconds>(span).count()));
}

/// A value of a connection string.
std::string quoted(const std::string& value) {
  std::string text = "'";
  for (const char c : value) {
    if (c == '\'' || c == '\\') text += '\\';
    text += c;
  }
  return text + "'";
}

std::string parameter(const std::string& key, const std::string& value) { return key + "=" + quoted(value); }

/// What the address says, by libpq's reading.
Result<std::map<std::string, std::string>> parse_address(const std::string& uri) {
  char* problem = nullptr;
  PQconninfoOption* options = ::PQconninfoParse(uri.c_str(), &problem);
  if (options == nullptr) {
    std::string why = problem == nullptr ? "out of memory" : problem;
    ::PQfreemem(problem);
    while (why.ends_with('\n')) why.pop_back();
    // libpq quotes what it could not read, which may be a password.
    if (uri.find('@') != std::string::npos || uri.find("password") != std::string::npos) why = "not libpq's syntax";
    return fail(Fault::kSettings, "the PostgreSQL address: " + why);
  }
  std::map<std::string, std::string> said;
  for (const PQconninfoOption* option = options; option->keyword != nullptr; ++option) {
    if (option->val != nullptr) said.emplace(option->keyword, option->val);
  }
  ::PQconninfoFree(options);
  return said;
}

Result<std::string> read_password(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::string password;
  if (!std::getline(in, password) || password.empty()) {
    return fail(Fault::kSettings, file.string() + ": no password in its first line, or not readable");
  }
  return password;
}

/// libpq gives no SQLSTATE for a connection that was not made; these are its words, and the server's in English. In
/// other languages the sentence itself has to do.
Fault fault_of_refusal(std::string_view why) {
  constexpr std::array<std::pair<std::string_view, Fault>, 9> kWords{{
      {"authentication failed", Fault::kDenied},
      {"no pg_hba.conf entry", Fault::kDenied},
      {"pg_hba.conf rejects", Fault::kDenied},
      {"no password supplied", Fault::kDenied},
      {"permission denied for database", Fault::kDenied},
      {"session is read-only", Fault::kReadOnly},
      {"too many clients already", Fault::kFull},
      {"connection slots are reserved", Fault::kFull},
      {"FATAL:  role \"", Fault::kDenied},
  }};
  for (const auto& [words, fault] : kWords) {
    if (why.find(words) != std::string_view::npos) return fault;
  }
  return Fault::kUnreachable;
}

}  // namespace

std::optional<std::filesystem::path> find_credential(const std::string& name) {
  const char* directory = std::getenv("CREDENTIALS_DIRECTORY");
  if (directory == nullptr) return std::nullopt;
  std::filesystem::path file = std::filesystem::path(directory) / name;
  std::error_code ignored;
  if (!std::filesystem::exists(file, ignored)) return std::nullopt;
  return file;
}

Result<std::string> connection_parameters(const Target& target) {
  auto address = parse_address(target.uri);
  if (!address) return std::move(address).error();
  std::map<std::string, std::string>& said = *address;
  if (said.contains("password")) {
    return fail(Fault::kSettings,
                "the PostgreSQL address holds a password, and others can read it there; put it into a passfile or "
                "a systemd credential");
  }
  if (!target.passfile.empty() && !target.password_file.empty()) {
    return fail(Fault::kSettings, "both a passfile and a password file are set; one is enough");
  }
  if (!target.passfile.empty()) said["passfile"] = target.passfile.string();
  said["client_encoding"] = "UTF8";
  said.try_emplace("application_name", target.application_name);
  said.try_emplace("connect_timeout", seconds(target.connect_timeout));
  if (target.access == Access::kReadWrite) said.try_emplace("target_session_attrs", "read-write");
  // A server that is cut off must not hold us longer than one that is slow.
  said.try_emplace("tcp_user_timeout", milliseconds(target.statement_timeout));
  said.try_emplace("keepalives_idle", "30");
  said.try_emplace("keepalives_interval", "10");
  said.try_emplace("keepalives_count", "3");

  std::string parameters;
  for (const auto& [key, value] : said) parameters += parameter(key, value) + " ";
  parameters.pop_back();
  return parameters;
}

Connection::Connection(std::unique_ptr<Session> session) : session_(std::move(session)) {}
Connection::Connection(Connection&& other) noexcept = default;
Connection& Connection::operator=(Connection&& other) noexcept = default;
Connection::~Connection() = default;

Result<Connection> Connection::open(const Target& target) {
  auto parameters = connection_parameters(target);
  if (!parameters) return std::move(parameters).error();
  if (!target.password_file.empty()) {
    auto password = read_password(target.password_file);
    if (!password) return std::move(password).error();
    *parameters += " " + parameter("password", *password);
  }
  if (const int e = AW_FAILPOINT_ERRNO("postgres.connect", ECONNREFUSED)) {
    return fail(Fault::kUnreachable, std::string("connect to PostgreSQL: ") + std::strerror(e));
  }
  try {
    return Connection(std::make_unique<Session>(*parameters, target));
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& e) {
    std::string why = e.what();
    while (why.ends_with('\n')) why.pop_back();
    const Fault fault = fault_of_refusal(why);
    return fail(fault, "connect to PostgreSQL: " + std::move(why));
  }
}

std::string search_path(const std::vector<std::string>& schemas) {
  std::string path;
  for (const std::string& schema : schemas) {
    if (!path.empty()) path += ", ";
    path += '"';
    for (const char c : schema) {
      if (c == '"') path += '"';
      path += c;
    }
    path += '"';
  }
  return path;
}

void lose_the_answer(Session& session) { (void)::shutdown(session.connection.sock(), SHUT_RD); }

void set_up(pqxx::transaction_base& transaction, const Target& target, TimeLimits limits) {
  const std::string timeouts = "SELECT set_config('statement_timeout', $1, true), set_config('lock_timeout', $2, true)";
  if (target.schemas.empty()) {
    execute(transaction, timeouts, milliseconds(limits.statement), milliseconds(limits.lock));
  } else {
    execute(transaction, timeouts + ", set_config('search_path', $3, true)", milliseconds(limits.statement),
            milliseconds(limits.lock), search_path(target.schemas));
  }
}

void set_lock_timeout(pqxx::transaction_base& transaction, Span lock) {
  execute(transaction, "SELECT set_config('lock_timeout', $1, true)", milliseconds(lock));
}

std::string sqlstate_of(const pqxx::sql_error& error) {
  if (!error.sqlstate().empty()) return error.sqlstate();
  if (dynamic_cast<const pqxx::insufficient_privilege*>(&error) != nullptr) return "42501";
  if (dynamic_cast<const pqxx::disk_full*>(&error) != nullptr) return "53100";
  if (dynamic_cast<const pqxx::out_of_memory*>(&error) != nullptr) return "53200";
  if (dynamic_cast<const pqxx::insufficient_resources*>(&error) != nullptr) return "53000";
  if (dynamic_cast<const pqxx::data_exception*>(&error) != nullptr) return "22000";
  if (dynamic_cast<const pqxx::foreign_key_violation*>(&error) != nullptr) return "23503";
  if (dynamic_cast<const pqxx::unique_violation*>(&error) != nullptr) return "23505";
  if (dynamic_cast<const pqxx::integrity_constraint_violation*>(&error) != nullptr) return "23000";
  if (dynamic_cast<const pqxx::undefined_column*>(&error) != nullptr) return "42703";
  if (dynamic_cast<const pqxx::undefined_table*>(&error) != nullptr) return "42P01";
  if (dynamic_cast<const pqxx::plpgsql_error*>(&error) != nullptr) return "P0001";
  return "";
}

Error caught(Session& session, const std::string& what) {
  const auto said = [&what](const std::exception& e) {
    std::string why = e.what();
    while (why.ends_with('\n')) why.pop_back();
    return what + ": " + why;
  };
  try {
    throw;
  } catch (const pqxx::transaction_rollback& e) {  // A deadlock or its like. No sql_error in libpqxx 6.
    session.lost = !session.connection.is_open();
    return fail(session.lost ? Fault::kUnreachable : Fault::kBusy, said(e));
  } catch (const pqxx::sql_error& e) {
    const Fault fault = parse_sqlstate(sqlstate_of(e));
    // A server that shuts down says so in answer to a statement, and hangs up.
    if (fault == Fault::kUnreachable || !session.connection.is_open()) {
      session.lost = true;
      return fail(Fault::kUnreachable, said(e));
    }
    if (fault == Fault::kNoSchema) return fail(fault, said(e) + "; is the schema there? analysisctl migrate makes it");
    return fail(fault, said(e));
  } catch (const pqxx::too_many_connections& e) {
    return fail(Fault::kFull, said(e));
  } catch (const pqxx::broken_connection& e) {
    session.lost = true;
    return fail(Fault::kUnreachable, said(e));
  } catch (const pqxx::in_doubt_error& e) {
    session.lost = true;
    return fail(Fault::kUnreachable, said(e));
  } catch (const std::exception& e) {
    if (!session.connection.is_open()) session.lost = true;
    return fail(session.lost ? Fault::kUnreachable : Fault::kOther, said(e));
  }
}

}  // namespace aw::postgres
