// SPDX-License-Identifier: Apache-2.0

internal import LinuxSystem

/// Control groups of a machine's processes: one for each, below the launcher's own.
///
/// Version 2 where the launcher's group is delegated to it (cgroups(7), "Delegation"), version 1
/// where its hierarchies may be written; a controller that can't be had is left out.
public final class MachineCgroups: Sendable {
  /// A folder of the machine in one hierarchy.
  struct Hierarchy: Sendable, Equatable {
    var folder: String
    var isUnified: Bool
    var controllers: Set<String>
  }

  let hierarchies: [Hierarchy]
  /// Why there is no limit of memory by a group; `nil` when there is one.
  public let missing: String?

  /// The controllers that are used.
  static let wanted: Set<String> = ["memory", "pids", "cpu", "io", "blkio"]
  private static let prefix = "bulkhead-"

  /// Makes the folders of the machine that this process launches.
  public init() {
    let name = "\(ThisProcess.id)"
    var found: [Hierarchy] = []
    var reason = "no control group may be made"
    for candidate in Self.candidates() {
      Self.removeStale(in: candidate.folder)
      let folder = "\(candidate.folder)/\(Self.prefix)\(name)"
      do throws(SystemError) {
        if candidate.isUnified { try Self.delegate(candidate) }
        try Files.makeFolder(folder)
        if candidate.isUnified {
          try Self.enable(candidate.controllers, in: folder)
        }
        found.append(
          Hierarchy(
            folder: folder, isUnified: candidate.isUnified, controllers: candidate.controllers))
      } catch {
        if candidate.controllers.contains("memory") { reason = error.description }
      }
    }
    hierarchies = found
    missing = found.contains { $0.controllers.contains("memory") } ? nil : reason
  }

  /// Puts a process into a group of its own, before it runs anything.
  public func add(_ process: Int32, as role: String, _ limits: SandboxProfile.Limits) {
    for hierarchy in hierarchies {
      let folder = "\(hierarchy.folder)/\(role)"
      try? Files.makeFolder(folder)
      for (file, value) in Self.settings(limits, isUnified: hierarchy.isUnified) {
        // Not every kernel has every file.
        try? Self.write(value, to: "\(folder)/\(file)")
      }
      try? Self.write("\(process)", to: "\(folder)/cgroup.procs")
    }
  }

  /// Removes the folders; the processes are gone.
  public func remove() {
    for hierarchy in hierarchies { Self.removeTree(hierarchy.folder) }
  }

  /// The files of a group and what to write into them.
  static func settings(_ limits: SandboxProfile.Limits, isUnified: Bool) -> [(String, String)] {
    var result: [(String, String)] = []
    if let bytes = limits.memory {
      result +=
        isUnified
        ? [("memory.max", "\(bytes)"), ("memory.swap.max", "0"), ("memory.oom.group", "1")]
        : [("memory.limit_in_bytes", "\(bytes)")]
    }
    if let count = limits.tasks { result.append(("pids.max", "\(count)")) }
    if let weight = limits.weight {
      // Version 1 counts a weight of 100 as 1024 shares.
      result +=
        isUnified
        ? [("cpu.weight", "\(weight)"), ("io.weight", "\(weight)")]
        : [("cpu.shares", "\(weight * 1024 / 100)"), ("blkio.weight", "\(weight)")]
    }
    return result
  }

  // MARK: Where groups may be made

  /// The launcher's own group in each hierarchy that has a controller of use.
  private static func candidates() -> [Hierarchy] {
    guard let groups = try? text("/proc/self/cgroup"),
      let mounts = try? text("/proc/self/mountinfo")
    else { return [] }
    return candidates(groups: groups, mounts: mounts) { path in
      let words = ((try? text("\(path)/cgroup.controllers")) ?? "").split {
        $0 == " " || $0 == "\n"
      }
      return Set(words.map(String.init))
    }
  }

  /// Finds them in the texts of /proc/self/cgroup and /proc/self/mountinfo.
  static func candidates(
    groups: String, mounts: String, controllers: (String) -> Set<String>
  ) -> [Hierarchy] {
    var points: [(options: Set<String>, root: String, path: String, isUnified: Bool)] = []
    for line in mounts.split(separator: "\n") {
      let words = line.split(separator: " ").map(String.init)
      guard let dash = words.firstIndex(of: "-"), words.count > dash + 3, words.count > 4 else {
        continue
      }
      let type = words[dash + 1]
      guard type == "cgroup" || type == "cgroup2" else { continue }
      let options = Set(words[dash + 3].split(separator: ",").map(String.init))
      points.append((options, words[3], words[4], type == "cgroup2"))
    }
    var result: [Hierarchy] = []
    for line in groups.split(separator: "\n") {
      let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
      guard parts.count == 3 else { continue }
      let names = Set(parts[1].split(separator: ",").map(String.init))
      let isUnified = parts[0] == "0" && names.isEmpty
      let point = points.first {
        isUnified ? $0.isUnified : !$0.isUnified && !$0.options.isDisjoint(with: names)
      }
      guard let point else { continue }
      // The mount may show a part of the hierarchy, as in a container.
      var path = String(parts[2])
      if point.root != "/", path.hasPrefix(point.root) {
        path = String(path.dropFirst(point.root.count))
      }
      let folder = path == "/" || path.isEmpty ? point.path : point.path + path
      let offered = isUnified ? controllers(folder) : names
      let useful = offered.intersection(wanted)
      if !useful.isEmpty {
        result.append(Hierarchy(folder: folder, isUnified: isUnified, controllers: useful))
      }
    }
    return result
  }

  /// Makes the launcher's group one that may have groups with controllers below it.
  ///
  /// Such a group holds no processes itself: the launcher goes into one of its own.
  private static func delegate(_ candidate: Hierarchy) throws(SystemError) {
    do throws(SystemError) {
      try enable(candidate.controllers, in: candidate.folder)
    } catch {
      let own = "\(candidate.folder)/launcher"
      try Files.makeFolder(own)
      try write("\(ThisProcess.id)", to: "\(own)/cgroup.procs")
      try enable(candidate.controllers, in: candidate.folder)
    }
  }

  private static func enable(_ controllers: Set<String>, in folder: String) throws(SystemError) {
    try write(
      controllers.sorted().map { "+\($0)" }.joined(separator: " "),
      to: "\(folder)/cgroup.subtree_control")
  }

  // MARK: Folders

  /// Removes what launchers have left that were killed: groups without a process.
  private static func removeStale(in folder: String) {
    for entry in (try? Descriptor.entries(of: folder)) ?? [] where entry.hasPrefix(prefix) {
      guard let id = Int32(entry.dropFirst(prefix.count)),
        (try? Files.status("/proc/\(id)")) == .some(nil)
      else { continue }
      removeTree("\(folder)/\(entry)")
    }
  }

  /// Removes a group and those below it, as far as they hold no process.
  private static func removeTree(_ folder: String) {
    for entry in (try? Descriptor.entries(of: folder)) ?? [] {
      // Groups are folders; the kernel's own files can't be removed and need not be.
      try? Files.removeFolder("\(folder)/\(entry)")
    }
    try? Files.removeFolder(folder)
  }

  private static func text(_ path: String) throws(SystemError) -> String {
    String(decoding: try Files.open(path, .readOnly).readToEnd(), as: UTF8.self)
  }

  private static func write(_ text: String, to path: String) throws(SystemError) {
    do throws(SystemError) {
      _ = try Files.open(path, .writeOnly).write(Array(text.utf8))
    } catch {
      throw SystemError("write \(path)", error.number)
    }
  }
}
