// SPDX-License-Identifier: Apache-2.0
#include "process/parse.h"

#include <algorithm>
#include <array>
#include <optional>

#include "base/numbers.h"
#include "base/utf8.h"

namespace aw::process {

namespace {

/// The fields after comm, by the numbers that proc(5) gives them.
class Fields {
 public:
  static constexpr std::size_t kFirst = 3;
  static constexpr std::size_t kLast = 52;

  explicit Fields(std::string_view text) {
    while (!text.empty() && count_ < fields_.size()) {
      const std::size_t end = text.find(' ');
      fields_[count_++] = text.substr(0, end);
      text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    }
  }

  bool has(std::size_t number) const { return number < kFirst + count_; }
  std::string_view text(std::size_t number) const {
    return has(number) ? fields_[number - kFirst] : std::string_view();
  }

  template <class T>
  bool read(std::size_t number, T& value) const {
    const auto parsed = parse_number<T>(text(number));
    if (parsed) value = *parsed;
    return parsed.has_value();
  }

 private:
  std::array<std::string_view, kLast - kFirst + 1> fields_;
  std::size_t count_ = 0;
};

constexpr std::uint64_t kKernelThread = 0x00200000;  // PF_KTHREAD in include/linux/sched.h

Error bad_field(const Fields& fields, std::size_t number) {
  return invalid("field " + std::to_string(number) + ": \"" + std::string(fields.text(number).substr(0, 40)) +
                 "\" is not what proc(5) says");
}

Result<void> read_fields(const Fields& fields, supervise::ProcessStat& stat) {
  std::uint64_t flags = 0;
  if (fields.text(3).size() != 1) return bad_field(fields, 3);
  stat.state = fields.text(3).front();
  if (!fields.read(4, stat.parent) || stat.parent < 0) return bad_field(fields, 4);
  // -1 for a process that is being released just now.
  if (!fields.read(5, stat.process_group)) return bad_field(fields, 5);
  if (!fields.read(6, stat.session)) return bad_field(fields, 6);
  if (!fields.read(9, flags)) return bad_field(fields, 9);
  stat.kernel_thread = (flags & kKernelThread) != 0;
  if (!fields.read(22, stat.start_time)) return bad_field(fields, 22);
  // Absent or odd: 0, for these are evidence only.
  std::uint64_t user = 0;
  std::uint64_t system = 0;
  if (fields.read(14, user) && fields.read(15, system) && user <= UINT64_MAX - system) stat.cpu_ticks = user + system;
  (void)fields.read(24, stat.resident_pages);
  if (stat.state == 'Z' && fields.has(52) && !fields.read(52, stat.exit_status)) return bad_field(fields, 52);
  return {};
}

}  // namespace

Result<supervise::ProcessStat> parse_stat(std::string_view text) {
  if (text.ends_with('\n')) text.remove_suffix(1);
  const std::size_t open = text.find(" (");
  const std::size_t close = text.rfind(") ");
  if (open == std::string_view::npos || close == std::string_view::npos || close < open + 2) {
    return invalid("no command in parentheses");
  }
  supervise::ProcessStat stat;
  const auto pid = parse_number<pid_t>(text.substr(0, open));
  if (!pid || *pid <= 0)
    return invalid("\"" + std::string(text.substr(0, std::min<std::size_t>(open, 40))) + "\" is not a pid");
  stat.pid = *pid;
  stat.comm = text.substr(open + 2, close - open - 2);
  if (auto read = read_fields(Fields(text.substr(close + 2)), stat); !read) return std::move(read).error();
  return stat;
}

std::string readable_cmdline(std::string_view text, std::size_t limit) {
  constexpr std::string_view kCut = "\xE2\x80\xA6";  // …
  text = text.substr(0, text.find_last_not_of('\0') + 1);
  std::string line;
  std::size_t fits_with_mark = 0;  // As much of the line as leaves room for the mark.
  while (!text.empty()) {
    const auto character = find_character(text);
    const std::size_t bytes = character ? character->bytes : 1;
    std::string_view shown = text.substr(0, bytes);
    if (!character || is_noncharacter(character->code)) {
      shown = "\xEF\xBF\xBD";
    } else if (is_control(character->code)) {
      shown = " ";
    }
    if (line.size() + shown.size() > limit) {
      line.resize(fits_with_mark);
      if (limit >= kCut.size()) line += kCut;
      return line;
    }
    line += shown;
    if (line.size() + kCut.size() <= limit) fits_with_mark = line.size();
    text.remove_prefix(bytes);
  }
  return line;
}

std::optional<std::string_view> find_field(std::string_view text, std::string_view name) {
  const std::string start = "\n" + std::string(name) + ":";
  const auto line = text.find(start);
  if (line == std::string_view::npos) return std::nullopt;
  text.remove_prefix(line + start.size());
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  return text.substr(0, text.find('\n'));
}

std::optional<uid_t> parse_sole_uid(std::string_view text) {
  const auto uids = find_field(text, "Uid");
  if (!uids) return std::nullopt;
  std::string_view fields = *uids;
  std::optional<uid_t> sole;
  for (int i = 0; i < 4; ++i) {  // real, effective, saved, filesystem
    const auto end = fields.find('\t');
    if ((end == std::string_view::npos) != (i == 3)) return std::nullopt;
    const auto uid = parse_number<uid_t>(fields.substr(0, end));
    if (!uid || (sole && *sole != *uid)) return std::nullopt;
    sole = uid;
    if (i < 3) fields.remove_prefix(end + 1);
  }
  // (uid_t)-1 is nobody: setresuid(2) takes it for "leave it as it is".
  return *sole == static_cast<uid_t>(-1) ? std::nullopt : sole;
}

std::optional<Bytes> parse_anonymous_share(std::string_view text) {
  const auto field = find_field(text, "Pss_Anon");
  if (!field) return std::nullopt;
  const auto kib = parse_number<std::uint64_t>(field->substr(0, field->find(' ')));
  if (!kib || *kib > UINT64_MAX / 1024) return std::nullopt;
  return Bytes(*kib * 1024);
}

Result<std::string_view> parse_proc_cgroup(std::string_view text) {
  constexpr std::string_view kUnified = "0::";
  constexpr std::string_view kDeleted = " (deleted)";
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    if (!line.starts_with(kUnified)) continue;
    line.remove_prefix(kUnified.size());
    if (line.ends_with(kDeleted)) line.remove_suffix(kDeleted.size());
    if (!line.starts_with('/'))
      return invalid("\"" + std::string(line.substr(0, 40)) + "\" is not the path of a cgroup");
    return line;
  }
  return invalid("no entry of the unified hierarchy: is cgroup v2 mounted?");
}

}  // namespace aw::process
