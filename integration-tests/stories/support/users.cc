// SPDX-License-Identifier: Apache-2.0
#include "support/users.h"

#include <grp.h>
#include <gtest/gtest.h>
#include <pwd.h>
#include <unistd.h>

#include <stdexcept>
#include <thread>

namespace aw::stories {
namespace {

const passwd& entry_of(const std::string& name) {
  const passwd* entry = ::getpwnam(name.c_str());
  if (entry == nullptr) throw std::runtime_error("no user " + name);
  return *entry;
}

void must(int result, const char* what) {
  if (result < 0) throw std::runtime_error(what);
}

}  // namespace

void make_user(const std::string& name, const std::string& group) {
  Words words{"useradd", "--no-create-home"};
  if (!group.empty()) words.insert(words.end(), {"--groups", group});
  words.push_back(name);
  if (::getpwnam(name.c_str()) == nullptr) {
    EXPECT_EQ(run_command(words).status, 0) << name;
  }
}

uid_t uid_of(const std::string& name) { return entry_of(name).pw_uid; }

As::As(const std::string& user) {
  if (user.empty()) return;
  const passwd entry = entry_of(user);
  groups_.resize(static_cast<std::size_t>(std::max(0, ::getgroups(0, nullptr))));
  must(::getgroups(static_cast<int>(groups_.size()), groups_.data()), "getgroups");
  active_ = true;
  must(::initgroups(user.c_str(), entry.pw_gid), "initgroups");
  must(::setegid(entry.pw_gid), "setegid");
  must(::seteuid(entry.pw_uid), "seteuid");
}

As::~As() {
  if (!active_) return;
  // Root again, or nothing that follows means anything.
  if (::seteuid(0) < 0 || ::setegid(0) < 0 || ::setgroups(groups_.size(), groups_.data()) < 0) std::abort();
}

Child spawn_as(const std::string& user, const Words& program, const SpawnOptions& options) {
  const std::string gid = std::to_string(entry_of(user).pw_gid);
  Words words{"setpriv", "--reuid=" + user, "--regid=" + gid, "--clear-groups", "--"};
  words.insert(words.end(), program.begin(), program.end());
  Child child = Child::spawn(words, options);
  // It has become that user's when its real uid is theirs (a set-uid program has another besides) and it is setpriv no
  // more; amid an exec it has no command line at all.
  const std::string uid = "\nUid:\t" + std::to_string(entry_of(user).pw_uid) + "\t";
  const std::string process = "/proc/" + std::to_string(child.pid());
  const auto is_theirs = [&] {
    const std::string cmdline = read_file(process + "/cmdline");
    return !cmdline.empty() && cmdline.find("--clear-groups") == std::string::npos &&
           read_file(process + "/status").find(uid) != std::string::npos;
  };
  const Instant end = monotonic_now() + kPatience;
  while (child.pid() > 0 && !child.await_end(Span(0)) && !is_theirs() && monotonic_now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds{5});
  }
  return child;
}

}  // namespace aw::stories
