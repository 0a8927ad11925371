// SPDX-License-Identifier: Apache-2.0
#include "support/browser.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <fstream>
#include <thread>

namespace aw::stories {
namespace {

using namespace std::chrono_literals;
using namespace nlohmann::json_literals;

/// Of what waits for the page, which waits for a gateway in an emulated machine.
constexpr Span kCommandPatience = 11min;

/// The driver serves its own machine alone, as it is asked for by the name.
auto ask_driver(const std::string& method, const std::string& url, const std::string& body) {
  return ask(url, {method, {"Content-Type: application/json", "Host: localhost"}, body, "", kCommandPatience});
}

std::string decode_base64(const std::string& text) {
  static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::array<int, 256> values{};
  values.fill(-1);
  for (int i = 0; i < 64; ++i) values[static_cast<unsigned char>(kDigits[i])] = i;
  std::string bytes;
  unsigned int held = 0;
  int bits = 0;
  for (const char c : text) {
    const int value = values[static_cast<unsigned char>(c)];
    if (value < 0) continue;
    held = held << 6U | static_cast<unsigned int>(value);
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    bytes.push_back(static_cast<char>(held >> static_cast<unsigned int>(bits) & 0xFFU));
  }
  return bytes;
}

}  // namespace

Browser::Browser() {
  const char* driver = std::getenv("AW_BROWSER_DRIVER");
  const char* port = std::getenv("AW_BROWSER_PORT");
  if (driver == nullptr || port == nullptr) {
    problem_ = "there is no browser beside this machine: these stories are told by ./dev test, or guest/run --browser";
    return;
  }
  driver_ = driver;
  (void)run_command({"ip", "link", "set", "eth0", "up"});
  (void)run_command({"ip", "address", "replace", "10.0.2.15/24", "dev", "eth0"});
  // The gateway listens at 127.0.0.1 alone, and what comes from outside arrives at another address.
  relay_ = std::make_unique<Child>(Child::spawn(
      {"systemd-socket-activate", "--listen=10.0.2.15:8788", "/lib/systemd/systemd-socket-proxyd", "127.0.0.1:8787"}));
  const Instant deadline = monotonic_now() + kCommandPatience;
  for (auto status = ask_driver("GET", driver_ + "/status", ""); !status.json().is_object();
       status = ask_driver("GET", driver_ + "/status", "")) {
    if (monotonic_now() > deadline) {
      problem_ = "chromedriver does not answer at " + driver_ + ": " + status.error + status.body;
      return;
    }
    std::this_thread::sleep_for(200ms);
  }
  // As root there is no sandbox; there are no graphics, and what is in the background costs time.
  const Json arguments =
      Json::array({"--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions",
                   "--disable-background-networking", "--disable-sync", "--disable-dev-shm-usage",
                   "--disable-component-update", "--force-color-profile=srgb", "--window-size=1280,900",
                   "--no-proxy-server", std::string("--host-resolver-rules=MAP 127.0.0.1 127.0.0.1:") + port});
  Json wanted;
  wanted["browserName"] = "chrome";
  wanted["timeouts"] = Json{{"script", 600000}, {"pageLoad", 600000}};
  wanted["goog:loggingPrefs"]["browser"] = "ALL";
  wanted["goog:chromeOptions"]["binary"] = "/usr/bin/chromium";
  wanted["goog:chromeOptions"]["args"] = arguments;
  Json capabilities;
  capabilities["capabilities"]["alwaysMatch"] = wanted;
  const auto answer = ask_driver("POST", driver_ + "/session", capabilities.dump());
  const Json json = answer.json();
  if (answer.status != 200 || !json.is_object()) {
    problem_ = "the browser does not start: " + answer.error + answer.body;
    return;
  }
  session_ = driver_ + "/session/" + json.at("value").at("sessionId").get<std::string>();
  open("data:text/html,<title>ready</title>");
  if (run("return document.title") != "ready") problem_ = "the browser shows nothing";
}

Browser::~Browser() {
  if (!session_.empty()) (void)ask_driver("DELETE", session_, "");
}

Json Browser::command(const std::string& method, const std::string& path, const Json& body) {
  if (session_.empty()) {
    ADD_FAILURE() << "no browser: " << problem_;
    return nullptr;
  }
  const auto answer = ask_driver(method, session_ + path, method == "POST" ? body.dump() : "");
  const Json json = answer.json();
  if (answer.status != 200 || !json.is_object()) {
    ADD_FAILURE() << method << " " << path << ": " << answer.status << " " << answer.error
                  << answer.body.substr(0, 600);
    const std::string error = json.is_object() ? json.value("/value/error"_json_pointer, "") : "";
    if (error == "invalid session id" || error == "tab crashed") {
      problem_ = "the browser is gone";
      session_.clear();
    }
    return nullptr;
  }
  return json.value("value", Json());
}

Json Browser::devtools(const std::string& method, const Json& parameters) {
  return command("POST", "/goog/cdp/execute", {{"cmd", method}, {"params", parameters}});
}

void Browser::open(const std::string& url) { (void)command("POST", "/url", {{"url", url}}); }
void Browser::reload() { (void)command("POST", "/refresh"); }
std::string Browser::url() {
  const Json url = command("GET", "/url");
  return url.is_string() ? url.get<std::string>() : "";
}

Json Browser::run(const std::string& script, const Json& arguments) {
  return command("POST", "/execute/sync", {{"script", script}, {"args", arguments}});
}

Json Browser::run_async(const std::string& script, const Json& arguments) {
  return command("POST", "/execute/async", {{"script", script}, {"args", arguments}});
}

bool Browser::await(const std::string& script, const Json& arguments, Span patience) {
  const Instant deadline = monotonic_now() + patience;
  for (;;) {
    const Json value = run(script, arguments);
    if (value.is_boolean() ? value.get<bool>() : !value.is_null()) return true;
    if (monotonic_now() > deadline || session_.empty()) return false;
    std::this_thread::sleep_for(100ms);
  }
}

std::string Browser::find(const std::string& css) {
  const Json found = command("POST", "/element", {{"using", "css selector"}, {"value", css}});
  // The key is a constant of the protocol.
  return found.is_object() ? found.value("element-6066-11e4-a52e-4f735466cecf", "") : "";
}

bool Browser::click(const std::string& css) {
  const std::string element = find(css);
  if (element.empty()) return false;
  (void)command("POST", "/element/" + element + "/click");
  return true;
}

bool Browser::type(const std::string& css, const std::string& text) {
  const std::string element = find(css);
  if (element.empty()) return false;
  // All of it chosen and deleted, by keys: WebDriver's own way of clearing tells the page of no input.
  constexpr char kAll[] =
      "\xee\x80\x89"
      "a"
      "\xee\x80\x80";
  constexpr char kBackspace[] = "\xee\x80\x83";
  (void)command("POST", "/element/" + element + "/value", {{"text", std::string(kAll) + kBackspace + text}});
  return true;
}

void Browser::press(const std::string& keys) {
  Json keyboard{{"type", "key"}, {"id", "keyboard"}};
  for (const char* move : {"keyDown", "keyUp"}) keyboard["actions"].push_back(Json{{"type", move}, {"value", keys}});
  Json all;
  all["actions"].push_back(keyboard);
  (void)command("POST", "/actions", all);
}

bool Browser::drag(const std::string& css, double from, double to) {
  const Json box = run(R"(
    const element = document.querySelector(arguments[0]);
    if (element === null) return null;
    element.scrollIntoView({block: 'center'});
    const {left, top, width, height} = element.getBoundingClientRect();
    return [left, width, top + height / 2];)",
                       {css});
  if (!box.is_array()) return false;
  const auto left = box.at(0).get<double>();
  const auto width = box.at(1).get<double>();
  const auto middle = box.at(2).get<double>();
  const auto move = [](double x, double y) {
    return Json{{"type", "pointerMove"}, {"duration", 50}, {"x", static_cast<int>(x)}, {"y", static_cast<int>(y)}};
  };
  const auto button = [](const char* what) { return Json{{"type", what}, {"button", 0}}; };
  Json mouse{{"type", "pointer"}, {"id", "mouse"}};
  mouse["parameters"]["pointerType"] = "mouse";
  for (const Json& action :
       {move(left + from * width, middle), button("pointerDown"), move(left + (from + to) / 2 * width, middle),
        move(left + to * width, middle), button("pointerUp"), move(1, 1)}) {
    mouse["actions"].push_back(action);
  }
  Json all;
  all["actions"].push_back(mouse);
  (void)command("POST", "/actions", all);
  return true;
}

