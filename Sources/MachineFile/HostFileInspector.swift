// SPDX-License-Identifier: Apache-2.0

import Glibc

/// Looks at the host's files with stat(2) and access(2); it opens nothing.
public struct HostFileInspector: FileInspector {
  private let imageLockProbe: @Sendable (_ path: String, _ forWriting: Bool) -> Bool

  /// Creates an inspector.
  ///
  /// - Parameter imageLockProbe: Returns whether another process holds an image's lock.
  public init(
    imageLockProbe: @escaping @Sendable (_ path: String, _ forWriting: Bool) -> Bool = { _, _ in
      false
    }
  ) {
    self.imageLockProbe = imageLockProbe
  }

  public func status(of path: String) -> FileStatus {
    var info = stat()
    // SAFETY: the string and the structure live for the call.
    guard unsafe stat(path, &info) == 0 else {
      let isMissing = errno == ENOENT || errno == ENOTDIR
      return FileStatus(
        kind: isMissing ? .missing : .unreachable, isReadable: false, isWritable: false)
    }
    let kind: FileStatus.Kind =
      switch info.st_mode & S_IFMT {
      case S_IFREG: .regular
      case S_IFDIR: .folder
      case S_IFBLK: .blockDevice
      case S_IFCHR: .characterDevice
      case S_IFIFO: .pipe
      case S_IFSOCK: .socket
      default: .other
      }
    // SAFETY: the string lives for the call.
    let isReadable = unsafe access(path, R_OK) == 0
    // SAFETY: as above.
    let isWritable = unsafe access(path, W_OK) == 0
    return FileStatus(
      kind: kind, isReadable: isReadable, isWritable: isWritable,
      byteCount: UInt64(max(0, info.st_size)), device: UInt64(info.st_dev),
      inode: UInt64(info.st_ino))
  }

  public func isImageInUse(_ path: String, forWriting: Bool) -> Bool {
    imageLockProbe(path, forWriting)
  }
}
