// SPDX-License-Identifier: Apache-2.0
#include "cli/watchdog_client.h"

#include "analysis_watchdog/names.h"
#include "cli/terminal.h"

namespace aw::cli {

namespace {

/// What the bus says of a service that is there to be started, and does not start.
bool says_not_started(std::string_view name) {
  return name.starts_with("org.freedesktop.DBus.Error.Spawn.") || name.starts_with("org.freedesktop.systemd1.");
}

}  // namespace

Error describe_error(const bus::RemoteError& error, bus::BusKind kind) {
  const std::string_view name = error.name;
  const bool own = kind == bus::BusKind::kUser;
  const std::string systemctl = own ? "systemctl --user " : "systemctl ";
  std::string text = printable(error.message);
  // Which of the two a bus says for a name that nobody has is its own choice.
  if (name == "org.freedesktop.DBus.Error.ServiceUnknown" || name == "org.freedesktop.DBus.Error.NameHasNoOwner") {
    text = std::string(own ? "you have no watchdog running" : "the watchdog is not running") +
           "; start it: " + systemctl + "enable --now analysis-watchdogd.service" +
           (own ? " (of the package analysis-watchdog; where it is installed, analysis-run --user starts it)" : "");
  } else if (says_not_started(name)) {
    text = "the watchdog could not be started: " + text + "; see: " + systemctl + "status analysis-watchdogd.service";
  } else if (name == names::error::kNoSuchAnalysis) {
    text += "; see: analysisctl list";
  } else if (name == names::error::kAlreadyRegistered) {
    text += "; see: analysisctl list";
  } else if (name == "org.freedesktop.DBus.Error.NoReply" || name == "org.freedesktop.DBus.Error.Timeout" ||
             name == "org.freedesktop.DBus.Error.TimedOut") {
    text = "the watchdog does not answer; see: " + systemctl + "status analysis-watchdogd.service";
  } else if (name == names::error::kProcessAlreadyRegistered || name == names::error::kTooManyAnalyses) {
    text += "; see: analysisctl list";
  } else if (name == names::error::kScopeFailed) {
    text += std::string("; see: analysisctl doctor, journalctl ") + (own ? "--user " : "") +
            "-u analysis-watchdogd.service";
  } else if (name == names::error::kAccessDenied) {
    text += "; root and the group " + std::string(names::kAdminGroup) + " may";
  }
  return {std::make_error_code(std::errc::io_error), text};
}

Result<std::unique_ptr<bus::Connection>> open_bus(bus::BusKind kind) {
  // Whoever stopped the watchdog wants it stopped: a question must not start it again.
  return bus::Connection::open(kind, bus::Activation::kNever);
}

Result<std::unique_ptr<bus::Connection>> open_bus_to_launch(bus::BusKind kind) {
  const bool own = kind == bus::BusKind::kUser;
  return bus::Connection::open(kind, own ? bus::Activation::kAllowed : bus::Activation::kNever);
}

std::string limits_not_in_force(const bus::Dict& properties) {
  const bus::Value* value = bus::find(properties, "LimitsNotInForce");
  const auto* options = value == nullptr ? nullptr : value->get_if<std::vector<std::string>>();
  std::string text;
  if (options == nullptr) return text;
  for (const std::string& option : *options) text += (text.empty() ? "" : ", ") + printable(option);
  return text;
}

Result<WatchdogClient> WatchdogClient::connect(bus::BusKind kind) {
  auto connection = open_bus(kind);
  if (!connection) return std::move(connection).error();
  return WatchdogClient(std::move(*connection), kind);
}

bus::Message WatchdogClient::new_call(const char* member) {
  return connection_->new_call(names::kBusName, names::kManagerPath, names::kManagerInterface, member);
}

Result<bus::Message> WatchdogClient::send(bus::Message message, Span timeout) {
  auto reply = connection_->call_blocking(std::move(message), timeout);
  if (const auto* error = std::get_if<bus::RemoteError>(&reply)) return describe_error(*error, kind_);
  return std::get<bus::Message>(std::move(reply));
}

Result<std::vector<bus::Dict>> WatchdogClient::list_analyses() {
  auto reply = send(new_call("ListAnalyses"));
  if (!reply) return std::move(reply).error();
  return reply->read_dicts();
}

Result<std::vector<bus::Dict>> WatchdogClient::list_events(const bus::Dict& filter, Span timeout) {
  auto message = new_call("ListEvents");
  message.append(filter);
  auto reply = send(std::move(message), timeout);
  if (!reply) return std::move(reply).error();
  return reply->read_dicts();
}

Result<bus::Dict> WatchdogClient::get_all(const std::string& path, const char* interface) {
  auto message = connection_->new_call(names::kBusName, path.c_str(), "org.freedesktop.DBus.Properties", "GetAll");
  message.append(interface);
  auto reply = send(std::move(message));
  if (!reply) return std::move(reply).error();
  return reply->read_dict();
}

Result<bus::Dict> WatchdogClient::manager_properties() {
  return get_all(names::kManagerPath, names::kManagerInterface);
}

Result<bus::Dict> WatchdogClient::analysis_properties(const std::string& id) {
  auto message = new_call("GetAnalysis");
  message.append(id);
  auto reply = send(std::move(message));
  if (!reply) return std::move(reply).error();
  auto path = reply->read_path();
  if (!path) return std::move(path).error();
  return get_all(*path, names::kAnalysisInterface);
}

}  // namespace aw::cli
