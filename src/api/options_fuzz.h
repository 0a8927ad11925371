// SPDX-License-Identifier: Apache-2.0
//
// What the fuzzer does with one input; options_corpus_test.cc does the same with each file of corpus/options.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>

#include "api/options.h"
#include "base/assert.h"

namespace aw::api {

/// Reads an a{sv} from bytes, so that every kind of value comes under every name: a line is an option, "NAME=", the
/// D-Bus type of its value, and the value: t and u in decimal, b as 0 or 1, a{ss} as k:v,k:v, anything else as its
/// text.
inline bus::Dict dict_of(std::string_view input) {
  bus::Dict dict;
  while (!input.empty()) {
    const auto end = std::min(input.find('\n'), input.size());
    const std::string_view line = input.substr(0, end);
    input.remove_prefix(std::min(end + 1, input.size()));
    const auto equals = line.find('=');
    if (equals == std::string_view::npos || equals + 1 >= line.size()) continue;
    const std::string name(line.substr(0, equals));
    const std::string text(line.substr(equals + 2));
    const auto number = std::strtoull(text.c_str(), nullptr, 10);
    switch (line[equals + 1]) {
      case 't':
        dict.emplace_back(name, bus::Value{std::uint64_t{number}});
        break;
      case 'u':
        dict.emplace_back(name, bus::Value{static_cast<std::uint32_t>(number)});
        break;
      case 'b':
        dict.emplace_back(name, bus::Value{number != 0});
        break;
      case 'd':
        dict.emplace_back(name, bus::Value{static_cast<double>(number)});
        break;
      case 'a': {
        bus::StringMap map;
        std::string_view pairs = text;
        while (!pairs.empty()) {
          const auto comma = std::min(pairs.find(','), pairs.size());
          const std::string_view pair = pairs.substr(0, comma);
          const auto colon = std::min(pair.find(':'), pair.size());
          map[std::string(pair.substr(0, colon))] = pair.substr(std::min(colon + 1, pair.size()));
          pairs.remove_prefix(std::min(comma + 1, pairs.size()));
        }
        dict.emplace_back(name, bus::Value{map});
        break;
      }
      case 'v':
        dict.emplace_back(name, bus::Value{bus::Dict{{name, bus::Value{text}}}});
        break;
      default:
        dict.emplace_back(name, bus::Value{text});
        break;
    }
  }
  return dict;
}

inline void fuzz_options(std::string_view input) {
  const auto limits = apply_options({}, dict_of(input));
  if (!limits) return AW_ASSERT(!limits.error().message.empty());
  AW_ASSERT(limits->memory > Bytes(0) && limits->wall_clock > Span(0) && limits->grace > Span(0));
  AW_ASSERT(limits->tasks_max > 0 && limits->cpu_quota_per_second > Span(0));
  // Nothing that could begin a line of its own in a unit file.
  const auto plain = [](const std::string& text) {
    return std::none_of(text.begin(), text.end(), [](char c) { return (c >= 0 && c < ' ') || c == 0x7f; });
  };
  AW_ASSERT(plain(limits->description) && limits->description.size() <= 1024);
  std::size_t bytes = 0;
  for (const auto& [key, value] : limits->labels) {
    AW_ASSERT(plain(key) && plain(value));
    bytes += key.size() + value.size();
  }
  AW_ASSERT(limits->labels.size() <= 64 && bytes <= 16 * 1024);
  // What is shown of a run can be asked for again.
  const auto again = apply_options({}, to_options(*limits));
  AW_ASSERT(again && to_options(*again) == to_options(*limits));
}

}  // namespace aw::api
