// SPDX-License-Identifier: Apache-2.0

import LinuxSystem
import Testing

@testable import Sandbox

@Suite("An isolation report")
struct ReportTests {
  static var sample: IsolationReport {
    var report = IsolationReport()
    report.profile = "ide"
    report.namespaces = NamespaceIdentities(numbers: [1, 2, 3, 4, 5, 6, 0xF000_0001])
    report.ownNamespaces = [.user, .mount]
    report.capabilities =
      ProcessStatus("CapInh:\t0\nCapPrm:\t0\nCapEff:\t0\nCapBnd:\t5\nCapAmb:\t0")
      .capabilities
    report.noNewPrivileges = true
    report.isDumpable = false
    report.secureBits = 0xEF
    report.seccompMode = 2
    report.seccompFilters = 1
    report.seccompRules = 31
    report.landlock = 7
    report.rootEntries = 0
    report.rootIsReadOnly = true
    report.mounts = 1
    report.limits = [1, 2, 3, 4, 5, .max]
    report.threads = 3
    report.missing = [IsolationReport.Missing(.memoryDenyExecute, "Ünïcode reason")]
    return report
  }

  @Test("survives encoding and decoding")
  func roundTrip() {
    #expect(IsolationReport(Self.sample.encoded()) == Self.sample)
  }

  @Test("is refused when it is cut short anywhere, or too long")
  func rejectsBadLength() {
    let bytes = Self.sample.encoded()
    for count in 0..<bytes.count { #expect(IsolationReport(Array(bytes.prefix(count))) == nil) }
    #expect(IsolationReport(bytes + [0]) == nil)
  }

  @Test("is refused with an unknown version or layer")
  func rejectsUnknown() {
    var bytes = Self.sample.encoded()
    bytes[0] = 2
    #expect(IsolationReport(bytes) == nil)
    var report = Self.sample
    report.missing = [IsolationReport.Missing(.seccomp, "")]
    bytes = report.encoded()
    bytes[bytes.count - 2] = 200
    #expect(IsolationReport(bytes) == nil)
  }

  @Test("is one line of what holds and what is missing")
  func describes() {
    #expect(
      Self.sample.description
        == "user mount namespaces; root empty and read-only; no-new-privs; not dumpable; "
        + "landlock abi 7; seccomp 2 (31 rules); 4 descriptors at most; "
        + "MISSING no new executable memory (Ünïcode reason)")
    #expect(IsolationReport().description == "none")
  }
}

@Suite("What /proc says of a process")
struct ProcParsingTests {
  @Test("its status")
  func status() {
    let status = ProcessStatus(
      """
      Name:\tvmdev ide
      Uid:\t100003\t100003\t100003\t100003
      Gid:\t7\t7\t7\t7
      Threads:\t4
      CapInh:\t0000000000000001
      CapPrm:\t0000000000000002
      CapEff:\t0000000000000004
      CapBnd:\t000001ffffffffff
      CapAmb:\t0000000000000000
      NoNewPrivs:\t1
      Seccomp:\t2
      Seccomp_filters:\t3
      """)
    #expect(status.name == "vmdev ide")
    #expect(status.users == [100003, 100003, 100003, 100003])
    #expect(status.groups == [7, 7, 7, 7])
    #expect(status.threads == 4)
    #expect(status.capabilities.inheritable == 1)
    #expect(status.capabilities.permitted == 2)
    #expect(status.capabilities.effective == 4)
    #expect(status.capabilities.bounding == 0x1FF_FFFF_FFFF)
    #expect(status.capabilities.ambient == 0)
    #expect(!status.capabilities.isEmpty)
    #expect(status.noNewPrivileges)
    #expect(status.seccompMode == 2)
    #expect(status.seccompFilters == 3)
  }

  @Test("a status without the lines counts as unconfined")
  func emptyStatus() {
    let status = ProcessStatus("garbage\n:\nCapEff:\tzz\n")
    #expect(status.capabilities.effective == .max)
    #expect(!status.capabilities.isEmpty)
    #expect(!status.noNewPrivileges)
    #expect(status.seccompMode == 0)
  }

  @Test("its namespaces")
  func namespaces() {
    #expect(NamespaceIdentities.number(inLink: "mnt:[4026531841]") == 4_026_531_841)
    #expect(NamespaceIdentities.number(inLink: "mnt:4026531841") == 0)
    #expect(NamespaceIdentities.number(inLink: "[") == 0)
    #expect(NamespaceIdentities("1,2,3,4,5,6,7")?.numbers == [1, 2, 3, 4, 5, 6, 7])
    #expect(NamespaceIdentities("1,2,3,4,5,6") == nil)
    #expect(NamespaceIdentities("1,2,3,4,5,6,x") == nil)
  }

  @Test("its memory")
  func maps() {
    let area = MemoryArea(
      "7f10a000-7f10c000 r-xp 00001000 fe:00 131 /usr/lib/a library.so")
    #expect(area?.range == 0x7F10_A000..<0x7F10_C000)
    #expect(area?.permissions == "r-xp")
    #expect(area?.path == "/usr/lib/a library.so")
    #expect(MemoryArea("7f10a000-7f10c000 rw-p 00000000 00:00 0")?.path == "")
    #expect(MemoryArea("7f10c000-7f10a000 rw-p 00000000 00:00 0") == nil)
    #expect(MemoryArea("nonsense") == nil)
  }

