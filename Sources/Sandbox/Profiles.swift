// SPDX-License-Identifier: Apache-2.0

internal import LinuxSystem

extension SandboxProfile {
  private static let fcntlCommands: [(UInt32, String)] = [
    (3, "F_GETFL: making a descriptor non-blocking"),
    (4, "F_SETFL: making a descriptor non-blocking"),
    (1034, "F_GET_SEALS: a memfd is mapped only if it can't shrink"),
  ]

  /// What every process that speaks the device protocol does.
  static let channels: [SyscallRule] = [
    SyscallRule("ppoll", "the event loop"),
    SyscallRule("recvmsg", "messages of the launcher and the core, with descriptors"),
    SyscallRule("sendmsg", "messages to them"),
    SyscallRule("write", "interrupt lines and wake-ups (eventfd), back ends"),
  ]

  private static let fileSize = SyscallRule(
    "newfstatat", [.equals(argument: 3, 0x1000 /* AT_EMPTY_PATH */)],
    "the size of a descriptor's file (fstat)")

  /// What looking at granted descriptors takes.
  private static let grants: [SyscallRule] =
    [fileSize] + fcntlCommands.map { SyscallRule("fcntl", [.equals(argument: 1, $0.0)], $0.1) }

  /// A device: what it does for good, and besides until it serves.
  private static func device(
    _ name: String, _ rules: [SyscallRule], setup: [SyscallRule] = []
  ) -> SandboxProfile {
    var profile = SandboxProfile(name, channels + rules, setup: grants + setup)
    profile.holdings = holdings(name)
    profile.limits.memory = 128 << 20
    profile.limits.tasks = 16
    return profile
  }

  /// What the core asks of KVM once it is sealed; the machine itself was made before.
  static let kvmRequests: [(request: UInt, reason: String)] = [
    (KVMRequest.run, "KVM_RUN: the guest runs"),
    (KVMRequest.setUserMemoryRegion, "KVM_SET_USER_MEMORY_REGION: the memory map changes"),
    (KVMRequest.irqfd, "KVM_IRQFD: a device's interrupt lines"),
    (KVMRequest.registerCoalescedMMIO, "KVM_REGISTER_COALESCED_MMIO: posted registers come"),
    (KVMRequest.unregisterCoalescedMMIO, "KVM_UNREGISTER_COALESCED_MMIO: they move away"),
    (KVMRequest.setIRQChip, "KVM_SET_IRQCHIP: reset of the interrupt controllers"),
    (KVMRequest.setPIT, "KVM_SET_PIT2: reset of the timer"),
    (KVMRequest.setMPState, "KVM_SET_MP_STATE: reset of a vCPU"),
    (KVMRequest.setRegisters, "KVM_SET_REGS: reset of a vCPU"),
    (KVMRequest.setSystemRegisters, "KVM_SET_SREGS: reset of a vCPU"),
    (KVMRequest.setXCRs, "KVM_SET_XCRS: reset of a vCPU"),
    (KVMRequest.setXSave, "KVM_SET_XSAVE: reset of a vCPU"),
    (KVMRequest.setDebugRegisters, "KVM_SET_DEBUGREGS: reset of a vCPU"),
    (KVMRequest.setLAPIC, "KVM_SET_LAPIC: reset of a vCPU"),
    (KVMRequest.setMSRs, "KVM_SET_MSRS: reset of a vCPU"),
    (KVMRequest.setVCPUEvents, "KVM_SET_VCPU_EVENTS: reset of a vCPU"),
    (KVMRequest.getMPState, "KVM_GET_MP_STATE: the vCPU's state, when asked for"),
    (KVMRequest.getRegisters, "KVM_GET_REGS: the vCPU's state, when asked for"),
    (KVMRequest.getSystemRegisters, "KVM_GET_SREGS: the vCPU's state, when asked for"),
    (KVMRequest.getVCPUEvents, "KVM_GET_VCPU_EVENTS: the vCPU's state, when asked for"),
    (KVMRequest.getDebugRegisters, "KVM_GET_DEBUGREGS: the vCPU's state, when asked for"),
    (KVMRequest.getXSave, "KVM_GET_XSAVE: the vCPU's state, when asked for"),
    (KVMRequest.getXCRs, "KVM_GET_XCRS: the vCPU's state, when asked for"),
    (KVMRequest.getMSRs, "KVM_GET_MSRS: the vCPU's state, when asked for"),
    (KVMRequest.getLAPIC, "KVM_GET_LAPIC: the vCPU's state, when asked for"),
    (KVMRequest.getTSCKHz, "KVM_GET_TSC_KHZ: the vCPU's state, when asked for"),
    (KVMRequest.getIRQChip, "KVM_GET_IRQCHIP: the interrupt controllers, when asked for"),
    (KVMRequest.getPIT, "KVM_GET_PIT2: the timer, when asked for"),
    (KVMRequest.getClock, "KVM_GET_CLOCK: the guest's clock, for a snapshot"),
    (KVMRequest.setClock, "KVM_SET_CLOCK: a snapshot is loaded"),
    (KVMRequest.setGuestDebug, "KVM_SET_GUEST_DEBUG: a debugger's points and steps"),
    (KVMRequest.nmi, "KVM_NMI: the operator sends one"),
  ]

  /// The core: guest memory, the device channels, the monitor; with KVM's vCPUs.
  public static var core: SandboxProfile {
    core(
      [
        .seldom("getpid", "sending a signal to one of the own threads"),
        .seldom("tgkill", "kicking a vCPU out of KVM_RUN, when it is there at a pause or the end"),
        .seldom("rt_sigreturn", "the return from that signal's handler"),
      ]
        + kvmRequests.map {
          SyscallRule("ioctl", [.equals(argument: 1, UInt32($0.request))], $0.reason)
        })
  }

