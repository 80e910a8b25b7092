// SPDX-License-Identifier: Apache-2.0

internal import Glibc
public import LinuxSystem

/// One line of /proc/PID/mountinfo.
public struct MountEntry: Sendable, Equatable {
  public var target: String
  public var options: [String]
  public var type: String

  /// Parses a line (proc(5)); `nil` when it isn't one.
  public init?(_ line: String) {
    let words = line.split(separator: " ")
    guard words.count > 6, let dash = words.firstIndex(of: "-"), words.count > dash + 1 else {
      return nil
    }
    target = String(words[4])
    options = words[5].split(separator: ",").map(String.init)
    type = String(words[dash + 1])
  }
}

/// One line of /proc/PID/maps.
public struct MemoryArea: Sendable, Equatable {
  public var range: Range<UInt64>
  /// As in `r-xp`.
  public var permissions: String
  /// The file or the kernel's name for it; empty for anonymous memory.
  public var path: String

  /// Parses a line (proc(5)); `nil` when it isn't one.
  public init?(_ line: String) {
    let words = line.split(separator: " ", maxSplits: 5)
    guard words.count >= 5 else { return nil }
    let ends = words[0].split(separator: "-").map { UInt64($0, radix: 16) }
    guard ends.count == 2, let start = ends[0], let end = ends[1], start <= end,
      words[1].utf8.count == 4
    else { return nil }
    range = start..<end
    permissions = String(words[1])
    let rest = words.count == 6 ? words[5] : ""
    path = String(rest.drop { $0 == " " })
  }
}

/// What confines a process, seen from outside through /proc.
public struct ProcessAudit: Sendable, Equatable {
  /// An open descriptor.
  public struct File: Sendable, Equatable {
    public var number: Int32
    /// What it leads to, as in `socket:[123]`, `anon_inode:[eventfd]` or a path.
    public var target: String

    public init(number: Int32, target: String) {
      self.number = number
      self.target = target
    }
  }

  public var pid: Int32
  public var status: ProcessStatus
  public var namespaces: NamespaceIdentities
  /// By rising number.
  public var files: [File]
  public var areas: [MemoryArea]
  public var mounts: [MountEntry]
  /// Hard limits by the names of /proc/PID/limits; unlimited is `UInt64.max`.
  public var limits: [String: UInt64]
  /// Entries of its root directory; `nil` when that can't be read.
  public var rootEntries: Int?
  /// How many filters each thread has.
  public var threadFilters: [Int] = []
  /// The lines of /proc/PID/cgroup.
  public var cgroups: [String] = []

  /// Reads everything about a process.
  ///
  /// - Throws: EACCES or EPERM when the caller may not look into it: it takes root, or the user
  ///   who started it.
  public init(pid: Int32) throws(SystemError) {
    let path = "/proc/\(pid)"
    let directory = try Descriptor.open(path, O_RDONLY | O_DIRECTORY)
    func text(_ name: String) throws(SystemError) -> String {
      String(decoding: try directory.open(name, O_RDONLY).readToEnd(), as: UTF8.self)
    }
    self.pid = pid
    status = ProcessStatus(try text("status"))
    namespaces = try NamespaceIdentities(process: directory)
    var files: [File] = []
    for number in try Descriptor.entries(of: "\(path)/fd").compactMap({ Int32($0) }).sorted() {
      // One that was closed meanwhile is not there any more.
      guard let target = try? directory.link("fd/\(number)") else { continue }
      files.append(File(number: number, target: target))
    }
    self.files = files
    areas = try text("maps").split(separator: "\n").compactMap { MemoryArea(String($0)) }
    mounts = try text("mountinfo").split(separator: "\n").compactMap { MountEntry(String($0)) }
    limits = Self.limits(try text("limits"))
    rootEntries = (try? Descriptor.entries(of: "\(path)/root"))?.count
    for thread in (try? Descriptor.entries(of: "\(path)/task")) ?? [] {
      // One that has ended meanwhile has no filter to look at.
      guard let text = try? text("task/\(thread)/status") else { continue }
      threadFilters.append(ProcessStatus(text).seccompFilters)
    }
    cgroups = ((try? text("cgroup")) ?? "").split(separator: "\n").map(String.init).sorted()
  }

  /// The children of a process, by rising process id.
  public static func children(of pid: Int32) throws(SystemError) -> [Int32] {
    var result: [Int32] = []
    for entry in try Descriptor.entries(of: "/proc") {
      guard let child = Int32(entry),
        let file = try? Descriptor.open("/proc/\(child)/stat", O_RDONLY),
        let bytes = try? file.readToEnd()
      else { continue }
      // The name in parentheses may hold anything: what follows is behind the last one.
      let text = String(decoding: bytes, as: UTF8.self)
      guard let close = text.lastIndex(of: ")") else { continue }
      let words = text[text.index(after: close)...].split(separator: " ")
      if words.count > 1, Int32(words[1]) == pid, words[0] != "Z" { result.append(child) }
    }
    return result.sorted()
  }

  /// The name of the file that a process runs.
  public static func executableName(_ pid: Int32) throws(SystemError) -> String {
    let path = try Descriptor.open("/proc/\(pid)", O_RDONLY | O_DIRECTORY).link("exe")
    let name = path.split(separator: "/").last.map(String.init) ?? path
    // A program that was replaced meanwhile.
    return name.hasSuffix(" (deleted)") ? String(name.dropLast(10)) : name
  }

  /// Whether any memory is writable and executable at once.
  public var hasWritableCode: Bool {
    areas.contains { $0.permissions.contains("w") && $0.permissions.contains("x") }
  }

  /// Parses /proc/PID/limits into hard limits by name.
  static func limits(_ text: String) -> [String: UInt64] {
    var result: [String: UInt64] = [:]
    for line in text.split(separator: "\n").dropFirst() where line.utf8.count > 47 {
      // Columns: name of 25 characters and a space, soft of 20 and a space, hard of 20.
      let bytes = Array(line.utf8)
      let name = String(decoding: bytes.prefix(26), as: UTF8.self)
      let hard = String(decoding: bytes.dropFirst(47).prefix(20), as: UTF8.self)
      guard let word = hard.split(separator: " ").first else { continue }
      let trimmed = name.split(separator: " ").joined(separator: " ")
      result[trimmed] = word == "unlimited" ? .max : UInt64(word)
    }
    return result
  }
}
