// SPDX-License-Identifier: Apache-2.0
#include "web/program.h"

#include <grp.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>

#include "analysis_watchdog/names.h"
#include "cli/terminal.h"
#include "log/service_log.h"

namespace aw::web {
namespace {

namespace fs = std::filesystem;

/// Of LoadCredential=; docs/man/analysis-watchdog-web.8.scd.
constexpr char kCredential[] = "web-token";

/// A connection is a descriptor, and the soft limit that systemd gives is made for select(2).
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) < 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);  // Best effort: then there are fewer connections.
}

std::string token_file(const config::Settings& settings) {
  if (!settings.web.token_file.empty()) return settings.web.token_file.string();
  const char* directory = std::getenv("CREDENTIALS_DIRECTORY");
  if (directory == nullptr) return "";
  const fs::path file = fs::path(directory) / kCredential;
  return ::access(file.c_str(), F_OK) == 0 ? file.string() : "";
}

Result<std::vector<UniqueFd>> open_sockets(const config::Settings& settings, const Options& options) {
  std::vector<UniqueFd> sockets;
  const int given = sd_listen_fds(1);
  if (given < 0) return errno_error("take the sockets that systemd gives", -given);
  for (int fd = SD_LISTEN_FDS_START; fd < SD_LISTEN_FDS_START + given; ++fd) {
    sockets.emplace_back(fd);
    if (sd_is_socket(fd, AF_UNSPEC, SOCK_STREAM, 1) <= 0) {
      return invalid("a socket that systemd gave is not one to listen at; see analysis-watchdog-web.socket");
    }
  }
  if (given > 0) return sockets;
  for (const std::string& address : options.listen.empty() ? settings.web.listen : options.listen) {
    auto socket = open_listener(address);
    if (!socket) return std::move(socket).error();
    sockets.push_back(std::move(*socket));
  }
  return sockets;
}

std::size_t analyses_in_metrics(const config::Settings& settings) {
  return settings.web.metrics_per_analysis ? settings.web.metrics_per_analysis_max : 0;
}

config::SearchPath search_path(const Options& options) {
  config::SearchPath search;
  if (options.user) search = config::user_search_path();
  if (!options.config.empty()) {
    search.main_file = options.config;
    search.presence = config::MainFile::kMustExist;
  }
  return search;
}

AssetFolders asset_folders(const Options& options) {
  return {options.page.empty() ? fs::path(AW_DATADIR) / "analysis-watchdog/web" : fs::path(options.page)};
}

}  // namespace

Result<Gatekeeper> make_gatekeeper(const config::Settings& settings, bool user) {
  Gatekeeper::Trusted trusted;
  if (const std::string file = token_file(settings); !file.empty()) {
    auto token = read_token(file);
    if (!token) return std::move(token).error();
    trusted.token = *std::move(token);
  }
  if (user) trusted.uids.push_back(::getuid());
  // Looked up now, never on the loop: the groups may live in a directory that is slow to answer.
  for (const char* name : {names::kAdminGroup, names::kViewerGroup}) {
    if (const group* entry = ::getgrnam(name)) trusted.groups.push_back(entry->gr_gid);
  }
  return Gatekeeper(std::move(trusted));
}

Service::Service(loop::Loop loop, config::Settings settings, config::SearchPath search, const Options& options)
    : loop_(std::move(loop)),
      settings_(std::move(settings)),
      search_(std::move(search)),
      options_(options),
      live_(loop_, options.user ? bus::BusKind::kUser : bus::BusKind::kSystem),
      history_(loop_, settings_.ledger.path) {}

Result<void> Service::start(std::vector<UniqueFd> sockets) {
  cli::set_colours(false);  // What is explained goes into JSON.
  auto gatekeeper = make_gatekeeper(settings_, options_.user);
  if (!gatekeeper) return std::move(gatekeeper).error();
  auto assets = Assets::read(asset_folders(options_));
  if (!assets) return std::move(assets).error();
  if (assets->find("index.html") == nullptr)
    log::warn("there is no page to show in " + asset_folders(options_).page.string());
  const bool further_out =
      std::any_of(sockets.begin(), sockets.end(), [](const UniqueFd& fd) { return listens_further_out(fd.get()); });
  if (further_out && !gatekeeper->has_token()) {
    log::warn(
        "this gateway listens further out than this host and has no token, so it shows nothing there to anybody; "
        "analysis-watchdog-web(8) says how one is made");
  }
  gateway_.emplace(Gateway::Parts{loop_, live_, history_, *std::move(gatekeeper), *std::move(assets),
                                  settings_.web.allowed_hosts, analyses_in_metrics(settings_),
                                  [this] { return server_ ? server_->counts() : ServerCounts{}; }});
  if (auto started = history_.start(); !started) return started;
  if (auto started = gateway_->start(); !started) return started;
  auto server = Server::start(loop_, std::move(sockets), {},
                              [this](const std::shared_ptr<Exchange>& exchange) { gateway_->on_request(exchange); });
  if (!server) return std::move(server).error();
  server_ = std::move(*server);

  auto signals = loop_.watch_service_signals([this] { reload(); });
  if (!signals) return std::move(signals).error();
  signals_ = std::move(*signals);
  (void)loop_.enable_watchdog();
  (void)sd_notify(0, "READY=1");
  return {};
}

void Service::reload() {
  (void)sd_notify(0, "RELOADING=1");
  auto loaded = config::load_settings(search_);
  if (auto* problems = std::get_if<std::vector<config::Problem>>(&loaded)) {
    for (const config::Problem& problem : *problems) log::error(config::to_string(problem));
    log::error("the configuration was not reloaded; the old settings stay in force");
  } else {
    auto settings = std::get<config::Settings>(std::move(loaded));
    auto gatekeeper = make_gatekeeper(settings, options_.user);
    if (gatekeeper) {
      settings_ = std::move(settings);
      gateway_->set_readers(*std::move(gatekeeper), settings_.web.allowed_hosts);
      gateway_->set_analyses_in_metrics(analyses_in_metrics(settings_));
      log::info("the configuration was reloaded");
    } else {
      log::error(gatekeeper.error().message + "; the old settings stay in force");
    }
  }
  (void)sd_notify(0, "READY=1");
}

int run(const Options& options) {
  const config::SearchPath search = search_path(options);
  auto loaded = config::load_settings(search);
  if (const auto* problems = std::get_if<std::vector<config::Problem>>(&loaded)) {
    for (const config::Problem& problem : *problems) log::critical(config::to_string(problem));
    return EXIT_FAILURE;
  }
  auto settings = std::get<config::Settings>(std::move(loaded));
  raise_descriptor_limit();
  std::signal(SIGPIPE, SIG_IGN);  // A reader that goes away is none of our ends.
  const auto refuse = [](const Error& error) {
    log::critical(error.message);
    return EXIT_FAILURE;
  };
  auto sockets = open_sockets(settings, options);
  if (!sockets) return refuse(sockets.error());
  auto loop = loop::Loop::create();
  if (!loop) return refuse(loop.error());
  Service service(std::move(*loop), std::move(settings), search, options);
  if (auto started = service.start(*std::move(sockets)); !started) return refuse(started.error());
  return service.run();
}

}  // namespace aw::web
