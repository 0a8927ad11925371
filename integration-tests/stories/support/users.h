// SPDX-License-Identifier: Apache-2.0
//
// Other users: making them, being them for a moment, and processes of theirs.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "support/process.h"

namespace aw::stories {

/// An ordinary user, made where there is none of that name; a member of `group`, too.
void make_user(const std::string& name, const std::string& group = "");
uid_t uid_of(const std::string& name);

/// As long as it lives, whoever this process connects to takes it for `user`; "" for nobody else than before.
class As {
 public:
  explicit As(const std::string& user);
  As(const As&) = delete;
  As& operator=(const As&) = delete;
  ~As();

 private:
  bool active_ = false;
  std::vector<gid_t> groups_;
};

/// A program as another user, from its first instruction; returns when it runs, with all its uids theirs.
Child spawn_as(const std::string& user, const Words& program, const SpawnOptions& options = {});

}  // namespace aw::stories
