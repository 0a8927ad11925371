// SPDX-License-Identifier: Apache-2.0
#include <string>
#include <vector>

#include "api/options.h"
#include "api/service.h"

namespace aw::api {
namespace {

constexpr char kHead[] =
    "<!DOCTYPE node PUBLIC \"-//freedesktop//DTD D-BUS Object Introspection 1.0//EN\"\n"
    "\"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd\">\n<node>\n";

constexpr char kCommon[] = R"(
 <interface name="org.freedesktop.DBus.Peer"><method name="Ping"/><method name="GetMachineId"><arg type="s" name="machine_uuid" direction="out"/></method></interface>
 <interface name="org.freedesktop.DBus.Introspectable"><method name="Introspect"><arg name="xml_data" type="s" direction="out"/></method></interface>
 <interface name="org.freedesktop.DBus.Properties">
  <method name="Get"><arg name="interface_name" type="s" direction="in"/><arg name="property_name" type="s" direction="in"/><arg name="value" type="v" direction="out"/></method>
  <method name="GetAll"><arg name="interface_name" type="s" direction="in"/><arg name="props" type="a{sv}" direction="out"/></method>
  <method name="Set"><arg name="interface_name" type="s" direction="in"/><arg name="property_name" type="s" direction="in"/><arg name="value" type="v" direction="in"/></method>
  <signal name="PropertiesChanged"><arg type="s" name="interface_name"/><arg type="a{sv}" name="changed_properties"/><arg type="as" name="invalidated_properties"/></signal>
 </interface>
)";

constexpr char kManager[] = R"xml( <interface name="org.freedesktop.DBus.ObjectManager">
  <method name="GetManagedObjects"><arg type="a{oa{sa{sv}}}" name="object_paths_interfaces_and_properties" direction="out"/></method>
  <signal name="InterfacesAdded"><arg type="o" name="object_path"/><arg type="a{sa{sv}}" name="interfaces_and_properties"/></signal>
  <signal name="InterfacesRemoved"><arg type="o" name="object_path"/><arg type="as" name="interfaces"/></signal>
 </interface>
 <interface name="org.scidex.AnalysisWatchdog1.Manager">
  <method name="RegisterAnalysis"><arg type="s" name="id" direction="in"/><arg type="u" name="pid" direction="in"/><arg type="a{sv}" name="options" direction="in"/><arg type="o" name="analysis" direction="out"/></method>
  <method name="RegisterAnalysisByPidfd"><arg type="s" name="id" direction="in"/><arg type="h" name="pidfd" direction="in"/><arg type="a{sv}" name="options" direction="in"/><arg type="o" name="analysis" direction="out"/></method>
  <method name="UnregisterAnalysis"><arg type="s" name="id" direction="in"/></method>
  <method name="AttachProcess"><arg type="s" name="id" direction="in"/><arg type="u" name="pid" direction="in"/></method>
  <method name="KillAnalysis"><arg type="s" name="id" direction="in"/></method>
  <method name="SetLimits"><arg type="s" name="id" direction="in"/><arg type="a{sv}" name="options" direction="in"/></method>
  <method name="ExtendDeadline"><arg type="s" name="id" direction="in"/><arg type="t" name="usec" direction="in"/></method>
  <method name="GetAnalysis"><arg type="s" name="id" direction="in"/><arg type="o" name="analysis" direction="out"/></method>
  <method name="ListAnalyses"><arg type="aa{sv}" name="analyses" direction="out"/></method>
  <method name="ListEvents"><arg type="a{sv}" name="filter" direction="in"/><arg type="aa{sv}" name="events" direction="out"/></method>
  <method name="GetSeries"><arg type="s" name="run_id" direction="in"/><arg type="a(ttttt)" name="samples" direction="out"/></method>
  <method name="GetMetrics"><arg type="a(sssa(a{ss}d))" name="metrics" direction="out"/><arg type="a(ssa(a{ss}a(dt)td))" name="histograms" direction="out"/></method>
  <signal name="AnalysisRegistered"><arg type="s" name="id"/><arg type="o" name="analysis"/></signal>
  <signal name="AnalysisEnding"><arg type="s" name="id"/><arg type="s" name="reason"/><arg type="t" name="grace_usec"/></signal>
  <signal name="AnalysisEnded"><arg type="s" name="id"/><arg type="s" name="reason"/><arg type="a{sv}" name="record"/></signal>
  <signal name="OrphanFound"><arg type="s" name="id"/><arg type="u" name="pid"/><arg type="s" name="comm"/></signal>
  <property name="Version" type="s" access="read"><annotation name="org.freedesktop.DBus.Property.EmitsChangedSignal" value="const"/></property>
  <property name="MonitoredCount" type="u" access="read"/>
  <property name="EndingCount" type="u" access="read"/>
  <property name="KillsLast24h" type="u" access="read"/>
  <property name="StoreHealthy" type="b" access="read"/>
  <property name="UnshippedEvents" type="t" access="read"/>
  <property name="DefaultMemoryLimit" type="t" access="read"/>
  <property name="DefaultMemoryHeadroom" type="t" access="read"/>
  <property name="DefaultWallClockLimitUSec" type="t" access="read"/>
  <property name="DefaultGraceUSec" type="t" access="read"/>
  <property name="DefaultTasksMax" type="t" access="read"/>
  <property name="DefaultCPUQuotaPerSecUSec" type="t" access="read"/>
  <property name="DefaultCPUWeight" type="t" access="read"/>
  <property name="DefaultOrphanPolicy" type="s" access="read"/>
  <property name="DefaultOwnerPolicy" type="s" access="read"/>
 </interface>
)xml";

