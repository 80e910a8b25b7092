// SPDX-License-Identifier: Apache-2.0

/// The locks on an image file, byte for byte those that QEMU takes, so that neither program
/// opens an image that the other has open for writing.
///
/// A user of an image holds a shared lock on byte 100 + n for each permission n that it uses,
/// and on byte 200 + n for each that it does not leave to others; whoever comes later tests the
/// opposite bytes. Permissions: 0 consistent reads, 1 writes, 2 writes that change nothing,
/// 3 a new size.
public enum ImageLock {
  private static let used: UInt64 = 100
  private static let kept: UInt64 = 200

  /// Why a lock could not be had.
  public enum Failure: Error, Equatable, Sendable {
    case inUse
    case system(SystemError)
  }

  private static func permissions(isReadOnly: Bool) -> [UInt64] { isReadOnly ? [0] : [0, 1, 3] }
  /// Nobody else may write, whichever way this user has it open.
  private static let unshared: [UInt64] = [1, 3]

  /// Takes the locks of a user of `file`; they last as long as any process has it open.
  public static func take(_ file: Descriptor, isReadOnly: Bool) throws(Failure) {
    do throws(SystemError) {
      for bit in permissions(isReadOnly: isReadOnly) {
        try FileLock.share(file, at: used + bit)
      }
      for bit in unshared { try FileLock.share(file, at: kept + bit) }
    } catch {
      throw error.isNotReady ? .inUse : .system(error)
    }
    // Taken first and tested then: of two that come at once, at least one sees the other.
    try test(file, isReadOnly: isReadOnly)
  }

  /// Makes the locks of a user that writes `file` those of one that only reads it.
  public static func giveUpWriting(_ file: Descriptor) throws(SystemError) {
    for bit in permissions(isReadOnly: false) where !permissions(isReadOnly: true).contains(bit) {
      try FileLock.release(file, at: used + bit)
    }
  }

  /// Tests whether the locks could be had, and takes none.
  public static func test(_ file: Descriptor, isReadOnly: Bool) throws(Failure) {
    do throws(SystemError) {
      for bit in permissions(isReadOnly: isReadOnly) {
        if try FileLock.isTaken(file, at: kept + bit) { throw SystemError("", inUseNumber) }
      }
      for bit in unshared {
        if try FileLock.isTaken(file, at: used + bit) { throw SystemError("", inUseNumber) }
      }
    } catch {
      throw error.number == inUseNumber ? .inUse : .system(error)
    }
  }

  private static let inUseNumber: Int32 = -1
}
