// SPDX-License-Identifier: Apache-2.0
//
// Runs and events as the gateway shows them, and what is left of them for somebody who is to see nobody's names.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bus/value.h"
#include "cli/json.h"
#include "web/viewer.h"

namespace aw::web {

using cli::Json;

/// Stands for a run where its id must not: always the same of one run, and says nothing about it.
std::string run_key(const std::string& run_id);

/// A live run: the object of `analysisctl list --json`, and its key.
struct Row {
  std::string analysis_id;
  std::string run_id;
  std::string key;
  uid_t uid = 0;
  bus::Dict properties;
  std::string full;       ///< JSON
  std::string anonymous;  ///< JSON

  const std::string& text(const Viewer& viewer) const { return viewer.sight == Sight::kAnonymous ? anonymous : full; }
};
Row to_row(bus::Dict properties);

/// An event: the object of `analysisctl events --json`, and the key of its run.
struct Event {
  std::string event_id;
  std::string analysis_id;  ///< as registered; empty for one of the daemon's own
  std::string run_id;
  std::optional<uid_t> uid;
  std::uint64_t occurred_at = 0;  ///< realtime µs
  bus::Dict record;
  std::string full;       ///< JSON
  std::string anonymous;  ///< JSON

  const std::string& text(const Viewer& viewer) const { return viewer.sight == Sight::kAnonymous ? anonymous : full; }
};
Event to_event(bus::Dict record);
/// What is remembered, in as many answers as there are on their way, is there once.
using SharedEvent = std::shared_ptr<const Event>;

/// Whether this viewer is shown it, in whatever form.
inline bool is_shown(const Viewer& viewer, std::optional<uid_t> owner) {
  return viewer.sight == Sight::kAnonymous || viewer.may_see(owner);
}

/// "[…,…]" of the texts.
template <class Items>
std::string join_array(const Items& texts) {
  std::string array = "[";
  for (const auto& text : texts) {
    if (array.size() > 1) array += ',';
    array += *text;
  }
  return array + "]";
}

/// What `analysisctl status --json` prints; the empty form without properties of the manager's.
std::string status_json(const bus::Dict* properties, const std::vector<const std::string*>& recent_events);

}  // namespace aw::web