std::string Browser::name_of(const std::string& css) {
  const Json name = command("GET", "/element/" + find(css) + "/computedlabel");
  return name.is_string() ? name.get<std::string>() : "";
}

std::string Browser::role_of(const std::string& css) {
  const Json role = command("GET", "/element/" + find(css) + "/computedrole");
  return role.is_string() ? role.get<std::string>() : "";
}

void Browser::set_scheme(Scheme scheme) {
  const std::string value = scheme == Scheme::kDark ? "dark" : "light";
  Json features;
  features["features"].push_back(Json{{"name", "prefers-color-scheme"}, {"value", value}});
  (void)devtools("Emulation.setEmulatedMedia", features);
}

void Browser::set_size(int width, int height, bool phone) {
  (void)devtools("Emulation.setDeviceMetricsOverride",
                 {{"width", width}, {"height", height}, {"deviceScaleFactor", phone ? 2 : 1}, {"mobile", phone}});
}

void Browser::take_picture(const std::string& file) {
  save_sight(file + ".png");
  // Not in one picture: a page that is made as high as what is on it has crashed in an emulated machine while it was
  // captured.
  constexpr char kScroll[] =
      "let moved = false; for (const part of document.querySelectorAll('html, body, main, article')) {"
      "  part.scrollTop = arguments[0] ? part.scrollHeight : 0; moved = moved || part.scrollTop > 0; } return moved";
  if (run(kScroll, {true}) != true) return;
  save_sight(file + "-end.png");
  (void)run(kScroll, {false});
}

void Browser::save_sight(const std::string& file) {
  const Json shot = command("GET", "/screenshot");
  const std::string bytes = shot.is_string() ? decode_base64(shot.get<std::string>()) : "";
  EXPECT_TRUE(bytes.starts_with("\x89PNG")) << "no picture for " << file;
  std::ofstream(file, std::ios::binary) << bytes;
}

std::vector<std::string> Browser::complaints() {
  std::vector<std::string> said;
  const Json entries = command("POST", "/se/log", {{"type", "browser"}});
  if (!entries.is_array()) return said;
  for (const Json& entry : entries) {
    const std::string level = entry.value("level", "");
    if (level == "SEVERE" || level == "WARNING") said.push_back(level + " " + entry.value("message", ""));
  }
  return said;
}

}  // namespace aw::stories
