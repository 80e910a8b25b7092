// SPDX-License-Identifier: Apache-2.0

internal import Glibc
public import LinuxSystem

/// How much must hold.
public enum IsolationLevel: String, Sendable {
  /// A layer that can't be had is an error.
  case strict
  /// A layer that can't be had is listed in the report.
  case relaxed
}

/// A process on its way into its sandbox.
///
/// A process enters with one thread, before the first byte from a guest or a peer:
/// ``enclose(_:_:)``, then its threads, then ``seal()``; or ``enter(_:_:)`` without threads.
/// The first step takes away the file system, the capabilities, and what Landlock guards; these
/// bind the calling thread and those it starts. The second puts the filter on all threads.
public struct Sandbox: ~Copyable {
  private let profile: SandboxProfile
  private let level: IsolationLevel
  /// /proc/self/status, opened while there was a /proc; it is read when all is done.
  private let status: Descriptor
  private var report: IsolationReport

  /// Takes every step at once.
  public static func enter(_ profile: SandboxProfile, _ level: IsolationLevel)
    throws(SandboxError) -> IsolationReport
  {
    try enclose(profile, level).seal()
  }

  /// Takes away everything but system calls on the descriptors that are open.
  ///
  /// - Precondition: the launcher gave this process ``environment()``, so that it can tell its
  ///   own namespaces from the launcher's. Without that it does not touch its mounts.
  public static func enclose(_ profile: SandboxProfile, _ level: IsolationLevel)
    throws(SandboxError) -> Sandbox
  {
    let process: Descriptor
    let status: Descriptor
    let threads: Int
    let highest: UInt64
    do throws(SystemError) {
      process = try Descriptor.open("/proc/self", O_RDONLY | O_DIRECTORY)
      status = try process.open("status", O_RDONLY)
      let text = try process.open("status", O_RDONLY).readToEnd()
      threads = ProcessStatus(String(decoding: text, as: UTF8.self)).threads
      highest = try Descriptor.entries(of: "/proc/self/fd").compactMap { UInt64($0) }.max() ?? 3
    } catch {
      throw .unreadable(error)
    }
    guard threads == 1 else { throw .hasThreads(threads) }
    Allocator.shareOneArena()
    var sandbox = Sandbox(profile: profile, level: level, status: status)
    try sandbox.lookAtNamespaces(process)
    try sandbox.removeFiles(process)
    try sandbox.dropPrivileges()
    try sandbox.setLimits(highest: highest)
    try sandbox.forbidWithLandlock()
    return sandbox
  }

  private init(profile: SandboxProfile, level: IsolationLevel, status: Descriptor) {
    self.profile = profile
    self.level = level
    self.status = status
    report = IsolationReport()
    report.profile = profile.name
  }

  /// What a launcher puts into the environment of a process that will enter a sandbox.
  public static func environment() throws(SystemError) -> [String] {
    let own = try NamespaceIdentities(process: Descriptor.open("/proc/self", O_RDONLY))
    // The crash handler of Swift would start a helper process.
    return ["SWIFT_BACKTRACE=enable=no", "\(outsideVariable)=\(own.text)"]
  }

  private static let outsideVariable = "BULKHEAD_OUTSIDE"

  /// Runs a step; when it fails, the level decides whether that is an error.
  private mutating func attempt(
    _ layer: SandboxLayer, _ step: () throws(SystemError) -> Void
  ) throws(SandboxError) {
    do {
      try step()
    } catch {
      try miss(layer, error.description)
    }
  }

  private mutating func miss(_ layer: SandboxLayer, _ reason: String) throws(SandboxError) {
    guard level == .relaxed else {
      throw .layerMissing(layer, reason: reason, remedy: layer.remedy)
    }
    guard !report.missing.contains(where: { $0.layer == layer }) else { return }
    report.missing.append(IsolationReport.Missing(layer, reason))
  }

  // MARK: Stages, in order

  private mutating func lookAtNamespaces(_ process: Descriptor) throws(SandboxError) {
    do {
      report.namespaces = try NamespaceIdentities(process: process)
    } catch {
      throw .unreadable(error)
    }
    let outside = ThisProcess.environment(Self.outsideVariable).flatMap {
      NamespaceIdentities($0)
    }
    guard let outside else {
      return try miss(.namespaces, "the launcher's are not known (\(Self.outsideVariable))")
    }
    var lacking: [String] = []
    for (bit, name) in Namespaces.fileNames.enumerated() {
      let one = Namespaces(rawValue: 1 << UInt8(bit))
      let number = report.namespaces.numbers[bit]
      if number != 0 && outside.numbers[bit] != 0 && number != outside.numbers[bit] {
        report.ownNamespaces.insert(one)
      } else if profile.namespaces.contains(one) {
        lacking.append(name)
      }
    }
    guard lacking.isEmpty else {
      return try miss(.namespaces, "shared with the launcher: " + lacking.joined(separator: " "))
    }
  }

