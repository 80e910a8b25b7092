// SPDX-License-Identifier: Apache-2.0

/// The part of /proc/PID/status that says how a process is confined (proc(5)).
public struct ProcessStatus: Sendable, Equatable {
  /// Capability sets as bit masks.
  public struct Capabilities: Sendable, Equatable {
    public var inheritable: UInt64 = .max
    public var permitted: UInt64 = .max
    public var effective: UInt64 = .max
    public var bounding: UInt64 = .max
    public var ambient: UInt64 = .max

    public init() {}

    /// Whether no set holds anything.
    public var isEmpty: Bool { inheritable | permitted | effective | bounding | ambient == 0 }
  }

  public var name = ""
  public var threads = 0
  /// Real, effective, saved and file system user id, as the reader's namespace sees them.
  public var users: [UInt32] = []
  public var groups: [UInt32] = []
  public var supplementaryGroups: Set<UInt32> = []
  public var capabilities = Capabilities()
  public var noNewPrivileges = false
  /// 0 no filter, 1 strict mode, 2 filters.
  public var seccompMode = 0
  public var seccompFilters = 0

  /// Parses the file's text; what is missing there stays at its least confined value.
  public init(_ text: String) {
    for line in text.split(separator: "\n") {
      guard let colon = line.firstIndex(of: ":") else { continue }
      let words = line[line.index(after: colon)...].split { $0 == "\t" || $0 == " " }
      guard let first = words.first else { continue }
      let mask = UInt64(first, radix: 16) ?? .max
      switch line[..<colon] {
      case "Name": name = words.joined(separator: " ")
      case "Threads": threads = Int(first) ?? 0
      case "Uid": users = words.compactMap { UInt32($0) }
      case "Gid": groups = words.compactMap { UInt32($0) }
      case "Groups": supplementaryGroups = Set(words.compactMap { UInt32($0) })
      case "CapInh": capabilities.inheritable = mask
      case "CapPrm": capabilities.permitted = mask
      case "CapEff": capabilities.effective = mask
      case "CapBnd": capabilities.bounding = mask
      case "CapAmb": capabilities.ambient = mask
      case "NoNewPrivs": noNewPrivileges = first == "1"
      case "Seccomp": seccompMode = Int(first) ?? 0
      case "Seccomp_filters": seccompFilters = Int(first) ?? 0
      default: break
      }
    }
  }
}

/// The identities of a process's namespaces: inode numbers by the bit numbers of `Namespaces`.
public struct NamespaceIdentities: Sendable, Equatable {
  /// Zero stands for one that could not be read.
  public var numbers: [UInt64]

  public init(numbers: [UInt64]) { self.numbers = Array((numbers + Self.none).prefix(7)) }

  private static let none = [UInt64](repeating: 0, count: 7)

  /// Takes the number out of a link such as `mnt:[4026531841]`; zero when it isn't one.
  public static func number(inLink link: String) -> UInt64 {
    guard let open = link.firstIndex(of: "["), link.last == "]" else { return 0 }
    return UInt64(link[link.index(after: open)...].dropLast()) ?? 0
  }

  /// The text form, for an environment variable.
  public var text: String { numbers.map { String($0) }.joined(separator: ",") }

  /// Parses the text form.
  public init?(_ text: String) {
    let parts = text.split(separator: ",", omittingEmptySubsequences: false).map { UInt64($0) }
    guard parts.count == 7, parts.allSatisfy({ $0 != nil }) else { return nil }
    numbers = parts.compactMap { $0 }
  }
}
