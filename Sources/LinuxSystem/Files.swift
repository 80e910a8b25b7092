// SPDX-License-Identifier: Apache-2.0

internal import CLinux
internal import Glibc

/// Flags of open(2), for callers that do not import the C library.
public struct OpenMode: OptionSet, Sendable {
  public let rawValue: Int32
  public init(rawValue: Int32) { self.rawValue = rawValue }
  public static let readOnly = OpenMode(rawValue: O_RDONLY)
  public static let writeOnly = OpenMode(rawValue: O_WRONLY)
  public static let readWrite = OpenMode(rawValue: O_RDWR)
  public static let create = OpenMode(rawValue: O_CREAT)
  public static let exclusive = OpenMode(rawValue: O_EXCL)
  public static let truncate = OpenMode(rawValue: O_TRUNC)
  public static let folder = OpenMode(rawValue: O_DIRECTORY)
  public static let noLink = OpenMode(rawValue: O_NOFOLLOW)
  public static let noWait = OpenMode(rawValue: O_NONBLOCK)
  public static let noTerminal = OpenMode(rawValue: O_NOCTTY)
  /// Transfers pass the host's page cache, in whole blocks.
  public static let direct = OpenMode(rawValue: 0o40000 /* O_DIRECT */)
  /// Only the file's place: it can neither be read nor written, and may be of any kind.
  public static let placeOnly = OpenMode(rawValue: 0o10000000 /* O_PATH */)
}

/// Which file it is, whatever it is called.
///
/// The kernel gives the numbers of a file that is gone to a new one; they mean the same file
/// only as long as a descriptor keeps it.
public struct FileIdentity: Equatable, Sendable {
  public var device: UInt64
  public var inode: UInt64
}

/// Calls on paths.
public enum Files {
  /// What a path leads to, a symbolic link at its end not followed.
  public struct Status: Equatable, Sendable {
    /// The S_IFMT bits.
    public var kind: UInt32
    /// The permission bits.
    public var mode: UInt32
    public var user: UInt32
    public var identity: FileIdentity

    public var isFolder: Bool { kind == S_IFDIR }
    public var isSocket: Bool { kind == S_IFSOCK }
  }

  /// Opens a path, close-on-exec.
  public static func open(_ path: String, _ mode: OpenMode, permissions: UInt32 = 0o600)
    throws(SystemError) -> Descriptor
  {
    try Descriptor.open(path, mode.rawValue, mode: permissions)
  }

  /// Opens a name in a folder, close-on-exec.
  public static func open(_ name: String, in folder: Descriptor, _ mode: OpenMode)
    throws(SystemError) -> Descriptor
  {
    try folder.open(name, mode.rawValue)
  }

  /// Returns what is at a path; `nil` when nothing is.
  public static func status(_ path: String) throws(SystemError) -> Status? {
    var info = stat()
    // SAFETY: the path is a NUL-terminated copy; the call fills the structure.
    guard unsafe lstat(path, &info) == 0 else {
      if errno == ENOENT { return nil }
      throw SystemError("lstat \(path)", errno)
    }
    return Status(
      kind: info.st_mode & S_IFMT, mode: info.st_mode & 0o7777, user: info.st_uid,
      identity: FileIdentity(device: UInt64(info.st_dev), inode: UInt64(info.st_ino)))
  }

  /// Makes a folder that only this user may enter, unless there is one at the path.
  public static func makeFolder(_ path: String) throws(SystemError) {
    // SAFETY: the path is a NUL-terminated copy that outlives the call.
    guard unsafe mkdir(path, 0o700) == 0 || errno == EEXIST else {
      throw SystemError("mkdir \(path)", errno)
    }
  }

  /// Removes a name, if it is there.
  public static func remove(_ path: String) throws(SystemError) {
    // SAFETY: the path is a NUL-terminated copy that outlives the call.
    guard unsafe unlink(path) == 0 || errno == ENOENT else {
      throw SystemError("unlink \(path)", errno)
    }
  }

  /// Removes a folder that is empty.
  public static func removeFolder(_ path: String) throws(SystemError) {
    // SAFETY: the path is a NUL-terminated copy that outlives the call.
    guard unsafe rmdir(path) == 0 || errno == ENOENT else {
      throw SystemError("rmdir \(path)", errno)
    }
  }

