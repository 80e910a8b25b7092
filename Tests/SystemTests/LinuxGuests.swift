// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import Testing

/// Debian's kernels, as `deploy/test` fetches them, and what runs under them.
enum LinuxGuests {
  private static let folder = "\(Requirements.repository)/.build/guests"
  static let cloudKernel = "\(folder)/vmlinuz"
  static let standardKernel = "\(folder)/vmlinuz-amd64"
  /// A Multiboot kernel.
  static let xen = "\(folder)/xen"

  /// What is needed and not there.
  static let missing: [String] = {
    var result: [String] = []
    for (kernel, package) in [
      (cloudKernel, ""), (standardKernel, "linux-image-amd64 "), (xen, "xen-system-amd64 "),
    ] where !FileManager.default.fileExists(atPath: kernel) {
      result.append("\(kernel) (deploy/fetch-kernel \(package)\(kernel))")
    }
    for loader in ["linuxboot_dma.bin", "multiboot_dma.bin"]
    where !FileManager.default.fileExists(atPath: "/usr/share/qemu/\(loader)") {
      result.append("\(loader) (package qemu-system-data)")
    }
    for program in ["gcc", "cpio", "lz4"] where Tool.find(program) == nil {
      result.append(program)
    }
    return result
  }()

  /// Builds a program that is the same for the host and as a guest's first process.
  static func build(_ source: String, in scratch: Scratch) throws -> String {
    let program = scratch["program"]
    try Tool.run(
      "gcc",
      [
        "-O2", "-fno-strict-aliasing", "-static", "-pthread", "-mcx16",
        "\(Requirements.repository)/\(source)", "-o", program,
      ], in: scratch)
    let makeInitrd = "\(Requirements.repository)/deploy/make-linux-initrd"
    try Tool.run(makeInitrd, [scratch["initrd.img"], program], in: scratch)
    return program
  }

  /// A machine that starts a kernel with the initial RAM disk of ``build(_:in:)``.
  static func machine(kernel: String, cpus: Int, arguments: String) -> MachineFile {
    var file = MachineFile(accelerator: "soft", cpus: cpus, memory: "512MiB")
    file.hasExitPort = false
    // The kernel shouts about each fault of process 1, also one that is handled, into the middle
    // of that process's own lines: it is told not to.
    file.extra = """
      [boot]
      kernel = "\(kernel)"
      initrd = "initrd.img"
      cmdline = "console=ttyS0 loglevel=1 sysctl.debug.exception-trace=0 \(arguments)"
      """
    return file
  }
}
