// SPDX-License-Identifier: Apache-2.0

public import LinuxSystem

/// What confines a process, as the kernel says, not as it was intended.
public struct IsolationReport: Sendable, Equatable {
  /// A layer that could not be had, and why.
  public struct Missing: Sendable, Equatable {
    public var layer: SandboxLayer
    public var reason: String

    public init(_ layer: SandboxLayer, _ reason: String) {
      self.layer = layer
      self.reason = reason
    }
  }

  /// The profile's name.
  public var profile = ""
  public var namespaces = NamespaceIdentities(numbers: [])
  /// The namespaces that are not the launcher's.
  public var ownNamespaces: Namespaces = []
  public var capabilities = ProcessStatus.Capabilities()
  public var noNewPrivileges = false
  public var isDumpable = true
  public var secureBits: UInt32 = 0
  public var refusesNewCode = false
  /// 2 with a filter in force.
  public var seccompMode: UInt8 = 0
  public var seccompFilters: UInt32 = 0
  /// The rules that went into the filter.
  public var seccompRules: UInt32 = 0
  /// The version of Landlock's interface; zero when it is not in force.
  public var landlock: UInt32 = 0
  public var rootEntries: UInt32 = .max
  public var rootIsReadOnly = false
  /// Mounts that the process sees.
  public var mounts: UInt32 = .max
  /// Hard limits by `Resource`, in the order of its cases.
  public var limits: [UInt64] = []
  public var threads: UInt32 = 0
  public var missing: [Missing] = []

  public init() {}

  /// Whether the root directory is empty, read-only, and all that is mounted.
  public var hasEmptyRoot: Bool { rootEntries == 0 && rootIsReadOnly && mounts == 1 }

  /// The hard limit of a resource.
  public func limit(_ resource: Resource) -> UInt64 {
    let place = Resource.allCases.firstIndex(of: resource) ?? 0
    return place < limits.count ? limits[place] : Resource.unlimited
  }
}

extension IsolationReport: CustomStringConvertible {
  private static let words = ["user", "mount", "pid", "net", "ipc", "uts", "cgroup"]

  /// One line with every layer that is in force, then those that are not.
  public var description: String {
    var parts: [String] = []
    let own = Self.words.enumerated().filter { ownNamespaces.rawValue >> UInt8($0.offset) & 1 != 0 }
    if !own.isEmpty {
      parts.append(own.map(\.element).joined(separator: " ") + " namespaces")
    }
    if hasEmptyRoot { parts.append("root empty and read-only") }
    if capabilities.isEmpty { parts.append("no capabilities") }
    if noNewPrivileges { parts.append("no-new-privs") }
    if !isDumpable { parts.append("not dumpable") }
    if refusesNewCode { parts.append("no new code") }
    if landlock > 0 { parts.append("landlock abi \(landlock)") }
    if seccompMode == 2 { parts.append("seccomp 2 (\(seccompRules) rules)") }
    if limits.count == Resource.allCases.count {
      parts.append("\(limit(.descriptors)) descriptors at most")
    }
    parts += missing.map { "MISSING \($0.layer.title) (\($0.reason))" }
    return parts.isEmpty ? "none" : parts.joined(separator: "; ")
  }
}

extension IsolationReport {
  private static let version: UInt8 = 1

  /// The report as bytes: little-endian fields in a fixed order, texts behind their length.
  public func encoded() -> [UInt8] {
    var bytes: [UInt8] = [Self.version]
    func put<T: FixedWidthInteger>(_ value: T) {
      for shift in stride(from: 0, to: T.bitWidth, by: 8) {
        bytes.append(UInt8(truncatingIfNeeded: value >> T(shift)))
      }
    }
    func put(_ text: String) {
      let utf8 = Array(text.utf8.prefix(255))
      bytes.append(UInt8(utf8.count))
      bytes += utf8
    }
    put(profile)
    for number in namespaces.numbers { put(number) }
    put(ownNamespaces.rawValue)
    put(capabilities.inheritable)
    put(capabilities.permitted)
    put(capabilities.effective)
    put(capabilities.bounding)
    put(capabilities.ambient)
    put(
      UInt8(
        (noNewPrivileges ? 1 : 0) | (isDumpable ? 2 : 0) | (refusesNewCode ? 4 : 0)
          | (rootIsReadOnly ? 8 : 0)))
    put(secureBits)
    put(seccompMode)
    put(seccompFilters)
    put(seccompRules)
    put(landlock)
    put(rootEntries)
    put(mounts)
    put(threads)
    put(UInt8(truncatingIfNeeded: limits.count))
    for limit in limits { put(limit) }
    put(UInt8(truncatingIfNeeded: missing.count))
    for one in missing {
      put(one.layer.rawValue)
      put(one.reason)
    }
    return bytes
  }

  /// Decodes a report from a process that is not trusted; `nil` when it is none.
  public init?(_ bytes: [UInt8]) {
    var rest = bytes[...]
    func take<T: FixedWidthInteger>(_ type: T.Type) -> T? {
      let size = T.bitWidth / 8
      guard rest.count >= size else { return nil }
      var value: T = 0
      for byte in rest.prefix(size).reversed() {
        value = T.bitWidth == 8 ? T(truncatingIfNeeded: byte) : value << 8 | T(byte)
      }
      rest = rest.dropFirst(size)
      return value
    }
    func takeText() -> String? {
      guard let count = take(UInt8.self), rest.count >= Int(count) else { return nil }
      defer { rest = rest.dropFirst(Int(count)) }
      return String(decoding: rest.prefix(Int(count)), as: UTF8.self)
    }
    guard take(UInt8.self) == Self.version, let profile = takeText() else { return nil }
    let numbers = (0..<7).compactMap { _ in take(UInt64.self) }
    guard numbers.count == 7, let own = take(UInt8.self) else { return nil }
    let sets = (0..<5).compactMap { _ in take(UInt64.self) }
    guard sets.count == 5, let flags = take(UInt8.self), let secureBits = take(UInt32.self),
      let mode = take(UInt8.self)
    else { return nil }
    let words = (0..<6).compactMap { _ in take(UInt32.self) }
    guard words.count == 6, let limitCount = take(UInt8.self) else { return nil }
    let limits = (0..<Int(limitCount)).compactMap { _ in take(UInt64.self) }
    guard limits.count == Int(limitCount), let missingCount = take(UInt8.self) else { return nil }
    var missing: [Missing] = []
    for _ in 0..<missingCount {
      guard let layer = take(UInt8.self).flatMap(SandboxLayer.init(rawValue:)),
        let reason = takeText()
      else { return nil }
      missing.append(Missing(layer, reason))
    }
    guard rest.isEmpty else { return nil }

    self.profile = profile
    namespaces = NamespaceIdentities(numbers: numbers)
    ownNamespaces = Namespaces(rawValue: own)
    capabilities.inheritable = sets[0]
    capabilities.permitted = sets[1]
    capabilities.effective = sets[2]
    capabilities.bounding = sets[3]
    capabilities.ambient = sets[4]
    noNewPrivileges = flags & 1 != 0
    isDumpable = flags & 2 != 0
    refusesNewCode = flags & 4 != 0
    rootIsReadOnly = flags & 8 != 0
    self.secureBits = secureBits
    seccompMode = mode
    seccompFilters = words[0]
    seccompRules = words[1]
    landlock = words[2]
    rootEntries = words[3]
    mounts = words[4]
    threads = words[5]
    self.limits = limits
    self.missing = missing
  }
}
