// SPDX-License-Identifier: Apache-2.0
#include "base/failpoint.h"

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <optional>

#include "base/numbers.h"

namespace aw::failpoint {
namespace {

/// Points are made while statics are, in whatever order: the list is there before any of them.
constinit Point* g_first = nullptr;

constexpr char kUsage[] =
    R"( (it is NAME=ACT[@HIT][;…], where ACT is crash, an errno's name, delay:TIME or count, and HIT is a number from 1 up,
with a + behind it for all later ones, too))";

std::string name_of(int error) {
  const char* name = ::strerrorname_np(error);
  return name != nullptr ? name : std::to_string(error);
}

std::optional<int> parse_errno(std::string_view name) {
  for (int error = 1; error < 256; ++error) {
    const char* known = ::strerrorname_np(error);
    if (known != nullptr && name == known) return error;
  }
  return std::nullopt;
}

Error refused(std::string_view order, const std::string& why) {
  return invalid(std::string(kVariable) + ": \"" + std::string(order) + "\": " + why + kUsage);
}

Result<void> parse_act(std::string_view text, std::string_view act, Order& order) {
  constexpr std::string_view kDelay = "delay:";
  if (act == "crash") {
    order.act = Act::kCrash;
    order.and_all_later = false;
  } else if (act == "count") {
    order.act = Act::kCount;
  } else if (act.starts_with(kDelay)) {
    const auto span = parse_span(act.substr(kDelay.size()));
    if (!span) return refused(text, span.error().message);
    if (*span == kForever) return refused(text, "a delay has an end");
    order.act = Act::kDelay;
    order.delay = *span;
  } else if (const auto error = parse_errno(act)) {
    order.act = Act::kFail;
    order.error = *error;
  } else {
    return refused(text, "nothing is known by the name of \"" + std::string(act) + "\"");
  }
  return {};
}

Result<Order> parse_order(std::string_view text) {
  Order order;
  const auto equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0) return refused(text, "there is no NAME=");
  order.name = text.substr(0, equals);
  std::string_view act = text.substr(equals + 1);
  std::optional<std::string_view> hit;
  if (const auto at = act.find('@'); at != std::string_view::npos) {
    hit = act.substr(at + 1);
    act = act.substr(0, at);
  }
  if (auto parsed = parse_act(text, act, order); !parsed) return std::move(parsed).error();
  if (order.name == "*" && order.act != Act::kCount) return refused(text, "only counting is for all points");
  if (!hit) return order;
  order.and_all_later = hit->ends_with('+');
  if (order.and_all_later) hit->remove_suffix(1);
  const auto number = parse_number<std::uint64_t>(*hit);
  if (!number || *number == 0) return refused(text, "\"" + std::string(*hit) + "\" is no number of a hit");
  order.from = *number;
  return order;
}

/// One line on stderr, by one write(2): whoever dies right after it has said it.
void say(const char* name, std::uint64_t hit, const char* what) noexcept {
  char line[256];
  const int size =
      std::snprintf(line, sizeof line, "failpoint %s hit %llu: %s\n", name, static_cast<unsigned long long>(hit), what);
  if (size > 0) (void)!::write(STDERR_FILENO, line, std::min(static_cast<std::size_t>(size), sizeof line - 1));
}

[[noreturn]] void die() noexcept {
  (void)::kill(::getpid(), SIGKILL);
  for (;;) (void)::pause();  // Nothing of ours runs any more.
}

void pass(Span time) noexcept {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(time);
  timespec left{seconds.count(), std::chrono::nanoseconds(time - seconds).count()};
  while (::nanosleep(&left, &left) < 0 && errno == EINTR) {
  }
}

}  // namespace

Result<std::vector<Order>> parse_orders(std::string_view text) {
  std::vector<Order> orders;
  while (!text.empty()) {
    const std::string_view one = text.substr(0, text.find(';'));
    text.remove_prefix(std::min(text.size(), one.size() + 1));
    auto order = parse_order(one);
    if (!order) return std::move(order).error();
    orders.push_back(std::move(*order));
  }
  return orders;
}

Point::Point(const char* name, const int* errors, std::size_t count) noexcept
    : name_(name), errors_(errors), count_(count), next_(std::exchange(g_first, this)) {}

int Point::obey(std::uint64_t number) noexcept {
  int error = 0;
  for (const Order& order : orders_) {
    if (number < order.from || (number > order.from && !order.and_all_later)) continue;
    switch (order.act) {
      case Act::kCrash:
        say(name_, number, "crash");
        die();
      case Act::kFail: {
        char what[64];
        (void)std::snprintf(what, sizeof what, "fail %s", ::strerrorname_np(order.error));
        say(name_, number, what);
        error = order.error;
        break;
      }
      case Act::kDelay:
        say(name_, number, "delay");
        pass(order.delay);
        break;
      case Act::kCount:  // Some points are hit ten thousand times.
        if (std::has_single_bit(number)) say(name_, number, "count");
        break;
    }
  }
  return error;
}

std::vector<Point*> points() {
  std::vector<Point*> all;
  for (Point* point = g_first; point != nullptr; point = point->next_) all.push_back(point);
  std::sort(all.begin(), all.end(),
            [](const Point* a, const Point* b) { return std::strcmp(a->name(), b->name()) < 0; });
  return all;
}

Result<void> arm(std::string_view text) {
  auto orders = parse_orders(text);
  if (!orders) return std::move(orders).error();
  const std::vector<Point*> all = points();
  for (const Order& order : *orders) {
    if (order.name == "*") continue;
    const auto point = std::find_if(all.begin(), all.end(), [&](const Point* p) { return order.name == p->name(); });
    if (point == all.end()) {
      return invalid(std::string(kVariable) + ": there is no point \"" + order.name + "\"; --failpoints lists them");
    }
    if (order.act == Act::kFail && (*point)->count_ == 0) {
      return invalid(std::string(kVariable) + ": nothing can fail at \"" + order.name + "\"; it can crash");
    }
  }
  for (Point* point : all) {
    point->orders_.clear();
    for (const Order& order : *orders) {
      if (order.name == "*" || order.name == point->name()) point->orders_.push_back(order);
    }
  }
  return {};
}

Result<void> arm_from_environment() {
  const char* text = std::getenv(kVariable);
  return text == nullptr ? Result<void>() : arm(text);
}

std::string describe_points() {
  std::string lines;
  for (const Point* point : points()) {
    lines += std::string(point->name()) + " crash";
    const char* before = " fail=";
    for (const int error : point->errors()) lines += std::exchange(before, ",") + name_of(error);
    lines += '\n';
  }
  return lines;
}

}  // namespace aw::failpoint
