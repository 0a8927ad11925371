// SPDX-License-Identifier: Apache-2.0
//
// What `analysisctl top` shows, as a function of what the watchdog has told: no terminal, no bus, no clock.
#pragma once

#include <array>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "bus/value.h"
#include "cli/terminal.h"

namespace aw::cli {

enum class TopOrder { kMemory, kCpu, kTimeLeft, kProcesses, kId };
inline constexpr std::array<std::string_view, 5> kTopOrderWords{"memory", "cpu", "left", "processes", "id"};

struct TerminalSize {
  std::size_t columns = 80;
  std::size_t lines = 24;
};

class TopScreen {
 public:
  /// What a key asks for beside a new picture.
  enum class Answer { kNothing, kDraw, kLook, kQuit };

  enum class Bars { kUnicode, kAscii };

  explicit TopScreen(TopOrder order, Bars bars = Bars::kUnicode) : order_(order), bars_(bars) {}

  // What the watchdog tells.
  /// All live runs that may be seen (ListAnalyses), and the manager's properties.
  void on_listed(std::vector<bus::Dict> runs, bus::Dict manager, const Now& now);
  /// A run was sent SIGTERM then, or is known to have been.
  void on_ending(const std::string& id, const std::string& reason, Instant then);
  /// A run has ended: its row stays for a moment. It may be missing from the list before we are told.
  void on_ended(const std::string& run_id, const std::string& reason, const Now& now);
  /// It can't be asked any more, and why; until the next on_listed().
  void on_away(std::string why);

  /// Ids of runs that are ending for a reason that nobody has told us yet.
  std::vector<std::string> unexplained() const;

  /// A key, or one of the sequences that a terminal sends for the others.
  Answer on_key(std::string_view key);

  /// The picture: at most `size.lines` lines, none wider than `size.columns`.
  std::vector<std::string> draw(TerminalSize size, const Now& now);
  /// All rows with a header, for a file or a pipe.
  std::string to_text(bool legend, const Now& now) const;

 private:
  struct Row {
    std::string id, run_id, state, reason;
    std::optional<std::uint64_t> memory, memory_limit, cpu_usec;
    std::optional<double> cpu_percent;
    std::uint64_t processes = 0;
    Instant registered_at{};
    std::optional<Instant> deadline;
    Span grace{0};
    std::optional<Instant> gone_at;  ///< of one that has ended: when its row goes
  };
  struct CpuSample {
    Instant at;
    std::uint64_t usec;
    std::optional<double> percent;
  };
  struct Ending {
    std::string reason;
    Instant since;
  };
  struct Column {
    std::string name;
    bool right = false;  ///< numbers stand at the right
    unsigned rank = 0;   ///< the highest goes first where there is no room
    std::size_t width = 0;
    std::vector<std::pair<std::string, Style>> cells{};
  };

  Row row_of(const bus::Dict& run, const Now& now);
  static void end_row(Row& row, std::string_view state, const Now& now);
  std::vector<const Row*> sorted(const Now& now) const;
  std::string summary(const Now& now) const;
  std::vector<Column> columns_of(const std::vector<const Row*>& rows, const Now& now) const;
  std::optional<Span> left_of(const Row& row, const Now& now) const;
  std::string left_text(const Row& row, const Now& now) const;
  void scroll(long rows);

  TopOrder order_;
  const Bars bars_;
  bool reversed_ = false;
  bool help_ = false;
  std::size_t first_ = 0;  ///< row that is shown first
  std::size_t page_ = 1;   ///< rows that fit
  std::string away_;
  bus::Dict manager_;
  std::vector<Row> rows_;
  std::map<std::string, CpuSample> cpu_;   ///< by run id
  std::map<std::string, Ending> endings_;  ///< by id
};

/// A bar of that many columns, so much of it full; in eighths of a column where the terminal can show them.
std::string bar(double fraction, std::size_t columns, TopScreen::Bars bars);

/// Splits what was typed into keys: one character each, or an escape sequence.
std::vector<std::string> parse_keys(std::string_view typed);

}  // namespace aw::cli
