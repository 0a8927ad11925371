// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <system_error>

#include "base/result.h"

namespace aw::supervise {

/// Why a request was refused; each has an error name on the bus (include/analysis_watchdog/names.h).
enum class Refusal {
  kInvalidId = 1,
  kInvalidOption,
  kAlreadyRegistered,
  kNoSuchAnalysis,
  kNoSuchProcess,
  kProcessAlreadyRegistered,
  kProtectedProcess,
  kLimitTooHigh,
  kTooManyAnalyses,
  kScopeFailed,
  kRecordUnavailable,  ///< the ledger takes no writes, so a new run would leave no record
  kAccessDenied,
};

const std::error_category& refusal_category();

inline Error refuse(Refusal refusal, std::string message) {
  return {std::error_code(static_cast<int>(refusal), refusal_category()), std::move(message)};
}

}  // namespace aw::supervise