  @Test("its mounts")
  func mounts() {
    let entry = MountEntry("36 35 98:0 /sub / ro,nosuid master:1 - tmpfs none rw,size=4k")
    #expect(entry?.target == "/")
    #expect(entry?.options == ["ro", "nosuid"])
    #expect(entry?.type == "tmpfs")
    #expect(MountEntry("36 35 98:0 / / ro") == nil)
  }

  @Test("its limits")
  func limits() {
    let text = """
      Limit                     Soft Limit           Hard Limit           Units     
      Max core file size        0                    7                    bytes     
      Max open files            1024                 unlimited            files     
      """
    let limits = ProcessAudit.limits(text)
    #expect(limits["Max core file size"] == 7)
    #expect(limits["Max open files"] == .max)
    #expect(limits.count == 2)
  }

  @Test("the whole of it, for the test process itself")
  func ownProcess() throws {
    let audit = try ProcessAudit(pid: ThisProcess.id)
    #expect(audit.files.map(\.number).contains(0))
    #expect(audit.areas.contains { $0.permissions == "r-xp" })
    #expect(audit.mounts.contains { $0.target == "/" })
    #expect(audit.status.threads >= 1)
  }
}

@Suite("A sandbox profile")
struct ProfileTests {
  @Test("makes a filter that libseccomp accepts", arguments: SandboxProfile.all.map(\.name))
  func builds(name: String) throws {
    let profile = try #require(SandboxProfile.all.first { $0.name == name })
    _ = try profile.makeFilter()
  }

  @Test("gives a reason for each rule", arguments: SandboxProfile.all.map(\.name))
  func reasons(name: String) throws {
    let profile = try #require(SandboxProfile.all.first { $0.name == name })
    #expect(profile.allRules.allSatisfy { !$0.reason.isEmpty })
  }

  @Test(
    "never allows what opens, executes, traces or changes identity",
    arguments: SandboxProfile.all.map(\.name))
  func forbidden(name: String) throws {
    let profile = try #require(SandboxProfile.all.first { $0.name == name })
    let never: Set = [
      "open", "openat", "openat2", "execve", "execveat", "fork", "vfork", "clone3", "ptrace",
      "mount", "umount2", "unshare", "setns", "socket", "connect", "bind", "setuid", "setresuid",
      "kill", "process_vm_readv", "process_vm_writev", "bpf", "io_uring_setup", "userfaultfd",
      "pkey_mprotect", "memfd_secret", "keyctl", "personality", "init_module", "kexec_load",
    ]
    #expect(profile.allRules.filter { $0.answer == .allow && never.contains($0.call) }.isEmpty)
    let code = profile.allRules.filter { ["mmap", "mprotect"].contains($0.call) }
    #expect(code.allSatisfy { $0.conditions == [.masked(argument: 2, mask: 4, 0)] })
  }

  @Test("lets the core ask of KVM what a reset and its end need, and no more")
  func requests() {
    let numbers = Set(SandboxProfile.kvmRequests.map(\.request))
    let allowed = SandboxProfile.core.allRules.filter { $0.call == "ioctl" }

    #expect(numbers.count == SandboxProfile.kvmRequests.count)
    #expect(
      Set(allowed.map(\.conditions))
        == Set(
          numbers.map {
            [.equals(argument: 1, UInt32($0))]
          }))
    #expect(numbers.isSuperset(of: [KVMRequest.run, KVMRequest.setLAPIC, KVMRequest.getLAPIC]))
    // A machine is made before the core is sealed.
    #expect(
      numbers.isDisjoint(with: [
        KVMRequest.createVM, KVMRequest.createVCPU, KVMRequest.createIRQChip,
        KVMRequest.setCPUID, KVMRequest.enableCapability, KVMRequest.setGSIRouting,
      ]))
  }

  @Test("a profile has no rule for what its process never does")
  func unused() {
    let calls = Dictionary(
      SandboxProfile.all.map { ($0.name, Set($0.allRules.map(\.call))) },
      uniquingKeysWith: { $0.union($1) })

    #expect(calls["core"]?.contains("getsockopt") == false)
    #expect(calls["vga"]?.contains("pread64") == false)
    #expect(calls["serial"]?.contains("fallocate") == false)
    // F_OFD_GETLK, F_OFD_SETLK and F_DUPFD_CLOEXEC.
    let commands: Set<[SystemCallFilter.Condition]> = [
      [.equals(argument: 1, 36)], [.equals(argument: 1, 37)], [.equals(argument: 1, 1030)],
    ]
    for profile in SandboxProfile.all {
      let rules = profile.allRules.filter { $0.call == "fcntl" }
      #expect(commands.isDisjoint(with: rules.map(\.conditions)), "\(profile.name)")
    }
  }

  @Test("refuses a system call that does not exist")
  func unknownCall() {
    let profile = SandboxProfile("bad", [SyscallRule("no_such_call", [], "none")])
    #expect(throws: SystemError.self) { try profile.makeFilter() }
  }
}
