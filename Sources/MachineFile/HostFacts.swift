// SPDX-License-Identifier: Apache-2.0

/// What the launcher found out about its host.
public struct HostFacts: Hashable, Sendable {
  /// The state of /dev/kvm.
  public enum KVM: Hashable, Sendable {
    case usable
    /// There is no /dev/kvm.
    case missing
    /// There is one that cannot be opened or used, with the reason in a few words.
    case unusable(String)
  }

  public var kvm: KVM
  /// The most virtual CPUs that KVM gives one machine (`KVM_CAP_MAX_VCPUS`).
  public var maximumCPUs: Int
  /// The host's memory, in bytes.
  public var memoryByteCount: UInt64
  /// Where the distribution keeps SeaBIOS, if it is installed.
  public var seaBIOS: String?
  /// Where the distribution keeps the VGA BIOS, if it is installed.
  public var vgaBIOS: String?

  public init(
    kvm: KVM, maximumCPUs: Int, memoryByteCount: UInt64, seaBIOS: String?, vgaBIOS: String?
  ) {
    self.kvm = kvm
    self.maximumCPUs = maximumCPUs
    self.memoryByteCount = memoryByteCount
    self.seaBIOS = seaBIOS
    self.vgaBIOS = vgaBIOS
  }
}

/// What a path leads to.
public struct FileStatus: Hashable, Sendable {
  public enum Kind: String, Hashable, Sendable {
    case missing = "nothing"
    /// A folder on the way may not be searched.
    case unreachable = "out of reach"
    case regular = "a file"
    case folder = "a folder"
    case blockDevice = "a block device"
    case characterDevice = "a character device"
    case pipe = "a pipe"
    case socket = "a socket"
    case other = "of an unknown kind"
  }

  public var kind: Kind
  public var isReadable: Bool
  public var isWritable: Bool
  /// The size in bytes; of a device it is not known and 0.
  public var byteCount: UInt64
  /// The file system's device number and the inode, which tell one file under two names.
  public var device: UInt64
  public var inode: UInt64

  public init(
    kind: Kind, isReadable: Bool = true, isWritable: Bool = true, byteCount: UInt64 = 0,
    device: UInt64 = 0, inode: UInt64 = 0
  ) {
    self.kind = kind
    self.isReadable = isReadable
    self.isWritable = isWritable
    self.byteCount = byteCount
    self.device = device
    self.inode = inode
  }
}

/// Looks at files for ``ParsedMachine/validate(against:files:)``.
public protocol FileInspector {
  /// Returns what a path leads to, symbolic links followed.
  func status(of path: String) -> FileStatus
  /// Returns whether another process holds an image's lock so that it cannot be used here.
  func isImageInUse(_ path: String, forWriting: Bool) -> Bool
}
