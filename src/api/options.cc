// SPDX-License-Identifier: Apache-2.0
#include "api/options.h"

#include <array>
#include <functional>

#include "base/utf8.h"
#include "supervise/refusal.h"

namespace aw::api {
namespace {

using supervise::Limits;
using supervise::Refusal;

constexpr std::size_t kMaxLabels = 64;
constexpr std::size_t kMaxText = 1024;  // Bytes of a description, a label's key or its value.
/// Bytes of all keys and values of a run: ListAnalyses of hundreds of runs is one message.
constexpr std::size_t kMaxLabelBytes = 16 * 1024;

Error refused(const std::string& name, const std::string& why) {
  return supervise::refuse(Refusal::kInvalidOption, name + ": " + why);
}

Result<void> apply_orphan_policy(Limits& limits, const std::string& word) {
  const auto policy = supervise::parse_orphan_policy(word);
  if (!policy) return refused("OrphanPolicy", "\"" + word + "\" is neither \"kill\" nor \"report\"");
  limits.orphan_policy = *policy;
  return {};
}

Result<void> apply_owner_policy(Limits& limits, const std::string& word) {
  const auto policy = supervise::parse_owner_policy(word);
  if (!policy) return refused("OwnerPolicy", "\"" + word + "\" is neither \"kill\" nor \"ignore\"");
  limits.owner_policy = *policy;
  return {};
}

std::string hex(char32_t code) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  std::string text;
  for (int shift = code > 0xFFFF ? 20 : 12; shift >= 0; shift -= 4) text += kDigits[(code >> shift) & 0xFU];
  return text;
}

/// Text that may go into a unit file and onto the bus: a newline would begin a line of its own in the first, and
/// sd-bus takes neither what is not UTF-8 nor a noncharacter. `what` is the part of the option that is meant.
Result<void> check_text(const char* option, const std::string& what, std::string_view text) {
  constexpr char kAccepted[] = "; UTF-8 text without control characters is accepted";
  for (std::size_t at = 0; at < text.size();) {
    const std::string where = " at byte " + std::to_string(at + 1);
    const auto character = find_character(text.substr(at));
    if (!character) return refused(option, what + " is not UTF-8" + where + kAccepted);
    if (is_control(character->code)) {
      return refused(option, what + " has the control character U+" + hex(character->code) + where + kAccepted);
    }
    if (is_noncharacter(character->code)) {
      return refused(option, what + " has U+" + hex(character->code) + where + ", which is no character" + kAccepted);
    }
    at += character->bytes;
  }
  return {};
}

Result<void> apply_description(Limits& limits, const std::string& text) {
  if (text.size() > kMaxText) return refused("Description", "more than 1024 bytes");
  if (auto ok = check_text("Description", "the text", text); !ok) return ok;
  limits.description = text;
  return {};
}

Result<void> apply_labels(Limits& limits, const bus::StringMap& labels) {
  if (labels.size() > kMaxLabels) return refused("Labels", "more than 64 labels");
  std::size_t total = 0;
  for (const auto& [key, value] : labels) {
    if (key.empty() || key.size() > kMaxText || value.size() > kMaxText) {
      return refused("Labels", "a label's key has 1 to 1024 bytes, its value up to 1024");
    }
    if (auto ok = check_text("Labels", "a key", key); !ok) return ok;
    if (auto ok = check_text("Labels", "the value of \"" + key + "\"", value); !ok) return ok;
    total += key.size() + value.size();
  }
  if (total > kMaxLabelBytes) {
    return refused("Labels",
                   "keys and values together have " + std::to_string(total) + " bytes; up to 16384 are accepted");
  }
  limits.labels = labels;
  return {};
}

Result<void> nonzero(const char* name, std::uint64_t value) {
  if (value > 0) return {};
  return refused(name, "0 is no limit that anything could live under; UINT64_MAX is none");
}

/// One option: its type, and how it is laid over limits.
struct Option {
  OptionSpec spec;
  std::function<Result<void>(Limits&, const bus::Value&)> apply;
};

template <class T, class Apply>
Option option(const char* name, const char* type, Apply apply) {
  return {{name, type}, [apply](Limits& limits, const bus::Value& value) -> Result<void> {
            return apply(limits, *value.get_if<T>());  // The signature was compared before.
          }};
}

/// A size, span or count that must not be 0.
template <class Apply>
Option limit(const char* name, Apply apply) {
  return option<std::uint64_t>(name, "t", [name, apply](Limits& limits, std::uint64_t value) -> Result<void> {
    if (auto ok = nonzero(name, value); !ok) return ok;
    apply(limits, value);
    return {};
  });
}

const std::vector<Option>& options() {
  static const std::vector<Option> kAll{
      limit("MemoryLimit", [](Limits& l, std::uint64_t v) { l.memory = Bytes(v); }),
      option<std::uint64_t>("MemoryHeadroom", "t",
                            [](Limits& l, std::uint64_t v) -> Result<void> {
                              l.headroom = Bytes(v);  // Any may be asked for, 0 too.
                              return {};
                            }),
      limit("WallClockLimitUSec", [](Limits& l, std::uint64_t v) { l.wall_clock = from_usec(v); }),
      limit("GraceUSec", [](Limits& l, std::uint64_t v) { l.grace = from_usec(v); }),
      limit("TasksMax", [](Limits& l, std::uint64_t v) { l.tasks_max = v; }),
      limit("CPUQuotaPerSecUSec", [](Limits& l, std::uint64_t v) { l.cpu_quota_per_second = from_usec(v); }),
      limit("CPUWeight",
            [](Limits& l, std::uint64_t v) {
              l.cpu_weight = v == supervise::kUnlimited ? std::nullopt : std::optional(v);
            }),
      option<std::string>("OrphanPolicy", "s", apply_orphan_policy),
      option<std::string>("OwnerPolicy", "s", apply_owner_policy),
      option<std::string>("Description", "s", apply_description),
      option<bus::StringMap>("Labels", "a{ss}", apply_labels),
  };
  return kAll;
}

}  // namespace

