// SPDX-License-Identifier: Apache-2.0
#include "api/polkit.h"

#include <algorithm>
#include <utility>

namespace aw::api {
namespace {

/// For a person to find their password.
constexpr Span kPatience = std::chrono::minutes{5};

std::string cancellation_id(std::uint64_t number) { return "analysis-watchdog-" + std::to_string(number); }

bool is_yes(bus::Reply& answer) {
  auto* message = std::get_if<bus::Message>(&answer);
  if (message == nullptr || !message->enter('r', "bba{ss}")) return false;
  const auto authorized = message->read_bool();
  return authorized && *authorized;
}

}  // namespace

bus::Message Polkit::new_call(const char* member) {
  return connection_.new_call("org.freedesktop.PolicyKit1", "/org/freedesktop/PolicyKit1/Authority",
                              "org.freedesktop.PolicyKit1.Authority", member);
}

void Polkit::ask(const Question& question, std::function<void(bool)> done) {
  const auto theirs = std::count_if(pending_.begin(), pending_.end(),
                                    [&](const auto& entry) { return entry.second.uid == question.uid; });
  if (static_cast<std::size_t>(theirs) >= kMostOfUser) return done(false);
  const std::uint64_t number = ++last_;
  auto call = new_call("CheckAuthorization");
  call.open('r', "sa{sv}").append("system-bus-name").append(bus::Dict{{"name", {question.client}}}).close();
  call.append(question.action).append(question.details).append(std::uint32_t{question.interactive ? 1U : 0U});
  call.append(cancellation_id(number));
  pending_.emplace(number, Pending{question.client, question.uid, std::move(done)});
  connection_.request(
      std::move(call), [this, number](bus::Reply answer) { on_answer(number, std::move(answer)); }, kPatience);
}

void Polkit::on_answer(std::uint64_t number, bus::Reply answer) {
  auto asked = pending_.extract(number);
  if (asked) asked.mapped().done(is_yes(answer));
}

void Polkit::on_client_gone(const std::string& client) {
  for (auto at = pending_.begin(); at != pending_.end();) {
    if (at->second.client != client) {
      ++at;
      continue;
    }
    auto cancel = new_call("CancelCheckAuthorization");
    cancel.append(cancellation_id(at->first));
    connection_.request(std::move(cancel), [](const bus::Reply&) {});  // It may have answered just now.
    at = pending_.erase(at);
  }
}

}  // namespace aw::api
