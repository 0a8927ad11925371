// SPDX-License-Identifier: Apache-2.0
#include "supervise/refusal.h"

namespace aw::supervise {
namespace {

class RefusalCategory final : public std::error_category {
 public:
  const char* name() const noexcept override { return "refusal"; }
  std::string message(int code) const override { return "refused (" + std::to_string(code) + ")"; }
};

}  // namespace

const std::error_category& refusal_category() {
  static const RefusalCategory kCategory;
  return kCategory;
}

}  // namespace aw::supervise
