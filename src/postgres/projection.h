// SPDX-License-Identifier: Apache-2.0
//
// watchdog_processes is what the events say of the runs that live:
//
//   registered                   a row
//   adopted                      a row if there is none; running
//   limits-changed, extended     limits, deadline and unit as they are now
//   limits-restored              the same
//   ending                       state ending
//   unkillable                   state unkillable
//   ended, unregistered          gone
//   daemon-started               what is left of an earlier boot of that host is gone
//
// An event is taken into account once, when it is inserted: one that is sent again changes nothing.
#pragma once

#include <map>
#include <set>
#include <string>

#include "postgres/event_json.h"
#include "supervise/event_record.h"

namespace aw::postgres {

/// What a series of events, in their order, does to watchdog_processes. Carried out in the order of the members.
struct Projection {
  std::map<std::string, Json> rows;          ///< run id → the new row
  std::map<std::string, Json> changes;       ///< run id → the columns that change
  std::map<std::string, std::string> boots;  ///< host → its boot: rows of the host that have another are gone
  std::set<std::string> gone;                ///< run ids

  void apply(const supervise::EventRecord& event);
};

}  // namespace aw::postgres
