// SPDX-License-Identifier: Apache-2.0

internal import CCapNG
internal import CLinux
internal import Glibc

/// Giving up what a process may become (capabilities(7), prctl(2)); for the calling thread, so
/// before others are started.
public enum Privileges {
  /// Empties the bounding and ambient sets and locks the secure bits, keeping what is in
  /// effect now.
  ///
  /// Needs /proc, which libcap-ng reads; after it a capability can be lost but not gained.
  public static func closeBounds() throws(SystemError) {
    // libcap-ng keeps its working copy per thread.
    capng_clear(CAPNG_SELECT_ALL)
    guard capng_apply(CAPNG_SELECT_BOUNDS) == 0 else {
      throw SystemError("drop the bounding set", errno == 0 ? EPERM : errno)
    }
    // NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE, each with its lock, and KEEP_CAPS locked off.
    _ = try SystemError.check("prctl(PR_SET_SECUREBITS)", bh_prctl(28, 0xEF, 0, 0, 0))
    _ = try SystemError.check("prctl(PR_CAP_AMBIENT_CLEAR_ALL)", bh_prctl(47, 4, 0, 0, 0))
  }

  /// Empties the effective, permitted and inheritable sets.
  public static func dropAll() throws(SystemError) {
    capng_clear(CAPNG_SELECT_CAPS)
    guard capng_apply(CAPNG_SELECT_CAPS) == 0 else {
      throw SystemError("drop all capabilities", errno == 0 ? EPERM : errno)
    }
  }

  /// Empties the three sets but for the right to files of other users (CAP_DAC_OVERRIDE), which
  /// stays if it is there.
  public static func dropAllButFileAccess() throws(SystemError) {
    let kept = CAPNG_EFFECTIVE.rawValue | CAPNG_PERMITTED.rawValue
    capng_clear(CAPNG_SELECT_CAPS)
    capng_update(CAPNG_ADD, capng_type_t(rawValue: kept), 1 /* CAP_DAC_OVERRIDE */)
    if capng_apply(CAPNG_SELECT_CAPS) != 0 { try dropAll() }
  }

  /// Makes exec give no privilege that the process does not have (PR_SET_NO_NEW_PRIVS).
  public static func refuseNew() throws(SystemError) {
    _ = try SystemError.check("prctl(PR_SET_NO_NEW_PRIVS)", bh_prctl(38, 1, 0, 0, 0))
  }

  /// Keeps others of the same user from reading or tracing the process (PR_SET_DUMPABLE 0).
  public static func hideMemory() throws(SystemError) {
    _ = try SystemError.check("prctl(PR_SET_DUMPABLE)", bh_prctl(4, 0, 0, 0, 0))
  }

  /// Makes memory that was ever writable never executable (PR_SET_MDWE; Linux 6.3).
  public static func refuseNewCode() throws(SystemError) {
    _ = try SystemError.check("prctl(PR_SET_MDWE)", bh_prctl(65, 1, 0, 0, 0))
  }

  /// Ends the process with SIGKILL when the thread that started it ends.
  public static func dieWithParent() throws(SystemError) {
    _ = try SystemError.check("prctl(PR_SET_PDEATHSIG)", bh_prctl(1, 9, 0, 0, 0))
  }

  /// The flags of PR_GET_SECUREBITS, PR_GET_DUMPABLE and PR_GET_MDWE; negative when unknown.
  public static func flags() -> (secureBits: Int32, dumpable: Int32, codeRefused: Int32) {
    (bh_prctl(27, 0, 0, 0, 0), bh_prctl(3, 0, 0, 0, 0), bh_prctl(66, 0, 0, 0, 0))
  }

  /// Whether the effective user is 0 in this user namespace.
  public static var isRoot: Bool { geteuid() == 0 }
}
