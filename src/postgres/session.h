// SPDX-License-Identifier: Apache-2.0
//
// What the sources of this room share, and no other room sees: libpqxx 6 and 7 behind the same few names, and the wall
// at which its exceptions become Errors.
#pragma once

#include <functional>
#include <pqxx/pqxx>
#include <string>
#include <vector>

#include "postgres/connection.h"

namespace aw::postgres {

struct Session {
  Session(const std::string& parameters, const Target& options) : connection(parameters), target(options) {
#if PQXX_VERSION_MAJOR > 7 || (PQXX_VERSION_MAJOR == 7 && PQXX_VERSION_MINOR >= 10)
    connection.set_notice_handler([](pqxx::zview) noexcept {});
#endif
  }
  pqxx::connection connection;
  // Else libpqxx writes the server's notices to stderr, past our log.
#if PQXX_VERSION_MAJOR < 7 || (PQXX_VERSION_MAJOR == 7 && PQXX_VERSION_MINOR < 10)
  pqxx::quiet_errorhandler quiet{connection};
#endif
  Target target;
  bool lost = false;  ///< libpqxx 6 would connect anew, to a server that may be another, without being asked
};

/// For a failpoint before a COMMIT: it is sent, and obeyed, and its answer never comes.
void lose_the_answer(Session& session);

/// One statement with parameters.
template <class... Args>
pqxx::result execute(pqxx::transaction_base& transaction, const std::string& sql, Args&&... args) {
#if PQXX_VERSION_MAJOR > 7 || (PQXX_VERSION_MAJOR == 7 && PQXX_VERSION_MINOR >= 10)
  return transaction.exec(sql, pqxx::params{std::forward<Args>(args)...});
#else
  return transaction.exec_params(sql, std::forward<Args>(args)...);
#endif
}

/// The same with as many parameters as there are.
inline pqxx::result execute_with(pqxx::transaction_base& transaction, const std::string& sql,
                                 const std::vector<std::string>& parameters) {
#if PQXX_VERSION_MAJOR >= 7
  pqxx::params all;
  for (const std::string& parameter : parameters) all.append(parameter);
  return execute(transaction, sql, all);
#else
  return execute(transaction, sql, pqxx::prepare::make_dynamic_params(parameters));
#endif
}

/// Time limits of one transaction; zero is none.
struct TimeLimits {
  Span statement;
  Span lock;
};

/// The first statement of each transaction. Settings of a transaction and not of the session, because a session may be
/// a pooler's.
void set_up(pqxx::transaction_base& transaction, const Target& target, TimeLimits limits);
void set_lock_timeout(pqxx::transaction_base& transaction, Span lock);

/// "a, b" for search_path, each quoted.
std::string search_path(const std::vector<std::string>& schemas);

/// The SQLSTATE of an exception: libpqxx 6 leaves it out where it has a class of its own for it.
std::string sqlstate_of(const pqxx::sql_error& error);

/// The Error of the exception that is being handled, "what: ERROR: …". Marks the session if it is lost.
Error caught(Session& session, const std::string& what);

/// body() on a connection, its exceptions as Errors. `what` says what was being done.
template <class F>
auto guarded(Connection& connection, const std::string& what, F&& body) -> decltype(body(connection.session())) {
  Session& session = connection.session();
  if (session.lost) return fail(Fault::kUnreachable, what + ": the connection was lost");
  try {
    return body(session);
  } catch (const std::bad_alloc&) {
    throw;
  } catch (...) {
    return caught(session, what);
  }
}

}  // namespace aw::postgres