  private mutating func removeFiles(_ process: Descriptor) throws(SandboxError) {
    if report.ownNamespaces.contains(.hostName) {
      try attempt(.namespaces) { () throws(SystemError) in try Mounts.setHostName("bulkhead") }
    }
    // While there is a /proc: libcap-ng reads it.
    try attempt(.capabilities) { () throws(SystemError) in try Privileges.closeBounds() }
    guard report.ownNamespaces.contains(.mount) else {
      return try miss(.emptyRoot, "no mount namespace of its own")
    }
    var entries: UInt32 = .max
    var lines: [Substring] = []
    try attempt(.emptyRoot) { () throws(SystemError) in
      try Mounts.becomeEmpty()
      entries = UInt32(clamping: try Descriptor.entries(of: "/").count)
      let text = try process.open("mountinfo", O_RDONLY).readToEnd()
      lines = String(decoding: text, as: UTF8.self).split(separator: "\n")
    }
    report.rootEntries = entries
    report.mounts = UInt32(clamping: lines.count)
    let mounts = lines.compactMap { MountEntry(String($0)) }
    report.rootIsReadOnly =
      !mounts.isEmpty && mounts.allSatisfy { $0.options.contains("ro") && $0.target == "/" }
    if !report.hasEmptyRoot {
      try miss(.emptyRoot, "\(entries) entries, \(lines.count) mounts")
    }
  }

  private mutating func dropPrivileges() throws(SandboxError) {
    try attempt(.capabilities) { () throws(SystemError) in try Privileges.dropAll() }
    try attempt(.noNewPrivileges) { () throws(SystemError) in try Privileges.refuseNew() }
    try attempt(.hidden) { () throws(SystemError) in try Privileges.hideMemory() }
    try attempt(.memoryDenyExecute) { () throws(SystemError) in try Privileges.refuseNewCode() }
    // After the last change of credentials, which clears it.
    try attempt(.deathSignal) { () throws(SystemError) in try Privileges.dieWithParent() }
    let flags = Privileges.flags()
    report.secureBits = flags.secureBits < 0 ? 0 : UInt32(flags.secureBits)
    report.isDumpable = flags.dumpable != 0
    report.refusesNewCode = flags.codeRefused == 1
  }

  private mutating func setLimits(highest: UInt64) throws(SandboxError) {
    let limits = profile.limits
    try attempt(.limits) { () throws(SystemError) in
      try Resource.coreSize.limit(to: 0)
      try Resource.lockedMemory.limit(to: 0)
      try Resource.descriptors.limit(to: highest + 1 + limits.spareDescriptors)
      if let size = limits.fileSize { try Resource.fileSize.limit(to: size) }
      if let size = limits.addressSpace { try Resource.addressSpace.limit(to: size) }
    }
  }

  private mutating func forbidWithLandlock() throws(SandboxError) {
    var version: Int32 = 0
    try attempt(.landlock) { () throws(SystemError) in
      let running = try Landlock.version()
      try Landlock.forbidAll(version: running)
      version = running
    }
    report.landlock = UInt32(version)
  }

  /// Puts the filter on every thread, and reads from the kernel what then holds.
  ///
  /// No thread can be started afterwards unless the profile says so.
  public consuming func seal() throws(SandboxError) -> IsolationReport {
    let profile = profile
    if profile.threads == .beforeSeal {
      try attempt(.limits) { () throws(SystemError) in try Resource.processes.limit(to: 0) }
    }
    do {
      report.limits = try Resource.allCases.map { resource throws(SystemError) in
        try resource.hardLimit()
      }
    } catch {
      try miss(.limits, error.description)
    }
    var rules: UInt32 = 0
    try attempt(.seccomp) { () throws(SystemError) in
      try profile.makeFilter().load(allThreads: true)
      rules = UInt32(profile.allRules.count)
    }
    report.seccompRules = rules
    try readStatus()
    return report
  }

  /// Puts the narrower filter of a process that serves on every thread.
  ///
  /// For a profile with one stage alone nothing changes.
  public static func narrow(_ profile: SandboxProfile, _ level: IsolationLevel)
    throws(SandboxError)
  {
    guard profile.setup != nil else { return }
    // Hashing takes its seed from the kernel at its first use.
    _ = Set([profile.name]).contains("")
    do throws(SystemError) {
      try profile.makeSteadyFilter().load(allThreads: true)
    } catch {
      guard level == .relaxed else {
        throw .layerMissing(
          .seccomp, reason: error.description, remedy: SandboxLayer.seccomp.remedy)
      }
    }
  }

  /// The last step: only `read` on a descriptor that was opened at the beginning.
  private mutating func readStatus() throws(SandboxError) {
    let text: [UInt8]
    do {
      text = try status.readToEnd()
    } catch {
      throw .unreadable(error)
    }
    let now = ProcessStatus(String(decoding: text, as: UTF8.self))
    report.capabilities = now.capabilities
    report.noNewPrivileges = now.noNewPrivileges
    report.seccompMode = UInt8(truncatingIfNeeded: now.seccompMode)
    report.seccompFilters = UInt32(clamping: now.seccompFilters)
    report.threads = UInt32(clamping: now.threads)
    if !now.capabilities.isEmpty { try miss(.capabilities, "a set is not empty") }
    if !now.noNewPrivileges { try miss(.noNewPrivileges, "the kernel says it is off") }
    if now.seccompMode != 2 { try miss(.seccomp, "the kernel says mode \(now.seccompMode)") }
    if report.isDumpable { try miss(.hidden, "the kernel says it is dumpable") }
  }
}

extension NamespaceIdentities {
  /// Reads the identities of a process, given its directory in /proc.
  init(process: Descriptor) throws(SystemError) {
    var numbers: [UInt64] = []
    for name in Namespaces.fileNames {
      numbers.append(Self.number(inLink: try process.link("ns/\(name)")))
    }
    self.init(numbers: numbers)
  }
}
