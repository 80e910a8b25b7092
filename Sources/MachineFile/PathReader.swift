// SPDX-License-Identifier: Apache-2.0

/// Reads paths, back ends and addresses, and knows which path is already somebody's.
struct PathReader {
  /// The longest path of a Unix socket in bytes (`sun_path` without its end).
  static let maximumSocketPath = 107

  /// The machine file's folder with its slash, or nothing for the current folder.
  let folder: String
  /// The key that writes to each path.
  private var writers: [String: String] = [:]
  /// A key that reads each path that nobody writes.
  private var readers: [String: String] = [:]
  private var terminalOwner: String?

  init(fileName: String) {
    folder = fileName.lastIndex(of: "/").map { String(fileName[...$0]) } ?? ""
  }

  /// Reads a path and puts a relative one under the machine file's folder.
  func path(_ text: Located<String>, _ reader: inout TableReader) -> String? {
    guard !text.value.isEmpty else {
      reader.report(text, "the path is empty", accepted: "a path")
      return nil
    }
    guard text.value.unicodeScalars.allSatisfy({ $0.value >= 0x20 && $0.value != 0x7F }) else {
      reader.report(
        text, "\(quoted(text.value)) has a control character", accepted: "a path without one")
      return nil
    }
    guard text.value.utf8.count < 4096 else {
      reader.report(
        text, "the path has \(text.value.utf8.count) bytes", accepted: "at most 4095 bytes")
      return nil
    }
    return text.value.hasPrefix("/") ? text.value : folder + text.value
  }

  /// Reads a path out of a table.
  func path(_ key: String, in table: Table, _ reader: inout TableReader) -> String? {
    reader.string(key, in: table, accepted: "a path").flatMap { path($0, &reader) }
  }

  /// Which back ends a key takes.
  enum Kind: String {
    case stdio
    case pty
    case file = "file:PATH"
    case unix = "unix:PATH"
    case connect = "connect:PATH"
    case null
  }

  /// Reads a back end such as `file:PATH`.
  mutating func backend(
    _ key: String, in table: Table, kinds: [Kind], _ reader: inout TableReader
  ) -> Machine.Backend? {
    let accepted = kinds.map(\.rawValue).joined(separator: ", ")
    guard let text = reader.string(key, in: table, accepted: accepted) else { return nil }
    switch text.value {
    case "stdio" where kinds.contains(.stdio): return .stdio
    case "pty" where kinds.contains(.pty): return .pty
    case "null" where kinds.contains(.null): return .null
    default: break
    }
    if kinds.contains(.file), text.value.hasPrefix("file:") {
      return rest(of: text, after: "file:", &reader).map { .file($0) }
    }
    if kinds.contains(.unix), text.value.hasPrefix("unix:") {
      guard let path = rest(of: text, after: "unix:", &reader) else { return nil }
      return checkSocket(path, text, &reader) ? .unix(path) : nil
    }
    if kinds.contains(.connect), text.value.hasPrefix("connect:") {
      guard let path = rest(of: text, after: "connect:", &reader) else { return nil }
      return checkSocket(path, text, &reader) ? .connect(path) : nil
    }
    reader.report(text, "\(quoted(text.value)) is not a back end", accepted: accepted)
    return nil
  }

  /// Reads the path of `file:PATH`; `nil` for what has another form.
  func file(_ text: Located<String>, _ reader: inout TableReader) -> String? {
    guard text.value.hasPrefix("file:") else { return nil }
    return rest(of: text, after: "file:", &reader)
  }

  /// Reads an address that a display listens on.
  func address(
    _ key: String, in table: Table, _ reader: inout TableReader
  ) -> Located<ListenAddress>? {
    let accepted = "ADDRESS:PORT such as 127.0.0.1:5900 or [::1]:5900, unix:PATH"
    guard let text = reader.string(key, in: table, accepted: accepted) else { return nil }
    if text.value.hasPrefix("unix:") {
      guard let path = rest(of: text, after: "unix:", &reader),
        checkSocket(path, text, &reader)
      else { return nil }
      return Located(value: .unix(path), offset: text.offset, key: text.key)
    }
    guard let address = ListenAddress.parseTCP(text.value) else {
      reader.report(text, "\(quoted(text.value)) is not an address", accepted: accepted)
      return nil
    }
    return Located(value: address, offset: text.offset, key: text.key)
  }

  /// Notes that `key` writes what the back end names; a second writer is an error.
  mutating func claim(
    _ backend: Machine.Backend?, for key: String, _ reader: inout TableReader
  ) {
    switch backend {
    case .stdio:
      if let owner = terminalOwner {
        reader.report(
          reader.places[key] ?? 0, key, "\"stdio\" is already taken by \(owner)",
          "accepted: stdio in one place")
      } else {
        terminalOwner = key
      }
    case .file(let path), .unix(let path), .connect(let path): claim(path, for: key, &reader)
    case .pty, .null, nil: break
    }
  }

  /// Notes that `key` writes to `path`, which nobody else may use.
  mutating func claim(_ path: String, for key: String, _ reader: inout TableReader) {
    let plain = Self.normalized(path)
    if let owner = writers[plain] ?? readers[plain] {
      conflict(path, key, owner, &reader)
    } else {
      writers[plain] = key
    }
  }

  /// Notes that `key` reads `path`, which nobody may write.
  mutating func claimReading(_ path: String, for key: String, _ reader: inout TableReader) {
    let plain = Self.normalized(path)
    if let owner = writers[plain] {
      conflict(path, key, owner, &reader)
    } else {
      readers[plain] = key
    }
  }

  private func conflict(
    _ path: String, _ key: String, _ owner: String, _ reader: inout TableReader
  ) {
    reader.report(
      reader.places[key] ?? 0, key, "\(quoted(path)) is already used by \(owner)",
      "accepted: a path that nothing else writes")
  }

  /// Removes empty and `.` components, which never change what a path names.
  static func normalized(_ path: String) -> String {
    let parts = path.split(separator: "/").filter { $0 != "." }
    return (path.hasPrefix("/") ? "/" : "") + parts.joined(separator: "/")
  }

  private func rest(
    of text: Located<String>, after prefix: String, _ reader: inout TableReader
  ) -> String? {
    var rest = text
    rest.value.removeFirst(prefix.count)
    return path(rest, &reader)
  }

  private func checkSocket(
    _ path: String, _ text: Located<String>, _ reader: inout TableReader
  ) -> Bool {
    guard path.utf8.count > Self.maximumSocketPath else { return true }
    reader.report(
      text, "the socket's path has \(path.utf8.count) bytes",
      accepted: "at most \(Self.maximumSocketPath) bytes")
    return false
  }
}