const std::vector<OptionSpec>& option_specs() {
  static const std::vector<OptionSpec> kSpecs = [] {
    std::vector<OptionSpec> all;
    for (const Option& option : options()) all.push_back(option.spec);
    return all;
  }();
  return kSpecs;
}

Result<Limits> apply_options(Limits limits, const bus::Dict& given) {
  for (const auto& [name, value] : given) {
    const Option* known = nullptr;
    std::string accepted;
    for (const Option& option : options()) {
      if (name == option.spec.name) known = &option;
      accepted += (accepted.empty() ? "" : ", ") + std::string(option.spec.name);
    }
    if (known == nullptr) return refused(name, "there is no such option; there are " + accepted);
    const std::string type = bus::signature_of(value);
    if (type != known->spec.type) {
      return refused(name, "its type is " + std::string(known->spec.type) + ", not " + type);
    }
    if (auto ok = known->apply(limits, value); !ok) return std::move(ok).error();
  }
  return limits;
}

bus::Dict to_options(const Limits& limits) {
  return {{"MemoryLimit", {limits.memory.count()}},
          {"MemoryHeadroom", {limits.effective_headroom().count()}},
          {"WallClockLimitUSec", {to_usec(limits.wall_clock)}},
          {"GraceUSec", {to_usec(limits.grace)}},
          {"TasksMax", {limits.tasks_max}},
          {"CPUQuotaPerSecUSec", {to_usec(limits.cpu_quota_per_second)}},
          {"CPUWeight", {limits.cpu_weight.value_or(supervise::kUnlimited)}},
          {"OrphanPolicy", {std::string(to_string(limits.orphan_policy))}},
          {"OwnerPolicy", {std::string(to_string(limits.owner_policy))}},
          {"Description", {limits.description}},
          {"Labels", {limits.labels}}};
}

}  // namespace aw::api