struct Property {
  const char* name;
  const char* type;
};
constexpr Property kAnalysisProperties[] = {
    {"Id", "s"},
    {"RunId", "s"},
    {"Unit", "s"},
    {"LeaderPid", "u"},
    {"OwnerPid", "u"},
    {"Uid", "u"},
    {"State", "s"},
    {"RegisteredAtUSec", "t"},
    {"RegisteredAtRealtimeUSec", "t"},
    {"DeadlineUSec", "t"},
    {"DeadlineRealtimeUSec", "t"},
    {"MemoryCurrent", "t"},
    {"MemoryUnreclaimable", "t"},
    {"MemoryPeak", "t"},
    {"CPUUsageUSec", "t"},
    {"ProcessCount", "u"},
    {"OrphanCount", "u"},
    {"LimitsNotInForce", "as"},
};

std::string nodes(const std::vector<std::string>& children) {
  std::string xml;
  for (const std::string& child : children) xml += " <node name=\"" + child + "\"/>\n";
  return xml;
}

}  // namespace

std::string introspect_manager(const std::vector<std::string>& children) {
  return std::string(kHead) + kCommon + kManager + nodes(children) + "</node>\n";
}

std::string introspect_parent(const std::vector<std::string>& children) {
  return std::string(kHead) + kCommon + nodes(children) + "</node>\n";
}

std::string introspect_analysis() {
  std::string xml = std::string(kHead) + kCommon + " <interface name=\"org.scidex.AnalysisWatchdog1.Analysis\">\n";
  for (const Property& property : kAnalysisProperties) {
    xml += std::string("  <property name=\"") + property.name + "\" type=\"" + property.type + "\" access=\"read\">" +
           "<annotation name=\"org.freedesktop.DBus.Property.EmitsChangedSignal\" value=\"" +
           (std::string_view(property.name) == "State" ? "true" : "false") + "\"/></property>\n";
  }
  for (const OptionSpec& option : option_specs()) {
    xml +=
        std::string("  <property name=\"") + option.name + "\" type=\"" + option.type + "\" access=\"readwrite\"/>\n";
  }
  return xml + " </interface>\n</node>\n";
}

}  // namespace aw::api
