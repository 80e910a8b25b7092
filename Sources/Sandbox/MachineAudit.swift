// SPDX-License-Identifier: Apache-2.0

public import LinuxSystem

/// The audit of a running machine's processes, out of /proc alone.
public struct MachineAudit: Sendable {
  /// The core first, then the devices.
  public var processes: [AuditedProcess] = []
  /// What belongs to no one process.
  public var differences: [String] = []

  /// The executables of a machine's children, and their profiles.
  private static let profiles: [(String, SandboxProfile)] = [
    ("vmcore", .core), ("vmdev-piix", .piix), ("vmdev-ide", .ide), ("vmdev-serial", .serial),
    ("vmdev-vga", .vga), ("vmmonitor", .monitor),
  ]

  /// Whether everything is as the profiles say.
  public var holds: Bool { differences.isEmpty && processes.allSatisfy { $0.differences.isEmpty } }

  /// Looks at the children of the launcher with this process id.
  ///
  /// - Throws: EACCES or EPERM when the caller may not look: it takes root, or the user who
  ///   started the machine.
  public init(launcher pid: Int32) throws(SystemError) {
    let launcher = try ProcessAudit(pid: pid)
    var found: [ProcessAudit] = []
    for child in try ProcessAudit.children(of: pid) {
      let name = try ProcessAudit.executableName(child)
      // The janitor is the launcher's own program.
      if name == "vmlaunch" { continue }
      guard var profile = Self.profiles.first(where: { $0.0 == name })?.1 else {
        differences.append("process \(child) (\(name)) is none of a machine's")
        continue
      }
      let process = try ProcessAudit(pid: child)
      if name == "vmcore",
        !process.files.contains(where: { $0.target.hasPrefix("anon_inode:kvm-") })
      {
        profile = .softCore
      }
      let findings = Comparison(
        profile: profile, process: process, launcher: launcher, isRoot: ThisProcess.user == 0
      ).findings()
      processes.append(AuditedProcess(name: name, pid: child, findings: findings))
      found.append(process)
    }
    for (name, _) in Self.profiles {
      let count = processes.count { $0.name == name }
      // Not every machine has one.
      if name == "vmmonitor", count == 0 { continue }
      if count != 1 { differences.append("\(count) processes of \(name)") }
    }
    compareWithEachOther(found)
    let order = Self.profiles.map(\.0)
    processes.sort {
      (order.firstIndex(of: $0.name) ?? 0) < (order.firstIndex(of: $1.name) ?? 0)
    }
  }

  /// No two processes share a namespace, and as root no two share a user.
  private mutating func compareWithEachOther(_ found: [ProcessAudit]) {
    for (index, one) in found.enumerated() {
      for other in found[(index + 1)...] {
        let shared = zip(
          Namespaces.fileNames, zip(one.namespaces.numbers, other.namespaces.numbers)
        ).filter { $0.1.0 == $0.1.1 }.map(\.0)
        if !shared.isEmpty {
          differences.append(
            "\(one.pid) and \(other.pid) share namespaces: " + shared.joined(separator: " "))
        }
      }
    }
  }
}
