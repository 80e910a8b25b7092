// SPDX-License-Identifier: Apache-2.0

internal import LinuxSystem

/// Compares what the kernel says of a process with its profile.
struct Comparison {
  let profile: SandboxProfile
  let process: ProcessAudit
  /// The process that started it, which holds what it handed over.
  let launcher: ProcessAudit
  /// The user who looks: root sees more.
  let isRoot: Bool

  /// Every layer, in the order of the columns of a table.
  func findings() -> [AuditFinding] {
    [
      identity(), namespaces(), root(), capabilities(), privileges(), filter(), descriptors(),
      memory(), limits(), cgroup(),
    ]
  }

  private func identity() -> AuditFinding {
    let ids = Set(process.status.users + process.status.groups)
    let text = ids.sorted().map { "\($0)" }.joined(separator: ",")
    let launcherIsRoot = launcher.status.users.contains(0)
    if ids.count != 1 { return AuditFinding("user", text, "its ids are not all the same") }
    if launcherIsRoot && ids.contains(0) {
      return AuditFinding("user", text, "it is root on the host")
    }
    let groups = process.status.supplementaryGroups.subtracting(ids)
    // An ordinary user cannot leave groups (user_namespaces(7)).
    if launcherIsRoot && !groups.isEmpty {
      return AuditFinding("user", text, "supplementary groups \(groups.sorted())")
    }
    return AuditFinding("user", text)
  }

  private func namespaces() -> AuditFinding {
    let pairs = zip(process.namespaces.numbers, launcher.namespaces.numbers)
    let shared = zip(Namespaces.fileNames, pairs).filter {
      $0.1.0 == 0 || $0.1.0 == $0.1.1
    }
    let own = "\(7 - shared.count)/7"
    guard !shared.isEmpty else { return AuditFinding("namespaces", own) }
    return AuditFinding(
      "namespaces", own, "shared: " + shared.map(\.0).joined(separator: " "))
  }

  private func root() -> AuditFinding {
    let isEmpty =
      process.rootEntries == 0 && process.mounts.count == 1
      && process.mounts.allSatisfy { $0.target == "/" && $0.options.contains("ro") }
    let entries = process.rootEntries.map { "\($0)" } ?? "unreadable"
    return .check(
      "root", isEmpty ? "empty" : "\(entries)", isEmpty,
      "\(entries) entries, \(process.mounts.count) mounts")
  }

  private func capabilities() -> AuditFinding {
    let sets = process.status.capabilities
    return .check(
      "capabilities", sets.isEmpty ? "none" : "some", sets.isEmpty,
      "effective \(hex(sets.effective)), permitted \(hex(sets.permitted)), bounding "
        + "\(hex(sets.bounding)), inheritable \(hex(sets.inheritable)), ambient "
        + hex(sets.ambient))
  }

  private func privileges() -> AuditFinding {
    .check(
      "no-new-privs", process.status.noNewPrivileges ? "yes" : "no",
      process.status.noNewPrivileges, "exec can give it privileges")
  }

  private func filter() -> AuditFinding {
    let stages = profile.setup == nil ? 1 : 2
    guard process.status.seccompMode == 2 else {
      return AuditFinding("seccomp", "off", "no filter is in force")
    }
    let text = "\(profile.steadyCalls.count) calls"
    guard process.status.seccompFilters >= stages else {
      return AuditFinding(
        "seccomp", text, "\(process.status.seccompFilters) filters, not \(stages)")
    }
    let unfiltered = process.threadFilters.filter { $0 < stages }
    guard unfiltered.isEmpty else {
      return AuditFinding("seccomp", text, "a thread has fewer than \(stages) filters")
    }
    guard isRoot else { return AuditFinding("seccomp", text) }
    do throws(SystemError) {
      let live = try SystemCallFilter.programs(ofThread: process.pid)
      var expected: [[UInt8]] = []
      for filter in try profile.makeFilters() { expected.append(try filter.program()) }
      // A container's own filters come first.
      guard Array(live.suffix(expected.count)) == expected else {
        return AuditFinding("seccomp", text, "the filter in force is not the profile's")
      }
      return AuditFinding("seccomp", "\(text), exact")
    } catch {
      return AuditFinding("seccomp", text)
    }
  }

