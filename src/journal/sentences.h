// SPDX-License-Identifier: Apache-2.0
//
// A record in words: MESSAGE=, and what the catalog's texts are made of. Ids and command names are quoted as they are:
// the journal delimits fields by length, and its readers escape what a terminal would take for a command.
#pragma once

#include <string>

#include "supervise/event_record.h"

namespace aw::journal {

/// One sentence with the figures that matter.
std::string message(const supervise::EventRecord& event);

/// Why, and by whose limit, as half a sentence: "its wall-clock limit of 30min passed". Empty where there is no reason.
std::string why(const supervise::EventRecord& event);

/// What it used: "ran 30min, 2h 5min of CPU time, 1.2G of memory at most (page cache included)". Empty where nothing is
/// known.
std::string figures(const supervise::EventRecord& event);

/// "2G of memory and 256M of headroom, 30min of wall clock, 10s of grace". Empty for events of the daemon itself.
std::string limits(const supervise::EventRecord& event);

}  // namespace aw::journal
