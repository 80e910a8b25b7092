// SPDX-License-Identifier: Apache-2.0

public import LinuxSystem
public import MachineFile

/// Opens the backing files that an image names, as far as the machine file allows it.
public struct BackingFiles: Sendable {
  /// The longest chain of images.
  public static let deepest = 16

  private let rule: Machine.Drive.Backing
  private let access: OpenMode
  /// The image's own folder, as a path.
  private let folderPath: String
  /// The same as a descriptor, opened at the start: the folder may be renamed later.
  private let folder: Descriptor?
  /// Images that the drive has had before it went on in an overlay.
  private var earlier: [String] = []

  /// Why a backing file is not opened.
  public struct Refused: Error, Equatable, Sendable, CustomStringConvertible {
    public var reason: String
    public init(_ reason: String) { self.reason = reason }
    public var description: String { reason }
  }

  /// Prepares the rule of one drive.
  public init(_ drive: Machine.Drive) throws(SystemError) {
    rule = drive.backing
    access = drive.cache == .none ? [.readOnly, .direct] : .readOnly
    folderPath = Self.folder(of: drive.image)
    folder = rule == .sameFolder ? try Files.open(folderPath, [.readOnly, .folder]) : nil
  }

  /// Allows an image that the drive has had.
  mutating func allow(_ path: String) { earlier.append(path) }

  /// Opens the backing file with this name, read-only and locked against writers.
  public func open(_ name: String, depth: Int) throws(Refused) -> Descriptor {
    guard depth <= Self.deepest else {
      throw Refused("the chain of backing files is longer than \(Self.deepest)")
    }
    guard !name.isEmpty, !name.utf8.contains(0) else {
      throw Refused("the image names no proper backing file")
    }
    let file = try openAllowed(name)
    guard file.isRegularFile || file.isBlockDevice else {
      throw Refused("the backing file \"\(name)\" is not a file")
    }
    do throws(ImageLock.Failure) {
      try ImageLock.take(file, isReadOnly: true)
    } catch {
      throw Refused("the backing file \"\(name)\" is in use by another process")
    }
    return file
  }

  private func openAllowed(_ name: String) throws(Refused) -> Descriptor {
    do throws(SystemError) {
      if let path = earlier.first(where: { Self.normal($0) == Self.normal(name) }) {
        return try Files.open(path, [access, .noWait])
      }
      switch rule {
      case .none: break
      case .sameFolder:
        guard let folder, let plain = plainName(name) else { break }
        // One name in a folder that is open already: no way out of it but a link, which is
        // not followed. No waiting for the other end of a pipe.
        return try Files.open(plain, in: folder, [access, .noLink, .noWait])
      case .paths(let paths):
        let wanted = Self.normal(Self.join(folderPath, name))
        guard let path = paths.first(where: { Self.normal($0) == wanted }) else { break }
        return try Files.open(path, [access, .noWait])
      }
    } catch {
      if access.contains(.direct), error.isInvalid {
        throw Refused(
          "the file system of the backing file \"\(name)\" has no direct I/O (O_DIRECT), which cache = "
            + "\"none\" needs")
      }
      throw Refused("\(error)")
    }
    let remedy =
      switch rule {
      case .none: "add it to the drive's backing key, or set backing = \"same-folder\""
      case .sameFolder: "only a file in the image's own folder may be named"
      case .paths: "it is not in the drive's backing list"
      }
    throw Refused("the machine file does not allow the backing file \"\(name)\": \(remedy)")
  }

  /// The name of a file in the image's folder; `nil` when `name` leads anywhere else.
  private func plainName(_ name: String) -> String? {
    var plain = name[...]
    if plain.hasPrefix(folderPath + "/") { plain = plain.dropFirst(folderPath.count + 1) }
    while plain.hasPrefix("./") { plain = plain.dropFirst(2) }
    guard !plain.isEmpty, !plain.contains("/"), plain != "..", plain != "." else { return nil }
    return String(plain)
  }

  // MARK: Paths as text

  static func folder(of path: String) -> String {
    guard let slash = path.lastIndex(of: "/") else { return "." }
    return slash == path.startIndex ? "/" : String(path[..<slash])
  }

  static func join(_ folder: String, _ name: String) -> String {
    name.hasPrefix("/") ? name : folder + "/" + name
  }

  /// The path without "." and doubled slashes, and without ".." where that is plain text.
  static func normal(_ path: String) -> String {
    var parts: [Substring] = []
    for part in path.split(separator: "/", omittingEmptySubsequences: true) where part != "." {
      if part == "..", let last = parts.last, last != ".." {
        parts.removeLast()
      } else {
        parts.append(part)
      }
    }
    return (path.hasPrefix("/") ? "/" : "") + parts.joined(separator: "/")
  }
}
