// SPDX-License-Identifier: Apache-2.0
#include "cli/watchdog_signals.h"

#include <utility>

#include "analysis_watchdog/names.h"

namespace aw::cli {
namespace {

using bus::Message;

constexpr char kBus[] = "org.freedesktop.DBus";
constexpr char kBusPath[] = "/org/freedesktop/DBus";

}  // namespace

Result<void> WatchdogSignals::listen(bus::Connection& connection, bus::OnMessage on_signal,
                                     std::function<void()> on_change) {
  const std::string ours = std::string("type='signal',sender='") + names::kBusName + "'";
  auto signals = connection.match(ours, [this, on_signal = std::move(on_signal)](Message signal) {
    if (!owner_.empty() && signal.sender() == owner_) on_signal(std::move(signal));
  });
  if (!signals) return std::move(signals).error();
  const std::string of_bus = std::string("type='signal',sender='") + kBus + "',path='" + kBusPath + "',interface='" +
                             kBus + "',member='NameOwnerChanged',arg0='" + names::kBusName + "'";
  auto changes = connection.match(of_bus, [this, on_change = std::move(on_change)](Message signal) {
    const auto name = signal.read_string();
    const auto before = signal.read_string();
    auto after = signal.read_string();
    if (!name || !before || !after) return;
    owner_ = *std::move(after);
    on_change();
  });
  if (!changes) return std::move(changes).error();
  signals_ = std::move(*signals);
  changes_ = std::move(*changes);
  auto call = connection.new_call(kBus, kBusPath, kBus, "GetNameOwner");
  call.append(names::kBusName);
  connection.request(std::move(call), [this](bus::Reply reply) {
    auto* message = std::get_if<Message>(&reply);
    if (message == nullptr) return;                // Nobody has it.
    owner_ = message->read_string().value_or("");  // What the bus tells of a later one comes after this.
  });
  return {};
}

}  // namespace aw::cli