  /// The core with software vCPUs: no KVM, and no signals.
  ///
  /// What is translated can be executed; no more such memory can be made.
  public static var softCore: SandboxProfile {
    var profile = core([
      .seldom(
        "membarrier", [.equals(argument: 0, 8 /* PRIVATE_EXPEDITED */)],
        "with several vCPUs: code that one decodes is in order with what the others write")
    ])
    profile.translates = true
    return profile
  }

  private static func core(_ accelerator: [SyscallRule]) -> SandboxProfile {
    var profile = SandboxProfile(
      "core",
      channels + grants + [
        SyscallRule("pread64", "the bytes of a ROM that came with a device's claims"),
        SyscallRule("accept4", "a monitor's client connects to the socket the launcher made"),
        SyscallRule("eventfd2", "the interrupt lines that a device claims"),
        SyscallRule(
          "memfd_create",
          "the bounce buffer, video memory and ROM that a device claims; the word that a thread "
            + "waits for a device's reply on (Gate)"),
        SyscallRule("ftruncate", "the size of that memory"),
        SyscallRule("fcntl", [.equals(argument: 1, 1033)], "F_ADD_SEALS: sealing it"),
        .seldom("clock_nanosleep", "short sleeps, while a device that is reset is awaited"),
        SyscallRule("exit", "the end of a thread"),
        SyscallRule("rt_sigprocmask", "the end of a thread"),
        SyscallRule("madvise", "the end of a thread, whose stack is given back"),
      ] + accelerator)
    profile.holdings = holdings("core")
    profile.limits.spareDescriptors = 128
    profile.limits.fileSize = nil  // a snapshot's state is as large as guest memory
    return profile
  }

  /// The PIIX south bridge: registers, and the debug console's back end.
  public static var piix: SandboxProfile {
    var profile = device(
      "piix",
      [
        .seldom("pwrite64", "the debug console's log, where that is a file"),
        .seldom("pread64", "a kernel and its RAM disk, as the guest's loader asks for them"),
      ])
    profile.limits.fileSize = nil  // the debug console's log may be a file
    profile.limits.addressSpace = 1 << 30
    return profile
  }

  /// The IDE controller: its images, handed over by the launcher.
  public static var ide: SandboxProfile {
    var profile = device(
      "ide",
      [
        SyscallRule("preadv2", "sectors and tables of the images"),
        SyscallRule("pwrite64", "sectors and tables of the images"),
        .seldom("fdatasync", "the guest's cache flush, which it may never ask for"),
        .seldom("ftruncate", "zeroes at the end of a growing image become a hole; block_resize"),
        .seldom(
          "fallocate", [.equals(argument: 1, 3)],
          "what the guest trims becomes a hole (FALLOC_FL_PUNCH_HOLE, KEEP_SIZE)"),
      ],
      setup: [
        SyscallRule("lseek", "the size of an image, which may be a block device (SEEK_END)")
      ])
    profile.limits.fileSize = nil  // images are as large as they are
    profile.limits.spareDescriptors = 64  // backing files
    profile.limits.memory = 512 << 20  // the page cache of images counts
    profile.limits.addressSpace = 1 << 30
    return profile
  }

  /// The serial ports: their back ends, opened by the launcher.
  public static var serial: SandboxProfile {
    var profile = device(
      "serial",
      [
        .seldom("splice", "output from the port's pipe to its back end, whole or not at all"),
        .seldom("pwrite64", "output to a regular file, at its own offset"),
        .seldom(
          "ioctl", [.equals(argument: 1, 0x541B)], "FIONREAD: what a predecessor left in the pipe"),
      ])
    profile.limits.fileSize = nil  // a back end may be a file
    profile.limits.addressSpace = 512 << 20
    return profile
  }

  /// The VGA: its video memory, and nothing besides.
  public static var vga: SandboxProfile {
    var profile = device(
      "vga",
      [
        SyscallRule("pwrite64", "a picture of the screen, into memory that came with the request"),
        fileSize,
      ])
    // RLIMIT_FSIZE counts for memfds too: 4096 by 4096 pixels of 4 bytes.
    profile.limits.fileSize = 64 << 20
    profile.limits.memory = 512 << 20  // video memory counts
    profile.limits.addressSpace = 1 << 30  // with 256 MiB of video memory at most
    return profile
  }

  /// The monitor: clients on sockets that the launcher made, and the core.
  public static var monitor: SandboxProfile {
    var profile = SandboxProfile(
      "monitor",
      channels + [
        SyscallRule("accept4", "a client connects to one of the sockets the launcher made"),
        SyscallRule("read", "what clients send"),
        .seldom("memfd_create", "memory that a picture of the screen is drawn into"),
        .seldom("ftruncate", "the size of that memory"),
        .seldom("fcntl", [.equals(argument: 1, 1033)], "F_ADD_SEALS: sealing it"),
      ])
    profile.holdings = holdings("monitor")
    profile.limits.spareDescriptors = 64
    profile.limits.fileSize = nil  // the files of pmemsave are as large as guest memory
    profile.limits.memory = 256 << 20
    profile.limits.tasks = 4
    profile.limits.addressSpace = 1 << 30
    return profile
  }

  /// Every profile: those of a machine's processes, and that of the image tool.
  public static var all: [SandboxProfile] {
    [core, softCore, piix, ide, serial, vga, monitor, imageTool]
  }
}
