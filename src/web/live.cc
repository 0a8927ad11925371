// SPDX-License-Identifier: Apache-2.0
#include "web/live.h"

#include <algorithm>

#include "analysis_watchdog/names.h"
#include "base/analysis_id.h"
#include "cli/report.h"

namespace aw::web {
namespace {

using bus::Dict;
using bus::Message;
using bus::RemoteError;
using bus::Reply;

constexpr char kBus[] = "org.freedesktop.DBus";
constexpr char kBusPath[] = "/org/freedesktop/DBus";
constexpr char kProperties[] = "org.freedesktop.DBus.Properties";

/// Of the first look; those who want more look into the ledger.
constexpr std::uint32_t kFirstEvents = 1000;
/// Of the next ones: twice as many as were new the last time, so that there is an event that is known among them. Not
/// those since some moment: a clock may have been set back since.
constexpr std::uint32_t kNextEvents = 32, kNextEventsInABurst = 256;
/// Of a daemon that is too slow for more in time.
constexpr std::uint32_t kFewestEvents = 16;
/// What has changed is asked for at most so often.
constexpr Span kShortest = std::chrono::milliseconds{250};
/// What has come or changed its state is told at most so often.
constexpr Span kNews = std::chrono::milliseconds{500};
/// A list of runs may take the daemon a tenth of its time at most.
constexpr int kShareOfTime = 10;
constexpr Span kRetry = std::chrono::seconds{1};

}  // namespace

Live::Live(loop::Loop& loop, bus::BusKind kind, Span patience)
    : loop_(loop), patience_(patience), connection_(bus::Connection::prepare(kind, bus::Activation::kNever)) {}

Live::~Live() = default;

Result<void> Live::start(LiveEvents events) {
  told_ = std::move(events);
  auto tick = loop_.add_timer(loop::Priority::kBus, "refresh", [this](const Now&) { on_tick(); });
  if (!tick) return std::move(tick).error();
  tick_ = std::move(*tick);
  auto reconnect = loop_.add_timer(loop::Priority::kBus, "connect to the bus", [this](const Now&) { connect(); });
  if (!reconnect) return std::move(reconnect).error();
  reconnect_ = std::move(*reconnect);
  auto attached = connection_->attach(loop_, [this] {
    on_owner("");
    loop::Loop::set_timer(reconnect_, loop_.now().monotonic);  // Not from within its own callback.
  });
  if (!attached) return attached;
  connect();
  return {};
}

void Live::connect() {
  auto opened = connection_->reopen();
  if (opened) opened = subscribe();
  if (opened) return;
  if (state_ == State::kLoading) on_owner("");
  loop::Loop::set_timer(reconnect_, add_span(loop_.now().monotonic, kRetry));
}

Result<void> Live::subscribe() {
  auto changed =
      connection_->match(std::string("type='signal',sender='") + kBus + "',path='" + kBusPath + "',interface='" + kBus +
                             "',member='NameOwnerChanged',arg0='" + names::kBusName + "'",
                         [this](const Message& m) {
                           Message signal = Message::share(m.raw());
                           const auto name = signal.read_string();
                           const auto before = signal.read_string();
                           const auto after = signal.read_string();
                           if (name && before && after) on_owner(*after);
                         });
  if (!changed) return std::move(changed).error();
  owner_changed_ = std::move(*changed);
  auto signals = connection_->match(std::string("type='signal',sender='") + names::kBusName + "'",
                                    [this](const Message& m) { on_signal(Message::share(m.raw())); });
  if (!signals) return std::move(signals).error();
  signals_ = std::move(*signals);
  auto call = connection_->new_call(kBus, kBusPath, kBus, "GetNameOwner");
  call.append(names::kBusName);
  connection_->request(
      std::move(call),
      [this](Reply reply) {
        auto* message = std::get_if<Message>(&reply);
        const auto owner = message == nullptr ? std::nullopt : std::optional(message->read_string());
        if (owner_.empty()) on_owner(owner && *owner ? **owner : "");
      },
      patience_);
  return {};
}

void Live::on_owner(const std::string& owner) {
  if (!owner.empty() && owner == owner_) return;
  owner_ = owner;
  forget();
  if (owner_.empty()) return give_up();
  load();  // Who waits, waits for that.
}

void Live::load() {
  state_ = State::kLoading;
  retry_at_ = kNever;
  ask_status();
  ask_events();
  ask_rows();
}

/// Nothing is known any more.
void Live::forget() {
  const bool was_there = state_ == State::kThere;
  ++epoch_;
  ++version_;
  state_ = State::kAway;
  counts_.clear();
  events_.clear();
  event_ids_.clear();
  event_order_.clear();
  next_events_ = kFirstEvents;
  rows_.clear();
  news_.clear();
  run_of_id_.clear();
  counts_loaded_ = events_loaded_ = rows_loaded_ = false;
  status_asked_ = events_asked_ = rows_asked_ = false;
  events_dirty_ = status_dirty_ = false;
  rows_pause_ = {};
  retry_at_ = kNever;
  if (was_there && told_.on_away) told_.on_away();
}

/// … and nothing will be for now.
void Live::give_up() {
  wake_for_status();
  wake(for_rows_);
}

/// It has the name and gives no answer: as good as away, until it does.
void Live::fail(const RemoteError&) {
  forget();
  if (!owner_.empty()) retry_at_ = add_span(loop_.now().monotonic, kRetry);
  arm();
  give_up();
}

void Live::wake(Waiting& waiting) {
  for (const auto& then : std::exchange(waiting, {})) then();
}

void Live::wake_for_status() {
  Waiting due;
  std::erase_if(for_status_, [&](WaitsForStatus& waits) {
    const bool has_it = waits.statuses <= status_answers_ && waits.events <= events_answers_;
    if (state_ == State::kThere && !has_it) return false;
    due.push_back(std::move(waits.then));
    return true;
  });
  wake(due);
}

void Live::settle() {
  if (state_ == State::kLoading && counts_loaded_ && events_loaded_ && rows_loaded_) {
    state_ = State::kThere;
    ++version_;
    if (told_.on_back) told_.on_back();
  }
  if (state_ != State::kThere) return;
  wake_for_status();
  if (!rows_asked_) wake(for_rows_);
  if (status_dirty_ && told_.on_status) {
    status_dirty_ = false;
    told_.on_status();
  }
  arm();
}

bus::Message Live::new_call(const char* interface, const char* member) {
  // To this daemon and not to the next: what it does not answer, nobody does.
  return connection_->new_call(owner_.c_str(), names::kManagerPath, interface, member);
}

void Live::request(const char* member, const std::function<void(Message&)>& fill, bus::OnReply done) {
  auto call = new_call(names::kManagerInterface, member);
  fill(call);
  connection_->request(std::move(call), std::move(done), patience_);
}

void Live::ask_status() {
  if (std::exchange(status_asked_, true)) return;
  auto call = new_call(kProperties, "GetAll");
  call.append(names::kManagerInterface);
  connection_->request(
      std::move(call),
      [this, epoch = epoch_, at = loop_.now().monotonic](Reply reply) {
        if (epoch != epoch_) return;
        status_asked_ = false;
        if (const auto* error = std::get_if<RemoteError>(&reply)) return fail(*error);
        auto counts = std::get<Message>(reply).read_dict();
        if (!counts) return fail({"", counts.error().message});
        status_at_ = at;
        ++status_answers_;
        counts_loaded_ = true;
        on_counts(std::move(*counts));
        settle();
      },
      patience_);
}

void Live::on_counts(Dict counts) {
  for (auto& [name, value] : counts) {
    const auto known =
        std::find_if(counts_.begin(), counts_.end(), [&, n = &name](const auto& c) { return c.first == *n; });
    if (known == counts_.end()) {
      counts_.emplace_back(name, value);
    } else if (known->second == value) {
      continue;
    } else {
      known->second = value;
    }
    status_dirty_ = true;
    ++version_;
  }
}

void Live::ask_events() {
  if (std::exchange(events_asked_, true)) return;
  events_dirty_ = false;
  const std::uint32_t limit = std::min(next_events_, events_at_most_);
  const Dict filter{{"Limit", {limit}}};
  auto call = new_call(names::kManagerInterface, "ListEvents");
  call.append(filter);
  connection_->request(
      std::move(call),
      [this, epoch = epoch_, at = loop_.now().monotonic, limit](Reply reply) {
        if (epoch != epoch_) return;
        events_asked_ = false;
        if (const auto* error = std::get_if<RemoteError>(&reply)) {
          // It answers, but not so many events in time: nor would it the next time.
          if (!status_asked_) events_at_most_ = std::max(limit / 4, kFewestEvents);
          return fail(*error);
        }
        auto events = std::get<Message>(reply).read_dicts();
        if (!events) return fail({"", events.error().message});
        if (loop_.now().monotonic - at < patience_ / 8) events_at_most_ = std::min(2 * events_at_most_, kMostEvents);
        const auto fresh = std::count_if(events->begin(), events->end(), [this](const Dict& event) {
          return !event_ids_.contains(cli::text_of(event, "event_id"));
        });
        if (events_loaded_ && static_cast<std::uint32_t>(fresh) == limit && limit < kMostEvents) {
          // Between these and those that are known there may be others, which come first.
          next_events_ = std::min(4 * limit, kMostEvents);
          if (limit < events_at_most_) return ask_events();
          events_.clear();  // It can't tell those in time: they are in the ledger, with all that was before.
        }
        next_events_ = std::clamp(2 * static_cast<std::uint32_t>(fresh), kNextEvents, kNextEventsInABurst);
        events_at_ = at;
        ++events_answers_;
        on_events(std::move(*events));
        events_loaded_ = true;
        settle();
      },
      patience_);
}

void Live::on_events(std::vector<Dict> newest_first) {
  for (auto record = newest_first.rbegin(); record != newest_first.rend(); ++record) {
    if (event_ids_.contains(cli::text_of(*record, "event_id"))) continue;
    auto event = std::make_shared<const Event>(to_event(std::move(*record)));
    event_ids_.insert(event->event_id);
    event_order_.push_back(event->event_id);
    // By their time: what an event was found out from may be older than what was told before.
    auto place = events_.begin();
    while (place != events_.end() && (*place)->occurred_at > event->occurred_at) ++place;
    events_.insert(place, event);
    status_dirty_ = true;
    ++version_;
    if (events_loaded_ && told_.on_event) told_.on_event(*event);
  }
  while (events_.size() > kMostEvents) events_.pop_back();
  // What the daemon may tell again is known for longer: the last by their time need not be the last that came.
  while (event_order_.size() > 2 * kMostEvents) {
    event_ids_.erase(event_order_.front());
    event_order_.pop_front();
  }
}

bool Live::has_all_since(std::uint64_t usec) const { return !events_.empty() && events_.back()->occurred_at < usec; }

void Live::ask_rows() {
  if (std::exchange(rows_asked_, true)) return;
  request(
      "ListAnalyses", [](Message&) {},
      [this, epoch = epoch_, at = loop_.now().monotonic](Reply reply) {
        if (epoch != epoch_) return;
        rows_asked_ = false;
        if (const auto* error = std::get_if<RemoteError>(&reply)) return fail(*error);
        auto runs = std::get<Message>(reply).read_dicts();
        if (!runs) return fail({"", runs.error().message});
        rows_at_ = at;
        rows_pause_ = (loop_.now().monotonic - at) * kShareOfTime;
        take_rows(std::move(*runs));
        rows_loaded_ = true;
        settle();
      });
}

void Live::take_rows(std::vector<Dict> runs) {
  std::map<std::string, Row> rows;
  for (Dict& run : runs) {
    Row row = to_row(std::move(run));
    const auto before = rows_.find(row.run_id);
    if (before == rows_.end() || before->second.full != row.full) news_.insert(row.run_id);
    std::string run_id = row.run_id;
    rows.emplace(std::move(run_id), std::move(row));
  }
  const auto old = std::exchange(rows_, std::move(rows));
  run_of_id_.clear();
  for (const auto& [run_id, row] : rows_) run_of_id_[row.analysis_id] = run_id;
  ++version_;
  for (const auto& [run_id, row] : old) {
    if (!rows_.contains(run_id) && told_.on_gone) told_.on_gone(row);
  }
  tell_news();
}

const Row* Live::find_row(const std::string& analysis_id) const {
  const auto found = run_of_id_.find(analysis_id);
  return found == run_of_id_.end() ? nullptr : &rows_.at(found->second);
}

void Live::on_signal(Message signal) {
  if (owner_.empty() || signal.sender() != owner_ || state_ == State::kAway) return;
  const std::string member = signal.member();
  const std::string path = signal.path();
  events_dirty_ = true;  // Kinds without a signal of their own change a count at least.
  if (member == "PropertiesChanged" && path == names::kManagerPath) {
    (void)signal.read_string();
    if (auto changed = signal.read_dict()) on_counts(std::move(*changed));
  } else if (!rows_loaded_) {
    // What comes before the first list is in it.
  } else if (member == "PropertiesChanged") {
    (void)signal.read_string();
    if (auto changed = signal.read_dict()) change_row(path, *changed);
  } else if (member == "InterfacesAdded") {
    add_row(std::move(signal));
  } else if (member == "InterfacesRemoved") {
    if (const auto gone = signal.read_path()) remove_row(*gone);
  }
  if (state_ == State::kThere) settle();
}

// What a list says that was on its way meanwhile is no older: the daemon's messages come in the order in which it sent
// them.

void Live::add_row(Message signal) {
  if (!signal.read_path() || !signal.enter('a', "{sa{sv}}")) return;
  while (!signal.at_end()) {
    if (!signal.enter('e', "sa{sv}")) return;
    const auto interface = signal.read_string();
    auto properties = signal.read_dict();
    if (!interface || !properties || !signal.leave()) return;
    if (*interface == names::kAnalysisInterface) put_row(to_row(std::move(*properties)));
  }
}

void Live::put_row(Row row) {
  ++version_;
  run_of_id_[row.analysis_id] = row.run_id;
  news_.insert(row.run_id);
  const std::string run_id = row.run_id;
  rows_[run_id] = std::move(row);
}

/// A burst of registrations is one letter to each listener, and not one for each.
void Live::tell_news() {
  std::vector<Row> rows;
  for (const std::string& run_id : std::exchange(news_, {})) {
    if (const auto row = rows_.find(run_id); row != rows_.end()) rows.push_back(row->second);
  }
  news_at_ = loop_.now().monotonic;
  if (!rows.empty() && told_.on_rows) told_.on_rows(rows);
}

const Row* Live::find_row_at(const std::string& path) const {
  const std::string prefix = std::string(names::kAnalysisPathPrefix) + "/";
  if (!path.starts_with(prefix)) return nullptr;
  const auto id = unescape_from_path(path.substr(prefix.size()));
  return id ? find_row(*id) : nullptr;
}

void Live::change_row(const std::string& path, const Dict& changed) {
  const Row* row = find_row_at(path);
  if (row == nullptr) return;
  Dict properties = row->properties;
  for (auto& [name, value] : properties) {
    if (const bus::Value* now = bus::find(changed, name)) value = *now;
  }
  put_row(to_row(std::move(properties)));
}

void Live::remove_row(const std::string& path) {
  const Row* row = find_row_at(path);
  if (row == nullptr) return;
  ++version_;
  const Row gone = *row;
  run_of_id_.erase(gone.analysis_id);
  rows_.erase(gone.run_id);
  if (told_.on_gone) told_.on_gone(gone);
}

void Live::listen(bool somebody) {
  somebody_ = somebody;
  arm();
}

/// Events are always followed, because the last ones are a part of the status; runs while somebody looks.
void Live::arm() {
  Instant due = retry_at_;
  if (state_ == State::kThere) {
    if (!news_.empty()) due = std::min(due, add_span(news_at_, kNews));
    if (events_dirty_ && !events_asked_) due = std::min(due, add_span(events_at_, kShortest));
    if (somebody_) {
      if (!status_asked_) due = std::min(due, add_span(status_at_, kFresh));
      if (!events_asked_) due = std::min(due, add_span(events_at_, 2 * kFresh));  // Of those without any signal.
      if (!rows_asked_) due = std::min(due, add_span(rows_at_, std::max(kFresh, rows_pause_)));
    }
  }
  loop::Loop::set_timer(tick_, due);
}

void Live::on_tick() {
  const Instant now = loop_.now().monotonic;
  if (state_ == State::kAway && now >= retry_at_) {
    if (!owner_.empty()) load();
    return;
  }
  if (state_ != State::kThere) return;
  if (!news_.empty() && now >= add_span(news_at_, kNews)) tell_news();
  if (events_dirty_ && now >= add_span(events_at_, kShortest)) ask_events();
  if (somebody_) {
    if (now >= add_span(status_at_, kFresh)) ask_status();
    if (now >= add_span(events_at_, 2 * kFresh)) ask_events();
    if (now >= add_span(rows_at_, std::max(kFresh, rows_pause_))) ask_rows();
  }
  arm();
}

void Live::when_status(std::function<void()> then) {
  const bool due = loop_.now().monotonic >= add_span(events_at_, kShortest);
  when_known(events_dirty_ && due, std::move(then));
}

void Live::when_events(std::function<void()> then) { when_known(events_dirty_, std::move(then)); }

void Live::when_known(bool events_due, std::function<void()> then) {
  if (state_ == State::kAway) return then();
  const bool counts_due = loop_.now().monotonic >= add_span(status_at_, kFresh);
  if (state_ == State::kThere && !counts_due && !events_due) return then();
  if (state_ == State::kThere) {
    if (counts_due) ask_status();
    if (events_due) ask_events();
  }
  for_status_.push_back(
      {status_answers_ + (status_asked_ ? 1 : 0), events_answers_ + (events_asked_ ? 1 : 0), std::move(then)});
}

void Live::when_rows(std::function<void()> then) {
  if (state_ == State::kAway) return then();
  const Instant due = add_span(rows_at_, std::max(kFresh, rows_pause_));
  if (state_ == State::kThere && loop_.now().monotonic < due) return then();
  for_rows_.push_back(std::move(then));
  if (state_ == State::kThere) ask_rows();
}

}  // namespace aw::web
