// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
public import LinuxSystem
internal import MachineFile

/// The files of a kernel that is started directly, open for reading.
public struct BootFiles: Sendable {
  /// The option ROM that loads the kernel through fw_cfg.
  public let loader: Descriptor
  public let kernel: Descriptor
  public let initrd: Descriptor?
}

extension HostProbe {
  /// The option ROMs that load a bzImage, and other kernels, from Debian's package
  /// qemu-system-data.
  static let linuxLoader = "/usr/share/qemu/linuxboot_dma.bin"
  static let multibootLoader = "/usr/share/qemu/multiboot_dma.bin"
}

extension ParsedMachine {
  /// Opens the files of direct boot; `nil` when the machine starts from a drive.
  func openBoot(_ host: HostProbe) throws(MachineFileError) -> BootFiles? {
    guard let path = machine.boot.kernel else { return nil }
    let line = machine.boot.commandLine ?? ""
    guard line.utf8.count <= PIIXSettings.longestCommandLine, !line.utf8.contains(0) else {
      throw error(
        "boot.cmdline", "the command line has \(line.utf8.count) bytes or a zero in it",
        remedy: "accepted: at most \(PIIXSettings.longestCommandLine) bytes")
    }
    let (kernel, size) = try openPart(path, "boot.kernel", "a readable kernel")
    guard let loaderPath = Self.loader(of: kernel) else {
      throw error(
        "boot.kernel", "\"\(path)\" is no kernel that can be started directly",
        remedy: "accepted: a bzImage as it is in /boot (vmlinuz), an ELF file with PVH's note "
          + "(vmlinux), a Multiboot kernel")
    }
    var total = size
    var initrd: Descriptor?
    if let path = machine.boot.initrd {
      let (file, size) = try openPart(path, "boot.initrd", "a readable initial RAM disk")
      initrd = file
      total += size
    }
    let room = machine.memory.byteCount
    guard total < room, room - total >= 32 << 20 else {
      throw error(
        "machine.memory",
        "\(machine.memory) is too little for a kernel and initial RAM disk of \(total) bytes",
        remedy: "accepted: at least 32 MiB more than both")
    }
    let loader: Descriptor
    do throws(SystemError) {
      loader = try Files.open(loaderPath, [.readOnly, .noWait])
    } catch {
      throw self.error(
        "boot.kernel",
        "\"\(loaderPath)\" cannot be opened: \(SystemError.text(error.number))",
        remedy: "install the package qemu-system-data")
    }
    return BootFiles(loader: loader, kernel: kernel, initrd: initrd)
  }

  /// The option ROM for a kernel, `nil` for what is none.
  ///
  /// Only the magic numbers are looked at: the device that hands the kernel on, locked down, reads
  /// the rest.
  private static func loader(of kernel: Descriptor) -> String? {
    let head = (try? kernel.read(8192, at: 0)) ?? []
    if head.count >= 1024, Array(head[0x202..<0x206]) == Array("HdrS".utf8), head[0x1FE] == 0x55 {
      return HostProbe.linuxLoader
    }
    let isELF = head.starts(with: [0x7F, 0x45, 0x4C, 0x46])
    // Multiboot's magic number, at a word's place.
    let hasMagic = stride(from: 0, to: max(head.count - 11, 0), by: 4).contains { place in
      head[place] == 0x02 && head[place + 1] == 0xB0 && head[place + 2] == 0xAD
        && head[place + 3] == 0x1B
    }
    return isELF || hasMagic ? HostProbe.multibootLoader : nil
  }

  private func openPart(_ path: String, _ key: String, _ accepted: String)
    throws(MachineFileError) -> (Descriptor, UInt64)
  {
    do throws(SystemError) {
      let file = try Files.open(path, [.readOnly, .noWait])
      let size = file.isRegularFile ? try file.size() : 0
      guard size > 0, size < 1 << 31 else {
        throw SystemError("open", 22)
      }
      return (file, size)
    } catch {
      throw self.error(
        key, "\"\(path)\" cannot be used: \(SystemError.text(error.number))",
        remedy: "accepted: \(accepted)")
    }
  }
}
