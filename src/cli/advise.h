// SPDX-License-Identifier: Apache-2.0
//
// What the runs of a kind needed, and the limits that would have let them live. Made from their records alone.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "bus/value.h"
#include "cli/explain.h"
#include "cli/json.h"

namespace aw::cli {

/// Which runs: by a shell pattern over ids ("nightly-*"), by a label, or both.
struct RunPattern {
  std::string id = {};  ///< empty: all
  std::optional<std::pair<std::string, std::string>> label = {};
};

/// Of one quantity over all runs; the nearest rank, so each is what a run really had.
struct Spread {
  std::uint64_t median = 0, p95 = 0, most = 0;
};
Spread spread_of(std::vector<std::uint64_t> values);  ///< of at least one

struct Advice {
  std::size_t runs = 0;
  std::map<std::string, std::size_t> reasons;  ///< how many ended so
  std::optional<Spread> memory;                ///< bytes that could not be reclaimed, the most of each run
  std::optional<Spread> peak;                  ///< bytes, page cache included
  std::optional<Spread> duration;              ///< microseconds
  std::vector<Suggestion> suggestions;
};

/// Nothing where no run that matches has ended.
std::optional<Advice> advise(const std::vector<bus::Dict>& newest_first, const RunPattern& pattern);

Json advice_json(const Advice& advice);
std::string advice_text(const Advice& advice);

}  // namespace aw::cli
