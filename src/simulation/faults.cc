// SPDX-License-Identifier: Apache-2.0
//
// What goes wrong around the watchdog, and with it.
#include "simulation/history.h"

namespace aw::simulation {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using testing::Slice;
using testing::World;

void History::stop_unit() {
  const std::string& id = any_id();
  const pid_t member = any_member(id);
  if (member == 0) return;
  const std::string& cgroup = world_.process(member).cgroup;
  const bool whole = dice_.chance(30);
  const std::string unit = whole ? World::slice_name(id) : cgroup.substr(cgroup.rfind('/') + 1);
  say("  systemctl stop ", unit);
  if (Known* known = witness_.find_by_cgroup(cgroup_of(id))) {
    known->asked = known->killed = true;
    known->taken = known->taken || whole;
  }
  world_.stop_unit(unit);
}

void History::trouble_notifications() {
  switch (dice_.below(5)) {
    case 0:
      say("  notifications are lost");
      world_.losing_notifications = true;
      return;
    case 1:
      say("  … and that is told");
      world_.losing_notifications = false;
      return world_.supervisor.on_events_lost(world_.now());
    case 2:
      world_.notification_delay = dice_.span(Span(0), seconds{3});
      say("  notifications take ", format_span(world_.notification_delay));
      return;
    case 3:
      say("  notifications come for nothing");
      for (supervise::RunKey key = 0; key < 8; ++key) world_.supervisor.on_cgroup_changed(key, world_.now());
      return;
    default:
      say("  a timer comes for nothing");
      return world_.supervisor.on_timer(world_.now());
  }
}

void History::trouble_systemd() {
  auto& placer = world_.placer;
  switch (dice_.below(5)) {
    case 0:
    case 1:
      say("  systemd is deaf");
      return placer.hold();
    case 2:
      say("  systemd does what was asked, and does not answer");
      return placer.carry_out();
    case 3:
      say("  systemd fails");
      return placer.fail("the simulation says so");
    default:
      say("  systemd answers");
      return placer.release();
  }
}

void History::lose_answers() {
  say("  systemd's answers are lost");
  if (!world_.placer.is_held() && dice_.chance(50)) world_.placer.hold();
  world_.placer.lose_answers();
}

void History::lose_bus() {
  if (world_.placer.is_away()) return bring_bus_back();
  say("  the bus goes away");
  world_.placer.go_away([this] { return dice_.chance(50); });
}

void History::bring_bus_back() {
  say("  the bus is back");
  world_.placer.come_back();
  if (up_) world_.supervisor.on_manager_back(world_.now());
}

void History::lose_unit() {
  const std::string& id = any_id();
  const pid_t member = any_member(id);
  if (member == 0) return;
  const std::string& cgroup = world_.process(member).cgroup;
  const std::string unit = dice_.chance(30) ? World::slice_name(id) : cgroup.substr(cgroup.rfind('/') + 1);
  const bool heard = up_ && !world_.placer.is_away();
  say("  systemd loses ", unit, heard ? "" : ", and nobody hears of it");
  if (Known* known = witness_.find_by_cgroup(cgroup_of(id))) known->unguarded = true;
  world_.lose_unit(unit, heard ? testing::Told::kTheWatchdog : testing::Told::kNobody);
}

void History::trouble_readings() {
  auto& cgroups = world_.cgroups;
  cgroups.cannot_list = dice_.chance(40);
  cgroups.cannot_tell_populated = dice_.chance(40);
  say("  slices can", cgroups.cannot_list ? "'t" : "", " be listed, and who is in them can",
      cgroups.cannot_tell_populated ? "'t" : "", " be read");
}

void History::trouble_loop() {
  world_.busy_loop = dice_.chance(60);
  say("  the loop is ", world_.busy_loop ? "never at rest" : "at rest now and then");
}

void History::trouble_ledger() {
  switch (dice_.below(4)) {
    case 0:
    case 1:
      say("  the disk is stuck");
      disk_is_stuck_ = true;
      return;
    case 2:
      say("  the disk is full");
      disk_is_stuck_ = true;
      world_.recorder.problem = "no space left";
      return;
    default:
      say("  the disk takes writes");
      disk_is_stuck_ = false;
      world_.recorder.problem.reset();
  }
}

void History::trouble_descriptors() {
  const bool none = dice_.chance(60);
  say(none ? "  there are no descriptors left" : "  there are descriptors again");
  world_.cgroups.out_of_descriptors = world_.processes.out_of_descriptors = none && dice_.chance(70);
  world_.refuses_watches = none;
}

void History::take_slice() {
  const std::string& id = any_id();
  if (!world_.has_slice(id)) return;
  say("  somebody takes the slice of \"", id, "\" away");
  if (Known* known = witness_.find_by_cgroup(cgroup_of(id))) known->taken = known->asked = known->killed = true;
  world_.remove_slice(World::slice_name(id));
}

void History::set_wall_clock() {
  const Span by = dice_.chance(50) ? Span(hours{-1}) : Span(hours{24 * 30});
  say("  the wall clock steps by ", by < Span(0) ? "-1h" : "30 days");
  world_.set_wall_clock(by);
}

void History::pass_a_moment() { pass(dice_.span(Span(1), seconds{2})); }

void History::pass_a_while() { pass(dice_.span(seconds{1}, minutes{1})); }

void History::crash() {
  go_down("", false);
  if (dice_.chance(60)) come_up();
}

void History::crash_soon() { crash_in_ = dice_.below(1U << dice_.below(7)); }

void History::reboot() {
  go_down("", true);
  come_up();
}

void History::return_to_health() {
  say("  everything is well again");
  world_.losing_notifications = false;
  world_.notification_delay = Span(0);
  world_.busy_loop = false;
  disk_is_stuck_ = false;
  world_.recorder.problem.reset();
  world_.cgroups.out_of_descriptors = world_.processes.out_of_descriptors = world_.refuses_watches = false;
  world_.cgroups.cannot_list = world_.cgroups.cannot_tell_populated = false;
  world_.cgroups.before_move = nullptr;
  world_.placer.release();
  if (world_.placer.is_away()) bring_bus_back();
  if (up_ && std::exchange(record_unread_, false)) world_.read_record();
  world_.supervisor.on_events_lost(world_.now());
}

}  // namespace aw::simulation
