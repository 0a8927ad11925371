// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "supervise/ports.h"

namespace aw::daemon {

/// This host in this boot.
class HostIdentity final : public supervise::Identity {
 public:
  HostIdentity();
  std::string new_uuid() override;
  const std::string& host() const override { return host_; }
  const std::string& boot_id() const override { return boot_id_; }

 private:
  std::string host_;
  std::string boot_id_;
};

}  // namespace aw::daemon
