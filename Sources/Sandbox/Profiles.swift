// SPDX-License-Identifier: Apache-2.0

internal import LinuxSystem

extension SandboxProfile {
  private static let fcntlCommands: [(UInt32, String)] = [
    (3, "F_GETFL: making a descriptor non-blocking"),
    (4, "F_SETFL: making a descriptor non-blocking"),
    (1030, "F_DUPFD_CLOEXEC: a second owner of a descriptor"),
    (1034, "F_GET_SEALS: a memfd is mapped only if it can't shrink"),
  ]

  /// What every process that speaks the device protocol does.
  static let channels: [SyscallRule] =
    [
      SyscallRule("ppoll", "the event loop"),
      SyscallRule("recvmsg", "messages of the launcher and the core, with descriptors"),
      SyscallRule("sendmsg", "messages to them"),
      SyscallRule("write", "interrupt lines and wake-ups (eventfd), back ends"),
      SyscallRule(
        "newfstatat", [.equals(argument: 3, 0x1000 /* AT_EMPTY_PATH */)],
        "the size of a descriptor's file (fstat)"),
    ]
    + fcntlCommands.map { SyscallRule("fcntl", [.equals(argument: 1, $0.0)], $0.1) }

  /// The core: guest memory, KVM's vCPUs, the device channels, the monitor.
  public static var core: SandboxProfile {
    var profile = SandboxProfile(
      "core",
      channels + [
        SyscallRule("pread64", "the bytes of firmware and ROM images"),
        SyscallRule("getpid", "sending a signal to one of the own threads"),
        SyscallRule("tgkill", "kicking a vCPU out of KVM_RUN; no other process is visible"),
        SyscallRule("accept4", "a monitor's client connects to the socket the launcher made"),
        SyscallRule(
          "getsockopt", [.equals(argument: 1, 1), .equals(argument: 2, 17)],
          "SO_PEERCRED of a monitor's client"),
        SyscallRule(
          "eventfd2", "an interrupt line or a wake-up for a device that was started again"),
        SyscallRule("memfd_create", "the lane pages of a device that was started again"),
        SyscallRule("ftruncate", "the size of those pages"),
        SyscallRule("fcntl", [.equals(argument: 1, 1033)], "F_ADD_SEALS: sealing them"),
      ]
        + KernelRequest.kvm.map {
          SyscallRule("ioctl", [.equals(argument: 1, $0.number)], $0.name)
        })
    profile.limits.spareDescriptors = 128
    // RLIMIT_FSIZE counts for memfds too.
    profile.limits.fileSize = 1 << 30
    return profile
  }

  /// The PIIX south bridge: registers, and the firmware's files for fw_cfg.
  public static var piix: SandboxProfile {
    var profile = SandboxProfile(
      "piix",
      channels + [
        SyscallRule("pread64", "kernel, initrd and firmware, handed over read-only"),
        SyscallRule("pwrite64", "the debug console's log, where that is a file"),
      ])
    profile.limits.fileSize = nil  // the debug console's log may be a file
    return profile
  }

  /// The IDE controller: its images, handed over by the launcher.
  public static var ide: SandboxProfile {
    var profile = SandboxProfile(
      "ide",
      channels + [
        SyscallRule("pread64", "sectors and tables of the images"),
        SyscallRule("pwrite64", "sectors and tables of the images"),
        SyscallRule("fdatasync", "the guest's cache flush"),
        SyscallRule("fallocate", "discarded sectors become holes"),
        SyscallRule("ftruncate", "a growing image"),
        SyscallRule("lseek", "holes in an image (SEEK_DATA, SEEK_HOLE)"),
        SyscallRule("fcntl", [.equals(argument: 1, 36)], "F_OFD_GETLK: who else has the image"),
        SyscallRule("fcntl", [.equals(argument: 1, 37)], "F_OFD_SETLK: locking the image"),
      ])
    profile.limits.fileSize = nil  // images are as large as they are
    profile.limits.spareDescriptors = 64  // backing files
    return profile
  }

  /// The serial ports: their back ends, opened by the launcher.
  public static var serial: SandboxProfile {
    var profile = SandboxProfile(
      "serial",
      channels + [
        SyscallRule("splice", "output from the port's pipe to its back end, whole or not at all"),
        SyscallRule("pwrite64", "output to a regular file, at its own offset"),
        SyscallRule(
          "ioctl", [.equals(argument: 1, 0x541B)], "FIONREAD: what a predecessor left in the pipe"),
      ])
    profile.limits.fileSize = nil  // a back end may be a file
    return profile
  }

  /// The VGA: its video memory, and nothing besides.
  public static var vga: SandboxProfile {
    var profile = SandboxProfile(
      "vga",
      channels + [
        SyscallRule("pwrite64", "a picture of the screen, into memory that came with the request")
      ])
    // RLIMIT_FSIZE counts for memfds too: 4096 by 4096 pixels of 4 bytes.
    profile.limits.fileSize = 64 << 20
    return profile
  }

  /// Every profile of a machine's processes.
  public static var all: [SandboxProfile] { [core, piix, ide, serial, vga] }
}
