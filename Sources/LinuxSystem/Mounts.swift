// SPDX-License-Identifier: Apache-2.0

internal import CLinux
internal import Glibc

/// The file system that a process sees.
public enum Mounts {
  /// Replaces everything by an empty directory that cannot be written.
  ///
  /// - Precondition: the process is alone in a mount namespace of its own; in another one this
  ///   would take the files away from everybody there.
  public static func becomeEmpty() throws(SystemError) {
    // MS_REC | MS_PRIVATE: nothing that is mounted here shows anywhere else.
    try mount(nil, "/", nil, 0x4000 | 0x40000)
    let flags: UInt = 0x2 | 0x4 | 0x8  // MS_NOSUID, MS_NODEV, MS_NOEXEC
    // Any directory does as the place; one without search permission on the way does not.
    let place = "/proc"
    try mount("none", place, "tmpfs", flags, "size=4k,nr_inodes=1,mode=0555")
    // SAFETY: the path is a NUL-terminated copy that outlives the call.
    guard unsafe chdir(place) == 0 else { throw SystemError("chdir \(place)", errno) }
    _ = try SystemError.check("pivot_root", bh_pivot_here())
    try mount(nil, "/", nil, flags | 0x1 | 0x20)  // MS_RDONLY | MS_REMOUNT
  }

  private static func mount(
    _ source: String?, _ target: String, _ type: String?, _ flags: UInt, _ options: String? = nil
  ) throws(SystemError) {
    // SAFETY: the strings are NUL-terminated copies that outlive the call.
    let result = unsafe bh_mount(source, target, type, flags, options)
    _ = try SystemError.check("mount \(target)", result)
  }

  /// Sets the host name of this UTS namespace.
  public static func setHostName(_ name: String) throws(SystemError) {
    // SAFETY: the kernel copies the NUL-terminated name.
    _ = try SystemError.check("sethostname", unsafe bh_set_host_name(name))
  }
}
