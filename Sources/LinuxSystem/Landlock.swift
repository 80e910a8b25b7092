// SPDX-License-Identifier: Apache-2.0

internal import CLinux

/// The kernel's access control that a process sets on itself (landlock(7)).
public enum Landlock {
  /// The version of the running kernel's interface.
  public static func version() throws(SystemError) -> Int32 {
    try SystemError.check("landlock_create_ruleset", bh_landlock_abi())
  }

  /// Forbids the calling thread, and those it starts later, everything that this version of
  /// the interface can forbid; descriptors that are open already keep their rights.
  ///
  /// - Precondition: no-new-privileges is set.
  public static func forbidAll(version: Int32) throws(SystemError) {
    let rights = rights(version)
    _ = try SystemError.check(
      "landlock_restrict_self", bh_landlock_restrict(rights.files, rights.network, rights.scopes))
  }

  /// The rights that a version knows, as bits of struct landlock_ruleset_attr.
  static func rights(_ version: Int32) -> (files: UInt64, network: UInt64, scopes: UInt64) {
    // Execute, read, write, remove and make of every kind: bits 0 to 12. Then REFER with
    // version 2, TRUNCATE with 3, IOCTL_DEV with 5; binding and connecting TCP with 4;
    // abstract Unix sockets and signals with 6.
    var files: UInt64 = 0x1FFF
    if version >= 2 { files |= 1 << 13 }
    if version >= 3 { files |= 1 << 14 }
    if version >= 5 { files |= 1 << 15 }
    return (files, version >= 4 ? 3 : 0, version >= 6 ? 3 : 0)
  }
}
