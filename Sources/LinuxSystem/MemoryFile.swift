// SPDX-License-Identifier: Apache-2.0

internal import CLinux

/// Anonymous memory with a descriptor, for sharing between processes (memfd_create).
public enum MemoryFile {
  /// Makes `byteCount` bytes of zeroes, sealed against shrinking and growing.
  ///
  /// The seal is what lets a process map it and never fault: nobody can cut it short.
  public static func make(_ name: String, byteCount: Int) throws(SystemError) -> Descriptor {
    let file = try makeUnsealed(name, byteCount: byteCount)
    try seal(file, sizeSeals)
    return file
  }

  /// Makes memory that only this process can write, through the mapping that comes along.
  ///
  /// Who gets the descriptor can map it for reading, and neither write it nor change its size.
  public static func makePublished(_ name: String, byteCount: Int) throws(SystemError)
    -> (file: Descriptor, mapping: Mapping)
  {
    let file = try makeUnsealed(name, byteCount: byteCount)
    let mapping = try Mapping(file, byteCount: byteCount, .readWrite)
    try seal(file, sizeSeals | 0x10 /* F_SEAL_FUTURE_WRITE */)
    return (file, mapping)
  }

  /// Makes `byteCount` bytes of zeroes whose size may change.
  static func makeUnsealed(_ name: String, byteCount: Int) throws(SystemError)
    -> Descriptor
  {
    // SAFETY: the name is a NUL-terminated copy that outlives the call.
    let raw = unsafe bh_memfd_create(name, UInt32(BH_MFD_CLOEXEC | BH_MFD_ALLOW_SEALING))
    let file = Descriptor(owning: try SystemError.check("memfd_create \(name)", raw))
    try file.truncate(to: UInt64(byteCount))
    return file
  }

  private static func seal(_ file: Descriptor, _ seals: Int32) throws(SystemError) {
    _ = try SystemError.check("fcntl(F_ADD_SEALS)", bh_add_seals(file.raw, seals))
  }

  /// Whether `file` is a memfd that can neither shrink nor grow, so that mapping it is safe.
  public static func isSealed(_ file: Descriptor) -> Bool {
    let seals = bh_get_seals(file.raw)
    return seals >= 0 && seals & sizeSeals == sizeSeals
  }

  private static let sizeSeals = Int32(
    BH_F_SEAL_SEAL | BH_F_SEAL_SHRINK | BH_F_SEAL_GROW)
}

/// Events counted in the kernel (eventfd), as interrupt lines and wake-ups use them.
public enum EventFile {
  /// Makes an event descriptor that reads as not ready while its count is zero.
  public static func make() throws(SystemError) -> Descriptor {
    // EFD_CLOEXEC and EFD_NONBLOCK have the values of O_CLOEXEC and O_NONBLOCK.
    Descriptor(owning: try SystemError.check("eventfd", bh_eventfd(0, 0o2000000 | 0o4000)))
  }

  /// Adds one to the count.
  public static func signal(_ file: Descriptor) {
    let one: [UInt8] = [1, 0, 0, 0, 0, 0, 0, 0]
    // A full counter is a signal already, and a bad descriptor is not worth dying for.
    _ = try? file.write(one)
  }

  /// Takes the count back to zero; returns whether it was not.
  @discardableResult
  public static func drain(_ file: Descriptor) -> Bool {
    guard let bytes = try? file.read(8) else { return false }
    return bytes.count == 8
  }
}
