// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/time.h"
#include "supervise/limits.h"
#include "supervise/policy.h"

namespace aw::config {

/// Where the record of this host is, and for how long it is kept.
struct LedgerSettings {
  std::filesystem::path path = "/var/lib/analysis-watchdog/ledger.db";
  Span retention = std::chrono::days{90};  ///< of events of runs that have ended; kForever: nothing is deleted
  Bytes max_size = kGiB;  ///< of the file; beyond it the oldest events go, whatever their age; infinite: no bound
};

/// The shared store of many hosts.
struct PostgresSettings {
  std::string uri;                   ///< what psql takes, without a password; empty: there is none
  std::vector<std::string> schemas;  ///< search_path; empty: the role's own
  std::filesystem::path passfile;    ///< libpq's; empty: its default, or the credential that the service was given
};

/// Of analysis-watchdog-web, which is not the daemon.
struct WebSettings {
  std::vector<std::string> listen{"127.0.0.1:8787"};  ///< ADDRESS:PORT or the path of a socket, without systemd's
  std::filesystem::path token_file;                   ///< whose first line opens everything; empty: there is none
  std::vector<std::string> allowed_hosts;             ///< that a Host header may name besides this host
  bool metrics_per_analysis = false;                  ///< for scrapers that may see the ids
  unsigned metrics_per_analysis_max = 200;
};

/// All settings of the daemon. Each default stands once, here or in supervise::Limits.
struct Settings {
  supervise::Limits defaults;       ///< [Defaults]
  supervise::Caps caps;             ///< [Caps]
  supervise::OrphanRounds orphans;  ///< [Orphans]
  supervise::StallRule stall;       ///< [Memory]
  supervise::SeriesRule series;     ///< [Series]
  LedgerSettings ledger;            ///< [Ledger]
  PostgresSettings postgres;        ///< [PostgreSQL]
  WebSettings web;                  ///< [Web]
};

/// One mistake in a configuration text.
struct Problem {
  std::filesystem::path file;
  unsigned line = 0;  ///< 0 where the file as a whole is meant
  std::string message;
};

/// "/etc/analysis-watchdog/analysis-watchdog.conf:7: MemoryLimit=: "12 GiBs" is not a size; write e.g. 512M, …"
std::string to_string(const Problem& problem);

struct SourceFile {
  std::filesystem::path name;
  std::string text;
};

/// Every problem in the texts, not only the first. Unknown sections and keys are problems too. Later files win,
/// key by key; an empty value ("MemoryLimit=") returns a key to its default, as systemd does. A limit of zero is
/// refused. For the loop's thread only: libinih keeps its dialect in variables of the process.
std::variant<Settings, std::vector<Problem>> parse_settings(const std::vector<SourceFile>& files);

/// A key that a configuration text may hold, for the manual page and its test.
struct KnownKey {
  std::string section;
  std::string key;
  std::string meaning;       ///< one line
  std::string default_text;  ///< as one would write it; empty where an empty value (automatic) is the default
};

/// All keys, section by section, in the order of the documentation.
std::vector<KnownKey> known_keys();

/// Whether a main file that is not there is an outcome (the built-in defaults hold) or a problem (--config).
enum class MainFile { kMayBeAbsent, kMustExist };

/// Where settings are looked for: the main file and the directories of drop-ins, highest precedence first.
struct SearchPath {
  std::filesystem::path main_file = "/etc/analysis-watchdog/analysis-watchdog.conf";
  std::vector<std::filesystem::path> dropin_dirs = {
      "/etc/analysis-watchdog/analysis-watchdog.conf.d",
      "/run/analysis-watchdog/analysis-watchdog.conf.d",
      "/usr/lib/analysis-watchdog/analysis-watchdog.conf.d",
  };
  MainFile presence = MainFile::kMayBeAbsent;
  /// Where the ledger is unless Path= says otherwise.
  std::filesystem::path ledger = LedgerSettings().path;
};

/// The same below $XDG_CONFIG_HOME (~/.config), for a user's own watchdog, whose ledger is below $XDG_STATE_HOME
/// (~/.local/state).
SearchPath user_search_path();

/// Reads and parses. As systemd does it: main file first, then the drop-ins (*.conf, none hidden) of all
/// directories sorted by file name, a name in an earlier directory hiding the same name in a later one, and a
/// link to /dev/null or an empty file masking it. A file that can't be read is a problem like any other.
std::variant<Settings, std::vector<Problem>> load_settings(const SearchPath& path);

}  // namespace aw::config
