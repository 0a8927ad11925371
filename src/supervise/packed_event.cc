// SPDX-License-Identifier: Apache-2.0
#include "supervise/packed_event.h"

#include <concepts>
#include <type_traits>

namespace aw::supervise {
namespace {

void visit_each(auto& v, auto&... fields) { (v(fields), ...); }

/// All fields, in the order of the bytes. The record is taken apart by their number, so that nobody adds one to it and
/// forgets it here.
void visit_all(auto& event, auto& v) {
  auto& [event_id, occurred_at, host, boot_id, run_id, registered_as, kind, reason, unit, pid, comm, cmdline, uid,
         memory, memory_peak, memory_limit, duration, wall_clock_limit, cpu, signal, escalated, exit_code, exit_signal,
         leftover_memory, processes, details] = event;
  visit_each(v, registered_as,  // packed_id() reads it.
             event_id, occurred_at, host, boot_id, run_id, kind, reason, unit, pid, comm, cmdline, uid, memory,
             memory_peak, memory_limit, duration, wall_clock_limit, cpu, signal, escalated, exit_code, exit_signal,
             leftover_memory, processes, details);
}

void visit_all_of_process(auto& process, auto& v) {
  auto& [pid, parent, comm, resident, cmdline, cpu] = process;
  visit_each(v, pid, parent, comm, resident, cmdline, cpu);
}

template <class T>
concept Number = std::integral<T> || std::is_enum_v<T>;

class Packer {
 public:
  void operator()(Number auto value) { put(static_cast<std::uint64_t>(value)); }
  void operator()(Bytes value) { put(value.count()); }
  void operator()(Span value) { (*this)(value.count()); }
  void operator()(WallTime value) { (*this)(value.time_since_epoch()); }
  void operator()(const std::string& text) {
    put(text.size());
    bytes_ += text;
  }
  template <class T>
  void operator()(const std::optional<T>& value) {
    (*this)(value.has_value());
    if (value) (*this)(*value);
  }
  template <class T>
  void operator()(const std::vector<T>& list) {
    put(list.size());
    for (const T& one : list) (*this)(one);
  }
  void operator()(const ProcessSummary& process) { visit_all_of_process(process, *this); }
  void operator()(const Details::value_type& detail) {
    (*this)(detail.first);
    put(detail.second.index());
    std::visit(*this, detail.second);
  }

  std::string take() {
    bytes_.shrink_to_fit();
    return std::move(bytes_);
  }

 private:
  /// Seven bits a byte, the lowest first; the highest bit says that more follow.
  void put(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>(0x80 | (value & 0x7f));
    bytes_ += static_cast<char>(value);
  }

  std::string bytes_;
};

class Unpacker {
 public:
  explicit Unpacker(std::string_view bytes) : bytes_(bytes) {}

  template <Number T>
  void operator()(T& value) {
    value = static_cast<T>(get());
  }
  void operator()(Bytes& value) { value = Bytes(get()); }
  void operator()(Span& value) { value = Span(static_cast<Span::rep>(get())); }
  void operator()(WallTime& value) { value = WallTime(Span(static_cast<Span::rep>(get()))); }
  void operator()(std::string& text) { text = get_text(); }
  template <class T>
  void operator()(std::optional<T>& value) {
    if (get() != 0) (*this)(value.emplace());
  }
  template <class T>
  void operator()(std::vector<T>& list) {
    list.resize(get());
    for (T& one : list) (*this)(one);
  }
  void operator()(ProcessSummary& process) { visit_all_of_process(process, *this); }
  void operator()(Details::value_type& detail) {
    (*this)(detail.first);
    switch (get()) {
      case 0:
        return (*this)(detail.second.emplace<0>());
      case 1:
        return (*this)(detail.second.emplace<1>());
      default:
        return (*this)(detail.second.emplace<2>());
    }
  }

  std::string_view get_text() {
    const std::size_t size = get();
    const std::string_view text = bytes_.substr(0, size);
    bytes_.remove_prefix(text.size());
    return text;
  }

 private:
  std::uint64_t get() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; !bytes_.empty() && shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(bytes_.front());
      bytes_.remove_prefix(1);
      value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    return value;
  }

  std::string_view bytes_;
};

}  // namespace

std::string pack(const EventRecord& event) {
  Packer packer;
  visit_all(event, packer);
  return packer.take();
}

EventRecord unpack(std::string_view bytes) {
  EventRecord event;
  Unpacker unpacker(bytes);
  visit_all(event, unpacker);
  return event;
}

std::string_view packed_id(std::string_view bytes) { return Unpacker(bytes).get_text(); }

}  // namespace aw::supervise
