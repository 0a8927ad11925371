// SPDX-License-Identifier: Apache-2.0
//
// The closed vocabularies of the interface: what a run's State and Reason, and an event's kind, can say on the bus,
// in the journal, in SQL and over HTTP.
#pragma once

#include <array>
#include <optional>
#include <string_view>

namespace aw {

/// What a live run is doing.
enum class State {
  kPlacing,     ///< its scope is being made
  kRunning,     ///< watched
  kEnding,      ///< has been sent SIGTERM and is within its grace, or has been killed and is not gone yet
  kUnkillable,  ///< survives SIGKILL (uninterruptible sleep); retried
};

/// Why a run ended. Exactly one for each, first cause wins.
enum class Reason {
  kExited,     ///< the tree ended by itself
  kWallClock,  ///< the wall-clock limit passed
  kMemory,     ///< unreclaimable memory passed the limit, or the tree did nothing but stall for memory
  kOom,        ///< the kernel killed it, whole, at the hard ceiling
  kOrphaned,   ///< the leader or the owner died and left processes behind
  kExternal,   ///< somebody else killed it
  kRequested,  ///< somebody asked
  kLost,       ///< nobody can know any more
};

/// What an event is about.
enum class EventKind {
  kRegistered,
  kUnregistered,
  kLimitsChanged,
  kLimitsRestored,  ///< somebody else had changed them; they are as they were
  kExtended,
  kOrphanFound,
  kEscaped,     ///< a process was moved out of the run's cgroup, and not by the watchdog
  kEnding,      ///< about to send SIGTERM; holds the evidence
  kEscalated,   ///< cgroup.kill used
  kUnkillable,  ///< processes survive cgroup.kill; says what they wait for
  kEnded,
  kUnreaped,  ///< zombies are left, with a parent that does not reap them
  kAdopted,
  kDaemonStarted,
  kDaemonStopped,
};

inline constexpr std::array<std::string_view, 4> kStateWords{"placing", "running", "ending", "unkillable"};
inline constexpr std::array<std::string_view, 8> kReasonWords{"exited",   "wall-clock", "memory",    "oom",
                                                              "orphaned", "external",   "requested", "lost"};
inline constexpr std::array<std::string_view, 15> kEventKindWords{
    "registered",   "unregistered", "limits-changed", "limits-restored", "extended",
    "orphan-found", "escaped",      "ending",         "escalated",       "unkillable",
    "ended",        "unreaped",     "adopted",        "daemon-started",  "daemon-stopped"};

constexpr std::string_view to_string(State state) { return kStateWords.at(static_cast<std::size_t>(state)); }
constexpr std::string_view to_string(Reason reason) { return kReasonWords.at(static_cast<std::size_t>(reason)); }
constexpr std::string_view to_string(EventKind kind) { return kEventKindWords.at(static_cast<std::size_t>(kind)); }

/// The enumerator that `word` stands for, e.g. parse_word<Reason>(kReasonWords, "wall-clock").
template <class Enum, std::size_t N>
constexpr std::optional<Enum> parse_word(const std::array<std::string_view, N>& words, std::string_view word) {
  for (std::size_t i = 0; i < N; ++i) {
    if (words[i] == word) return static_cast<Enum>(i);
  }
  return std::nullopt;
}

}  // namespace aw
