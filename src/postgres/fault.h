// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <system_error>

#include "base/result.h"

namespace aw::postgres {

/// What kind of trouble PostgreSQL is in, for whoever has to decide what to do next and what to tell people. The code
/// of every Error of this room.
enum class Fault {
  kUnreachable = 1,  ///< no connection, or lost; a commit may or may not have happened: send it again
  kDenied,           ///< wrong user or password, or a privilege is missing
  kReadOnly,         ///< a standby, or set so
  kFull,             ///< no disk, no memory, no connection left
  kBusy,             ///< a lock, a deadlock, a time-out: try again
  kNoSchema,         ///< our tables are not there, or older: analysisctl migrate
  kNewerSchema,      ///< migrated by a newer program: update this one
  kData,             ///< what was sent is refused for its own sake
  kSettings,         ///< the configuration or a migration file, not the server
  kOther,
};

const std::error_category& fault_category();

inline Error fail(Fault fault, std::string message) {
  return {std::error_code(static_cast<int>(fault), fault_category()), std::move(message)};
}

/// The fault of an Error of this room; kOther for any other's.
Fault fault_of(const Error& error);

/// What an SQLSTATE means to us.
Fault parse_sqlstate(std::string_view sqlstate);

}  // namespace aw::postgres
