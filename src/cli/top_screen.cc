// SPDX-License-Identifier: Apache-2.0
#include "cli/top_screen.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>

#include "analysis_watchdog/words.h"
#include "base/bytes.h"
#include "cli/report.h"

namespace aw::cli {
namespace {

using bus::Dict;

/// How long the row of a run stays that has ended.
constexpr Span kAfterlife = std::chrono::seconds{5};
/// Two samples that are nearer to each other say little about CPU time: the kernel counts it in ticks.
constexpr Span kLeastCpuSpan = std::chrono::milliseconds{400};
constexpr std::size_t kMemoryBar = 12;
constexpr std::size_t kTimeBar = 8;
constexpr std::size_t kLeastId = 12;
constexpr double kFull = 0.9;
constexpr double kFilling = 0.75;

constexpr char kEnded[] = "ended";
constexpr char kGone[] =
    "gone";  ///< listed no more, and nobody has said why: the signal is on its way, or it was let go

Style style_of(double fraction) {
  return fraction >= kFull ? Style::kBad : fraction >= kFilling ? Style::kWarn : Style::kGood;
}

Style style_of_state(const std::string& state) {
  if (state == to_string(State::kRunning)) return Style::kGood;
  if (state == kEnded || state == kGone) return Style::kDim;
  return state == to_string(State::kUnkillable) ? Style::kBad : Style::kWarn;
}

std::string percent_text(const std::optional<double>& percent) {
  if (!percent) return "-";
  std::array<char, 32> text{};
  (void)std::snprintf(text.data(), text.size(), *percent < 99.95 ? "%.1f" : "%.0f", *percent);
  return text.data();
}

std::string size_text(const std::optional<std::uint64_t>& bytes, const char* none) {
  return bytes ? format_size(Bytes(*bytes)) : none;
}

std::string time_of_day(WallTime real) { return format_local(real).substr(11); }

std::string pad(const std::string& text, std::size_t width, bool right) {
  const std::string blank(width - std::min(width, width_of(text)), ' ');
  return right ? blank + text : text + blank;
}

template <class T>
int compare(const T& a, const T& b) {
  return a < b ? -1 : b < a ? 1 : 0;
}

}  // namespace

std::string bar(double fraction, std::size_t columns, TopScreen::Bars bars) {
  fraction = std::isfinite(fraction) ? std::clamp(fraction, 0.0, 1.0) : 0.0;
  if (bars == TopScreen::Bars::kAscii) {
    if (columns < 3) return "";
    const auto full = static_cast<std::size_t>(std::lround(fraction * static_cast<double>(columns - 2)));
    return "[" + std::string(full, '|') + std::string(columns - 2 - full, ' ') + "]";
  }
  static constexpr std::array<const char*, 8> kEighths{"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const auto eighths = static_cast<std::size_t>(std::lround(fraction * static_cast<double>(columns * 8)));
  std::string text;
  for (std::size_t i = 0; i < eighths / 8; ++i) text += "█";
  text += kEighths.at(eighths % 8);
  const std::size_t used = eighths / 8 + (eighths % 8 > 0 ? 1 : 0);
  for (std::size_t i = used; i < columns; ++i) text += "·";
  return text;
}

std::vector<std::string> parse_keys(std::string_view typed) {
  std::vector<std::string> keys;
  while (!typed.empty()) {
    std::size_t length = 1;
    if (typed.size() > 2 && typed[0] == '\x1b' && (typed[1] == '[' || typed[1] == 'O')) {
      length = 2;
      while (length < typed.size() && (typed[length] < '@' || typed[length] > '~')) ++length;  // Its parameters.
      length = std::min(length + 1, typed.size());
    }
    keys.emplace_back(typed.substr(0, length));
    typed.remove_prefix(length);
  }
  return keys;
}

// ---- what the watchdog tells ----

TopScreen::Row TopScreen::row_of(const Dict& run, const Now& now) {
  Row row;
  row.id = text_of(run, "Id");
  row.run_id = text_of(run, "RunId");
  row.state = text_of(run, "State");
  row.memory = number_of(run, "MemoryUnreclaimable");
  row.memory_limit = number_of(run, "MemoryLimit");
  row.cpu_usec = number_of(run, "CPUUsageUSec");
  row.processes = number_of(run, "ProcessCount").value_or(0);
  row.registered_at = Instant(from_usec(number_of(run, "RegisteredAtUSec").value_or(0)));
  if (const auto deadline = number_of(run, "DeadlineUSec")) row.deadline = Instant(from_usec(*deadline));
  row.grace = from_usec(number_of(run, "GraceUSec").value_or(0));
  if (const auto ending = endings_.find(row.id); ending != endings_.end()) row.reason = ending->second.reason;
  if (!row.cpu_usec) return row;

  const auto percent_of = [](std::uint64_t used, Span span) {
    return 100.0 * static_cast<double>(used) / static_cast<double>(span.count());
  };
  const auto sample = cpu_.find(row.run_id);
  if (sample == cpu_.end()) {
    // There is nothing to compare with yet: what it has used since its registration, on the average.
    const Span age = now.monotonic - row.registered_at;
    if (age > kLeastCpuSpan) row.cpu_percent = percent_of(*row.cpu_usec, age);
    cpu_[row.run_id] = {now.monotonic, *row.cpu_usec, row.cpu_percent};
  } else if (const Span span = now.monotonic - sample->second.at; span >= kLeastCpuSpan) {
    row.cpu_percent = percent_of(*row.cpu_usec - std::min(*row.cpu_usec, sample->second.usec), span);
    sample->second = {now.monotonic, *row.cpu_usec, row.cpu_percent};
  } else {
    row.cpu_percent = sample->second.percent;
  }
  return row;
}

void TopScreen::on_listed(std::vector<Dict> runs, Dict manager, const Now& now) {
  away_.clear();
  manager_ = std::move(manager);
  std::vector<Row> rows;
  rows.reserve(runs.size());
  for (const Dict& run : runs) rows.push_back(row_of(run, now));
  std::erase_if(cpu_, [&](const auto& sample) {
    return std::none_of(rows.begin(), rows.end(), [&](const Row& row) { return row.run_id == sample.first; });
  });
  std::erase_if(endings_, [&](const auto& ending) {
    return std::none_of(rows.begin(), rows.end(), [&](const Row& row) {
      return row.id == ending.first && row.state != to_string(State::kRunning);
    });
  });
  std::set<std::string> listed;
  for (const Row& row : rows) listed.insert(row.run_id);
  for (Row& row : rows_) {
    if (listed.contains(row.run_id)) {
      if (row.state != kEnded) continue;
      // The list is older than what we were told.
      std::erase_if(rows, [&](const Row& old) { return old.run_id == row.run_id; });
    }
    if (!row.gone_at) end_row(row, kGone, now);
    if (*row.gone_at > now.monotonic) rows.push_back(std::move(row));
  }
  rows_ = std::move(rows);
}

void TopScreen::on_ending(const std::string& id, const std::string& reason, Instant then) {
  endings_[id] = {reason, then};
  for (Row& row : rows_) {
    if (row.id != id || row.gone_at) continue;
    row.reason = reason;
    row.state = to_string(State::kEnding);
  }
}

void TopScreen::on_ended(const std::string& run_id, const std::string& reason, const Now& now) {
  for (Row& row : rows_) {
    if (row.run_id != run_id || row.state == kEnded) continue;
    endings_.erase(row.id);
    row.reason = reason;
    end_row(row, kEnded, now);
  }
}

void TopScreen::end_row(Row& row, std::string_view state, const Now& now) {
  row.state = state;
  row.cpu_percent.reset();
  row.processes = 0;
  row.gone_at = now.monotonic + kAfterlife;
}

void TopScreen::on_away(std::string why) {
  away_ = std::move(why);
  rows_.clear();  // Never a number that was true a while ago.
  cpu_.clear();
  endings_.clear();
}

std::vector<std::string> TopScreen::unexplained() const {
  std::vector<std::string> ids;
  for (const Row& row : rows_) {
    if (row.reason.empty() && (row.state == to_string(State::kEnding) || row.state == to_string(State::kUnkillable))) {
      ids.push_back(row.id);
    }
  }
  return ids;
}

// ---- keys ----

void TopScreen::scroll(long rows) {
  const auto most = static_cast<long>(rows_.size()) - static_cast<long>(page_);
  first_ = static_cast<std::size_t>(std::clamp(static_cast<long>(first_) + rows, 0L, std::max(most, 0L)));
}

TopScreen::Answer TopScreen::on_key(std::string_view key) {
  if (key == "q" || key == "Q") return Answer::kQuit;
  if (std::exchange(help_, false)) return Answer::kDraw;
  const auto sort_by = [&](TopOrder order) {
    order_ = order;
    first_ = 0;
    return Answer::kDraw;
  };
  const auto turn = [&](std::size_t by) {
    return sort_by(static_cast<TopOrder>((static_cast<std::size_t>(order_) + by) % kTopOrderWords.size()));
  };
  if (key == "h" || key == "?") {
    help_ = true;
  } else if (key == "M" || key == "m") {
    return sort_by(TopOrder::kMemory);
  } else if (key == "P" || key == "p") {
    return sort_by(TopOrder::kCpu);
  } else if (key == "T" || key == "t") {
    return sort_by(TopOrder::kTimeLeft);
  } else if (key == "N" || key == "n") {
    return sort_by(TopOrder::kProcesses);
  } else if (key == "I" || key == "i") {
    return sort_by(TopOrder::kId);
  } else if (key == ">") {
    return turn(1);
  } else if (key == "<") {
    return turn(kTopOrderWords.size() - 1);
  } else if (key == "R" || key == "r") {
    reversed_ = !reversed_;
  } else if (key == " ") {
    return Answer::kLook;
  } else if (key == "\x1b[A" || key == "\x1bOA" || key == "k") {
    scroll(-1);
  } else if (key == "\x1b[B" || key == "\x1bOB" || key == "j") {
    scroll(1);
  } else if (key == "\x1b[5~") {
    scroll(-static_cast<long>(page_));
  } else if (key == "\x1b[6~") {
    scroll(static_cast<long>(page_));
  } else if (key == "\x1b[H" || key == "\x1b[1~" || key == "\x1bOH") {
    first_ = 0;
  } else if (key == "\x1b[F" || key == "\x1b[4~" || key == "\x1bOF") {
    scroll(static_cast<long>(rows_.size()));
  } else if (key != "\x0c") {
    return Answer::kNothing;
  }
  return Answer::kDraw;
}

// ---- the picture ----

std::optional<Span> TopScreen::left_of(const Row& row, const Now& now) const {
  if (row.gone_at) return std::nullopt;
  if (row.state != to_string(State::kRunning)) {
    const auto ending = endings_.find(row.id);
    if (ending == endings_.end()) return std::nullopt;
    return std::max(add_span(ending->second.since, row.grace) - now.monotonic, Span(0));
  }
  if (!row.deadline) return std::nullopt;
  return std::max(*row.deadline - now.monotonic, Span(0));
}

std::string TopScreen::left_text(const Row& row, const Now& now) const {
  const auto left = left_of(row, now);
  if (!left) return "-";
  return *left == Span(0) ? "over" : rough_span(to_usec(*left));
}

std::vector<const TopScreen::Row*> TopScreen::sorted(const Now& now) const {
  std::vector<const Row*> rows;
  for (const Row& row : rows_) {
    if (!row.gone_at || *row.gone_at > now.monotonic) rows.push_back(&row);
  }
  const auto in_order = [&](const Row& a, const Row& b) {
    switch (order_) {
      case TopOrder::kMemory:
        return compare(b.memory.value_or(0), a.memory.value_or(0));
      case TopOrder::kCpu:
        return compare(b.cpu_percent.value_or(0), a.cpu_percent.value_or(0));
      case TopOrder::kTimeLeft:
        return compare(left_of(a, now).value_or(kForever), left_of(b, now).value_or(kForever));
      case TopOrder::kProcesses:
        return compare(b.processes, a.processes);
      case TopOrder::kId:
        return compare(a.id, b.id);
    }
    return 0;
  };
  std::stable_sort(rows.begin(), rows.end(), [&](const Row* a, const Row* b) {
    const int order = reversed_ ? in_order(*b, *a) : in_order(*a, *b);
    return order != 0 ? order < 0 : a->id < b->id;
  });
  return rows;
}

std::string TopScreen::summary(const Now& now) const {
  std::size_t running = 0;
  std::size_t ending = 0;
  for (const Row& row : rows_) {
    if (row.state == to_string(State::kRunning)) ++running;
    if (row.state == to_string(State::kEnding) || row.state == to_string(State::kUnkillable)) ++ending;
  }
  std::string text = "analysisctl top - " + time_of_day(now.real);
  if (!away_.empty()) return text;
  text += ", " + std::to_string(running) + " running, " + std::to_string(ending) + " ending";
  if (const auto kills = number_of(manager_, "KillsLast24h")) text += ", " + std::to_string(*kills) + " killed in 24 h";
  text += ", by " + std::string(kTopOrderWords.at(static_cast<std::size_t>(order_))) + (reversed_ ? ", reversed" : "");
  return text;
}

std::vector<TopScreen::Column> TopScreen::columns_of(const std::vector<const Row*>& rows, const Now& now) const {
  enum : std::size_t { kId, kState, kMemoryGauge, kMemory, kCpu, kProcesses, kTimeGauge, kLeft, kRuntime };
  std::vector<Column> columns{{"ID", false, 0},      {"STATE", false, 1}, {"MEMORY", false, 5},
                              {"OF LIMIT", true, 2}, {"CPU%", true, 4},   {"PROCS", true, 6},
                              {"TIME", false, 7},    {"LEFT", true, 3},   {"RUNTIME", true, 8}};
  for (const Row* row : rows) {
    const bool gone = row->gone_at.has_value();
    const auto add = [&](std::size_t column, std::string text, Style style = Style::kPlain) {
      columns.at(column).cells.emplace_back(std::move(text), gone ? Style::kDim : style);
    };
    add(kId, printable(row->id));
    add(kState, row->reason.empty() ? row->state : row->state + ": " + printable(row->reason),
        style_of_state(row->state));
    const double full = row->memory && row->memory_limit && *row->memory_limit > 0
                            ? static_cast<double>(*row->memory) / static_cast<double>(*row->memory_limit)
                            : 0;
    add(kMemoryGauge, row->memory_limit ? bar(full, kMemoryBar, bars_) : "", style_of(full));
    add(kMemory, size_text(row->memory, "-") + "/" + size_text(row->memory_limit, "none"));
    add(kCpu, percent_text(row->cpu_percent));
    add(kProcesses, std::to_string(row->processes));
    const auto left = left_of(*row, now);
    const bool timed = row->deadline && row->state == to_string(State::kRunning) && *row->deadline > row->registered_at;
    const double used = timed && left ? 1 - static_cast<double>(left->count()) /
                                                static_cast<double>((*row->deadline - row->registered_at).count())
                                      : 0;
    add(kTimeGauge, timed ? bar(used, kTimeBar, bars_) : "", style_of(used));
    add(kLeft, left_text(*row, now));
    const Span age = now.monotonic - row->registered_at;
    add(kRuntime, row->registered_at == Instant{} || age < Span(0) ? "-" : rough_span(to_usec(age)));
  }
  for (Column& column : columns) {
    column.width = width_of(column.name);
    for (const auto& [text, style] : column.cells) column.width = std::max(column.width, width_of(text));
  }
  return columns;
}

std::vector<std::string> TopScreen::draw(TerminalSize size, const Now& now) {
  std::vector<std::string> lines;
  const auto add = [&](const std::string& text, Style style) {
    if (lines.size() < size.lines) lines.push_back(styled(cut(text, size.columns), style));
  };
  add(summary(now), Style::kBold);
  if (help_) {
    for (const char* line : {"", "M  sort by memory           P  by CPU", "T  by the time that is left N  by processes",
                             "I  by id                    <  >  the next order", "R  the other way round",
                             "up, down, page up, page down, home, end: further rows", "space  look now",
                             "q  quit                     any other key: back"}) {
      add(line, Style::kPlain);
    }
    return lines;
  }
  const bus::Value* healthy = bus::find(manager_, "StoreHealthy");
  if (!away_.empty()) {
    add(printable(away_), Style::kBad);
  } else if (healthy != nullptr && *healthy == bus::Value{false}) {
    add("records can't be kept at present; see: analysisctl doctor", Style::kBad);
  } else {
    add("", Style::kPlain);
  }

  const auto rows = sorted(now);
  constexpr std::size_t kAround = 4;  // Two lines and the header above, one below.
  page_ = size.lines > kAround ? size.lines - kAround : 1;
  first_ = std::min(first_, rows.size() > page_ ? rows.size() - page_ : 0);
  const auto end = std::min(rows.size(), first_ + page_);
  auto columns = columns_of(
      {rows.begin() + static_cast<std::ptrdiff_t>(first_), rows.begin() + static_cast<std::ptrdiff_t>(end)}, now);
  const auto width_without_id = [&] {
    std::size_t width = 0;
    for (std::size_t i = 1; i < columns.size(); ++i) width += columns.at(i).width + 1;
    return width;
  };
  while (columns.size() > 2 && width_without_id() + std::min(columns.front().width, kLeastId) > size.columns) {
    columns.erase(
        std::max_element(columns.begin(), columns.end(), [](const auto& a, const auto& b) { return a.rank < b.rank; }));
  }
  const std::size_t room = size.columns - std::min(size.columns, width_without_id());
  columns.front().width = std::min(columns.front().width, std::max(room, std::size_t{1}));

  const auto add_row = [&](const auto& cell_at, bool plain) {
    std::string line;
    std::size_t left = size.columns;
    for (const Column& column : columns) {
      if (left == 0) break;
      const auto [text, style] = cell_at(column);
      const std::size_t width = std::min(column.width, left);
      line += styled(pad(cut(text, width), width, column.right), plain ? Style::kBold : style);
      left -= width;
      if (left > 0 && &column != &columns.back()) {
        line += ' ';
        --left;
      }
    }
    if (lines.size() < size.lines) lines.push_back(std::move(line));
  };
  add_row([](const Column& column) { return std::pair<std::string, Style>(column.name, Style::kBold); }, true);
  for (std::size_t i = 0; i < end - first_; ++i) {
    add_row([i](const Column& column) { return column.cells.at(i); }, false);
  }
  if (rows.empty() && away_.empty()) add("nothing is being watched", Style::kDim);
  std::string foot = "q quit, h help";
  if (rows.size() > page_) {
    foot += "; " + std::to_string(first_ + 1) + " to " + std::to_string(end) + " of " + std::to_string(rows.size());
  }
  while (lines.size() + 1 < size.lines) lines.emplace_back();
  add(foot, Style::kDim);
  return lines;
}

std::string TopScreen::to_text(bool legend, const Now& now) const {
  Table table({"ID", "STATE", "REASON", "MEMORY", "LIMIT", "MEM%", "CPU%", "PROCS", "RUNTIME", "LEFT"});
  for (const Row* row : sorted(now)) {
    if (row->gone_at) continue;  // Nothing here would ever tell why.
    const bool bounded = row->memory && row->memory_limit && *row->memory_limit > 0;
    const Span age = now.monotonic - row->registered_at;
    table.add({row->id,
               {row->state, style_of_state(row->state)},
               row->reason.empty() ? "-" : row->reason,
               size_text(row->memory, "-"),
               size_text(row->memory_limit, "none"),
               percent_text(bounded ? std::optional(100.0 * static_cast<double>(*row->memory) /
                                                    static_cast<double>(*row->memory_limit))
                                    : std::nullopt),
               percent_text(row->cpu_percent),
               std::to_string(row->processes),
               row->registered_at == Instant{} || age < Span(0) ? "-" : rough_span(to_usec(age)),
               left_text(*row, now)});
  }
  return (legend ? summary(now) + "\n\n" : "") + table.to_string(terminal_columns(), legend);
}

}  // namespace aw::cli