  /// Gives a file another name in the same file system; one that has it is replaced.
  public static func rename(_ old: String, to new: String) throws(SystemError) {
    // SAFETY: both paths are NUL-terminated copies that outlive the call.
    guard unsafe Glibc.rename(old, new) == 0 else {
      throw SystemError("rename to \(new)", errno)
    }
  }

  /// Returns whether this process may execute the file at a path.
  public static func isExecutable(_ path: String) -> Bool {
    // SAFETY: the path is a NUL-terminated copy that outlives the call.
    unsafe access(path, X_OK) == 0
  }

  /// Makes a pipe: what is written to the second end is read from the first, without waiting.
  public static func pipe() throws(SystemError) -> (reading: Descriptor, writing: Descriptor) {
    var ends: (Int32, Int32) = (0, 0)
    // SAFETY: the tuple has the layout of int[2].
    let result = unsafe withUnsafeMutableBytes(of: &ends) {
      guard let start = $0.baseAddress else { return Int32(-1) }
      return unsafe Glibc.pipe(start.assumingMemoryBound(to: Int32.self))
    }
    guard result == 0 else { throw SystemError("pipe", errno) }
    let reading = Descriptor(owning: ends.0)
    let writing = Descriptor(owning: ends.1)
    for end in [reading, writing] {
      _ = try SystemError.check("fcntl(F_SETFD)", bh_fcntl(end.raw, F_SETFD, Int(FD_CLOEXEC)))
    }
    try reading.setNonBlocking(true)
    return (reading, writing)
  }

  /// Returns a descriptor of what one of this process's standard streams, 0 to 2, leads to.
  ///
  /// Where it can be opened anew, it is, without waiting on it: so that O_NONBLOCK is not set
  /// for the description that the caller's shell goes on with. A socket cannot; it is shared.
  public static func standardStream(_ number: Int32) throws(SystemError) -> Descriptor {
    let flags = number == 0 ? O_RDONLY : O_WRONLY
    if let shared = try? duplicate(number), !shared.isRegularFile,
      let own = try? Descriptor.open("/proc/self/fd/\(number)", flags | O_NOCTTY | O_NONBLOCK)
    {
      return own
    }
    return try duplicate(number)
  }

  private static func duplicate(_ number: Int32) throws(SystemError) -> Descriptor {
    Descriptor(
      owning: try SystemError.check(
        "fcntl(F_DUPFD_CLOEXEC)", bh_fcntl(number, F_DUPFD_CLOEXEC, 3)))
  }
}

extension Descriptor {
  /// Whether it is a regular file.
  public var isRegularFile: Bool { (try? kind()) == S_IFREG }
  /// Whether it is a block device.
  public var isBlockDevice: Bool { (try? kind()) == S_IFBLK }
  /// Which file it is.
  public func identity() throws(SystemError) -> FileIdentity {
    var info = stat()
    // SAFETY: fstat fills the structure it is given.
    guard unsafe fstat(raw, &info) == 0 else { throw SystemError("fstat", errno) }
    return FileIdentity(device: UInt64(info.st_dev), inode: UInt64(info.st_ino))
  }

  /// The offset of the end of a file or block device (lseek).
  public func end() throws(SystemError) -> UInt64 {
    let result = lseek(raw, 0, SEEK_END)
    guard result >= 0 else { throw SystemError("lseek", errno) }
    return UInt64(result)
  }
}

/// Where machines have their control sockets.
public enum RuntimeFolder {
  /// The folder of this user: under `XDG_RUNTIME_DIR`, or /run/bulkhead for root, or in /tmp.
  public static var path: String {
    if let base = ThisProcess.environment("XDG_RUNTIME_DIR"), base.hasPrefix("/") {
      return base + "/bulkhead"
    }
    return ThisProcess.user == 0 ? "/run/bulkhead" : "/tmp/bulkhead-\(ThisProcess.user)"
  }
}

extension SystemError {
  /// Whether nobody listens at the address (ECONNREFUSED).
  public var isRefusedConnection: Bool { number == ECONNREFUSED }
}

extension SystemError {
  /// Whether there is nothing at the path (ENOENT).
  public var isMissing: Bool { number == ENOENT }
}
