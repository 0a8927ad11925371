// SPDX-License-Identifier: Apache-2.0
//
// Names of the D-Bus interface: what a client needs to find the daemon and to tell its errors apart.
#pragma once

namespace aw::names {

inline constexpr char kBusName[] = "org.scidex.AnalysisWatchdog1";
inline constexpr char kManagerPath[] = "/org/scidex/AnalysisWatchdog1";
inline constexpr char kAnalysisPathPrefix[] = "/org/scidex/AnalysisWatchdog1/analysis";
inline constexpr char kManagerInterface[] = "org.scidex.AnalysisWatchdog1.Manager";
inline constexpr char kAnalysisInterface[] = "org.scidex.AnalysisWatchdog1.Analysis";

namespace error {
/// The id is empty, too long, not UTF-8 or holds a control character.
inline constexpr char kInvalidId[] = "org.scidex.AnalysisWatchdog1.Error.InvalidId";
/// An option is unknown, of the wrong type, zero where a limit is wanted, or out of range.
inline constexpr char kInvalidOption[] = "org.scidex.AnalysisWatchdog1.Error.InvalidOption";
/// A live run has this id.
inline constexpr char kAlreadyRegistered[] = "org.scidex.AnalysisWatchdog1.Error.AlreadyRegistered";
/// No live run has this id, or none that the caller may see.
inline constexpr char kNoSuchAnalysis[] = "org.scidex.AnalysisWatchdog1.Error.NoSuchAnalysis";
/// The pid is 0, of nobody, of a zombie, or of a thread.
inline constexpr char kNoSuchProcess[] = "org.scidex.AnalysisWatchdog1.Error.NoSuchProcess";
/// The process belongs to a live run.
inline constexpr char kProcessAlreadyRegistered[] = "org.scidex.AnalysisWatchdog1.Error.ProcessAlreadyRegistered";
/// pid 1, a kernel thread, the daemon, the bus, a manager, or a process of another service.
inline constexpr char kProtectedProcess[] = "org.scidex.AnalysisWatchdog1.Error.ProtectedProcess";
/// A limit is above what the configuration or the machine allows.
inline constexpr char kLimitTooHigh[] = "org.scidex.AnalysisWatchdog1.Error.LimitTooHigh";
/// The ledger takes no writes, so the run would leave no record. Runs that are watched already stay watched.
inline constexpr char kRecordUnavailable[] = "org.scidex.AnalysisWatchdog1.Error.RecordUnavailable";
/// The caller, or the host, has as many runs as the configuration allows.
inline constexpr char kTooManyAnalyses[] = "org.scidex.AnalysisWatchdog1.Error.TooManyAnalyses";
/// systemd or the kernel could not make the scope or change it, or the process was not in it afterwards; or another
/// change of the run is under way; or more processes would be moved, at once or in a short time, than a user's may be.
inline constexpr char kScopeFailed[] = "org.scidex.AnalysisWatchdog1.Error.ScopeFailed";
/// The caller may not do this.
inline constexpr char kAccessDenied[] = "org.freedesktop.DBus.Error.AccessDenied";
}  // namespace error

/// polkit actions.
inline constexpr char kPolkitRegister[] = "org.scidex.AnalysisWatchdog1.register";
inline constexpr char kPolkitManage[] = "org.scidex.AnalysisWatchdog1.manage";

/// Members of this group may do everything.
inline constexpr char kAdminGroup[] = "analysis-admin";
/// Members of this group may see every run and record, and manage none but their own.
inline constexpr char kViewerGroup[] = "analysis-viewer";

}  // namespace aw::names
