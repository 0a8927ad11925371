// SPDX-License-Identifier: Apache-2.0
#include "log/service_log.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdlib>
#include <ctime>
#include <memory>
#include <string_view>
#include <utility>

namespace aw::log {

namespace {

class JournalLevel final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& text) override {
    const std::string_view level = message.level >= spdlog::level::critical ? "<2>"
                                   : message.level == spdlog::level::err    ? "<3>"
                                   : message.level == spdlog::level::warn   ? "<4>"
                                                                            : "<6>";
    text.append(level.data(), level.data() + level.size());
  }
  std::unique_ptr<custom_flag_formatter> clone() const override { return spdlog::details::make_unique<JournalLevel>(); }
};

}  // namespace

void set_up(const std::string& program) {
  auto log = spdlog::stderr_logger_mt(program);
  auto formatter = std::make_unique<spdlog::pattern_formatter>();
  formatter->add_flag<JournalLevel>('*');
  formatter->set_pattern(std::getenv("JOURNAL_STREAM") != nullptr ? "%*%v" : program + ": %l: %v");
  log->set_formatter(std::move(formatter));
  spdlog::set_default_logger(std::move(log));
}

void info(const std::string& sentence) { spdlog::info(sentence); }
void warn(const std::string& sentence) { spdlog::warn(sentence); }
void error(const std::string& sentence) { spdlog::error(sentence); }
void critical(const std::string& sentence) { spdlog::critical(sentence); }

}  // namespace aw::log
