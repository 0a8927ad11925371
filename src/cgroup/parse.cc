// SPDX-License-Identifier: Apache-2.0
#include "cgroup/parse.h"

#include <array>
#include <limits>
#include <span>
#include <string>

#include "base/numbers.h"

namespace aw::cgroup {

namespace {

/// Takes the first line off `text`.
std::string_view next_line(std::string_view& text) {
  const std::size_t end = text.find('\n');
  const std::string_view line = text.substr(0, end);
  text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  return line;
}

/// What was found, short enough for a message.
std::string quoted(std::string_view text) { return "\"" + std::string(text.substr(0, 40)) + "\""; }

Error bad_number(std::string_view key, std::string_view value) {
  return invalid(std::string(key) + ": " + quoted(value) + " is not a number");
}

Error missing(std::string_view key) { return invalid("no line \"" + std::string(key) + "\""); }

/// A line "key number" that is looked for.
struct Field {
  std::string_view key;
  std::uint64_t value = 0;
  bool found = false;
};

Result<void> read_field(std::string_view line, std::span<Field> fields) {
  const std::size_t space = line.find(' ');
  const std::string_view key = line.substr(0, space);
  for (Field& field : fields) {
    if (field.key != key) continue;
    const std::string_view text = space == std::string_view::npos ? std::string_view() : line.substr(space + 1);
    const auto value = parse_number<std::uint64_t>(text);
    if (!value) return bad_number(key, text);
    field.value = *value;
    field.found = true;
    return {};
  }
  return {};
}

/// Fills in those of `fields` that a flat-keyed file has.
Result<void> read_fields(std::string_view text, std::span<Field> fields) {
  while (!text.empty()) {
    if (auto read = read_field(next_line(text), fields); !read) return read;
  }
  return {};
}

/// The number of a file of which one line matters, and has to be there.
Result<std::uint64_t> read_one(std::string_view text, std::string_view key) {
  std::array<Field, 1> fields{{{key}}};
  if (auto read = read_fields(text, fields); !read) return std::move(read).error();
  if (!fields[0].found) return missing(key);
  return fields[0].value;
}

Result<Span> span_of(std::string_view key, std::uint64_t usec) {
  if (usec > static_cast<std::uint64_t>(std::numeric_limits<Span::rep>::max())) {
    return bad_number(key, std::to_string(usec));
  }
  return Span(static_cast<Span::rep>(usec));
}

enum StatField {
  kAnon,
  kFile,
  kKernel,
  kSock,
  kShmem,
  kSlabReclaimable,
  kRefaultAnon,
  kRefaultFile,
  kFirstKernelPart,
  kStatFields = kFirstKernelPart + 6
};

/// What `kernel` is made of, slab_reclaimable apart.
Bytes sum_of_kernel_parts(std::span<const Field> fields) {
  Bytes sum(fields[kSlabReclaimable].value);
  for (const Field& part : fields.subspan(kFirstKernelPart)) sum = sum + Bytes(part.value);
  return sum;
}

std::string_view total_of(std::string_view pressure_line) {
  constexpr std::string_view kTotal = " total=";
  const std::size_t at = pressure_line.find(kTotal);
  if (at == std::string_view::npos) return {};
  const std::string_view rest = pressure_line.substr(at + kTotal.size());
  return rest.substr(0, rest.find(' '));
}

}  // namespace

Result<supervise::MemoryEvents> parse_memory_events(std::string_view text) {
  std::array<Field, 6> fields{{{"low"}, {"high"}, {"max"}, {"oom"}, {"oom_kill"}, {"oom_group_kill"}}};
  if (auto read = read_fields(text, fields); !read) return std::move(read).error();
  if (!fields[4].found) return missing("oom_kill");
  return supervise::MemoryEvents{fields[0].value, fields[1].value, fields[2].value,
                                 fields[3].value, fields[4].value, fields[5].value};
}

Result<supervise::MemoryStat> parse_memory_stat(std::string_view text) {
  std::array<Field, kStatFields> fields{{{"anon"},
                                         {"file"},
                                         {"kernel"},
                                         {"sock"},
                                         {"shmem"},
                                         {"slab_reclaimable"},
                                         {"workingset_refault_anon"},
                                         {"workingset_refault_file"},
                                         {"kernel_stack"},
                                         {"pagetables"},
                                         {"sec_pagetables"},
                                         {"percpu"},
                                         {"vmalloc"},
                                         {"slab_unreclaimable"}}};
  if (auto read = read_fields(text, fields); !read) return std::move(read).error();
  if (!fields[kAnon].found) return missing("anon");
  supervise::MemoryStat stat;
  stat.anon = Bytes(fields[kAnon].value);
  stat.file = Bytes(fields[kFile].value);
  stat.kernel = fields[kKernel].found ? Bytes(fields[kKernel].value) : sum_of_kernel_parts(fields);
  stat.sock = Bytes(fields[kSock].value);
  stat.shmem = Bytes(fields[kShmem].value);
  stat.slab_reclaimable = Bytes(fields[kSlabReclaimable].value);
  stat.workingset_refault_anon = fields[kRefaultAnon].value;
  stat.workingset_refault_file = fields[kRefaultFile].value;
  return stat;
}

Result<supervise::MemoryPressure> parse_memory_pressure(std::string_view text) {
  supervise::MemoryPressure pressure;
  bool found = false;
  while (!text.empty()) {
    const std::string_view line = next_line(text);
    const bool full = line.starts_with("full ");
    if (!full && !line.starts_with("some ")) continue;
    const std::string_view total = total_of(line);
    const auto usec = parse_number<std::uint64_t>(total);
    if (!usec) return bad_number(full ? "total of full" : "total of some", total);
    const auto span = span_of(full ? "total of full" : "total of some", *usec);
    if (!span) return span.error();
    (full ? pressure.full_total : pressure.some_total) = *span;
    found = found || full;
  }
  if (!found) return missing("full");
  return pressure;
}

Result<bool> parse_populated(std::string_view text) {
  auto value = read_one(text, "populated");
  if (!value) return std::move(value).error();
  if (*value > 1) return invalid("populated: " + std::to_string(*value) + " is neither 0 nor 1");
  return *value == 1;
}

Result<void> parse_procs(std::string_view text, std::vector<pid_t>& pids) {
  const std::size_t before = pids.size();
  while (!text.empty()) {
    const std::string_view line = next_line(text);
    const auto pid = parse_number<pid_t>(line);
    if (!pid || *pid < 0) {
      pids.resize(before);
      return invalid(quoted(line) + " is not a pid");
    }
    if (*pid != 0) pids.push_back(*pid);
  }
  return {};
}

Result<Span> parse_cpu_usage(std::string_view text) {
  return read_one(text, "usage_usec").and_then([](std::uint64_t usec) { return span_of("usage_usec", usec); });
}

Result<std::uint64_t> parse_pids_refused(std::string_view text) {
  std::array<Field, 1> fields{{{"max"}}};
  if (auto read = read_fields(text, fields); !read) return std::move(read).error();
  if (!fields[0].found) return missing("max");
  return fields[0].value;
}

Result<Span> parse_quota(std::string_view text) {
  if (text.ends_with('\n')) text.remove_suffix(1);
  const auto space = text.find(' ');
  const auto quota = parse_limit(text.substr(0, space));
  const auto period =
      parse_number<std::uint64_t>(space == std::string_view::npos ? std::string_view() : text.substr(space + 1));
  // The kernel knows periods from 1 ms to 1 s, and quotas that are some seconds at most for each CPU.
  constexpr std::uint64_t kMostPeriod = 1'000'000;
  constexpr std::uint64_t kMostQuota = std::uint64_t{1} << 43U;
  const bool limited = quota && *quota != std::numeric_limits<std::uint64_t>::max();
  if (!quota || !period || *period == 0 || *period > kMostPeriod || (limited && *quota > kMostQuota)) {
    return invalid(quoted(text) + " is no quota with its period");
  }
  if (!limited) return kForever;
  return Span(static_cast<std::int64_t>(*quota * kMostPeriod / *period));
}

Result<std::uint64_t> parse_limit(std::string_view text) {
  if (text.ends_with('\n')) text.remove_suffix(1);
  if (text == "max") return std::numeric_limits<std::uint64_t>::max();
  const auto value = parse_number<std::uint64_t>(text);
  if (!value) return invalid(quoted(text) + " is neither a number nor \"max\"");
  return *value;
}

}  // namespace aw::cgroup
