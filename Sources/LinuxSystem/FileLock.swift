// SPDX-License-Identifier: Apache-2.0

internal import CLinux
internal import Glibc

/// Locks on single bytes of a file that belong to the open file description (F_OFD_SETLK).
///
/// They last until the last descriptor of that description is closed, in whichever process.
public enum FileLock {
  /// Takes a shared lock on the byte at `offset`.
  ///
  /// - Throws: EAGAIN when somebody else holds an exclusive one.
  public static func share(_ file: Descriptor, at offset: UInt64) throws(SystemError) {
    _ = try SystemError.check(
      "fcntl(F_OFD_SETLK)", bh_ofd_lock(file.raw, Int16(F_RDLCK), Int64(offset), 1))
  }

  /// Gives the lock on the byte at `offset` up.
  public static func release(_ file: Descriptor, at offset: UInt64) throws(SystemError) {
    _ = try SystemError.check(
      "fcntl(F_OFD_SETLK)", bh_ofd_lock(file.raw, Int16(F_UNLCK), Int64(offset), 1))
  }

  /// Returns whether another open file description holds a lock on the byte at `offset`.
  public static func isTaken(_ file: Descriptor, at offset: UInt64) throws(SystemError) -> Bool {
    try SystemError.check(
      "fcntl(F_OFD_GETLK)", bh_ofd_lock_test(file.raw, Int16(F_WRLCK), Int64(offset), 1)) != 0
  }

  /// Takes an exclusive lock on a whole file or folder for a short time (flock).
  ///
  /// - Throws: EAGAIN when somebody else holds it.
  public static func exclude(_ file: Descriptor) throws(SystemError) {
    guard flock(file.raw, LOCK_EX | LOCK_NB) == 0 else { throw SystemError("flock", errno) }
  }
}
