// SPDX-License-Identifier: Apache-2.0
#include "base/memory_reserve.h"

#include <sys/mman.h>

#include <atomic>
#include <cstring>
#include <new>

namespace aw {
namespace {

std::size_t wanted = 0;
/// Any thread may be the one that gives it back.
std::atomic<void*> reserve{nullptr};
std::atomic<bool> given_back{false};

bool set_aside() noexcept {
  // A mapping of its own goes back to the kernel when it is given back, whatever malloc() would do with it.
  void* const memory = ::mmap(nullptr, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return false;
  std::memset(memory, 0xA5, wanted);
  reserve.store(memory);
  return true;
}

void give_back() {
  void* const memory = reserve.exchange(nullptr);
  if (memory == nullptr) throw std::bad_alloc();
  (void)::munmap(memory, wanted);
  given_back.store(true);
}

}  // namespace

void keep_memory_reserve(Bytes size) {
  if (wanted != 0) return;
  wanted = size.count();
  (void)set_aside();  // Without one, no memory is what it always is.
  std::set_new_handler(give_back);
}

Bytes memory_reserve() noexcept { return Bytes(reserve.load() == nullptr ? 0 : wanted); }

bool renew_memory_reserve() noexcept {
  if (wanted == 0 || reserve.load() != nullptr) return false;
  (void)set_aside();
  return given_back.exchange(false);
}

}  // namespace aw
