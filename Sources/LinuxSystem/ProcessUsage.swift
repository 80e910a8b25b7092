// SPDX-License-Identifier: Apache-2.0

/// What a process has used so far, as /proc has it (proc(5)).
public struct ProcessUsage: Equatable, Sendable {
  /// Processor time of all its threads in nanoseconds, in steps of 10 ms.
  public var processorTime: UInt64
  /// Memory that it has mapped and that is in RAM, in bytes; shared memory counts whole.
  public var residentBytes: UInt64
  public var threads: UInt32

  /// Parses the text of /proc/PID/stat; `nil` when it is none.
  public init?(stat text: String) {
    // The name, in parentheses, may hold anything.
    guard let end = text.lastIndex(of: ")") else { return nil }
    let words = text[text.index(after: end)...].split { $0 == " " || $0 == "\n" }
    // Fields 14, 15 (utime, stime), 20 (num_threads) and 24 (rss); the first word is field 3.
    guard words.count > 21, let user = UInt64(words[11]), let system = UInt64(words[12]),
      let threads = UInt32(words[17]), let pages = UInt64(words[21])
    else { return nil }
    // USER_HZ is 100 and a page 4 KiB on x86-64.
    processorTime = (user &+ system) &* 10_000_000
    residentBytes = pages &* 4096
    self.threads = threads
  }

  /// Looks at a process.
  ///
  /// - Throws: ENOENT or ESRCH when there is none.
  public init(pid: Int32) throws(SystemError) {
    let bytes = try Files.open("/proc/\(pid)/stat", .readOnly).readToEnd(most: 4096)
    guard let usage = ProcessUsage(stat: String(decoding: bytes, as: UTF8.self)) else {
      throw SystemError("/proc/\(pid)/stat is malformed", 22 /* EINVAL */)
    }
    self = usage
  }

  /// The memory of a process in bytes, with what it shares counted by its share (PSS).
  ///
  /// `nil` when the caller may not look: it takes root, or the process's own user.
  public static func proportionalBytes(pid: Int32) -> UInt64? {
    guard
      let bytes = try? Files.open("/proc/\(pid)/smaps_rollup", .readOnly).readToEnd(most: 8192)
    else { return nil }
    for line in String(decoding: bytes, as: UTF8.self).split(separator: "\n")
    where line.hasPrefix("Pss:") {
      let words = line.split { $0 == " " || $0 == "\t" }
      return words.count > 1 ? UInt64(words[1]).map { $0 &* 1024 } : nil
    }
    return nil
  }
}
