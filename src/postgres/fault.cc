// SPDX-License-Identifier: Apache-2.0
#include "postgres/fault.h"

#include <array>

namespace aw::postgres {
namespace {

struct Category final : std::error_category {
  const char* name() const noexcept override { return "postgres"; }
  std::string message(int code) const override {
    switch (static_cast<Fault>(code)) {
      case Fault::kUnreachable:
        return "not reachable";
      case Fault::kDenied:
        return "access denied";
      case Fault::kReadOnly:
        return "read-only";
      case Fault::kFull:
        return "out of disk, memory or connections";
      case Fault::kBusy:
        return "busy";
      case Fault::kNoSchema:
        return "schema missing or too old";
      case Fault::kNewerSchema:
        return "schema too new";
      case Fault::kData:
        return "data refused";
      case Fault::kSettings:
        return "settings";
      case Fault::kOther:
        return "failed";
    }
    return "failed";
  }
};

struct Meaning {
  std::string_view prefix;
  Fault fault;
};

// https://www.postgresql.org/docs/current/errcodes-appendix.html; the first prefix that fits counts.
constexpr std::array kMeanings{
    Meaning{"08", Fault::kUnreachable},  // connection exceptions
    Meaning{"22", Fault::kData},         // data exceptions: no number, no uuid, an untranslatable character
    Meaning{"23", Fault::kData},         // integrity constraints
    Meaning{"25006", Fault::kReadOnly},
    Meaning{"28", Fault::kDenied},
    Meaning{"40", Fault::kBusy},  // serialization failures, deadlocks
    Meaning{"42501", Fault::kDenied},
    Meaning{"42P01", Fault::kNoSchema},  // undefined table
    Meaning{"42703", Fault::kNoSchema},  // undefined column
    Meaning{"3F000", Fault::kNoSchema},  // no schema to create in
    Meaning{"44", Fault::kData},
    Meaning{"53", Fault::kFull},
    Meaning{"54", Fault::kData},  // an index row or a jsonb that is too large
    Meaning{"55P03", Fault::kBusy},
    Meaning{"57014", Fault::kBusy},  // statement_timeout
    Meaning{"57", Fault::kUnreachable},
    Meaning{"P0", Fault::kData},  // raised by a trigger that somebody has put on our tables
};

}  // namespace

const std::error_category& fault_category() {
  static const Category kCategory;
  return kCategory;
}

Fault fault_of(const Error& error) {
  return error.code.category() == fault_category() ? static_cast<Fault>(error.code.value()) : Fault::kOther;
}

Fault parse_sqlstate(std::string_view sqlstate) {
  for (const Meaning& meaning : kMeanings) {
    if (sqlstate.starts_with(meaning.prefix)) return meaning.fault;
  }
  return Fault::kOther;
}

}  // namespace aw::postgres
