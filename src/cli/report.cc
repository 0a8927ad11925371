// SPDX-License-Identifier: Apache-2.0
#include "cli/report.h"

#include <sys/wait.h>

#include <cstring>

#include "base/bytes.h"
#include "base/time.h"
#include "cli/terminal.h"

namespace aw::cli {
namespace {

constexpr int kWallClock = 124;

std::string size_of(const bus::Dict& record, std::string_view key) {
  const auto number = number_of(record, key);
  return number ? format_size(Bytes(*number)) : "";
}

bool flag_of(const bus::Dict& record, std::string_view key) {
  const bus::Value* value = bus::find(record, key);
  const bool* flag = value == nullptr ? nullptr : value->get_if<bool>();
  return flag != nullptr && *flag;
}

std::string detail_of(const bus::Dict& record, std::string_view key) {
  const bus::Value* details = bus::find(record, "details");
  const auto* dict = details == nullptr ? nullptr : details->get_if<bus::Dict>();
  return dict == nullptr ? "" : text_of(*dict, key);
}

std::string what_happened(const bus::Dict& record, const std::string& reason) {
  const std::string limit = size_of(record, "memory_limit_bytes");
  if (reason == "memory") {
    const std::string cause = detail_of(record, "cause");
    if (cause.starts_with("stalled")) return "memory: it did nothing but stall for memory (limit " + limit + ")";
    return "memory: it used " + size_of(record, "memory_bytes") + " of its limit of " + limit;
  }
  if (reason == "oom")
    return "oom: it ran past its memory limit of " + limit + " into its ceiling, and the kernel killed it";
  if (reason == "wall-clock") {
    return "wall-clock: it reached its limit of " + rough_span(number_of(record, "wall_clock_limit_usec").value_or(0));
  }
  if (reason == "orphaned") return "orphaned: " + detail_of(record, "cause");
  if (reason == "external") return "external: somebody else killed it, not the watchdog";
  if (reason == "requested") return "requested: " + detail_of(record, "cause");
  return reason;
}

}  // namespace

std::string text_of(const bus::Dict& record, std::string_view key) {
  const bus::Value* value = bus::find(record, key);
  const auto* text = value == nullptr ? nullptr : value->get_if<std::string>();
  return text == nullptr ? "" : *text;
}

std::optional<std::uint64_t> number_of(const bus::Dict& record, std::string_view key) {
  const bus::Value* value = bus::find(record, key);
  if (value == nullptr) return std::nullopt;
  if (const auto* t = value->get_if<std::uint64_t>()) return *t == UINT64_MAX ? std::nullopt : std::optional(*t);
  if (const auto* u = value->get_if<std::uint32_t>()) return *u;
  if (const auto* x = value->get_if<std::int64_t>(); x != nullptr && *x >= 0) return static_cast<std::uint64_t>(*x);
  return std::nullopt;
}

int exit_status(int wait_status, const std::string& reason) {
  if (reason == "wall-clock") return kWallClock;
  return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

std::string rough_span(std::uint64_t usec) {
  constexpr std::uint64_t kSecond = 1'000'000;
  const std::uint64_t unit = usec >= 60 * kSecond ? kSecond : usec >= kSecond ? kSecond / 10 : 1000;
  const std::uint64_t rough = usec < 1000 ? usec : usec / unit * unit;
  return format_span(from_usec(rough));
}

std::string end_sentence(const bus::Dict& record) {
  const std::string reason = text_of(record, "reason");
  if (reason == "exited" || reason.empty()) return "";
  const std::string id = printable(text_of(record, "registered_as"));
  std::string sentence = id + " was ended: " + what_happened(record, reason);
  if (const auto duration = number_of(record, "duration_usec")) sentence += "; it had run " + rough_span(*duration);
  if (reason != "oom" && reason != "external") {
    sentence += flag_of(record, "escalated") ? "; SIGTERM was not enough" : "; SIGTERM was enough";
  }
  return sentence + ". See: analysisctl events --id='" + id + "'";
}

std::string report_text(const bus::Dict& record) {
  std::string text;
  const auto line = [&](const char* name, const std::string& value) {
    if (!value.empty()) text += std::string(name) + ": " + printable(value) + "\n";
  };
  line("     analysis", text_of(record, "registered_as"));
  line("       reason", text_of(record, "reason"));
  if (const auto code = number_of(record, "exit_code")) line("    exit code", std::to_string(*code));
  if (const auto signal = number_of(record, "exit_signal")) {
    line("  exit signal", std::to_string(*signal) + " (" + ::strsignal(static_cast<int>(*signal)) + ")");
  }
  if (const auto duration = number_of(record, "duration_usec")) line("     duration", rough_span(*duration));
  if (const auto cpu = number_of(record, "cpu_usec")) line("     CPU time", rough_span(*cpu));
  line("  memory peak", size_of(record, "memory_peak_bytes"));
  line(" memory limit", size_of(record, "memory_limit_bytes"));
  line("  left behind", size_of(record, "leftover_memory_bytes"));
  line("         unit", text_of(record, "unit"));
  return text;
}

}  // namespace aw::cli