  private func descriptors() -> AuditFinding {
    // What the launcher handed over it holds as well, under the same name.
    var handed: [String: Int] = [:]
    for file in launcher.files where Holding.Kind(target: file.target) != .null {
      handed[file.target, default: 0] += 1
    }
    var own: [Holding.Kind: [String]] = [:]
    for file in process.files {
      let kind = Holding.Kind(target: file.target)
      let isShared = kind == .file || kind == .pipe || kind == .socket || kind == .memory
      if isShared, let left = handed[file.target], left > 0, !isChannel(file, kind) {
        handed[file.target] = left - 1
      } else {
        own[kind, default: []].append(file.target)
      }
    }
    var wrong: [String] = []
    for kind in Holding.Kind.allCases {
      let found = own[kind] ?? []
      let allowed = profile.holdings.first { $0.kind == kind }?.count ?? 0...0
      if !allowed.contains(found.count) {
        let most =
          allowed.lowerBound == allowed.upperBound
          ? "\(allowed.lowerBound)" : "\(allowed.lowerBound) to \(allowed.upperBound)"
        let names = kind == .file || kind == .other ? " (\(found.joined(separator: ", ")))" : ""
        wrong.append("\(found.count) of kind \(kind.rawValue)\(names) instead of \(most)")
      }
    }
    let text = "\(process.files.count)"
    return .check("descriptors", text, wrong.isEmpty, wrong.joined(separator: "; "))
  }

  /// The log's writing end is the child's; the launcher reads the same pipe's other end.
  private func isChannel(_ file: ProcessAudit.File, _ kind: Holding.Kind) -> Bool {
    kind == .pipe && (file.number == 1 || file.number == 2)
  }

  private func memory() -> AuditFinding {
    var wrong: [String] = []
    if profile.name != "core", process.areas.contains(where: { $0.path.contains("guest-ram") }) {
      wrong.append("guest memory is mapped")
    }
    if process.hasWritableCode { wrong.append("memory is writable and executable") }
    let strange = process.areas.filter {
      $0.permissions.contains("x") && !$0.path.hasPrefix("[v")
        && (!$0.path.hasPrefix("/") || $0.path.hasPrefix("/memfd:"))
        && !(profile.translates && $0.path.hasPrefix("/memfd:translated"))
    }
    if !strange.isEmpty {
      wrong.append("code that is in no file of the program")
    }
    let hasRAM = process.areas.contains { $0.path.contains("guest-ram") }
    return .check(
      "memory", hasRAM ? "guest RAM" : "no guest RAM", wrong.isEmpty,
      wrong.joined(separator: "; "))
  }

  private func limits() -> AuditFinding {
    var wrong: [String] = []
    func most(_ name: String, _ value: UInt64?) {
      guard let value else { return }
      let found = process.limits[name] ?? .max
      if found > value {
        wrong.append("\(name) \(found == .max ? "unlimited" : "\(found)") instead of \(value)")
      }
    }
    most("Max core file size", 0)
    most("Max locked memory", 0)
    if profile.threads == .beforeSeal { most("Max processes", 0) }
    most("Max file size", profile.limits.fileSize)
    most("Max address space", profile.limits.addressSpace)
    most("Max open files", 64 + 2 * profile.limits.spareDescriptors)
    return .check(
      "limits", wrong.isEmpty ? "set" : "wide", wrong.isEmpty, wrong.joined(separator: "; "))
  }

  private func cgroup() -> AuditFinding {
    let isOwn = process.cgroups != launcher.cgroups
    return AuditFinding("cgroup", isOwn ? "own" : "the launcher's")
  }

  private func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
}
