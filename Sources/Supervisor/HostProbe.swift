// SPDX-License-Identifier: Apache-2.0

internal import KVM
public import LinuxSystem
public import MachineFile

/// Finds out what the host has.
public struct HostProbe: Sendable {
  /// Where the distribution's package puts SeaBIOS.
  public static let seaBIOS = "/usr/share/seabios/bios-256k.bin"
  /// Where it puts the VGA BIOS.
  public static let vgaBIOS = "/usr/share/seabios/vgabios-stdvga.bin"

  /// /dev/kvm, when it is usable.
  public let kvm: Descriptor?
  /// What validation wants to know.
  public let facts: HostFacts

  /// Looks at this host.
  ///
  /// /dev/kvm is opened; nothing is changed.
  public init(kvmPath: String = "/dev/kvm") {
    var descriptor: Descriptor?
    var state = HostFacts.KVM.missing
    var most = 1
    do throws(SystemError) {
      let file = try Files.open(kvmPath, .readWrite)
      do throws(KVMError) {
        most = try KVMSystem(descriptor: file).maximumVCPUs
        descriptor = file
        state = .usable
      } catch {
        state = .unusable("\(error)")
      }
    } catch {
      state = error.isMissing ? .missing : .unusable("\(error)")
    }
    kvm = descriptor
    facts = HostFacts(
      kvm: state, maximumCPUs: most, memoryByteCount: Self.memoryByteCount(),
      seaBIOS: Self.present(Self.seaBIOS), vgaBIOS: Self.present(Self.vgaBIOS))
  }

  private static func present(_ path: String) -> String? {
    HostFileInspector().status(of: path).kind == .regular ? path : nil
  }

  /// The host's memory, by /proc/meminfo's first line; without one there is no limit.
  private static func memoryByteCount() -> UInt64 {
    guard let text = try? Files.open("/proc/meminfo", .readOnly).readToEnd(most: 4096),
      let line = String(decoding: text, as: UTF8.self).split(separator: "\n").first,
      let number = line.split(separator: " ").compactMap({ UInt64($0) }).first
    else { return .max }
    return number << 10
  }
}

extension ParsedMachine {
  /// Checks everything about this machine that can be known before a process starts.
  ///
  /// Files are opened to see whether they can be, and closed again; nothing is changed.
  public func check(_ host: HostProbe) throws(LaunchError) {
    do throws(MachineFileError) {
      try validate(against: host.facts, files: HostFileInspector(imageLockProbe: Self.isInUse))
      _ = try openFirmware(host)
      _ = try openVGABIOS(host)
      _ = try openBoot(host)
    } catch {
      throw LaunchError("\(error)")
    }
  }

  private static func isInUse(_ path: String, forWriting: Bool) -> Bool {
    guard let file = try? Files.open(path, [.readOnly, .noWait]) else { return false }
    do throws(ImageLock.Failure) {
      try ImageLock.test(file, isReadOnly: !forWriting)
    } catch {
      return error == .inUse
    }
    return false
  }

  /// The path of the firmware.
  var firmwarePath: String {
    switch machine.firmware {
    case .seaBIOS: HostProbe.seaBIOS
    case .path(let path): path
    }
  }

  func openFirmware(_ host: HostProbe) throws(MachineFileError) -> Descriptor {
    let file = try openROM(firmwarePath, "machine.firmware")
    let size = file.byteCount
    guard size > 0, size % 65536 == 0, size <= 4 << 20 else {
      throw error(
        "machine.firmware", "\"\(firmwarePath)\" has \(size) bytes",
        remedy: "accepted: a multiple of 64 KiB, at most 4 MiB")
    }
    return file.file
  }

  func openVGABIOS(_ host: HostProbe) throws(MachineFileError) -> Descriptor {
    let path = machine.vgaBIOS ?? HostProbe.vgaBIOS
    let file = try openROM(path, "machine.vga-bios")
    guard file.byteCount > 0, file.byteCount % 512 == 0, file.byteCount <= 65536 else {
      throw error(
        "machine.vga-bios", "\"\(path)\" has \(file.byteCount) bytes",
        remedy: "accepted: a multiple of 512 bytes, at most 64 KiB")
    }
    return file.file
  }

  private func openROM(
    _ path: String, _ key: String
  ) throws(MachineFileError) -> (file: Descriptor, byteCount: UInt64) {
    do throws(SystemError) {
      let file = try Files.open(path, [.readOnly, .noWait])
      return (file, file.isRegularFile ? try file.size() : 0)
    } catch {
      throw self.error(
        key, "\"\(path)\" cannot be opened: \(SystemError.text(error.number))",
        remedy: "accepted: a readable firmware image")
    }
  }
}
